"""Torch modules: whole classifiers, NoNNs, and their weights on disk.

A NoNN is a network of neural networks: students that share G0, never talk, and meet in one FC
layer.  Weights are safetensors, written atomically and read with errors that name the tensor.
That format says where each tensor lies but not whether it is still what was written, so that
a digest of all of them goes along.
"""

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from nonn_common.document import write_atomic
from nonn_common.errors import InputError
from nonn_core.feature_layer import FeatureLayer, FeatureMoments
from nonn_core.networks.blueprint import (
    Conv,
    MaxPool,
    NetworkSpec,
    Norm,
    Op,
    Ops,
    Relu,
    Residual,
    conv_norm_relu,
)

# Where a processor has AVX2 and no AVX-512, the kernels that oneDNN picks for gradients of a few
# channels damage the heap (docs/decisions/0029).  Read by oneDNN when it first computes.
if torch.backends.cpu.get_cpu_capability() == "AVX2":
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX")


class ResidualBlock(nn.Module):
    """Module of a `blueprint.Residual`."""

    def __init__(self, op: Residual) -> None:
        super().__init__()
        self.before = build_sequence(op.before)
        self.body = build_sequence(op.body)
        self.shortcut = build_sequence(op.shortcut) if op.shortcut else None
        self.after = build_sequence(op.after)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        active = self.before(maps)
        kept = maps if self.shortcut is None else self.shortcut(active)
        return cast(Tensor, self.after(self.body(active) + kept))


class Classifier(nn.Module):
    """A whole network: G0, stages, average pool, FC layer.

    Its fconv is the output of `trunk`, after the last activation.
    """

    def __init__(self, spec: NetworkSpec, image_channels: int, classes: int) -> None:
        super().__init__()
        self.spec = spec
        blueprint = spec.blueprint(image_channels)
        self.group0 = build_sequence(blueprint.group0)
        stages = [build_sequence(ops) for ops in blueprint.stages]
        self.trunk = nn.Sequential(
            *stages, *([build_sequence(blueprint.tail)] if blueprint.tail else [])
        )
        self.fc = nn.Linear(blueprint.features, classes)
        initialise(self)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map images to logits and the maps after each stage.

        (N, C, H, W) to (N, classes).  G0's maps come first, fconv's (N, features, H', W') last.
        """
        maps = [self.group0(images)]
        for stage in self.trunk:
            maps.append(stage(maps[-1]))
        return self.fc(global_average_pool(maps[-1])), maps


def build_sequence(ops: Ops) -> nn.Sequential:
    """Build operations in a row."""
    return nn.Sequential(*(_module(op) for op in ops))


def global_average_pool(maps: Tensor) -> Tensor:
    """Average over height and width: (N, C, H, W) to (N, C)."""
    return F.adaptive_avg_pool2d(maps, 1).flatten(1)


def initialise(network: nn.Module) -> None:
    """Give convolutions He's normal initialisation (arXiv:1502.01852), fan-out mode."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


def build_classifier(spec: NetworkSpec, image_channels: int, classes: int, seed: int) -> Classifier:
    """Build a classifier whose initial weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Classifier(spec, image_channels, classes)


def _module(op: Op) -> nn.Module:
    match op:
        case Conv(inputs, outputs, kernel, stride, groups):
            return nn.Conv2d(
                inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False
            )
        case Norm(channels):
            return nn.BatchNorm2d(channels)
        case Relu(ceiling):
            return nn.ReLU() if ceiling is None else nn.Hardtanh(0.0, ceiling)
        case MaxPool(kernel):
            return nn.MaxPool2d(kernel, 2, (kernel - 1) // 2)
        case Residual():
            return ResidualBlock(op)


def attention_map(maps: Tensor) -> Tensor:
    """Attention of maps (N, C, H, W): their squares summed over channels, (N, H, W).

    F_sum^2 of arXiv:1612.03928, section 3.1, in single precision or better.
    """
    return upcast(maps).square().sum(dim=1)


def upcast(values: Tensor) -> Tensor:
    """Return half precision as single; single and double stay what they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


@dataclass(frozen=True, slots=True)
class StudentShape:
    """A student's network and how many fconv filters it mimics."""

    spec: NetworkSpec
    filters: int


class StudentHead(nn.Module):
    """A student without G0: its stages, then the 1x1 convolution to its partition's filters.

    Like the teacher's fconv, the convolution is followed by normalisation and activation, so that
    Eq. 6 of arXiv:1907.11804 compares values of the same kind, all >= 0.
    """

    def __init__(self, shape: StudentShape, image_channels: int) -> None:
        super().__init__()
        blueprint = shape.spec.blueprint(image_channels)
        self.trunk = nn.Sequential(*(build_sequence(ops) for ops in blueprint.stages))
        self.fconv = build_sequence(conv_norm_relu(Conv(blueprint.channels, shape.filters, 1)))

    def forward(self, maps: Tensor) -> Tensor:
        """Map G0's output to fconv maps, all >= 0.

        (N, C, H, W) to (N, filters, H', W').
        """
        return cast(Tensor, self.fconv(self.trunk(maps)))


class DeployedStudent(nn.Module):
    """Student on a board: its copy of G0, its head, and the pool."""

    def __init__(self, group0: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.group0 = group0
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, H, W) to the vector that the board answers, (N, filters)."""
        return global_average_pool(self.head(self.group0(images)))


class JointStudents(nn.Module):
    """Students of one board on one G0, which runs once for all of them."""

    def __init__(self, group0: nn.Module, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.group0 = group0
        self.heads = nn.ModuleList(heads)

    def forward(self, images: Tensor) -> Tensor:
        """Map images to the students' vectors side by side.

        (N, C, H, W) to (N, filters of all).
        """
        maps = self.group0(images)
        return torch.cat([global_average_pool(head(maps)) for head in self.heads], dim=1)


class DeployedHead(nn.Module):
    """Student on a board where G0 runs elsewhere: head and pool."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, maps: Tensor) -> Tensor:
        """Map G0's output to the vector of the board.

        (N, C, H, W) to (N, filters).
        """
        return global_average_pool(self.head(maps))


class Nonn(nn.Module):
    """K students, and the FC layer over their concatenated vectors.

    There is one G0 that all students share or, with `shared_group0` false, one for each; students
    of unequal G0 can only have their own.
    """

    def __init__(
        self,
        shapes: Sequence[StudentShape],
        image_channels: int,
        classes: int,
        shared_group0: bool = True,
    ) -> None:
        super().__init__()
        owners = shapes[:1] if shared_group0 else shapes
        self.group0 = nn.ModuleList(
            build_sequence(shape.spec.blueprint(image_channels).group0) for shape in owners
        )
        self.heads = nn.ModuleList(StudentHead(shape, image_channels) for shape in shapes)
        self.fc = nn.Linear(sum(shape.filters for shape in shapes), classes)
        self.moments: FeatureMoments | None = None
        """Moments of the features, once training has finished."""
        initialise(self)

    @property
    def feature_layer(self) -> FeatureLayer:
        """The FC layer as the host has it."""
        weight, bias = (each.detach().cpu().numpy() for each in (self.fc.weight, self.fc.bias))
        return FeatureLayer(weight, bias, self.moments)

    @property
    def shared_group0(self) -> bool:
        """Whether all students stand on one G0."""
        return len(self.group0) < len(self.heads) or len(self.heads) == 1

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map images (N, C, H, W) to logits (N, classes) and each student's fconv maps."""
        maps = self.student_maps(images)
        return self.classify([global_average_pool(each) for each in maps]), maps

    def student_maps(self, images: Tensor) -> list[Tensor]:
        """Map images (N, C, H, W) to each student's fconv maps (N, filters, H', W')."""
        roots = [group0(images) for group0 in self.group0]
        if len(roots) == 1:
            roots *= len(self.heads)
        return [head(root) for head, root in zip(self.heads, roots, strict=True)]

    def classify(
        self, vectors: Sequence[Tensor], answering: Collection[int] | None = None
    ) -> Tensor:
        """Apply the FC layer to the vectors (N, filters) of the students that answered.

        `answering` holds their positions; the others' vectors count as zero.  None means all.
        """
        present = range(len(vectors)) if answering is None else answering
        filled = [v if k in present else torch.zeros_like(v) for k, v in enumerate(vectors)]
        logits: Tensor = self.fc(torch.cat(filled, dim=1))
        return logits

    def deployed(self) -> Iterator[DeployedStudent]:
        """Yield each student as it runs on its board, with its copy of G0."""
        for k, head in enumerate(self.heads):
            yield DeployedStudent(self.group0[0 if self.shared_group0 else k], head)

    def joint(self, students: Iterable[int]) -> JointStudents:
        """Students at these positions as one model; their G0 must be the shared one."""
        return JointStudents(self.group0[0], [self.heads[k] for k in students])

    def deployed_heads(self) -> Iterator[DeployedHead]:
        """Students as they run where the shared G0 is elsewhere."""
        return map(DeployedHead, self.heads)


def build_nonn(
    shapes: Sequence[StudentShape],
    image_channels: int,
    classes: int,
    seed: int,
    shared_group0: bool = True,
) -> Nonn:
    """Build a NoNN whose initial weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Nonn(shapes, image_channels, classes, shared_group0)


_SEAL = "nonn_plan"
"""The one entry beside the tensors: safetensors writes several in any order."""
_START_ANEW = "remove the file to start anew"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], note: object = None) -> None:
    """Write tensors and a JSON-able note to one file, atomically; raises NonnError."""
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    seal = json.dumps({"note": note, "sha256": _digest(content, note)})
    write_atomic(path, save(content, metadata={_SEAL: seal}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Read tensors and the note; raises InputError that names the file if it is damaged.

    A file of somebody else has neither note nor digest, and is taken as it is.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise InputError("no such file", where=str(path)) from None
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"is not a whole safetensors file: {error}",
            where=str(path),
            fix=_START_ANEW,
        ) from None
    if _SEAL not in metadata:
        return tensors, None
    try:
        seal = json.loads(metadata[_SEAL])
        whole = seal["sha256"] == _digest(tensors, seal["note"])
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise InputError(
            "is damaged: it does not hold what was written", where=str(path), fix=_START_ANEW
        )
    return tensors, seal["note"]


def fingerprint(module: nn.Module) -> str:
    """Digest of a module's weights.

    Other weights under the same name have another one.
    """
    digest = hashlib.blake2b(digest_size=16)
    for value in module.state_dict().values():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy tensors into a module; raises InputError unless names and shapes are the module's."""
    wanted = module.state_dict()
    for name in sorted(wanted.keys() | tensors.keys()):
        found = tuple(tensors[name].shape) if name in tensors else "nothing"
        allowed = tuple(wanted[name].shape) if name in wanted else "nothing"
        if found != allowed:
            raise InputError(
                f"weights of another network: tensor {name}",
                where=str(path),
                found=found,
                allowed=str(allowed),
            )
    module.load_state_dict(dict(tensors))


def _digest(tensors: Mapping[str, Tensor], note: object) -> str:
    digest = hashlib.sha256(json.dumps(note).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
