"""Wide residual networks (WRN; Zagoruyko & Komodakis 2016, arXiv:1605.07146).

A network is fixed by its depth and by the channels of its three groups.  `wrn40-4` is the published
notation (widths 16k, 32k and 64k for a factor k); `wrn16:32,64,88` names the widths one by one, as
students need it.
"""

import re
from dataclasses import dataclass, replace
from typing import Self

from nonn_core.blueprint import Blueprint, Conv, Norm, Op, Ops, Relu, Residual
from nonn_core.families.widths import check_widths, narrowed, parse_widths, proportion
from profiles.errors import InputError

STEM_CHANNELS = 16
WIDTHS = (16, 32, 64)
SHALLOWEST, STUDENT_DEPTH, DEEPEST = 10, 16, 1000
NOTATION = "wrnDEPTH-FACTOR (wrn40-4) or wrnDEPTH:W1,W2,W3 (wrn16:32,64,88)"

_NAME = re.compile(r"wrn(\d+)(?:-(\d+)|:([\d,]+))")


@dataclass(frozen=True, slots=True)
class WrnSpec:
    """A wide residual network: depth 6n + 4 and the channels of its three groups."""

    depth: int
    widths: tuple[int, ...]

    def __post_init__(self) -> None:
        if not SHALLOWEST <= self.depth <= DEEPEST or (self.depth - 4) % 6:
            raise InputError(
                "not the depth of a wide residual network",
                found=self.depth,
                allowed=f"6n + 4 for n >= 1: 10, 16, 22, 28, 34, 40, ... up to {DEEPEST}",
            )
        check_widths(self.widths, count=3)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `wrn40-4` or `wrn16:32,64,88`; raises InputError."""
        match = _NAME.fullmatch(text.strip().lower())
        if match is None:
            raise InputError("not the name of a network", found=text, allowed=NOTATION)
        depth, factor, widths = match.groups()
        if factor is not None:
            return cls(int(depth), tuple(width * int(factor) for width in WIDTHS))
        return cls(int(depth), parse_widths(widths, text, NOTATION))

    def __str__(self) -> str:
        return f"wrn{self.depth}:{','.join(map(str, self.widths))}"

    @property
    def blocks_per_group(self) -> int:
        """Residual blocks in each of the three groups."""
        return (self.depth - 4) // 6

    @property
    def group0(self) -> str:
        """What decides the shape of G0: its blocks and channels."""
        return f"wrn:{self.blocks_per_group}x{self.widths[0]}"

    def proportional(self, step: int) -> Self:
        """Return this network with widths in the published proportion, the first being `step`."""
        return replace(self, widths=proportion(WIDTHS, step))

    def narrowed(self) -> tuple[Self, ...]:
        """Return students of such a teacher: fewer layers and at most half of its widths.

        WRN40 -> WRN16 as in A, section 4.3; WRN16 and shallower -> WRN10.
        """
        depth = STUDENT_DEPTH if self.depth > STUDENT_DEPTH else SHALLOWEST
        return tuple(replace(self, depth=depth, widths=w) for w in narrowed(self.widths))

    def blueprint(self, image_channels: int) -> Blueprint:
        """Return the stem and three groups; the last one ends normalised and activated."""
        first, second, third = self.widths
        stem = Conv(image_channels, STEM_CHANNELS, 3)
        return Blueprint(
            group0=(stem, *self._group(STEM_CHANNELS, first, stride=1)),
            stages=(
                self._group(first, second, stride=2),
                (*self._group(second, third, stride=2), Norm(third), Relu()),
            ),
            channels=third,
        )

    def _group(self, inputs: int, outputs: int, stride: int) -> Ops:
        later = [_block(outputs, outputs, 1)] * (self.blocks_per_group - 1)
        return (_block(inputs, outputs, stride), *later)


def _block(inputs: int, outputs: int, stride: int) -> Op:
    """Normalise, activate and convolve, twice; the projection reads the activation."""
    projects = inputs != outputs or stride != 1
    return Residual(
        before=(Norm(inputs), Relu()),
        body=(
            Conv(inputs, outputs, 3, stride),
            Norm(outputs),
            Relu(),
            Conv(outputs, outputs, 3),
        ),
        shortcut=(Conv(inputs, outputs, 1, stride),) if projects else (),
    )
