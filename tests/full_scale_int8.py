"""An int8 convolution of the largest products there are: its exact answer is hand arithmetic.

Two of them, 2 x 255 x 127 = 64,770, are more than 16 bits hold, in which x86 without VNNI adds.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 6
"""Height and width of the images and, by padding, of the answers."""


def full_scale_model(channels, groups, kernel):
    """Each answer is the sum of all products that a filter reads, where the image has no edge near.

    Images are `images` (n, channels, SIDE, SIDE), answers `features` of the same shape.
    """
    tensors = {
        "one": np.float32(1),
        "zero": np.uint8(0),
        "weight": np.full((channels, channels // groups, kernel, kernel), 127, np.int8),
        "weight_scale": np.ones(channels, np.float32),
        "weight_zero": np.zeros(channels, np.int8),
        "scale": np.float32(full_scale_sum(channels, groups, kernel) / 240),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "one", "zero"], ["pixels"]),
        helper.make_node(
            "QLinearConv",
            ["pixels", "one", "zero", "weight", "weight_scale", "weight_zero", "scale", "zero"],
            ["maps"],
            kernel_shape=[kernel, kernel],
            pads=[kernel // 2] * 4,
            group=groups,
        ),
        helper.make_node("DequantizeLinear", ["maps", "scale", "zero"], ["features"]),
    ]
    images, features = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", channels, SIDE, SIDE])
        for name in ("images", "features")
    )
    initializers = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    graph = helper.make_graph(nodes, "full scale", [images], [features], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def full_scale_images(channels):
    """One image, all white."""
    return np.full((1, channels, SIDE, SIDE), 255, np.float32)


def full_scale_sum(channels, groups, kernel):
    """The exact sum; a 240th of it is the model's scale, so that it is answered exactly."""
    return 255 * 127 * channels // groups * kernel**2


CONVOLUTIONS = [
    (16, 1, 1),  # one group, as most are
    (5, 1, 1),  # channels that fill no register
    (3, 1, 3),
    (16, 2, 3),
    (16, 16, 3),  # depthwise
    (16, 16, 1),  # a norm
]
"""Channels, groups and kernel."""
