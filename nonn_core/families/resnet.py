"""Residual networks (He et al. 2016, arXiv:1512.03385), post-activation, four groups.

`resnet18` has the stem for large images (7x7 convolution of stride 2 and a pooling),
`resnet18-cifar` the one for small images (a 3x3 convolution).  Depths 50, 101 and 152 have
bottleneck blocks, whose outputs are four times as wide; the stride lies on their 3x3 convolution,
as in most libraries.
"""

import re
from dataclasses import dataclass, replace
from typing import Self

from nonn_core.blueprint import Blueprint, Conv, MaxPool, Norm, Op, Ops, Relu, Residual, activated
from nonn_core.families.widths import check_widths, narrowed, parse_widths, proportion
from profiles.errors import InputError

BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
SHALLOWEST = 18
WIDTHS = (64, 128, 256, 512)
BOTTLENECK_FROM, EXPANSION = 50, 4
NOTATION = (
    "resnet18, 34, 50, 101 or 152, for small images resnet18-cifar, and with widths "
    "resnet18:32,64,128,256 or resnet18-cifar:32,64,128,256"
)

_NAME = re.compile(r"resnet(\d+)(-cifar)?(?::([\d,]+))?")


@dataclass(frozen=True, slots=True)
class ResNetSpec:
    """A residual network: depth, channels of its four groups, and which stem it has."""

    depth: int
    widths: tuple[int, ...] = WIDTHS
    small_images: bool = False

    def __post_init__(self) -> None:
        if self.depth not in BLOCKS:
            raise InputError(
                "not the depth of a residual network",
                found=self.depth,
                allowed=", ".join(map(str, BLOCKS)),
            )
        check_widths(self.widths, count=len(WIDTHS))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `resnet34`, `resnet18-cifar` or `resnet18:32,64,128,256`; raises InputError."""
        match = _NAME.fullmatch(text.strip().lower())
        if match is None:
            raise InputError("not the name of a network", found=text, allowed=NOTATION)
        depth, cifar, widths = match.groups()
        chosen = WIDTHS if widths is None else parse_widths(widths, text, NOTATION)
        return cls(int(depth), chosen, cifar is not None)

    def __str__(self) -> str:
        stem = "-cifar" if self.small_images else ""
        return f"resnet{self.depth}{stem}:{','.join(map(str, self.widths))}"

    @property
    def group0(self) -> str:
        """What decides the shape of G0: kind of stem and block, blocks, channels."""
        stem = "small" if self.small_images else "large"
        kind = "bottleneck" if self._expansion > 1 else "basic"
        return f"resnet:{stem},{kind},{BLOCKS[self.depth][0]}x{self.widths[0]}"

    def proportional(self, step: int) -> Self:
        """Return this network with widths in the published proportion, the first being `step`."""
        return replace(self, widths=proportion(WIDTHS, step))

    def narrowed(self) -> tuple[Self, ...]:
        """Return students of such a teacher: ResNet-18 of at most half of its widths (A, 5.3)."""
        return tuple(replace(self, depth=SHALLOWEST, widths=w) for w in narrowed(self.widths))

    def blueprint(self, image_channels: int) -> Blueprint:
        """Return the stem with the first group, and three more that each halve the maps."""
        first, *others = (
            self._group(inputs, width, stride, count)
            for inputs, width, stride, count in zip(
                (self.widths[0], *(width * self._expansion for width in self.widths)),
                self.widths,
                (1, 2, 2, 2),
                BLOCKS[self.depth],
                strict=False,
            )
        )
        return Blueprint(
            group0=(*self._stem(image_channels), *first),
            stages=tuple(others),
            channels=self.widths[-1] * self._expansion,
        )

    @property
    def _expansion(self) -> int:
        return EXPANSION if self.depth >= BOTTLENECK_FROM else 1

    def _stem(self, image_channels: int) -> Ops:
        if self.small_images:
            return activated(Conv(image_channels, self.widths[0], 3))
        return (*activated(Conv(image_channels, self.widths[0], 7, stride=2)), MaxPool(3))

    def _group(self, inputs: int, width: int, stride: int, count: int) -> Ops:
        outputs = width * self._expansion
        later = [_block(outputs, width, self._expansion, 1)] * (count - 1)
        return (_block(inputs, width, self._expansion, stride), *later)


def _block(inputs: int, width: int, expansion: int, stride: int) -> Op:
    outputs = width * expansion
    body: Ops
    if expansion == 1:
        body = (*activated(Conv(inputs, width, 3, stride)), Conv(width, width, 3), Norm(width))
    else:
        body = (
            *activated(Conv(inputs, width, 1)),
            *activated(Conv(width, width, 3, stride)),
            Conv(width, outputs, 1),
            Norm(outputs),
        )
    projects = inputs != outputs or stride != 1
    shortcut = (Conv(inputs, outputs, 1, stride), Norm(outputs)) if projects else ()
    return Residual(body=body, shortcut=shortcut, after=(Relu(),))
