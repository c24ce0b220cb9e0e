"""Batches of the training loop: augmented anew in each epoch, or from cached views.

With cached views each image has a few augmented ones, which the teacher sees once.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from nonn_common import Progress, silent
from nonn_core.data.dataset import Dataset, Images, draw_shifts, shift_and_mirror
from nonn_core.distillation import accelerator
from nonn_core.distillation.output_cache import OutputLayout, TeacherOutputCache
from nonn_core.teacher.teacher import TeacherOutputs


@dataclass(frozen=True, slots=True)
class Batch:
    """Normalised images (N, C, H, W), labels (N,), and the teacher's outputs for them.

    `draw` seeds whatever else is random in the step; it differs from batch to batch and epoch to
    epoch, and is the same again in a resumed run.
    """

    images: Tensor
    labels: Tensor
    teacher_outputs: TeacherOutputs | None = None
    draw: int = 0


class Batches(Protocol):
    """The batches of each epoch, a function of the epoch's number alone.

    Where several processes train together, each gets its own part of each batch.
    """

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of epoch `number`, counted from 0."""


RunTeacher = Callable[[Tensor], TeacherOutputs]
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
    run_teacher: RunTeacher | None = None

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return batch_count(len(self.images), self.size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield one shuffled, augmented pass over the images."""
        generator = epoch_generator(self.seed, number)
        order = torch.randperm(len(self.images), generator=generator)
        moves = draw_shifts(
            len(self.images), self.dataset.image, self.dataset.mirrored, generator
        ).to(self.images.labels.device)
        for position, chosen in enumerate(in_batches(order.to(moves.device), self.size)):
            own = accelerator.shard(chosen)
            images, labels = augmented(self.dataset, self.images.take(own), moves[own])
            teacher_outputs = None if self.run_teacher is None else self.run_teacher(images)
            yield Batch(images, labels, teacher_outputs, draw_of(self.seed, number, position))


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
    return dataset.normalised(shift_and_mirror(images.pixels, moves)), images.labels


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """Random generator of an epoch.

    A function of these two numbers, so that none is saved.
    """
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch)


def draw_of(seed: int, epoch: int, position: int) -> int:
    """Seed `draw` of an epoch's batch.

    A function of these numbers and of the process.
    """
    return ((seed * 1_000_003 + epoch) * 1_000_003 + position + (accelerator.rank() << 48)) % 2**63


_VIEW_SEED, _ORDER_SEED = 2**61, 2**62
"""Keep the randomness of views apart from that of epochs."""
_ROWS_AT_ONCE = 256
"""Images whose teacher outputs are written together."""


@dataclass(frozen=True)
class CachedBatches:
    """Images in `views` fixed views, with teacher outputs cached at `path`.

    View v of image i is a function of (seed, v, i) alone.  Each epoch shows each image in one of
    its views, not all in the same one, and `views` epochs in a row show all.  The file is written
    when the first batch is asked for; `identity` says of which teacher and images it is.
    """

    dataset: Dataset
    images: Images
    size: int
    seed: int
    run_teacher: RunTeacher
    views: int
    path: Path
    identity: Any
    progress: Progress = silent

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return batch_count(len(self.images), self.size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield one shuffled pass over the images, each in the view that is its turn."""
        shape, rows = self._cached_outputs
        order = torch.randperm(len(self.images), generator=epoch_generator(self.seed, number))
        turns = (self._first_views + number) % self.views
        for position, chosen in enumerate(in_batches(order, self.size)):
            own = accelerator.shard(chosen)
            rows_of_batch = turns[own] * len(self.images) + own
            images, labels = self._images_at(rows_of_batch, own)
            teacher_outputs = shape.unpack(rows[rows_of_batch].to(images.device))
            yield Batch(images, labels, teacher_outputs, draw_of(self.seed, number, position))

    @cached_property
    def _first_views(self) -> Tensor:
        generator = torch.Generator().manual_seed(_ORDER_SEED + self.seed)
        return torch.randint(self.views, (len(self.images),), generator=generator)

    @cached_property
    def _moves(self) -> Tensor:
        """Return the moves of each row of the file, int16 (views * images, 3)."""
        return torch.cat(
            [
                draw_shifts(
                    len(self.images),
                    self.dataset.image,
                    self.dataset.mirrored,
                    torch.Generator().manual_seed(_VIEW_SEED + self.seed * 1_000_003 + view),
                )
                for view in range(self.views)
            ]
        )

    @cached_property
    def _cached_outputs(self) -> tuple[OutputLayout, Tensor]:
        """Layout and rows of the cached outputs, which are written if need be."""
        shape = OutputLayout.of(self._outputs_at(0, torch.tensor([0])))
        identity = {
            "run": self.identity,
            "views": self.views,
            "seed": self.seed,
            "images": len(self.images),
            "row_bytes": shape.row_bytes,
        }
        file = TeacherOutputCache(self.path, identity, shape, self.views, len(self.images))
        if accelerator.is_local_rank_zero():
            file.build(self._view, self.progress)
        accelerator.barrier()
        return shape, file.rows()

    def _view(self, view: int) -> Iterator[TeacherOutputs]:
        """Teacher outputs of one view, image after image."""
        for positions in torch.split(torch.arange(len(self.images)), _ROWS_AT_ONCE):
            yield self._outputs_at(view, positions)

    def _outputs_at(self, view: int, positions: Tensor) -> TeacherOutputs:
        return self.run_teacher(self._images_at(view * len(self.images) + positions, positions)[0])

    def _images_at(self, rows: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return these images as these rows of the file show them, and their labels."""
        device = self.images.labels.device
        taken = self.images.take(positions.to(device))
        return augmented(self.dataset, taken, self._moves[rows].to(device))
