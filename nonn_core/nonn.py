"""A network of neural networks: students that share G0, never talk, and meet in one FC layer."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nonn_core.family import WrnSpec
from nonn_core.wrn import Trunk, group0, initialise, pooled


@dataclass(frozen=True, slots=True)
class StudentShape:
    """A student's network and how many fconv filters it mimics."""

    spec: WrnSpec
    filters: int


class StudentHead(nn.Module):
    """A student without G0: trunk, then the 1x1 convolution to its partition's filters.

    Like the teacher's fconv, the convolution is followed by normalisation and activation, so that
    Eq. 6 of arXiv:1907.11804 compares values of the same kind, all >= 0.
    """

    def __init__(self, shape: StudentShape) -> None:
        super().__init__()
        self.trunk = Trunk(shape.spec)
        self.fconv = nn.Conv2d(shape.spec.widths[2], shape.filters, 1, bias=False)
        self.norm = nn.BatchNorm2d(shape.filters)

    def forward(self, maps: Tensor) -> Tensor:
        """Map G0's output (N, W1, H, W) to (N, filters, H / 4, W / 4)."""
        return F.relu(self.norm(self.fconv(self.trunk(maps))))


class DeployedStudent(nn.Module):
    """A student as it runs on a board: its copy of G0, its head, and the pool."""

    def __init__(self, shared: nn.Module, head: StudentHead) -> None:
        super().__init__()
        self.group0 = shared
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, H, W) to the vector that the board answers, (N, filters)."""
        return pooled(self.head(self.group0(images)))


class Nonn(nn.Module):
    """K students with a shared G0, and the FC layer over their concatenated vectors."""

    def __init__(self, shapes: Sequence[StudentShape], image_channels: int, classes: int) -> None:
        super().__init__()
        self.group0 = group0(shapes[0].spec, image_channels)
        self.heads = nn.ModuleList(StudentHead(shape) for shape in shapes)
        self.fc = nn.Linear(sum(shape.filters for shape in shapes), classes)
        initialise(self)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map images (N, C, H, W) to logits (N, classes) and each student's fconv maps."""
        shared = self.group0(images)
        maps = [head(shared) for head in self.heads]
        return self.classify([pooled(each) for each in maps]), maps

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
        """Yield each student as it runs on its board."""
        for head in self.heads:
            assert isinstance(head, StudentHead)  # noqa: S101  (a ModuleList forgets its type)
            yield DeployedStudent(self.group0, head)


def build_nonn(
    shapes: Sequence[StudentShape], image_channels: int, classes: int, seed: int
) -> Nonn:
    """Build a NoNN whose initial weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Nonn(shapes, image_channels, classes)
