"""What a network consists of before any weight exists: operations, in stages.

One blueprint is what `nonn_core.costs` adds up and what `nonn_core.modules` builds, so that a
family of networks is written down once.  Torch-free.
"""

from dataclasses import dataclass
from typing import Union

from profiles.errors import InputError


@dataclass(frozen=True, slots=True)
class Maps:
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


def after(op: Op, maps: Maps) -> Maps:
    """Return the shape that an operation makes; raises InputError when nothing is left."""
    match op:
        case Conv():
            height, width = -(-maps.height // op.stride), -(-maps.width // op.stride)
            return Maps(op.outputs, height, width)
        case MaxPool():
            # An odd kernel is padded by half of itself, an even one is not.
            spare = op.kernel % 2
            return _halved(Maps(maps.channels, maps.height + spare, maps.width + spare))
        case Residual():
            return after_all(op.body, maps)
    return maps


def after_all(ops: Ops, maps: Maps) -> Maps:
    """Return the shape that operations in a row make; raises InputError when nothing is left."""
    for op in ops:
        maps = after(op, maps)
    return maps


def activated(conv: Conv, ceiling: float | None = None) -> Ops:
    """Return a convolution, its normalisation and its activation."""
    return conv, Norm(conv.outputs), Relu(ceiling)


def _halved(maps: Maps) -> Maps:
    if min(maps.height, maps.width) < 2:
        raise InputError(
            "images are too small for this network: nothing is left to pool",
            found=f"maps of {maps.width}x{maps.height}",
            fix="take larger images, or a network that halves them less often",
        )
    return Maps(maps.channels, maps.height // 2, maps.width // 2)
