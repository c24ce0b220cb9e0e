"""All plans of a small case, or all divisions of one, in plain integers.

Where there are few plans, to look at each is quicker than any prices, and proves all that is true.
Where partitions have to be alike, whole communities allow few divisions: filters of each student.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from planner.certificates import NOTHING, PRODUCT, SUMS, Case, balance_spread
from planner.certificates.board_pricing import BoardPricing, single_bits
from planner.certificates.figures import LATE, BoardModels, signed_measure
from planner.certificates.pricing import WorkExceededError, WorkLimit
from planner.problem.problem import Problem

MOST_BOARDS = 100
"""Of more boards no plans are listed."""
MOST_DIVISIONS = 200
"""Of more divisions of a case none is looked at alone."""
MOST_STATES = 20_000
"""Beginnings of divisions that are looked at."""


WidthSizes = tuple[int, int, int]
"""Width of students, as parameters without a head, and the filters of the smallest and largest."""


@dataclass(frozen=True, slots=True)
class ListedSet:
    """Set of students of one board: communities as bits, sizes, measures, times.

    More of each measure is better; those that are minimised have the sign turned.
    """

    communities: int
    students: int
    sizes: tuple[WidthSizes, ...]
    measures: tuple[int, ...]
    late: int

    def replaces(self, other: "ListedSet") -> bool:
        """Whether it is as good as another of the same communities and sizes."""
        return self.late <= other.late and all(map(int.__ge__, self.measures, other.measures))


class ListedStudent(NamedTuple):
    """A student of one board: communities as bits, width, filters, needs that count, measures.

    The width is 0 where it does not matter.
    """

    communities: int
    width: int
    filters: int
    needs: tuple[int, ...]
    measures: tuple[int, ...]

    @property
    def sizes(self) -> WidthSizes:
        """Its filters, as sizes of its width."""
        return self.width, self.filters, self.filters

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
        self._told_apart = pricing.tables.problem.inversion is not None
        keys = [pricing.tables.alike(b) for b in range(len(pricing.tables.boards))]
        self._boards = [keys.index(key) for key in keys]
        sets = {place: self._sets(place) for place in sorted(set(self._boards))}
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
        alike: dict[object, list[ListedSet]] = defaultdict(list)
        for models in pricing.models(place):
            several = models.company == "several"
            starts, students = self._starts(place, models, [*counted, LATE], limits)
            rows = [(0, start) for start in starts]
            while rows:
                begin, parts = rows.pop()
                needs = [sum(own) for own in zip(*(one.needs for one in parts), strict=True)]
                if parts and (len(parts) > 1 or not several):
                    one = self._joined(parts, needs[-1])
                    others = alike[one.communities, one.students, one.sizes]
                    if not any(other.replaces(one) for other in others):
                        others[:] = [two for two in others if not one.replaces(two)] + [one]
                if (parts and models.company == "alone") or len(parts) == pricing.case.most:
                    continue
                taken, used = sum(one.communities for one in parts), needs[0] if parts else 0
                for n in range(begin, len(students)):
                    student = students[n]
                    pricing.work.spend(1)
                    if used + student.needs[0] > limits[0]:
                        break
                    longer = (*parts, student)
                    if student.communities & taken or not self._fits(longer, limits):
                        continue
                    if self._allows(width_sizes(one.sizes for one in longer)):
                        rows.append((n + 1, longer))
        return [one for others in alike.values() for one in others]

    @staticmethod
    def _fits(students: Row, limits: Sequence[int]) -> bool:
        needs = zip(*(one.needs for one in students), strict=True)
        return not any(sum(own) > limit for own, limit in zip(needs, limits, strict=False))

    def _starts(
        self, place: int, models: BoardModels, counted: Sequence[int], limits: Sequence[int]
    ) -> tuple[list[Row], list[ListedStudent]]:
        """Beginnings of sets of these models, and the students that follow.

        That is nothing, or who pays for the G0 of each model.
        """
        starts: list[Row] = [()]
        for bit in single_bits(models.once):
            payers = self._students(place, models, bit, counted, limits)
            longer = (
                (*start, one)
                for start in starts
                for one in payers
                if not any(one.communities & other.communities for other in start)
            )
            starts = [start for start in longer if self._fits(start, limits)]
            self._pricing.work.spend(len(starts))
        return starts, self._students(place, models, 0, counted, limits)

    def _joined(self, students: Sequence[ListedStudent], late: int) -> ListedSet:
        """Set of students; its board counts once."""
        sizes = width_sizes(one.sizes for one in students)
        sums = map(sum, zip(*(one.measures for one in students), strict=True))
        measures = tuple(
            -1 if name == "boards" else amount
            for name, amount in zip(self._names, sums, strict=True)
        )
        communities = sum(one.communities for one in students)
        return ListedSet(communities, len(students), sizes, measures, late)

    def _students(
        self,
        place: int,
        models: BoardModels,
        role: int,
        counted: Sequence[int],
        limits: Sequence[int],
    ) -> list[ListedStudent]:
        """Students of a role that fit alone, less those that others replace; least memory first."""
        pricing, case = self._pricing, self._pricing.case
        sizes = case.kept_sizes
        least, most = pricing.window or (0, sum(sizes))
        kept: list[ListedStudent] = []
        for group in range(1, 1 << len(sizes)):
            pricing.work.spend(1)
            if group & (group - 1) and not case.merges:
                continue
            filters = sum(size for n, size in enumerate(sizes) if group >> n & 1)
            if not least <= filters <= most:
                continue
            alike: dict[int, list[ListedStudent]] = defaultdict(list)
            for part, once in pricing.parts(place, filters, models):
                alone = case.kept[group.bit_length() - 1]
                if once != role or not (case.merges or pricing.may_have(alone, part.mode)):
                    continue
                needs = tuple(part.needs[need] for need in counted)
                measures = tuple(
                    0 if name == "boards" else signed_measure(name, part.gains)
                    for name in self._names
                )
                width = pricing.tables.modes[part.mode].line.params if self._told_apart else 0
                one, own = ListedStudent(group, width, filters, needs, measures), alike[width]
                if self._fits((one,), limits) and not any(other.replaces(one) for other in own):
                    own[:] = [two for two in own if not one.replaces(two)] + [one]
            kept += chain.from_iterable(alike.values())
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
                if one.communities & taken or one.communities <= lowest:
                    continue
                longer = [*chosen, (place, one)]
                if self._allows(width_sizes(own for _, each in longer for own in each.sizes)):
                    self._place(place + 1, taken | one.communities, longer)

    def _count(self, chosen: Sequence[tuple[int, ListedSet]]) -> None:
        """Keep what a plan has of the goal, where it keeps all demands."""
        case, demands = self._pricing.case, self._pricing.demands
        sets = [one for _, one in chosen]
        totals = [sum(row) for row in zip(*(one.measures for one in sets), strict=True)]
        values = dict(zip(self._names, totals, strict=True))
        product = values.get("params", 0) * values.get("macs", 0)
        if (
            case.fewest <= sum(one.students for one in sets) <= case.most
            and all(values[n] >= least for n, least in demands.sums.items() if n != self._goal)
            and product >= (demands.product or 0)
            and self._in_time(chosen)
        ):
            goal = product if self._goal == "accuracy" else values.get(self._goal or "", 0)
            self._best = max(self._best, goal)

    def _allows(self, sizes: Sequence[WidthSizes]) -> bool:
        """Whether balance, and the order of widths and filters, allow such students together."""
        most = self._pricing.case.spread
        if most is not None and max(n for _, _, n in sizes) - min(n for _, n, _ in sizes) > most:
            return False
        asked = self._pricing.tables.problem.inversion
        return asked is None or not any(
            high - low > asked
            for wide, low, _ in sizes
            for narrow, _, high in sizes
            if narrow < wide
        )

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


def width_sizes(rows: Iterable[WidthSizes]) -> tuple[WidthSizes, ...]:
    """Rows joined by width, the narrowest first."""
    found: dict[int, tuple[int, int]] = {}
    for width, least, most in rows:
        low, high = found.get(width, (least, most))
        found[width] = min(low, least), max(high, most)
    return tuple((width, *found[width]) for width in sorted(found))


def case_divisions(problem: Problem, case: Case, work: WorkLimit) -> tuple[Case, ...] | None:
    """Parts of a case, one for each division, that together hold all its plans.

    None for many, and where nothing merges or need be alike.  Raises WorkExceededError.
    """
    if case.spread is None or not case.merges:
        return None
    found: list[Case] = []
    for students in range(case.fewest, case.most + 1):
        spread = min(case.spread, balance_spread(problem, case.kept_sizes, students))
        divisions = _divisions(case.kept_sizes, students, spread, work)
        if divisions is None or len(found) + len(divisions) > MOST_DIVISIONS:
            return None
        found += map(case.divided, divisions)
    return tuple(found)


def _divisions(
    sizes: Sequence[int], students: int, spread: int, work: WorkLimit
) -> list[tuple[int, ...]] | None:
    """Divisions within a spread, each as filters, the most first; None for many.

    Communities are given out one by one, the largest first; what is left has to fill up all
    students that have too little.
    """
    left, states = sum(sizes), 0
    least = -(-(left - (students - 1) * spread) // students)
    most = (left + (students - 1) * spread) // students
    rows = {(0,) * students}
    for size in sorted(sizes, reverse=True):
        left -= size
        grown: set[tuple[int, ...]] = set()
        for held in rows:
            for place in range(students):
                if place and held[place] == held[place - 1]:
                    continue
                longer = (*held[:place], held[place] + size, *held[place + 1 :])
                floor = max(least, max(longer) - spread, 1)
                missing = sum(floor - one for one in longer if one < floor)
                if longer[place] <= most and missing <= left:
                    grown.add(tuple(sorted(longer, reverse=True)))
        states += len(grown)
        work.spend(len(grown))
        if states > MOST_STATES:
            return None
        rows = grown
    return sorted(rows)
