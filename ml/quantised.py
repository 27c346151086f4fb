"""Running the INT8 model as the device does, with LiteRT; TensorFlow is not loaded."""

from typing import Final

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from ml.evaluation import Floats
from ml.reports import Quantisation

INT8_MIN: Final = -128
INT8_MAX: Final = 127


def quantise(quantisation: Quantisation, inputs: NDArray[np.float32]) -> NDArray[np.int8]:
    """Raw features to the model's input."""
    mean, deviation = np.array(quantisation.feature_mean), np.array(quantisation.feature_deviation)
    steps = np.round((inputs - mean) / (deviation * quantisation.input_scale))
    shifted: NDArray[np.float64] = np.clip(
        steps + quantisation.input_zero_point, INT8_MIN, INT8_MAX
    )
    return shifted.astype(np.int8)


def dequantise(quantisation: Quantisation, outputs: NDArray[np.int8]) -> Floats:
    """The model's output to probabilities."""
    steps = outputs.astype(np.float64) - quantisation.output_zero_point
    return steps * quantisation.output_scale


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
    for row in quantise(quantisation, inputs):
        interpreter.set_tensor(source, row[np.newaxis])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(target)[0].copy())
    return dequantise(quantisation, np.stack(outputs))
