"""Network options that no optimal plan needs, removed before a model is built."""

from collections.abc import Collection, Iterator
from dataclasses import replace

from planner.assignment import Assignment
from planner.instance import Instance
from planner.objective import Want
from planner.option import Option


def without_dominated(
    instance: Instance, wants: Collection[Want], known: Assignment | None = None
) -> Instance:
    """Remove each option that another one with the same G0 replaces without a loss.

    Those that a `known` assignment has stay.

    The other must be no worse in everything that counts, from the fewest to the most filters: in
    no more MACs always; in parameters, MACs or bytes per value where a stage asks for more of them;
    in memory where a stage asks for less or where a budget can bind.
    """
    counts = {*wants, *(("memory",) if _memory_can_bind(instance) else ())}
    worth = {o: tuple(_costs(o, instance, counts)) for o in instance.options}
    used = {(one.network, one.precision) for one in (known.students if known else ())}
    kept: list[Option] = []
    for option in sorted(instance.options, key=lambda one: worth[one]):
        chosen = (option.name, option.precision) in used
        if chosen or not any(_replaces(worth, other, option) for other in kept):
            kept.append(option)
    return replace(instance, options=tuple(option for option in instance.options if option in kept))


def _replaces(worth: dict[Option, tuple[int, ...]], other: Option, option: Option) -> bool:
    return other.group0 == option.group0 and all(
        a <= b for a, b in zip(worth[other], worth[option], strict=True)
    )


def _costs(option: Option, instance: Instance, counts: Collection[str]) -> Iterator[int]:
    """Yield what counts, less being better, at both ends of the range of filters.

    Everything is linear in the filters (a peak line by line), so that the ends decide.
    """
    for filters in (min(instance.sizes), instance.filters):
        cost = option.line.at(filters)
        yield cost.macs
        if "macs" in counts:
            yield -cost.macs
        if "params" in counts:
            yield -cost.params
        if "precision" in counts:
            yield -option.value_bytes
        if "memory" in counts:
            for fixed, slope in option.line.peaks:
                yield option.value_bytes * (cost.params + fixed + slope * filters)


def _memory_can_bind(instance: Instance) -> bool:
    """Say whether as many students as there may be, of the largest kind, overfill some board."""
    most = instance.most * max(o.memory_bytes(instance.filters) for o in instance.options)
    limits = (site.memory_bytes for site in instance.sites)
    return any(limit is not None and most > limit for limit in limits)
