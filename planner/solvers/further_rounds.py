"""Further rounds: how many students there can be where communities are handed out again.

With more students than communities each student has one community, and no community is handed out
twice more often than another (arXiv:1907.11804, section 5.1).  Then counts say nearly all of a
plan, so that any number of students is a small model, for one drop step and one shape of G0:

counts[b, o, n]  students of mode o with n filters on board b
students[o, n]   the same, wherever they are: no fewer than counts / copies, no more than counts
full             rounds in which each kept community is handed out

A student costs the least that it can, alone or among several; where students share G0, what
follows G0, and a board with any pays for the least G0.  The host's order of sends and failures of
boards are left out: no plan is lost, and where the model has none there is none.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

from planner import solvers as cp_model
from planner.data.modes import (
    LATEST_UNITS,
    DropChoice,
)
from planner.data.objective_function import ObjectiveBound, ObjectiveFunction, StudentQuantity
from planner.data.problem_data import ProblemData, kept_communities
from planner.problem.budgets import IN_TURN, Resource
from planner.solvers import SolverRuns, SolverTask
from planner.solvers.constraints import inversion_of_counts
from planner.solvers.level_solver import SearchOutcome
from planner.solvers.reliability_model import LOGARITHMS, Logarithm, size_logarithms
from planner.solvers.resource_use import MOST_STUDENTS, LeastUse
from planner.solvers.variables import Expr, sum_of

LARGEST_AMOUNT = 10**11
"""Of more parameters or MACs the solver's whole numbers hold no logarithm."""
MOST_COUNTS = 20_000
"""A model with more counts is not asked: then any number of students is thought possible."""
ANYTHING = 10**17
"""More than is counted of what this model leaves out."""


class FurtherRounds:
    """CP-SAT model of all plans with more students than communities, by counts."""

    def __init__(self, data: ProblemData, drop: DropChoice, group0: str, more_than: int) -> None:
        self.model = cp_model.CpModel()
        data = replace(data, max_students=MOST_STUDENTS)
        self._data, self._drop = data, drop
        self._sizes = Counter(data.sizes[c] for c in kept_communities(data, drop))
        of = LeastUse.behind_group0 if data.shares_stem else LeastUse.of
        uses = {
            (b, o, n): of(data.capacities[b], mode, n)
            for b in data.boards
            for o, mode in enumerate(data.modes)
            if mode.group0 == group0
            for n in self._sizes
        }
        self._uses = {
            key: use for key, use in uses.items() if use.most(data.capacities[key[0]]) > 0
        }
        self._counts = {
            key: self._variable(use.most(data.capacities[key[0]]), key)
            for key, use in self._uses.items()
        }
        modes = [mode for mode in data.modes if mode.group0 == group0]
        self._stems = {
            b: (LeastUse.of_group0(data.capacities[b], modes), self._presence(b))
            for b in (data.boards if data.shares_stem else ())
        }
        self._students = self._wherever_they_are()
        self.logarithms: list[Logarithm] = []
        self._add_rules(more_than)

    def _variable(self, most: int, name: object) -> cp_model.IntVar:
        return self.model.new_int_var(0, min(most, MOST_STUDENTS), f"{name}")

    def _presence(self, board: int) -> cp_model.IntVar:
        """Whether a board has students."""
        there, capacity = self.model.new_bool_var(f"there{board}"), self._data.capacities[board]
        here = {key: count for key, count in self._counts.items() if key[0] == board}
        for key, count in here.items():
            self.model.add(count <= min(self._uses[key].most(capacity), MOST_STUDENTS) * there)
        self.model.add(there <= sum_of(here.values()))
        return there

    def _wherever_they_are(self) -> dict[tuple[int, int], Expr]:
        """Students of each mode and number of filters; of copies, a variable."""
        found: dict[tuple[int, int], Expr] = {}
        for mode, filters in dict.fromkeys((o, n) for _, o, n in self._counts):
            here = [x for (_, o, n), x in self._counts.items() if (o, n) == (mode, filters)]
            count = sum_of(here)
            if self._data.has_copies:
                one = self._variable(MOST_STUDENTS, ("students", mode, filters))
                self.model.add(one <= count)
                self.model.add(count <= self._data.max_copies * one)
                count = one
            found[mode, filters] = count
        return found

    def _add_rules(self, more_than: int) -> None:
        data = self._data
        self.model.add(self.students() >= max(data.min_students, more_than + 1))
        full = self.model.new_int_var(1, MOST_STUDENTS, "full")
        for size, kept in self._sizes.items():
            held = sum_of(count for (_, n), count in self._students.items() if n == size)
            self.model.add(held >= kept * full)
            self.model.add(held <= kept * full + kept)
        for board in data.boards:
            for figure, limit in data.capacities[board].limits:
                if limit is not None:
                    self.model.add(self.on(board, figure) <= limit)

    # The view; what is not modelled is as good as it could be.

    def on(self, board: int, figure: Resource) -> Expr:
        """Return the least of a figure that a board's students have.

        Each that is there has no more than the largest.
        """
        counted = [(self._uses[key], n) for key, n in self._counts.items() if key[0] == board]
        if figure not in IN_TURN:
            here = [getattr(use, figure) * count for use, count in counted]
            if resting := self._data.capacities[board].resting(figure):
                here.append(resting * self._presence(board))
            return sum_of([*here, *self._group0(board, figure)])
        largest = self.model.new_int_var(0, LATEST_UNITS, f"largest {figure}{board}")
        for part in self._group0(board, figure):
            self.model.add(largest >= part)
        for use, count in counted:
            there = self.model.new_bool_var(f"{figure}{board}")
            self.model.add(count <= MOST_STUDENTS * there)
            self.model.add(largest >= getattr(use, figure) * there)
        return sum_of([largest])

    def _group0(self, board: int, figure: Resource) -> Iterator[Expr | int]:
        """Yield what G0 uses of a board, alone or shared."""
        yield self._data.stem_usage_on(board, figure)
        if board in self._stems:
            use, there = self._stems[board]
            yield getattr(use, figure) * there

    def total(self, figure: Resource) -> Expr:
        """Return a figure, added up over all boards."""
        students = (getattr(self._uses[key], figure) * count for key, count in self._counts.items())
        stems = (getattr(use, figure) * there for use, there in self._stems.values())
        return sum_of([*students, *stems, self._data.stem_usage(figure)])

    def knowledge(self, figure: StudentQuantity) -> Expr:
        """Return a figure, added up over all students, copies not counted."""
        if not self._data.has_copies:
            return self.total(figure)
        amounts = {(o, n): getattr(use, figure) for (_, o, n), use in self._uses.items()}
        stems = (getattr(use, figure) * there for use, there in self._stems.values())
        return sum_of([*(amounts[key] * one for key, one in self._students.items()), *stems])

    def students(self) -> Expr:
        """Return how many students there are."""
        return sum_of(self._students.values())

    def boards(self) -> Expr:
        """Return the least number of boards, or G0 alone."""
        used = map(self._presence, self._data.boards)
        return sum_of([*used, int(self._data.stem is not None)])

    def highest(self, figure: Resource) -> Expr:
        """Let highest >= the figure of each board."""
        highest = self.model.new_int_var(0, LATEST_UNITS, f"highest {figure}")
        self.model.add(highest >= self._data.stem_usage(figure))
        for board in self._data.boards:
            self.model.add(highest >= self.on(board, figure))
        return highest

    def period(self) -> Expr:
        """Return the time that the busiest processor computes."""
        return self.highest("busy")

    def latency(self) -> Expr:
        """Let latency >= what each board computes and replies, plus the fixed latency."""
        return self._latency

    @cached_property
    def _latency(self) -> Expr:
        data = self._data
        latency = self.model.new_int_var(data.fixed_latency, LATEST_UNITS, "latency")
        for board in () if data.has_copies else data.boards:
            here = [(key, count) for key, count in self._counts.items() if key[0] == board]
            reply = sum_of(self._uses[key].reply * count for key, count in here)
            self.model.add(latency >= self.on(board, "busy") + reply + data.fixed_latency)
        return latency

    def size(self) -> Expr:
        """Sum up the logarithms of parameters and of MACs."""
        most = Counter[int]()
        for key, use in self._uses.items():
            most[key[0]] = max(most[key[0]], use.most(self._data.capacities[key[0]]))
        data = replace(self._data, max_students=max(1, most.total()))
        if max(data.usage_range(figure)[1] for figure in LOGARITHMS) > LARGEST_AMOUNT:
            return self.model.new_int_var(0, ANYTHING, "size")
        self.logarithms = self.logarithms or size_logarithms(self.model, self, data)
        return sum_of(one.value for one in self.logarithms)

    def unevenness(self) -> Expr:
        """Return 0: as many communities as students."""
        return sum_of([0])

    def spread(self) -> Expr:
        """Return the largest community less the smallest, of those that are kept."""
        return sum_of([max(self._sizes) - min(self._sizes)])

    def inversion(self) -> Expr:
        """Return most filters that a wider student has fewer than a narrower one."""
        return inversion_of_counts(self.model, self._data, self._students, MOST_STUDENTS)

    def dropped(self, worth: Callable[[DropChoice], int]) -> Expr:
        """Return the worth of the drop step."""
        return sum_of([worth(self._drop)])

    def survival(self) -> Expr:
        """Return the failures that as many copies as are allowed can survive."""
        return sum_of([self._data.max_copies - 1])

    def robustness(self) -> Expr:
        """Return any expected accuracy, or chance of an accuracy."""
        return self.model.new_int_var(0, ANYTHING, "robustness")

    reliability = robustness


@dataclass(frozen=True, slots=True)
class LeastStudents:
    """Fewest students of a plan of further rounds; None where there is none."""

    students: int | None
    deterministic_time: float


def least_students(
    data: ProblemData,
    limits: Sequence[ObjectiveBound],
    more_than: int,
    *,
    seed: int,
    deterministic_limit: float,
) -> SolverRuns[LeastStudents]:
    """Lower bound on the students of plans with more than so many, under limits.

    `more_than` is at least the number of communities; G0 has its place.  Where a model is too
    large or stopped, any number is thought possible.
    """
    least, took = None, 0.0
    if len(data.capacities) * len(data.modes) * len(set(data.sizes)) > MOST_COUNTS:
        return LeastStudents(more_than + 1, took)
    shapes = sorted({mode.group0 for mode in data.modes})
    for drop in data.drop_choices:
        for shape in shapes:
            rounds = FurtherRounds(data, drop, shape, more_than)
            for limit in limits:
                value = limit.measure.read(rounds)
                within = value >= limit.bound if limit.measure.maximise else value <= limit.bound
                rounds.model.add(within)
            rounds.model.minimize(rounds.students())
            bound, again = more_than + 1, True
            while again:
                solver = cp_model.new_solver(seed, deterministic_limit - took, 2, 1)
                status = yield SolverTask(rounds.model, solver, brief=True)
                took += solver.deterministic_time
                if status == cp_model.INFEASIBLE:
                    break
                bound = max(bound, math.ceil(solver.best_objective_bound - 1e-6))
                solved = status == cp_model.OPTIMAL
                again = solved and sum(one.tighten(solver) for one in rounds.logarithms) > 0
            else:
                least = bound if least is None else min(least, bound)
    return LeastStudents(least, took)


MOST_TRIES = 4
"""How often more students are tried before it is left open whether they are of use."""


class FreeSearch(Protocol):
    """A search for the best assignment of problem data, or any, under limits."""

    def __call__(
        self, data: ProblemData, goal: ObjectiveFunction | None, limits: Sequence[ObjectiveBound], /
    ) -> SearchOutcome:
        """Search; the outcome says what is proven."""


def with_more_students(
    data: ProblemData,
    goal: ObjectiveFunction | None,
    limits: Sequence[ObjectiveBound],
    found: SearchOutcome,
    find: FreeSearch,
    least: Callable[[ProblemData, Sequence[ObjectiveBound], int], int | None],
) -> SearchOutcome:
    """Outcome with any number of students, `found` being that with the most of the data.

    `least` is as `least_students`, of any place of G0.
    """
    most = data.max_students
    for _ in range(MOST_TRIES):
        if goal is None and found.assignment is not None:
            return found
        bounds = [*limits, *_better(goal, found)]
        more = least(data, bounds, most)
        if more is None:
            return found
        further = find(replace(data, min_students=most + 1, max_students=more), goal, bounds)
        if further.assignment is not None:
            found = further
        elif not further.infeasible:
            break
        most = more
    return replace(found, proven=False, infeasible=False, bound=None)


def _better(goal: ObjectiveFunction | None, found: SearchOutcome) -> Iterator[ObjectiveBound]:
    """Bound of assignments that are better by a unit than what was found."""
    if goal is not None and found.value is not None:
        step = goal.tolerance_units + 1
        yield ObjectiveBound(goal, found.value + (step if goal.maximise else -step))
