"""Scores of a classifier on rows it has never seen, next to the baseline it must beat.

The baseline is one number a farmer can read off a display: the seven-day mean of soil moisture at
5 cm, the drier the likelier to irrigate (hence the minus sign).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

THRESHOLD = 0.5
CALIBRATION_BINS = 10


@dataclass(frozen=True)
class Score:
    """How well probabilities of `irrigate` rank and fit the labels of one split."""

    rows: int
    positives: int
    auc: float | None
    baseline_auc: float | None
    average_precision: float | None
    brier: float
    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    def as_dict(self) -> dict[str, float | int | None]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class CalibrationBin:
    """Mean predicted probability against the share of labels, in one tenth of the range."""

    predicted: float
    observed: float
    rows: int


def score(labels: Bools, probabilities: Floats, soil_7d_avg: Floats) -> Score:
    """Score one split; AUCs are None where only one class is there to rank."""
    predicted = probabilities > THRESHOLD
    ranked = bool(labels.any() and not labels.all())
    return Score(
        rows=len(labels),
        positives=int(labels.sum()),
        auc=float(roc_auc_score(labels, probabilities)) if ranked else None,
        baseline_auc=float(roc_auc_score(labels, -soil_7d_avg)) if ranked else None,
        average_precision=(
            float(average_precision_score(labels, probabilities)) if ranked else None
        ),
        brier=float(brier_score_loss(labels, probabilities)),
        true_positive=int((predicted & labels).sum()),
        false_positive=int((predicted & ~labels).sum()),
        false_negative=int((~predicted & labels).sum()),
        true_negative=int((~predicted & ~labels).sum()),
    )


def calibration(labels: Bools, probabilities: Floats) -> list[CalibrationBin]:
    """Reliability in ten equal bins of probability; empty bins are left out."""
    bins = np.minimum((probabilities * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return [
        CalibrationBin(
            predicted=float(probabilities[bins == number].mean()),
            observed=float(labels[bins == number].mean()),
            rows=int((bins == number).sum()),
        )
        for number in np.unique(bins)
    ]


def mean_auc(scores: Sequence[Score]) -> float:
    """Mean of the AUCs that are defined; 0.5 where none is."""
    known = [s.auc for s in scores if s.auc is not None]
    return float(np.mean(known)) if known else 0.5
