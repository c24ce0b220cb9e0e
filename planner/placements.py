"""Where G0 is: a copy of it on each board with a student, or one board of its own for it.

Each placement leaves an instance with fewer choices; all of them together are the question's.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace

from nonn_core.costs import BYTES_PER_VALUE
from planner.group0 import Group0, OwnGroup0
from planner.instance import Instance
from planner.objective import Want
from planner.site import Site


def placements(instance: Instance, wants: Collection[Want]) -> Iterator[Instance]:
    """Yield the instance for each placement of G0, one for boards that are alike.

    On a board of its own, G0 is stored as widely as fits or, where memory counts, as narrowly as
    may be; nothing else depends on it.
    """
    if instance.replicates:
        yield replace(instance, group0s=())
    kinds = {instance.kind_of(place): place for place in reversed(range(len(instance.sites)))}
    for group0 in instance.group0s if len(instance.sites) > 1 else ():
        for place in sorted(kinds.values()):
            own = _stored(instance, group0, place, narrow="memory" in wants)
            if own is not None:
                yield instance.placed(own)


def _stored(instance: Instance, group0: Group0, place: int, *, narrow: bool) -> OwnGroup0 | None:
    """Put G0 on a board; None where it does not fit at any precision."""
    site = instance.sites[place]
    precisions = {option.precision for option in instance.options}
    every = (
        group0.on(place, site.board, precision, instance.image_bytes)
        for precision in sorted(precisions, key=BYTES_PER_VALUE.__getitem__, reverse=not narrow)
    )
    return next((own for own in every if _fits(own, site)), None)


def _fits(own: OwnGroup0, site: Site) -> bool:
    """Say whether G0 keeps the budgets of its board."""
    needs = (
        (own.memory_bytes, site.memory_bytes),
        (own.macs, site.macs),
        (own.busy, site.busy),
        (own.energy, site.energy),
    )
    return all(limit is None or need <= limit for need, limit in needs)
