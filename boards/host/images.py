"""Images that the host classifies: of a data set, of a folder of pictures, or from stdin."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from boards.protocol.frames import Values
from nonn_core.bundle import Manifest
from nonn_core.data.picture import SUFFIXES, decoded
from nonn_core.data.sources import read_source
from nonn_core.image import Image
from nonn_core.progress import Progress, silent
from profiles.errors import InputError


@dataclass(frozen=True, slots=True)
class HostImage:
    """One image: its title, its pixels as `(1, C, H, W)`, and its class if that is known."""

    title: str
    pixels: Values
    label: int | None = None


def of_data_set(
    manifest: Manifest, source: str | None, progress: Progress = silent
) -> list[HostImage]:
    """Return the test images of a data set; without a source, of the one that the bundle names.

    Raises InputError where it is not there, or its images or classes are not the bundle's.
    """
    source = source or manifest.data
    found = read_source(source, progress)
    _require_shape(found.test.pixels.shape[1:], manifest, source)
    if found.class_names != manifest.class_names:
        raise InputError(
            "the data set has other classes than the bundle",
            where=source,
            found=", ".join(found.class_names[:10]),
            allowed=", ".join(manifest.class_names[:10]),
        )
    return [
        HostImage(f"test {place}", pixels[None].astype(np.float32), int(label))
        for place, (pixels, label) in enumerate(zip(*found.test, strict=True))
    ]


def of_folder(manifest: Manifest, folder: Path) -> Iterator[HostImage]:
    """Yield the pictures of a folder in the order of their names; raises InputError."""
    if not folder.is_dir():
        raise InputError("no such folder of pictures", where=str(folder))
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise InputError(
            "holds no pictures", where=str(folder), allowed=f"files ending in {', '.join(SUFFIXES)}"
        )
    return (HostImage(path.name, _picture(path, manifest)) for path in paths)


def of_stream(manifest: Manifest, stream: BinaryIO) -> Iterator[HostImage]:
    """Yield images that come as raw bytes, channel after channel, one behind the other.

    Raises InputError where the last one is cut short.
    """
    shape = _shape(manifest)
    size = shape[0] * shape[1] * shape[2]
    number = 0
    while content := stream.read(size):
        if len(content) < size:
            raise InputError(
                f"image {number} is cut short",
                where="stdin",
                found=len(content),
                allowed=f"{size} bytes for each image of {manifest.image}",
            )
        pixels = np.frombuffer(content, dtype=np.uint8).astype(np.float32)
        yield HostImage(f"stdin {number}", pixels.reshape(1, *shape))
        number += 1


def _picture(path: Path, manifest: Manifest) -> Values:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from None
    planes = decoded(str(path), content, _shape(manifest)[0])
    _require_shape(planes.shape, manifest, str(path))
    return planes[None].astype(np.float32)


def _shape(manifest: Manifest) -> tuple[int, int, int]:
    image = Image.parse(manifest.image)
    return image.channels, image.height, image.width


def _require_shape(found: tuple[int, ...], manifest: Manifest, where: str) -> None:
    if found != _shape(manifest):
        raise InputError(
            "images of another shape than the students read",
            where=where,
            found="x".join(map(str, found)),
            allowed=manifest.image,
        )
