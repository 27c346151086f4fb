"""What training and conversion write as JSON; loads neither TensorFlow nor MLflow."""

from typing import Any

import msgspec

from ml.evaluation import Score


class Quantisation(msgspec.Struct, frozen=True):
    """How real features become the model's INT8 input, and its output probabilities.

    An INT8 tensor has one scale for all seven inputs, too coarse for a slope of 0.3 %/day beside a
    moisture of 30 %. So the device standardises first, with what the signed manifest carries:
    q_i = round((x_i - mean_i) / (deviation_i · scale)) + zero_point, saturated to -128 … 127.
    """

    feature_mean: list[float]
    feature_deviation: list[float]
    input_scale: float
    input_zero_point: int
    output_scale: float
    output_zero_point: int

    def as_dict(self) -> dict[str, Any]:
        """The `quantization` of a release manifest."""
        return {"dtype": "int8", **msgspec.to_builtins(self)}


class TrainingReport(msgspec.Struct, frozen=True):
    """What the lineage needs to know of a training."""

    seed: int
    l2: float
    epochs: int
    cross_validation_auc: dict[str, float]
    scores: dict[str, Score]


class ConversionReport(msgspec.Struct, frozen=True):
    """What the lineage needs to know of a conversion."""

    quantisation: Quantisation
    size_bytes: int
    float_score: Score
    int8_score: Score
    max_probability_difference: float
