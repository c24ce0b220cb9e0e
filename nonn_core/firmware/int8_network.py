"""Int8 networks: what an ONNX model computes that is int8 throughout, as layers on maps.

Operations are those of onnxruntime's QOperator form.  Anything else is refused, so that no library
computes something that the model does not say.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from nonn_common.errors import ExportError

LEVELS = 256
Scale = np.float32
"""Of onnxruntime, which computes with scales in float32."""


@dataclass(frozen=True, slots=True)
class Int8Map:
    """Map of uint8 values; a value v stands for scale x (v - zero)."""

    channels: int
    height: int
    width: int
    scale: Scale
    zero: int

    @property
    def elements(self) -> int:
        """Number of values, a byte each."""
        return self.channels * self.height * self.width


@dataclass(frozen=True, slots=True)
class Int8Conv:
    """Convolution: weights (outputs, inputs / groups, side, side), biases, scales (outputs,).

    A sum of products and its bias, times the scale, is the output without its zero point.
    """

    reads: tuple[str]
    writes: str
    weights: NDArray[np.int8]
    biases: NDArray[np.int64]
    scales: NDArray[np.float32]
    stride: int
    pad: int
    groups: int

    @property
    def kernel(self) -> int:
        """Side of the window."""
        return int(self.weights.shape[-1])

    @property
    def depthwise(self) -> bool:
        """Whether each channel is by itself."""
        return self.groups == len(self.weights) > 1 or self.weights.shape[:2] == (1, 1)


@dataclass(frozen=True, slots=True)
class Int8Add:
    """Sum of two maps of one shape."""

    reads: tuple[str, str]
    writes: str


@dataclass(frozen=True, slots=True)
class Int8MaxPool:
    """Largest value of each window and channel."""

    reads: tuple[str]
    writes: str
    kernel: int
    stride: int
    pad: int


@dataclass(frozen=True, slots=True)
class Int8Average:
    """Mean of each channel."""

    reads: tuple[str]
    writes: str


Int8Layer = Int8Conv | Int8Add | Int8MaxPool | Int8Average


@dataclass(frozen=True, slots=True)
class Int8Network:
    """Layers in an order in which they may run, and all maps by name.

    `table` (channels, 256) has the value of the map `image` for each pixel.
    """

    maps: dict[str, Int8Map]
    layers: tuple[Int8Layer, ...]
    image: str
    features: str
    table: NDArray[np.uint8]


def read_int8_network(
    model: onnx.ModelProto, image: tuple[int, int, int], name: str
) -> Int8Network:
    """Read a model that is int8 throughout, for images (channels, height, width).

    Raises ExportError naming the first operation that is not known, or not int8.
    """
    return _Reader(model, image, name).network()


class _Reader:
    """Walks the nodes of a model, once."""

    def __init__(self, model: onnx.ModelProto, image: tuple[int, int, int], name: str) -> None:
        self._graph, self._shape, self._name = model.graph, image, name
        self._values = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
        self._maps: dict[str, Int8Map] = {}
        self._layers: list[Int8Layer] = []
        self._pixels: NDArray[np.float32] | None = np.tile(
            np.arange(LEVELS, dtype=np.float32), (image[0], 1)
        )
        self._table: NDArray[np.uint8] | None = None
        self._image = self._features = ""

    def network(self) -> Int8Network:
        readers: dict[str, Callable[[NodeProto], None]] = {
            "Sub": self._normalise,
            "Mul": self._normalise,
            "QuantizeLinear": self._quantise,
            "QLinearConv": self._convolution,
            "QLinearAdd": self._addition,
            "MaxPool": self._max_pool,
            "QLinearGlobalAveragePool": self._average,
            "Reshape": self._reshape,
            "DequantizeLinear": self._answer,
        }
        for node in self._graph.node:
            if node.op_type not in readers or self._features:
                raise self._refusal(node, "is not known to the C kernels")
            readers[node.op_type](node)
        if self._table is None or not self._features:
            raise ExportError(f"{self._name}: the model is not int8 from its image to its answer")
        return Int8Network(
            self._maps, tuple(self._layers), self._image, self._features, self._table
        )

    def _normalise(self, node: NodeProto) -> None:
        if self._pixels is None or node.input[1] not in self._values:
            raise self._refusal(node, "is on maps in floating point")
        constant = np.float32(self._values[node.input[1]].reshape(-1, 1))
        self._pixels = self._pixels - constant if node.op_type == "Sub" else self._pixels * constant

    def _quantise(self, node: NodeProto) -> None:
        if self._pixels is None:
            raise self._refusal(node, "is on maps in floating point")
        scale, zero = self._scale(node, 1)
        rounded = np.rint(self._pixels / scale) + zero
        self._table = np.clip(rounded, 0, LEVELS - 1).astype(np.uint8)
        self._image, self._pixels = node.output[0], None
        self._maps[self._image] = Int8Map(*self._shape, scale, zero)

    def _convolution(self, node: NodeProto) -> None:
        read, weights = self._map(node, 0), self._values.get(node.input[3])
        if weights is None or weights.dtype != np.int8 or np.any(self._values[node.input[5]]):
            raise self._refusal(node, "has weights that are not int8 around zero")
        scale, zero = self._scale(node, 6)
        kernel, stride, pad = self._window(node, read)
        groups = self._attribute(node, "group", 1)
        biases = np.zeros(len(weights), np.int64)
        if len(node.input) > 8:
            biases += self._values[node.input[8]]
        # In the order of onnxruntime, whose float32 rounds after each step.
        weight_scales = np.broadcast_to(np.float32(self._values[node.input[4]]), len(weights))
        scales = (read.scale * weight_scales) / scale
        layer = Int8Conv(
            (node.input[0],), node.output[0], weights, biases, scales, stride, pad, groups
        )
        if groups > 1 and not layer.depthwise:
            raise self._refusal(node, f"in {groups} groups is not known to the C kernels")
        self._put(node, layer, len(weights), kernel, stride, pad, scale, zero)

    def _addition(self, node: NodeProto) -> None:
        one, other = self._map(node, 0), self._map(node, 3)
        if one.elements != other.elements:
            raise self._refusal(node, "is of maps of two shapes")
        scale, zero = self._scale(node, 6)
        layer = Int8Add((node.input[0], node.input[3]), node.output[0])
        self._put(node, layer, one.channels, 1, 1, 0, scale, zero)

    def _max_pool(self, node: NodeProto) -> None:
        read = self._map(node, 0)
        kernel, stride, pad = self._window(node, read)
        layer = Int8MaxPool((node.input[0],), node.output[0], kernel, stride, pad)
        self._put(node, layer, read.channels, kernel, stride, pad, read.scale, read.zero)

    def _average(self, node: NodeProto) -> None:
        read = self._map(node, 0)
        scale, zero = self._scale(node, 3)
        self._layers.append(Int8Average((node.input[0],), node.output[0]))
        self._maps[node.output[0]] = Int8Map(read.channels, 1, 1, scale, zero)

    def _reshape(self, node: NodeProto) -> None:
        """Names alone: the values of one pixel stay where they are."""
        read = self._map(node, 0)
        if read.height * read.width != 1:
            raise self._refusal(node, "is of maps of more than one pixel")
        self._maps[node.output[0]] = read
        last = self._layers.pop()
        self._layers.append(replace(last, writes=node.output[0]))

    def _answer(self, node: NodeProto) -> None:
        self._map(node, 0)
        if node.output[0] != self._graph.output[0].name:
            raise self._refusal(node, "leads to maps in floating point")
        self._features = node.input[0]

    def _put(
        self,
        node: NodeProto,
        layer: Int8Layer,
        channels: int,
        kernel: int,
        stride: int,
        pad: int,
        scale: Scale,
        zero: int,
    ) -> None:
        """Keep a layer and the map that it writes."""
        read = self._map(node, 0)
        height, width = (
            (side + 2 * pad - kernel) // stride + 1 for side in (read.height, read.width)
        )
        self._layers.append(layer)
        self._maps[node.output[0]] = Int8Map(channels, height, width, scale, zero)

    def _map(self, node: NodeProto, place: int) -> Int8Map:
        if node.input[place] not in self._maps:
            raise self._refusal(node, "reads maps in floating point")
        return self._maps[node.input[place]]

    def _scale(self, node: NodeProto, place: int) -> tuple[Scale, int]:
        """Scale and zero point of a node's answer, both in a row among its inputs."""
        zero = self._values[node.input[place + 1]]
        if zero.dtype != np.uint8:
            raise self._refusal(node, "answers values that are not uint8")
        return np.float32(self._values[node.input[place]].item()), int(zero.item())

    def _window(self, node: NodeProto, read: Int8Map) -> tuple[int, int, int]:
        """Kernel, stride and padding, each the same on all sides."""
        kernels = self._attributes(node, "kernel_shape", ())
        strides = self._attributes(node, "strides", (1,))
        pads = self._attributes(node, "pads", (0,))
        dilations = self._attributes(node, "dilations", (1,))
        alike = all(len(set(each)) == 1 for each in (kernels, strides, pads))
        if not alike or set(dilations) != {1} or self._attribute(node, "ceil_mode", 0):
            raise self._refusal(node, "has a window that differs by side, or gaps in it")
        if kernels[0] > min(read.height, read.width) + 2 * pads[0]:
            raise self._refusal(node, "has a window larger than its map")
        return kernels[0], strides[0], pads[0]

    def _attribute(self, node: NodeProto, name: str, default: int) -> int:
        return next((each.i for each in node.attribute if each.name == name), default)

    def _attributes(self, node: NodeProto, name: str, default: Sequence[int]) -> Sequence[int]:
        found = (helper.get_attribute_value(each) for each in node.attribute if each.name == name)
        return tuple(next(found, default))

    def _refusal(self, node: NodeProto, problem: str) -> ExportError:
        which = f"{node.op_type} ({node.name or node.output[0]})"
        return ExportError(
            f"{self._name}: the operation {which} {problem}; nothing was written; "
            "export without --c"
        )
