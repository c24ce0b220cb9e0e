"""Grids of budgets: plans enumerated once at the loosest; cells take those within theirs.

Two cells of a grid differ in whole budgets of its boards alone.  So a plan of a tighter cell is one
of the loosest, too.  Of the loosest those plans stay that no other one beats in all goals *and* in
the budgets that it needs: what beats a plan of a cell is within that cell's budgets itself, so that
no plan that any cell wants is lost, and which cells there are makes no difference to one of them.
Of equally good plans a cell gets the one that needs least memory, then fewest FLOPs.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from planner.data.modes import Assignment
from planner.data.objective_function import OBJECTIVE_FUNCTIONS, ObjectiveBound, ObjectiveFunction
from planner.data.relaxable_constraint import loosened_budgets, requirement_bounds
from planner.exploration.enumeration import Enumeration
from planner.exploration.plan_chunk import BudgetNeed, UndominatedPlans
from planner.plan_file.evaluation import PlanEvaluation
from planner.plan_file.validation import broken_exactly
from planner.problem.budgets import BUDGETS, BudgetName
from planner.problem.problem import Problem
from planner.solvers.level_solver import SearchOutcome

GRID_BUDGETS: tuple[BudgetName, ...] = ("memory_bytes", "macs")
"""Budgets in which cells of one grid differ; the needs of plans that are equally good."""

Moved = Mapping[BudgetName, tuple[int, ...]]
"""Places of the boards whose budget of a kind is another one in other cells."""


@dataclass(frozen=True, slots=True)
class BudgetGrid:
    """The loosest problem of a grid, and the boards whose budgets its cells change."""

    digest: str
    loosest: Problem = field(compare=False)
    moved: Moved = field(compare=False)

    @classmethod
    def of(cls, loosest: Problem, moved: Moved) -> "BudgetGrid":
        """The grid below a problem."""
        text = loosest.model_dump_json() + repr(sorted(moved.items()))
        return cls(hashlib.sha256(text.encode()).hexdigest(), loosest, moved)

    @classmethod
    def alone(cls, problem: Problem) -> "BudgetGrid":
        """The grid of a single cell."""
        every = tuple(range(len(problem.budgets)))
        return cls.of(problem, dict.fromkeys(GRID_BUDGETS, every))

    def budgets_of(self, problem: Problem) -> tuple[float | None, ...] | None:
        """Budgets of a problem in this grid; None where it is no cell."""
        if problem.model_copy(update={"budgets": self.loosest.budgets}) != self.loosest:
            return None
        found: list[float | None] = []
        moved = dict(self.moved)
        for name in BUDGETS:
            places = moved.get(name, ())
            limits = [problem.budgets[board].limit(name) for board in places]
            most = None if None in limits else max(filter(None, limits), default=None)
            for board, (here, top) in enumerate(
                zip(problem.budgets, self.loosest.budgets, strict=True)
            ):
                rooms = [top.room(name)]
                if board in places and most is not None:
                    rooms.append(max(0, most - here.allowance(name)))
                if here.allowance(name) != top.allowance(name):
                    return None
                if here.room(name) != min((one for one in rooms if one is not None), default=None):
                    return None
            if places:
                found.append(most)
        return tuple(found)


@dataclass(frozen=True, slots=True)
class CellPlans:
    """Plans of a cell that no other one beats; they answer its searches."""

    plans: UndominatedPlans
    always: tuple[ObjectiveBound, ...]
    enumerated: int
    deterministic_time: float
    evaluations: dict[Assignment, PlanEvaluation]
    """Evaluations of plans of the whole grid, which budgets do not change."""

    def search(
        self,
        goal: ObjectiveFunction,
        limits: Sequence[ObjectiveBound],
        _: Assignment | None = None,
    ) -> SearchOutcome:
        """Find the best plan for a goal of the problem under limits of its goals."""
        return self.plans.search(goal, [one for one in limits if one not in self.always])

    def evaluation(self, problem: Problem, assignment: Assignment) -> PlanEvaluation:
        """Evaluation of one of the plans, made once; its budgets are those of some cell."""
        if assignment not in self.evaluations:
            self.evaluations[assignment] = PlanEvaluation.of(problem, assignment)
        return self.evaluations[assignment]


def cell_plans(problem: Problem, grid: BudgetGrid | None = None) -> CellPlans | None:
    """Plans of a problem, a cell of `grid` or alone; None where uncountable."""
    budgets = None if grid is None else grid.budgets_of(problem)
    if grid is None or budgets is None:
        return _grid_plans(BudgetGrid.alone(problem))
    whole = _kept_plans(grid)
    if whole is None:
        return None
    goals = len(whole.plans.goals)
    within = np.ones(len(whole.plans.costs), dtype=bool)
    for place, budget in enumerate(budgets):
        if budget is not None:
            within &= whole.plans.costs[:, goals + place] <= budget
    return replace(whole, plans=whole.plans.rows(np.flatnonzero(within)))


def breaks_by_rounding(problem: Problem, assignment: Assignment) -> bool:
    """Whether a plan that keeps rounded limits breaks an exact one."""
    rounded = [name for name, row in BUDGETS.items() if not row.whole]
    limits = [budget.limit(name) for budget in problem.budgets for name in rounded]
    if not problem.requirements and all(limit is None for limit in limits):
        return False
    return any(broken_exactly(PlanEvaluation.of(problem, assignment)))


def _grid_plans(grid: BudgetGrid) -> CellPlans | None:
    """Plans of all cells of a grid."""
    problem = grid.loosest
    goals = [OBJECTIVE_FUNCTIONS[level.objective] for level in problem.objective]
    always, data = requirement_bounds(problem, loosened=True), loosened_budgets(problem)
    every = Enumeration.of(data, [*goals, *(limit.measure for limit in always)])
    if every is None or every.deterministic_time > problem.deterministic_limit:
        return None
    needs = [
        BudgetNeed(
            BUDGETS[name].figure,
            {
                place: problem.budgets[board].allowance(name)
                for board in grid.moved[name]
                for place in data.places_of[board]
            },
        )
        for name in BUDGETS
        if grid.moved.get(name)
    ]
    plans = every.undominated(goals, always, needs)
    return CellPlans(plans, tuple(always), every.plans, every.deterministic_time, {})


_kept_plans = lru_cache(maxsize=8)(_grid_plans)
"""Plans of the grids that were asked for last, for their next cells."""
