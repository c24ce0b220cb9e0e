"""Network options that no optimal plan needs, removed before a model is built."""

from collections.abc import Iterator
from dataclasses import replace

from planner.instance import Instance, Option


def without_dominated(instance: Instance, *, more_params: bool, fewer_elements: bool) -> Instance:
    """Remove each option that another one with the same G0 replaces without a loss.

    The other must be no worse in everything that counts, from the fewest to the most filters: in
    MACs always, in parameters where a stage asks for more of them, in elements where a stage asks
    for fewer or where a memory budget can bind.
    """
    fewer = fewer_elements or _memory_can_bind(instance)
    worth = {o: tuple(_costs(o, instance, more_params, fewer)) for o in instance.options}
    kept: list[Option] = []
    for option in sorted(instance.options, key=lambda one: worth[one]):
        if not any(_replaces(worth, other, option) for other in kept):
            kept.append(option)
    return replace(instance, options=tuple(option for option in instance.options if option in kept))


def _replaces(worth: dict[Option, tuple[int, ...]], other: Option, option: Option) -> bool:
    return other.group0 == option.group0 and all(
        a <= b for a, b in zip(worth[other], worth[option], strict=True)
    )


def _costs(
    option: Option, instance: Instance, more_params: bool, fewer_elements: bool
) -> Iterator[int]:
    """Yield what counts, less being better, at both ends of the range of filters.

    Everything is linear in the filters (a peak line by line), so that the ends decide.
    """
    for filters in (min(instance.sizes), instance.filters):
        cost = option.line.at(filters)
        yield cost.macs
        if more_params:
            yield -cost.params
        if fewer_elements:
            for fixed, slope in option.line.peaks:
                yield cost.params + fixed + slope * filters


def _memory_can_bind(instance: Instance) -> bool:
    """Say whether as many students as there may be, of the largest kind, overfill some board."""
    most = instance.slots * max(o.elements(instance.filters) for o in instance.options)
    return any(site.elements is not None and most > site.elements for site in instance.sites)
