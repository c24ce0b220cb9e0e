"""Repairs of an infeasible problem: single changes with which it has a plan, cheapest first.

A single change can only help where it moves a constraint of each conflict, so that the constraints
of one irreducible conflict are all that need to be tried.  Each repair is a changed problem, of
which a plan was found and checked before it is shown.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from pydantic import Field

from nonn_common import Progress, silent
from nonn_common.document import Record
from nonn_common.errors import InputError
from nonn_core.networks.network_cost import Precision
from planner.data.modes import LATEST_UNITS
from planner.data.objective_function import ObjectiveFunction
from planner.data.problem_data import resolve_problem
from planner.data.relaxable_constraint import (
    ConstraintKind,
    RelaxableConstraint,
    budget_criteria,
    constraint_requirement,
    current_limit,
    format_limit,
    format_students,
    interchangeable,
    lift_constraints,
    readable_limit,
    relaxable_constraints,
    requirement_bounds,
    with_limit,
)
from planner.heuristics.solution import EvaluatedSolution
from planner.plan_file.evaluation import unproven_plan
from planner.plan_file.validation import violations
from planner.problem.budgets import BUDGETS, BudgetName, format_budget
from planner.problem.goals import Objective
from planner.problem.problem import Problem
from planner.reliability.failures import with_added_board
from planner.solvers.search import SolverSession
from profiles.layer import BYTES_PER_VALUE

MOST_NAMES = 4
"""Of more boards than this a sentence does not name all."""


class Repair(Record):
    """A change with which the question has a plan; one was found and checked."""

    kind: ConstraintKind | Literal["precision", "board", "together"] = Field(
        description="What changes: a demand, the precisions, the fleet; or several demands."
    )
    text: str = Field(description="The change as a sentence.")
    boards: tuple[str, ...] = Field(
        default=(), description="Boards of which any one, or each, has the new budget."
    )
    each: bool = Field(default=False, description="Each of the boards, not any one of them.")
    objective: Objective | None = Field(default=None, description="Whose requirement changes.")
    value: int | float | str | None = Field(
        default=None,
        description="The new limit (what epsilon must allow), the further precision, or the "
        "board that the further one is like; null where several demands change.",
    )
    parts: tuple["Repair", ...] = Field(
        default=(),
        description="The changes, where several are needed; each by itself is no repair.",
    )
    least: bool = Field(description="Proven: no smaller change of this kind alone does.")


@dataclass(frozen=True, slots=True)
class _RepairCandidate:
    """A repair, the problem after it, and its cost among its kind."""

    repair: Repair
    problem: Problem
    cost: float


def find_repairs(
    session: SolverSession, needed: Sequence[RelaxableConstraint], progress: Progress = silent
) -> tuple[Repair, ...]:
    """Return the repairs of an infeasible question whose conflict is `needed`, cheapest first.

    A change on each of several boards is left out where as much on one of them alone does.  Where
    no single change does, the one repair is a set of changes of which none can be left out.
    """
    found: dict[str, list[_RepairCandidate]] = defaultdict(list)
    for number, one in enumerate(_single(session, needed)):
        progress("repairing", number, 0)
        if has_plan(session.for_problem(one.problem)):
            found[one.repair.kind].append(one)
    single = [
        one.repair for kind in found for one in sorted(found[kind], key=lambda each: each.cost)
    ]
    needed_ones = (one for one in single if not any(_enough(other, one) for other in single))
    return tuple(needed_ones) or tuple(_together(session))


def _enough(one: Repair, each: Repair) -> bool:
    """Say whether a raise on one board makes that on each board needless."""
    if one.kind != each.kind or one.each or not each.each or not set(one.boards) & set(each.boards):
        return False
    return cast(float, one.value) <= cast(float, each.value)


def has_plan(session: SolverSession) -> bool:
    """Find a plan of the problem and check it, as a plan file is checked."""
    found = session.plan().assignment
    return found is not None and not violations(unproven_plan(session.problem, found, "explain"))


def _single(
    session: SolverSession, needed: Sequence[RelaxableConstraint]
) -> Iterator[_RepairCandidate]:
    """Yield every single change that may help."""
    problem = session.problem
    tried: set[RelaxableConstraint] = set()
    for constraint in needed:
        if constraint not in tried:
            twins = interchangeable(problem, constraint)
            tried.update(twins)
            yield from _relaxed(session, constraint, twins)
    for budget in reversed(get_args(BudgetName)):
        if any(constraint.kind == budget for constraint in needed):
            yield from _everywhere(session, budget)
    yield from _precisions(problem)
    yield from _boards(problem)


def _relaxed(
    session: SolverSession, constraint: RelaxableConstraint, twins: Sequence[RelaxableConstraint]
) -> Iterator[_RepairCandidate]:
    """Relax one constraint by as little as does."""
    problem = session.problem
    outcome = session.tightest(constraint)
    if outcome.value is None:
        return
    to, now = readable_limit(problem, constraint, outcome.value), current_limit(problem, constraint)
    repair = _change(problem, constraint, to, _boards_of(problem, twins), least=outcome.proven)
    yield _RepairCandidate(repair, with_limit(problem, constraint, to), abs(to - now))


def _change(
    problem: Problem,
    constraint: RelaxableConstraint,
    to: float,
    boards: tuple[str, ...],
    *,
    least: bool,
) -> Repair:
    """One constraint relaxed, on any one of these boards where it is a budget."""
    return Repair(
        kind=constraint.kind,
        text=_sentence(problem, constraint, to, boards),
        boards=boards,
        objective=constraint.objective,
        value=to,
        least=least,
    )


def _boards_of(problem: Problem, of: Sequence[RelaxableConstraint]) -> tuple[str, ...]:
    return tuple(problem.budgets[one.board].board for one in of if one.board >= 0)


def _sentence(
    problem: Problem, constraint: RelaxableConstraint, to: float, boards: Sequence[str]
) -> str:
    now = current_limit(problem, constraint)
    if constraint.budget is not None:
        return f"{_more(constraint.budget, to, now)} on {_any_of(boards)}"
    if constraint.kind == "min_students":
        return f"at least {format_students(to)} in place of {now:g}"
    if constraint.kind == "max_students":
        return f"at most {format_students(to)} in place of {now:g}"
    if constraint.kind == "balance":
        return f"balance off, or {format_limit(constraint, to)} % in place of {now:g} %"
    if constraint.kind == "epsilon":
        return f"epsilon above {format_limit(constraint, to)} points in place of {now:g}"
    relation = constraint_requirement(problem, constraint).relation
    return f"{relation} {format_limit(constraint, to)} in place of {now:g}"


def _more(budget: BudgetName, to: float, now: float) -> str:
    more, in_all = format_budget(budget, to - now), format_budget(budget, to)
    return f"{BUDGETS[budget].noun} +{more}, to {in_all},"


def _any_of(boards: Sequence[str]) -> str:
    if len(boards) > MOST_NAMES:
        return f"any one of {len(boards)} boards like {boards[0]}"
    return boards[0] if len(boards) == 1 else f"any one of {', '.join(boards)}"


def _everywhere(session: SolverSession, budget: BudgetName) -> Iterator[_RepairCandidate]:
    """Raise a budget by as little as does on all boards that have the same."""
    problem = session.problem
    groups: dict[object, list[RelaxableConstraint]] = defaultdict(list)
    for place, row in enumerate(problem.budgets):
        if getattr(row, budget) is not None:
            key = getattr(row, budget), row.allowance(budget)
            groups[key].append(RelaxableConstraint(budget, place))
    for group in groups.values():
        if len(group) > 1:
            yield from _raised(session, budget, group)


def _raised(
    session: SolverSession, budget: BudgetName, group: Sequence[RelaxableConstraint]
) -> Iterator[_RepairCandidate]:
    problem = session.problem
    boards = [one.board for one in group]
    measure = ObjectiveFunction(
        lambda view: _highest(view, boards, budget),
        criteria=budget_criteria(budget),
        per_board=True,
    )
    if budget == "power_w":
        outcome = session.least_power(group)
    else:
        data = lift_constraints(problem, (), group)
        outcome = session.search(data, measure, requirement_bounds(problem))
    if outcome.value is None:
        return
    to, now = readable_limit(problem, group[0], outcome.value), current_limit(problem, group[0])
    names = _boards_of(problem, group)
    every = "every board" if len(names) == len(problem.budgets) else f"each of {', '.join(names)}"
    raised = problem
    for one in group:
        raised = with_limit(raised, one, to)
    repair = Repair(
        kind=budget,
        text=f"{_more(budget, to, now)} on {every}",
        boards=names,
        each=True,
        value=to,
        least=outcome.proven,
    )
    yield _RepairCandidate(repair, raised, len(names) * (to - now))


def _highest(view: Any, boards: Sequence[int], budget: BudgetName) -> Any:
    """Maximum use over these boards; of a model, an upper-bound variable."""
    uses = [view.on(board, BUDGETS[budget].figure) for board in boards]
    if isinstance(view, EvaluatedSolution):
        return max(uses)
    highest = view.model.new_int_var(0, LATEST_UNITS, "highest use")
    for use in uses:
        view.model.add(highest >= use)
    return highest


def _precisions(problem: Problem) -> Iterator[_RepairCandidate]:
    """Allow a further precision."""
    for precision in get_args(Precision):
        if precision not in problem.precisions:
            allowed = (*problem.precisions, precision)
            repair = Repair(
                kind="precision", text=f"allow {precision}", value=precision, least=True
            )
            other = problem.model_copy(update={"precisions": allowed})
            yield _RepairCandidate(repair, other, -BYTES_PER_VALUE[precision])


def _boards(problem: Problem) -> Iterator[_RepairCandidate]:
    """Add one board more, like one that is there, with its link and budgets."""
    data = resolve_problem(problem)
    board_classes: dict[object, int] = {}
    for place in range(len(data.places_of)):
        board_classes.setdefault(data.site_class(place), place)
    for place in board_classes.values():
        like = problem.fleet.boards[place]
        repair = Repair(
            kind="board",
            text=f"one more {like.device}, with {_as_it_is(problem)} as {like.name} has",
            value=like.name,
            least=True,
        )
        if (more := _with_one_more(problem, place)) is not None:
            yield _RepairCandidate(repair, more, 0)


def _as_it_is(problem: Problem) -> str:
    return "link and budgets" if problem.failures is None else "link, budgets and failures"


def _with_one_more(problem: Problem, place: int) -> Problem | None:
    """Return the problem with one board more; None where it makes no sense then."""
    like = problem.fleet.boards[place]
    taken = {board.name for board in problem.fleet.boards}
    numbers = range(1, len(taken) + 2)
    name = next(n for n in (f"{like.device}-{number}" for number in numbers) if n not in taken)
    boards = (*problem.fleet.boards, like.model_copy(update={"name": name}))
    budget = problem.budgets[place].model_copy(update={"board": name})
    more = problem.model_copy(
        update={
            "fleet": problem.fleet.model_copy(update={"boards": boards}),
            "budgets": (*problem.budgets, budget),
            "failures": problem.failures and with_added_board(problem.failures, like.name, name),
        }
    )
    try:
        return Problem.check(more.model_dump(), where="one more board")
    except InputError:
        # Such as copies of students on a medium that is now shared.
        return None


def _together(session: SolverSession) -> Iterator[Repair]:
    """Relax several constraints together, each by as little as does.

    Budgets are relaxed before requirements, and these before the number of students.
    """
    lifted = list(relaxable_constraints(session.problem))
    for one in tuple(lifted):
        others = [other for other in lifted if other != one]
        if session.plan_without(others).assignment is not None:
            lifted = others
    parts: list[Repair] = []
    for place, one in enumerate(lifted):
        problem = session.problem
        outcome = session.tightest(one, lifted=lifted[place + 1 :])
        if outcome.value is None:
            return
        to, boards = readable_limit(problem, one, outcome.value), _boards_of(problem, [one])
        parts.append(_change(problem, one, to, boards, least=outcome.proven))
        session = session.for_problem(with_limit(problem, one, to))
    if has_plan(session):
        text = "together: " + "; ".join(one.text for one in parts)
        least = all(one.least for one in parts)
        yield Repair(kind="together", text=text, parts=tuple(parts), least=least)
