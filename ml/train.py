"""`python -m ml.train`: data set in, model, report and plots out; a process of its own.

Writes to the output folder `model.keras`, `report.json`, `ranking.png` and `calibration.png`.
Progress goes to standard output, a line at a time.
"""

import argparse
from pathlib import Path

import msgspec
import polars as pl

from ml.dataset import Split
from ml.evaluation import calibration
from ml.plots import calibration_plot, ranking_plot
from ml.reports import TrainingReport


def train_files(dataset_file: Path, out: Path, seed: int) -> TrainingReport:
    """Train on a data set file and write the results."""
    from ml.training import predict, score_model, to_rows, train  # TensorFlow: 11 s

    dataset = pl.read_parquet(dataset_file)
    trained = train(dataset, seed=seed, progress=lambda line: print(line, flush=True))
    parts = dataset.partition_by("split", as_dict=True)
    scores = {str(name): score_model(trained.model, rows) for (name,), rows in parts.items()}
    held_out = to_rows(parts[(Split.HOLDOUT.value,)])
    probabilities = predict(trained.model, held_out)
    trained.model.save(out / "model.keras")
    plot = calibration_plot(calibration(held_out.irrigate, probabilities))
    (out / "calibration.png").write_bytes(plot)
    if scores[Split.HOLDOUT].auc is not None:
        plot = ranking_plot(held_out.irrigate, probabilities, held_out.soil_7d_avg)
        (out / "ranking.png").write_bytes(plot)
    aucs = {str(l2): auc for l2, auc in trained.cross_validation_auc.items()}
    report = TrainingReport(seed, trained.l2, trained.epochs, aucs, scores)
    (out / "report.json").write_bytes(msgspec.json.encode(report))
    return report


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    train_files(arguments.dataset, arguments.out, arguments.seed)


if __name__ == "__main__":
    main()
