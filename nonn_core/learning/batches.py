"""Where the training loop gets its batches from."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nonn_core.data.augmentation import drawn_moves, moved
from nonn_core.data.dataset import Dataset, Images
from nonn_core.learning import processes
from nonn_core.learning.lesson import Lesson


@dataclass(frozen=True, slots=True)
class Batch:
    """Normalised images (N, C, H, W), labels (N,), and what the teacher shows for them.

    `draw` seeds whatever else is random in the step; it differs from batch to batch and epoch to
    epoch, and is the same again in a resumed run.
    """

    images: Tensor
    labels: Tensor
    lesson: Lesson | None = None
    draw: int = 0


class Batches(Protocol):
    """The batches of each epoch, a function of the epoch's number alone.

    Where several processes train together, each gets its own part of each batch.
    """

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of epoch `number`, counted from 0."""


Teach = Callable[[Tensor], Lesson]
"""Shows what the teacher says of normalised images (N, C, H, W)."""


@dataclass(frozen=True, slots=True)
class LiveBatches:
    """Images augmented anew in each epoch; `teach`, if given, runs on each batch.

    `images` of `dataset` are on the device that trains, and stay there.
    """

    dataset: Dataset
    images: Images
    size: int
    seed: int
    teach: Teach | None = None

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return batch_count(len(self.images), self.size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield one shuffled, augmented pass over the images."""
        generator = epoch_generator(self.seed, number)
        order = torch.randperm(len(self.images), generator=generator)
        moves = drawn_moves(
            len(self.images), self.dataset.image, self.dataset.mirrored, generator
        ).to(self.images.labels.device)
        for position, chosen in enumerate(in_batches(order.to(moves.device), self.size)):
            own = processes.own_part(chosen)
            images, labels = augmented(self.dataset, self.images.take(own), moves[own])
            lesson = None if self.teach is None else self.teach(images)
            yield Batch(images, labels, lesson, draw_of(self.seed, number, position))


def batch_count(images: int, size: int) -> int:
    """Return how many batches of `size` an epoch of so many images has."""
    whole, rest = divmod(images, size)
    return max(1, whole + (rest > 1))


def in_batches(order: Tensor, size: int) -> tuple[Tensor, ...]:
    """Part positions (N,) into batches; a last single one joins the batch before it.

    A normalisation cannot learn from one image whose maps have one place.
    """
    return torch.tensor_split(order, [size * k for k in range(1, batch_count(len(order), size))])


def augmented(dataset: Dataset, images: Images, moves: Tensor) -> tuple[Tensor, Tensor]:
    """Return images (N), moved by `moves` (N, 3) and normalised, channels-last; and labels (N,)."""
    return dataset.normalised(moved(images.pixels, moves)), images.labels


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """Return the randomness of an epoch: a function of these two numbers, so that none is saved."""
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch)


def draw_of(seed: int, epoch: int, position: int) -> int:
    """Return the `draw` of an epoch's batch: a function of these numbers and of the process."""
    return ((seed * 1_000_003 + epoch) * 1_000_003 + position + (processes.rank() << 48)) % 2**63
