"""The solution of a problem: a proven plan, or the irreducible conflict that leaves none.

Levels are solved one after the other, each with its proof; the plan is then validated by what
knows no solver.  A conflict is found by deletion: a constraint without which the rest is still,
provably, infeasible is left out; what remains is needed, each one proven by solving without it.
The solver's own core is not asked.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
    requirement_bounds,
)
from planner.heuristics.baselines import (
    greedy,
    longest_processing_time,
    proportional_to_ram,
    random_search,
    rocoin_style,
)
from planner.plan_file.evaluation import PlanEvaluation, build_plan, unproven_plan
from planner.plan_file.plan_document import LevelResult, PlanDocument, SolverRun
from planner.plan_file.validation import require_valid, violations
from planner.problem.goals import BUDGETS, BudgetName, ObjectiveLevel
from planner.problem.problem import Problem
from planner.solvers.level_solver import SearchOutcome
from planner.solvers.lexicographic import lexicographic
from planner.solvers.search import SolverSession, TimeBudget, search

SOLVER = "OR-Tools CP-SAT"


@dataclass(frozen=True, slots=True)
class _SolvedLevel:
    """A stage that has been solved, and the best assignment known after it."""

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


def solve(problem: Problem, progress: Progress = silent) -> PlanDocument:
    """Answer a question, with a proof for each stage.

    An infeasible question gets a plan with status `infeasible` and the conflict.  Raises
    UnprovenError where the limit stops the solver before a plan or a proof that there is none, and
    ProfileError for devices or links that the library does not have.
    """
    solved: list[_SolvedLevel] = []
    time_budget = TimeBudget(problem.deterministic_limit)
    find = partial(search, resolve_problem(problem), seed=problem.seed, time_budget=time_budget)
    outcomes = lexicographic(
        find,
        _announced(problem, progress),
        requirement_bounds(problem),
        lambda: _limit(problem, solved[-1]),
    )
    for level, outcome in zip(problem.objective, outcomes, strict=True):
        if outcome.infeasible and not solved:
            return _checked(_no_plan(problem, outcome))
        best = _best_known(problem, outcome, solved)
        solved.append(_SolvedLevel(level, outcome, PlanEvaluation.of(problem, best), best))
    return _checked(_plan(problem, solved))


def _announced(problem: Problem, progress: Progress) -> Iterator[ObjectiveFunction]:
    """Objective functions of the problem, each announced as its search begins."""
    for number, level in enumerate(problem.objective):
        progress(f"proving {level.objective}", number, len(problem.objective))
        yield OBJECTIVE_FUNCTIONS[level.objective]


def _time(solved: Sequence[_SolvedLevel]) -> float:
    """Return the deterministic time that the stages took."""
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
    """Keep a stage's best value, less its tolerance, in all later stages.

    Where the stage found nothing new, its value is that of the assignment it was given, plus what
    rounding up may have added to it.
    """
    objective, best = solved.level.objective, solved.outcome.value
    if best is None:
        best = bound_at(problem, objective, solved.best).bound
        best += (-1 if solved.measure.maximise else 1) * rounding_units(problem, solved.measure)
    return relaxed_bound(problem, objective, best, solved.level.tolerance_pct)


def _plan(problem: Problem, solved: Sequence[_SolvedLevel]) -> PlanDocument:
    final = solved[-1].evaluation
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


def _no_plan(problem: Problem, outcome: SearchOutcome) -> PlanDocument:
    """Return the plan file that says why there is no plan."""
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
        conflict=explain_conflict(problem),
    )


def _solver_run(problem: Problem, deterministic_time: float) -> SolverRun:
    return SolverRun(
        name=SOLVER,
        version=version("ortools"),
        seed=problem.seed,
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


def explain_conflict(problem: Problem) -> tuple[str, ...]:
    """Return one sentence for each requirement of an irreducible conflict.

    Each sentence says what was found and what would do if all else stays.  The question must be
    infeasible.
    """
    session = SolverSession(problem, TimeBudget(problem.deterministic_limit), most_solutions=0)
    return conflict_sentences(session, irreducible_conflict(session))


def irreducible_conflict(session: SolverSession) -> Conflict:
    """Return demands that conflict, such that any one fewer do not.

    Where the limit stops a proof, the demand is kept; where ever more students could be of use, it
    is not proven that their number is not in the way.  What holds of one board's budget holds of
    those of boards that are alike.
    """
    data = resolve_problem(session.problem)
    every = tuple(relaxable_constraints(session.problem))
    needed, settled, proven = list(every), set[RelaxableConstraint](), True
    for one in every:
        if one not in needed or one in settled:
            continue
        twins = _interchangeable_limits(data, needed, one)
        if len(twins) > 1 and _still(session, needed, twins).infeasible:
            needed = [other for other in needed if other not in twins]
            continue
        outcome = _still(session, needed, [one])
        if outcome.infeasible:
            needed.remove(one)
            proven = proven and not (one.kind == "max_students" and _endless(session.problem))
            continue
        settled.update(twins)
        proven = proven and outcome.assignment is not None
    return Conflict(tuple(needed), proven)


def _endless(problem: Problem) -> bool:
    return gains_from_students(problem, (one.objective for one in problem.requirements))


def _still(
    session: SolverSession,
    needed: Sequence[RelaxableConstraint],
    out: Sequence[RelaxableConstraint],
) -> SearchOutcome:
    """Look for a plan under the constraints in `needed` but those in `out`."""
    kept = set(needed) - set(out)
    return session.plan_without(
        [one for one in relaxable_constraints(session.problem) if one not in kept]
    )


def _interchangeable_limits(
    data: ProblemData, needed: Sequence[RelaxableConstraint], one: RelaxableConstraint
) -> list[RelaxableConstraint]:
    """Constraints on alike boards, by what is still asked of them."""
    if one.board < 0:
        return [one]

    def asked(board: int) -> set[str]:
        return {d.kind for d in needed if d.board == board}

    mine = asked(one.board)
    return [
        d
        for d in needed
        if d.kind == one.kind
        and data.board_class(d.board) == data.board_class(one.board)
        and asked(d.board) == mine
    ]


def conflict_sentences(session: SolverSession, found: Conflict) -> tuple[str, ...]:
    """Describe each constraint of a conflict, and a limit that would do."""
    problem = session.problem
    data = resolve_problem(problem)
    least: dict[object, int | None] = {}
    said = []
    for one in found.demands:
        like = (one.kind, data.board_class(one.board)) if one.board >= 0 else one
        if like not in least:
            least[like] = session.tightest(one).value
        value = least[like]
        head = "".join(_found(problem, one))
        would = "" if value is None else f"; {_would(problem, one, value)} would do"
        said.append(head + would + (" if all else stays" if would else ""))
    return tuple(said)


def _would(problem: Problem, one: RelaxableConstraint, value: int) -> str:
    to = format_limit(one, readable_limit(problem, one, value))
    if one.objective is not None:
        return f"{constraint_requirement(problem, one).relation} {to}"
    return f"more than {to}" if one.kind == "epsilon" else to


def _found(problem: Problem, one: RelaxableConstraint) -> tuple[str, str]:
    """The constraint as it stands, and a plain reason against it, if any."""
    if one.budget is not None:
        return _budget(problem, one.budget, one.board)
    if one.kind == "min_students":
        communities = len(problem.partition.communities)
        short = problem.min_students > communities and not problem.reuse
        cause = f"; each needs a community and there are {communities}" if short else ""
        return f"at least {format_students(problem.min_students)}", cause
    if one.kind == "max_students":
        return f"at most {format_students(problem.most_students)}", ""
    if one.kind == "epsilon":
        return f"|delta_val| below epsilon, {problem.epsilon_pct:g} percentage points", ""
    return str(constraint_requirement(problem, one)), ""


def _budget(problem: Problem, kind: BudgetName, board: int) -> tuple[str, str]:
    budget, noun = problem.budgets[board], BUDGETS[kind].noun
    limit = getattr(budget, kind)
    cause = ""
    if kind in ("memory_bytes", "macs"):
        least = _smallest_student(problem, kind)
        room = budget.room_bytes if kind == "memory_bytes" else limit
        cause = f"; the smallest student needs {BUDGETS[kind].text(least)}" if least > room else ""
    return f"{noun} budget of {budget.board}: {BUDGETS[kind].text(limit)}", cause


def _smallest_student(problem: Problem, kind: BudgetName) -> int:
    """Return the least MACs or bytes of a student with the smallest community.

    Without G0 where that may be on a board of its own.
    """
    data = resolve_problem(problem)
    filters = min(data.sizes)
    modes = data.modes
    if problem.group0 != "replicated":
        modes = tuple(replace(mode, line=mode.line_without_stem) for mode in modes)
    if kind == "macs":
        return min(mode.line.at(filters).macs for mode in modes)
    return min(mode.memory_bytes(filters) for mode in modes)


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


def solve_by_baseline(problem: Problem, method: str) -> PlanDocument:
    """Answer a question by a baseline.

    Raises InputError for an unknown method and for a G0 that is to be alone, UnprovenError where it
    finds nothing within the budgets and requirements, which proves nothing.
    """
    rule = find_baseline(method)
    if problem.group0 == "own-board":
        raise InputError(
            "baselines put a copy of G0 on each board with a student",
            where=f"--method {method}",
            found="--group0 own-board",
            allowed="--group0 replicated or either",
        )
    found = rule(problem)
    if found is None:
        raise UnprovenError(
            f"{method} found no plan within the budgets; that does not prove that there is none: "
            "plan without --method"
        )
    plan = unproven_plan(problem, found, method)
    require_valid(plan, where=f"--method {method}")
    return plan
