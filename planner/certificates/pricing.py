"""The most that a set of students of one board is worth above its prices.

A set of students is built community by community: one is left out, or is a student in some mode.
Of two sets, one that needs no more and is worth no less makes the other superfluous (labels of a
resource-constrained shortest path).  Where students have several communities,
`planner.certificates.merging` builds them.
"""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from planner.certificates.figures import BoardModels, StudentPart


class WorkExceededError(Exception):
    """A certificate that takes more work than is allowed."""


@dataclass(slots=True)
class WorkLimit:
    """Work that is left, in labels looked at."""

    left: int

    def spend(self, labels: int) -> None:
        """Take work off; raises WorkExceededError where none is left."""
        self.left -= labels
        if self.left < 0:
            raise WorkExceededError


REQUIRED = 1 << 500
"""Bit of the first mode that a set has to have."""

Window = tuple[int, int]
"""Least and most filters of a student."""

Trace = tuple["Trace", int | None, StudentPart] | None
"""The set before, a community, if the part has one, and the part."""

SEVERAL = 1
"""Bit of sets of several students; those behind it are of slopes."""

Label = tuple[int, tuple[int, ...], int, Trace]
"""Worth, needs, bits of the students that have begun, and how the set was built."""


class PricedPart(NamedTuple):
    """A part with what it is worth above its prices, and the needs that count."""

    worth: int
    needs: tuple[int, ...]
    bits: int
    part: StudentPart


class PricedItem(NamedTuple):
    """A community as one board may take it, or, where `forced`, must."""

    community: int
    filters: int
    parts: tuple[PricedPart, ...]
    forced: bool


def undominated(parts: Iterable[PricedPart]) -> tuple[PricedPart, ...]:
    """Parts of which none needs as little and is worth as much, slope by slope."""
    kept: list[PricedPart] = []
    least: dict[int, list[tuple[int, ...]]] = defaultdict(list)
    for one in sorted(parts, key=lambda each: (-each.worth, each.needs)):
        before = least[one.bits]
        if not any(all(map(int.__le__, other, one.needs)) for other in before):
            before.append(one.needs)
            kept.append(one)
    return tuple(kept)


def best_set(
    items: Sequence[PricedItem],
    limits: Sequence[int],
    models: BoardModels,
    required: int,
    last: Callable[[tuple[int, ...]], int],
    work: WorkLimit,
    best: tuple[int, Trace] | None,
) -> tuple[int, Trace] | None:
    """Most worth of any set, and the set, or `best`, where none is worth more.

    Each student has one community.  `limits` are of the needs that count; `last` is what a set's
    needs take off in the end.
    """
    rest = [0]
    for item in reversed(items):
        worths = [part.worth for part in item.parts]
        rest.append(rest[-1] + max(worths if item.forced else [0, *worths], default=-(10**30)))
    rest.reverse()
    forced_left = sum(item.forced for item in items)
    labels: list[Label] = [(0, (0,) * len(limits), 0, None)]
    for place, item in enumerate(items):
        forced_left -= item.forced
        grown: list[Label] = []
        work.spend(len(labels) * len(item.parts))
        for worth, needs, bits, trace in labels:
            for one in item.parts if not (bits and models.company == "alone") else ():
                if bits & one.bits & models.once:
                    continue
                total = tuple(map(int.__add__, needs, one.needs))
                if all(map(int.__le__, total, limits)):
                    more = bits | one.bits | (SEVERAL if bits else 0)
                    longer = (trace, item.community, one.part)
                    grown.append((worth + one.worth, total, more, longer))
        if not forced_left:
            for worth, needs, bits, trace in grown:
                value = worth - last(needs)
                if _accepted(bits, models, required) and (best is None or value > best[0]):
                    best = value, trace
        every = grown if item.forced else [*labels, *grown]
        labels = _thinned(every, rest[place + 1], best and best[0], len(limits))
    return best


def _accepted(bits: int, models: BoardModels, required: int) -> bool:
    """Whether a set has the company and the modes that it must have."""
    return not required & ~bits and (models.company != "several" or bool(bits & SEVERAL))


def _thinned(labels: list[Label], rest: int, floor: int | None, needs: int) -> list[Label]:
    """Labels that may still lead to more than `floor`, less those that others replace."""
    alike: dict[int, list[Label]] = defaultdict(list)
    for one in labels:
        if floor is None or one[0] + rest > floor:
            alike[one[2]].append(one)
    return [one for rows in alike.values() for one in pareto(rows, needs)]


Worthy = TypeVar("Worthy", bound=tuple[Any, ...])


def pareto(rows: list[Worthy], needs: int) -> list[Worthy]:
    """Rows (worth, needs, ...), less those that others replace."""
    rows = sorted(rows, key=lambda one: (-one[0], one[1]))
    kept: list[Worthy] = []
    front: list[tuple[int, int]] = []
    for row in rows if needs else rows[:1]:
        need = row[1]
        if needs <= 2 and needs:
            enters = _enters(front, need[0], need[-1])
        else:
            before = (one[1] for one in kept[-_COMPARED:])
            enters = not any(all(map(int.__le__, other, need)) for other in before)
        if enters:
            kept.append(row)
    return kept


_COMPARED = 100
"""Labels that one with many needs is compared with; more would only save work."""


def _enters(front: list[tuple[int, int]], first: int, second: int) -> bool:
    """Add a pair of needs to those that none replaces; say whether none replaces it."""
    place = bisect_left(front, (first, second))
    if place < len(front) and front[place] == (first, second):
        return False
    if place and front[place - 1][1] <= second:
        return False
    end = place
    while end < len(front) and front[end][1] >= second:
        end += 1
    del front[place:end]
    insort(front, (first, second))
    return True
