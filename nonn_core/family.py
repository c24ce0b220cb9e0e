"""Names of networks and images: what a teacher or a student is, before any weight exists.

A wide residual network (WRN; Zagoruyko & Komodakis 2016, arXiv:1605.07146) is fixed by its depth
and by the channels of its three groups.  `wrn40-4` is the published notation (widths 16k, 32k and
64k for a factor k); `wrn16:32,64,88` names the widths one by one, as students need it.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import AfterValidator

from profiles.errors import InputError

STEM_CHANNELS = 16
DEEPEST, WIDEST, LARGEST_SIDE = 1000, 16_384, 4096
BYTES_PER_PIXEL_VALUE = 4

_SPEC = re.compile(r"wrn(\d+)(?:-(\d+)|:(\d+),(\d+),(\d+))")
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


@dataclass(frozen=True, slots=True)
class WrnSpec:
    """A wide residual network: depth 6n + 4 and the channels of its three groups."""

    depth: int
    widths: tuple[int, int, int]

    def __post_init__(self) -> None:
        if not 10 <= self.depth <= DEEPEST or (self.depth - 4) % 6:
            raise InputError(
                "not the depth of a wide residual network",
                found=self.depth,
                allowed=f"6n + 4 for n >= 1: 10, 16, 22, 28, 34, 40, ... up to {DEEPEST}",
            )
        if min(self.widths) < 1 or max(self.widths) > WIDEST:
            raise InputError(
                "not the widths of a network",
                found=",".join(map(str, self.widths)),
                allowed=f"1 to {WIDEST} channels",
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `wrn40-4` or `wrn16:32,64,88`; raises InputError."""
        match = _SPEC.fullmatch(text.strip().lower())
        if match is None:
            raise InputError(
                "not the name of a network",
                found=text,
                allowed="wrnDEPTH-FACTOR (wrn40-4) or wrnDEPTH:W1,W2,W3 (wrn16:32,64,88)",
            )
        depth, factor, *widths = match.groups()
        if factor is not None:
            one = int(factor)
            return cls(int(depth), (16 * one, 32 * one, 64 * one))
        first, second, third = map(int, widths)
        return cls(int(depth), (first, second, third))

    def __str__(self) -> str:
        return f"wrn{self.depth}:{','.join(map(str, self.widths))}"

    @property
    def blocks_per_group(self) -> int:
        """Residual blocks in each of the three groups."""
        return (self.depth - 4) // 6

    @property
    def group0(self) -> tuple[int, int]:
        """What decides the shape of G0, the stem and first group: its blocks and channels.

        Students share G0 (A, section 4.3) exactly when these are equal.
        """
        return self.blocks_per_group, self.widths[0]


def _network_name(text: str) -> str:
    try:
        return str(WrnSpec.parse(text))
    except InputError as error:
        raise ValueError(str(error)) from None


def _image_shape(text: str) -> str:
    try:
        return str(Image.parse(text))
    except InputError as error:
        raise ValueError(str(error)) from None


NetworkName = Annotated[str, AfterValidator(_network_name)]
"""Name of a network in a document, checked and written in one way."""

ImageShape = Annotated[str, AfterValidator(_image_shape)]
"""Image shape in a document, CHANNELSxHEIGHTxWIDTH."""
