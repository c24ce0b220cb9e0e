"""A picture file, decoded to the pixels that networks read."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import UnidentifiedImageError

from profiles.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".gif", ".webp", ".tif", ".tiff")

_MODES = {1: "L", 3: "RGB"}
# Pillow cuts these to white when it converts them.
_DEEP_MODES = ("I", "F")
_NO_PICTURE = (
    Picture.DecompressionBombError,
    OSError,
    SyntaxError,
    ValueError,
)


def decoded(where: str, content: bytes, channels: int = 3) -> NDArray[np.uint8]:
    """Decode a picture to uint8 (channels, H, W).

    Raises InputError that names `where` for what is no picture, or has more than 8 bits for each
    channel; and where pictures have no such number of channels.
    """
    if channels not in _MODES:
        raise InputError(
            "pictures have other channels", where=where, found=channels, allowed="1 or 3"
        )
    try:
        with Picture.open(io.BytesIO(content)) as picture:
            if picture.mode.startswith(_DEEP_MODES):
                raise InputError(
                    "has more than 8 bits per channel",
                    where=where,
                    found=f"mode {picture.mode}",
                    fix="convert it to 8 bits first",
                )
            pixels: NDArray[np.uint8] = np.asarray(picture.convert(_MODES[channels]))
    except UnidentifiedImageError:
        raise InputError(
            "not a readable image: of no known kind", where=where, fix="replace or remove this file"
        ) from None
    except _NO_PICTURE as error:
        raise InputError(
            f"not a readable image: {error}", where=where, fix="replace or remove this file"
        ) from None
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
