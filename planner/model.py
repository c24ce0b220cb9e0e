"""Solve a question: stage by stage, each with its proof, then checked by what knows no solver."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

from nonn_core.progress import Progress, silent
from planner.assignment import Assignment
from planner.conflict import conflict
from planner.evaluation import (
    best_send_order,
    budget_rows,
    delta_val_pct,
    measured,
    planned_student,
    predict,
)
from planner.instance import Instance, instance_of
from planner.objective import MEASURES, Limit, Measure
from planner.plan import PlanDocument, PlannedStudent, SolverRun, StageResult
from planner.question import Question, Stage
from planner.scaling import at_least, at_most, rounding, unlike_delays, up
from planner.search import Outcome, search
from planner.validation import violations
from profiles.errors import PlanningError, UnprovenError

SOLVER = "OR-Tools CP-SAT"


@dataclass(frozen=True, slots=True)
class _Solved:
    """A stage that has been solved, and the best assignment known after it."""

    stage: Stage
    outcome: Outcome
    assignment: Assignment

    @property
    def measure(self) -> Measure:
        return MEASURES[self.stage.objective]


def solve(question: Question, progress: Progress = silent) -> PlanDocument:
    """Answer a question, with a proof for each stage.

    An infeasible question gets a plan with status `infeasible` and the conflict.  Raises
    UnprovenError where the limit stops the solver before a plan or a proof that there is none, and
    ProfileError for devices or links that the library does not have.
    """
    instance = instance_of(question)
    solved: list[_Solved] = []
    limits: list[Limit] = []
    for number, stage in enumerate(question.objective):
        progress(f"proving {stage.objective}", number, len(question.objective))
        outcome = search(
            instance,
            MEASURES[stage.objective],
            limits,
            seed=question.seed,
            deterministic_limit=question.deterministic_limit - _time(solved),
            known=solved[-1].assignment if solved else None,
        )
        if outcome.infeasible and not solved:
            return _checked(_no_plan(question, outcome))
        solved.append(_Solved(stage, outcome, _best_known(question, outcome, solved)))
        limits.append(_limit(question, instance, solved[-1]))
    return _checked(_plan(question, instance, solved))


def _time(solved: Sequence[_Solved]) -> float:
    """Return the deterministic time that the stages took."""
    return sum(one.outcome.deterministic_time for one in solved)


def _best_known(question: Question, outcome: Outcome, solved: Sequence[_Solved]) -> Assignment:
    """Return what this stage found, or else what the one before it left."""
    if outcome.assignment is not None:
        return outcome.assignment
    if solved:
        return solved[-1].assignment
    raise UnprovenError(
        f"the deterministic limit of {question.deterministic_limit:g} stopped the solver before it "
        "found a plan or proved that there is none; raise the limit or name fewer networks"
    )


def _limit(question: Question, instance: Instance, solved: _Solved) -> Limit:
    """Keep a stage's best value, less its tolerance, in all later stages.

    Where the stage found nothing new, its value is that of the assignment it was given, plus what
    rounding up may have added to it.
    """
    measure, best = solved.measure, solved.outcome.value
    if best is None:
        best = up(_value(question, solved.stage, solved.assignment), measure.units)
        best += _rounding(instance, measure)
    worst = at_least if measure.maximise else at_most
    return Limit(measure, worst(best, solved.stage.tolerance_pct))


def _rounding(instance: Instance, measure: Measure) -> int:
    """Return what rounding up, and taking latencies alike, may add to a measure, in its units."""
    if not measure.rounded:
        return 0
    rounded = rounding(len(instance.sites), instance.max_students, instance.filters)
    if measure.timed:
        rounded += unlike_delays(site.board for site in instance.sites)
    return rounded


def _students(question: Question, assignment: Assignment) -> tuple[PlannedStudent, ...]:
    """Describe the students of an assignment, numbered in the order of their boards."""
    boards = question.fleet.boards
    placed = sorted(assignment.students, key=lambda one: (one.board, one.communities))
    return tuple(
        planned_student(
            question, f"student-{n}", one.network, boards[one.board].name, one.communities
        )
        for n, one in enumerate(placed, start=1)
    )


def _value(question: Question, stage: Stage, assignment: Assignment) -> float:
    """Return the value of a stage's objective in an assignment, as people read it."""
    students = _students(question, assignment)
    order = best_send_order(question, students, assignment.send_order)
    predicted = predict(question, students, order)
    return measured(stage.objective, question, students, assignment.dropped, predicted)


def _plan(question: Question, instance: Instance, solved: Sequence[_Solved]) -> PlanDocument:
    final = solved[-1].assignment
    students = _students(question, final)
    send_order = best_send_order(question, students, final.send_order)
    communities = question.partition.communities
    return PlanDocument(
        question=question,
        status="optimal" if all(one.outcome.proven for one in solved) else "feasible",
        students=students,
        dropped=final.dropped,
        dropped_filters=sum(len(communities[c].filters) for c in final.dropped),
        delta_val_pct=delta_val_pct(question, final.dropped),
        send_order=send_order,
        budgets=budget_rows(question, students),
        predicted=predict(question, students, send_order),
        stages=tuple(_stage_result(question, instance, one, final) for one in solved),
        solver=_solver_run(question, _time(solved)),
        conflict=(),
    )


def _stage_result(
    question: Question, instance: Instance, solved: _Solved, final: Assignment
) -> StageResult:
    measure = solved.measure
    best = _value(question, solved.stage, solved.assignment)
    bound = None
    if solved.outcome.bound is not None:
        bound = (solved.outcome.bound - _rounding(instance, measure)) / measure.units
    return StageResult(
        objective=solved.stage.objective,
        tolerance_pct=solved.stage.tolerance_pct,
        value=_value(question, solved.stage, final),
        best=best,
        bound=bound,
        gap_pct=None if bound is None else 100 * abs(best - bound) / max(abs(best), 1e-9),
        proven=solved.outcome.proven,
    )


def _no_plan(question: Question, outcome: Outcome) -> PlanDocument:
    """Return the plan file that says why there is no plan."""
    return PlanDocument(
        question=question,
        status="infeasible",
        students=(),
        dropped=(),
        dropped_filters=0,
        delta_val_pct=None,
        send_order=(),
        budgets=(),
        predicted=None,
        stages=(),
        solver=_solver_run(question, outcome.deterministic_time),
        conflict=conflict(question),
    )


def _solver_run(question: Question, deterministic_time: float) -> SolverRun:
    return SolverRun(
        name=SOLVER,
        version=version("ortools"),
        seed=question.seed,
        deterministic_time=round(deterministic_time, 6),
    )


def _checked(plan: PlanDocument) -> PlanDocument:
    """Let no plan out that breaks a rule, whatever the solver says."""
    if problems := violations(plan):
        raise PlanningError(
            f"the solver's plan breaks a rule: {problems[0]}; this is a mistake of the program: "
            "please report it with the question"
        )
    return plan
