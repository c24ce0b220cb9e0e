"""Batches of fixed views: each image has a few augmented ones, which the teacher sees once."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nonn_core.data.augmentation import drawn_moves
from nonn_core.data.dataset import Dataset, Images
from nonn_core.learning import processes
from nonn_core.learning.batches import (
    Batch,
    Teach,
    augmented,
    batch_count,
    draw_of,
    epoch_generator,
    in_batches,
)
from nonn_core.learning.lesson import Lesson
from nonn_core.learning.lesson_file import LessonFile, LessonShape
from nonn_core.progress import Progress, silent

_VIEWS, _ORDER = 2**61, 2**62
"""Keep the randomness of views apart from that of epochs."""
_AT_ONCE = 256
"""Images whose lessons are written together."""


@dataclass(frozen=True)
class CachedBatches:
    """Images in `views` fixed views, and lessons of them from a file at `path`.

    View v of image i is a function of (seed, v, i) alone.  Each epoch shows each image in one of
    its views, not all in the same one, and `views` epochs in a row show all.  The file is written
    when the first batch is asked for; `identity` says of which teacher and images it is.
    """

    dataset: Dataset
    images: Images
    size: int
    seed: int
    teach: Teach
    views: int
    path: Path
    identity: Any
    progress: Progress = silent

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return batch_count(len(self.images), self.size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield one shuffled pass over the images, each in the view that is its turn."""
        shape, rows = self._lessons
        order = torch.randperm(len(self.images), generator=epoch_generator(self.seed, number))
        turns = (self._first_views + number) % self.views
        for position, chosen in enumerate(in_batches(order, self.size)):
            own = processes.own_part(chosen)
            shown = turns[own] * len(self.images) + own
            images, labels = self._seen(shown, own)
            lesson = shape.unpacked(rows[shown].to(images.device))
            yield Batch(images, labels, lesson, draw_of(self.seed, number, position))

    @cached_property
    def _first_views(self) -> Tensor:
        generator = torch.Generator().manual_seed(_ORDER + self.seed)
        return torch.randint(self.views, (len(self.images),), generator=generator)

    @cached_property
    def _moves(self) -> Tensor:
        """Return the moves of each row of the file, int16 (views * images, 3)."""
        return torch.cat(
            [
                drawn_moves(
                    len(self.images),
                    self.dataset.image,
                    self.dataset.mirrored,
                    torch.Generator().manual_seed(_VIEWS + self.seed * 1_000_003 + view),
                )
                for view in range(self.views)
            ]
        )

    @cached_property
    def _lessons(self) -> tuple[LessonShape, Tensor]:
        """Return the shape and the rows of all lessons; write them first if need be."""
        shape = LessonShape.of(self._shown(0, torch.tensor([0])))
        identity = {
            "run": self.identity,
            "views": self.views,
            "seed": self.seed,
            "images": len(self.images),
            "row_bytes": shape.row_bytes,
        }
        file = LessonFile(self.path, identity, shape, self.views, len(self.images))
        if processes.first_on_machine():
            file.build(self._view, self.progress)
        processes.wait()
        return shape, file.rows()

    def _view(self, view: int) -> Iterator[Lesson]:
        """Yield the lessons of one view, image after image."""
        for positions in torch.split(torch.arange(len(self.images)), _AT_ONCE):
            yield self._shown(view, positions)

    def _shown(self, view: int, positions: Tensor) -> Lesson:
        return self.teach(self._seen(view * len(self.images) + positions, positions)[0])

    def _seen(self, rows: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return these images as these rows of the file show them, and their labels."""
        device = self.images.labels.device
        taken = self.images.take(positions.to(device))
        return augmented(self.dataset, taken, self._moves[rows].to(device))
