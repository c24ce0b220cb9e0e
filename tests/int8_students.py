"""Students of each family with random weights, int8 throughout, made without torch."""

import functools

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nonn_core.export.onnx_model import quantise_int8
from nonn_core.networks.blueprint import Conv, MaxPool, Norm, Relu, Residual, conv_norm_relu
from nonn_core.networks.family import parse_network

FAMILIES = {
    "wrn10:5,6,9": (3, 8, 8),
    "vgg11:3,4,5,6,7": (1, 16, 16),
    "resnet18:3,4,6,8": (3, 33, 32),
    "mobilenetv2-cifar-0.1": (3, 9, 9),
}
FILTERS = 5


def images(shape, number=24):
    """Noise of several contrasts, pixels as decoded (N, C, H, W)."""
    rng = np.random.default_rng(5)
    noise = rng.normal(size=(number, *shape)) * rng.uniform(10, 90, (number, 1, 1, 1)) + 120
    return np.clip(np.rint(noise), 0, 255).astype(np.float32)


@functools.cache
def int8_student(name, shape, filters=FILTERS):
    """A student's model, int8 throughout; its ranges are those of its images."""
    return quantise_int8(fp32_student(name, shape, filters), images(shape), throughout=True)


def fp32_student(name, shape, filters=FILTERS):
    """A student's float32 model with the operations that the exporter writes."""
    blueprint = parse_network(name).blueprint(shape[0])
    writer = _Writer(shape[0])
    last = writer.ops(blueprint.group0, "normalised")
    for stage in blueprint.stages:
        last = writer.ops(stage, last)
    last = writer.ops(conv_norm_relu(Conv(blueprint.channels, filters, 1)), last)
    pooled = writer.node("ReduceMean", last, writer.constant(np.array([-2, -1])))
    vector = writer.node("Reshape", pooled, writer.constant(np.array([-1, filters])))
    ports = (("image", shape), (vector, (filters,)))
    graph = helper.make_graph(
        writer.nodes,
        "student",
        *([helper.make_tensor_value_info(p, TensorProto.FLOAT, ["n", *s])] for p, s in ports),
        writer.values,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model


class _Writer:
    def __init__(self, channels):
        self.nodes, self.values, self.rng = [], [], np.random.default_rng(3)
        spread = np.linspace(0, 9, channels, dtype=np.float32).reshape(-1, 1, 1)
        sub = self.node("Sub", "image", self.constant(117.3 + spread))
        scale = self.constant(1 / (61.7 - spread))
        self.nodes.append(helper.make_node("Mul", [sub, scale], ["normalised"], name="normalise"))

    def constant(self, value):
        name = f"constant{len(self.values)}"
        kept = value if value.dtype == np.int64 else value.astype(np.float32)
        self.values.append(numpy_helper.from_array(kept, name))
        return name

    def node(self, kind, *reads, **attributes):
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, reads, [name], name=name, **attributes))
        return name

    def ops(self, ops, last):
        for number, op in enumerate(ops):
            match op:
                case Conv():
                    folded = isinstance(next(iter(ops[number + 1 :]), None), Norm)
                    last = self.convolution(op, last, folded)
                case Norm(channels) if not (number and isinstance(ops[number - 1], Conv)):
                    moments = (self.rng.uniform(*ends, channels) for ends in
                               ((0.6, 1.4), (-0.2, 0.4), (-0.1, 0.1), (0.3, 0.9)))  # fmt: skip
                    last = self.node("BatchNormalization", last, *map(self.constant, moments))
                case Relu(None):
                    last = self.node("Relu", last)
                case Relu(ceiling):
                    ends = (self.constant(np.array(end)) for end in (0.0, ceiling))
                    last = self.node("Clip", last, *ends)
                case MaxPool(kernel):
                    sides = {"kernel_shape": [kernel] * 2, "pads": [kernel % 2] * 4}
                    last = self.node("MaxPool", last, strides=[2, 2], **sides)
                case Residual():
                    active = self.ops(op.before, last)
                    body = self.ops(op.body, active)
                    kept = self.ops(op.shortcut, active) if op.shortcut else last
                    last = self.ops(op.after, self.node("Add", body, kept))
        return last

    def convolution(self, op, last, folded):
        shape = (op.outputs, op.inputs // op.groups, op.kernel, op.kernel)
        spread = 1.4 / np.sqrt(np.prod(shape[1:]))
        reads = [last, self.constant(self.rng.normal(scale=spread, size=shape))]
        if folded:
            reads.append(self.constant(self.rng.normal(scale=0.2, size=op.outputs)))
        sides = {"kernel_shape": [op.kernel] * 2, "pads": [op.kernel // 2] * 4}
        return self.node("Conv", *reads, strides=[op.stride] * 2, group=op.groups, **sides)
