"""A builder of ONNX models: students with random weights, from their blueprints, without torch.

A board has no torch.  The operations are those of an exported student: normalisations right after a
convolution are folded into it, the image is normalised first, the maps are averaged last.  A model
that is to be quantised has depthwise 1x1 convolutions in place of the other normalisations, as
exported ones do.
"""

from collections import Counter
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from nonn_core.networks.blueprint import (
    Conv,
    ImageShape,
    MapShape,
    MaxPool,
    NetworkSpec,
    Norm,
    Op,
    Ops,
    Relu,
    Residual,
    conv_norm_relu,
    shape_after_all,
)
from profiles.layer import LayerWork

IMAGE, VECTOR = "image", "vector"
OPSET, IR_VERSION = 18, 10
_WHITE = 255.0


def student_model(
    spec: NetworkSpec, image: ImageShape, filters: int, seed: int = 0, *, int8: bool = False
) -> onnx.ModelProto:
    """Student with `filters` filters as if exported, or prepared for quantisation.

    Weights are He's, so that values neither vanish nor overflow.  Raises InputError where the image
    is too small for the network.
    """
    blueprint = spec.blueprint(image.channels)
    body = (*blueprint.group0, *(op for stage in blueprint.stages for op in stage))
    ops = (*body, *conv_norm_relu(Conv(blueprint.channels, filters, 1)))
    shape_after_all(ops, MapShape(image.channels, image.height, image.width))
    graph = _Graph(seed)
    graph.average(graph.row(ops, graph.pixels(image)))
    return graph.model(image, filters, int8)


def mean_model(image: ImageShape) -> onnx.ModelProto:
    """Model of each channel's mean: as little as an answer can cost."""
    graph = _Graph(seed=0)
    graph.average(IMAGE)
    return graph.model(image, image.channels, int8=False)


def chain_model(layer: LayerWork, count: int) -> onnx.ModelProto:
    """Chain of `count` equal convolutions, whose maps keep their shape."""
    conv = Conv(layer.in_channels, layer.out_channels, layer.kernel, 1, layer.groups)
    graph = _Graph(seed=0)
    graph.average(graph.row(conv_norm_relu(conv) * count, IMAGE))
    image = ImageShape(layer.in_channels, layer.in_height, layer.in_width)
    return graph.model(image, layer.out_channels, int8=False)


class _Graph:
    """Nodes and weights of one model, written operation by operation."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._nodes: list[NodeProto] = []
        self._values: dict[str, NDArray[Any]] = {}

    def pixels(self, image: ImageShape) -> str:
        """Normalise pixels from 0 to 255."""
        shape = (1, image.channels, 1, 1)
        mean = self._value(np.full(shape, _WHITE / 2, np.float32))
        scale = self._value(np.full(shape, 4 / _WHITE, np.float32))
        return self._node("Mul", [self._node("Sub", [IMAGE, mean]), scale])

    def row(self, ops: Ops, maps: str) -> str:
        """Write operations in a row; return the name of what the last one makes."""
        for op in ops:
            maps = self._operation(op, maps)
        return maps

    def average(self, maps: str) -> None:
        """Average over height and width, and answer that."""
        self._node("ReduceMean", [maps, self._value(np.array([2, 3]))], VECTOR, keepdims=0)

    def model(self, image: ImageShape, answers: int, int8: bool) -> onnx.ModelProto:
        """Return the whole model; it can be asked for once."""
        self._fold()
        if int8:
            self._norms_as_convolutions()
        used = {name for node in self._nodes for name in node.input}
        shape = ("batch", image.channels, image.height, image.width)
        model = helper.make_model(
            helper.make_graph(
                self._nodes,
                "student",
                [helper.make_tensor_value_info(IMAGE, TensorProto.FLOAT, shape)],
                [helper.make_tensor_value_info(VECTOR, TensorProto.FLOAT, ("batch", answers))],
                [numpy_helper.from_array(v, k) for k, v in self._values.items() if k in used],
            ),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    def _operation(self, op: Op, maps: str) -> str:
        match op:
            case Conv():
                return self._convolution(op, maps)
            case Norm(channels):
                return self._normalisation(channels, maps)
            case Relu(None):
                return self._node("Relu", [maps])
            case Relu(ceiling):
                ends = [self._value(np.array(end, np.float32)) for end in (0.0, ceiling)]
                return self._node("Clip", [maps, *ends])
            case MaxPool(kernel):
                pads = [(kernel - 1) // 2] * 4
                return self._node(
                    "MaxPool", [maps], kernel_shape=[kernel] * 2, strides=[2, 2], pads=pads
                )
            case Residual():
                active = self.row(op.before, maps)
                kept = self.row(op.shortcut, active) if op.shortcut else maps
                joined = self._node("Add", [self.row(op.body, active), kept])
                return self.row(op.after, joined)

    def _convolution(self, conv: Conv, maps: str) -> str:
        fan_in = conv.inputs // conv.groups * conv.kernel**2
        shape = (conv.outputs, conv.inputs // conv.groups, conv.kernel, conv.kernel)
        weight = self._rng.normal(scale=(2 / fan_in) ** 0.5, size=shape).astype(np.float32)
        return self._node(
            "Conv",
            [maps, self._value(weight)],
            kernel_shape=[conv.kernel] * 2,
            strides=[conv.stride] * 2,
            pads=[conv.kernel // 2] * 4,
            group=conv.groups,
        )

    def _normalisation(self, channels: int, maps: str) -> str:
        """Write a normalisation that almost lets values pass: scale, shift, mean, variance."""
        draw = self._rng.normal
        near_one, near_zero = 1 + 0.1 * draw(size=channels), 0.1 * draw(size=channels)
        inputs = [near_one, near_zero, np.zeros(channels), np.ones(channels)]
        return self._node(
            "BatchNormalization", [maps, *(self._value(v.astype(np.float32)) for v in inputs)]
        )

    def _fold(self) -> None:
        """Take each normalisation into the convolution that only it reads: a scale and a bias."""
        readers = Counter(name for node in self._nodes for name in node.input)
        convolutions = {
            node.output[0]: node
            for node in self._nodes
            if node.op_type == "Conv" and readers[node.output[0]] == 1
        }
        for node in list(self._nodes):
            conv = convolutions.get(node.input[0])
            if node.op_type != "BatchNormalization" or conv is None:
                continue
            scale, shift = node.input[1:3]
            self._values[conv.input[1]] *= self._values[scale].reshape(-1, 1, 1, 1)
            conv.input.append(shift)
            conv.output[0] = node.output[0]
            self._nodes.remove(node)

    def _norms_as_convolutions(self) -> None:
        """Turn the other normalisations into depthwise 1x1 convolutions, which int8 has."""
        for number, node in enumerate(self._nodes):
            if node.op_type != "BatchNormalization":
                continue
            maps, scale, shift = node.input[:3]
            weight = self._value(self._values[scale].reshape(-1, 1, 1, 1))
            self._nodes[number] = helper.make_node(
                "Conv",
                [maps, weight, shift],
                node.output,
                name=node.name,
                kernel_shape=[1, 1],
                group=len(self._values[scale]),
            )

    def _node(
        self, kind: str, inputs: list[str], made: str | None = None, **attributes: Any
    ) -> str:
        made = made or f"{kind.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [made], name=made, **attributes))
        return made

    def _value(self, value: NDArray[Any]) -> str:
        name = f"value{len(self._values)}"
        self._values[name] = value
        return name
