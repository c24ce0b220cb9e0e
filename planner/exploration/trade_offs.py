"""Trade-offs: Pareto fronts over objectives, and break-points over a budget, by solving.

A region holds the plans that are within a bound on each objective.  The lexicographic optimum of a
region is on the front: what dominates it lies in the same region.  Whatever is not yet covered is
then better than it in one objective at least, which splits each region that it lies in (Klamroth,
Lacour and Vanderpooten 2015).  The front is complete when every region is proven empty.
Objectives count in solver units, less being better; what rounding may hide of one counts as equal.

Break-points of a budget are the least budgets at which a better optimum starts, each found exactly,
from the top of a range downwards: what is the optimum here?  How little of the budget does a plan
need that is as good?  Just below that, what is the optimum?  So on, until there is no plan or the
range ends.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from nonn_common import Progress, silent
from nonn_common.document import Record
from nonn_common.errors import InfeasibleError, UnprovenError
from nonn_common.units import FLOPS_PER_MAC
from planner.data.modes import LATEST_UNITS, Assignment
from planner.data.objective_function import (
    OBJECTIVE_FUNCTIONS,
    ObjectiveBound,
    ObjectiveFunction,
    rounding_units,
)
from planner.data.problem_data import ProblemData, resolve_problem
from planner.data.relaxable_constraint import (
    UNLIMITED,
    budget_criteria,
    loosened_budgets,
    requirement_bounds,
)
from planner.exploration.budget_grid import BudgetGrid, breaks_by_rounding, cell_plans
from planner.heuristics.solution import EvaluatedSolution
from planner.plan_file.evaluation import PlanEvaluation
from planner.problem.budgets import BUDGETS, BudgetName, Resource
from planner.problem.goals import MAXIMISED
from planner.problem.problem import Problem
from planner.solvers.level_solver import SearchOutcome
from planner.solvers.lexicographic import (
    LimitedSearch,
    OptimalLevel,
    lexicographic,
    lexicographic_optimum,
    with_least_inversion,
)
from planner.solvers.search import SolverSession

SAME = 1e-9
"""Values as people read them that differ by no more than this part are the same."""

Region = npt.NDArray[np.int64]
"""The most that each objective may be, in solver units, less being better; `_ANY` for any.

An array of one region, or of several in rows.
"""
_ANY = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class FrontMember:
    """A plan of the front and its objectives in solver units, less being better."""

    costs: tuple[int, ...]
    assignment: Assignment


@dataclass(frozen=True, slots=True)
class ParetoFront:
    """Plans none of which dominates another; `complete` where it is proven that none is missing.

    The proof is an enumeration of so many plans where `enumerated` is not None, else the solver's.
    `evaluations` are those of the plans, whose budgets may be those of another cell of a grid.
    """

    found: tuple[FrontMember, ...]
    complete: bool
    enumerated: int | None = None
    evaluations: tuple[PlanEvaluation, ...] = ()


def find_pareto_front(
    session: SolverSession, progress: Progress = silent, grid: BudgetGrid | None = None
) -> ParetoFront:
    """Return the front over the problem's objectives, best in the first one first.

    Tolerances of the objectives do not matter.  Where the plans can be enumerated within the limit
    of the session, each search is answered from all of them, those of a `grid` enumerated once;
    else the solver answers it.
    """
    problem = session.problem
    goals = [OBJECTIVE_FUNCTIONS[level.objective] for level in problem.objective]
    hidden = [rounding_units(problem, goal) for goal in goals]
    plans = cell_plans(problem, grid)
    if plans is not None and plans.deterministic_time > session.time_budget.remaining:
        plans = None

    def solved(
        goal: ObjectiveFunction, limits: Sequence[ObjectiveBound], incumbent: Assignment | None
    ) -> SearchOutcome:
        return session.search(data, goal, [*always, *limits], incumbent)

    search: LimitedSearch = solved
    evaluate: Callable[[Problem, Assignment], PlanEvaluation] = PlanEvaluation.of
    if plans is None:
        always, data = requirement_bounds(problem, loosened=True), loosened_budgets(problem)
    else:
        search, evaluate = plans.search, plans.evaluation
        session.time_budget.remaining -= plans.deterministic_time
    found = pareto_front_of(
        goals, hidden, search, lambda number: progress("Pareto front", number, 0)
    )
    kept = [one for one in found.found if not breaks_by_rounding(problem, one.assignment)]
    complete = found.complete and len(kept) == len(found.found)
    evaluations = [evaluate(problem, one.assignment) for one in kept]
    best = _undominated(problem, evaluations)
    return ParetoFront(
        tuple(kept[place] for place in best),
        complete,
        plans.enumerated if plans else None,
        tuple(evaluations[place] for place in best),
    )


def pareto_front_of(
    goals: Sequence[ObjectiveFunction],
    hidden: Sequence[int],
    search: LimitedSearch,
    tell: Callable[[int], None] = lambda _: None,
) -> ParetoFront:
    """Return the front of problem data; `hidden` is what rounding may hide of each goal."""
    return _Regions(goals, hidden, search).explored(tell)


class _Regions:
    """The regions that may still hold a plan of the front, and those proven empty.

    Rows of arrays, a column for each goal.  No open region is within another or an empty one.
    """

    def __init__(
        self,
        goals: Sequence[ObjectiveFunction],
        hidden: Sequence[int],
        search: LimitedSearch,
    ) -> None:
        self._goals, self._search = goals, search
        self._hidden = np.array(hidden, dtype=np.int64)
        self._signs = [-1 if goal.maximise else 1 for goal in goals]
        self._open: Region = np.full((1, len(goals)), _ANY)
        self._empty: list[Region] = []

    def explored(self, tell: Callable[[int], None]) -> ParetoFront:
        """Search region after region until none is left."""
        found: list[FrontMember] = []
        complete = True
        while len(self._open):
            tell(len(found))
            region = self._taken()
            best, sure = self._best_in(region)
            complete = complete and sure
            if best is None:
                self._empty.append(region)
                continue
            found.append(best)
            costs = np.array(best.costs, dtype=np.int64)
            # Nothing in the region is better in what was optimised first.
            self._empty.append(self._better(region[None], 0, costs)[0])
            self._split(np.vstack([self._open, region]), costs)
        return ParetoFront(tuple(sorted(found, key=lambda one: one.costs)), complete)

    def _taken(self) -> Region:
        """Take the region with the largest first bound, then the second, and so on."""
        rows = np.arange(len(self._open))
        for column in self._open.T:
            rows = rows[column[rows] == column[rows].max()]
        region: Region = self._open[rows[0]]
        self._open = np.delete(self._open, rows[0], axis=0)
        return region

    def _best_in(self, region: Region) -> tuple[FrontMember | None, bool]:
        """Return the lexicographic optimum of a region, if any, and whether that is proven."""
        costs: list[int] = []
        sure = True

        def keep() -> ObjectiveBound:
            place = len(costs) - 1
            worst = costs[place] + int(self._hidden[place])
            return ObjectiveBound(self._goals[place], self._signs[place] * worst)

        outcomes = lexicographic(self._search, self._goals, self._limits(region), keep)
        for sign, outcome in zip(self._signs, outcomes, strict=True):
            if outcome.value is None or outcome.assignment is None:
                return None, outcome.infeasible
            sure = sure and outcome.proven
            costs.append(sign * outcome.value)
            best = FrontMember(tuple(costs), outcome.assignment)
        return best, sure

    def _limits(self, region: Region) -> list[ObjectiveBound]:
        return [
            ObjectiveBound(goal, sign * bound)
            for goal, sign, bound in zip(self._goals, self._signs, region.tolist(), strict=True)
            if bound < _ANY
        ]

    def _better(self, regions: Region, place: int, costs: Region) -> Region:
        """Return the parts of regions that are better in one objective, beyond all rounding."""
        parts = regions.copy()
        most = costs[place] - self._hidden[place] - 1
        parts[:, place] = np.minimum(parts[:, place], most)
        return parts

    def _split(self, regions: Region, costs: Region) -> None:
        """Leave open what a new plan of the front does not cover."""
        holding = (costs <= regions).all(axis=1)
        parts = np.vstack([self._better(regions[holding], i, costs) for i in range(len(costs))])
        parts = np.unique(parts, axis=0)
        parts = parts[~_within(parts, np.array(self._empty))]
        kept = regions[~holding]
        inside = _within(parts, kept) | (_counts(parts, parts) > 1)
        self._open = np.vstack([kept, parts[~inside]])


def _within(rows: Region, regions: Region) -> npt.NDArray[np.bool_]:
    """Whether each row is within a region of any of these."""
    return _counts(rows, regions) > 0


def _counts(rows: Region, regions: Region) -> npt.NDArray[np.int64]:
    """In how many of these regions each row is."""
    return np.array([(row <= regions).all(axis=1).sum() for row in rows], dtype=np.int64)


def _undominated(problem: Problem, evaluations: Sequence[PlanEvaluation]) -> list[int]:
    """Places of plans that no other dominates in the values that people read, each once."""
    values = [
        tuple(
            (-1 if level.objective in MAXIMISED else 1) * evaluation.value(level.objective)
            for level in problem.objective
        )
        for evaluation in evaluations
    ]
    kept: list[int] = []
    for place in sorted(range(len(values)), key=values.__getitem__):
        if not any(_as_good(values[other], values[place]) for other in kept):
            kept.append(place)
    return kept


def _as_good(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b + SAME * abs(b) for a, b in zip(one, other, strict=True))


@dataclass(frozen=True, slots=True)
class BudgetRange:
    """A budget that is the same on `boards` (their places), from `least` to `most`."""

    budget: BudgetName
    boards: tuple[int, ...]
    least: int
    most: int

    def problem_with(self, problem: Problem, amount: int) -> Problem:
        """Problem in which the budget is this much, or all there is."""
        rows = list(problem.budgets)
        for board in self.boards:
            row = rows[board]
            own = min(amount, row.limit(self.budget) or amount) if row.cut(self.budget) else amount
            rows[board] = row.model_copy(update={self.budget: own})
        return problem.model_copy(update={"budgets": tuple(rows)})

    def need(self, problem: Problem) -> tuple[ProblemData, ObjectiveFunction]:
        """Return the measure of how large this budget must be, the runtime's part included.

        And the problem data that it is a measure of, in which boards are alike only where it does
        not matter which of them needs how much.
        """
        data = resolve_problem(problem)
        figure, wanted = BUDGETS[self.budget].figure, budget_criteria(self.budget)
        extra = {board: problem.budgets[board].allowance(self.budget) for board in self.boards}
        if len(extra) == len(data.places_of) and not any(extra.values()):
            return data, ObjectiveFunction(lambda view: view.highest(figure), criteria=wanted)
        capacities = list(data.capacities)
        for board, more in extra.items():
            for place in data.places_of[board]:
                limits = {self.budget: UNLIMITED + more}
                capacities[place] = capacities[place].limited(limits)
        return replace(data, capacities=tuple(capacities)), ObjectiveFunction(
            lambda view: _highest_need(view, figure, extra), criteria=wanted, per_board=True
        )


class Breakpoint(Record):
    """An optimum, and the least budget from which on there is one as good."""

    least: int = Field(gt=0, description="Bytes, or FLOPs of one image, on every board at once.")
    below_range: bool = Field(
        description="The optimum starts below the range, of which `least` is the lower end."
    )
    values: dict[str, float] = Field(description="The optimum: each stage's value, in its unit.")


@dataclass(frozen=True, slots=True)
class BreakpointSeries:
    """Break-points, the highest first, and whether they are proven to be all in the range."""

    breakpoints: tuple[Breakpoint, ...]
    proven: bool


def find_breakpoints(session: SolverSession, over: BudgetRange) -> BreakpointSeries:
    """Return the break-points of a budget; none where nothing is feasible even at its most."""
    found: list[Breakpoint] = []
    amount = over.most
    try:
        while amount >= over.least:
            problem = over.problem_with(session.problem, amount)
            least, values = _step(session.for_problem(problem), over, amount)
            if values is None and session.problem.inversion is not None:
                # Below this, limits force that some wider student knows less.
                session = session.for_problem(with_least_inversion(session.for_problem(problem)))
                continue
            if values is None:
                break
            unit = FLOPS_PER_MAC if over.budget == "macs" else 1
            found.append(
                Breakpoint(
                    least=unit * max(least, over.least),
                    below_range=least < over.least,
                    values=values,
                )
            )
            amount = least - 1
    except (InfeasibleError, UnprovenError):
        return BreakpointSeries(tuple(found), proven=False)
    return BreakpointSeries(tuple(found), proven=True)


def _step(
    session: SolverSession, over: BudgetRange, amount: int
) -> tuple[int, dict[str, float] | None]:
    """Least budget as good as this one, and its optimum; None without a plan.

    Raises UnprovenError where the limit stops a proof.
    """
    any_plan = session.plan()
    if any_plan.infeasible:
        return 0, None
    best = lexicographic_optimum(session)
    if not best.proven:
        raise UnprovenError("the limit stopped a search of the break-points")
    least = max(_least_need(session, over, one, amount) for one in best.kept)
    evaluation = PlanEvaluation.of(session.problem, best.assignment)
    values: dict[str, float] = {
        one.level.objective: evaluation.value(one.level.objective) for one in best.levels
    }
    return least, values


def _least_need(session: SolverSession, over: BudgetRange, level: OptimalLevel, amount: int) -> int:
    """Return the least budget under which a plan is as good as a level's best."""
    problem = session.problem
    data, measure = over.need(problem)
    limits: Sequence[ObjectiveBound] = [
        *requirement_bounds(problem),
        *level.as_good,
        ObjectiveBound(measure, amount),
    ]
    outcome = session.search(data, measure, limits)
    if not outcome.proven or outcome.value is None:
        raise UnprovenError("the limit stopped a search of the break-points")
    return max(1, outcome.value)


def _highest_need(view: Any, figure: Resource, extra: Mapping[int, int]) -> Any:
    """Highest need (of a model: a bound); runtimes count only under students."""
    uses = [(view.on(board, figure), more) for board, more in extra.items()]
    if isinstance(view, EvaluatedSolution):
        return max(use + (more if use else 0) for use, more in uses)
    highest = view.model.new_int_var(0, LATEST_UNITS, "highest need")
    for use, more in uses:
        if more:
            busy = view.model.new_bool_var("needs its runtime")
            view.model.add(use <= 0).only_enforce_if(~busy)
            view.model.add(highest >= use + more * busy)
        else:
            view.model.add(highest >= use)
    return highest
