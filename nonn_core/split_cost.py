"""Exact cost of a network that has fallen into groups, in closed form.  Torch-free."""

from dataclasses import dataclass

from nonn_core.blueprint import Maps, Ops, after_all
from nonn_core.costs import ops_cost
from nonn_core.image import Image
from nonn_core.split_layout import Layout


@dataclass(frozen=True, slots=True)
class SplitCost:
    """What a SplitNet needs: as a whole, and of that what its largest group alone does.

    A group alone has its own copy of whatever it shares with others.
    """

    params: int
    macs: int
    group_params: int
    group_macs: int


def split_cost(layout: Layout, image: Image) -> SplitCost:
    """Cost of a SplitNet; parameters and MACs count as in `nonn_core.costs`."""
    maps = Maps(image.channels, image.height, image.width)
    trunk: Ops = (*layout.group0, *(op for stage in layout.whole for op in stage))
    shared = ops_cost(trunk, maps)
    maps = after_all(trunk, maps)
    params, macs, group_params, group_macs = (shared.params, shared.macs) * 2
    for level in layout.levels:
        parts = [layout.part(level, group) for group in range(level.groups)]
        reads = layout.sets[level.reads].sizes(level.groups)
        shapes = [Maps(size, maps.height, maps.width) for size in reads]
        costs = [ops_cost(ops, shape) for ops, shape in zip(parts, shapes, strict=True)]
        params += sum(cost.params for cost in costs)
        macs += sum(cost.macs for cost in costs)
        # Of groups that differ, the first ones hold one channel more.
        group_params += costs[0].params
        group_macs += costs[0].macs
        maps = after_all(parts[0], shapes[0])
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
