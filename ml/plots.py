"""Pictures of an evaluation, as PNG bytes."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from ml.evaluation import Bools, CalibrationBin, Floats


def ranking_plot(labels: Bools, probabilities: Floats, soil_7d_avg: Floats) -> bytes:
    """ROC and precision-recall curves of the model and of the baseline."""
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    roc, recall = figure.subplots(1, 2)
    for name, values in (("model", probabilities), ("7-day soil mean", -soil_7d_avg)):
        false_rate, true_rate, _ = roc_curve(labels, values)
        roc.plot(false_rate, true_rate, label=name)
        precision, sensitivity, _ = precision_recall_curve(labels, values)
        recall.plot(sensitivity, precision, label=name)
    roc.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    roc.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC, held out")
    recall.set(xlabel="recall", ylabel="precision", title="Precision-recall", ylim=(0, 1.02))
    roc.legend(loc="lower right")
    return _png(figure)


def calibration_plot(bins: Sequence[CalibrationBin]) -> bytes:
    """Observed share of `irrigate` against the predicted probability."""
    figure = Figure(figsize=(3.6, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    sizes = 20 + 180 * np.array([b.rows for b in bins]) / sum(b.rows for b in bins)
    axes.scatter([b.predicted for b in bins], [b.observed for b in bins], s=sizes)
    axes.set(xlabel="predicted", ylabel="observed", title="Calibration, held out")
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return buffer.getvalue()
