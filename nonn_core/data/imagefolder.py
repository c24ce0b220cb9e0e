"""A data set as people keep it: `train/CLASS/*` and `test/CLASS/*`, in a folder or a tar file."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from nonn_core.data.files import Entry, read_bytes, tar_entries
from nonn_core.data.picture import SUFFIXES, decoded
from nonn_core.data.raw import Labelled, RawDataset
from nonn_core.progress import Progress, silent
from profiles.errors import InputError

PARTS = ("train", "test")

_Named = list[tuple[PurePosixPath, NDArray[np.uint8]]]
_DEPTH = 5
"""Folders looked into, beginning with the first: TOP/train/CLASS/NAME and one that is too deep."""


def read_image_folder(path: str, progress: Progress = silent) -> RawDataset:
    """Read a whole image folder or tar file into memory, as 3 channels; classes in name order.

    `train/` and `test/` may lie below one top folder.  Raises InputError that names the file when
    the path, a class's images or an image is missing, unreadable, or of another size than the rest.
    """
    place = Path(path)
    if place.is_dir():
        entries = _folder_entries(place)
    elif place.is_file():
        entries = tar_entries(place, _is_image, "train/ and test/")
    else:
        raise InputError("no such folder or tar file", where=path)
    return _collected(path, entries, progress)


def _folder_entries(root: Path) -> Iterator[Entry]:
    """Yield folders (without content) and images, by their names below `root`."""
    # Level by level, which follows links (rglob does not) and ends in a loop of them.
    levels = ("/".join("*" * depth) for depth in range(1, _DEPTH + 1))
    for file in sorted(file for level in levels for file in root.glob(level)):
        name = PurePosixPath(file.relative_to(root).as_posix())
        if file.is_dir():
            yield name, None
        elif _is_image(name):
            yield name, read_bytes(file)


def _is_image(name: PurePosixPath) -> bool:
    """Say whether a file is an image by its name."""
    return name.suffix.lower() in SUFFIXES and not _is_hidden(name)


def _is_hidden(name: PurePosixPath) -> bool:
    """Say whether a file or folder is one that systems keep for themselves."""
    return any(part.startswith(".") and part != "." for part in name.parts)


def _collected(path: str, entries: Iterator[Entry], progress: Progress) -> RawDataset:
    # By name, as a tar file may hold a name twice: the last one is meant.
    named: dict[str, dict[PurePosixPath, NDArray[np.uint8]]] = {part: {} for part in PARTS}
    classes: set[str] = set()
    tops: set[PurePosixPath] = set()
    for count, (name, content) in enumerate(entries, start=1):
        if content is None:
            classes.update(_class_folder(path, name))
            continue
        part, class_name = _labelled(path, name)
        classes.add(class_name)
        tops.add(name.parents[2])
        named[part][name] = decoded(f"{path}: {name}", content)
        if count % 500 == 0:
            progress("reading images", count, 0)
    _check_one_top(path, tops)
    ordered = {part: sorted(images.items()) for part, images in named.items()}
    _check_classes(path, classes, ordered)
    _check_sizes(path, ordered)
    return _labels_numbered(tuple(sorted(classes)), ordered)


def _class_folder(path: str, name: PurePosixPath) -> Iterator[str]:
    """Yield the class whose folder this is, if it is one."""
    if _is_hidden(name):
        return
    if len(name.parts) >= 3 and name.parts[-3] in PARTS:
        raise InputError(
            "a folder in a class folder", where=f"{path}: {name}", fix="move or remove it"
        )
    if len(name.parts) >= 2 and name.parts[-2] in PARTS:
        yield name.name


def _labelled(path: str, name: PurePosixPath) -> tuple[str, str]:
    """Return the part (train or test) and the class of an image."""
    if len(name.parts) < 3 or name.parts[-3] not in PARTS:
        raise InputError(
            "this image is in no class folder",
            where=f"{path}: {name}",
            allowed="train/CLASS/NAME and test/CLASS/NAME",
            fix="move or remove it",
        )
    return name.parts[-3], name.parts[-2]


def _check_one_top(path: str, tops: set[PurePosixPath]) -> None:
    if len(tops) > 1:
        raise InputError(
            "holds more than one data set",
            where=path,
            found=sorted(map(str, tops)),
            fix="name the one that is meant",
        )


def _check_classes(path: str, classes: set[str], named: dict[str, _Named]) -> None:
    if len(classes) < 2:
        raise InputError(
            "needs at least two class folders with images",
            where=path,
            found=sorted(classes) or "no train/CLASS/ and test/CLASS/ folders",
            allowed=f"train/CLASS/NAME with one of {', '.join(SUFFIXES)}",
        )
    for part in PARTS:
        if empty := classes - {name.parts[-2] for name, _ in named[part]}:
            raise InputError(
                f"a class has no image in {part}/",
                where=path,
                found=min(empty),
                fix="every class needs images in train/ and in test/",
            )


def _labels_numbered(classes: tuple[str, ...], named: dict[str, _Named]) -> RawDataset:
    """Stack images in name order, so that a folder and a tar of it give the same data set."""
    number = {name: label for label, name in enumerate(classes)}
    train, test = (_stacked(named[part], number) for part in PARTS)
    return RawDataset(classes, train, test, mirrored=True)


def _check_sizes(path: str, named: dict[str, _Named]) -> None:
    first_name, first = named["train"][0]
    for name, pixels in (pair for part in PARTS for pair in named[part]):
        if pixels.shape != first.shape:
            raise InputError(
                "all images must have the same size",
                where=f"{path}: {name}",
                found=f"{pixels.shape[2]}x{pixels.shape[1]}",
                allowed=f"{first.shape[2]}x{first.shape[1]}, as {first_name}",
            )


def _stacked(images: _Named, number: dict[str, int]) -> Labelled:
    labels = np.array([number[name.parts[-2]] for name, _ in images], dtype=np.int64)
    return Labelled(np.stack([pixels for _, pixels in images]), labels)
