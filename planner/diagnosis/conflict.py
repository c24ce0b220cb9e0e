"""Conflicts: an irreducible set of constraints that cannot hold together.

Found by deletion: a constraint without which the rest is still, provably, infeasible is left out;
what remains is needed, each one proven by solving without it.  The solver's own core is not asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from planner.data.modes import Assignment, Mode
from planner.data.problem_data import ProblemData, resolve_problem
from planner.data.relaxable_constraint import (
    RelaxableConstraint,
    constraint_requirement,
    format_limit,
    format_students,
    readable_limit,
    relaxable_constraints,
)
from planner.plan_file.evaluation import PlanEvaluation
from planner.problem.budgets import BUDGETS, BudgetName
from planner.problem.problem import Problem
from planner.solvers.level_solver import SearchOutcome
from planner.solvers.search import SolverSession, TimeBudget
from profiles.operating_point import computing_w
from simulator.task_graph import held_ms


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
    """Return constraints that conflict, such that any one fewer do not.

    Where the limit stops a proof, the constraint is kept.  What holds of one board's budget holds
    of those of boards that are alike.
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
            continue
        settled.update(twins)
        proven = proven and outcome.assignment is not None
    return Conflict(tuple(needed), proven)


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
        and data.site_class(d.board) == data.site_class(one.board)
        and asked(d.board) == mine
    ]


def conflict_sentences(session: SolverSession, found: Conflict) -> tuple[str, ...]:
    """Describe each constraint of a conflict, and a limit that would do."""
    problem = session.problem
    data = resolve_problem(problem)
    least: dict[object, SearchOutcome] = {}
    said = []
    for one in found.demands:
        like = (one.kind, data.site_class(one.board)) if one.board >= 0 else one
        if like not in least:
            least[like] = session.tightest(one)
        best = least[like]
        head = "".join(_found(problem, one))
        would = "" if best.value is None else f"; {_would(problem, one, best.value)} would do"
        slowest = ""
        if one.objective == "throughput" and best.assignment is not None:
            slowest = f" ({_slowest(problem, best.assignment)})"
        said.append(head + would + (f" if all else stays{slowest}" if would else ""))
    return tuple(said)


def _would(problem: Problem, one: RelaxableConstraint, value: int) -> str:
    to = format_limit(one, readable_limit(problem, one, value))
    if one.objective is not None:
        return f"{constraint_requirement(problem, one).relation} {to}"
    if one.kind == "balance":
        return f"{to} %, or balance off,"
    return f"more than {to}" if one.kind == "epsilon" else to


def _slowest(problem: Problem, assignment: Assignment) -> str:
    """Board or host that an image holds longest, and images per second there."""
    held = held_ms(PlanEvaluation.of(problem, assignment).workload.graph())
    name = max(held, key=held.__getitem__)
    who = name.removesuffix(".cpu")
    what = f"{who} {'computes' if name != who else 'is busy'} {held[name]:.4g} ms for each image"
    return f"{what}, so {1000 / held[name]:.4g}/s"


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
    if one.kind == "balance":
        return (
            "balance: partitions as alike as whole communities allow, and "
            f"{problem.balance_pct:g} % of the mean"
        ), ""
    if one.kind == "epsilon":
        bounded = any(step.loss_bound_pct for step in problem.partition.drop_steps)
        what = "the loss that dropping filters may cost" if bounded else "|delta_val|"
        return f"{what} below epsilon, {problem.epsilon_pct:g} percentage points", ""
    return str(constraint_requirement(problem, one)), ""


def _budget(problem: Problem, kind: BudgetName, board: int) -> tuple[str, str]:
    budget, noun = problem.budgets[board], BUDGETS[kind].noun
    limit = getattr(budget, kind)
    cause = ""
    if kind == "power_w":
        least_w = _least_power_w(problem, board)
        cause = f"; the smallest student draws {least_w:.4g} W" if least_w > limit else ""
    elif BUDGETS[kind].whole:
        least, room = _smallest_student(problem, kind), budget.room(kind) or 0
        cause = f"; the smallest student needs {BUDGETS[kind].text(least)}" if least > room else ""
    runtime = budget.allowance(kind)
    less = f", less {BUDGETS[kind].text(runtime)} for the runtime" if runtime else ""
    return f"{noun} budget of {budget.board}: {BUDGETS[kind].text(limit)}{less}", cause


def _least_power_w(problem: Problem, board: int) -> float:
    """Least power of the smallest student on a board, over its operating points."""
    macs = _smallest_student(problem, "macs")
    devices = (one.device for one in problem.points[board])
    return min(computing_w(device, macs) for device in devices if device.power_known)


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
    sizes = {"flash_bytes": Mode.flash_bytes, "ram_bytes": Mode.ram_bytes}
    return min(sizes.get(kind, Mode.memory_bytes)(mode, filters) for mode in modes)
