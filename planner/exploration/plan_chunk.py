"""Chunk of enumerated plans: their quantities as arrays, and those that none dominates."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.data.balance import kept_sizes
from planner.data.modes import Assignment, DropChoice, log_units
from planner.data.objective_function import (
    SENDER,
    UNEVENNESS,
    ObjectiveBound,
    ObjectiveFunction,
    StudentQuantity,
)
from planner.data.problem_data import ProblemData, kept_communities
from planner.problem.budgets import Resource
from planner.problem.least_spread import uneven_units
from planner.solvers.level_solver import SearchOutcome
from profiles.device import DeviceProfile
from profiles.operating_point import whole_power
from simulator.graph_builder import downlink, uplink

MOST_DIVISIONS = 20_000
"""Divisions are not counted beyond this."""
CHUNK = 2**17
"""Plans that are held at once; then those that are dominated go."""
BLOCK = 128
"""Rows that are compared with each other at once."""
PIVOTS = 16
"""Plans known to be good with which new ones are compared first."""
Units = npt.NDArray[np.int64]
"""Solver units of many plans, or of many sets of students."""


@dataclass(frozen=True, slots=True)
class StudentSets:
    """Sets of students of the same sizes on one board, in rows.

    `modes` has a column for each size; `send`, `reply` and `delay` are the same for all rows.
    """

    sizes: tuple[int, ...]
    modes: Units
    figures: Mapping[str, Units]
    send: int
    reply: int
    delay: int

    def __len__(self) -> int:
        return len(self.modes)

    def rows(self, kept: npt.NDArray[Any]) -> "StudentSets":
        """Return these rows."""
        figures = {name: values[kept] for name, values in self.figures.items()}
        return replace(self, modes=self.modes[kept], figures=figures)


@dataclass(frozen=True, slots=True)
class BudgetNeed:
    """Least budget that is the same on several boards: its figure, and the runtimes' part.

    `boards` maps places of boards to what the runtime takes there.
    """

    figure: Resource
    boards: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Grouping:
    """Communities as groups, one for each student, under a drop choice; by sizes."""

    drop: int
    groups: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]

    def unevenness(self, data: ProblemData) -> int:
        """How much less alike the groups are than they can be, in solver units."""
        spread = max(self.sizes) - min(self.sizes)
        return uneven_units(spread, kept_sizes(data, self.drop), len(self.sizes))


def even_groupings(
    data: ProblemData, every: Sequence[Grouping], limits: Sequence[ObjectiveBound]
) -> list[Grouping]:
    """Groupings that keep the limits on unevenness."""
    most = [limit.bound for limit in limits if limit.measure is UNEVENNESS]
    return [one for one in every if not most or one.unevenness(data) <= min(most)]


def groupings(data: ProblemData) -> list[Grouping] | None:
    """Divisions of the communities that differ in sizes; None for too many."""
    found: list[Grouping] = []
    for drop, choice in enumerate(data.drop_choices):
        every: dict[tuple[int, ...], tuple[tuple[int, ...], ...]] = {(): ()}
        for community in kept_communities(data, choice):
            grown: dict[tuple[int, ...], tuple[tuple[int, ...], ...]] = {}
            for groups in every.values():
                for after in _with_community(groups, community, data.max_students):
                    sizes = tuple(sum(data.sizes[c] for c in group) for group in after)
                    key = tuple(sorted(sizes))
                    grown.setdefault(key, after)
            every = grown
            if len(every) + len(found) > MOST_DIVISIONS:
                return None
        for groups in every.values():
            if data.min_students <= len(groups):
                ordered = sorted(groups, key=lambda g: sum(data.sizes[c] for c in g))
                sizes = tuple(sum(data.sizes[c] for c in group) for group in ordered)
                found.append(Grouping(drop, tuple(ordered), sizes))
    return found


def _with_community(
    groups: tuple[tuple[int, ...], ...], community: int, most: int
) -> Iterator[tuple[tuple[int, ...], ...]]:
    for place, group in enumerate(groups):
        yield (*groups[:place], (*group, community), *groups[place + 1 :])
    if len(groups) < most:
        yield (*groups, (community,))


@dataclass(frozen=True, slots=True)
class PlanChunk:
    """Plans of one division on one placement; an axis for each board at work."""

    data: ProblemData
    division: Grouping
    sets: tuple[tuple[int, StudentSets], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of sets of each board; their product is the number of plans."""
        return tuple(len(one) for _, one in self.sets)

    def assignment(self, plan: int) -> Assignment:
        """Return one of the plans, by its place in the chunk."""
        places = np.unravel_index(plan, self.shape)
        left: dict[int, list[tuple[int, ...]]] = defaultdict(list)
        for group, size in zip(self.division.groups, self.division.sizes, strict=True):
            left[size].append(group)
        students = [
            self.data.modes[mode].student(left[size].pop(), [board])
            for (board, one), place in zip(self.sets, places, strict=True)
            for mode, size in zip(one.modes[place].tolist(), one.sizes, strict=True)
        ]
        taken = self.data.drop_choices[self.division.drop].communities
        return Assignment(tuple(students), tuple(sorted(taken)))

    def _each(self, figure: str) -> list[Units]:
        """A figure of each board, along its own axis."""
        count = len(self.sets)
        return [
            one.figures[figure].reshape([-1 if axis == other else 1 for other in range(count)])
            for axis, (_, one) in enumerate(self.sets)
        ]

    def _sum(self, figure: str) -> Units:
        return sum(self._each(figure), np.zeros((), dtype=np.int64))

    def total(self, figure: Resource) -> Units:
        """Return a figure, added up over all boards."""
        return self._sum(figure)

    def knowledge(self, figure: StudentQuantity) -> Units:
        """Return a figure, added up over all students, a G0 that they share counted once."""
        return self._sum("known_macs" if figure == "macs" else figure)

    def highest(self, figure: Resource) -> Units:
        """Return a figure of the board where it is highest."""
        return _largest(self._each(figure))

    def need(self, budget: "BudgetNeed") -> Units:
        """Return the least such budget; 0 where its boards have no student."""
        uses = zip(self._each(budget.figure), self.sets, strict=True)
        of = [use + budget.boards[place] for use, (place, _) in uses if place in budget.boards]
        return _largest(of) if of else np.zeros((), dtype=np.int64)

    def boards(self) -> int:
        """Return how many boards have a student."""
        return len(self.sets)

    def students(self) -> int:
        """Return how many students there are."""
        return len(self.division.sizes)

    def spread(self) -> int:
        """Return the largest partition less the smallest."""
        return max(self.division.sizes) - min(self.division.sizes)

    def unevenness(self) -> int:
        """Return how much less alike partitions are than they can be."""
        return self.division.unevenness(self.data)

    def inversion(self) -> Units:
        """Return most filters that a wider student has fewer than a narrower one."""
        count, rank = len(self.sets), np.array(self.data.width_ranks)
        students = [
            (size, rank[column].reshape([-1 if axis == other else 1 for other in range(count)]))
            for axis, (_, one) in enumerate(self.sets)
            for column, size in zip(one.modes.T, one.sizes, strict=True)
        ]
        lacking = [
            (more - fewer) * (wide > narrow)
            for (fewer, wide), (more, narrow) in permutations(students, 2)
            if more > fewer
        ]
        return _largest(lacking) if lacking else np.zeros((), dtype=np.int64)

    def dropped(self, worth: Callable[[DropChoice], int]) -> int:
        """Return the worth of the chosen drop."""
        return worth(self.data.drop_choices[self.division.drop])

    def size(self) -> Units:
        """Return ln(parameters) + ln(MACs) of all students."""
        return _log_units(self.knowledge("params")) + _log_units(self.knowledge("macs"))

    def latency(self) -> Units:
        """Return the latency of one image, boards being sent to longest first.

        A board then waits for the sends to all whose time is no shorter, its own included.
        """
        sends = [one.send for _, one in self.sets]
        tails = [
            late + one.reply + one.delay
            for late, (_, one) in zip(self._each("late"), self.sets, strict=True)
        ]
        ends = [
            sum((send * (tail >= own) for send, tail in zip(sends, tails, strict=True)), own)
            for own in tails
        ]
        return _largest(ends) + self.data.fixed_latency

    def period(self) -> Units:
        """Return the longest time that anything is busy with one image."""
        held: Counter[str] = Counter()
        for place, one in self.sets:
            board = self.data.capacities[place].board
            held[SENDER] += one.send
            held[downlink(board)] += one.send
            held[uplink(board)] += one.reply
        fixed = max(self.data.fixed_period, *held.values())
        return np.maximum(_largest(self._each("busy")), fixed)


def _largest(values: Sequence[Units]) -> Units:
    return reduce(np.maximum, values)


def _log_units(amounts: Units) -> Units:
    """Logarithms as `planner.data.modes.log_units` has them, to the last unit."""
    found, back = np.unique(amounts, return_inverse=True)
    units = np.array([log_units(int(one)) for one in found], dtype=np.int64)
    return units[back].reshape(amounts.shape)


def power_units(device: DeviceProfile, macs: Units) -> Units:
    """Power of a board while it computes so many MACs, in solver units."""
    found, back = np.unique(macs, return_inverse=True)
    return np.array([whole_power(device, int(one)) for one in found], dtype=np.int64)[back]


def plan_chunks(
    data: ProblemData, division: Grouping, sets: Sequence[tuple[int, StudentSets]]
) -> Iterator[PlanChunk]:
    """Yield all plans of a placement, `CHUNK` at once or the sets of one board."""
    (board, first), *others = sets
    rest = math.prod(len(one) for _, one in others)
    if rest > CHUNK and others:
        for row in range(len(first)):
            head = first.rows(np.array([row]))
            yield from plan_chunks(data, division, [*others, (board, head)])
        return
    step = max(1, CHUNK // rest)
    for start in range(0, len(first), step):
        rows = np.arange(start, min(start + step, len(first)))
        yield PlanChunk(data, division, ((board, first.rows(rows)), *others))


def undominated_rows(costs: Units) -> npt.NDArray[np.intp]:
    """Places of the rows that no other row dominates, less being better.

    Of equal rows the first one stays.  Whatever dominates a row comes before it in the order of
    the sums of ranks, so that a block of the first rows is settled once it is compared with itself.
    """
    ranks = [np.unique(column, return_inverse=True)[1].ravel() for column in costs.T]
    table = np.stack(ranks, axis=1)
    order = np.argsort(table.sum(axis=1), kind="stable")
    table = table[order]
    kept = []
    while order.size:
        block, first = order[:BLOCK], table[:BLOCK]
        order, table = order[BLOCK:], table[BLOCK:]
        as_good = (first[:, None] <= first[None]).all(axis=2)
        settled = ~np.triu(as_good, 1).any(axis=0)
        kept.append(block[settled])
        for row in first[settled]:
            better = (table < row).any(axis=1)
            order, table = order[better], table[better]
    return np.sort(np.concatenate(kept)) if kept else order


class PlanArchive:
    """Plans that none of those seen so far dominates: costs, chunk, and place in it."""

    def __init__(self, goals: int) -> None:
        self._rows: Units = np.empty((0, goals + 2), dtype=np.int64)
        self._goals = goals
        self._chunks: list[PlanChunk] = []
        self._waiting: list[Units] = []
        self._count = 0

    def add(self, chunk: PlanChunk, costs: Units, places: Units) -> None:
        """Add plans of a chunk by their costs and places in it."""
        for row in self._rows[:: max(1, len(self._rows) // PIVOTS), : self._goals]:
            better = (costs < row).any(axis=1)
            costs, places = costs[better], places[better]
        if not len(costs):
            return
        number = np.full(len(costs), len(self._chunks), dtype=np.int64)
        self._chunks.append(chunk)
        self._waiting.append(np.column_stack([costs, number, places]))
        self._count += len(costs)
        if self._count > CHUNK:
            self.settle()

    def settle(self) -> None:
        """Drop what another plan dominates."""
        rows = np.concatenate([self._rows, *self._waiting])
        rows = rows[undominated_rows(rows[:, : self._goals])]
        used, rows[:, self._goals] = np.unique(rows[:, self._goals], return_inverse=True)
        self._chunks = [self._chunks[number] for number in used]
        self._rows, self._waiting, self._count = rows, [], 0

    def plans(self) -> tuple[Units, list[tuple[PlanChunk, int]]]:
        """Costs, the best of the first goal first, and the plans."""
        self.settle()
        rows = self._rows[np.lexsort(self._rows[:, : self._goals][:, ::-1].T)]
        plans = [(self._chunks[chunk], place) for chunk, place in rows[:, self._goals :].tolist()]
        return rows[:, : self._goals], plans


@dataclass(frozen=True, slots=True)
class UndominatedPlans:
    """Plans that no other one dominates, by their costs, less being better.

    `costs` has a column for each goal, and for each budget whose need counts.
    """

    goals: tuple[ObjectiveFunction, ...]
    costs: Units
    plans: Sequence[tuple[PlanChunk, int]]

    def rows(self, kept: npt.NDArray[np.intp]) -> "UndominatedPlans":
        """Return these plans alone."""
        return replace(self, costs=self.costs[kept], plans=[self.plans[row] for row in kept])

    def search(
        self,
        goal: ObjectiveFunction,
        limits: Sequence[ObjectiveBound],
        _: Assignment | None = None,
    ) -> SearchOutcome:
        """Find the best plan for a goal under limits of goals.

        Of equal ones it is the best for the first goal, then for the second, and so on.
        The outcome is proven, and takes no deterministic time.
        """
        allowed = np.ones(len(self.costs), dtype=bool)
        for limit in limits:
            sign = -1 if limit.measure.maximise else 1
            allowed &= self.costs[:, self.goals.index(limit.measure)] <= sign * limit.bound
        rows = np.flatnonzero(allowed)
        if not rows.size:
            return SearchOutcome(None, None, None, False, infeasible=True, deterministic_time=0.0)
        costs = self.costs[rows, self.goals.index(goal)]
        best = int(np.argmin(costs))
        value = (-1 if goal.maximise else 1) * int(costs[best])
        chunk, place = self.plans[rows[best]]
        return SearchOutcome(chunk.assignment(place), value, value, True, False, 0.0)
