"""ONNX models as functions, and their post-training quantisation to int8.

Weights are int8, symmetric, one scale for each output channel; activations uint8, one scale
for each tensor, from their smallest and largest value over real inputs.  Before that, while
all values are still float32, normalisations become convolutions and biases are corrected for
what rounding the weights adds.  Other servers than our workers want the form QDQ, with weights of
7 bits.

Boards quantise models of random weights with this as well, so torch is loaded only by a session.
"""

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from nonn_core.export.bundle import ERRORS_ONLY, session_options

OPSET = 18

Array = NDArray[np.float32]
Inference = Callable[[Array], Array]
"""Maps a batch to a batch."""


def strip_notes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Strip the exporter's notes, which name source files, in place.

    No runtime needs them.
    """
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    for part in (model.graph.input, model.graph.output):
        for value in part:
            del value.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
    return model


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Open a model in onnxruntime, on as many threads as torch has."""
    import torch

    return onnxruntime.InferenceSession(
        model.SerializeToString(),
        session_options(torch.get_num_threads()),
        providers=["CPUExecutionProvider"],
    )


def inference(model: onnx.ModelProto) -> Inference:
    """Return a model of one input and one output as a function, run by onnxruntime."""
    opened = session(model)
    reads = opened.get_inputs()[0].name

    def run(batch: Array) -> Array:
        answer: Array = opened.run(None, {reads: batch})[0]
        return answer

    return run


QUANTISED = ("Conv", "Relu", "Clip", "MaxPool", "Add")
"""Normalising the image, pooling, and an undivided network's FC layer stay float32."""
QUANTISED_THROUGHOUT = (*QUANTISED, "GlobalAveragePool", "Reshape")

_CALIBRATION_BATCH = 32
_PREPROCESSED = {"onnx.quant.pre_process": "onnxruntime.quant"}


WEIGHT_LEVELS, QDQ_WEIGHT_LEVELS = 127, 64
"""Largest weight in int8: of 8 bits, and of 7 bits.

Two products of 255 and 64 are together less than 2**15: no processor saturates in adding them.
"""


def quantise_int8(
    model: onnx.ModelProto, examples: Array, *, qdq: bool = False, throughout: bool = False
) -> onnx.ModelProto:
    """Quantise a float32 model to int8, calibrated on `examples` (N, ...), its real inputs.

    `qdq` and `throughout` as in `quantise_static`.
    """
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    norms_as_convolutions(prepared)
    if throughout:
        _means_as_pools(prepared)
    correct_biases(prepared, examples, QDQ_WEIGHT_LEVELS if qdq else WEIGHT_LEVELS)
    found = strip_notes(quantise_static(prepared, examples, qdq=qdq, throughout=throughout))
    onnx.checker.check_model(found)
    return found


def quantise_static(
    model: onnx.ModelProto, examples: Array, *, qdq: bool = False, throughout: bool = False
) -> onnx.ModelProto:
    """Quantise a model without normalisations to int8, with the ranges of `examples` (N, ...).

    The form with operators of its own (QLinearConv ...), which is the smaller file; or `qdq`, plain
    operators between QuantizeLinear and DequantizeLinear, with weights of 7 bits: OpenVINO reads
    the scales of QLinearConv wrongly, and other servers document no setting for exact sums.
    `throughout` also quantises the normalised image, the first convolution and the average pool,
    for cores that had better not compute in floating point.
    """
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
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
            quant_format=QuantFormat.QDQ if qdq else QuantFormat.QOperator,
            reduce_range=qdq,
            op_types_to_quantize=list(QUANTISED_THROUGHOUT if throughout else QUANTISED),
            nodes_to_exclude=[] if throughout else _first_convolutions(prepared),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        return onnx.load(target)


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
            {reads: examples[start : start + _CALIBRATION_BATCH]}
            for start in range(0, len(examples), _CALIBRATION_BATCH)
        )

    def get_next(self) -> dict[str, Array] | None:
        """Return the next batch, None after the last."""
        return next(self._batches, None)


_MEANS_BATCH = 32
_WEIGHT, _BIAS = 1, 2  # Positions among a convolution's inputs.
_MEAN = "_mean"


def norms_as_convolutions(model: onnx.ModelProto) -> None:
    """Turn, in place, each batch normalisation into a depthwise 1x1 convolution.

    Those of pre-activation blocks follow a sum and cannot be folded; as convolutions they take part
    in int8 with their activation, without a way back to float32 and again to int8.
    """
    for node in model.graph.node:
        if node.op_type != "BatchNormalization":
            continue
        scale, shift, mean, variance = (_value(model, name) for name in node.input[1:])
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        weight = scale / np.sqrt(variance + epsilon)
        convolution = helper.make_node(
            "Conv",
            node.input[:3],
            node.output,
            name=node.name,
            group=len(weight),
            kernel_shape=[1, 1],
        )
        node.CopyFrom(convolution)
        _set(model, node, _WEIGHT, weight.reshape(-1, 1, 1, 1))
        _set(model, node, _BIAS, shift - mean * weight)
    _drop_unused(model)


def _means_as_pools(model: onnx.ModelProto) -> None:
    """Turn, in place, each mean over places into a pool, which int8 has."""
    for node in model.graph.node:
        places = node.op_type == "ReduceMean" and _value(model, node.input[1]).tolist()
        if places in ([2, 3], [-2, -1], [-1, -2]) and _attribute(node, "keepdims", 1):
            pool = helper.make_node("GlobalAveragePool", node.input[:1], node.output, node.name)
            node.CopyFrom(pool)
    _drop_unused(model)


def correct_biases(
    model: onnx.ModelProto, examples: Array, weight_levels: int = WEIGHT_LEVELS
) -> None:
    """Take from each convolution's bias, in place, what rounding its weights adds on average.

    For output channel o that is sum over (c, k) of (rounded - weight)[o, c, k] E[x_c], with E[x_c]
    the mean of input channel c over `examples` (N, ...), the model's real inputs; edges are
    neglected (arXiv:1906.04721, section 4.2).
    """
    convolutions = _convolutions(model)
    means = _channel_means(model, [node.input[0] for node in convolutions], examples)
    for node in convolutions:
        weight = _value(model, node.input[_WEIGHT])
        groups = _attribute(node, "group", 1)
        error = _rounded(weight, weight_levels) - weight
        error = error.sum(axis=(2, 3)).reshape(groups, -1, weight.shape[1])
        shift = np.einsum("goc,gc->go", error, means[node.input[0]].reshape(groups, -1)).ravel()
        present = len(node.input) > _BIAS
        _set(model, node, _BIAS, (_value(model, node.input[_BIAS]) if present else 0) - shift)
    _drop_unused(model)


def _rounded(weight: Array, levels: int) -> Array:
    """Round weights (outputs, ...) as int8 will: symmetric, one scale for each output channel."""
    largest = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    # A channel of zeros has no scale of its own.
    scale = np.maximum(largest, np.finfo(np.float32).tiny) / np.float32(levels)
    rounded: Array = np.round(weight / scale) * scale
    return rounded


def _channel_means(
    model: onnx.ModelProto, names: Sequence[str], examples: Array
) -> dict[str, NDArray[np.float64]]:
    """Mean over examples and places of each channel of these maps (N, C, H, W)."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    graph = watched.graph
    graph.initializer.append(numpy_helper.from_array(np.array([2, 3]), "places"))
    unique = list(dict.fromkeys(names))
    for name in unique:
        graph.node.append(
            helper.make_node("ReduceMean", [name, "places"], [name + _MEAN], keepdims=0)
        )
        graph.output.append(
            helper.make_tensor_value_info(name + _MEAN, onnx.TensorProto.FLOAT, None)
        )
    run = session(watched).run
    reads, outputs = graph.input[0].name, [name + _MEAN for name in unique]
    batches = [
        run(outputs, {reads: examples[start : start + _MEANS_BATCH]})
        for start in range(0, len(examples), _MEANS_BATCH)
    ]
    return {
        name: np.concatenate([batch[number] for batch in batches]).mean(axis=0, dtype=np.float64)
        for number, name in enumerate(unique)
    }


def _convolutions(model: onnx.ModelProto) -> list[NodeProto]:
    return [node for node in model.graph.node if node.op_type == "Conv"]


def _attribute(node: NodeProto, name: str, default: int) -> int:
    return next((each.i for each in node.attribute if each.name == name), default)


def _value(model: onnx.ModelProto, name: str) -> Array:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    value: Array = numpy_helper.to_array(tensor)
    return value


def _set(
    model: onnx.ModelProto, node: NodeProto, position: int, value: NDArray[np.floating]
) -> None:
    """Give a convolution other weights or another bias.

    Tensors may be shared, so it is a new one.  A bias comes after the weights.
    """
    old = node.input[position] if len(node.input) > position else "bias"
    name = f"{old}_{node.output[0]}"
    model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    node.input[position:] = [name, *node.input[position + 1 :]]


def _drop_unused(model: onnx.ModelProto) -> None:
    graph = model.graph
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
