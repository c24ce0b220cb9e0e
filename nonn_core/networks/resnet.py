"""Residual networks: wide pre-activation ones (WRN), and ResNet.

WRN (Zagoruyko & Komodakis 2016, arXiv:1605.07146): a network is fixed by its depth and by the
channels of its three groups.  `wrn40-4` is the published notation (widths 16k, 32k and 64k
for a factor k); `wrn16:32,64,88` names the widths one by one, as students need it.

ResNet (He et al. 2016, arXiv:1512.03385), post-activation, four groups: `resnet18` has the
stem for large images (7x7 convolution of stride 2 and a pooling), `resnet18-cifar` the one
for small images (a 3x3 convolution).  Depths 50, 101 and 152 have bottleneck blocks, whose
outputs are four times as wide; the stride lies on their 3x3 convolution, as in most
libraries.
"""

import re
from dataclasses import dataclass, replace
from typing import Self

from nonn_common.errors import InputError
from nonn_core.networks.blueprint import (
    Blueprint,
    Conv,
    MaxPool,
    Norm,
    Op,
    Ops,
    Relu,
    Residual,
    check_widths,
    conv_norm_relu,
    narrowed_widths,
    parse_widths,
    proportional_widths,
)

WRN_STEM_CHANNELS = 16
WRN_WIDTHS = (16, 32, 64)
WRN_SHALLOWEST, WRN_STUDENT_DEPTH, WRN_DEEPEST = 10, 16, 1000
WRN_NOTATION = "wrnDEPTH-FACTOR (wrn40-4) or wrnDEPTH:W1,W2,W3 (wrn16:32,64,88)"

_WRN_NAME = re.compile(r"wrn(\d+)(?:-(\d+)|:([\d,]+))")


@dataclass(frozen=True, slots=True)
class WrnSpec:
    """A wide residual network: depth 6n + 4 and the channels of its three groups."""

    depth: int
    widths: tuple[int, ...]

    def __post_init__(self) -> None:
        if not WRN_SHALLOWEST <= self.depth <= WRN_DEEPEST or (self.depth - 4) % 6:
            raise InputError(
                "not the depth of a wide residual network",
                found=self.depth,
                allowed=f"6n + 4 for n >= 1: 10, 16, 22, 28, 34, 40, ... up to {WRN_DEEPEST}",
            )
        check_widths(self.widths, count=3)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `wrn40-4` or `wrn16:32,64,88`; raises InputError."""
        match = _WRN_NAME.fullmatch(text.strip().lower())
        if match is None:
            raise InputError("not the name of a network", found=text, allowed=WRN_NOTATION)
        depth, factor, widths = match.groups()
        if factor is not None:
            return cls(int(depth), tuple(width * int(factor) for width in WRN_WIDTHS))
        return cls(int(depth), parse_widths(widths, text, WRN_NOTATION))

    def __str__(self) -> str:
        return f"wrn{self.depth}:{','.join(map(str, self.widths))}"

    @property
    def blocks_per_group(self) -> int:
        """Residual blocks in each of the three groups."""
        return (self.depth - 4) // 6

    @property
    def group0(self) -> str:
        """Key of the shape of G0: its blocks and channels."""
        return f"wrn:{self.blocks_per_group}x{self.widths[0]}"

    def proportional(self, step: int) -> Self:
        """Return this network with widths in the published proportion, the first being `step`."""
        return replace(self, widths=proportional_widths(WRN_WIDTHS, step))

    def narrowed(self) -> tuple[Self, ...]:
        """Return students of such a teacher: fewer layers and at most half of its widths.

        WRN40 -> WRN16 as in arXiv:1907.11804, section 4.3; WRN16 and shallower -> WRN10.
        """
        depth = WRN_STUDENT_DEPTH if self.depth > WRN_STUDENT_DEPTH else WRN_SHALLOWEST
        return tuple(replace(self, depth=depth, widths=w) for w in narrowed_widths(self.widths))

    def blueprint(self, image_channels: int) -> Blueprint:
        """Return the stem and three groups; the last one ends normalised and activated."""
        first, second, third = self.widths
        stem = Conv(image_channels, WRN_STEM_CHANNELS, 3)
        return Blueprint(
            group0=(stem, *self._group(WRN_STEM_CHANNELS, first, stride=1)),
            stages=(
                self._group(first, second, stride=2),
                (*self._group(second, third, stride=2), Norm(third), Relu()),
            ),
            channels=third,
        )

    def _group(self, inputs: int, outputs: int, stride: int) -> Ops:
        later = [_pre_activation_block(outputs, outputs, 1)] * (self.blocks_per_group - 1)
        return (_pre_activation_block(inputs, outputs, stride), *later)


def _pre_activation_block(inputs: int, outputs: int, stride: int) -> Op:
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


BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
RESNET_SHALLOWEST = 18
RESNET_WIDTHS = (64, 128, 256, 512)
BOTTLENECK_FROM, EXPANSION = 50, 4
RESNET_NOTATION = (
    "resnet18, 34, 50, 101 or 152, for small images resnet18-cifar, and with widths "
    "resnet18:32,64,128,256 or resnet18-cifar:32,64,128,256"
)

_RESNET_NAME = re.compile(r"resnet(\d+)(-cifar)?(?::([\d,]+))?")


@dataclass(frozen=True, slots=True)
class ResNetSpec:
    """A residual network: depth, channels of its four groups, and which stem it has."""

    depth: int
    widths: tuple[int, ...] = RESNET_WIDTHS
    small_images: bool = False

    def __post_init__(self) -> None:
        if self.depth not in BLOCKS:
            raise InputError(
                "not the depth of a residual network",
                found=self.depth,
                allowed=", ".join(map(str, BLOCKS)),
            )
        check_widths(self.widths, count=len(RESNET_WIDTHS))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `resnet34`, `resnet18-cifar` or `resnet18:32,64,128,256`; raises InputError."""
        match = _RESNET_NAME.fullmatch(text.strip().lower())
        if match is None:
            raise InputError("not the name of a network", found=text, allowed=RESNET_NOTATION)
        depth, cifar, widths = match.groups()
        chosen = RESNET_WIDTHS if widths is None else parse_widths(widths, text, RESNET_NOTATION)
        return cls(int(depth), chosen, cifar is not None)

    def __str__(self) -> str:
        stem = "-cifar" if self.small_images else ""
        return f"resnet{self.depth}{stem}:{','.join(map(str, self.widths))}"

    @property
    def group0(self) -> str:
        """Key of the shape of G0: kind of stem and block, blocks, channels."""
        stem = "small" if self.small_images else "large"
        kind = "bottleneck" if self._expansion > 1 else "basic"
        return f"resnet:{stem},{kind},{BLOCKS[self.depth][0]}x{self.widths[0]}"

    def proportional(self, step: int) -> Self:
        """Return this network with widths in the published proportion, the first being `step`."""
        return replace(self, widths=proportional_widths(RESNET_WIDTHS, step))

    def narrowed(self) -> tuple[Self, ...]:
        """Students of such a teacher: ResNet-18 of at most half its widths.

        As in arXiv:1907.11804, section 5.3.
        """
        return tuple(
            replace(self, depth=RESNET_SHALLOWEST, widths=w) for w in narrowed_widths(self.widths)
        )

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
            return conv_norm_relu(Conv(image_channels, self.widths[0], 3))
        return (*conv_norm_relu(Conv(image_channels, self.widths[0], 7, stride=2)), MaxPool(3))

    def _group(self, inputs: int, width: int, stride: int, count: int) -> Ops:
        outputs = width * self._expansion
        later = [_post_activation_block(outputs, width, self._expansion, 1)] * (count - 1)
        return (_post_activation_block(inputs, width, self._expansion, stride), *later)


def _post_activation_block(inputs: int, width: int, expansion: int, stride: int) -> Op:
    outputs = width * expansion
    body: Ops
    if expansion == 1:
        body = (*conv_norm_relu(Conv(inputs, width, 3, stride)), Conv(width, width, 3), Norm(width))
    else:
        body = (
            *conv_norm_relu(Conv(inputs, width, 1)),
            *conv_norm_relu(Conv(width, width, 3, stride)),
            Conv(width, outputs, 1),
            Norm(outputs),
        )
    projects = inputs != outputs or stride != 1
    shortcut = (Conv(inputs, outputs, 1, stride), Norm(outputs)) if projects else ()
    return Residual(body=body, shortcut=shortcut, after=(Relu(),))
