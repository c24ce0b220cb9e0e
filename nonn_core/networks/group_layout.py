"""Layout of a SplitNet: a network in groups that never talk, and its exact cost.

Kim, Park, Kim & Hwang 2017, PMLR 70:1866-1874.  Layers that read or write the same channels
agree on which group each channel is in; such channels are a *channel set* here.  Torch-free.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain

from nonn_common.errors import InputError
from nonn_core.networks.blueprint import (
    Conv,
    ImageShape,
    MapShape,
    NetworkSpec,
    Norm,
    Op,
    Ops,
    Residual,
    shape_after_all,
)
from nonn_core.networks.network_cost import ops_cost


@dataclass(frozen=True, slots=True)
class ChannelSet:
    """Channels that fall into groups of equal size, give or take one."""

    channels: int
    groups: int

    @property
    def starts(self) -> tuple[int, ...]:
        """Start of each group, one after another, then the end of the last."""
        size, larger = divmod(self.channels, self.groups)
        return (0, *accumulate(size + (group < larger) for group in range(self.groups)))

    def bounds(self, group: int, groups: int) -> tuple[int, int]:
        """Return where `group` of `groups` starts and ends; `groups` divides the set's own."""
        finer = self.groups // groups
        return self.starts[group * finer], self.starts[(group + 1) * finer]

    def sizes(self, groups: int) -> list[int]:
        """Return how many channels each of `groups` groups holds."""
        return [end - start for start, end in (self.bounds(g, groups) for g in range(groups))]


@dataclass(frozen=True, slots=True)
class SplitStage:
    """A stage that is split: its groups, what it reads, and its operations.

    The operations are those of the blueprint with channel sets in the place of channels.
    """

    groups: int
    reads: int
    ops: Ops


@dataclass(frozen=True, slots=True)
class GroupLayout:
    """Layout of a network: whole stages, split levels, and the FC layer.

    G0 stays whole too; the FC layer is in `groups` groups.  `sets` are the channel sets; levels and
    layers name them by position.  The FC layer maps set `features` to set `classes`.
    """

    group0: Ops
    whole: tuple[Ops, ...]
    levels: tuple[SplitStage, ...]
    sets: tuple[ChannelSet, ...]
    features: int
    classes: int
    groups: int

    @property
    def entry(self) -> int:
        """The set that is read where the split begins."""
        return self.levels[0].reads if self.levels else self.features

    def part(self, level: SplitStage, group: int) -> Ops:
        """Return the operations of one group of a level, with channels for channel sets."""

        def size(number: int) -> int:
            return self.sets[number].sizes(level.groups)[group]

        return _resized(level.ops, size)

    def links(self) -> Iterator[tuple[int, int, int]]:
        """Input set, output set and groups of each split layer.

        The FC layer comes last.  Convolutions come in the order of `leaves`; depthwise ones link no
        channel to another.
        """
        for level in self.levels:
            for op in leaves(level.ops):
                if isinstance(op, Conv) and op.groups == 1:
                    yield op.inputs, op.outputs, level.groups
        yield self.features, self.classes, self.groups


def group_layout(
    spec: NetworkSpec, image_channels: int, classes: int, groups: Sequence[int]
) -> GroupLayout:
    """Lay a network out in groups.

    `groups` has a number for each of its last stages, then one for the FC layer. (2,) splits the FC
    layer in two, (2, 2) the last stage too, and with (2, 4) each half of that stage feeds two
    groups of the FC layer; each number divides the next.  G0 stays whole.  Raises InputError when
    the network has fewer stages, or a layer fewer channels or classes than groups.
    """
    blueprint = spec.blueprint(image_channels)
    stages = (*blueprint.stages, *([blueprint.tail] if blueprint.tail else []))
    count = len(stages) - len(groups) + 1
    if count < 0:
        raise InputError(
            "more levels of groups than the network has",
            found=len(groups),
            allowed=f"at most {len(stages) + 1}: {len(stages)} stages and the FC layer",
        )
    whole, split = stages[:count], stages[count:]
    wiring = _Wiring([], [])
    reads = wiring.new(_output_channels((*blueprint.group0, *chain.from_iterable(whole))))
    levels = []
    for ops, number in zip(split, groups, strict=False):
        wiring.refine(reads, number)
        start = reads
        wired, reads = wiring.row(ops, start, number)
        levels.append(SplitStage(number, start, wired))
    named = wiring.new(classes)
    for number in (reads, named):
        wiring.refine(number, groups[-1])
    return GroupLayout(
        blueprint.group0, whole, tuple(levels), wiring.found(), reads, named, groups[-1]
    )


def leaves(ops: Ops) -> Iterator[Conv | Norm]:
    """Yield the operations that have weights, in the order of the modules built from `ops`."""
    for op in ops:
        match op:
            case Residual():
                for part in (op.before, op.body, op.shortcut, op.after):
                    yield from leaves(part)
            case Conv() | Norm():
                yield op


@dataclass(slots=True)
class _Wiring:
    """Channel sets found so far: channels and groups of each.

    The groups are the most that it is in.
    """

    channels: list[int]
    groups: list[int]

    def new(self, channels: int) -> int:
        self.channels.append(channels)
        self.groups.append(1)
        return len(self.channels) - 1

    def refine(self, number: int, groups: int) -> None:
        self.groups[number] = max(self.groups[number], groups)

    def found(self) -> tuple[ChannelSet, ...]:
        for channels, groups in zip(self.channels, self.groups, strict=True):
            if channels < groups:
                raise InputError(
                    "more groups than a layer has channels, or the data classes",
                    found=groups,
                    allowed=f"at most {channels}",
                )
        return tuple(map(ChannelSet, self.channels, self.groups))

    def row(self, ops: Ops, reads: int, groups: int, writes: int | None = None) -> tuple[Ops, int]:
        """Return operations with sets for channels, and the set that they write.

        With `writes`, their last convolution has to write to that set.
        """
        last = max((k for k, op in enumerate(ops) if _mixes(op)), default=None)
        wired: list[Op] = []
        for position, op in enumerate(ops):
            found, reads = self._op(op, reads, groups, writes if position == last else None)
            wired.append(found)
        return tuple(wired), reads

    def _op(self, op: Op, reads: int, groups: int, writes: int | None) -> tuple[Op, int]:
        match op:
            case Conv(outputs=outputs) if _mixes(op):
                target = self._target(outputs, groups, writes)
                return replace(op, inputs=reads, outputs=target), target
            case Conv():
                return replace(op, inputs=reads, outputs=reads), reads
            case Norm():
                return Norm(reads), reads
            case Residual():
                return self._block(op, reads, groups)
        return op, reads

    def _block(self, op: Residual, reads: int, groups: int) -> tuple[Op, int]:
        """Let the body write to the shortcut's channel set.

        What is added must be in the same group.
        """
        before, inner = self.row(op.before, reads, groups)
        shortcut, kept = self.row(op.shortcut, inner, groups) if op.shortcut else ((), reads)
        body, _ = self.row(op.body, inner, groups, kept)
        after, written = self.row(op.after, kept, groups)
        return Residual(body, before, shortcut, after), written

    def _target(self, channels: int, groups: int, writes: int | None) -> int:
        target = self.new(channels) if writes is None else writes
        self.refine(target, groups)
        return target


def _mixes(op: Op) -> bool:
    """Whether an operation makes new channels out of all that it reads."""
    return isinstance(op, Conv) and op.groups == 1


def _output_channels(ops: Ops) -> int:
    """Return the channels that leave operations in a row."""
    for op in reversed(ops):
        match op:
            case Conv():
                return op.outputs
            case Norm():
                return op.channels
            case Residual():
                return _output_channels((*op.shortcut, *op.body))
    raise AssertionError("a network has a convolution")


def _resized(ops: Ops, size: Callable[[int], int]) -> Ops:
    return tuple(_resized_op(op, size) for op in ops)


def _resized_op(op: Op, size: Callable[[int], int]) -> Op:
    match op:
        case Conv():
            inputs, outputs = size(op.inputs), size(op.outputs)
            return replace(
                op, inputs=inputs, outputs=outputs, groups=1 if op.groups == 1 else inputs
            )
        case Norm():
            return Norm(size(op.channels))
        case Residual():
            parts = (op.body, op.before, op.shortcut, op.after)
            return Residual(*(_resized(part, size) for part in parts))
    return op


@dataclass(frozen=True, slots=True)
class SplitCost:
    """Cost of a SplitNet, and of its largest group alone.

    A group alone has its own copy of whatever it shares with others.
    """

    params: int
    macs: int
    group_params: int
    group_macs: int


def split_cost(layout: GroupLayout, image: ImageShape) -> SplitCost:
    """Cost of a SplitNet; parameters and MACs count as in `nonn_core.networks.network_cost`."""
    maps = MapShape(image.channels, image.height, image.width)
    trunk: Ops = (*layout.group0, *(op for stage in layout.whole for op in stage))
    shared = ops_cost(trunk, maps)
    maps = shape_after_all(trunk, maps)
    params, macs, group_params, group_macs = (shared.params, shared.macs) * 2
    for level in layout.levels:
        parts = [layout.part(level, group) for group in range(level.groups)]
        reads = layout.sets[level.reads].sizes(level.groups)
        shapes = [MapShape(size, maps.height, maps.width) for size in reads]
        costs = [ops_cost(ops, shape) for ops, shape in zip(parts, shapes, strict=True)]
        params += sum(cost.params for cost in costs)
        macs += sum(cost.macs for cost in costs)
        # Of groups that differ, the first ones hold one channel more.
        group_params += costs[0].params
        group_macs += costs[0].macs
        maps = shape_after_all(parts[0], shapes[0])
    features = layout.sets[layout.features].sizes(layout.groups)
    classes = layout.sets[layout.classes].sizes(layout.groups)
    weights = [inputs * outputs for inputs, outputs in zip(features, classes, strict=True)]
    # The pool counts one for each element, the FC layer one for each weight.
    return SplitCost(
        params=params + sum(weights) + sum(classes),
        macs=macs + sum(weights) + sum(features) * maps.height * maps.width,
        group_params=group_params + weights[0] + classes[0],
        group_macs=group_macs + weights[0] + features[0] * maps.height * maps.width,
    )
