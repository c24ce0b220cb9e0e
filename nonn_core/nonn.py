"""A network of neural networks: students that share G0, never talk, and meet in one FC layer."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from nonn_core.blueprint import Conv, activated
from nonn_core.family import NetworkSpec
from nonn_core.modules import initialise, pooled, sequence


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
        self.trunk = nn.Sequential(*(sequence(ops) for ops in blueprint.stages))
        self.fconv = sequence(activated(Conv(blueprint.channels, shape.filters, 1)))

    def forward(self, maps: Tensor) -> Tensor:
        """Map G0's output (N, C, H, W) to fconv maps (N, filters, H', W'), all >= 0."""
        return cast(Tensor, self.fconv(self.trunk(maps)))


class DeployedStudent(nn.Module):
    """A student as it runs on a board: its copy of G0, its head, and the pool."""

    def __init__(self, group0: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.group0 = group0
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, H, W) to the vector that the board answers, (N, filters)."""
        return pooled(self.head(self.group0(images)))


class DeployedHead(nn.Module):
    """A student's part of a board where G0 runs on another one: its head, and the pool."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, maps: Tensor) -> Tensor:
        """Map G0's output (N, C, H, W) to the vector that the board answers, (N, filters)."""
        return pooled(self.head(maps))


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
            sequence(shape.spec.blueprint(image_channels).group0) for shape in owners
        )
        self.heads = nn.ModuleList(StudentHead(shape, image_channels) for shape in shapes)
        self.fc = nn.Linear(sum(shape.filters for shape in shapes), classes)
        initialise(self)

    @property
    def shared_group0(self) -> bool:
        """Whether all students stand on one G0."""
        return len(self.group0) < len(self.heads) or len(self.heads) == 1

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map images (N, C, H, W) to logits (N, classes) and each student's fconv maps."""
        maps = self.student_maps(images)
        return self.classify([pooled(each) for each in maps]), maps

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

    def deployed_heads(self) -> Iterator[DeployedHead]:
        """Yield each student as it runs where the shared G0 has a board of its own."""
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
