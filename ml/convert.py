"""`python -m ml.convert`: Keras model to full INT8 TFLite, checked against the float model.

Writes `model.tflite` and `report.json` to the output folder; a process of its own, as it loads
TensorFlow. The representative data are rows that were trained on; the comparison is on held-out
rows, with LiteRT running the bytes that will be shipped.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.dataset import Split
from ml.evaluation import score
from ml.quantised import run_int8, tensor_quantisation
from ml.reports import ConversionReport, Quantisation

REPRESENTATIVE_ROWS: Final = 1_000


def convert_files(model_file: Path, dataset_file: Path, out: Path) -> ConversionReport:
    """Convert, compare on the held-out rows, and write the results."""
    import keras

    from ml.training import NORMALISATION, OUTPUT_CLASSES, predict, to_rows

    model = keras.models.load_model(model_file)
    normalise = model.get_layer(NORMALISATION)
    dataset = pl.read_parquet(dataset_file)
    trained_on = to_rows(dataset.filter(pl.col("split") == Split.TRAIN.value))
    held_out = to_rows(dataset.filter(pl.col("split") == Split.HOLDOUT.value))
    standardised = np.asarray(normalise(trained_on.inputs), dtype=np.float32)
    tflite = to_int8(model, standardised[:: max(1, len(standardised) // REPRESENTATIVE_ROWS)])
    quantisation = Quantisation(
        _values(normalise.mean), _values(np.sqrt(normalise.variance)), *tensor_quantisation(tflite)
    )
    column = OUTPUT_CLASSES.index("irrigate")
    as_float = predict(model, held_out)
    as_int8 = run_int8(tflite, quantisation, held_out.inputs)[:, column]
    report = ConversionReport(
        quantisation,
        len(tflite),
        score(held_out.irrigate, as_float, held_out.soil_7d_avg),
        score(held_out.irrigate, as_int8, held_out.soil_7d_avg),
        float(np.abs(as_float - as_int8).max()),
    )
    (out / "model.tflite").write_bytes(tflite)
    (out / "report.json").write_bytes(msgspec.json.encode(report))
    return report


def to_int8(model: Any, standardised: NDArray[np.float32]) -> bytes:
    """Full INT8 flatbuffer of what follows the normalisation layer."""
    import keras
    import tensorflow as tf

    network = keras.Sequential([keras.Input((standardised.shape[1],)), *model.layers[1:]])

    def representative() -> Iterator[list[NDArray[np.float32]]]:
        for row in standardised:
            yield [row[np.newaxis]]

    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def _values(tensor: Any) -> list[float]:
    return [float(value) for value in np.asarray(tensor).ravel()]


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    convert_files(arguments.model, arguments.dataset, arguments.out)


if __name__ == "__main__":
    main()
