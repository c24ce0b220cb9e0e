"""Sources of data sets: the text that `--data` and recipes name them by.

`digits` are 1,797 handwritten digits (UCI, Alpaydin & Kaynak 1998), which scikit-learn ships.
An image folder is a data set as people keep it, `train/CLASS/*` and `test/CLASS/*`, in a
folder or a tar file.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture

from nonn_common import Progress, silent
from nonn_common.errors import InputError
from nonn_core.data.binary_formats import CIFAR10, CIFAR100, read_cifar, read_idx
from nonn_core.data.files import Entry, LabelledImages, RawDataset, read_bytes, tar_entries
from nonn_core.data.picture import (
    AS_THEY_ARE,
    PictureReading,
    PictureTally,
    is_hidden,
    picture_suffixes,
    same_channels,
    split_source,
)

DIGITS_SIDE = 16
TEST_SHARE = 0.25
MOST_HELD_BYTES = 2**32
"""Bytes of all pictures of a data set, decoded, as they stay in memory: one for each value."""
_LARGEST_DIGIT_VALUE = 16


def read_digits() -> RawDataset:
    """Return the digits enlarged to 1x16x16, a quarter of each class for the test."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    small = np.rint(bunch.images * (255 / _LARGEST_DIGIT_VALUE)).astype(np.uint8)
    pixels = np.stack([_enlarged(each) for each in small])[:, None]
    labels = bunch.target.astype(np.int64)
    parts = train_test_split(
        np.arange(len(pixels)), test_size=TEST_SHARE, stratify=labels, random_state=0
    )
    train, test = (LabelledImages(pixels[np.sort(part)], labels[np.sort(part)]) for part in parts)
    return RawDataset(tuple(map(str, bunch.target_names)), train, test, mirrored=False)


def _enlarged(digit: NDArray[np.uint8]) -> NDArray[np.uint8]:
    picture = Picture.fromarray(digit).resize(
        (DIGITS_SIDE, DIGITS_SIDE), Picture.Resampling.BILINEAR
    )
    return np.asarray(picture)


PARTS = ("train", "test")

_Named = list[tuple[PurePosixPath, NDArray[np.uint8]]]
_DEPTH = 5
"""Folders looked into, beginning with the first: TOP/train/CLASS/NAME and one that is too deep."""


def read_image_folder(
    path: str, progress: Progress = silent, reading: PictureReading = AS_THEY_ARE
) -> RawDataset:
    """Read a whole image folder or tar file.

    Images have one channel where all pictures are grey, else three, unless `reading` says.  Classes
    are in name order.  `train/` and `test/` may lie below one top folder.  Raises InputError that
    names the file when the path, a class's images or an image is missing, unreadable, or of another
    size than the rest.
    """
    place, tally = Path(path), PictureTally()
    if place.is_dir():
        entries = _folder_entries(place, tally)
    elif place.is_file():
        entries = tar_entries(place, partial(_is_picture, tally=tally), "train/ and test/")
    else:
        raise InputError("no such folder or tar file", where=path)
    return _collected(path, entries, reading, tally, progress)


def _folder_entries(root: Path, tally: PictureTally) -> Iterator[Entry]:
    """Yield folders (without content) and pictures, by their names below `root`."""
    # Level by level, which follows links (rglob does not) and ends in a loop of them.
    levels = ("/".join("*" * depth) for depth in range(1, _DEPTH + 1))
    for file in sorted(file for level in levels for file in root.glob(level)):
        name = PurePosixPath(file.relative_to(root).as_posix())
        if file.is_dir():
            yield name, None
        elif _is_picture(name, tally):
            yield name, read_bytes(file)


def _is_picture(name: PurePosixPath, tally: PictureTally) -> bool:
    """Say whether a file is a picture by its name.

    `tally` notes other files that lie among pictures.
    """
    if is_hidden(name):
        return False
    if name.suffix.lower() in picture_suffixes():
        return True
    if set(PARTS) & set(name.parts[:-1]):
        tally.left_out.append(name)
    return False


def _collected(
    path: str,
    entries: Iterator[Entry],
    reading: PictureReading,
    tally: PictureTally,
    progress: Progress,
) -> RawDataset:
    # By name, as a tar file may hold a name twice: the last one is meant.
    named: dict[str, dict[PurePosixPath, NDArray[np.uint8]]] = {part: {} for part in PARTS}
    classes: set[str] = set()
    tops: set[PurePosixPath] = set()
    held = 0
    for count, (name, content) in enumerate(entries, start=1):
        if content is None:
            classes.update(_class_folder(path, name))
            continue
        part, class_name = _labelled(path, name)
        classes.add(class_name)
        tops.add(name.parents[2])
        held -= named[part][name].nbytes if name in named[part] else 0
        named[part][name] = planes = reading.decode(f"{path}: {name}", content, tally)
        held += planes.nbytes
        _check_held(path, held, count)
        if count % 500 == 0:
            progress("reading images", count, 0)
    # In a tar file, a class may be known by nothing but pictures that cannot be read.
    classes.update(
        name.parts[-2]
        for name in tally.left_out
        if len(name.parts) >= 3 and name.parts[-3] in PARTS
    )
    _check_one_top(path, tops)
    ordered = {part: sorted(images.items()) for part, images in named.items()}
    _check_classes(path, classes, ordered, tally)
    _check_sizes(path, ordered)
    found = _labels_numbered(tuple(sorted(classes)), ordered)
    channels = found.train.pixels.shape[1]
    return replace(
        found,
        reading=reading.model_copy(update={"channels": channels}),
        warnings=tally.warnings(path, reading),
    )


def _check_held(path: str, held: int, count: int) -> None:
    """Refuse pictures that are too much for memory together; files may pack them a thousandfold."""
    if held > MOST_HELD_BYTES:
        raise InputError(
            "its pictures are too large together",
            where=path,
            found=f"{held / 1e9:g} GB decoded, in the first {count} files",
            allowed=f"up to {MOST_HELD_BYTES / 1e9:g} GB",
            fix="take a smaller `--image-size`, or fewer pictures",
        )


def _class_folder(path: str, name: PurePosixPath) -> Iterator[str]:
    """Yield the class whose folder this is, if it is one."""
    if is_hidden(name):
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


def _check_classes(
    path: str, classes: set[str], named: dict[str, _Named], tally: PictureTally
) -> None:
    if len(classes) < 2:
        raise InputError(
            "needs at least two class folders with images",
            where=path,
            found=sorted(classes) or "no train/CLASS/ and test/CLASS/ folders",
            allowed=f"train/CLASS/NAME with one of {', '.join(picture_suffixes())}",
            fix="; ".join(tally.omissions(path)),
        )
    for part in PARTS:
        if empty := classes - {name.parts[-2] for name, _ in named[part]}:
            raise InputError(
                f"a class has no image in {part}/",
                where=path,
                found=min(empty),
                fix="; ".join(
                    ("every class needs images in train/ and in test/", *tally.omissions(path))
                ),
            )


def _labels_numbered(classes: tuple[str, ...], named: dict[str, _Named]) -> RawDataset:
    """Stack images in name order.

    A folder and a tar of it so give the same data set.
    """
    number = {name: label for label, name in enumerate(classes)}
    alike = iter(same_channels([pixels for part in PARTS for _, pixels in named[part]]))
    named = {part: [(name, next(alike)) for name, _ in named[part]] for part in PARTS}
    train, test = (_stacked(named[part], number) for part in PARTS)
    return RawDataset(classes, train, test, mirrored=True)


def _check_sizes(path: str, named: dict[str, _Named]) -> None:
    first_name, first = named["train"][0]
    for name, pixels in (pair for part in PARTS for pair in named[part]):
        if pixels.shape[1:] != first.shape[1:]:
            raise InputError(
                "all images must have the same size",
                where=f"{path}: {name}",
                found=f"{pixels.shape[2]}x{pixels.shape[1]}",
                allowed=f"{first.shape[2]}x{first.shape[1]}, as {first_name}",
                fix="give a size: `--image-size 64`, or imagefolder,size=64:PATH",
            )


def _stacked(images: _Named, number: dict[str, int]) -> LabelledImages:
    labels = np.array([number[name.parts[-2]] for name, _ in images], dtype=np.int64)
    return LabelledImages(np.stack([pixels for _, pixels in images]), labels)


_READERS: dict[str, Callable[[str, Progress], RawDataset]] = {
    "idx": read_idx,
    "cifar10": partial(read_cifar, CIFAR10),
    "cifar100": partial(read_cifar, CIFAR100),
}
_FOLDER = "imagefolder"
ALLOWED = (
    "digits; imagefolder:PATH of a folder or tar file with train/ and test/, with options as "
    "imagefolder,size=64,paper=white,channels=3:PATH; idx:PATH of a folder of MNIST-family files; "
    "cifar10:PATH or cifar100:PATH of the published binary version, as a folder or tar file"
)


def read_source(
    source: str, progress: Progress = silent, usual: PictureReading = AS_THEY_ARE
) -> RawDataset:
    """Read `digits` or `KIND:PATH`; raises InputError that says what is wrong where.

    `usual` holds for pictures as far as the source's own options do not say otherwise.
    """
    if source == "digits":
        return read_digits()
    kind, options, path = split_source(source)
    if kind == _FOLDER and path:
        own = PictureReading.parse(options, source)
        stated = own.model_dump(include=own.model_fields_set)
        return read_image_folder(path, progress, usual.model_copy(update=stated))
    if kind not in _READERS or options or not path:
        raise InputError("not a data set", found=source, allowed=ALLOWED)
    return _READERS[kind](path, progress)


def with_picture_options(source: str, image_size: int | None, paper: str | None) -> str:
    """Add options of pictures to a source.

    Raises InputError where it holds no pictures, or has the option already.
    """
    typed = [("size", image_size), ("paper", paper)]
    added = [f"{name}={value}" for name, value in typed if value is not None]
    if not added:
        return source
    kind, options, path = split_source(source)
    if kind != _FOLDER or not path:
        raise InputError(
            "--image-size and --paper are for pictures",
            where="--data",
            found=source,
            allowed="imagefolder:PATH",
        )
    text = PictureReading.parse([*options, *added], source).options
    return f"{','.join(filter(None, (kind, text)))}:{path}"
