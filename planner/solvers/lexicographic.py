"""Lexicographic optimisation: objectives one after the other, each kept for those behind it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from nonn_common.errors import InfeasibleError, UnprovenError
from planner.data.modes import Assignment
from planner.data.objective_function import (
    OBJECTIVE_FUNCTIONS,
    ObjectiveBound,
    ObjectiveFunction,
    relaxed_bound,
    rounding_units,
)
from planner.data.problem_data import resolve_problem
from planner.data.relaxable_constraint import (
    RelaxableConstraint,
    loosened_budgets,
    requirement_bounds,
)
from planner.problem.goals import ObjectiveLevel
from planner.problem.problem import Problem
from planner.problem.trained_students import refuse_trained
from planner.solvers.level_solver import SearchOutcome
from planner.solvers.search import SolverSession


class LimitedSearch(Protocol):
    """A search for the best assignment for one objective function under limits."""

    def __call__(
        self,
        goal: ObjectiveFunction,
        limits: Sequence[ObjectiveBound],
        incumbent: Assignment | None,
        /,
    ) -> SearchOutcome:
        """Return its outcome."""


def lexicographic(
    find: LimitedSearch,
    goals: Iterable[ObjectiveFunction],
    limits: Sequence[ObjectiveBound],
    keep: Callable[[], ObjectiveBound],
) -> Iterator[SearchOutcome]:
    """Yield the outcome of each goal under bounds that keep the goals before it.

    `keep` is asked for the bound of the goal whose outcome was yielded last, once it was looked at.
    """
    bounds, incumbent = list(limits), None
    for goal in goals:
        outcome = find(goal, tuple(bounds), incumbent)
        yield outcome
        incumbent = outcome.assignment or incumbent
        bounds.append(keep())


@dataclass(frozen=True, slots=True)
class OptimalLevel:
    """A level, its best value, and the bounds of earlier levels.

    `tolerance_units` is by how much the arithmetic of a logarithm can be wrong; 0 of all other
    measures.
    """

    level: ObjectiveLevel
    best: int
    earlier: tuple[ObjectiveBound, ...]
    tolerance_units: int
    proven: bool

    @property
    def measure(self) -> ObjectiveFunction:
        """The objective function of the level."""
        return OBJECTIVE_FUNCTIONS[self.level.objective]

    @property
    def as_good(self) -> tuple[ObjectiveBound, ...]:
        """Bounds of plans as good as this level's best."""
        return (*self.earlier, ObjectiveBound(self.measure, self._moved(-self.tolerance_units)))

    @property
    def better(self) -> tuple[ObjectiveBound, ...]:
        """Bounds of plans better than this level's best by a unit."""
        return (*self.earlier, ObjectiveBound(self.measure, self._moved(self.tolerance_units + 1)))

    def _moved(self, units: int) -> int:
        return self.best + (units if self.measure.maximise else -units)


@dataclass(frozen=True, slots=True)
class LexicographicOptimum:
    """All levels, and a plan that is best in each up to tolerances."""

    levels: tuple[OptimalLevel, ...]
    assignment: Assignment

    @property
    def proven(self) -> bool:
        """Say whether each level's best value is proven."""
        return all(one.proven for one in self.levels)

    @property
    def kept(self) -> tuple[OptimalLevel, ...]:
        """Stages whose best values no later level's optimum has by itself."""
        return tuple(one for one in self.levels[:-1] if one.level.tolerance_pct) + self.levels[-1:]


def with_least_inversion(session: SolverSession) -> Problem:
    """The problem where wider students know less than narrower ones as little as limits force.

    Of a problem without any such plan, or where the time limit stopped the search for one, they
    may know whatever there is.
    """
    found = session.tightest(RelaxableConstraint("inversion")).value
    return session.problem.model_copy(update={"inversion": found})


def lexicographic_optimum(session: SolverSession) -> LexicographicOptimum:
    """Find the optimum of a problem under its limits as the solver rounds them.

    Where no plan keeps these, plans count that may keep them by exact figures.  Raises InputError
    where students are trained, InfeasibleError where there is none, and UnprovenError where the
    time limit stops the solver before it found one.
    """
    refuse_trained(session.problem)
    found = _optimum(session, loosened=False) or _optimum(session, loosened=True)
    if found is None:
        raise InfeasibleError("no plan keeps all limits")
    return found


def _optimum(session: SolverSession, loosened: bool) -> LexicographicOptimum | None:
    """The optimum with limits loosened for rounding, or not; None for no plan."""
    problem = session.problem
    data = loosened_budgets(problem) if loosened else resolve_problem(problem)
    reached: list[OptimalLevel] = []

    def keep() -> ObjectiveBound:
        level, worst = reached[-1].level, reached[-1].as_good[-1].bound
        return relaxed_bound(problem, level.objective, worst, level.tolerance_pct)

    goals = [OBJECTIVE_FUNCTIONS[level.objective] for level in problem.objective]
    earlier: list[ObjectiveBound] = []
    limits = requirement_bounds(problem, loosened=loosened)
    outcomes = lexicographic(partial(session.search, data), goals, limits, keep)
    for level, measure, outcome in zip(problem.objective, goals, outcomes, strict=True):
        if outcome.infeasible and not reached:
            return None
        if outcome.value is None or outcome.assignment is None:
            raise UnprovenError(
                f"the limit stopped the solver before it found the best {level.objective}; raise "
                "--limit"
            )
        noise = rounding_units(problem, measure) if measure.nonlinear else 0
        if reached:
            earlier.append(keep())
        reached.append(OptimalLevel(level, outcome.value, tuple(earlier), noise, outcome.proven))
        best = outcome.assignment
    return LexicographicOptimum(tuple(reached), best)
