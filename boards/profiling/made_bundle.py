"""A bundle of models with random weights, for the runtime and the worker to load."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from safetensors.numpy import save

from boards.profiling.member import Member
from boards.profiling.networks import IMAGE, OPSET, VECTOR, mean_model, student_model
from nonn_core.bundle import (
    NCNN_ANSWERS,
    NCNN_READS,
    BundledFile,
    BundledModel,
    FcLayer,
    Manifest,
    ModelFile,
    ModelPrecision,
    NcnnFiles,
    PixelScale,
    Port,
    content_hash,
    write_bundle,
)
from nonn_core.family import parse_network
from nonn_core.image import Image
from nonn_core.progress import Progress, silent

FC_FILE = "fc.safetensors"
FC_INPUTS, CLASSES = 128, 10
_EXAMPLES = 2
"""Random images that give the ranges of int8 activations: the time does not depend on them."""

_MEAN_FOR_NCNN = f"""\
7767517
2 2
Input in 0 1 {NCNN_READS}
Pooling mean 1 1 {NCNN_READS} {NCNN_ANSWERS} 0=1 4=1
""".encode()
_NO_WEIGHTS = bytes(4)


@dataclass(frozen=True, slots=True)
class MadeModel:
    """A model, the shape of the images that it reads, and the length of what it answers."""

    name: str
    content: onnx.ModelProto
    image: Image
    filters: int
    network: str | None = None
    ncnn: bytes | None = None
    """The same model for ncnn: its param file; it has no weights."""


def write_members(
    folder: Path,
    members: Sequence[Member],
    precision: ModelPrecision,
    progress: Progress = silent,
) -> Manifest:
    """Write a bundle of these students."""
    made = [
        MadeModel(
            member.name,
            student_model(
                parse_network(member.network),
                member.image,
                member.filters,
                number,
                int8=precision == "int8",
            ),
            member.image,
            member.filters,
            member.network,
        )
        for number, member in enumerate(members)
    ]
    return write_models(folder, made, precision, progress)


def write_messages(folder: Path, images: Sequence[Image]) -> Manifest:
    """Write a bundle of models that read such images and do next to nothing, one for each."""
    made = [
        MadeModel(f"message-{image}", mean_model(image), image, image.channels, ncnn=_MEAN_FOR_NCNN)
        for image in images
    ]
    return write_models(folder, made, "fp32")


def write_models(
    folder: Path,
    made: Sequence[MadeModel],
    precision: ModelPrecision,
    progress: Progress = silent,
) -> Manifest:
    """Write a bundle of float32 models, in this precision, and of an FC layer of ones."""
    contents: dict[str, bytes] = {}
    models = []
    for number, each in enumerate(made):
        progress("making models", number, len(made))
        models.append(_add(contents, each, precision))
    weight = np.ones((CLASSES, FC_INPUTS), np.float32)
    contents[FC_FILE] = save({"weight": weight, "bias": np.ones(CLASSES, np.float32)})
    manifest = Manifest(
        data="made for a profile",
        image=str(made[0].image),
        class_names=tuple(map(str, range(CLASSES))),
        pixel_scale=PixelScale(mean=(0.5,), std=(0.25,)),
        models=tuple(models),
        fc=FcLayer(**_stated(FC_FILE, contents[FC_FILE]), inputs=FC_INPUTS, classes=CLASSES),
        calibration_images=None,
        agreement=(),
        opset=OPSET,
        versions={},
    )
    write_bundle(folder, manifest, contents)
    return manifest


def random_pixels(count: int, image: Image) -> NDArray[np.float32]:
    """Return random images, (count, C, H, W)."""
    shape = (count, image.channels, image.height, image.width)
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)


def _add(contents: dict[str, bytes], made: MadeModel, precision: ModelPrecision) -> BundledModel:
    """Add a model's file to `contents`; return its description."""
    model, image = made.content, made.image
    if precision == "int8":
        from boards.profiling.int8 import quantised

        model = quantised(model, random_pixels(_EXAMPLES, image))
    file, content = f"{made.name}.onnx", model.SerializeToString(deterministic=True)
    contents[file] = content
    return BundledModel(
        name=made.name,
        role="student",
        network=made.network,
        reads=Port(name=IMAGE, shape=(image.channels, image.height, image.width)),
        answers=Port(name=VECTOR, shape=(made.filters,)),
        filters=tuple(range(made.filters)),
        fc_offset=0,
        files=(ModelFile(**_stated(file, content), precision=precision),),
        ncnn=None if made.ncnn is None else _add_ncnn(contents, made.name, made.ncnn),
    )


def _add_ncnn(contents: dict[str, bytes], name: str, param: bytes) -> NcnnFiles:
    """Add the files of a model for ncnn to `contents`; return their description."""
    files = {f"{name}.ncnn.param": param, f"{name}.ncnn.bin": _NO_WEIGHTS}
    contents.update(files)
    stated = [BundledFile(**_stated(file, content)) for file, content in files.items()]
    return NcnnFiles(
        param=stated[0],
        weights=stated[1],
        images=1,
        largest_difference=0.0,
        largest_value=255.0,
    )


def _stated(file: str, content: bytes) -> dict[str, Any]:
    """Return what a manifest says of a file."""
    return {"file": file, "sha256": content_hash(content), "size_bytes": len(content)}
