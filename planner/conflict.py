"""Why a question has no answer: an irreducible set of requirements that cannot hold together.

Found by deletion: a requirement without which the rest is still, provably, infeasible is left out;
what remains is needed, each one proven by solving without it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

from planner.budget import BUDGETS, BudgetName
from planner.instance import DropOption, Instance, drop_option, instance_of
from planner.objective import MEASURES, Measure, limit_of
from planner.question import Question
from planner.scaling import UNITS_PER_MJ, UNITS_PER_MS, UNITS_PER_POINT
from planner.search import Outcome, search
from planner.stage import Objective, Requirement
from planner.view import Figure


@dataclass(frozen=True, slots=True)
class Demand:
    """Something that a question asks for and that a person could relax."""

    kind: BudgetName | Literal["min_students", "max_students", "epsilon", "requirement"]
    board: int = -1
    objective: Objective | None = None


def conflict(question: Question) -> tuple[str, ...]:
    """Return one sentence for each requirement of an irreducible conflict.

    Each sentence says what was found and what would do if all others stay.  The question must be
    infeasible.
    """
    needed = irreducible(question)
    return tuple(_sentence(question, needed, one) for one in needed)


def irreducible(question: Question) -> tuple[Demand, ...]:
    """Return requirements that conflict, such that any one fewer do not.

    Where the limit stops a proof, the requirement is kept.
    """
    needed = list(_requirements(question))
    for requirement in tuple(needed):
        others = [one for one in needed if one != requirement]
        if _search(question, others, None).infeasible:
            needed = others
    return tuple(needed)


def _requirements(question: Question) -> Iterator[Demand]:
    """Yield all that may be relaxed; without any of it there is always a plan."""
    yield Demand("epsilon")
    yield Demand("max_students")
    yield Demand("min_students")
    for one in question.requirements:
        yield Demand("requirement", objective=one.objective)
    for kind in ("energy_mj", "busy_ms", "macs", "memory_bytes"):
        for board, budget in enumerate(question.budgets):
            if getattr(budget, kind) is not None:
                yield Demand(kind, board)


def _search(question: Question, kept: Sequence[Demand], goal: Measure | None) -> Outcome:
    return search(
        _with_only(question, kept),
        goal,
        [
            limit_of(question, one.objective, one.bound)
            for one in question.requirements
            if Demand("requirement", objective=one.objective) in kept
        ],
        seed=question.seed,
        deterministic_limit=question.deterministic_limit,
    )


def _with_only(question: Question, kept: Sequence[Demand]) -> Instance:
    """Return the instance in which all requirements but these are lifted."""
    instance = instance_of(question)
    sites = tuple(
        replace(
            site,
            memory_bytes=site.memory_bytes if Demand("memory_bytes", b) in kept else None,
            macs=site.macs if Demand("macs", b) in kept else None,
            busy=site.busy if Demand("busy_ms", b) in kept else None,
            energy=site.energy if Demand("energy_mj", b) in kept else None,
        )
        for b, site in enumerate(instance.sites)
    )
    communities = len(instance.sizes)
    return replace(
        instance,
        sites=sites,
        min_students=instance.min_students if Demand("min_students") in kept else 1,
        max_students=instance.max_students if Demand("max_students") in kept else communities,
        drops=instance.drops if Demand("epsilon") in kept else _measured_drops(question),
    )


def _measured_drops(question: Question) -> tuple[DropOption, ...]:
    """Return what may be dropped if epsilon did not matter: all that was measured or is allowed."""
    communities = len(question.partition.communities)
    return tuple(
        drop_option(step)
        for step in question.partition.drop_steps
        if question.allows(step)
        or (step.delta_val_pct is not None and len(step.communities) < communities)
    )


def _sentence(question: Question, needed: Sequence[Demand], one: Demand) -> str:
    """Say what a requirement is and what would do if the rest of the conflict stays."""
    others = [other for other in needed if other != one]
    value = _search(question, others, _relaxation(one)).value
    found, smallest = _found(question, one)
    if value is None:
        return f"{found}{smallest}"
    return f"{found}{smallest}; {_amount(question, one, value)} would do if the rest stays"


def _found(question: Question, one: Demand) -> tuple[str, str]:
    """Return the requirement as it stands, and the plain reason against it where there is one."""
    if one.kind == "min_students":
        communities = len(question.partition.communities)
        short = question.min_students > communities
        cause = f"; each needs a community and there are {communities}" if short else ""
        return f"at least {_students(question.min_students)}", cause
    if one.kind == "max_students":
        return f"at most {_students(question.most_students)}", ""
    if one.kind == "epsilon":
        return f"|delta_val| below epsilon, {question.epsilon_pct:g} percentage points", ""
    if one.kind == "requirement":
        return str(_required(question, one)), ""
    budget, shown = question.budgets[one.board], BUDGETS[one.kind]
    limit = getattr(budget, one.kind)
    cause = ""
    if one.kind in ("memory_bytes", "macs"):
        least = _smallest_student(question, one)
        room = budget.room_bytes if one.kind == "memory_bytes" else limit
        cause = f"; the smallest student needs {shown.text(least)}" if least > room else ""
    return f"{shown.noun} budget of {budget.board}: {shown.text(limit)}", cause


def _required(question: Question, one: Demand) -> Requirement:
    return next(each for each in question.requirements if each.objective == one.objective)


def _students(count: int) -> str:
    return f"{count} student{'s' * (count > 1)}"


def _smallest_student(question: Question, one: Demand) -> int:
    """Return the least MACs or bytes of a student with the smallest community."""
    instance = instance_of(question)
    filters = min(instance.sizes)
    if one.kind == "macs":
        return min(option.line.at(filters).macs for option in instance.options)
    return min(option.memory_bytes(filters) for option in instance.options)


def _amount(question: Question, one: Demand, value: int) -> str:
    """Write a value of a requirement's relaxation."""
    if one.kind in ("min_students", "max_students"):
        return str(value)
    if one.kind == "epsilon":
        return f"more than {value / UNITS_PER_POINT:g}"
    if one.kind == "requirement":
        required = _required(question, one)
        reached = MEASURES[required.objective].scale.read(question, value)
        return str(required.model_copy(update={"bound": reached}))
    return _budget_amount(question, one, value)


def _budget_amount(question: Question, one: Demand, value: int) -> str:
    """Write what a board's budget would have to be."""
    runtime_bytes = question.budgets[one.board].runtime_bytes
    amounts: dict[BudgetName, float] = {
        "memory_bytes": value + runtime_bytes,
        "busy_ms": value / UNITS_PER_MS,
        "energy_mj": value / UNITS_PER_MJ,
    }
    kind = cast(BudgetName, one.kind)
    return BUDGETS[kind].text(amounts.get(kind, value))


def _relaxation(one: Demand) -> Measure:
    """Return the measure whose best value is the least that a requirement must be relaxed to."""
    if one.kind == "min_students":
        return MEASURES["students"]
    if one.kind == "max_students":
        return Measure(lambda view: view.students())
    if one.kind == "epsilon":
        return Measure(lambda view: view.dropped(1, 0))
    if one.objective is not None:
        return MEASURES[one.objective]
    figures: dict[str, Figure] = {"macs": "macs", "busy_ms": "busy", "energy_mj": "energy"}
    if one.kind in figures:
        return Measure(lambda view: view.on(one.board, figures[one.kind]), of_board=True)
    return Measure(
        lambda view: view.on(one.board, "memory_bytes"), wants=frozenset({"memory"}), of_board=True
    )
