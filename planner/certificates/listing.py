"""All plans of a small case, one after the other, in plain integers.

Where there are few plans, to look at each is quicker than any prices, and proves all that is true.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from planner.certificates import NOTHING, PRODUCT, SUMS
from planner.certificates.board_pricing import BoardPricing
from planner.certificates.figures import LATE, Company, Parts, signed_measure
from planner.certificates.pricing import WorkExceededError

MOST_BOARDS = 100
"""Of more boards no plans are listed."""


@dataclass(frozen=True, slots=True)
class ListedSet:
    """A set of students of one board: communities as bits, sizes, measures, and times.

    More of each measure is better; those that are minimised have the sign turned.
    """

    communities: int
    students: int
    least: int
    most: int
    measures: tuple[int, ...]
    late: int

    def replaces(self, other: "ListedSet") -> bool:
        """Whether it is as good as another of the same communities and sizes."""
        return self.late <= other.late and all(map(int.__ge__, self.measures, other.measures))


class ListedStudent(NamedTuple):
    """A student of one board: communities as bits, filters, needs that count, and measures."""

    communities: int
    filters: int
    needs: tuple[int, ...]
    measures: tuple[int, ...]

    def replaces(self, other: "ListedStudent") -> bool:
        """Whether it needs no more than another, and is worth as much."""
        return all(map(int.__le__, self.needs, other.needs)) and all(
            map(int.__ge__, self.measures, other.measures)
        )


Row = tuple[ListedStudent, ...]


class PlanListing:
    """All plans of a small case, each student with its exact figures."""

    def __init__(self, pricing: BoardPricing, goal: str | None) -> None:
        if len(pricing.tables.boards) > MOST_BOARDS:
            raise WorkExceededError
        self._pricing, self._goal = pricing, goal
        sums = dict.fromkeys((*pricing.demands.sums, *([goal] if goal in SUMS else ())))
        accuracy = goal == "accuracy" or pricing.demands.product is not None
        self._names = (*sums, *(PRODUCT if accuracy else ()))
        self._boards = [pricing.tables.alike(b) for b in range(len(pricing.tables.boards))]
        sets: dict[object, list[ListedSet]] = {}
        for place, key in enumerate(self._boards):
            if key not in sets:
                sets[key] = self._sets(place)
        self._of_board = [sets[key] for key in self._boards]
        self._best = NOTHING

    def bound(self) -> int:
        """Most of the goal, or 0 without one; NOTHING without any plan.

        Raises WorkExceededError.
        """
        self._place(0, 0, [])
        return self._best

    def _sets(self, place: int) -> list[ListedSet]:
        """Sets that a board can run, less those that others replace."""
        pricing = self._pricing
        found = pricing.limits(place)
        counted = [need for need, limit in enumerate(found) if limit is not None]
        limits = [found[need] or 0 for need in counted]
        alike: dict[tuple[int, ...], list[ListedSet]] = defaultdict(list)
        for company, starts, students in self._companies(place, [*counted, LATE], limits):
            rows = [(0, sum(one.communities for one in start), start) for start in starts]
            while rows:
                begin, taken, parts = rows.pop()
                used = sum(one.needs[0] for one in parts)
                for n in range(begin, len(students)):
                    student = students[n]
                    pricing.work.spend(1)
                    if used + student.needs[0] > limits[0]:
                        break
                    if student.communities & taken:
                        continue
                    longer = (*parts, student)
                    needs = [sum(needs) for needs in zip(*(o.needs for o in longer), strict=True)]
                    if any(map(int.__gt__, needs, limits)):
                        continue
                    if company != "alone" and len(longer) < pricing.case.most:
                        rows.append((n + 1, taken | student.communities, longer))
                    if company != "several" or parts:
                        one = self._joined(longer, needs[-1])
                        others = alike[one.communities, one.students, one.least, one.most]
                        if not any(other.replaces(one) for other in others):
                            others[:] = [two for two in others if not one.replaces(two)] + [one]
        return [one for others in alike.values() for one in others]

    def _companies(
        self, place: int, counted: Sequence[int], limits: Sequence[int]
    ) -> Iterator[tuple[Company, list[Row], list[ListedStudent]]]:
        """Yield each company with what its sets begin with, and the students that follow.

        That is nothing, or the one that pays for the G0 which they share.
        """
        pricing, tables = self._pricing, self._pricing.tables
        key = pricing.case.group0, pricing.timed
        for company in pricing.companies(place):

            def first(filters: int, company: Company = company) -> Parts:
                return tables.first(place, filters, key[0], company, key[1])

            def following(filters: int) -> Parts:
                return tables.following(place, filters, *key)

            for peak in pricing.peaks if company == "several" else [None]:
                if peak is None:
                    yield company, [()], self._students(first, counted, limits)
                    continue
                modes = [mode for mode, own in enumerate(tables.peak_bytes) if own <= peak]
                paying = [mode for mode in modes if tables.peak_bytes[mode] == peak]
                starts: list[Row] = [
                    (one,) for one in self._students(first, counted, limits, paying)
                ]
                yield company, starts, self._students(following, counted, limits, modes)

    def _joined(self, students: Sequence[ListedStudent], late: int) -> ListedSet:
        """Set of students; its board counts once."""
        sizes = [one.filters for one in students]
        sums = map(sum, zip(*(one.measures for one in students), strict=True))
        measures = tuple(
            -1 if name == "boards" else amount
            for name, amount in zip(self._names, sums, strict=True)
        )
        communities = sum(one.communities for one in students)
        return ListedSet(communities, len(students), min(sizes), max(sizes), measures, late)

    def _students(
        self,
        parts: Callable[[int], Parts],
        counted: Sequence[int],
        limits: Sequence[int],
        modes: Collection[int] | None = None,
    ) -> list[ListedStudent]:
        """Students that fit alone, less those that others replace; the least memory first."""
        pricing, case = self._pricing, self._pricing.case
        sizes = [pricing.tables.sizes[c] for c in case.kept]
        kept: list[ListedStudent] = []
        for group in range(1, 1 << len(sizes)):
            pricing.work.spend(1)
            if group & (group - 1) and not case.merges:
                continue
            filters = sum(size for n, size in enumerate(sizes) if group >> n & 1)
            own: list[ListedStudent] = []
            for part in parts(filters):
                if modes is not None and part.mode not in modes:
                    continue
                needs = tuple(part.needs[need] for need in counted)
                measures = tuple(
                    0 if name == "boards" else signed_measure(name, part.gains)
                    for name in self._names
                )
                one = ListedStudent(group, filters, needs, measures)
                if not any(map(int.__gt__, needs, limits)) and not any(
                    other.replaces(one) for other in own
                ):
                    own = [two for two in own if not one.replaces(two)] + [one]
            kept += own
        return sorted(kept, key=lambda one: one.needs)

    def _place(self, place: int, taken: int, chosen: list[tuple[int, ListedSet]]) -> None:
        """Give the boards from `place` on a set, or none, alike ones in order."""
        self._pricing.work.spend(1)
        if taken == (1 << len(self._pricing.case.kept)) - 1:
            self._count(chosen)
        elif place < len(self._boards):
            sets = self._of_board[place]
            before = [one for b, one in chosen if self._boards[b] == self._boards[place]]
            lowest = before[-1].communities if before else 0
            self._place(place + 1, taken, chosen)
            for one in sets:
                if not one.communities & taken and one.communities > lowest:
                    self._place(place + 1, taken | one.communities, [*chosen, (place, one)])

    def _count(self, chosen: Sequence[tuple[int, ListedSet]]) -> None:
        """Keep what a plan has of the goal, where it keeps all demands."""
        case, demands = self._pricing.case, self._pricing.demands
        sets = [one for _, one in chosen]
        totals = [sum(row) for row in zip(*(one.measures for one in sets), strict=True)]
        values = dict(zip(self._names, totals, strict=True))
        product = values.get("params", 0) * values.get("macs", 0)
        spread = max(one.most for one in sets) - min(one.least for one in sets)
        if (
            case.fewest <= sum(one.students for one in sets) <= case.most
            and all(values[n] >= least for n, least in demands.sums.items() if n != self._goal)
            and product >= (demands.product or 0)
            and (demands.spread is None or spread <= demands.spread)
            and self._in_time(chosen)
        ):
            goal = product if self._goal == "accuracy" else values.get(self._goal or "", 0)
            self._best = max(self._best, goal)

    def _in_time(self, chosen: Sequence[tuple[int, ListedSet]]) -> bool:
        """Whether sends fit, those with the longest late part first (Jackson 1955)."""
        tables, demands = self._pricing.tables, self._pricing.demands
        sends = sum(tables.sends[place] for place, _ in chosen)
        if demands.period is not None and max(sends, tables.join) > demands.period:
            return False
        if demands.latest is None:
            return True
        tails = sorted(
            ((one.late + tables.around(place), tables.sends[place]) for place, one in chosen),
            reverse=True,
        )
        sent = 0
        for tail, send in tails:
            sent += send
            if sent + tail > demands.latest:
                return False
        return True
