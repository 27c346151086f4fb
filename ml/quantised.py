"""Running the INT8 model as the device does, with LiteRT; TensorFlow is not loaded.

An input tensor of INT8 has one scale for all seven inputs, too coarse for a slope of 0.3 %/day
beside a moisture of 30 %. So the device standardises first, with the means and deviations that the
signed manifest carries: q_i = round((x_i - mean_i) / (deviation_i · scale)) + zero_point, saturated
to -128 … 127.
"""

from typing import Any

import msgspec
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from ml.evaluation import Floats

INT8_MIN, INT8_MAX = -128, 127


class Quantisation(msgspec.Struct, frozen=True):
    """How real numbers map to the model's INT8 tensors and back."""

    feature_mean: list[float]
    feature_deviation: list[float]
    input_scale: float
    input_zero_point: int
    output_scale: float
    output_zero_point: int

    def as_dict(self) -> dict[str, Any]:
        """The `quantization` of a release manifest."""
        return {"dtype": "int8", **msgspec.to_builtins(self)}

    def quantise(self, inputs: NDArray[np.float32]) -> NDArray[np.int8]:
        """Raw features to the model's input."""
        standardised = (inputs - np.array(self.feature_mean)) / np.array(self.feature_deviation)
        steps = np.round(standardised / self.input_scale) + self.input_zero_point
        return np.clip(steps, INT8_MIN, INT8_MAX).astype(np.int8)

    def dequantise(self, outputs: NDArray[np.int8]) -> Floats:
        """The model's output to probabilities."""
        return (outputs.astype(np.float64) - self.output_zero_point) * self.output_scale


def tensor_quantisation(model: bytes) -> tuple[float, int, float, int]:
    """Input scale and zero point, output scale and zero point; ValueError unless both are INT8."""
    interpreter = Interpreter(model_content=model)
    tensors = (interpreter.get_input_details()[0], interpreter.get_output_details()[0])
    if any(tensor["dtype"] is not np.int8 for tensor in tensors):
        raise ValueError("the model's input and output are not INT8")
    (input_scale, input_zero), (output_scale, output_zero) = (t["quantization"] for t in tensors)
    return float(input_scale), int(input_zero), float(output_scale), int(output_zero)


def run_int8(model: bytes, quantisation: Quantisation, inputs: NDArray[np.float32]) -> Floats:
    """Class probabilities for raw feature rows, shape [rows, classes]."""
    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]
    outputs = []
    for row in quantisation.quantise(inputs):
        interpreter.set_tensor(source, row[np.newaxis])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(target)[0].copy())
    return quantisation.dequantise(np.stack(outputs))
