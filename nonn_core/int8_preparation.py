"""What makes an ONNX model ready for 8-bit weights, while its values are still float32."""

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from nonn_core.onnx_graph import Array, session

WEIGHT_LEVELS = 127
_BATCH = 32
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


def correct_biases(model: onnx.ModelProto, examples: Array) -> None:
    """Take from each convolution's bias, in place, what rounding its weights adds on average.

    For output channel o that is sum over (c, k) of (rounded - weight)[o, c, k] E[x_c], with E[x_c]
    the mean of input channel c over `examples` (N, ...), the model's real inputs; edges are
    neglected (arXiv:1906.04721, section 4.2).
    """
    convolutions = _convolutions(model)
    means = _channel_means(model, [node.input[0] for node in convolutions], examples)
    for node in convolutions:
        weight = _value(model, node.input[_WEIGHT])
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        error = (_rounded(weight) - weight).sum(axis=(2, 3)).reshape(groups, -1, weight.shape[1])
        shift = np.einsum("goc,gc->go", error, means[node.input[0]].reshape(groups, -1)).ravel()
        present = len(node.input) > _BIAS
        _set(model, node, _BIAS, (_value(model, node.input[_BIAS]) if present else 0) - shift)
    _drop_unused(model)


def _rounded(weight: Array) -> Array:
    """Round weights (outputs, ...) as int8 will: symmetric, one scale for each output channel."""
    largest = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    # A channel of zeros has no scale of its own.
    scale = np.maximum(largest, np.finfo(np.float32).tiny) / np.float32(WEIGHT_LEVELS)
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
        run(outputs, {reads: examples[start : start + _BATCH]})
        for start in range(0, len(examples), _BATCH)
    ]
    return {
        name: np.concatenate([batch[number] for batch in batches]).mean(axis=0, dtype=np.float64)
        for number, name in enumerate(unique)
    }


def _convolutions(model: onnx.ModelProto) -> list[NodeProto]:
    return [node for node in model.graph.node if node.op_type == "Conv"]


def _value(model: onnx.ModelProto, name: str) -> Array:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    value: Array = numpy_helper.to_array(tensor)
    return value


def _set(
    model: onnx.ModelProto, node: NodeProto, position: int, value: NDArray[np.floating]
) -> None:
    """Give a convolution other weights or another bias; tensors may be shared, so it is a new one.

    A bias comes after the weights.
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
