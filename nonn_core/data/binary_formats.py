"""Published binary formats: IDX of the MNIST family, and CIFAR's records.

An IDX file is two zero bytes, the type of its values, its number of dimensions, each
dimension as a big-endian 32-bit number, and the values in C order (LeCun, Cortes & Burges,
the MNIST page).

CIFAR-10 and CIFAR-100 are read as a folder or as the tar file of it.  A file is a row of
records: its label (CIFAR-100: the coarse label, then the fine one), one byte each, then 1,024
bytes of red, of green and of blue, row by row (Krizhevsky 2009, the CIFAR page).
"""

import gzip
import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from nonn_common import Progress, silent
from nonn_common.errors import InputError
from nonn_core.data.files import LabelledImages, RawDataset, read_bytes, tar_entries

IDX_PARTS = ("train", "t10k")
UNSIGNED_BYTES = 0x08
_IDX_DOWNLOAD_HINT = "download it with: nonn-plan download mnist -o DIR (or fashion-mnist, kmnist)"


def read_idx(path: str, progress: Progress = silent) -> RawDataset:
    """Read the four files `{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]` of a folder.

    `images.idx3` for `images-idx3` is read too.  Classes are named by their labels, from 0 to the
    largest one of the training images.  Raises InputError that names the file which is missing,
    damaged, or does not go with the others.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError("no such folder", where=path, fix=_IDX_DOWNLOAD_HINT)
    parts: list[LabelledImages] = []
    for part in IDX_PARTS:
        progress("reading images", len(parts), len(IDX_PARTS))
        parts.append(_idx_part(folder, part))
    train, test = parts
    classes = int(train.labels.max()) + 1
    if classes < 2:
        raise InputError(
            "needs at least two classes", where=str(_idx_file(folder, "train", "labels", 1))
        )
    _check_that_test_goes_with_train(folder, train, test, classes)
    return RawDataset(tuple(map(str, range(classes))), train, test, mirrored=False)


def _idx_part(folder: Path, part: str) -> LabelledImages:
    """Read the images of one part as (N, 1, H, W), and their labels."""
    image_file = _idx_file(folder, part, "images", 3)
    label_file = _idx_file(folder, part, "labels", 1)
    images, labels = _idx_values(image_file, 3), _idx_values(label_file, 1)
    if len(images) != len(labels):
        raise InputError(
            "not one label for each image",
            where=str(label_file),
            found=len(labels),
            allowed=f"{len(images)}, as in {image_file.name}",
        )
    return LabelledImages(images[:, None], labels.astype(np.int64))


def _idx_file(folder: Path, part: str, what: str, dimensions: int) -> Path:
    """Find a file under one of its spellings."""
    names = [
        f"{part}-{what}{mark}idx{dimensions}-ubyte{suffix}"
        for mark in "-."
        for suffix in ("", ".gz")
    ]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        "no such file",
        where=str(folder / names[0]),
        allowed=", ".join(names),
        fix=_IDX_DOWNLOAD_HINT,
    )


def _idx_values(file: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read one file of unsigned bytes with so many dimensions."""
    content = _unpacked(file)
    start = 4 + 4 * dimensions
    if len(content) < 4 or content[:2] != b"\0\0":
        raise InputError(
            "is not an IDX file",
            where=str(file),
            found=content[:4].hex(" "),
            allowed=f"00 00 08 {dimensions:02x} as its first bytes",
        )
    if content[2] != UNSIGNED_BYTES:
        raise InputError(
            "holds values of another type",
            where=str(file),
            found=f"type {content[2]:#04x}",
            allowed=f"unsigned bytes ({UNSIGNED_BYTES:#04x})",
        )
    if content[3] != dimensions:
        raise InputError(
            "has the wrong number of dimensions",
            where=str(file),
            found=content[3],
            allowed=str(dimensions),
        )
    if len(content) < start:
        raise InputError(
            "ends within its header",
            where=str(file),
            found=f"{len(content)} bytes",
            fix="fetch this file again",
        )
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    _check_size(file, len(content) - start, shape)
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()


def _unpacked(file: Path) -> bytes:
    content = read_bytes(file)
    if file.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(
            f"is damaged: {error}", where=str(file), fix="fetch this file again"
        ) from None


def _check_size(file: Path, found: int, shape: tuple[int, ...]) -> None:
    if not math.prod(shape):
        raise InputError("is empty", where=str(file), found="x".join(map(str, shape)))
    if found != math.prod(shape):
        raise InputError(
            "is damaged: it is not as long as its header says",
            where=str(file),
            found=f"{found} values",
            allowed=f"{math.prod(shape)} ({'x'.join(map(str, shape))})",
            fix="fetch this file again",
        )


def _check_that_test_goes_with_train(
    folder: Path, train: LabelledImages, test: LabelledImages, classes: int
) -> None:
    if train.pixels.shape[1:] != test.pixels.shape[1:]:
        _, _, height, width = train.pixels.shape
        raise InputError(
            "test images have another size than training images",
            where=str(_idx_file(folder, "t10k", "images", 3)),
            found=f"{test.pixels.shape[3]}x{test.pixels.shape[2]}",
            allowed=f"{width}x{height}",
        )
    if test.labels.max() >= classes:
        raise InputError(
            "a label that no training image has",
            where=str(_idx_file(folder, "t10k", "labels", 1)),
            found=int(test.labels.max()),
            allowed=f"0 to {classes - 1}",
        )


CIFAR_SHAPE = (3, 32, 32)
_PIXEL_BYTES = 3 * 32 * 32


@dataclass(frozen=True, slots=True)
class CifarLayout:
    """Files of one data set, their images, and the labels before each image."""

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


CIFAR10 = CifarLayout(
    name="cifar10",
    folder="cifar-10-batches-bin",
    train={f"data_batch_{number}.bin": 10_000 for number in range(1, 6)},
    test={"test_batch.bin": 10_000},
    class_names="batches.meta.txt",
    label_classes=(10,),
)
CIFAR100 = CifarLayout(
    name="cifar100",
    folder="cifar-100-binary",
    train={"train.bin": 50_000},
    test={"test.bin": 10_000},
    class_names="fine_label_names.txt",
    label_classes=(20, 100),
)


def read_cifar(layout: CifarLayout, path: str, progress: Progress = silent) -> RawDataset:
    """Read a folder or tar file.

    The files may lie below the folder that the tar file makes.  Raises InputError that names the
    file which is missing, of another length than published, or holds a label that is none.
    """
    contents: dict[str, bytes] = {}
    for name, content in _cifar_contents(layout, path):
        contents[name] = content
        progress("reading files", len(contents), len(layout.files))
    for name in layout.files:
        if name not in contents:
            raise InputError(
                "no such file", where=f"{path}: {name}", fix=_cifar_download_hint(layout)
            )
    return RawDataset(
        class_names=_class_names(layout, path, contents[layout.class_names]),
        train=_cifar_part(layout, path, layout.train, contents),
        test=_cifar_part(layout, path, layout.test, contents),
        mirrored=True,
    )


def _cifar_download_hint(layout: CifarLayout) -> str:
    return f"download it with: nonn-plan download {layout.name} -o DIR"


def _cifar_contents(layout: CifarLayout, path: str) -> Iterator[tuple[str, bytes]]:
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
        raise InputError("no such folder or tar file", where=path, fix=_cifar_download_hint(layout))


def _class_names(layout: CifarLayout, path: str, content: bytes) -> tuple[str, ...]:
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


def _cifar_part(
    layout: CifarLayout, path: str, images: Mapping[str, int], contents: Mapping[str, bytes]
) -> LabelledImages:
    parts = [_cifar_file(layout, path, name, images[name], contents[name]) for name in images]
    return LabelledImages(
        np.concatenate([part.pixels for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )


def _cifar_file(
    layout: CifarLayout, path: str, name: str, images: int, content: bytes
) -> LabelledImages:
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
    return LabelledImages(
        records[:, first:].reshape(images, *CIFAR_SHAPE), records[:, first - 1].astype(np.int64)
    )
