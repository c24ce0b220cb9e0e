"""Prices that refute a deadline: a linear program over patterns, split by whole counts.

Rows are those of the due-date model, and columns its patterns in part.  Counts in part, such as
10.7 students of the widest network, let a program have a solution where one student fewer breaks an
earlier level's limit, and one more a due date.  So it is split there: at most 10 of them, or at
least 11.  Nothing depends on the solver: its duals, in whole numbers, are prices y of rows, and a
leaf has no plan where

    sum_r max(y_r low_r, y_r high_r) + sum_g boards(g) max(0, max_{e of g} -sum_r y_r row_r(e)) < 0,

with g the boards of one kind, and prices of due dates not negative.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from planner.data.objective_function import OBJECTIVE_FUNCTIONS, ObjectiveBound
from planner.data.problem_data import ProblemData
from planner.heuristics.board_load import PatternCatalogue
from planner.problem.goals import Objective

SUMS: tuple[Objective, ...] = (
    *("capacity", "energy", "memory", "flops"),
    *("fleet-power", "fleet-average-power"),
)
"""Sums over patterns whose limits are rows; a program without other limits allows more."""
SCALE = 2**50
"""Cost of a broken row in whole numbers, by a part of its largest amount."""
LARGEST = 2.0**62
"""Sums of a pattern are less, so that they fit a machine's whole numbers."""
MOST_LEAVES = 40
"""Parts that one question may be split into, those that are split again counted."""
MOST_ROUNDS = 40
"""Programs of one part, each with further due dates."""
NEW_DATES = 6
"""Due dates that are added at a time."""
WHOLE = 1e-6
"""Counts nearer to a whole number are taken for one."""
UNITS_PER_PATTERN, UNITS_PER_STEP = 6e-5, 5e-7
"""Deterministic time of a program's making, and of a step of its solver, for each pattern."""

Counts = Mapping[int, tuple[int, int]]
"""Least and most of some rows, by their places."""


@dataclass(frozen=True, slots=True)
class _BoundedRow:
    """Amount of each pattern, and the least and most that a plan has."""

    amounts: Any
    low: int
    high: int

    @property
    def norm(self) -> float:
        """Largest amount, at least 1: the program's unit of the row."""
        return float(max(1, np.abs(self.amounts).max(initial=1)))


class _PatternQuantities:
    """Quantities of a plan as amounts of each pattern, for sums alone."""

    def __init__(self, data: ProblemData, patterns: PatternCatalogue) -> None:
        self._data, self._loads = data, [one.loading for one in patterns.entries]

    def total(self, figure: str) -> Any:
        """Amount of a figure of each pattern."""
        return np.array([getattr(one, figure) for one in self._loads], dtype=np.int64)

    def knowledge(self, figure: str) -> Any:
        """The same of what students know, G0 of a board counted once."""
        once = figure == "macs" and self._data.shares_stem
        return self.total("known_macs" if once else figure)


class DeadlinePrices:
    """Linear program of all plans by patterns, asked whether there is one within a latency."""

    def __init__(
        self, data: ProblemData, patterns: PatternCatalogue, limits: Sequence[ObjectiveBound]
    ) -> None:
        self._data = data
        loads = [one.loading for one in patterns.entries]
        self._kinds = np.array([one.kind for one in patterns.entries])
        self._sends = np.array([one.send for one in loads], dtype=np.int64)
        self._tails = np.array([one.tail for one in loads], dtype=np.int64)
        sums = self._limited_sums(patterns, limits)
        counts = self._counts(patterns)
        self._split_from = len(sums) + len(patterns.classes)
        self._rows = [*sums, *self._places(patterns), *counts]
        rivals = {kind for kinds, _ in data.rivals for kind in kinds}
        self._groups = [
            (np.isin(self._kinds, kinds), boards)
            for kinds, boards in data.together
            if len(kinds) > 1 or kinds[0] not in rivals
        ]
        self._tail_rows: dict[int, Any] = {}
        self.took = UNITS_PER_PATTERN * len(loads)
        self._build()

    def _limited_sums(
        self, patterns: PatternCatalogue, limits: Sequence[ObjectiveBound]
    ) -> list[_BoundedRow]:
        """Sums that earlier levels or requirements limit."""
        view, rows = _PatternQuantities(self._data, patterns), list[_BoundedRow]()
        for name in SUMS if self._data.stem is None else ():
            measure = OBJECTIVE_FUNCTIONS[name]
            for bound in (limit.bound for limit in limits if limit.measure is measure):
                amounts = measure.read(view) if measure.maximise else -measure.read(view)
                least = bound if measure.maximise else -bound
                rows.append(_BoundedRow(amounts, least, max(least, self._most(amounts))))
        return rows

    def _most(self, amounts: Any) -> int:
        """More than any plan has."""
        return len(self._data.boards) * int(max(0, amounts.max(initial=0)))

    def _places(self, patterns: PatternCatalogue) -> list[_BoundedRow]:
        """Communities that are kept have their places, whichever drop is chosen."""
        data, rows = self._data, list[_BoundedRow]()
        for place, ids in enumerate(patterns.classes):
            kept = [len(set(ids) - drop.communities) for drop in data.drop_choices]
            held = np.array([one.communities(place) for one in patterns.entries], dtype=np.int64)
            rows.append(_BoundedRow(held, min(kept), data.rounds * max(kept)))
        return rows

    def _counts(self, patterns: PatternCatalogue) -> list[_BoundedRow]:
        """Counts that are split: of students, all and in each mode, and of boards."""
        data, tasks = self._data, [one.loading.tasks for one in patterns.entries]
        students = np.array([len(one) for one in tasks], dtype=np.int64)
        rows = [_BoundedRow(students, data.min_students, data.max_students)]
        for mode in sorted({o for one in tasks for o, _ in one}):
            own = [sum(o == mode for o, _ in one) for one in tasks]
            rows.append(_BoundedRow(np.array(own, dtype=np.int64), 0, data.max_students))
        return [*rows, _BoundedRow(np.ones(len(tasks), dtype=np.int64), 0, len(data.boards))]

    def _build(self) -> None:
        """Make the program: rows may be broken, so that it has duals always."""
        from ortools.linear_solver import pywraplp

        self._optimal = pywraplp.Solver.OPTIMAL
        solver = self._solver = pywraplp.Solver.CreateSolver("GLOP")
        goal = solver.Objective()
        goal.SetMinimization()
        self._columns = [solver.NumVar(0, solver.infinity(), "") for _ in self._kinds]
        for own, boards in self._groups:
            self._constraint(-solver.infinity(), boards, own)
        self._bounds = []
        for row in self._rows:
            bound = self._constraint(0, 0, row.amounts / row.norm)
            for sign in (1, -1):
                slack = solver.NumVar(0, solver.infinity(), "")
                bound.SetCoefficient(slack, sign)
                goal.SetCoefficient(slack, 1)
            self._bounds.append(bound)

    def _constraint(self, low: float, high: float, amounts: Any) -> Any:
        row = self._solver.Constraint(low, high, "")
        for place in np.flatnonzero(amounts).tolist():
            row.SetCoefficient(self._columns[place], float(amounts[place]))
        return row

    def refutes(self, latency: int, deterministic_limit: float) -> bool:
        """Whether no plan is within a latency, in solver units; False for no answer."""
        until, start = latency - self._data.fixed_latency, self.took
        early = self._sends + self._tails <= until
        for column, there in zip(self._columns, early.tolist(), strict=True):
            column.SetUb(self._solver.infinity() if there else 0.0)
        for tail, row in self._tail_rows.items():
            row.SetUb(max(0, until - tail) / self._largest_send)
        boxes: list[Counts] = [{}]
        for _ in range(MOST_LEAVES):
            if self.took - start > deterministic_limit:
                return False
            box = boxes.pop()
            shares = self._solved(until, box)
            if shares is None:
                return False
            if not self._closes(until, early, box):
                ways = self._split(shares, box)
                if ways is None:
                    return False
                boxes += ways
            if not boxes:
                return True
        return False

    @property
    def _largest_send(self) -> float:
        return float(max(1, self._sends.max(initial=1)))

    def _bounds_of(self, place: int, box: Counts) -> tuple[int, int]:
        row = self._rows[place]
        return box.get(place, (row.low, row.high))

    def _solved(self, until: int, box: Counts) -> Any:
        """Shares of patterns in the optimum, all due dates kept; None for none."""
        for place, (row, bound) in enumerate(zip(self._rows, self._bounds, strict=True)):
            low, high = self._bounds_of(place, box)
            bound.SetBounds(low / row.norm, high / row.norm)
        for _ in range(MOST_ROUNDS):
            solved = self._solver.Solve() == self._optimal
            self.took += UNITS_PER_STEP * (1 + self._solver.iterations()) * len(self._columns)
            if not solved:
                return None
            shares = np.array([column.solution_value() for column in self._columns])
            # What a solution holds is lost with the next change of the program.
            self._duals = [row.dual_value() for row in self._bounds]
            self._date_duals = {tail: row.dual_value() for tail, row in self._tail_rows.items()}
            if not self._add_dates(until, shares):
                return shares
        return None

    def _add_dates(self, until: int, shares: Any) -> bool:
        """Add due dates that the solution breaks most, apart from each other."""
        used = np.flatnonzero(shares > WHOLE)
        used = used[np.argsort(-self._tails[used], kind="stable")]
        over = np.cumsum(shares[used] * self._sends[used]) + self._tails[used] - until
        added: list[int] = []
        for place in np.argsort(-over, kind="stable").tolist():
            tail = int(self._tails[used[place]])
            if over[place] <= 1 or len(added) == NEW_DATES:
                break
            apart = all(abs(tail - one) * 100 > until for one in added)
            if apart and tail not in self._tail_rows:
                added.append(tail)
        for tail in added:
            date = max(0, until - tail) / self._largest_send
            sent = self._sent_before(tail) / self._largest_send
            self._tail_rows[tail] = self._constraint(-self._solver.infinity(), date, sent)
        return bool(added)

    def _sent_before(self, tail: int) -> Any:
        """Send of each pattern that is due no later than one of this tail."""
        return np.where(self._tails >= tail, self._sends, 0)

    def _split(self, shares: Any, box: Counts) -> list[Counts] | None:
        """Two boxes, by the count that is least whole; None where all are whole."""
        counts = range(self._split_from, len(self._rows))
        parts = {place: float(self._rows[place].amounts @ shares) for place in counts}
        place = max(parts, key=lambda one: abs(parts[one] - round(parts[one])))
        if abs(parts[place] - round(parts[place])) < WHOLE:
            return None
        (low, high), below = self._bounds_of(place, box), math.floor(parts[place])
        return [{**box, place: (low, below)}, {**box, place: (below + 1, high)}]

    def _closes(self, until: int, early: Any, box: Counts) -> bool:
        """Whether duals, in whole numbers, prove that a leaf has no plan."""
        rows: list[tuple[Any, int, int]] = []
        for place, (row, dual) in enumerate(zip(self._rows, self._duals, strict=True)):
            y = -round(SCALE * dual / row.norm)
            rows.append((row.amounts, y, max(y * end for end in self._bounds_of(place, box))))
        for tail, dual in self._date_duals.items():
            y = max(0, -round(SCALE * dual / self._largest_send))
            rows.append((self._sent_before(tail), y, y * max(0, until - tail)))
        total = sum(side for _, _, side in rows)
        left = np.zeros(len(self._kinds), dtype=np.int64)
        most = np.zeros(len(self._kinds))
        for amounts, y, _ in rows:
            most += abs(float(y)) * np.abs(amounts)
            if most.max(initial=0) > LARGEST:
                return False
            left -= y * amounts
        for own, boards in self._groups:
            total += boards * max(0, int(left[early & own].max(initial=0)))
        return total < 0
