"""A data set as people keep it: `train/CLASS/*` and `test/CLASS/*`, in a folder or a tar file."""

import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import UnidentifiedImageError

from nonn_core.progress import Progress, silent
from profiles.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".gif", ".webp")
PARTS = ("train", "test")

_Labelled = tuple[NDArray[np.uint8], NDArray[np.int64]]
_Named = list[tuple[PurePosixPath, NDArray[np.uint8]]]
_NO_PICTURE = (
    UnidentifiedImageError,
    Picture.DecompressionBombError,
    OSError,
    SyntaxError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """Pixels uint8 (N, 3, H, W) and labels int64 (N,) of both parts; classes in name order."""

    class_names: tuple[str, ...]
    train: _Labelled
    test: _Labelled


def read_image_folder(path: str, progress: Progress = silent) -> ImageFolder:
    """Read a whole image folder or tar file into memory.

    Raises InputError that names the file when the path, a class folder or an image is missing,
    unreadable, or of another size than the rest.
    """
    place = Path(path)
    if place.is_dir():
        files: Iterator[tuple[PurePosixPath, bytes]] = _folder_files(place)
    elif place.is_file():
        files = _tar_files(place)
    else:
        raise InputError("no such folder or tar file", where=path)
    return _collected(path, files, progress)


def _folder_files(root: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    for part in PARTS:
        for file in sorted(root.glob(f"{part}/*/*")):
            if file.suffix.lower() in SUFFIXES:
                yield PurePosixPath(file.relative_to(root).as_posix()), _file_bytes(file)


def _file_bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(file)) from None


def _tar_files(archive: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield the images in the archive's own order; members may sit below one top folder."""
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = PurePosixPath(member.name)
                stream = tar.extractfile(member) if _is_image(member, name) else None
                if stream is not None:
                    yield PurePosixPath(*name.parts[-3:]), stream.read()
            _check_end(tar)
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise InputError(
            f"cannot be read as a tar file: {error}",
            where=str(archive),
            allowed="a folder, or a tar file (.tar, .tar.gz, ...), with train/ and test/",
        ) from None


def _check_end(tar: tarfile.TarFile) -> None:
    """Tell the end of the archive from a damaged header, at which tarfile stops in silence."""
    assert tar.fileobj is not None  # noqa: S101  (open for reading)
    tar.fileobj.seek(tar.offset)
    rest = tar.fileobj.read(-1)
    if len(rest) < tarfile.BLOCKSIZE or rest.strip(tarfile.NUL):
        raise tarfile.ReadError("damaged before its end")


def _is_image(member: tarfile.TarInfo, name: PurePosixPath) -> bool:
    return (
        member.isfile()
        and name.suffix.lower() in SUFFIXES
        and len(name.parts) >= 3
        and name.parts[-3] in PARTS
    )


def _collected(
    path: str, files: Iterator[tuple[PurePosixPath, bytes]], progress: Progress
) -> ImageFolder:
    named: dict[str, _Named] = {part: [] for part in PARTS}
    for count, (name, content) in enumerate(files, start=1):
        named[name.parts[0]].append((name, _pixels(f"{path}: {name}", content)))
        if count % 500 == 0:
            progress("reading images", count, 0)
    classes = tuple(sorted({name.parts[1] for name, _ in named["train"]}))
    _check_classes(path, classes, named)
    number = {name: label for label, name in enumerate(classes)}
    # Name order, so that a folder and a tar of it give the same data set.
    ordered = {part: sorted(images, key=lambda pair: pair[0]) for part, images in named.items()}
    _check_sizes(path, ordered)
    train, test = (_stacked(ordered[part], number) for part in PARTS)
    return ImageFolder(classes, train, test)


def _check_classes(
    path: str,
    classes: tuple[str, ...],
    named: dict[str, _Named],
) -> None:
    if len(classes) < 2:
        raise InputError(
            "train/ needs at least two class folders with images",
            where=path,
            found=list(classes),
            allowed=f"train/CLASS/NAME with one of {', '.join(SUFFIXES)}",
        )
    tested = {name.parts[1] for name, _ in named["test"]}
    if tested != set(classes):
        raise InputError(
            "train/ and test/ must hold the same class folders",
            where=path,
            found=sorted(tested.symmetric_difference(classes)),
            fix="add the missing folders or remove the extra ones",
        )


def _pixels(where: str, content: bytes) -> NDArray[np.uint8]:
    """Decode one image to uint8 (3, H, W)."""
    try:
        with Picture.open(io.BytesIO(content)) as picture:
            return np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    except _NO_PICTURE as error:
        raise InputError(
            f"not a readable image: {error}", where=where, fix="replace or remove this file"
        ) from None


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


def _stacked(images: _Named, number: dict[str, int]) -> _Labelled:
    labels = np.array([number[name.parts[1]] for name, _ in images], dtype=np.int64)
    return np.stack([pixels for _, pixels in images]), labels
