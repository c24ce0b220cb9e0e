"""Post-training quantisation: an ONNX model with 8-bit weights and activations.

Weights are int8, symmetric, one scale for each output channel; activations uint8, one scale for
each tensor, from their smallest and largest value over real inputs.
"""

import contextlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnxruntime
from onnx import helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from nonn_core.int8_preparation import correct_biases, norms_as_convolutions
from nonn_core.onnx_graph import ERRORS_ONLY, Array, lean

QUANTISED = ("Conv", "Relu", "Clip", "MaxPool", "Add")
"""Normalising the image, pooling, and an undivided network's FC layer stay float32."""

_BATCH = 32
_PREPROCESSED = {"onnx.quant.pre_process": "onnxruntime.quant"}


def quantised(model: onnx.ModelProto, examples: Array) -> onnx.ModelProto:
    """Return a float32 model in int8, calibrated on `examples` (N, ...), its real inputs.

    The form with operators of its own (QLinearConv ...), which is the smaller file.
    """
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    norms_as_convolutions(prepared)
    correct_biases(prepared, examples)
    # Or onnxruntime advises, on stderr, to fold and infer shapes first, which has been done.
    helper.set_model_props(prepared, _PREPROCESSED)
    # The calibration opens sessions of its own, which warn of every fold they skip.
    onnxruntime.set_default_logger_severity(ERRORS_ONLY)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        target = Path(folder) / "int8.onnx"
        quantize_static(
            prepared,
            target,
            _Examples(prepared.graph.input[0].name, examples),
            quant_format=QuantFormat.QOperator,
            op_types_to_quantize=list(QUANTISED),
            nodes_to_exclude=_first_convolutions(prepared),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        found = lean(onnx.load(target))
    onnx.checker.check_model(found)
    return found


def _first_convolutions(model: onnx.ModelProto) -> list[str]:
    """Name the convolutions that read the normalised image.

    They stay float32: few weights, and rounding what they read harms everything after them.
    """
    scaled = {node.output[0] for node in model.graph.node if node.op_type == "Mul"}
    return [node.name for node in model.graph.node if node.input[0] in scaled]


class _Examples(CalibrationDataReader):  # type: ignore[misc]
    """Hands examples to the calibration, batch by batch."""

    def __init__(self, reads: str, examples: Array) -> None:
        self._batches: Iterator[dict[str, Array]] = (
            {reads: examples[start : start + _BATCH]} for start in range(0, len(examples), _BATCH)
        )

    def get_next(self) -> dict[str, Array] | None:
        """Return the next batch, None after the last."""
        return next(self._batches, None)
