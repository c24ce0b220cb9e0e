"""A builder of int8 models: random students in the form of exported ones.

As `export` quantises, less the correction of biases, which changes no time, and without torch.
"""

import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

_QUANTISED = ("Conv", "Relu", "Clip", "MaxPool", "Add")
_PREPROCESSED = {"onnx.quant.pre_process": "onnxruntime.quant"}
_ERRORS_ONLY = 3


def quantised_model(model: onnx.ModelProto, examples: NDArray[np.float32]) -> onnx.ModelProto:
    """Return a model of `networks.student_model`, made with `int8`, in 8 bits.

    Activations have the ranges that they take on `examples` (N, C, H, W).
    """
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    # Or onnxruntime advises, on stderr, to fold and infer shapes first, which has been done.
    helper.set_model_props(prepared, _PREPROCESSED)
    onnxruntime.set_default_logger_severity(_ERRORS_ONLY)
    reads = prepared.graph.input[0].name
    normalised = {node.output[0] for node in prepared.graph.node if node.op_type == "Mul"}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        target = Path(folder) / "int8.onnx"
        quantize_static(
            prepared,
            target,
            _OneBatchReader({reads: examples}),
            quant_format=QuantFormat.QOperator,
            op_types_to_quantize=list(_QUANTISED),
            nodes_to_exclude=[n.name for n in prepared.graph.node if n.input[0] in normalised],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        return onnx.load(target)


class _OneBatchReader(CalibrationDataReader):  # type: ignore[misc]
    """Hands one batch to the calibration."""

    def __init__(self, batch: dict[str, NDArray[np.float32]]) -> None:
        self._batches = [batch]

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Return the batch, then None."""
        return self._batches.pop() if self._batches else None
