"""CIFAR-10 and CIFAR-100 in their published binary form, as a folder or as the tar file of it.

A file is a row of records: its label (CIFAR-100: the coarse label, then the fine one), one byte
each, then 1,024 bytes of red, of green and of blue, row by row (Krizhevsky 2009, the CIFAR page).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from nonn_core.data.files import read_bytes, tar_entries
from nonn_core.data.raw import Labelled, RawDataset
from nonn_core.progress import Progress, silent
from profiles.errors import InputError

SHAPE = (3, 32, 32)
_PIXEL_BYTES = 3 * 32 * 32


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one data set: how many images each holds, and what stands before an image."""

    name: str
    folder: str
    train: Mapping[str, int]
    test: Mapping[str, int]
    class_names: str
    label_classes: tuple[int, ...]
    """Number of classes of each label byte; the last one is the label that is used."""

    @property
    def files(self) -> tuple[str, ...]:
        """The names of all files that are read."""
        return (*self.train, *self.test, self.class_names)

    @property
    def record_bytes(self) -> int:
        """Bytes of one image with its labels."""
        return len(self.label_classes) + _PIXEL_BYTES


CIFAR10 = Layout(
    name="cifar10",
    folder="cifar-10-batches-bin",
    train={f"data_batch_{number}.bin": 10_000 for number in range(1, 6)},
    test={"test_batch.bin": 10_000},
    class_names="batches.meta.txt",
    label_classes=(10,),
)
CIFAR100 = Layout(
    name="cifar100",
    folder="cifar-100-binary",
    train={"train.bin": 50_000},
    test={"test.bin": 10_000},
    class_names="fine_label_names.txt",
    label_classes=(20, 100),
)


def read_cifar(layout: Layout, path: str, progress: Progress = silent) -> RawDataset:
    """Read a folder or tar file; the files may lie below the folder that the tar file makes.

    Raises InputError that names the file which is missing, of another length than published, or
    holds a label that is none.
    """
    contents: dict[str, bytes] = {}
    for name, content in _contents(layout, path):
        contents[name] = content
        progress("reading files", len(contents), len(layout.files))
    for name in layout.files:
        if name not in contents:
            raise InputError("no such file", where=f"{path}: {name}", fix=_download(layout))
    return RawDataset(
        class_names=_class_names(layout, path, contents[layout.class_names]),
        train=_part(layout, path, layout.train, contents),
        test=_part(layout, path, layout.test, contents),
        mirrored=True,
    )


def _download(layout: Layout) -> str:
    return f"download it with: nonn-plan download {layout.name} -o DIR"


def _contents(layout: Layout, path: str) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the files that are there."""
    place = Path(path)
    if place.is_dir():
        below = place / layout.folder
        root = below if below.is_dir() else place
        for name in layout.files:
            if (root / name).is_file():
                yield name, read_bytes(root / name)
    elif place.is_file():
        expected = {
            PurePosixPath(top, name) for top in ("", layout.folder) for name in layout.files
        }
        for entry, content in tar_entries(place, expected.__contains__, ", ".join(layout.files)):
            if content is not None:
                yield entry.name, content
    else:
        raise InputError("no such folder or tar file", where=path, fix=_download(layout))


def _class_names(layout: Layout, path: str, content: bytes) -> tuple[str, ...]:
    """Read one name per line."""
    names = tuple(filter(None, map(str.strip, content.decode(errors="replace").splitlines())))
    if len(names) != layout.label_classes[-1]:
        raise InputError(
            "not one name for each class",
            where=f"{path}: {layout.class_names}",
            found=f"{len(names)} names",
            allowed=f"{layout.label_classes[-1]} lines",
        )
    return names


def _part(
    layout: Layout, path: str, images: Mapping[str, int], contents: Mapping[str, bytes]
) -> Labelled:
    parts = [_labelled(layout, path, name, images[name], contents[name]) for name in images]
    return Labelled(
        np.concatenate([part.pixels for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )


def _labelled(layout: Layout, path: str, name: str, images: int, content: bytes) -> Labelled:
    """View one file as images and labels."""
    if len(content) != images * layout.record_bytes:
        raise InputError(
            "is not as long as published",
            where=f"{path}: {name}",
            found=f"{len(content)} bytes",
            allowed=f"{images * layout.record_bytes} bytes: {images} images of 3x32x32",
            fix="unpack or fetch this file again",
        )
    records = np.frombuffer(content, np.uint8).reshape(images, layout.record_bytes)
    for byte, classes in enumerate(layout.label_classes):
        wrong = np.flatnonzero(records[:, byte] >= classes)
        if wrong.size:
            raise InputError(
                f"image {wrong[0]} has a label that is none",
                where=f"{path}: {name}",
                found=int(records[wrong[0], byte]),
                allowed=f"0 to {classes - 1}",
            )
    first = len(layout.label_classes)
    return Labelled(
        records[:, first:].reshape(images, *SHAPE), records[:, first - 1].astype(np.int64)
    )
