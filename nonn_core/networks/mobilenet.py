"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381): inverted residuals with depthwise layers.

`mobilenetv2` halves the maps five times, as for large images; `mobilenetv2-cifar` leaves out the
first two halvings.  `-FACTOR` scales all widths (`mobilenetv2-cifar-0.5`), rounded to multiples of
eight as published.
"""

import re
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

from nonn_common.errors import InputError
from nonn_core.networks.blueprint import Blueprint, Conv, Norm, Ops, Residual, conv_norm_relu

# Expansion, output channels, blocks, stride of the first block: Table 2 of the paper.
GROUPS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM_CHANNELS, LAST_CHANNELS = 32, 1280
CEILING = 6.0
NOTATION = "mobilenetv2 or mobilenetv2-cifar, scaled: mobilenetv2-0.5 or mobilenetv2-cifar-0.5"
SMALLEST_PERCENT, LARGEST_PERCENT = 5, 400

_DIVISOR = 8
_NAME = re.compile(r"mobilenetv2(-cifar)?(?:-(\d+(?:\.\d{1,2})?))?")


@dataclass(frozen=True, slots=True)
class MobileNetSpec:
    """A MobileNetV2: width in percent of the published one, and which stem it has."""

    width_percent: int = 100
    small_images: bool = False

    def __post_init__(self) -> None:
        if not SMALLEST_PERCENT <= self.width_percent <= LARGEST_PERCENT:
            raise InputError(
                "not the width of a MobileNetV2",
                found=f"{self.width_percent / 100:g}",
                allowed=f"{SMALLEST_PERCENT / 100:g} to {LARGEST_PERCENT / 100:g}",
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `mobilenetv2`, `mobilenetv2-cifar` or `mobilenetv2-cifar-0.5`; raises InputError."""
        match = _NAME.fullmatch(text.strip().lower())
        if match is None:
            raise InputError("not the name of a network", found=text, allowed=NOTATION)
        cifar, factor = match.groups()
        return cls(round(100 * float(factor or 1)), cifar is not None)

    def __str__(self) -> str:
        stem = "-cifar" if self.small_images else ""
        factor = "" if self.width_percent == 100 else f"-{self.width_percent / 100:g}"
        return f"mobilenetv2{stem}{factor}"

    @property
    def group0(self) -> str:
        """Key of the shape of G0: the stem's kind and channels."""
        stem = "small" if self.small_images else "large"
        return f"mobilenetv2:{stem},{self._width(STEM_CHANNELS)},{self._width(GROUPS[0][1])}"

    def proportional(self, step: int) -> Self:
        """Return this network with `step` percent of the published widths."""
        return replace(self, width_percent=step)

    def narrowed(self) -> tuple[Self, ...]:
        """Return students of such a teacher: a tenth to half of its widths."""
        percents = (self.width_percent * tenths // 10 for tenths in range(1, 6))
        return tuple(replace(self, width_percent=max(SMALLEST_PERCENT, p)) for p in percents)

    def blueprint(self, image_channels: int) -> Blueprint:
        """Return the stem with the first group, six more, and a classifier's last convolution."""
        stem_channels = self._width(STEM_CHANNELS)
        widths = [stem_channels, *(self._width(channels) for _, channels, _, _ in GROUPS)]
        first, *others = (
            _group(inputs, outputs, expansion, count, self._stride(position))
            for position, ((inputs, outputs), (expansion, _, count, _)) in enumerate(
                zip(pairwise(widths), GROUPS, strict=True)
            )
        )
        stem = Conv(image_channels, stem_channels, 3, stride=1 if self.small_images else 2)
        last = max(LAST_CHANNELS, self._width(LAST_CHANNELS))
        return Blueprint(
            group0=(*conv_norm_relu(stem, CEILING), *first),
            stages=tuple(others),
            channels=widths[-1],
            tail=conv_norm_relu(Conv(widths[-1], last, 1), CEILING),
            tail_channels=last,
        )

    def _stride(self, position: int) -> int:
        return 1 if self.small_images and position == 1 else GROUPS[position][3]

    def _width(self, channels: int) -> int:
        """Scale and round to a multiple of eight, never down by more than a tenth."""
        scaled = channels * self.width_percent / 100
        rounded = max(_DIVISOR, int(scaled + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
        return rounded + _DIVISOR if rounded < 0.9 * scaled else rounded


def _group(inputs: int, outputs: int, expansion: int, count: int, stride: int) -> Ops:
    later = _block(outputs, outputs, expansion, 1) * (count - 1)
    return _block(inputs, outputs, expansion, stride) + later


def _block(inputs: int, outputs: int, expansion: int, stride: int) -> Ops:
    inner = inputs * expansion
    widen = conv_norm_relu(Conv(inputs, inner, 1), CEILING) if expansion > 1 else ()
    body: Ops = (
        *widen,
        *conv_norm_relu(Conv(inner, inner, 3, stride, groups=inner), CEILING),
        Conv(inner, outputs, 1),
        Norm(outputs),
    )
    if stride == 1 and inputs == outputs:
        return (Residual(body=body),)
    return body
