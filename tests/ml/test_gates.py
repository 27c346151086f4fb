"""Scores, gates and the quantised arithmetic."""

import numpy as np
import pytest

from ml.evaluation import Score, calibration, mean_auc, score
from ml.plots import calibration_plot, ranking_plot
from ml.process import run_module
from ml.promotion import beats_baseline, survives_quantisation
from ml.quantised import dequantise, quantise
from ml.reports import Quantisation
from zenthos_core.errors import TrainingError

LABELS = np.array([True, True, False, False])
PROBABILITIES = np.array([0.9, 0.6, 0.7, 0.1])
SOIL = np.array([10.0, 30.0, 20.0, 40.0])


def scored(auc: float | None, baseline: float | None, rows: int = 100) -> Score:
    return Score(rows, 50, auc, baseline, 0.9, 0.1, 40, 10, 10, 40)


def test_scores_of_four_rows() -> None:
    found = score(LABELS, PROBABILITIES, SOIL)
    assert (found.auc, found.baseline_auc) == (0.75, 0.75)
    counts = (found.true_positive, found.false_positive, found.false_negative, found.true_negative)
    assert counts == (2, 1, 0, 1)
    assert found.as_dict()["rows"] == 4


def test_one_class_has_no_auc() -> None:
    found = score(np.array([True, True]), np.array([0.1, 0.2]), np.array([1.0, 2.0]))
    assert found.auc is None
    assert mean_auc([found]) == 0.5
    assert mean_auc([found, scored(0.8, 0.7)]) == 0.8


def test_drier_soil_is_likelier_irrigated_in_the_baseline() -> None:
    assert score(np.array([True, False]), np.array([0.5, 0.5]), np.array([10.0, 30.0])).baseline_auc


def test_calibration_and_plots() -> None:
    bins = calibration(LABELS, PROBABILITIES)
    assert sum(b.rows for b in bins) == 4
    for png in (calibration_plot(bins), ranking_plot(LABELS, PROBABILITIES, SOIL)):
        assert png.startswith(b"\x89PNG")


def test_only_a_model_that_beats_the_baseline_passes() -> None:
    assert beats_baseline(scored(0.93, 0.87)).passed
    assert "does not beat" in str(beats_baseline(scored(0.87, 0.87)))
    assert "one class" in str(beats_baseline(scored(None, None)))
    assert "at least 20" in str(beats_baseline(scored(0.9, 0.8, rows=5)))
    assert str(beats_baseline(scored(0.93, 0.87))) == "passed"


def test_a_quantised_model_must_do_what_the_float_model_does() -> None:
    assert survives_quantisation(0.93, 0.93, 0.02, 0.87).passed
    assert "costs 0.030" in str(survives_quantisation(0.93, 0.90, 0.02, 0.87))
    assert "moved by 0.300" in str(survives_quantisation(0.93, 0.93, 0.3, 0.87))
    assert "baseline" in str(survives_quantisation(0.875, 0.87, 0.02, 0.87))


def test_features_are_standardised_then_quantised_and_saturated() -> None:
    quantisation = Quantisation([20.0, 0.0], [5.0, 1.0], 0.05, -10, 1 / 256, -128)
    inputs = np.array([[20.0, 0.0], [25.0, -0.5], [1000.0, -1000.0]], dtype=np.float32)
    assert quantise(quantisation, inputs).tolist() == [[-10, -10], [10, -20], [127, -128]]
    assert dequantise(quantisation, np.array([-128, 0], dtype=np.int8)).tolist() == [0.0, 0.5]
    assert quantisation.as_dict()["dtype"] == "int8"


def test_a_failing_process_is_reported_with_its_last_words() -> None:
    with pytest.raises(TrainingError, match="No module named"):
        run_module("ml.unheard_of", [], timeout_s=60, on_line=print)


def test_a_process_that_hangs_is_stopped() -> None:
    with pytest.raises(TrainingError, match="ran out of its 1 s"):
        run_module("http.server", ["0"], timeout_s=1.0, on_line=print)
