"""Balance of a small instance by all ways to divide its communities, without the planner."""

from functools import cache
from itertools import product


def set_partitions(things):
    """All ways to divide things into groups."""
    if not things:
        yield []
        return
    first, *rest = things
    for groups in set_partitions(rest):
        yield [[first], *groups]
        for i in range(len(groups)):
            yield [*groups[:i], [first, *groups[i]], *groups[i + 1 :]]


@cache
def least_spreads(sizes):
    """The least of largest minus smallest, of all ways to divide whole communities, by students."""
    spreads = {}
    for groups in set_partitions(list(sizes)):
        sums = [sum(group) for group in groups]
        best = spreads.get(len(sums), max(sums))
        spreads[len(sums)] = min(best, max(sums) - min(sums))
    return spreads


def unevenness_pct(instance, drop, filters):
    """How far beyond the least possible, in percent of the mean, a division's spread is."""
    kept = tuple(n for c, n in enumerate(instance.sizes) if c not in drop.communities)
    if len(filters) > len(kept):
        return 0.0
    over = max(filters) - min(filters) - least_spreads(tuple(sorted(kept)))[len(filters)]
    return 100 * over * len(filters) / sum(kept)


def widest_filters_missing(widths, filters):
    """Most filters that a wider student has fewer than a narrower one, over all pairs."""
    pairs = product(zip(widths, filters, strict=True), repeat=2)
    return max(
        m - n for (wide, n), (narrow, m) in pairs if wide > narrow or (wide, n) == (narrow, m)
    )
