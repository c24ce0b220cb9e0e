"""Benchmark models: students that are measured or held out, and their bundle."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from safetensors.numpy import save

from boards.profiling.onnx_builder import IMAGE, OPSET, VECTOR, mean_model, student_model
from nonn_common import Progress, silent
from nonn_common.errors import InputError
from nonn_core.export.bundle import (
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
from nonn_core.export.ncnn_net import NCNN_ANSWERS, NCNN_READS
from nonn_core.networks.blueprint import ImageShape, NetworkSpec
from nonn_core.networks.family import parse_network, student_candidates
from nonn_core.networks.network_cost import student_cost

TEACHERS = ("wrn40-4", "wrn16-2", "resnet34-cifar", "vgg19")
IMAGES = ("3x32x32", "1x8x8")
FILTERS = 32
"""Filters of each student that is made here: about those of a small partition."""

PER_TEACHER, PER_SINGLE_TEACHER = 5, 15
"""Students of a teacher and image size; where there is only one of each."""

WIDE_MODEL_FACTOR = 3
"""How many times the MACs of the largest student a wider one has, where one teacher's students
are so alike that noise would decide how their time grows."""

_MIN_MODELS_TO_HOLD_OUT = 4
_FAMILIES = ("wrn", "vgg", "resnet", "mobilenetv2")

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
class BenchmarkModel:
    """A student to measure; the fit does not see those held out."""

    name: str
    network: str
    image: ImageShape
    filters: int
    held_out: bool = False

    @property
    def macs(self) -> int:
        """MACs per image."""
        return student_cost(parse_network(self.network), self.image, self.filters).macs

    @property
    def kind(self) -> str:
        """Its family and image size, by which errors are grouped."""
        family = next((each for each in _FAMILIES if self.network.startswith(each)), self.network)
        return f"{family} {self.image}"


def benchmark_models(
    teachers: Sequence[str],
    images: Sequence[str],
    per_teacher: int | None = None,
    most: int | None = None,
) -> tuple[BenchmarkModel, ...]:
    """Return students of these teachers, as a planner chooses them, from small to large.

    `per_teacher` is how many of each teacher and image size; for one teacher and one size there is
    a wider one too.  `most` takes so many of them, small ones, of
    which none is held out.  Raises InputError for what is no
    network or no image, and where none of the students can read such an image.
    """
    alone = len(teachers) * len(images) == 1
    count = per_teacher or (PER_SINGLE_TEACHER if alone else PER_TEACHER)
    found: list[BenchmarkModel] = []
    for teacher in teachers:
        for size in images:
            students = _spread(parse_network(teacher), ImageShape.parse(size), count)
            found += _with_held_out(list(students))
    if alone and found:
        found.append(_wide_model(found[-1]))
    if not found:
        raise InputError(
            "no student of these teachers can read such an image",
            found=f"{', '.join(teachers)}; {', '.join(images)}",
            fix="take larger images, or another teacher",
        )
    if most is not None:
        found = _small([replace(each, held_out=False) for each in found], most)
    return tuple(replace(each, name=f"student-{number}") for number, each in enumerate(found))


def _small(students: Sequence[BenchmarkModel], count: int) -> list[BenchmarkModel]:
    """So many students by their MACs: the smallest, and further ones below the largest third.

    The largest, bound by memory, tell of others less than they cost.
    """
    ordered = sorted(students, key=lambda student: student.macs)
    places = dict.fromkeys(step * (len(ordered) - 1) // count for step in range(count))
    return [ordered[place] for place in places]


def bundled_benchmark_models(manifest: Manifest, where: str) -> tuple[BenchmarkModel, ...]:
    """Students of a bundle, from small to large; raises InputError for fewer than two.

    `where` names the bundle.
    """
    image = ImageShape.parse(manifest.image)
    found = [
        BenchmarkModel(model.name, model.network, image, len(model.filters))
        for model in manifest.models
        if model.role == "student" and model.network is not None
    ]
    if len({student.macs for student in found}) < 2:
        raise InputError(
            "students of one size do not tell how time grows with size",
            where=where,
            found=f"{len(found)} students",
            fix="profile without --bundle, or take a bundle of students of several sizes",
        )
    return tuple(_with_held_out(sorted(found, key=lambda student: student.macs)))


def _spread(teacher: NetworkSpec, image: ImageShape, count: int) -> Iterator[BenchmarkModel]:
    """Yield `count` students of a teacher, evenly from the smallest to the largest."""
    try:
        macs = {
            spec: student_cost(spec, image, FILTERS).macs for spec in student_candidates(teacher)
        }
    except InputError:
        return  # In this family nothing is left of such small images.
    ordered = sorted(macs, key=lambda spec: macs[spec])
    last = len(ordered) - 1
    indices = dict.fromkeys(round(last * k / max(1, count - 1)) for k in range(count))
    for index in indices:
        yield BenchmarkModel("", str(ordered[index]), image, FILTERS)


def _wide_model(largest: BenchmarkModel) -> BenchmarkModel:
    """Return a wider student of the same family and depth."""
    spec = parse_network(largest.network)
    steps = (1 << power for power in range(3, 14))
    wider = (replace(largest, network=str(spec.proportional(step))) for step in steps)
    return next(student for student in wider if student.macs >= WIDE_MODEL_FACTOR * largest.macs)


def _with_held_out(students: list[BenchmarkModel]) -> list[BenchmarkModel]:
    """Hold every second member out, but neither the smallest nor the largest."""
    if len(students) < _MIN_MODELS_TO_HOLD_OUT:
        return students
    return [
        replace(student, held_out=number % 2 == 1 and number < len(students) - 1)
        for number, student in enumerate(students)
    ]


@dataclass(frozen=True, slots=True)
class GeneratedModel:
    """A generated model, the shape of its images, and the length of its features."""

    name: str
    content: onnx.ModelProto
    image: ImageShape
    filters: int
    network: str | None = None
    ncnn: bytes | None = None
    """The same model for ncnn: its param file; it has no weights."""


def write_benchmark_bundle(
    folder: Path,
    students: Sequence[BenchmarkModel],
    precision: ModelPrecision,
    progress: Progress = silent,
) -> Manifest:
    """Write a bundle of these students."""
    made = [
        GeneratedModel(
            student.name,
            student_model(
                parse_network(student.network),
                student.image,
                student.filters,
                number,
                int8=precision == "int8",
            ),
            student.image,
            student.filters,
            student.network,
        )
        for number, student in enumerate(students)
    ]
    return write_generated_bundle(folder, made, precision, progress)


def write_message_bundle(folder: Path, images: Sequence[ImageShape]) -> Manifest:
    """Write a bundle of one almost empty model for each shape of images."""
    made = [
        GeneratedModel(
            f"message-{image}", mean_model(image), image, image.channels, ncnn=_MEAN_FOR_NCNN
        )
        for image in images
    ]
    return write_generated_bundle(folder, made, "fp32")


def write_generated_bundle(
    folder: Path,
    made: Sequence[GeneratedModel],
    precision: ModelPrecision,
    progress: Progress = silent,
) -> Manifest:
    """Write a bundle of models, in this precision, and an FC layer of ones."""
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


def random_pixels(count: int, image: ImageShape) -> NDArray[np.float32]:
    """Return random images, (count, C, H, W)."""
    shape = (count, image.channels, image.height, image.width)
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)


def _add(
    contents: dict[str, bytes], made: GeneratedModel, precision: ModelPrecision
) -> BundledModel:
    """Add a model's file to `contents`; return its description."""
    model, image = made.content, made.image
    if precision == "int8":
        from nonn_core.export.onnx_model import quantise_static

        # As `export` does, less the correction of biases, which changes no time.
        model = quantise_static(model, random_pixels(_EXAMPLES, image))
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
    """Fields of a file in the manifest."""
    return {"file": file, "sha256": content_hash(content), "size_bytes": len(content)}
