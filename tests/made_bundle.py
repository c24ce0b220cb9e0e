"""A bundle of small students with random weights, made in milliseconds and without torch."""

import io
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
from numpy.typing import NDArray
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
Weights = NDArray[np.float32]


def make_bundle(
    folder: Path,
    filters: tuple[int, ...] = (5, 3),
    image: tuple[int, int, int] = (1, 8, 8),
    classes: int = 10,
    channels: int = 4,
    convolutions: int = 1,
    seed: int = 0,
    joint: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
    alone: bool = False,
) -> Manifest:
    """Write a bundle of one student for each number of `filters`, and its FC layer.

    With `joint`, the numbers of students by a joint model's name, all students share one G0; with
    `alone` it is a model by itself, and the students are heads that read its maps.
    """
    rng = np.random.default_rng(seed)
    contents: dict[str, bytes] = {}
    models: list[BundledModel] = []
    offset = 0
    shared = _convolutions(rng, image[0], channels, convolutions) if joint or alone else []
    maps = (channels, *image[1:])
    heads = []
    for number, width in enumerate(filters):
        name = f"student-{number}"
        group0 = shared or _convolutions(rng, image[0], channels, convolutions)
        heads.append(_head(rng, channels, width))
        content = _model([] if alone else group0, heads[-1:], maps if alone else image)
        contents[f"{name}.fp32.onnx"] = content
        made = _described(name, maps if alone else image, width, offset, content)
        models.append(made.model_copy(update={"role": "head"}) if alone else made)
        offset += width
    if alone:
        content = contents["group0.fp32.onnx"] = _model(shared, [], image)
        whole = _described("group0", image, 1, 0, content)
        own = {"role": "group0", "filters": (), "fc_offset": None}
        own["answers"] = Port(name="features", shape=maps)
        models.insert(0, whole.model_copy(update=own))
    for name, members in joint.items():
        content = _model(shared, [heads[number] for number in members], image)
        contents[f"{name}.fp32.onnx"] = content
        width = sum(filters[number] for number in members)
        whole = _described(name, image, width, 0, content)
        own = {"role": "joint", "filters": (), "fc_offset": None}
        own["members"] = tuple(f"student-{number}" for number in members)
        models.append(whole.model_copy(update=own))
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


def _head(rng: np.random.Generator, channels: int, width: int) -> Weights:
    """Weights of the 1x1 convolution to a student's filters."""
    return rng.normal(scale=channels**-0.5, size=(width, channels, 1, 1)).astype(np.float32)


def _convolutions(
    rng: np.random.Generator, planes: int, channels: int, convolutions: int
) -> list[Weights]:
    """Weights of 3x3 convolutions in a row."""
    made = []
    for number in range(convolutions):
        scale = (0.02 if number == 0 else 1.0) / (planes * 9) ** 0.5
        made.append(rng.normal(scale=scale, size=(channels, planes, 3, 3)).astype(np.float32))
        planes = channels
    return made


def _model(group0: list[Weights], heads: list[Weights], image: tuple[int, int, int]) -> bytes:
    """Return an ONNX model: 3x3 convolutions with ReLU; for each head a 1x1 convolution and pool.

    The heads' answers stand side by side.
    """
    nodes, weights, last = [], [], "images"

    def convolved(name: str, values: Weights, reads: str) -> str:
        weights.append(numpy_helper.from_array(values, f"weight {name}"))
        pads = [values.shape[2] // 2] * 4
        nodes.append(helper.make_node("Conv", [reads, f"weight {name}"], [f"c {name}"], pads=pads))
        nodes.append(helper.make_node("Relu", [f"c {name}"], [f"relu {name}"]))
        return f"relu {name}"

    for number, values in enumerate(group0):
        last = convolved(f"g{number}", values, last)
    for number, values in enumerate(heads):
        own = convolved(f"h{number}", values, last)
        nodes.append(helper.make_node("GlobalAveragePool", [own], [f"pooled {number}"]))
        nodes.append(helper.make_node("Flatten", [f"pooled {number}"], [f"vector {number}"]))
    vectors = [f"vector {number}" for number in range(len(heads))] or [last]
    nodes.append(helper.make_node("Concat", vectors, ["features"], axis=1))
    answers = [sum(map(len, heads))] if heads else [len(group0[-1]), *image[1:]]
    graph = helper.make_graph(
        nodes,
        "student",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", *image])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", *answers])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    stream = io.BytesIO()
    onnx.save(model, stream)
    return stream.getvalue()
