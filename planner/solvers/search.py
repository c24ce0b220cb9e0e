"""The exact search: best assignment for one objective function under limits, with its proof.

A session runs searches, one after the other, under one limit on deterministic time.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from planner.data.mode_costs import percentile_cases, stem_placements
from planner.data.modes import Assignment
from planner.data.objective_function import (
    DROPPED,
    INVERSION,
    OBJECTIVE_FUNCTIONS,
    ModeCriterion,
    ObjectiveBound,
    ObjectiveFunction,
)
from planner.data.point_choice import highest_power_w
from planner.data.problem_data import ProblemData, resolve_problem
from planner.data.relaxable_constraint import (
    LEAST_POWER,
    RelaxableConstraint,
    gains_from_students,
    lift_constraints,
    requirement_bounds,
    with_limit,
)
from planner.heuristics import SearchEffort
from planner.heuristics.local_search import KICKS, MOST_SOLUTIONS, local_search
from planner.heuristics.solution import highest_draw_w
from planner.problem.problem import Problem
from planner.solvers import SolverRuns, Watch
from planner.solvers.due_date_model import RELAXED_SHARE, Improvement, first_proofs
from planner.solvers.further_rounds import least_students, with_more_students
from planner.solvers.level_solver import Incumbent, LevelSolver, SearchOutcome
from planner.solvers.variables import remove_dominated_modes

PROBES_SHARE = 0.4
"""Part of the time for asking whether less is possible."""
LOCAL_SHARE, LOCAL_LEAST = 0.2, 1.0
"""Part of the time for the local search, and the least that it has; it is seldom used up."""
SHORT_SHARE = 0.05
"""Part of the time for a proof from the plan that moves alone find."""
ROUNDS_SHARE = 0.05
"""Part of the time for asking how many students more than those allowed can be of use."""
POWER_GAP = 1e-6
"""Part of a power limit up to which the least one is sought."""
_T = TypeVar("_T")

GoalWatch = Callable[[ObjectiveFunction, float | None, float], None]
"""Called with the goal, the value of a better plan (None: no new one) and the bound, in units."""


@dataclass(slots=True)
class TimeBudget:
    """Deterministic time that is left; `ran_out`: some search ended for want of it."""

    remaining: float
    ran_out: bool = False

    def spend(self, deterministic_time: float, *, settled: bool) -> None:
        """Take time off; `settled` says that the search would not have gone on."""
        self.remaining -= deterministic_time
        self.ran_out = self.ran_out or (not settled and self.remaining <= 0)


def search(
    data: ProblemData,
    goal: ObjectiveFunction | None,
    limits: Sequence[ObjectiveBound] = (),
    incumbent: Assignment | None = None,
    *,
    seed: int,
    time_budget: TimeBudget,
    most_solutions: int = MOST_SOLUTIONS,
    watch: GoalWatch | None = None,
) -> SearchOutcome:
    """Find the best assignment for `goal`, or any where it is None, and prove it.

    `incumbent` keeps all limits; `most_solutions` bounds the local search that comes first; `watch`
    hears of better plans and bounds.  One worker, a fixed seed and a limit on deterministic time,
    from which the time that this takes is taken: the same call gives the same outcome on every
    machine.
    """
    runs = _runs(data, goal, limits, incumbent, seed, time_budget.remaining, most_solutions)
    told = partial(watch, goal) if watch and goal else None
    outcome = finished(runs, told)
    if told and outcome.value is not None and outcome.bound is not None:
        told(outcome.value, outcome.bound)
    settled = outcome.proven or outcome.infeasible or (goal is None and bool(outcome.assignment))
    time_budget.spend(outcome.deterministic_time, settled=settled)
    return outcome


def finished(runs: SolverRuns[_T], watch: Watch | None = None) -> _T:
    """Outcome of runs; of brief and guided models, questions on the way, nobody hears."""
    try:
        task = next(runs)
        while True:
            if not task.brief and not task.guided and task.model.has_goal:
                task.solver.watch = watch
            solve = task.solver.solve if task.brief else task.solver.solve_interruptibly
            task = runs.send(solve(task.model))
    except StopIteration as end:
        found: _T = end.value
        return found


def _runs(
    data: ProblemData,
    goal: ObjectiveFunction | None,
    limits: Sequence[ObjectiveBound],
    incumbent: Assignment | None,
    seed: int,
    deterministic_limit: float,
    most_solutions: int,
) -> SolverRuns[SearchOutcome]:
    """Runs of a search over each placement of G0."""
    measures = [*(limit.measure for limit in limits), *([goal] if goal else [])]
    criteria = frozenset[ModeCriterion]().union(*(measure.criteria for measure in measures))
    stem = incumbent.stem if incumbent else None
    used = incumbent.boards_at_work if incumbent else None
    found: list[SearchOutcome] = []
    took = 0.0
    cases = [
        (each, most)
        for placed in stem_placements(data, criteria)
        for each, most in percentile_cases(placed, measures)
    ]
    # What is known comes first: the better what was found, the sooner all else is refuted.
    for each, most in sorted(cases, key=lambda one: (one[0].stem != stem, one[1] != used)):
        kept = incumbent if each.stem == stem and most in (None, used) else None
        few = () if most is None else (ObjectiveBound(OBJECTIVE_FUNCTIONS["boards"], most),)
        outcome = yield from _placement_runs(
            remove_dominated_modes(each, criteria, kept, by_width=INVERSION in measures),
            goal,
            [*limits, *few, *_at_least_as_good(goal, found)],
            seed=seed,
            deterministic_limit=deterministic_limit - took,
            incumbent=kept,
            most_solutions=most_solutions,
        )
        took += outcome.deterministic_time
        if outcome.assignment is not None:  # say of it where its G0 is
            outcome = replace(outcome, assignment=replace(outcome.assignment, stem=each.stem))
        found.append(outcome)
        if goal is None and outcome.assignment is not None:
            break
    return replace(best_outcome(goal, found), deterministic_time=took)


def _at_least_as_good(
    goal: ObjectiveFunction | None, found: Sequence[SearchOutcome]
) -> Iterator[ObjectiveBound]:
    """Yield the bound that excludes plans worse than those found."""
    best = best_outcome(goal, found)
    if goal is not None and best.value is not None:
        yield ObjectiveBound(
            goal, best.value + (-goal.tolerance_units if goal.maximise else goal.tolerance_units)
        )


def best_outcome(goal: ObjectiveFunction | None, found: Sequence[SearchOutcome]) -> SearchOutcome:
    """Best of the outcomes, and the proof of all together."""
    if len(found) == 1:
        return found[0]
    sign = -1 if goal is not None and goal.maximise else 1
    left = [one for one in found if not one.infeasible]
    plans = [one for one in left if one.assignment is not None]
    if not plans:
        return SearchOutcome(None, None, None, False, infeasible=not left, deterministic_time=0.0)
    best = min(plans, key=lambda one: sign * (one.value or 0))
    bounds = [one.bound for one in left if one.bound is not None]
    if best.value is None or len(bounds) < len(left):
        return replace(best, bound=None, proven=False)
    bound = min(bounds, key=lambda each: sign * each)
    values = [one.value if one.proven else one.bound for one in left]
    proven = all(sign * (value or 0) >= sign * best.value for value in values)
    return replace(best, bound=bound, proven=proven)


def _placement_runs(
    data: ProblemData,
    goal: ObjectiveFunction | None,
    limits: Sequence[ObjectiveBound],
    *,
    seed: int,
    deterministic_limit: float,
    incumbent: Assignment | None,
    most_solutions: int,
) -> SolverRuns[SearchOutcome]:
    """Runs of a search whose placement of G0 is settled."""
    level_solver = LevelSolver(data, goal, tuple(limits), seed)
    took = 0.0
    if incumbent is None:
        refuted, took = yield from level_solver.refuted(RELAXED_SHARE * deterministic_limit)
        if refuted:
            return replace(_STOPPED, infeasible=True, deterministic_time=took)
    if goal is None:
        outcome = yield from level_solver.run(None, deterministic_limit - took)
        return replace(outcome, deterministic_time=outcome.deterministic_time + took)
    effort = SearchEffort(max(LOCAL_LEAST, LOCAL_SHARE * deterministic_limit))
    moves = partial(
        local_search, data, goal, limits, seed=seed, most_solutions=most_solutions, effort=effort
    )

    def improved(plan: Assignment | None, kicks: int) -> tuple[Incumbent | None, float]:
        before = effort.spent
        return moves(incumbent=plan, kicks=kicks), effort.spent - before

    # Kicks come where moves alone do not lead to a plan, or to none that is soon proven.
    found = moves(incumbent=incumbent, kicks=0)
    if found is None and not data.few_choices:
        found = moves(incumbent=incumbent)
    took += effort.spent
    if found and goal is DROPPED and found[1] <= min(map(goal.read, data.drop_choices)):
        return SearchOutcome(*found, found[1], True, False, took)  # nothing better can be dropped
    left = deterministic_limit - took
    if found is None or not goal.timed or data.order_matters:
        # A large model is made once, from the plan that kicks find.
        share = 0.0 if level_solver.large else SHORT_SHARE
        short = share * left if found and most_solutions else left
        outcome = yield from _untimed_runs(level_solver, goal, found, short, left, improved)
        return replace(outcome, deterministic_time=outcome.deterministic_time + took)
    first = yield from first_proofs(level_solver, goal, found, left, improved)
    took += first.deterministic_time
    if first.proven or first.assignment is None or first.value is None:
        return replace(first, deterministic_time=took)
    best, bound = (first.assignment, first.value), first.bound or 0
    probing = min(PROBES_SHARE * deterministic_limit, deterministic_limit - took)
    low, best, probed = yield from level_solver.bisect(goal, best, bound, probing)
    took += probed
    last = yield from level_solver.run(best, deterministic_limit - took, low=low)
    low = max(low, last.bound or low)
    return replace(last, bound=low or None, deterministic_time=last.deterministic_time + took)


def _untimed_runs(
    level_solver: LevelSolver,
    goal: ObjectiveFunction,
    found: Incumbent | None,
    short: float,
    deterministic_limit: float,
    improved: Improvement,
) -> SolverRuns[SearchOutcome]:
    """A short run of one model, and a long one from the best plan."""
    first = yield from level_solver.run(found, short)
    if first.proven or short >= deterministic_limit or not first.assignment or first.value is None:
        return first
    sign, best = -1 if goal.maximise else 1, (first.assignment, first.value)
    again, moved = improved(first.assignment, KICKS)
    best = min(again or best, best, key=lambda one: sign * one[1])
    took = first.deterministic_time + moved
    last = yield from level_solver.run(best, deterministic_limit - took)
    if not last.proven and (last.value is None or sign * best[1] < sign * last.value):
        last = replace(last, assignment=best[0], value=best[1])
    bounds = [one.bound for one in (first, last) if one.bound is not None]
    bound = max(bounds, key=lambda each: sign * each, default=None)
    return replace(last, bound=bound, deterministic_time=last.deterministic_time + took)


_STOPPED = SearchOutcome(None, None, None, proven=False, infeasible=False, deterministic_time=0.0)


@dataclass(frozen=True, slots=True)
class SolverSession:
    """Asks what would be if a problem were another one; stops, unproven, at its limit."""

    problem: Problem
    time_budget: TimeBudget
    most_solutions: int = MOST_SOLUTIONS

    def for_problem(self, problem: Problem) -> "SolverSession":
        """Return a session for another problem, under the same limit."""
        return SolverSession(problem, self.time_budget, self.most_solutions)

    def search(
        self,
        data: ProblemData,
        goal: ObjectiveFunction | None,
        limits: Sequence[ObjectiveBound],
        incumbent: Assignment | None = None,
    ) -> SearchOutcome:
        """Search as long as the limit allows; nothing is found or proven after that."""
        if self.time_budget.remaining <= 0:
            self.time_budget.ran_out = True
            return _STOPPED
        return search(
            data,
            goal,
            limits,
            incumbent,
            seed=self.problem.seed,
            time_budget=self.time_budget,
            most_solutions=self.most_solutions,
        )

    def plan(self) -> SearchOutcome:
        """Look for any plan."""
        return self.plan_without(())

    def plan_without(
        self, lifted: Collection[RelaxableConstraint], limits: Sequence[ObjectiveBound] = ()
    ) -> SearchOutcome:
        """Look for any plan within limits where these constraints are lifted."""
        bounds = [*requirement_bounds(self.problem, lifted), *limits]
        return self._relaxed(lifted, (), None, bounds, None)

    def tightest(
        self,
        constraint: RelaxableConstraint,
        limits: Sequence[ObjectiveBound] = (),
        lifted: Collection[RelaxableConstraint] = (),
        incumbent: Assignment | None = None,
    ) -> SearchOutcome:
        """Find the tightest that a constraint can be under limits, others being lifted."""
        if constraint.kind == "power_w":
            return self.least_power([constraint], limits, lifted)
        required = requirement_bounds(self.problem, {constraint, *lifted})
        bounds, goal = [*required, *limits], constraint.tightness
        return self._relaxed(lifted, {constraint}, goal, bounds, incumbent)

    def least_power(
        self,
        group: Sequence[RelaxableConstraint],
        limits: Sequence[ObjectiveBound] = (),
        lifted: Collection[RelaxableConstraint] = (),
    ) -> SearchOutcome:
        """Find the least power limit of these boards, in millionths of a W.

        More power is never worse, so that what lies between plans and proofs of none narrows down.
        """
        boards = [one.board for one in group]
        least_w, power_w = 0.0, highest_power_w(self.problem, boards)
        power_w = min([power_w, *(n.bound / 1e6 for n in limits if n.measure is LEAST_POWER)])
        further = [one for one in limits if one.measure is not LEAST_POWER]
        known: SearchOutcome | None = None
        asked_w, took = power_w, 0.0
        while True:
            problem = self.problem
            for one in group:
                problem = with_limit(problem, one, asked_w)
            found = self.for_problem(problem).plan_without(lifted, further)
            took += found.deterministic_time
            if found.assignment is not None:
                known = found
                power_w = min(
                    asked_w, highest_draw_w(resolve_problem(problem), found.assignment, boards)
                )
            elif known is None or not found.infeasible:
                break
            else:
                least_w = asked_w
            if power_w - least_w <= POWER_GAP * power_w:
                break
            asked_w = (least_w + power_w) / 2
        if known is None:
            return found
        value, proven = math.ceil(1e6 * power_w), power_w - least_w <= POWER_GAP * power_w
        return SearchOutcome(None, value, None, proven, False, took)

    def _relaxed(
        self,
        lifted: Collection[RelaxableConstraint],
        measured: Collection[RelaxableConstraint],
        goal: ObjectiveFunction | None,
        limits: Sequence[ObjectiveBound],
        incumbent: Assignment | None,
    ) -> SearchOutcome:
        """Search where constraints are lifted or measured.

        Where the number of students is one of them, there may be more of them without end: any
        number counts.
        """
        data = lift_constraints(self.problem, lifted, measured)
        found = self.search(data, goal, limits, incumbent)
        free = RelaxableConstraint("max_students") in {*lifted, *measured}
        if not free or not gains_from_students(self.problem, self.problem.goals):
            return found
        return with_more_students(data, goal, limits, found, self.search, self._least_students)

    def _least_students(
        self, data: ProblemData, limits: Sequence[ObjectiveBound], most: int
    ) -> int | None:
        """Lower bound on students beyond `most`; None where no plan has more."""
        criteria = frozenset[ModeCriterion]().union(*(one.measure.criteria for one in limits))
        found: list[int] = []
        for placed in stem_placements(data, criteria):
            share = ROUNDS_SHARE * max(0.0, self.time_budget.remaining)
            modes, seed = remove_dominated_modes(placed, criteria), self.problem.seed
            runs = least_students(modes, limits, most, seed=seed, deterministic_limit=share)
            least = finished(runs)
            self.time_budget.spend(least.deterministic_time, settled=True)
            if least.students is not None:
                found.append(least.students)
        return min(found, default=None)
