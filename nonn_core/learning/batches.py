"""Where the training loop gets its batches from."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nonn_core.data.dataset import Dataset, Images
from nonn_core.learning.lesson import Lesson


@dataclass(frozen=True, slots=True)
class Batch:
    """Normalised images (N, C, H, W), labels (N,), and what the teacher shows for them."""

    images: Tensor
    labels: Tensor
    lesson: Lesson | None = None


class Batches(Protocol):
    """The batches of each epoch, a function of the epoch's number alone."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of epoch `number`, counted from 0."""


@dataclass(frozen=True, slots=True)
class LiveBatches:
    """Images augmented anew in each epoch; `teach`, if given, runs on each batch."""

    dataset: Dataset
    images: Images
    size: int
    seed: int
    teach: Callable[[Tensor], Lesson] | None = None

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return math.ceil(len(self.images) / self.size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield one shuffled, augmented pass over the images."""
        # The generator depends on seed and epoch alone: nothing of it needs to be saved.
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        for pixels, labels in self.dataset.augmented_batches(self.images, self.size, generator):
            images = pixels.contiguous(memory_format=torch.channels_last)
            yield Batch(images, labels, None if self.teach is None else self.teach(images))
