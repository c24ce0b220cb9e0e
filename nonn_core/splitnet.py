"""SplitNet: a classifier whose last layers have fallen into groups that never talk.

Kim, Park, Kim & Hwang 2017, PMLR 70:1866-1874.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import cast

import torch
from torch import Tensor, nn

from nonn_core.family import NetworkSpec
from nonn_core.modules import initialise, pooled, sequence
from nonn_core.split_layout import Layout, split_layout


class SplitNet(nn.Module):
    """A tree: a trunk, levels of groups that each read one group before them, an FC layer of each.

    Channels of one group lie together.  Buffer `features` (channels,) is the order in which the
    groups read the trunk's channels, buffer `classes` (classes,) where among the groups' answers
    the logit of each class lies; training finds both.
    """

    features: Tensor
    classes: Tensor

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        sets = layout.sets
        self.group0 = sequence(layout.group0)
        self.trunk = nn.Sequential(*map(sequence, layout.whole))
        self.levels = nn.ModuleList(
            nn.ModuleList(sequence(layout.part(level, group)) for group in range(level.groups))
            for level in layout.levels
        )
        inputs, outputs = (
            sets[each].sizes(layout.groups) for each in (layout.features, layout.classes)
        )
        self.fc = nn.ModuleList(map(nn.Linear, inputs, outputs))
        self.register_buffer("features", torch.arange(sets[layout.entry].channels))
        self.register_buffer("classes", torch.arange(sets[layout.classes].channels))
        initialise(self)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map images (N, C, H, W) to logits (N, classes) and each group's fconv maps."""
        layout, sets = self.layout, self.layout.sets
        parts = [self.trunk(self.group0(images)).index_select(1, self.features)]
        for level, modules in zip(layout.levels, self.levels, strict=True):
            groups = cast(nn.ModuleList, modules)
            pieces = _divided(parts, sets[level.reads].sizes(level.groups))
            parts = [group(piece) for group, piece in zip(groups, pieces, strict=True)]
        parts = _divided(parts, sets[layout.features].sizes(layout.groups))
        answers = [fc(pooled(part)) for fc, part in zip(self.fc, parts, strict=True)]
        return torch.cat(answers, dim=1).index_select(1, self.classes), parts


def build_splitnet(
    spec: NetworkSpec, image_channels: int, classes: int, groups: Sequence[int], seed: int
) -> SplitNet:
    """Build a SplitNet whose initial weights depend on the seed alone; raises InputError."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SplitNet(split_layout(spec, image_channels, classes, groups))


def _divided(parts: Sequence[Tensor], sizes: list[int]) -> list[Tensor]:
    """Cut parts (N, channels, H, W) further, each into as many pieces, into pieces of `sizes`."""
    each = len(sizes) // len(parts)
    pieces: list[Tensor] = []
    for position, part in enumerate(parts):
        own = sizes[position * each : (position + 1) * each]
        starts = accumulate(own, initial=0)
        pieces += (part.narrow(1, start, size) for start, size in zip(starts, own, strict=False))
    return pieces
