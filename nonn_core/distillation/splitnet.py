"""SplitNet: a classifier that learns which channels belong together, and is cut there.

Kim, Park, Kim & Hwang 2017, PMLR 70:1866-1874: while the network trains, each channel and
class has a share in each group, a softmax over the groups.  Three losses make weights between
groups vanish, shares decide and groups balance; then the network is cut into groups that
never talk.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import cast

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from nonn_core.networks.blueprint import Conv, NetworkSpec, Norm
from nonn_core.networks.group_layout import ChannelSet, GroupLayout, group_layout, leaves
from nonn_core.networks.modules import Classifier, build_sequence, global_average_pool, initialise


class SplitNet(nn.Module):
    """Tree of a trunk, levels of groups, and an FC layer of each.

    Each group reads one group before it.  Channels of one group lie together.  Buffer `features`
    (channels,) is the order in which the groups read the trunk's channels, buffer `classes`
    (classes,) where among the groups' answers the logit of each class lies; training finds both.
    """

    features: Tensor
    classes: Tensor

    def __init__(self, layout: GroupLayout) -> None:
        super().__init__()
        self.layout = layout
        sets = layout.sets
        self.group0 = build_sequence(layout.group0)
        self.trunk = nn.Sequential(*map(build_sequence, layout.whole))
        self.levels = nn.ModuleList(
            nn.ModuleList(
                build_sequence(layout.part(level, group)) for group in range(level.groups)
            )
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
        answers = [fc(global_average_pool(part)) for fc, part in zip(self.fc, parts, strict=True)]
        return torch.cat(answers, dim=1).index_select(1, self.classes), parts


def build_splitnet(
    spec: NetworkSpec, image_channels: int, classes: int, groups: Sequence[int], seed: int
) -> SplitNet:
    """Build a SplitNet whose initial weights depend on the seed alone; raises InputError."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SplitNet(group_layout(spec, image_channels, classes, groups))


def _divided(parts: Sequence[Tensor], sizes: list[int]) -> list[Tensor]:
    """Cut parts (N, channels, H, W) further into pieces of `sizes`.

    Each part falls into as many pieces.
    """
    each = len(sizes) // len(parts)
    pieces: list[Tensor] = []
    for position, part in enumerate(parts):
        own = sizes[position * each : (position + 1) * each]
        starts = accumulate(own, initial=0)
        pieces += (part.narrow(1, start, size) for start, size in zip(starts, own, strict=False))
    return pieces


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


class SoftSplitNet(nn.Module):
    """A classifier in training, and each channel's share in each group.

    Classes have shares too.  The losses of Kim et al. are divided by what they are while nothing is
    decided, as in their published program, so that their weights mean the same for layers of all
    sizes.  `travel` is the sum of all steps' sizes, learning rate / (1 - momentum).
    """

    def __init__(
        self, classifier: Classifier, layout: GroupLayout, travel: float, seed: int
    ) -> None:
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
        """Map images to logits and maps, as the classifier does.

        (N, C, H, W) to (N, classes).
        """
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
        """Split layers, with the shares of their channels in their groups."""
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
            yield layer, _merge_groups(shares[reads], groups), _merge_groups(shares[writes], groups)

    def stages(self) -> list[nn.Module]:
        """Return the stages that are to be split."""
        return list(self.classifier.trunk.children())[len(self.layout.whole) :]


def cut_groups(trained: SoftSplitNet) -> SplitNet:
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
        _copy_weights(source.fc, fc, members[layout.classes], members[layout.features])
    return found


def _gain(each: ChannelSet, sets: int, travel: float) -> float:
    """Gain that lets shares decide within `travel`, however many channels.

    About undecided shares, R_D / (its value there) has the slope -2 (x - mean x) / (G (G - 1)) by
    the softmax's argument x = gain * logit, of which a mean over sets and channels takes its part.
    """
    pull = 2 / (each.groups * (each.groups - 1)) / (each.channels * sets)
    return math.sqrt(_GROWTH / (pull * travel))


def _members(
    layout: GroupLayout, orders: Sequence[Tensor], group: int, groups: int
) -> list[Tensor]:
    """Channels of each set in `group` of `groups`.

    Empty for sets that do not fall into as many.
    """
    return [
        order[slice(*each.bounds(group, groups))] if each.groups % groups == 0 else order[:0]
        for order, each in zip(orders, layout.sets, strict=True)
    ]


def _weighted(module: nn.Module) -> Iterator[nn.Module]:
    return (m for m in module.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d))


def _copy_leaf(op: Conv | Norm, old: nn.Module, new: nn.Module, members: list[Tensor]) -> None:
    match op:
        case Norm(channels):
            _copy_weights(old, new, members[channels])
        case Conv(inputs, outputs, groups=groups):
            _copy_weights(old, new, members[outputs], members[inputs] if groups == 1 else None)


def _copy_weights(
    old: nn.Module, new: nn.Module, rows: Tensor, columns: Tensor | None = None
) -> None:
    """Copy these rows of each tensor, and of weights these columns."""
    content = new.state_dict()
    for name, value in old.state_dict().items():
        if value.dim():
            value = value[rows.to(value.device)]
        if value.dim() > 1 and columns is not None:
            value = value[:, columns.to(value.device)]
        content[name].copy_(value)


def _merge_groups(shares: Tensor, groups: int) -> Tensor:
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


def group_weight(weight: Tensor, inputs: Tensor, outputs: Tensor) -> Tensor:
    """SplitNet's group weight regularisation R_W of one layer (Kim et al. 2017, section 3).

    sum over groups g of  sum_i || ((1 - P_g) W Q_g) of input i ||
                        + sum_j || (P_g W (1 - Q_g)) of output j ||,
    which is zero when no weight crosses from one group to another.  `weight` (K, D) or
    (K, D, h, w); the shares of the input channels in each group (G, D), of the outputs (G, K).
    """
    energy = weight.square().flatten(2).sum(dim=2) if weight.dim() > 2 else weight.square()
    into = _root(outputs.square() @ energy)
    out_of = _root(inputs.square() @ energy.T)
    return ((1 - inputs) * into).sum() + ((1 - outputs) * out_of).sum()


def group_overlap(shares: Tensor) -> Tensor:
    """SplitNet's disjointness R_D of one set of channels.

    The sum over groups i < j of p_i . p_j.  `shares` (G, D), columns adding up to one; zero when
    each channel is in one group only.
    """
    return (shares.sum(dim=0).square().sum() - shares.square().sum()) / 2


def group_balance(shares: Tensor) -> Tensor:
    """SplitNet's balance R_E of one set of channels: sum over groups g of (sum_i p_gi)^2.

    `shares` (G, D); smallest, D^2 / G, when all groups hold the same.
    """
    return shares.sum(dim=1).square().sum()


def _root(squares: Tensor) -> Tensor:
    """Return the square root, with a gradient of zero where there is nothing."""
    return squares.clamp_min(1e-30).sqrt()
