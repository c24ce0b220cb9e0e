"""A bundle of small students with random weights, made in milliseconds and without torch."""

import io
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save

from nonn_core.export.bundle import (
    Agreement,
    BundledModel,
    FcLayer,
    Manifest,
    ModelFile,
    PixelScale,
    Port,
    content_hash,
    write_bundle,
)

FC_FILE = "fc.safetensors"


def make_bundle(
    folder: Path,
    filters: tuple[int, ...] = (5, 3),
    image: tuple[int, int, int] = (1, 8, 8),
    classes: int = 10,
    channels: int = 4,
    convolutions: int = 1,
    seed: int = 0,
) -> Manifest:
    """Write a bundle of one student for each number of `filters`, and its FC layer."""
    rng = np.random.default_rng(seed)
    contents: dict[str, bytes] = {}
    models: list[BundledModel] = []
    offset = 0
    for number, width in enumerate(filters):
        name = f"student-{number}"
        content = _student(rng, image, channels, convolutions, width)
        contents[f"{name}.fp32.onnx"] = content
        models.append(_described(name, image, width, offset, content))
        offset += width
    fc = {
        "weight": rng.normal(size=(classes, offset)).astype(np.float32),
        "bias": rng.normal(size=classes).astype(np.float32),
    }
    contents[FC_FILE] = save(fc)
    manifest = Manifest(
        data="made",
        image="x".join(map(str, image)),
        class_names=tuple(f"class {number}" for number in range(classes)),
        pixel_scale=PixelScale(mean=(0.5,) * image[0], std=(0.25,) * image[0]),
        models=tuple(models),
        fc=FcLayer(
            file=FC_FILE,
            sha256=content_hash(contents[FC_FILE]),
            size_bytes=len(contents[FC_FILE]),
            inputs=offset,
            classes=classes,
        ),
        calibration_images=None,
        agreement=(
            Agreement(
                precision="fp32",
                images=1,
                largest_difference=0.0,
                largest_logit=1.0,
                label_agreement_pct=100.0,
                accuracy_pct=50.0,
            ),
        ),
        opset=18,
        versions={},
    )
    write_bundle(folder, manifest, contents)
    return manifest


def _described(
    name: str, image: tuple[int, int, int], width: int, offset: int, content: bytes
) -> BundledModel:
    return BundledModel(
        name=name,
        role="student",
        network=None,
        reads=Port(name="images", shape=image),
        answers=Port(name="features", shape=(width,)),
        filters=tuple(range(offset, offset + width)),
        fc_offset=offset,
        files=(
            ModelFile(
                precision="fp32",
                file=f"{name}.fp32.onnx",
                sha256=content_hash(content),
                size_bytes=len(content),
            ),
        ),
    )


def _student(
    rng: np.random.Generator,
    image: tuple[int, int, int],
    channels: int,
    convolutions: int,
    width: int,
) -> bytes:
    """Return an ONNX model: 3x3 convolutions with ReLU, a 1x1 convolution, average pool."""
    nodes, weights = [], []
    last, planes = "images", image[0]
    shapes = [(channels, 3)] * convolutions + [(width, 1)]
    for number, (outputs, kernel) in enumerate(shapes):
        scale = (0.02 if number == 0 else 1.0) / (planes * kernel * kernel) ** 0.5
        values = rng.normal(scale=scale, size=(outputs, planes, kernel, kernel)).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"weight{number}"))
        nodes += [
            helper.make_node(
                "Conv", [last, f"weight{number}"], [f"conv{number}"], pads=[kernel // 2] * 4
            ),
            helper.make_node("Relu", [f"conv{number}"], [f"relu{number}"]),
        ]
        last, planes = f"relu{number}", outputs
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
    ]
    graph = helper.make_graph(
        nodes,
        "student",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", *image])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", width])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    stream = io.BytesIO()
    onnx.save(model, stream)
    return stream.getvalue()
