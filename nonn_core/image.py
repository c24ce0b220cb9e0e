"""The shape of an image."""

import re
from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import AfterValidator

from profiles.errors import InputError

LARGEST_SIDE = 4096
BYTES_PER_PIXEL_VALUE = 4

_IMAGE = re.compile(r"(\d+)x(\d+)x(\d+)")


@dataclass(frozen=True, slots=True)
class Image:
    """Shape of one input image: channels x height x width."""

    channels: int
    height: int
    width: int

    def __post_init__(self) -> None:
        sides = (self.channels, self.height, self.width)
        if min(sides) < 1 or max(sides) > LARGEST_SIDE:
            raise InputError(
                "not an image shape", found=str(self), allowed=f"1 to {LARGEST_SIDE} each"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `3x32x32`; raises InputError."""
        match = _IMAGE.fullmatch(text.strip())
        if match is None:
            raise InputError(
                "not an image shape", found=text, allowed="CHANNELSxHEIGHTxWIDTH, e.g. 3x32x32"
            )
        channels, height, width = map(int, match.groups())
        return cls(channels, height, width)

    def __str__(self) -> str:
        return f"{self.channels}x{self.height}x{self.width}"

    @property
    def size_bytes(self) -> int:
        """Bytes on the wire: float32 values, as in A (12,288 for 3x32x32)."""
        return BYTES_PER_PIXEL_VALUE * self.channels * self.height * self.width


def _image_shape(text: str) -> str:
    try:
        return str(Image.parse(text))
    except InputError as error:
        raise ValueError(str(error)) from None


ImageShape = Annotated[str, AfterValidator(_image_shape)]
"""Image shape in a document, CHANNELSxHEIGHTxWIDTH."""
