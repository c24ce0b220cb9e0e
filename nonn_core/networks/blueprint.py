"""Blueprint of a network before any weight exists: image shape, widths, operations in stages.

One blueprint is what `nonn_core.networks.network_cost` adds up and what
`nonn_core.networks.modules` builds, so that a family of networks is written down once.
Torch-free.
"""

import re
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Protocol, Self, Union

from pydantic import AfterValidator, Field

from nonn_common.errors import InputError

LARGEST_SIDE = 4096
BYTES_PER_PIXEL_VALUE = 4

_IMAGE = re.compile(r"(\d+)x(\d+)x(\d+)")


@dataclass(frozen=True, slots=True)
class ImageShape:
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
        """Bytes on the wire: float32 values, 12,288 for 3x32x32."""
        return BYTES_PER_PIXEL_VALUE * self.channels * self.height * self.width


def _checked_image_shape(text: str) -> str:
    try:
        return str(ImageShape.parse(text))
    except InputError as error:
        raise ValueError(str(error)) from None


Filters = tuple[Annotated[int, Field(ge=0)], ...]
"""Ids of filters of a teacher's last layer."""

ImageShapeText = Annotated[str, AfterValidator(_checked_image_shape)]
"""Image shape in a document, CHANNELSxHEIGHTxWIDTH."""


@dataclass(frozen=True, slots=True)
class MapShape:
    """The shape of what goes from one operation to the next, for one image."""

    channels: int
    height: int
    width: int

    @property
    def area(self) -> int:
        """Places of one channel."""
        return self.height * self.width

    @property
    def elements(self) -> int:
        """Values of all channels."""
        return self.channels * self.area


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution without bias, padded so that stride alone changes height and width."""

    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    groups: int = 1

    @property
    def weights(self) -> int:
        """Number of weights."""
        return self.inputs // self.groups * self.outputs * self.kernel**2


@dataclass(frozen=True, slots=True)
class Norm:
    """A batch normalisation."""

    channels: int


@dataclass(frozen=True, slots=True)
class Relu:
    """A rectifier; `ceiling` cuts large values too (6 in MobileNetV2)."""

    ceiling: float | None = None


@dataclass(frozen=True, slots=True)
class MaxPool:
    """The maximum over `kernel` x `kernel` places, every second one; odd kernels are padded."""

    kernel: int


@dataclass(frozen=True, slots=True)
class Residual:
    """`after(body(x') + kept)` with x' = `before(x)`.

    `kept` is `shortcut(x')`, or x itself where there is no shortcut: a pre-activation block has
    `before`, a block that activates the sum has `after`.
    """

    body: "Ops"
    before: "Ops" = ()
    shortcut: "Ops" = ()
    after: "Ops" = ()


Op = Union[Conv, Norm, Relu, MaxPool, Residual]  # noqa: UP007  (Residual is a forward reference)
Ops = tuple[Op, ...]


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A family member: G0, further stages, and what only a whole classifier has after them.

    `channels` leave the last stage, `features` the tail.  G0, the stem and first group, is what
    students share (arXiv:1907.11804, section 4.3).
    """

    group0: Ops
    stages: tuple[Ops, ...]
    channels: int
    tail: Ops = ()
    tail_channels: int | None = None

    @property
    def features(self) -> int:
        """Channels of a whole classifier's fconv."""
        return self.channels if self.tail_channels is None else self.tail_channels


def shape_after(op: Op, maps: MapShape) -> MapShape:
    """Return the shape that an operation makes; raises InputError when nothing is left."""
    match op:
        case Conv():
            height, width = -(-maps.height // op.stride), -(-maps.width // op.stride)
            return MapShape(op.outputs, height, width)
        case MaxPool():
            # An odd kernel is padded by half of itself, an even one is not.
            spare = op.kernel % 2
            return _halved(MapShape(maps.channels, maps.height + spare, maps.width + spare))
        case Residual():
            return shape_after_all(op.body, maps)
    return maps


def shape_after_all(ops: Ops, maps: MapShape) -> MapShape:
    """Return the shape that operations in a row make; raises InputError when nothing is left."""
    for op in ops:
        maps = shape_after(op, maps)
    return maps


def conv_norm_relu(conv: Conv, ceiling: float | None = None) -> Ops:
    """Return a convolution, its normalisation and its activation."""
    return conv, Norm(conv.outputs), Relu(ceiling)


def _halved(maps: MapShape) -> MapShape:
    if min(maps.height, maps.width) < 2:
        raise InputError(
            "images are too small for this network: nothing is left to pool",
            found=f"maps of {maps.width}x{maps.height}",
            fix="take larger images, or a network that halves them less often",
        )
    return MapShape(maps.channels, maps.height // 2, maps.width // 2)


WIDEST = 16_384
_FIRST_EIGHTHS, _MIDDLE_EIGHTHS, _LAST_EIGHTHS = (2, 4), (2, 3, 4), (1, 2, 3, 4)


def parse_widths(text: str, name: str, notation: str) -> tuple[int, ...]:
    """Read `32,64,88`; raises InputError that names the whole network."""
    try:
        return tuple(int(width) for width in text.split(","))
    except ValueError:
        raise InputError("not the name of a network", found=name, allowed=notation) from None


def check_widths(widths: tuple[int, ...], count: int) -> None:
    """Raise InputError unless there are `count` widths from 1 to the widest."""
    if len(widths) != count or min(widths) < 1 or max(widths) > WIDEST:
        raise InputError(
            "not the widths of a network",
            found=",".join(map(str, widths)),
            allowed=f"{count} numbers of 1 to {WIDEST} channels",
        )


def proportional_widths(widths: tuple[int, ...], first: int) -> tuple[int, ...]:
    """Scale widths so that the first one is `first`."""
    return tuple(max(1, width * first // widths[0]) for width in widths)


def narrowed_widths(widths: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Widths of at most half.

    Shares of the first, of the middle, and of the last ones.
    """
    shares = product(_FIRST_EIGHTHS, _MIDDLE_EIGHTHS, _LAST_EIGHTHS)
    found = (
        tuple(
            max(1, width * share // 8)
            for width, share in zip(
                widths, (first, *[middle] * (len(widths) - 2), last), strict=True
            )
        )
        for first, middle, last in shares
    )
    return tuple(dict.fromkeys(found))


class NetworkSpec(Hashable, Protocol):
    """A member of a family; `str` gives its name, which `parse_network` reads back."""

    @property
    def group0(self) -> str:
        """Key of the shape of G0, the stem and first group.

        Students can share G0 (arXiv:1907.11804, section 4.3) exactly when these are equal.
        """

    def proportional(self, step: int) -> "NetworkSpec":
        """Return this network with widths in the family's own proportion, `step` being the size."""

    def narrowed(self) -> "tuple[NetworkSpec, ...]":
        """Return the students that a planner considers for such a teacher."""

    def blueprint(self, image_channels: int) -> Blueprint:
        """Blueprint for images of these channels."""
