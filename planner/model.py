"""Solve a question: stage by stage, each with its proof, then checked by what knows no solver."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

from nonn_core.progress import Progress, silent
from planner.answer import answered, value_of
from planner.assignment import Assignment
from planner.conflict import conflict
from planner.instance import instance_of
from planner.objective import MEASURES, Limit, Measure, hidden_units, limit_of, relaxed
from planner.plan import PlanDocument, SolverRun, StageResult
from planner.question import Question
from planner.search import search
from planner.solving import Outcome
from planner.stage import Stage
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
    limits = [limit_of(question, one.objective, one.bound) for one in question.requirements]
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
        limits.append(_limit(question, solved[-1]))
    return _checked(_plan(question, solved))


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


def _limit(question: Question, solved: _Solved) -> Limit:
    """Keep a stage's best value, less its tolerance, in all later stages.

    Where the stage found nothing new, its value is that of the assignment it was given, plus what
    rounding up may have added to it.
    """
    objective, best = solved.stage.objective, solved.outcome.value
    if best is None:
        value = value_of(question, solved.stage.objective, solved.assignment)
        best = limit_of(question, objective, value).bound
        best += (-1 if solved.measure.maximise else 1) * hidden_units(question, solved.measure)
    return relaxed(question, objective, best, solved.stage.tolerance_pct)


def _plan(question: Question, solved: Sequence[_Solved]) -> PlanDocument:
    final = solved[-1].assignment
    return answered(
        question,
        final,
        status="optimal" if all(one.outcome.proven for one in solved) else "feasible",
        stages=tuple(_stage_result(question, one, final) for one in solved),
        solver=_solver_run(question, _time(solved)),
    )


def _stage_result(question: Question, solved: _Solved, final: Assignment) -> StageResult:
    measure = solved.measure
    best = value_of(question, solved.stage.objective, solved.assignment)
    bound = None
    if solved.outcome.bound is not None:
        bound = measure.scale.read(question, solved.outcome.bound)
        if bound != best:
            hidden = (1 if measure.maximise else -1) * hidden_units(question, measure)
            bound = measure.scale.read(question, solved.outcome.bound + hidden)
    return StageResult(
        objective=solved.stage.objective,
        tolerance_pct=solved.stage.tolerance_pct,
        value=value_of(question, solved.stage.objective, final),
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
        host=None,
        send_order=(),
        budgets=(),
        predicted=None,
        accuracy=None,
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
