"""The solution of a problem: level by level, each with its proof, then validated."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import ortools

from nonn_common import Progress, silent
from nonn_common.errors import PlanningError, UnprovenError
from planner.data.modes import UNITS_PER_MS, Assignment
from planner.data.objective_function import (
    OBJECTIVE_FUNCTIONS,
    ObjectiveBound,
    ObjectiveFunction,
    bound_at,
    relaxed_bound,
    rounding_units,
)
from planner.data.problem_data import ProblemData, resolve_problem
from planner.data.relaxable_constraint import (
    RelaxableConstraint,
    loosened_budgets,
    requirement_bounds,
)
from planner.plan_file.evaluation import PlanEvaluation, build_plan
from planner.plan_file.plan_document import LevelResult, PlanDocument, SolverRun
from planner.plan_file.validation import broken_exactly, violations
from planner.problem.goals import Objective, ObjectiveLevel
from planner.problem.problem import Problem
from planner.problem.trained_students import refuse_trained
from planner.solvers.level_solver import SearchOutcome
from planner.solvers.lexicographic import LimitedSearch, lexicographic, with_least_inversion
from planner.solvers.search import GoalWatch, SolverSession, TimeBudget, search

LATER_SHARE = 0.1
"""Part of the time that a level leaves for each that follows, once there is a plan."""
SOLVER = "OR-Tools CP-SAT"
VERSION: str = vars(ortools)["__version__"]  # which its stubs leave out


@dataclass(frozen=True, slots=True)
class _SolvedLevel:
    """A level that has been solved, and the best assignment known after it."""

    level: ObjectiveLevel
    outcome: SearchOutcome
    evaluation: PlanEvaluation
    assignment: Assignment

    @property
    def best(self) -> float:
        """Value of the level's best plan, in the unit that people read."""
        return self.evaluation.value(self.level.objective)

    @property
    def measure(self) -> ObjectiveFunction:
        return OBJECTIVE_FUNCTIONS[self.level.objective]


PlanWatch = Callable[[Objective, float | None, float], None]
"""Called with the objective of a level, the value of a better plan, and the proven bound.

The value is None where only the bound is new; both are in the unit that people read.
"""

SearchOf = Callable[[ProblemData], LimitedSearch]
"""The search of a problem's data."""

ConflictFinder = Callable[[Problem], tuple[str, ...]]
"""Sentences of what cannot hold together in a problem without a plan."""


def solve(
    problem: Problem,
    progress: Progress = silent,
    watch: PlanWatch | None = None,
    find: SearchOf | None = None,
    conflict: ConflictFinder | None = None,
    then: Sequence[ObjectiveFunction] = (),
) -> PlanDocument:
    """Answer a problem, with a proof for each level, by `find` or the solver.

    Goals in `then` decide among plans that are as good by the problem's own.

    `watch` hears, from the solver's thread, of better plans and bounds; it changes nothing.

    Where limits force that a wider student has fewer filters than a narrower one, the plan's
    question allows the least of that.
    An infeasible question gets a plan with status `infeasible` and the conflict that `conflict`
    finds: `explain_conflict`, unless whoever asks wants more of that work.  Raises UnprovenError
    where the limit stops the solver before a plan or a proof that there is none, and ProfileError
    for devices or links that the library does not have.
    """
    time_budget = TimeBudget(problem.deterministic_limit)
    if find is None:
        refuse_trained(problem)
    answer = partial(_answer, time_budget=time_budget, progress=progress)
    plan = answer(problem, then=then, watch=watch, find=find, conflict=conflict)
    problem = plan.question
    if then:  # whose search knows what the solver's own does not
        answer = partial(answer, find=find)
    if near := _broken(plan):
        # Of plans that are as good, one may keep by its own figures what this one breaks.
        plan = answer(problem, then=[*(one.tightness for one in near), *then], watch=watch)
    if _broken(plan):
        plan = _within_rounding(answer(problem, then=then, loosened=False))
    if problems := violations(plan):
        raise PlanningError(
            f"the solver's plan breaks a rule: {problems[0]}; this is a mistake of the program: "
            "please report it with the question"
        )
    return plan


def _broken(plan: PlanDocument) -> tuple[RelaxableConstraint, ...]:
    """Limits that the plan breaks by no more than rounding."""
    return tuple(broken_exactly(PlanEvaluation.of_plan(plan))) if plan.students else ()


def _answer(
    problem: Problem,
    time_budget: TimeBudget,
    progress: Progress,
    then: Sequence[ObjectiveFunction] = (),
    *,
    loosened: bool = True,
    watch: PlanWatch | None = None,
    find: SearchOf | None = None,
    conflict: ConflictFinder | None = None,
) -> PlanDocument:
    """Plan, or proof that there is none, with limits loosened for rounding, or not.

    Goals in `then` follow the problem's own.  Raises UnprovenError where limits are not loosened
    and there is no plan.
    """
    data = loosened_budgets(problem) if loosened else resolve_problem(problem)
    solved: list[_SolvedLevel] = []
    outcomes = lexicographic(
        find(data)
        if find
        else _level_search(problem, data, time_budget, watch and partial(_tell, problem, watch)),
        chain(_announced(problem, progress), then),
        requirement_bounds(problem, loosened=loosened),
        lambda: _limit(problem, solved[-1]),
    )
    for level, outcome in zip(problem.objective, outcomes, strict=False):
        if outcome.infeasible and not solved:
            if not loosened:
                raise UnprovenError(_WITHIN_ROUNDING)
            if problem.inversion is not None:
                # A limit forces that some wider student knows less: as little as can be.
                eased = with_least_inversion(SolverSession(problem, time_budget))
                return _answer(eased, time_budget, progress, then, watch=watch, conflict=conflict)
            return _no_plan(problem, outcome, conflict)
        best = _best_known(problem, outcome, solved)
        solved.append(_SolvedLevel(level, outcome, PlanEvaluation.of(problem, best), best))
    final = solved[-1].assignment
    for outcome in outcomes:
        final = outcome.assignment or final
    return _plan(problem, solved, PlanEvaluation.of(problem, final))


def _level_search(
    problem: Problem, data: ProblemData, time_budget: TimeBudget, watch: GoalWatch | None
) -> LimitedSearch:
    """Search of one level after the other, which leaves time for those that follow.

    A level that begins without a plan may take all of it, as there may be none.
    """
    later = len(problem.objective)

    def find(
        goal: ObjectiveFunction, limits: Sequence[ObjectiveBound], incumbent: Assignment | None
    ) -> SearchOutcome:
        nonlocal later
        later = max(0, later - 1)
        kept = 0.0 if incumbent is None else LATER_SHARE * later * time_budget.remaining
        own = TimeBudget(time_budget.remaining - kept)
        seed = problem.seed
        outcome = search(data, goal, limits, incumbent, seed=seed, time_budget=own, watch=watch)
        time_budget.remaining = own.remaining + kept
        time_budget.ran_out |= own.ran_out
        return outcome

    return find


def _tell(
    problem: Problem,
    watch: PlanWatch,
    goal: ObjectiveFunction,
    value: float | None,
    bound: float,
) -> None:
    """Tell of a better plan or bound of a level, as people read them."""
    named = (one.objective for one in problem.objective)
    objective = next((one for one in named if OBJECTIVE_FUNCTIONS[one] is goal), None)
    if objective is not None:
        read = partial(goal.scale.read, problem)
        watch(objective, None if value is None else read(round(value)), read(round(bound)))


_WITHIN_ROUNDING = (
    "a limit is so near to what a plan needs that the solver's whole numbers cannot tell whether "
    f"one keeps it; they count {1 / UNITS_PER_MS:.0e} ms and mJ; allow a thousandth of a "
    "percent more"
)


def _within_rounding(plan: PlanDocument) -> PlanDocument:
    """The plan that keeps all limits as the solver rounds them, too.

    A better one may keep them by its own figures alone, so nothing is called proven.
    """
    unproven = {"bound": None, "gap_pct": None, "proven": False}
    stages = tuple(one.model_copy(update=unproven) for one in plan.stages)
    return plan.model_copy(update={"status": "feasible", "stages": stages})


def _announced(problem: Problem, progress: Progress) -> Iterator[ObjectiveFunction]:
    """Objective functions of the problem, each announced as its search begins."""
    for number, level in enumerate(problem.objective):
        progress(f"proving {level.objective}", number, len(problem.objective))
        yield OBJECTIVE_FUNCTIONS[level.objective]


def _time(solved: Sequence[_SolvedLevel]) -> float:
    """Return the deterministic time that the levels took."""
    return sum(one.outcome.deterministic_time for one in solved)


def _best_known(
    problem: Problem, outcome: SearchOutcome, solved: Sequence[_SolvedLevel]
) -> Assignment:
    """The level's assignment, or else that of the level before it."""
    if outcome.assignment is not None:
        return outcome.assignment
    if solved:
        return solved[-1].assignment
    raise UnprovenError(
        f"the deterministic limit of {problem.deterministic_limit:g} stopped the solver before it "
        "found a plan or proved that there is none; raise the limit or name fewer networks"
    )


def _limit(problem: Problem, solved: _SolvedLevel) -> ObjectiveBound:
    """Keep a level's best value, less its tolerance, in all later levels.

    Where the level found nothing new, its value is that of the assignment it was given, plus what
    rounding up may have added to it.
    """
    objective, best = solved.level.objective, solved.outcome.value
    if best is None:
        best = bound_at(problem, objective, solved.best).bound
        best += (-1 if solved.measure.maximise else 1) * rounding_units(problem, solved.measure)
    return relaxed_bound(problem, objective, best, solved.level.tolerance_pct)


def _plan(problem: Problem, solved: Sequence[_SolvedLevel], final: PlanEvaluation) -> PlanDocument:
    return build_plan(
        final,
        status="optimal" if all(one.outcome.proven for one in solved) else "feasible",
        stages=tuple(_stage_result(problem, one, final) for one in solved),
        solver=_solver_run(problem, _time(solved)),
    )


def _stage_result(problem: Problem, solved: _SolvedLevel, final: PlanEvaluation) -> LevelResult:
    measure = solved.measure
    best = solved.best
    bound = None
    if solved.outcome.bound is not None:
        bound = measure.scale.read(problem, solved.outcome.bound)
        if bound != best:
            hidden = (1 if measure.maximise else -1) * rounding_units(problem, measure)
            bound = measure.scale.read(problem, solved.outcome.bound + hidden)
    return LevelResult(
        objective=solved.level.objective,
        tolerance_pct=solved.level.tolerance_pct,
        value=final.value(solved.level.objective),
        best=best,
        bound=bound,
        gap_pct=None if bound is None else 100 * abs(best - bound) / max(abs(best), 1e-9),
        proven=solved.outcome.proven,
    )


def _no_plan(
    problem: Problem, outcome: SearchOutcome, conflict: ConflictFinder | None
) -> PlanDocument:
    """Plan file that says why there is no plan."""
    from planner.diagnosis.conflict import explain_conflict

    return PlanDocument(
        question=problem,
        status="infeasible",
        students=(),
        dropped=(),
        dropped_filters=0,
        delta_val_pct=None,
        host=None,
        send_order=(),
        budgets=(),
        predicted=None,
        accuracy=None,
        stages=(),
        solver=_solver_run(problem, outcome.deterministic_time),
        conflict=(conflict or explain_conflict)(problem),
    )


def _solver_run(problem: Problem, deterministic_time: float) -> SolverRun:
    return SolverRun(
        name=SOLVER,
        version=VERSION,
        seed=problem.seed,
        deterministic_time=round(deterministic_time, 6),
    )
