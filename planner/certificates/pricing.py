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

from planner.certificates import PRODUCT, SUMS, Case, Demands, PriceLeaf
from planner.certificates.figures import (
    BUSY,
    ENERGY,
    GAINS,
    LATE,
    Company,
    CostTables,
    StudentPart,
)
from planner.problem.goals import MAXIMISED
from profiles.device import slowdown


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
    company: Company,
    required: int,
    last: Callable[[tuple[int, ...]], int],
    work: WorkLimit,
) -> tuple[int, Trace] | None:
    """Most worth of any set, and the set; None where nothing has what is forced.

    Each student has one community.  `limits` are of the needs that count; `last` is what a set's
    needs take off in the end.  The empty set is worth 0.
    """
    rest = [0]
    for item in reversed(items):
        worths = [part.worth for part in item.parts]
        rest.append(rest[-1] + max(worths if item.forced else [0, *worths], default=-(10**30)))
    rest.reverse()
    forced_left = sum(item.forced for item in items)
    best: tuple[int, Trace] | None = None if forced_left or required else (0, None)
    labels: list[Label] = [(0, (0,) * len(limits), 0, None)]
    for place, item in enumerate(items):
        forced_left -= item.forced
        grown: list[Label] = []
        work.spend(len(labels) * len(item.parts))
        for worth, needs, bits, trace in labels:
            for one in item.parts if not (bits and company == "alone") else ():
                total = tuple(map(int.__add__, needs, one.needs))
                if all(map(int.__le__, total, limits)):
                    more = bits | one.bits | (SEVERAL if bits else 0)
                    longer = (trace, item.community, one.part)
                    grown.append((worth + one.worth, total, more, longer))
        if not forced_left:
            for label in grown if best is not None else [*labels, *grown]:
                value = label[0] - last(label[1])
                if _accepted(label[2], company, required) and (best is None or value > best[0]):
                    best = value, label[3]
        every = grown if item.forced else [*labels, *grown]
        labels = _thinned(every, rest[place + 1], best and best[0], len(limits))
    return best


def _accepted(bits: int, company: Company, required: int) -> bool:
    """Whether a set has the company and the modes that it must have."""
    return not required & ~bits and (company != "several" or bool(bits & SEVERAL))


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


@dataclass(frozen=True, slots=True)
class PricedSet:
    """A set of students of a board, and its part of a plan."""

    place: int
    communities: tuple[int, ...]
    modes: tuple[int, ...]
    gains: tuple[int, ...]
    late: int

    @classmethod
    def of(cls, place: int, trace: Trace) -> "PricedSet":
        """The set of a trace."""
        communities: list[int] = []
        modes: list[int] = []
        late = 0
        gains = [0] * len(GAINS)
        while trace is not None:
            trace, community, part = trace
            communities += [] if community is None else [community]
            modes += [part.mode] * part.gains[GAINS.index("students")]
            gains = list(map(int.__add__, gains, part.gains))
            late += part.needs[LATE]
        known = tuple(sorted(communities)), tuple(sorted(modes))
        return cls(place, *known, tuple(gains), late)


@dataclass(frozen=True, slots=True)
class BoardChoices:
    """Communities and modes that a board has to run, and those that it may not."""

    communities: frozenset[int]
    banned: frozenset[int]
    modes: frozenset[int]
    banned_modes: frozenset[int]

    @property
    def forced(self) -> bool:
        """Whether the board has to run anything."""
        return bool(self.communities or self.modes)


@dataclass(frozen=True)
class BoardPricing:
    """Best sets of boards under the prices of one leaf of a case."""

    tables: CostTables
    case: Case
    demands: Demands
    leaf: PriceLeaf
    work: WorkLimit

    def choices(self, place: int) -> "BoardChoices":
        """Choices of a board on the leaf's path."""
        path = self.leaf.path
        steps = [(one.community, one.holds, one.board == place) for one in path]
        modes = [(one.mode, one.holds) for one in path if one.board == place]
        return BoardChoices(
            frozenset(c for c, holds, here in steps if c is not None and holds and here),
            frozenset(c for c, holds, here in steps if c is not None and holds != here),
            frozenset(mode for mode, holds in modes if mode is not None and holds),
            frozenset(mode for mode, holds in modes if mode is not None and not holds),
        )

    @property
    def window(self) -> Window | None:
        """Least and most filters of a student; None where that is open, or not merged."""
        spread = self.demands.spread
        if spread is None or not self.case.merges:
            return None
        steps = [(one.filters, one.holds) for one in self.leaf.path if one.filters is not None]
        least = max((filters for filters, holds in steps if holds), default=1)
        most = min((filters - 1 for filters, holds in steps if not holds), default=self.filters)
        return least, min(most, self.filters // self.case.fewest) + spread

    @property
    def filters(self) -> int:
        """Filters of all communities that are kept."""
        return sum(self.tables.sizes[c] for c in self.case.kept)

    def best(self, place: int) -> tuple[int, Trace] | None:
        """Most worth of a set of a board, and the set; None for no set."""
        found = (self._best(place, company) for company in self.companies(place))
        known = [one for one in found if one is not None]
        if not self.choices(place).forced:
            known.append((0, None))
        return max(known, key=lambda one: one[0], default=None)

    def companies(self, place: int) -> tuple[Company, ...]:
        """Company that tells costs apart on a board."""
        device = self.tables.boards[place].device
        if not self.timed or self.tables.problem.max_copies > 1 or slowdown(device, 2) == 1:
            return ("any",)
        return "alone", "several"

    @property
    def timed(self) -> bool:
        """Whether times or energies count."""
        demands, budgets = self.demands, self.tables.problem.budgets
        limits = (demands.latest, demands.period, demands.node_energy)
        return (
            any(limit is not None for limit in limits)
            or "energy" in {*self.leaf.weights, *demands.sums}
            or any(one.busy_ms is not None or one.energy_mj is not None for one in budgets)
        )

    def _best(self, place: int, company: Company) -> tuple[int, Trace] | None:
        """Most worth of a set that is not empty."""
        limits, last, case = self.limits(place), self._last(place), self.case
        if any(limit is not None and limit < 0 for limit in limits):
            return None
        key = case.group0, company, self.timed
        kept = case.kept * case.rounds
        counted = self.tables.binding(place, kept, tuple(limits), key)
        if self.leaf.due and LATE not in counted:
            counted = (*counted, LATE)
        most = [10**18 if limits[n] is None else limits[n] or 0 for n in counted]
        late = counted.index(LATE) if LATE in counted else None
        required = (REQUIRED << len(self.choices(place).modes)) - REQUIRED
        items = list(self._items(place, company, counted))

        def ending(needs: tuple[int, ...]) -> int:
            return last(0 if late is None else needs[late])

        if not case.merges:
            return best_set(items, most, company, required, ending, self.work)
        from planner.certificates.merging import MergedSearch

        modes = self._modes(place, company, counted)
        search = MergedSearch(modes, items, most, company, required, self.window, ending, self.work)
        return search.best(self.case.most)

    def limits(self, place: int) -> list[int | None]:
        """Budgets of a board, and what a latency or a period leaves."""
        demands, limits = self.demands, self.tables.limits(place)

        def tighten(need: int, limit: int | None) -> None:
            known = limits[need]
            if limit is not None:
                limits[need] = limit if known is None else min(known, limit)

        tighten(BUSY, demands.period)
        tighten(ENERGY, demands.node_energy)
        if demands.latest is not None:
            left = demands.latest - self.tables.around(place) - self.tables.sends[place]
            tighten(LATE, left)
        return limits

    def _last(self, place: int) -> Callable[[int], int]:
        """Cost of a set beside its communities and students, by its late part.

        Its send is due when its late part begins, or where there is no latency, by a period.
        """
        demands, send = self.demands, self.tables.sends[place]
        of_board = self.leaf.weights.get("boards", 0)
        if demands.latest is None:
            period = demands.period
            prices = (price for date, price in self.leaf.due if period and date >= period)
            fixed = of_board + send * sum(prices)
            return lambda _: fixed
        begin = demands.latest - self.tables.around(place)
        return lambda late: (
            of_board + send * sum(price for date, price in self.leaf.due if date >= begin - late)
        )

    def _items(self, place: int, company: Company, counted: Sequence[int]) -> Iterable[PricedItem]:
        """Communities as this board may take them, larger ones first.

        As students of their own, or where these merge, by the slope of a student that takes them.
        """
        chosen, sizes, case = self.choices(place), self.tables.sizes, self.case
        find = self.tables.joining if case.merges else self.tables.first
        for c in sorted(set(case.kept) - chosen.banned, key=lambda c: -sizes[c]):
            parts = find(place, sizes[c], case.group0, company, self.timed)
            price = self.leaf.prices[c]
            priced = undominated(self._priced(place, part, price, counted) for part in parts)
            yield from [PricedItem(c, sizes[c], priced, c in chosen.communities)] * case.rounds

    def _modes(self, place: int, company: Company, counted: Sequence[int]) -> list[PricedPart]:
        """Students without any filter yet, one for each mode that is allowed."""
        parts = self.tables.first(place, 0, self.case.group0, company, self.timed)
        banned = self.choices(place).banned_modes
        return [
            self._priced(place, one, 0, counted)._replace(
                bits=self._bits(place, one) | 2 << one.slope
            )
            for one in parts
            if one.mode not in banned
        ]

    def _bits(self, place: int, part: StudentPart) -> int:
        """Bit of a mode that is required."""
        modes = sorted(self.choices(place).modes)
        return REQUIRED << modes.index(part.mode) if part.mode in modes else 0

    def _priced(
        self, place: int, part: StudentPart, price: int, counted: Sequence[int]
    ) -> PricedPart:
        students = part.gains[GAINS.index("students")]
        worth = sum(map(int.__mul__, self._gain_weights, part.gains)) - price
        needs = tuple(part.needs[need] for need in counted)
        bits = 2 << part.slope if self.case.merges else 2 | self._bits(place, part)
        return PricedPart(worth - students * self.leaf.student_price, needs, bits, part)

    @property
    def _gain_weights(self) -> tuple[int, ...]:
        """Weight of each measure, negative where less is better."""
        weights = dict.fromkeys(GAINS, 0)
        for name, weight in self.leaf.weights.items():
            measure = SUMS.get(name, name)
            if measure in weights:
                weights[measure] += weight if name in MAXIMISED or name in PRODUCT else -weight
        return tuple(weights.values())
