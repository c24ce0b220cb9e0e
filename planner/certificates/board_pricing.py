"""Sets of students of one board: their worth above prices, and the best one.

Where students of a board and a precision share its G0, one of them pays for it, the one with the
largest peak of activations behind it: the others cost their heads and their features alone, so that
costs of a set still add up.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product

from planner.certificates import PRODUCT, Case, Demands, PriceLeaf
from planner.certificates.figures import (
    BUSY,
    ENERGY,
    GAINS,
    LATE,
    MEASURES,
    BoardModels,
    Company,
    CostTables,
    StudentPart,
)
from planner.certificates.merging import MergedSearch
from planner.certificates.pricing import (
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
        case, spread = self.case, self.case.spread
        if spread is None or not case.merges:
            return None
        steps = [(one.filters, one.holds) for one in self.leaf.path if one.filters is not None]
        least = max((filters for filters, holds in steps if holds), default=1)
        most = min((filters - 1 for filters, holds in steps if not holds), default=self.filters)
        # All others are within the spread of the smallest student, and of the largest.
        least = max(least, -(-(self.filters - (case.most - 1) * spread) // case.most))
        largest = (self.filters + (case.fewest - 1) * spread) // case.fewest
        return least, min(min(most, self.filters // case.fewest) + spread, largest)

    @property
    def filters(self) -> int:
        """Filters of all communities that are kept."""
        return sum(self.case.kept_sizes)

    def best(self, place: int) -> tuple[int, Trace] | None:
        """Most worth of a set of a board, and the set; None for no set."""
        limits = self.limits(place)
        best: tuple[int, Trace] | None = None if self.choices(place).forced else (0, None)
        if any(limit is not None and limit < 0 for limit in limits):
            return best
        for models in self.models(place):
            best = self._better(place, models, limits, best)
        return best

    def models(self, place: int) -> tuple[BoardModels, ...]:
        """Models that a board may run, all that have to be told apart.

        What copies of students add is left out, so that a board may run fewer than it does.
        """
        tables, copied = self.tables, self.tables.problem.max_copies > 1
        slow = self.timed and not copied and slowdown(tables.boards[place].device, 2) != 1
        if not tables.shares_group0:
            ways = [tables.own_models(self.case.group0, way) for way in _COMPANY[slow]]
            return tuple(ways)
        # Of a student's copies one counts its G0, and one is first to reply: they may differ.
        generous = copied and self.demands.latest is not None
        return tables.joint_models(self.case.group0, slowed=slow, generous=generous)

    @cached_property
    def timed(self) -> bool:
        """Whether times or energies count."""
        demands, budgets = self.demands, self.tables.problem.budgets
        limits = (demands.latest, demands.period, demands.node_energy)
        return (
            any(limit is not None for limit in limits)
            or "energy" in {*self.leaf.weights, *demands.sums}
            or any(one.busy_ms is not None or one.energy_mj is not None for one in budgets)
        )

    def _better(
        self,
        place: int,
        models: BoardModels,
        limits: Sequence[int | None],
        best: tuple[int, Trace] | None,
    ) -> tuple[int, Trace] | None:
        """The best set that is no worse than this one, and not empty."""
        last, case = self._last(place), self.case
        counted = self._counted(place, models, limits)
        most = [10**18 if limits[n] is None else limits[n] or 0 for n in counted]
        late = counted.index(LATE) if LATE in counted else None
        required = (REQUIRED << len(self.choices(place).modes)) - REQUIRED
        items = list(self._items(place, counted, models))

        def ending(needs: tuple[int, ...]) -> int:
            return last(0 if late is None else needs[late])

        if not case.merges:
            required |= models.once
            return best_set(items, most, models, required, ending, self.work, best)
        modes = self._modes(place, counted, models)
        payers = ([one for one in modes if one.bits & bit] for bit in single_bits(models.once))
        starts = list(product(*payers))
        modes = [one for one in modes if not one.bits & models.once]
        search = MergedSearch(
            starts, modes, items, most, models.company, required, self.window, ending, self.work
        )
        return search.best(case.most, best)

    def _counted(
        self, place: int, models: BoardModels, limits: Sequence[int | None]
    ) -> tuple[int, ...]:
        """Needs of which all communities together could exceed the limit, and what is priced."""
        tables, case = self.tables, self.case
        key = place, case.kept_sizes, case.rounds, tuple(limits), models, self.timed
        if key not in tables.binding:
            most = [0] * len(limits)
            for size in case.kept_sizes * case.rounds:
                rows = [part.needs for part, _ in self.parts(place, size, models)]
                rows += [part.needs for part in self._growths(place, size, models)]
                largest = [max(column) for column in zip(*rows, strict=True)]
                # Nothing may run here where no model has room for its activations.
                most = list(map(int.__add__, most, largest)) if rows else most
            tables.binding[key] = tuple(
                need
                for need, limit in enumerate(limits)
                if limit is not None and most[need] > limit
            )
        counted = tables.binding[key]
        return (*counted, LATE) if self.leaf.due and LATE not in counted else counted

    def parts(
        self, place: int, filters: int, models: BoardModels
    ) -> tuple[tuple[StudentPart, int], ...]:
        """Students of so many filters in all modes and roles, with bits of these."""
        known, key = self.tables.parts, (place, filters, models, self.timed)
        if key not in known:
            every = (
                (self.tables.student(place, number, filters, role, self.timed), once)
                for number, role, once in models.roles
            )
            known[key] = tuple(row for row in every if self._has_arena(place, row[0]))
        return known[key]

    def _has_arena(self, place: int, part: StudentPart) -> bool:
        """Whether a board has RAM for the activations of a model with such a student."""
        limit = self.tables.ram_limit(place)
        return limit is None or part.ram <= limit

    def singles(self, places: Iterable[int]) -> Iterator[PricedSet]:
        """Sets of one student with one community, where none merge and no choice forces more."""
        for place in () if self.case.merges else places:
            choices, limits = self.choices(place), self.limits(place)
            for c in sorted(set(self.case.kept) - choices.banned) if not choices.forced else ():
                for models in (one for one in self.models(place) if one.company != "several"):
                    for part, once in self.parts(place, self.case.sizes[c], models):
                        allowed = once == models.once and part.mode not in choices.banned_modes
                        allowed = allowed and self.may_have(c, part.mode)
                        pairs = zip(part.needs, limits, strict=True)
                        if allowed and all(most is None or need <= most for need, most in pairs):
                            yield PricedSet.of(place, (None, c, part))

    def may_have(self, community: int, mode: int) -> bool:
        """Whether a student of this community alone may have a mode.

        A trained one has its own.
        """
        trained = self.tables.problem.trained
        if trained is None or self.case.division:
            return True
        one, known = trained.students[community], self.tables.modes[mode]
        return (one.network, one.precision) == (known.network, known.precision)

    def _growths(self, place: int, filters: int, models: BoardModels) -> Iterable[StudentPart]:
        """So many filters more of a student, one part for each slope."""
        found: dict[int, StudentPart] = {}
        for number, role, _ in models.roles:
            part = self.tables.growth(place, number, filters, role, self.timed)
            known = found.setdefault(part.slope, part)
            if part.ram < known.ram:
                found[part.slope] = part
        return [part for part in found.values() if self._has_arena(place, part)]

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

    def due(self, found: PricedSet) -> int:
        """Time by which a board's image must have been sent."""
        if self.demands.latest is None:
            return self.demands.period or 0
        return self.demands.latest - self.tables.around(found.place) - found.late

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
        self, place: int, counted: Sequence[int], models: BoardModels
    ) -> Iterable[PricedItem]:
        """Communities as this board may take them, larger ones first.

        As students of their own, or where these merge, by the slope of a student that takes them.
        """
        chosen, case, sizes = self.choices(place), self.case, self.case.sizes
        for c in sorted(set(case.kept) - chosen.banned, key=lambda c: -sizes[c]):
            price = self.leaf.prices[c]
            if case.merges:
                parts = tuple((part, 0) for part in self._growths(place, sizes[c], models))
            else:
                every = self.parts(place, sizes[c], models)
                parts = tuple(row for row in every if self.may_have(c, row[0].mode))
            found = [self._priced(place, part, once, price, counted) for part, once in parts]
            yield from (
                [PricedItem(c, sizes[c], undominated(found), c in chosen.communities)] * case.rounds
            )

    def _modes(self, place: int, counted: Sequence[int], models: BoardModels) -> list[PricedPart]:
        """Students without any filter yet, one for each mode and role that is allowed."""
        banned = self.choices(place).banned_modes
        return [
            one._replace(bits=one.bits | self._bits(place, part))
            for part, once in self.parts(place, 0, models)
            if part.mode not in banned
            for one in [self._priced(place, part, once, 0, counted)]
        ]

    def _bits(self, place: int, part: StudentPart) -> int:
        """Bit of a mode that is required."""
        modes = sorted(self.choices(place).modes)
        return REQUIRED << modes.index(part.mode) if part.mode in modes else 0

    def _priced(
        self, place: int, part: StudentPart, once: int, price: int, counted: Sequence[int]
    ) -> PricedPart:
        students = part.gains[GAINS.index("students")]
        worth = sum(map(int.__mul__, self._gain_weights, part.gains)) - price
        needs = tuple(part.needs[need] for need in counted)
        bits = 2 << part.slope if self.case.merges else 2 | self._bits(place, part)
        return PricedPart(worth - students * self.leaf.student_price, needs, bits | once, part)

    @cached_property
    def _gain_weights(self) -> tuple[int, ...]:
        """Weight of each measure, negative where less is better."""
        weights = dict.fromkeys(GAINS, 0)
        for name, weight in self.leaf.weights.items():
            measure = MEASURES[name]
            if measure in weights:
                weights[measure] += weight if name in MAXIMISED or name in PRODUCT else -weight
        return tuple(weights.values())


_COMPANY: dict[bool, tuple[Company, ...]] = {False: ("any",), True: ("alone", "several")}
"""Company that tells costs apart, by whether several models are slowed down."""


def single_bits(bits: int) -> Iterator[int]:
    """Bits that are set, one by one, the lowest first."""
    while bits:
        yield bits & -bits
        bits &= bits - 1
