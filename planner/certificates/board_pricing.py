"""Sets of students of one board: their worth above prices, and the best one.

Where students of a board share its G0, one of them pays for it, the one with the largest peak of
activations: the others cost their heads alone, so that costs of a set still add up.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

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
from planner.certificates.merging import MergedSearch
from planner.certificates.pricing import (
    PAYS,
    REQUIRED,
    PricedItem,
    PricedPart,
    Trace,
    Window,
    WorkLimit,
    best_set,
    undominated,
)
from planner.problem.goals import MAXIMISED
from profiles.device import slowdown


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
    _choices: dict[int, BoardChoices] = field(default_factory=dict, init=False, repr=False)

    def choices(self, place: int) -> BoardChoices:
        """Choices of a board on the leaf's path."""
        if place not in self._choices:
            self._choices[place] = self._chosen(place)
        return self._choices[place]

    def _chosen(self, place: int) -> BoardChoices:
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
        if self.tables.shares_group0:
            return "alone", "several"
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
        limits, case = self.limits(place), self.case
        if any(limit is not None and limit < 0 for limit in limits):
            return None
        key = case.group0, company, self.timed
        kept = case.kept * case.rounds
        counted = self.tables.binding(place, kept, tuple(limits), key)
        if self.leaf.due and LATE not in counted:
            counted = (*counted, LATE)
        peaks = [None] if company != "several" else self.peaks
        found = (self._best_below(place, company, counted, peak) for peak in peaks)
        return max((one for one in found if one), key=lambda one: one[0], default=None)

    @cached_property
    def peaks(self) -> Sequence[int | None]:
        """Peaks of joint models: the student with the largest one pays for the shared G0."""
        tables = self.tables
        if not tables.shares_group0:
            return [None]
        modes = (n for n, mode in enumerate(tables.modes) if mode.group0 == self.case.group0)
        return sorted({tables.peak_bytes[n] for n in modes}, reverse=True)

    def _best_below(
        self, place: int, company: Company, counted: Sequence[int], peak: int | None
    ) -> tuple[int, Trace] | None:
        """Best set whose joint model has such a peak; None for no joint model."""
        limits, last, case = self.limits(place), self._last(place), self.case
        most = [10**18 if limits[n] is None else limits[n] or 0 for n in counted]
        late = counted.index(LATE) if LATE in counted else None
        required = (REQUIRED << len(self.choices(place).modes)) - REQUIRED
        items = list(self._items(place, company, counted, peak))

        def ending(needs: tuple[int, ...]) -> int:
            return last(0 if late is None else needs[late])

        if not case.merges:
            paid = 0 if peak is None else PAYS
            return best_set(items, most, company, required | paid, ending, self.work)
        modes = self._modes(place, counted, company, peak)
        payers = [one for one in modes if one.bits & PAYS]
        modes = [one for one in modes if not one.bits & PAYS]
        search = MergedSearch(
            modes, payers, items, most, company, required, self.window, ending, self.work
        )
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

    def _items(
        self, place: int, company: Company, counted: Sequence[int], peak: int | None
    ) -> Iterable[PricedItem]:
        """Communities as this board may take them, larger ones first.

        As students of their own, or where these merge, by the slope of a student that takes them.
        """
        chosen, sizes, case = self.choices(place), self.tables.sizes, self.case
        for c in sorted(set(case.kept) - chosen.banned, key=lambda c: -sizes[c]):
            price = self.leaf.prices[c]
            if case.merges:
                key = case.group0, company, self.timed
                parts = self.tables.joining(place, sizes[c], *key)
                found = [self._priced(place, part, price, counted) for part in parts]
            else:
                found = list(self._students(place, sizes[c], price, counted, company, peak))
            yield from (
                [PricedItem(c, sizes[c], undominated(found), c in chosen.communities)] * case.rounds
            )

    def _modes(
        self, place: int, counted: Sequence[int], company: Company, peak: int | None
    ) -> list[PricedPart]:
        """Students without any filter yet, one for each mode that is allowed."""
        banned = self.choices(place).banned_modes
        return [
            one._replace(bits=one.bits & PAYS | self._bits(place, one.part) | 2 << one.part.slope)
            for one in self._students(place, 0, 0, counted, company, peak)
            if one.part.mode not in banned
        ]

    def _students(
        self,
        place: int,
        filters: int,
        price: int,
        counted: Sequence[int],
        company: Company,
        peak: int | None,
    ) -> Iterable[PricedPart]:
        """Students of so many filters; with a peak, payers for G0 and others.

        Whoever pays has this peak, and the others no larger one.
        """
        tables, case = self.tables, self.case
        whole = tables.first(place, filters, case.group0, company, self.timed)
        if peak is None:
            yield from (self._priced(place, part, price, counted) for part in whole)
            return
        for part in whole:
            if tables.peak_bytes[part.mode] == peak:
                one = self._priced(place, part, price, counted)
                yield one._replace(bits=one.bits | PAYS)
        for part in tables.following(place, filters, case.group0, self.timed):
            if tables.peak_bytes[part.mode] <= peak:
                yield self._priced(place, part, price, counted)

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

    @cached_property
    def _gain_weights(self) -> tuple[int, ...]:
        """Weight of each measure, negative where less is better."""
        weights = dict.fromkeys(GAINS, 0)
        for name, weight in self.leaf.weights.items():
            measure = SUMS.get(name, name)
            if measure in weights:
                weights[measure] += weight if name in MAXIMISED or name in PRODUCT else -weight
        return tuple(weights.values())
