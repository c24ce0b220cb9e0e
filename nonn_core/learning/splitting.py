"""Learning which channels and classes of a network belong together, and cutting it there.

SplitNet, Kim, Park, Kim & Hwang 2017, PMLR 70:1866-1874: while the network trains, each channel
and class has a share in each group, a softmax over the groups.  Three losses make weights between
groups vanish, shares decide and groups balance; then the network is cut.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from nonn_core.blueprint import Conv, Norm
from nonn_core.learning.losses import group_balance, group_overlap, group_weight
from nonn_core.modules import Classifier
from nonn_core.split_layout import ChannelSet, Layout, leaves
from nonn_core.splitnet import SplitNet

_NOISE = 0.01
_GROWTH = 12
"""R_D by itself drives undecided shares apart by e to this power while the network trains, which is
from noise to a decision when half of it is done."""


@dataclass(frozen=True, slots=True)
class Penalties:
    """The three losses of a network that falls into groups; each starts at about one.

    `weight` (R_W) is a mean over layers, `overlap` (R_D) and `balance` (R_E) over channel sets.
    """

    weight: Tensor
    overlap: Tensor
    balance: Tensor


class Splitting(nn.Module):
    """A classifier in training, and how much of each channel and class is in each group.

    The losses of Kim et al. are divided by what they are while nothing is decided, as in their
    published program, so that their weights mean the same for layers of all sizes.  `travel` is
    the sum of all steps' sizes, learning rate / (1 - momentum).
    """

    def __init__(self, classifier: Classifier, layout: Layout, travel: float, seed: int) -> None:
        super().__init__()
        self.classifier = classifier
        self.layout = layout
        generator = torch.Generator().manual_seed(seed)
        self._gains = [_gain(each, len(layout.sets), travel) for each in layout.sets]
        self.logits = nn.ParameterList(
            torch.randn(each.groups, each.channels, generator=generator) * _NOISE / gain
            for each, gain in zip(layout.sets, self._gains, strict=True)
        )
        undecided = [_undecided(one) for one in self.shares()]
        with torch.no_grad():
            self._open_weights = [
                float(group_weight(layer.weight, inputs, outputs))
                for layer, inputs, outputs in self._linked(undecided)
            ]

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map images (N, C, H, W) to logits (N, classes) and maps, as the classifier does."""
        return cast(tuple[Tensor, list[Tensor]], self.classifier(images))

    def shares(self) -> list[Tensor]:
        """Return the share of each channel in each group, (groups, channels) for each set."""
        return [
            torch.softmax(logits * gain, dim=0)
            for logits, gain in zip(self.logits, self._gains, strict=True)
        ]

    def penalties(self) -> Penalties:
        """Return the losses of the present weights and shares; never in half precision."""
        with torch.autocast(self.logits[0].device.type, enabled=False):
            shares = self.shares()
            weight = [
                group_weight(layer.weight, inputs, outputs) / undecided
                for (layer, inputs, outputs), undecided in zip(
                    self._linked(shares), self._open_weights, strict=True
                )
            ]
            overlap, balance = [], []
            for one in shares:
                groups, channels = one.shape
                overlap.append(group_overlap(one) * 2 * groups / (channels * (groups - 1)))
                balance.append(group_balance(one) * groups / channels**2)
        return Penalties(*(torch.stack(each).mean() for each in (weight, overlap, balance)))

    def orders(self) -> list[Tensor]:
        """Decide: return the channels of each set group by group, (channels,) each."""
        pairs = zip(self.shares(), self.layout.sets, strict=True)
        return [_likeliest_order(shares.detach().cpu(), each) for shares, each in pairs]

    def _linked(
        self, shares: Sequence[Tensor]
    ) -> Iterator[tuple[nn.Conv2d | nn.Linear, Tensor, Tensor]]:
        """Yield each split layer with its channels' shares in as many groups as it is split in."""
        layers: list[nn.Conv2d | nn.Linear] = [
            module
            for stage in self.stages()
            for module in stage.modules()
            if isinstance(module, nn.Conv2d) and module.groups == 1
        ]
        links = self.layout.links()
        for layer, (reads, writes, groups) in zip(
            [*layers, self.classifier.fc], links, strict=True
        ):
            yield layer, _merged(shares[reads], groups), _merged(shares[writes], groups)

    def stages(self) -> list[nn.Module]:
        """Return the stages that are to be split."""
        return list(self.classifier.trunk.children())[len(self.layout.whole) :]


def cut(trained: Splitting) -> SplitNet:
    """Return the SplitNet that a trained network becomes without what crosses its groups.

    Each channel goes to its likeliest group, as far as all groups of a set can be of equal size.
    """
    layout, source, orders = trained.layout, trained.classifier, trained.orders()
    found = SplitNet(layout)
    found.features.copy_(orders[layout.entry])
    found.classes.copy_(orders[layout.classes].argsort())
    found.group0.load_state_dict(source.group0.state_dict())
    for whole, stage in zip(found.trunk, source.trunk, strict=False):
        whole.load_state_dict(stage.state_dict())
    for level, stage, parts in zip(layout.levels, trained.stages(), found.levels, strict=True):
        for group, part in enumerate(cast(nn.ModuleList, parts)):
            members = _members(layout, orders, group, level.groups)
            for op, old, new in zip(leaves(level.ops), *map(_weighted, (stage, part)), strict=True):
                _copy_leaf(op, old, new, members)
    for group, fc in enumerate(found.fc):
        members = _members(layout, orders, group, layout.groups)
        _copy(source.fc, fc, members[layout.classes], members[layout.features])
    return found


def _gain(each: ChannelSet, sets: int, travel: float) -> float:
    """Return what turns logits into shares that decide within `travel`, however many channels.

    About undecided shares, R_D / (its value there) has the slope -2 (x - mean x) / (G (G - 1)) by
    the softmax's argument x = gain * logit, of which a mean over sets and channels takes its part.
    """
    pull = 2 / (each.groups * (each.groups - 1)) / (each.channels * sets)
    return math.sqrt(_GROWTH / (pull * travel))


def _members(layout: Layout, orders: Sequence[Tensor], group: int, groups: int) -> list[Tensor]:
    """Return which channels of each set are in `group` of `groups`, for sets that have as many."""
    return [
        order[slice(*each.bounds(group, groups))] if each.groups % groups == 0 else order[:0]
        for order, each in zip(orders, layout.sets, strict=True)
    ]


def _weighted(module: nn.Module) -> Iterator[nn.Module]:
    return (m for m in module.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d))


def _copy_leaf(op: Conv | Norm, old: nn.Module, new: nn.Module, members: list[Tensor]) -> None:
    match op:
        case Norm(channels):
            _copy(old, new, members[channels])
        case Conv(inputs, outputs, groups=groups):
            _copy(old, new, members[outputs], members[inputs] if groups == 1 else None)


def _copy(old: nn.Module, new: nn.Module, rows: Tensor, columns: Tensor | None = None) -> None:
    """Copy these rows of each tensor, and of weights these columns."""
    content = new.state_dict()
    for name, value in old.state_dict().items():
        if value.dim():
            value = value[rows.to(value.device)]
        if value.dim() > 1 and columns is not None:
            value = value[:, columns.to(value.device)]
        content[name].copy_(value)


def _merged(shares: Tensor, groups: int) -> Tensor:
    """Add up the shares of neighbouring groups: (finer, channels) to (groups, channels)."""
    return shares.reshape(groups, -1, shares.shape[1]).sum(dim=1)


def _undecided(shares: Tensor) -> Tensor:
    return torch.full_like(shares, 1 / len(shares))


def _likeliest_order(shares: Tensor, each: ChannelSet) -> Tensor:
    """Return the likeliest assignment to groups of the set's sizes, channels group by group."""
    sizes = each.sizes(each.groups)
    owners = np.repeat(np.arange(each.groups), sizes)
    chances = shares.double().clamp_min(1e-300).log().numpy()
    channels, places = linear_sum_assignment(chances.T[:, owners], maximize=True)
    return torch.from_numpy(channels[np.lexsort((channels, owners[places]))])
