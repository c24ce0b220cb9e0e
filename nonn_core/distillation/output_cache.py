"""Teacher outputs: computed in batches, and cached on disk so that the teacher runs once.

The cache is too large for memory, and read in any order.
"""

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nonn_common import Progress, silent
from nonn_common.document import write_atomic
from nonn_common.errors import NonnError
from nonn_common.units import format_bytes
from nonn_core.distillation.accelerator import Compute, inference_batch_size
from nonn_core.networks.blueprint import ImageShape
from nonn_core.teacher.teacher import TargetSpec, Teacher, TeacherOutputs


@dataclass(frozen=True, slots=True)
class TeacherRunner:
    """Computes a teacher's outputs; the teacher is on the device of `compute`."""

    teacher: Teacher
    targets: TargetSpec
    compute: Compute

    def __call__(self, images: Tensor) -> TeacherOutputs:
        """Compute the outputs for normalised images (N, C, H, W)."""
        at_once = inference_batch_size(ImageShape(*images.shape[1:]), images.device)
        with self.compute.autocast():
            parts = [
                self.teacher.outputs(part, self.targets) for part in torch.split(images, at_once)
            ]
        return parts[0] if len(parts) == 1 else concatenate(parts)


def concatenate(parts: Sequence[TeacherOutputs]) -> TeacherOutputs:
    """Concatenate the outputs of neighbouring images."""
    return TeacherOutputs(
        torch.cat([part.logits for part in parts]),
        [torch.cat(maps) for maps in zip(*(part.maps for part in parts), strict=True)],
        [torch.cat(maps) for maps in zip(*(part.attention for part in parts), strict=True)],
    )


@dataclass(frozen=True, slots=True)
class OutputLayout:
    """Layout of the teacher outputs of one image, and its bytes.

    Logits are kept as float32.  Maps and attention are kept as bfloat16, which has the range of
    float32: nothing overflows, and the unit vectors of Eq. 6 change by less than one part in 256.
    """

    classes: int
    maps: tuple[tuple[int, ...], ...]
    attention: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, outputs: TeacherOutputs) -> "OutputLayout":
        """Layout of the outputs for any number of images."""
        return cls(
            outputs.logits.shape[1],
            tuple(tuple(part.shape[1:]) for part in outputs.maps),
            tuple(tuple(part.shape[1:]) for part in outputs.attention),
        )

    @property
    def row_bytes(self) -> int:
        """Bytes of one image's outputs."""
        return sum(prod(shape) * kind.itemsize for shape, kind in self._fields())

    def pack(self, outputs: TeacherOutputs) -> Tensor:
        """Pack the outputs of N images into bytes, uint8 (N, row_bytes)."""
        parts = (outputs.logits, *outputs.maps, *outputs.attention)
        columns = [
            part.to("cpu", kind).flatten(1).contiguous().view(torch.uint8)
            for part, (_, kind) in zip(parts, self._fields(), strict=True)
        ]
        return torch.cat(columns, dim=1)

    def unpack(self, rows: Tensor) -> TeacherOutputs:
        """Unpack the outputs in uint8 (N, row_bytes), on the same device."""
        columns = torch.split(
            rows, [prod(shape) * kind.itemsize for shape, kind in self._fields()], dim=1
        )
        logits, *parts = [
            column.flatten().view(kind).view(-1, *shape)
            for column, (shape, kind) in zip(columns, self._fields(), strict=True)
        ]
        return TeacherOutputs(logits, parts[: len(self.maps)], parts[len(self.maps) :])

    def _fields(self) -> list[tuple[tuple[int, ...], torch.dtype]]:
        rest = [(shape, torch.bfloat16) for shape in (*self.maps, *self.attention)]
        return [((self.classes,), torch.float32), *rest]


@dataclass(frozen=True, slots=True)
class TeacherOutputCache:
    """Outputs for several views of all images: a row each, view after view.

    `path` holds rows alone; the note beside it says whose they are and gives a checksum of each
    view that is whole, so that a killed build loses one view at most, and a damaged view is made
    anew.
    """

    path: Path
    identity: Any
    shape: OutputLayout
    views: int
    images: int

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole file."""
        return self.views * self._view_bytes

    def build(
        self,
        outputs_of_view: Callable[[int], Iterator[TeacherOutputs]],
        progress: Progress = silent,
    ) -> None:
        """Write the views that are not there yet; `outputs_of_view` yields one view's, in order.

        Raises NonnError when the disk is too full: before anything is written, if it is then.
        """
        checksums = self._finished_views()
        done = len(checksums)
        if done == self.views:
            return
        what = f"teacher's outputs, {format_bytes(self.size_bytes)} on disk"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._check_room(done)
            with self.path.open("r+b" if done else "wb") as file:
                file.truncate(done * self._view_bytes)
                file.seek(0, os.SEEK_END)
                for view in range(done, self.views):
                    shown, checksum = view * self.images, 0
                    for outputs in outputs_of_view(view):
                        rows = self.shape.pack(outputs).numpy().data
                        file.write(rows)
                        checksum = zlib.crc32(rows, checksum)
                        shown += len(outputs.logits)
                        progress(what, shown, self.views * self.images)
                    file.flush()
                    os.fsync(file.fileno())
                    checksums.append(checksum)
                    self._note_finished(checksums)
        except OSError as error:
            raise self._no_room(error.strerror or str(error)) from None

    def rows(self) -> Tensor:
        """Return the file's rows, uint8 (views * images, row_bytes), read when they are used."""
        size = self.size_bytes
        # Shared, though nobody writes: the system grants a private map only as much as it has RAM.
        whole = torch.from_file(str(self.path), shared=True, size=size, dtype=torch.uint8)
        return whole.view(-1, self.shape.row_bytes)

    @property
    def _view_bytes(self) -> int:
        return self.images * self.shape.row_bytes

    def _finished_views(self) -> list[int]:
        """Return the checksums of the views of this identity that the file holds undamaged."""
        try:
            note = json.loads(_note_of(self.path).read_text())
            if note["identity"] != json.loads(json.dumps(self.identity)):
                return []
            noted = [int(checksum) for checksum in note["checksums"]]
            with self.path.open("rb") as file:
                held = (zlib.crc32(file.read(self._view_bytes)) for _ in noted)
                pairs = takewhile(lambda pair: pair[0] == pair[1], zip(noted, held, strict=True))
                return [checksum for checksum, _ in pairs]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return []

    def _note_finished(self, checksums: list[int]) -> None:
        note = {"identity": self.identity, "checksums": checksums}
        write_atomic(_note_of(self.path), json.dumps(note).encode())

    def _check_room(self, done: int) -> None:
        held = self.path.stat().st_size if self.path.exists() else 0
        free = shutil.disk_usage(self.path.parent).free + held
        if self.size_bytes - done * self._view_bytes > free:
            raise self._no_room(f"{format_bytes(free)} are free")

    def _no_room(self, why: str) -> NonnError:
        return NonnError(
            f"{self.path}: the teacher's outputs for {self.views} views need "
            f"{format_bytes(self.size_bytes)}: {why}; make room or lower compute.cached_views, and "
            "run the command again"
        )


def remove_cache(path: Path) -> None:
    """Remove a cache and its note, where there are any."""
    _note_of(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _note_of(path: Path) -> Path:
    return path.with_suffix(".json")
