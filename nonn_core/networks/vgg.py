"""VGG networks (Simonyan & Zisserman 2015, arXiv:1409.1556), normalised, with one FC layer.

Five groups of 3x3 convolutions, a pooling between each two.  As in all families here the last group
is averaged over height and width and goes to a single FC layer; with 32 x 32 images that is the
usual VGG of CIFAR-10 (VGG-19: 20.0 M parameters, VGG-11: 9.2 M).
"""

import re
from dataclasses import dataclass, replace
from typing import Self

from nonn_common.errors import InputError
from nonn_core.networks.blueprint import (
    Blueprint,
    Conv,
    MaxPool,
    Op,
    Ops,
    check_widths,
    conv_norm_relu,
    narrowed_widths,
    parse_widths,
    proportional_widths,
)

LAYERS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
SHALLOWEST = 11
WIDTHS = (64, 128, 256, 512, 512)
NOTATION = "vgg11, vgg13, vgg16 or vgg19, or with widths: vgg11:32,64,128,256,256"

_NAME = re.compile(r"vgg(\d+)(?::([\d,]+))?")


@dataclass(frozen=True, slots=True)
class VggSpec:
    """A VGG network: depth (of the published one, FC layers counted), channels of five groups."""

    depth: int
    widths: tuple[int, ...] = WIDTHS

    def __post_init__(self) -> None:
        if self.depth not in LAYERS:
            raise InputError(
                "not the depth of a VGG network", found=self.depth, allowed="11, 13, 16 or 19"
            )
        check_widths(self.widths, count=len(WIDTHS))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `vgg19` or `vgg11:32,64,128,256,256`; raises InputError."""
        match = _NAME.fullmatch(text.strip().lower())
        if match is None:
            raise InputError("not the name of a network", found=text, allowed=NOTATION)
        depth, widths = match.groups()
        if widths is None:
            return cls(int(depth))
        return cls(int(depth), parse_widths(widths, text, NOTATION))

    def __str__(self) -> str:
        return f"vgg{self.depth}:{','.join(map(str, self.widths))}"

    @property
    def group0(self) -> str:
        """Key of the shape of G0: its layers and channels."""
        return f"vgg:{LAYERS[self.depth][0]}x{self.widths[0]}"

    def proportional(self, step: int) -> Self:
        """Return this network with widths in the published proportion, the first being `step`."""
        return replace(self, widths=proportional_widths(WIDTHS, step))

    def narrowed(self) -> tuple[Self, ...]:
        """Return students of such a teacher: VGG-11 of at most half of its widths."""
        return tuple(
            replace(self, depth=SHALLOWEST, widths=w) for w in narrowed_widths(self.widths)
        )

    def blueprint(self, image_channels: int) -> Blueprint:
        """Return five groups, each but the first behind a pooling that halves the maps."""
        layers = LAYERS[self.depth]
        first, *others = (
            _group(inputs, outputs, count)
            for inputs, outputs, count in zip(
                (image_channels, *self.widths), self.widths, layers, strict=False
            )
        )
        return Blueprint(
            group0=first,
            stages=tuple((MaxPool(2), *group) for group in others),
            channels=self.widths[-1],
        )


def _group(inputs: int, outputs: int, count: int) -> Ops:
    found: tuple[Op, ...] = ()
    for layer in range(count):
        found += conv_norm_relu(Conv(outputs if layer else inputs, outputs, 3))
    return found
