"""The solution of a problem: a proven plan, or the irreducible conflict that leaves none.

Levels are solved one after the other, each with its proof; the plan is then validated by what
knows no solver.  A conflict is found by deletion: a constraint without which the rest is still,
provably, infeasible is left out; what remains is needed, each one proven by solving without it.
The solver's own core is not asked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version

from nonn_common.errors import InputError, PlanningError, UnprovenError
from nonn_common.progress import Progress, silent
from planner.data.modes import Assignment
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
    constraint_requirement,
    format_limit,
    format_students,
    gains_from_students,
    readable_limit,
    relaxable_constraints,
)
from planner.heuristics.baselines import (
    greedy,
    longest_processing_time,
    proportional_to_ram,
    random_search,
    rocoin_style,
)
from planner.plan_file.evaluation import assignment_value, build_plan, unproven_plan
from planner.plan_file.plan_document import LevelResult, PlanDocument, SolverRun
from planner.plan_file.validation import require_valid, violations
from planner.problem.goals import BUDGETS, BudgetName, ObjectiveLevel
from planner.problem.problem import Problem
from planner.solvers.level_solver import SearchOutcome
from planner.solvers.search import SolverSession, TimeBudget, search

SOLVER = "OR-Tools CP-SAT"


@dataclass(frozen=True, slots=True)
class _SolvedLevel:
    """A stage that has been solved, and the best assignment known after it."""

    stage: ObjectiveLevel
    outcome: SearchOutcome
    assignment: Assignment

    @property
    def measure(self) -> ObjectiveFunction:
        return OBJECTIVE_FUNCTIONS[self.stage.objective]


def solve(question: Problem, progress: Progress = silent) -> PlanDocument:
    """Answer a question, with a proof for each stage.

    An infeasible question gets a plan with status `infeasible` and the conflict.  Raises
    UnprovenError where the limit stops the solver before a plan or a proof that there is none, and
    ProfileError for devices or links that the library does not have.
    """
    instance = resolve_problem(question)
    solved: list[_SolvedLevel] = []
    limits = [bound_at(question, one.objective, one.bound) for one in question.requirements]
    for number, stage in enumerate(question.objective):
        progress(f"proving {stage.objective}", number, len(question.objective))
        outcome = search(
            instance,
            OBJECTIVE_FUNCTIONS[stage.objective],
            limits,
            seed=question.seed,
            deterministic_limit=question.deterministic_limit - _time(solved),
            known=solved[-1].assignment if solved else None,
        )
        if outcome.infeasible and not solved:
            return _checked(_no_plan(question, outcome))
        solved.append(_SolvedLevel(stage, outcome, _best_known(question, outcome, solved)))
        limits.append(_limit(question, solved[-1]))
    return _checked(_plan(question, solved))


def _time(solved: Sequence[_SolvedLevel]) -> float:
    """Return the deterministic time that the stages took."""
    return sum(one.outcome.deterministic_time for one in solved)


def _best_known(
    question: Problem, outcome: SearchOutcome, solved: Sequence[_SolvedLevel]
) -> Assignment:
    """Return what this stage found, or else what the one before it left."""
    if outcome.assignment is not None:
        return outcome.assignment
    if solved:
        return solved[-1].assignment
    raise UnprovenError(
        f"the deterministic limit of {question.deterministic_limit:g} stopped the solver before it "
        "found a plan or proved that there is none; raise the limit or name fewer networks"
    )


def _limit(question: Problem, solved: _SolvedLevel) -> ObjectiveBound:
    """Keep a stage's best value, less its tolerance, in all later stages.

    Where the stage found nothing new, its value is that of the assignment it was given, plus what
    rounding up may have added to it.
    """
    objective, best = solved.stage.objective, solved.outcome.value
    if best is None:
        value = assignment_value(question, solved.stage.objective, solved.assignment)
        best = bound_at(question, objective, value).bound
        best += (-1 if solved.measure.maximise else 1) * rounding_units(question, solved.measure)
    return relaxed_bound(question, objective, best, solved.stage.tolerance_pct)


def _plan(question: Problem, solved: Sequence[_SolvedLevel]) -> PlanDocument:
    final = solved[-1].assignment
    return build_plan(
        question,
        final,
        status="optimal" if all(one.outcome.proven for one in solved) else "feasible",
        stages=tuple(_stage_result(question, one, final) for one in solved),
        solver=_solver_run(question, _time(solved)),
    )


def _stage_result(question: Problem, solved: _SolvedLevel, final: Assignment) -> LevelResult:
    measure = solved.measure
    best = assignment_value(question, solved.stage.objective, solved.assignment)
    bound = None
    if solved.outcome.bound is not None:
        bound = measure.scale.read(question, solved.outcome.bound)
        if bound != best:
            hidden = (1 if measure.maximise else -1) * rounding_units(question, measure)
            bound = measure.scale.read(question, solved.outcome.bound + hidden)
    return LevelResult(
        objective=solved.stage.objective,
        tolerance_pct=solved.stage.tolerance_pct,
        value=assignment_value(question, solved.stage.objective, final),
        best=best,
        bound=bound,
        gap_pct=None if bound is None else 100 * abs(best - bound) / max(abs(best), 1e-9),
        proven=solved.outcome.proven,
    )


def _no_plan(question: Problem, outcome: SearchOutcome) -> PlanDocument:
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
        conflict=explain_conflict(question),
    )


def _solver_run(question: Problem, deterministic_time: float) -> SolverRun:
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


@dataclass(frozen=True, slots=True)
class Conflict:
    """Demands that cannot hold together; proven: without any one of them the others can."""

    demands: tuple[RelaxableConstraint, ...]
    proven: bool


def explain_conflict(question: Problem) -> tuple[str, ...]:
    """Return one sentence for each requirement of an irreducible conflict.

    Each sentence says what was found and what would do if all else stays.  The question must be
    infeasible.
    """
    prover = SolverSession(question, TimeBudget(question.deterministic_limit), most_drafts=0)
    return conflict_sentences(prover, irreducible_conflict(prover))


def irreducible_conflict(prover: SolverSession) -> Conflict:
    """Return demands that conflict, such that any one fewer do not.

    Where the limit stops a proof, the demand is kept; where ever more students could be of use, it
    is not proven that their number is not in the way.  What holds of one board's budget holds of
    those of boards that are alike.
    """
    instance = resolve_problem(prover.question)
    every = tuple(relaxable_constraints(prover.question))
    needed, settled, proven = list(every), set[RelaxableConstraint](), True
    for one in every:
        if one not in needed or one in settled:
            continue
        twins = _interchangeable_limits(instance, needed, one)
        if len(twins) > 1 and _still(prover, needed, twins).infeasible:
            needed = [other for other in needed if other not in twins]
            continue
        outcome = _still(prover, needed, [one])
        if outcome.infeasible:
            needed.remove(one)
            proven = proven and not (one.kind == "max_students" and _endless(prover.question))
            continue
        settled.update(twins)
        proven = proven and outcome.assignment is not None
    return Conflict(tuple(needed), proven)


def _endless(question: Problem) -> bool:
    return gains_from_students(question, (one.objective for one in question.requirements))


def _still(
    prover: SolverSession, needed: Sequence[RelaxableConstraint], out: Sequence[RelaxableConstraint]
) -> SearchOutcome:
    """Look for a plan where nothing is asked but what is needed less what is out."""
    kept = set(needed) - set(out)
    return prover.plan_without(
        [one for one in relaxable_constraints(prover.question) if one not in kept]
    )


def _interchangeable_limits(
    instance: ProblemData, needed: Sequence[RelaxableConstraint], one: RelaxableConstraint
) -> list[RelaxableConstraint]:
    """Return the demands on boards that are alike, going by what is still asked of them."""
    if one.board < 0:
        return [one]

    def asked(board: int) -> set[str]:
        return {d.kind for d in needed if d.board == board}

    mine = asked(one.board)
    return [
        d
        for d in needed
        if d.kind == one.kind
        and instance.kind_of(d.board) == instance.kind_of(one.board)
        and asked(d.board) == mine
    ]


def conflict_sentences(prover: SolverSession, found: Conflict) -> tuple[str, ...]:
    """Say of each demand of a conflict what it is and what would do if all else stays."""
    question = prover.question
    instance = resolve_problem(question)
    least: dict[object, int | None] = {}
    said = []
    for one in found.demands:
        like = (one.kind, instance.kind_of(one.board)) if one.board >= 0 else one
        if like not in least:
            least[like] = prover.tightest(one).value
        value = least[like]
        head = "".join(_found(question, one))
        would = "" if value is None else f"; {_would(question, one, value)} would do"
        said.append(head + would + (" if all else stays" if would else ""))
    return tuple(said)


def _would(question: Problem, one: RelaxableConstraint, value: int) -> str:
    to = format_limit(one, readable_limit(question, one, value))
    if one.objective is not None:
        return f"{constraint_requirement(question, one).relation} {to}"
    return f"more than {to}" if one.kind == "epsilon" else to


def _found(question: Problem, one: RelaxableConstraint) -> tuple[str, str]:
    """Return the demand as it stands, and the plain reason against it where there is one."""
    if one.budget is not None:
        return _budget(question, one.budget, one.board)
    if one.kind == "min_students":
        communities = len(question.partition.communities)
        short = question.min_students > communities and not question.reuse
        cause = f"; each needs a community and there are {communities}" if short else ""
        return f"at least {format_students(question.min_students)}", cause
    if one.kind == "max_students":
        return f"at most {format_students(question.most_students)}", ""
    if one.kind == "epsilon":
        return f"|delta_val| below epsilon, {question.epsilon_pct:g} percentage points", ""
    return str(constraint_requirement(question, one)), ""


def _budget(question: Problem, kind: BudgetName, board: int) -> tuple[str, str]:
    budget, noun = question.budgets[board], BUDGETS[kind].noun
    limit = getattr(budget, kind)
    cause = ""
    if kind in ("memory_bytes", "macs"):
        least = _smallest_student(question, kind)
        room = budget.room_bytes if kind == "memory_bytes" else limit
        cause = f"; the smallest student needs {BUDGETS[kind].text(least)}" if least > room else ""
    return f"{noun} budget of {budget.board}: {BUDGETS[kind].text(limit)}", cause


def _smallest_student(question: Problem, kind: BudgetName) -> int:
    """Return the least MACs or bytes of a student with the smallest community.

    Without G0 where that may be on a board of its own.
    """
    instance = resolve_problem(question)
    filters = min(instance.sizes)
    options = instance.options
    if question.group0 != "replicated":
        options = tuple(replace(option, line=option.behind) for option in options)
    if kind == "macs":
        return min(option.line.at(filters).macs for option in options)
    return min(option.memory_bytes(filters) for option in options)


Baseline = Callable[[Problem], Assignment | None]
"""Answers a question; None where it finds nothing within the budgets, which proves nothing."""

BASELINES: dict[str, Baseline] = {
    "greedy": greedy,
    "lpt": longest_processing_time,
    "rocoin-style": rocoin_style,
    "ram": proportional_to_ram,
    "random": random_search,
}


def find_baseline(name: str) -> Baseline:
    """Return the baseline of this name; raises InputError."""
    if name not in BASELINES:
        raise InputError("no such baseline", found=name, allowed=", ".join(BASELINES))
    return BASELINES[name]


def solve_by_baseline(question: Problem, method: str) -> PlanDocument:
    """Answer a question by a baseline.

    Raises InputError for an unknown method and for a G0 that is to be alone, UnprovenError where it
    finds nothing within the budgets and requirements, which proves nothing.
    """
    rule = find_baseline(method)
    if question.group0 == "own-board":
        raise InputError(
            "baselines put a copy of G0 on each board with a student",
            where=f"--method {method}",
            found="--group0 own-board",
            allowed="--group0 replicated or either",
        )
    found = rule(question)
    if found is None:
        raise UnprovenError(
            f"{method} found no plan within the budgets; that does not prove that there is none: "
            "plan without --method"
        )
    plan = unproven_plan(question, found, method)
    require_valid(plan, where=f"--method {method}")
    return plan
