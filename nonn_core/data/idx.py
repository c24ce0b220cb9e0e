"""MNIST and its family (Fashion-MNIST, KMNIST, ...) in the IDX files they are published as.

An IDX file is two zero bytes, the type of its values, its number of dimensions, each dimension as
a big-endian 32-bit number, and the values in C order (LeCun, Cortes & Burges, the MNIST page).
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nonn_core.data.files import read_bytes
from nonn_core.data.raw import Labelled, RawDataset
from nonn_core.progress import Progress, silent
from profiles.errors import InputError

PARTS = ("train", "t10k")
UNSIGNED_BYTES = 0x08
_DOWNLOAD = "download it with: nonn-plan download mnist -o DIR (or fashion-mnist, kmnist)"


def read_idx(path: str, progress: Progress = silent) -> RawDataset:
    """Read the four files `{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]` of a folder.

    `images.idx3` for `images-idx3` is read too.  Classes are named by their labels, from 0 to the
    largest one of the training images.  Raises InputError that names the file which is missing,
    damaged, or does not go with the others.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError("no such folder", where=path, fix=_DOWNLOAD)
    parts: list[Labelled] = []
    for part in PARTS:
        progress("reading images", len(parts), len(PARTS))
        parts.append(_part(folder, part))
    train, test = parts
    classes = int(train.labels.max()) + 1
    if classes < 2:
        raise InputError(
            "needs at least two classes", where=str(_found(folder, "train", "labels", 1))
        )
    _check_that_test_goes_with_train(folder, train, test, classes)
    return RawDataset(tuple(map(str, range(classes))), train, test, mirrored=False)


def _part(folder: Path, part: str) -> Labelled:
    """Read the images of one part as (N, 1, H, W), and their labels."""
    image_file = _found(folder, part, "images", 3)
    label_file = _found(folder, part, "labels", 1)
    images, labels = _values(image_file, 3), _values(label_file, 1)
    if len(images) != len(labels):
        raise InputError(
            "not one label for each image",
            where=str(label_file),
            found=len(labels),
            allowed=f"{len(images)}, as in {image_file.name}",
        )
    return Labelled(images[:, None], labels.astype(np.int64))


def _found(folder: Path, part: str, what: str, dimensions: int) -> Path:
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
        "no such file", where=str(folder / names[0]), allowed=", ".join(names), fix=_DOWNLOAD
    )


def _values(file: Path, dimensions: int) -> NDArray[np.uint8]:
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
    folder: Path, train: Labelled, test: Labelled, classes: int
) -> None:
    if train.pixels.shape[1:] != test.pixels.shape[1:]:
        _, _, height, width = train.pixels.shape
        raise InputError(
            "test images have another size than training images",
            where=str(_found(folder, "t10k", "images", 3)),
            found=f"{test.pixels.shape[3]}x{test.pixels.shape[2]}",
            allowed=f"{width}x{height}",
        )
    if test.labels.max() >= classes:
        raise InputError(
            "a label that no training image has",
            where=str(_found(folder, "t10k", "labels", 1)),
            found=int(test.labels.max()),
            allowed=f"0 to {classes - 1}",
        )
