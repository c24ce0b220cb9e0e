"""Enumeration: all plans of a small problem in whole numbers, where they can be counted.

What a plan is worth depends on how many filters each student has, and which students are on which
board.  So each division of the communities by sizes, and each placement of these sizes on classes
of boards, is taken once.  A board's cost is that of the *set* of students on it, in the units and
by the function of all searches (`planner.heuristics.board_load.cached_loads`).  Sets that no budget
keeps go first; then those that another set of the same students beats in all that counts, which
loses nothing, as every objective only gains by it.  The rest are multiplied out with numpy.

What is left are the plans that no other one dominates.  The best plan within upper limits of all
objectives is always among them, so that every search of a front can be answered from them alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import product

import numpy as np

from nonn_core.networks.network_cost import head_peaks
from planner.data.mode_costs import StudentLoad, knows_layers, stem_cost
from planner.data.objective_function import (
    INVERSION,
    OBJECTIVE_FUNCTIONS,
    UNEVENNESS,
    ObjectiveBound,
    ObjectiveFunction,
)
from planner.data.problem_data import ProblemData
from planner.exploration.plan_chunk import (
    BudgetNeed,
    Grouping,
    PlanArchive,
    PlanChunk,
    StudentSets,
    UndominatedPlans,
    Units,
    even_groupings,
    groupings,
    plan_chunks,
    power_units,
    undominated_rows,
)
from planner.heuristics.board_load import BoardLoad, cached_loads
from planner.problem.budgets import IN_TURN, LIMITED, Resource
from planner.problem.goals import Objective

MOST_PLANS = 10**8
"""Of more plans, budgets not counted, none is enumerated."""
MOST_PLACEMENTS = 50_000
"""Of more placements of divisions none is enumerated, however few modes there are."""
PLANS_PER_UNIT = 10**7
"""Plans that are taken for a unit of deterministic time."""
PLACEMENTS_PER_UNIT = 5_000
"""Placements of divisions likewise."""


Counted = tuple[tuple[str, int], ...]
"""Figures of a set of students on a board; 1 where less is better, else -1."""

_WIDTH = ("width", 0)
_COUNTS: dict[Objective, Counted] = {
    "accuracy": (("params", -1), ("known_macs", -1)),
    "capacity": (("params", -1),),
    "imbalance": (),
    "dropped": (),
    "latency": (("late", 1),),
    "latency-p95": (("late", 1),),
    "throughput": (("busy", 1),),
    "energy": (("energy", 1),),
    "energy-node": (("energy", 1),),
    "battery": (("drain", 1),),
    "fleet-power": (("power", 1),),
    "fleet-average-power": (("cycle", 1),),
    "memory": (("memory_bytes", 1),),
    "flops": (("macs", 1),),
    "boards": (),
    "students": (),
    "precision": (("value_bytes", -1),),
}
"""Figures that each objective counts."""

_FIGURES = (
    *("memory_bytes", "macs", "params", "known_macs", "value_bytes", "busy", "energy", "late"),
)


_GROWING: tuple[Resource, ...] = ("memory_bytes", "macs", "flash_bytes", "ram_bytes")
"""Limited figures that only grow with further students."""
Limits = tuple[tuple[Resource, int | None], ...]


def supports(data: ProblemData, measures: Sequence[ObjectiveFunction]) -> bool:
    """Whether plans of this kind can be enumerated for these measures.

    Not with copies, students of further rounds, or G0 on a board of its own; nor by latency where
    boards share a medium or draw their times for a percentile.
    """
    known = [UNEVENNESS, INVERSION, *(OBJECTIVE_FUNCTIONS[name] for name in _COUNTS)]
    if data.has_copies or data.rounds > 1 or data.stems or data.stem or not data.copies_stem:
        return False
    if any(measure not in known for measure in measures):
        return False
    if data.shared_media and any(measure.timed for measure in measures):
        return False
    return not (data.spreads and any(measure.share is not None for measure in measures))


@dataclass(frozen=True)
class Enumeration:
    """All plans of problem data: their number, and those that no other one dominates."""

    data: ProblemData
    divisions: tuple[Grouping, ...]

    @classmethod
    def of(cls, data: ProblemData, measures: Sequence[ObjectiveFunction]) -> "Enumeration | None":
        """Return the enumeration; None where it is not possible, or of too many plans."""
        if not supports(data, measures):
            return None
        found = groupings(data)
        if found is None:
            return None
        made = cls(data, tuple(found))
        return made if made.placements <= MOST_PLACEMENTS and made.plans <= MOST_PLANS else None

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Modes by the shape of their G0, which all students share."""
        modes = self.data.modes
        return {
            shape: tuple(o for o, mode in enumerate(modes) if mode.group0 == shape)
            for shape in dict.fromkeys(mode.group0 for mode in modes)
        }

    @property
    def placements(self) -> int:
        """Number of placements of all divisions, alike boards and students told apart."""
        return sum(len(self.data.boards) ** len(one.sizes) for one in self.divisions)

    @property
    def plans(self) -> int:
        """Number of plans, also of those that break a budget or differ in names alone."""
        return sum(
            (len(self.data.boards) * len(modes)) ** len(one.sizes)
            for one in self.divisions
            for modes in self.shapes.values()
        )

    @property
    def deterministic_time(self) -> float:
        """Time that it takes, in the solver's unit, by the number of plans and placements."""
        return self.plans / PLANS_PER_UNIT + self.placements / PLACEMENTS_PER_UNIT

    def undominated(
        self,
        goals: Sequence[ObjectiveFunction],
        limits: Sequence[ObjectiveBound],
        needs: Sequence[BudgetNeed] = (),
    ) -> "UndominatedPlans":
        """Plans within budgets and limits that no other such plan dominates in goals and needs."""
        signs = [-1 if goal.maximise else 1 for goal in goals]
        wanted = [*goals, *(limit.measure for limit in limits)]
        kept = PlanArchive(len(goals) + len(needs))
        counted = (*_counted(wanted), *((need.figure, 1) for need in needs))
        for chunk in self._chunks(tuple(dict.fromkeys(counted)), limits):
            allowed = np.ones(chunk.shape, dtype=bool)
            for limit in limits:
                value = limit.measure.read(chunk)
                good = value >= limit.bound if limit.measure.maximise else value <= limit.bound
                allowed &= good
            costs = [
                np.broadcast_to(sign * goal.read(chunk), chunk.shape)[allowed]
                for sign, goal in zip(signs, goals, strict=True)
            ] + [np.broadcast_to(chunk.need(need), chunk.shape)[allowed] for need in needs]
            kept.add(chunk, np.stack(costs, axis=1), np.flatnonzero(allowed.ravel()))
        return UndominatedPlans(tuple(goals), *kept.plans())

    def _chunks(self, counted: Counted, limits: Sequence[ObjectiveBound]) -> Iterator["PlanChunk"]:
        """Yield plans of one division on one placement, so many at once."""
        even = even_groupings(self.data, self.divisions, limits)
        chosen: dict[tuple[str, int, tuple[int, ...]], StudentSets | None] = {}
        priced = _priced_sets(_without_budgets(self.data))
        for (shape, modes), division in product(self.shapes.items(), even):
            for placed in self._placed(division.sizes):
                sets = []
                for board, sizes in placed:
                    key = (shape, self.data.board_class(board), sizes)
                    if key not in chosen:
                        chosen[key] = self._kept_sets(priced, board, modes, sizes, counted)
                    here = chosen[key]
                    if here is None:
                        break
                    sets.append((board, here))
                else:
                    yield from plan_chunks(self.data, division, sets)

    def _placed(self, sizes: tuple[int, ...]) -> Iterator[tuple[tuple[int, tuple[int, ...]], ...]]:
        """Yield the sizes of each board that has students, once for alike boards and sizes."""
        seen = set()
        for boards in product(self.data.boards, repeat=len(sizes)):
            on = {
                board: tuple(n for n, b in zip(sizes, boards, strict=True) if b == board)
                for board in sorted(set(boards))
            }
            key = tuple(sorted((self.data.board_class(board), own) for board, own in on.items()))
            if key not in seen and not self.data.points_too_many(on):
                seen.add(key)
                yield tuple(on.items())

    def _kept_sets(
        self,
        priced: "PricedSets",
        board: int,
        modes: tuple[int, ...],
        sizes: tuple[int, ...],
        counted: Counted,
    ) -> StudentSets | None:
        """Sets of students that keep the board's budgets and that no other set beats."""
        capacity = self.data.capacities[board]
        limits = {name: getattr(capacity, name) for name in _GROWING}
        memories = tuple(
            (name, limit)
            for name, limit in limits.items()
            if limit is not None or name in ("memory_bytes", "macs")
        )
        found = priced.of(board, modes, sizes, memories)
        if found is None:
            return None
        fits = np.ones(len(found), dtype=bool)
        for name, limit in capacity.limits:
            if limit is not None:
                fits &= found.figures[name] <= limit
        rows = np.flatnonzero(fits)
        if not rows.size:
            return None
        costs = [sign * found.figures[name][rows] for name, sign in counted if sign]
        if _WIDTH in counted:  # only sets whose students are as wide replace each other
            ranks = np.array(self.data.width_ranks)[found.modes[rows]]
            costs += [*ranks.T, *-ranks.T]
        if not costs:
            return found.rows(rows[:1])
        return found.rows(rows[undominated_rows(np.stack(costs, 1))])


def _counted(measures: Sequence[ObjectiveFunction]) -> Counted:
    """Figures of a board's students that these measures count."""
    every = (
        counted
        for measure in measures
        for name, own in _COUNTS.items()
        if OBJECTIVE_FUNCTIONS[name] is measure
        for counted in own
    )
    return (*dict.fromkeys(every), *([_WIDTH] if INVERSION in measures else []))


class PricedSets:
    """Figures of sets of students on boards, whatever the budgets, each computed once."""

    def __init__(self, data: ProblemData) -> None:
        self._data, self._load = data, cached_loads(data)
        self._found: dict[object, StudentSets | None] = {}

    def of(
        self, board: int, modes: tuple[int, ...], sizes: tuple[int, ...], limits: Limits
    ) -> StudentSets | None:
        """Return the sets within these limits, of figures that only grow with students."""
        key = (board, modes, sizes, limits)
        if key not in self._found:
            self._found[key] = self._priced(board, modes, sizes, limits)
        return self._found[key]

    def _priced(
        self, board: int, modes: tuple[int, ...], sizes: tuple[int, ...], limits: Limits
    ) -> StudentSets | None:
        parts = np.empty((1, 0), dtype=np.int64)
        if len(sizes) > 1:
            smaller = self.of(board, modes, sizes[:-1], limits)
            if smaller is None:
                return None
            parts = smaller.modes
        chosen = np.column_stack([np.repeat(parts, len(modes), axis=0), np.tile(modes, len(parts))])
        if sizes[-1:] == sizes[-2:-1]:  # students of one size are told apart by their modes alone
            chosen = chosen[chosen[:, -2] <= chosen[:, -1]]
        figures = self._figures(board, chosen, sizes, tuple(name for name, _ in limits))
        if self._data.counts_power:
            device = self._data.capacities[board].board.device
            figures["power"] = power_units(device, figures["macs"])
        fits = np.ones(len(chosen), dtype=bool)
        for name, limit in limits:
            if limit is not None:
                fits &= figures[name] <= limit
        if not fits.any():
            return None
        one = self._load(board, _tasks(chosen[0], sizes))
        return StudentSets(
            sizes=sizes,
            modes=chosen[fits],
            figures={name: values[fits] for name, values in figures.items()},
            send=one.send,
            reply=one.reply,
            delay=one.delay,
        )

    def _figures(
        self, board: int, chosen: Units, sizes: tuple[int, ...], limited: Sequence[str]
    ) -> dict[str, Units]:
        """Figures of each row of modes: those that objectives count, and limited ones."""
        modes = [self._data.modes[mode] for mode in np.unique(chosen)]
        capacity = self._data.capacities[board]
        kinds = {(mode.precision, knows_layers(capacity.board.device, mode)) for mode in modes}
        drained = [name for name in ("drain", "cycle") if capacity.drain_of(name)]
        names = tuple(dict.fromkeys((*_FIGURES, *limited, *drained)))
        if self._data.shares_stem and len(sizes) > 1 and len(kinds) > 1:
            loads = [self._load(board, _tasks(row, sizes)) for row in chosen]
            return {name: _column(loads, name) for name in names}
        added = self._sums(board, chosen, sizes, [name for name in names if name not in IN_TURN])
        if self._data.shares_stem and len(sizes) > 1:
            value_bytes = self._data.modes[int(chosen[0, 0])].value_bytes
            peak = value_bytes * self._joint_peak(chosen, sizes)
            return added | {"memory_bytes": value_bytes * added["params"] + peak, "ram_bytes": peak}
        for name in IN_TURN.intersection(limited):
            added[name] = self._largest(board, chosen, sizes, name)
        return added

    def _largest(
        self, board: int, chosen: Units, sizes: tuple[int, ...], figure: Resource
    ) -> Units:
        """Largest use of a resource by one student of each row."""
        found = np.zeros(len(chosen), dtype=np.int64)
        for column, size in zip(chosen.T, sizes, strict=True):
            modes, place = np.unique(column, return_inverse=True)
            alone = [self._load(board, ((int(mode), size),)) for mode in modes]
            found = np.maximum(found, _column(alone, figure)[place])
        return found

    def _sums(
        self, board: int, chosen: Units, sizes: tuple[int, ...], names: Sequence[str]
    ) -> dict[str, Units]:
        """Figures that each student adds to as much, whichever others there are.

        That of company is what a third such student adds to two; two of them less twice that is
        what all students share, if anything.
        """
        found = {name: np.zeros(len(chosen), dtype=np.int64) for name in names}
        for number, (column, size) in enumerate(zip(chosen.T, sizes, strict=True)):
            modes, place = np.unique(column, return_inverse=True)
            one, two, three = (
                [self._load(board, ((int(mode), size),) * copies) for mode in modes]
                for copies in (1, 2, 3)
            )
            for name, values in found.items():
                added = _column(three, name) - _column(two, name)
                if len(sizes) == 1:
                    added = _column(one, name)
                elif number == 0:
                    values += _column(two, name)[0] - 2 * added[0]
                values += added[place]
        return found

    def _joint_peak(self, chosen: Units, sizes: tuple[int, ...]) -> Units:
        """Peak elements of joint models of several students (`network_cost.joint_cost`).

        The peak is that of G0, or the largest of a head and the features of all students.
        """
        highest = np.zeros(len(chosen), dtype=np.int64)
        for column, size in zip(chosen.T, sizes, strict=True):
            modes, place = np.unique(column, return_inverse=True)
            lines = [head_peaks(self._data.modes[mode].line.outline) for mode in modes]
            peaks = [max(fixed + slope * size for fixed, slope in each) for each in lines]
            highest = np.maximum(highest, np.array(peaks, dtype=np.int64)[place])
        mode = self._data.modes[int(chosen[0, 0])]
        return np.maximum(stem_cost(mode).peak_elements, highest + sum(sizes))


def _column(loads: Sequence[BoardLoad], name: str) -> Units:
    return np.array([getattr(load, name) for load in loads], dtype=np.int64)


def _tasks(modes: Units, sizes: tuple[int, ...]) -> tuple[StudentLoad, ...]:
    """Students of one row of modes, as a board's load is asked for."""
    return tuple(sorted(zip(modes.tolist(), sizes, strict=True)))


@lru_cache(maxsize=2)
def _priced_sets(data: ProblemData) -> PricedSets:
    """Priced sets of all questions that differ in budgets only."""
    return PricedSets(data)


def _without_budgets(data: ProblemData) -> ProblemData:
    free = (replace(one, latest=None).limited(dict.fromkeys(LIMITED)) for one in data.capacities)
    return replace(data, capacities=tuple(free))
