"""The most that a board's students are worth where each may have several communities.

First the modes of the students are chosen, with their costs at no filters; then communities are
taken one by one, each by the students of one slope.  Costs are affine in filters, so that it does
not matter which of them takes a community, as long as none is left without; of a peak of
activations only what no filter needs is counted, in the students' favour: no set that fits is lost.
Where no communities could make some modes worth more than the best set, none are tried.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from planner.certificates.figures import Company
from planner.certificates.pricing import (
    SEVERAL,
    PricedItem,
    PricedPart,
    Trace,
    Window,
    WorkLimit,
    pareto,
)

Missing = tuple[int, ...]
"""How many students of each slope still have no community."""
Row = tuple[int, tuple[int, ...], Trace]
"""Worth, needs, and how a set was built."""
Rows = dict[tuple[int, Missing], list[Row]]
"""Rows by filters, where these are counted, and by what is missing."""


@dataclass(frozen=True, slots=True)
class MergedSearch:
    """Search for the set of most worth; `limits` are of the needs that count.

    Where students share G0, one of the `starts` is among them, and the others are of `modes`.
    `required` are bits of modes that the set must have; `window` bounds each student's filters;
    `last` is what a set's needs take off in the end.
    """

    starts: Sequence[tuple[PricedPart, ...]]
    modes: Sequence[PricedPart]
    items: Sequence[PricedItem]
    limits: Sequence[int]
    company: Company
    required: int
    window: Window | None
    last: Callable[[tuple[int, ...]], int]
    work: WorkLimit

    def best(self, most_students: int, best: tuple[int, Trace] | None) -> tuple[int, Trace] | None:
        """Most worth, and the set, or `best`, where none is worth more.

        Raises WorkExceededError.
        """
        rests: dict[int, list[int]] = {}
        found = []
        for students in self._students(most_students):
            bits = self._bits(students)
            if bits not in rests:
                rests[bits] = self._rest(bits)
            bound = sum(one.worth for one in students) + rests[bits][0]
            found.append((bound, students, rests[bits]))
        for bound, students, rest in sorted(found, key=lambda row: -row[0]):
            if best is not None and bound <= best[0]:
                break
            best = self._taken(students, rest, best)
        return best

    def _students(self, most: int) -> list[tuple[PricedPart, ...]]:
        """Students that fit without filters, by their modes; as many as may be."""
        most = 1 if self.company == "alone" else min(most, len(self.items))
        found: list[tuple[PricedPart, ...]] = []
        rows = [
            (0, start)
            for start in self.starts
            if len(start) <= most and self._fits(self._needs(start))
        ]
        while rows:
            begin, chosen = rows.pop()
            self.work.spend(1)
            lone = len(chosen) == 1 and self.company == "several"
            if chosen and not lone and not self.required & ~self._bits(chosen):
                found.append(chosen)
            if len(chosen) == most:
                continue
            needs = self._needs(chosen)
            for n in range(begin, len(self.modes)):
                self.work.spend(1)
                one = self.modes[n]
                if self._fits(tuple(map(int.__add__, needs, one.needs))):
                    rows.append((n, (*chosen, one)))
        return found

    def _needs(self, students: Sequence[PricedPart]) -> tuple[int, ...]:
        needs = (0,) * len(self.limits)
        for one in students:
            needs = tuple(map(int.__add__, needs, one.needs))
        return needs

    def _fits(self, needs: tuple[int, ...]) -> bool:
        return all(map(int.__le__, needs, self.limits))

    @staticmethod
    def _bits(students: Sequence[PricedPart]) -> int:
        bits = SEVERAL if len(students) > 1 else 0
        for one in students:
            bits |= one.bits
        return bits

    def _rest(self, bits: int) -> list[int]:
        """Most that the communities from each place on add, taken by these slopes."""
        self.work.spend(len(self.items))
        rest = [0]
        for item in reversed(self.items):
            worths = [one.worth for one in item.parts if one.bits & bits]
            rest.append(rest[-1] + max(worths if item.forced else [0, *worths], default=0))
        return rest[::-1]

    def _taken(
        self,
        students: Sequence[PricedPart],
        rest: Sequence[int],
        best: tuple[int, Trace] | None,
    ) -> tuple[int, Trace] | None:
        """The best set, where these students may take all communities."""
        slopes = sorted({one.part.slope for one in students})
        trace: Trace = None
        for one in students:
            trace = (trace, None, one.part)
        missing = tuple(sum(one.part.slope == slope for one in students) for slope in slopes)
        needs = self._needs(students)
        rows: Rows = {(0, missing): [(sum(one.worth for one in students), needs, trace)]}
        for place, item in enumerate(self.items):
            left = len(self.items) - place - 1
            grown = self._grown(rows, item, slopes, left)
            if not any(later.forced for later in self.items[place + 1 :]):
                best = self._better(grown, len(students), best)
            floor = None if best is None else best[0] - rest[place + 1]
            rows = {}
            for key, found in grown.items():
                kept = found if floor is None else [one for one in found if one[0] > floor]
                rows[key] = pareto(kept, len(self.limits))
                self.work.spend(len(rows[key]))
        return best

    def _grown(self, rows: Rows, item: PricedItem, slopes: Sequence[int], left: int) -> Rows:
        """Rows with this community left out, or taken by each slope."""
        grown: Rows = defaultdict(list)
        for (filters, missing), found in rows.items():
            if not item.forced and sum(missing) <= left:
                grown[filters, missing] += found
            for one in item.parts:
                if one.part.slope not in slopes:
                    continue
                place = slopes.index(one.part.slope)
                fewer = (*missing[:place], max(0, missing[place] - 1), *missing[place + 1 :])
                if sum(fewer) > left:
                    continue
                self.work.spend(len(found))
                more = filters if self.window is None else filters + item.filters
                for worth, needs, trace in found:
                    total = tuple(map(int.__add__, needs, one.needs))
                    if all(map(int.__le__, total, self.limits)):
                        longer = (trace, item.community, one.part)
                        grown[more, fewer].append((worth + one.worth, total, longer))
        return grown

    def _better(
        self, rows: Rows, students: int, best: tuple[int, Trace] | None
    ) -> tuple[int, Trace] | None:
        """The best of the sets that are whole, and of the best one so far."""
        for (filters, missing), found in rows.items():
            least, most = self.window or (0, filters)
            if any(missing) or not least * students <= filters <= most * students:
                continue
            for worth, needs, trace in found:
                value = worth - self.last(needs)
                if best is None or value > best[0]:
                    best = value, trace
        return best
