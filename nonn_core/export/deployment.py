"""Deployment of a trained network: the models that boards run, for onnxruntime and ncnn.

ncnn runs where onnxruntime has no wheel.
"""

import copy
import logging
import subprocess
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import cast
from urllib.parse import quote

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from nonn_common import Progress, silent
from nonn_common.errors import ExportError, InputError
from nonn_core.data.dataset import Dataset
from nonn_core.export.bundle import Port, Role
from nonn_core.export.ncnn_net import NcnnNet
from nonn_core.export.onnx_model import OPSET, Array, Inference, inference, strip_notes
from nonn_core.networks.blueprint import Filters
from nonn_core.networks.modules import Nonn
from nonn_core.recipe import NonnRecipe, TrainingRecipe

IMAGE, MAPS, VECTOR, VECTORS, LOGITS = "image", "maps", "vector", "vectors", "logits"
WHITE = 255

JointNames = Mapping[str, Sequence[str]]
"""Names of the students of each joint model, by the model's name."""
NO_JOINT: JointNames = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class DeployedModel:
    """One model: a torch module, an example input, and its manifest entry."""

    name: str
    role: Role
    network: str | None
    module: nn.Module
    example: Tensor
    reads: Port
    answers: Port
    filters: Filters = ()
    fc_offset: int | None = None
    members: tuple[str, ...] = ()

    @property
    def stem(self) -> str:
        """Its file's name, without suffix; students' names may hold any letter."""
        named = self.role in ("student", "head")
        return f"student-{quote(self.name, safe='')}" if named else self.name


class OnPixels(nn.Module):
    """Module that normalises the pixels it reads.

    They are float32 (N, C, H, W), from 0 to 255.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, module: nn.Module, dataset: Dataset) -> None:
        super().__init__()
        self.module = module
        self.register_buffer("mean", WHITE * dataset.mean)
        self.register_buffer("scale", 1 / (WHITE * dataset.std))

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels (N, C, H, W) to what the module answers for normalised images."""
        return cast(Tensor, self.module((pixels - self.mean) * self.scale))


class _Logits(nn.Module):
    """An undivided network that answers logits alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.network(images)[0])


def deployed_models(
    network: nn.Module, recipe: TrainingRecipe, dataset: Dataset, joint: JointNames = NO_JOINT
) -> Iterator[DeployedModel]:
    """Models of a trained network, G0 before the heads that need it, joint models last."""
    if isinstance(recipe.model, NonnRecipe):
        assert isinstance(network, Nonn)  # noqa: S101  (built from this recipe)
        if recipe.model.group0 == "own-board":
            yield from _heads_and_group0(network, recipe.model, dataset)
        else:
            yield from _students(network, recipe.model, dataset)
            yield from _joint_models(network, recipe.model, dataset, joint)
    else:
        module = OnPixels(_Logits(network), dataset)
        pixels = _pixels(dataset)
        yield _deployed_model(
            "model", "whole", recipe.model.network, module, pixels, (IMAGE, LOGITS)
        )


def _students(network: Nonn, recipe: NonnRecipe, dataset: Dataset) -> Iterator[DeployedModel]:
    offset = 0
    for student, deployed in zip(recipe.students, network.deployed(), strict=True):
        yield _deployed_model(
            student.name,
            "student",
            student.network,
            OnPixels(deployed, dataset),
            _pixels(dataset),
            (IMAGE, VECTOR),
            student.filters,
            offset,
        )
        offset += len(student.filters)


def _joint_models(
    network: Nonn, recipe: NonnRecipe, dataset: Dataset, joint: JointNames
) -> Iterator[DeployedModel]:
    places = {student.name: place for place, student in enumerate(recipe.students)}
    for name, members in joint.items():
        module = OnPixels(network.joint(places[member] for member in members), dataset)
        made = _deployed_model(name, "joint", None, module, _pixels(dataset), (IMAGE, VECTORS))
        yield replace(made, members=tuple(members))


def _heads_and_group0(
    network: Nonn, recipe: NonnRecipe, dataset: Dataset
) -> Iterator[DeployedModel]:
    group0 = _deployed_model(
        "group0",
        "group0",
        None,
        OnPixels(network.group0[0], dataset),
        _pixels(dataset),
        (IMAGE, MAPS),
    )
    yield group0
    maps = torch.zeros(len(group0.example), *group0.answers.shape)
    offset = 0
    for student, head in zip(recipe.students, network.deployed_heads(), strict=True):
        yield _deployed_model(
            student.name,
            "head",
            student.network,
            head,
            maps,
            (MAPS, VECTOR),
            student.filters,
            offset,
        )
        offset += len(student.filters)


def _deployed_model(
    name: str,
    role: Role,
    network: str | None,
    module: nn.Module,
    example: Tensor,
    ports: tuple[str, str],
    filters: Filters = (),
    fc_offset: int | None = None,
) -> DeployedModel:
    """Complete a part with the shapes of its ports."""
    reads, answers = ports
    with torch.no_grad():
        answer = module.eval()(example)
    return DeployedModel(
        name,
        role,
        network,
        module,
        example,
        Port(name=reads, shape=tuple(example.shape[1:])),
        Port(name=answers, shape=tuple(answer.shape[1:])),
        filters,
        fc_offset,
    )


def _pixels(dataset: Dataset) -> Tensor:
    """Two black images; the exporter would take a batch of one for a fixed size."""
    image = dataset.image
    return torch.zeros(2, image.channels, image.height, image.width)


def to_onnx(module: nn.Module, example: Tensor, reads: str, answers: str) -> onnx.ModelProto:
    """Export a module with one input, named `reads`, and one output, named `answers`.

    `example` (N, ...) fixes all axes but the first.  Normalisations right after a convolution are
    folded into it.
    """
    # Networks that were just trained lie channels-last, from which the exporter makes detours.
    plain = copy.deepcopy(module).eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    with _quiet_exporter():
        program = torch.onnx.export(
            plain,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=[reads],
            output_names=[answers],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
        )
    assert program is not None  # noqa: S101  (no file was named, so the model comes back)
    model = strip_notes(program.model_proto)
    onnx.checker.check_model(model, full_check=True)
    return model


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporter on unused libraries and on torch itself."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    # One line for each operator of torchvision, which is not installed.
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # torch 2.13 copies a part of its own pytree module that it calls deprecated.
            warnings.filterwarnings(
                "ignore", message=".*isinstance.treespec, LeafSpec.*", category=FutureWarning
            )
            yield
    finally:
        registration.setLevel(level)


Models = Mapping[str, onnx.ModelProto]
"""ONNX models by the stem of their part."""

NCNN_PACKAGES = ("ncnn", "pnnx")
"""Packages that make models for ncnn."""

CONVERTIBLE = {
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Clip",
    "Concat",
    "Conv",
    "Flatten",
    "Gemm",
    "GlobalAveragePool",
    "MaxPool",
    "Mul",
    "ReduceMean",
    "Relu",
    "Reshape",
    "Sub",
}
"""Operators that are converted rightly.

Of the Gather that SplitNet reorders channels with, pnnx makes layers that write past their memory,
so that the process ends before anything could be compared.
"""

CHECK_IMAGES = 256
NCNN_TOLERANCE = 1e-3
"""Largest difference of a value from the ONNX model's, beside the largest value."""


@dataclass(frozen=True, slots=True)
class NcnnContent:
    """Model for ncnn, compared with the fp32 ONNX model it comes from."""

    param: bytes
    weights: bytes
    images: int
    largest_difference: float
    largest_value: float


def check_ncnn_installed() -> None:
    """Make sure, before any work, that models for ncnn can be made; raises InputError."""
    missing = [name for name in NCNN_PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(
            f"models for ncnn need {' and '.join(missing)}",
            where="--ncnn",
            fix="pip install 'nonn-plan[ncnn]'",
        )


def ncnn_models(
    parts: Sequence[DeployedModel], fp32: Models, pixels: Array, progress: Progress = silent
) -> dict[str, NcnnContent]:
    """Convert each part's ONNX model; return them by the part's stem.

    Each is compared with the ONNX model on `pixels` (N, C, H, W), test images, or on the maps of G0
    for them.  Raises ExportError where one cannot be converted or computes something else.
    """
    made: dict[str, NcnnContent] = {}
    reads = pixels
    for number, part in enumerate(parts):
        progress("converting", number, len(parts))
        exported = inference(fp32[part.stem])
        param, weights = convert_to_ncnn(fp32[part.stem], reads.shape[1:], part.stem)
        made[part.stem] = _checked_ncnn(part.stem, param, weights, exported, reads)
        if part.role == "group0":
            reads = exported(pixels)
    return made


def _checked_ncnn(
    stem: str, param: bytes, weights: bytes, exported: Inference, reads: Array
) -> NcnnContent:
    """Refuse a model that does not compute what the ONNX model does."""
    found, expected = NcnnNet.open(param, weights, 1, stem)(reads), exported(reads)
    if found.shape != expected.shape:
        raise ExportError(
            f"{stem}: the model for ncnn answers shape {found.shape[1:]} in place of "
            f"{expected.shape[1:]}; nothing was written; export without --ncnn"
        )
    largest = float(np.abs(expected).max())
    difference = float(np.abs(found - expected).max())
    # Written so that a NaN is refused.
    if not difference <= NCNN_TOLERANCE * largest:
        raise ExportError(
            f"{stem}: the model for ncnn differs from the ONNX model: a value by {difference:.3g}, "
            f"where the largest is {largest:.3g}; nothing was written; export without --ncnn, and "
            "report this with the recipe and the versions of ncnn and pnnx"
        )
    return NcnnContent(param, weights, len(reads), difference, largest)


def convert_to_ncnn(
    model: onnx.ModelProto, reads: tuple[int, ...], stem: str
) -> tuple[bytes, bytes]:
    """Convert a model with pnnx; its param and bin files.

    Raises ExportError where it fails, or would make a model that does.
    """
    import pnnx  # type: ignore[import-untyped]

    unknown = {node.op_type for node in model.graph.node} - CONVERTIBLE
    if unknown:
        raise ExportError(
            f"{stem}: pnnx cannot be trusted to convert {', '.join(sorted(unknown))} of ONNX for "
            "ncnn; nothing was written; export without --ncnn"
        )
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "model.onnx").write_bytes(model.SerializeToString())
        shape = ",".join(map(str, (1, *reads)))
        # fp16=0: or weights are rounded to half precision.
        command = [pnnx.EXEC_PATH, "model.onnx", f"inputshape=[{shape}]f32", "fp16=0"]
        done = subprocess.run(  # noqa: S603  (the program of a package, arguments of our own)
            command, cwd=place, capture_output=True, text=True, errors="replace", check=False
        )
        files = place / "model.ncnn.param", place / "model.ncnn.bin"
        if done.returncode or not all(path.exists() for path in files):
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise ExportError(
                f"{stem}: pnnx could not convert the model (exit code {done.returncode}"
                f"{': ' + said[-1] if said else ''}); nothing was written; export without --ncnn"
            )
        param, weights = (path.read_bytes() for path in files)
    return param, weights
