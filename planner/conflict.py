"""Why a question has no answer: an irreducible set of requirements that cannot hold together.

Found by deletion: a requirement without which the rest is still, provably, infeasible is left out;
what remains is needed, each one proven by solving without it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from nonn_core.costs import BYTES_PER_VALUE
from planner.instance import DropOption, Instance, drop_option, instance_of
from planner.objective import MEASURES, Measure
from planner.question import Question
from planner.scaling import UNITS_PER_POINT
from planner.search import Outcome, search
from profiles.units import format_bytes, format_flops


@dataclass(frozen=True, slots=True)
class Requirement:
    """Something that a question asks for and that a person could relax."""

    kind: Literal["memory", "macs", "min_students", "max_students", "epsilon"]
    board: int = -1


def conflict(question: Question) -> tuple[str, ...]:
    """Return one sentence for each requirement of an irreducible conflict.

    Each sentence says what was found and what would do if all others stay.  The question must be
    infeasible.
    """
    needed = irreducible(question)
    return tuple(_sentence(question, needed, one) for one in needed)


def irreducible(question: Question) -> tuple[Requirement, ...]:
    """Return requirements that conflict, such that any one fewer do not.

    Where the limit stops a proof, the requirement is kept.
    """
    needed = list(_requirements(question))
    for requirement in tuple(needed):
        others = [one for one in needed if one != requirement]
        if _search(question, others, None).infeasible:
            needed = others
    return tuple(needed)


def _requirements(question: Question) -> Iterator[Requirement]:
    """Yield all that may be relaxed; without any of it there is always a plan."""
    yield Requirement("epsilon")
    yield Requirement("max_students")
    yield Requirement("min_students")
    for board, budget in enumerate(question.budgets):
        if budget.macs is not None:
            yield Requirement("macs", board)
    for board in range(len(question.budgets)):
        yield Requirement("memory", board)


def _search(question: Question, kept: Sequence[Requirement], goal: Measure | None) -> Outcome:
    return search(
        _with_only(question, kept),
        goal,
        seed=question.seed,
        deterministic_limit=question.deterministic_limit,
    )


def _with_only(question: Question, kept: Sequence[Requirement]) -> Instance:
    """Return the instance in which all requirements but these are lifted."""
    instance = instance_of(question)
    sites = tuple(
        replace(
            site,
            elements=site.elements if Requirement("memory", b) in kept else None,
            macs=site.macs if Requirement("macs", b) in kept else None,
        )
        for b, site in enumerate(instance.sites)
    )
    communities = len(instance.sizes)
    return replace(
        instance,
        sites=sites,
        min_students=instance.min_students if Requirement("min_students") in kept else 1,
        max_students=instance.max_students if Requirement("max_students") in kept else communities,
        drops=instance.drops if Requirement("epsilon") in kept else _measured_drops(question),
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


def _sentence(question: Question, needed: Sequence[Requirement], one: Requirement) -> str:
    """Say what a requirement is and what would do if the rest of the conflict stays."""
    others = [other for other in needed if other != one]
    value = _search(question, others, _relaxation(one)).value
    found, smallest = _found(question, one)
    if value is None:
        return f"{found}{smallest}"
    return f"{found}{smallest}; {_amount(question, one, value)} would do if the rest stays"


def _found(question: Question, one: Requirement) -> tuple[str, str]:
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
    budget = question.budgets[one.board]
    limit = (budget.macs or 0) if one.kind == "macs" else budget.memory_bytes
    least = _smallest_student(question, one)
    smallest = f"; the smallest student needs {_shown(one, least)}" if least > limit else ""
    noun = "FLOP" if one.kind == "macs" else "memory"
    return f"{noun} budget of {budget.board}: {_shown(one, limit)}", smallest


def _students(count: int) -> str:
    return f"{count} student{'s' * (count > 1)}"


def _smallest_student(question: Question, one: Requirement) -> int:
    """Return the least MACs or bytes of a student with the smallest community."""
    instance = instance_of(question)
    filters = min(instance.sizes)
    if one.kind == "macs":
        return min(option.line.at(filters).macs for option in instance.options)
    elements = min(option.elements(filters) for option in instance.options)
    return elements * BYTES_PER_VALUE[question.precision]


def _amount(question: Question, one: Requirement, value: int) -> str:
    """Write a value of a requirement's relaxation."""
    if one.kind in ("min_students", "max_students"):
        return str(value)
    if one.kind == "epsilon":
        return f"more than {value / UNITS_PER_POINT:g}"
    size = value * BYTES_PER_VALUE[question.precision] if one.kind == "memory" else value
    return _shown(one, size)


def _shown(one: Requirement, size: int) -> str:
    return format_flops(size) if one.kind == "macs" else format_bytes(size)


def _relaxation(one: Requirement) -> Measure:
    """Return the measure whose best value is the least that a requirement must be relaxed to."""
    if one.kind == "min_students":
        return MEASURES["students"]
    if one.kind == "max_students":
        return Measure(lambda view: view.students())
    if one.kind == "epsilon":
        return Measure(lambda view: view.dropped(1, 0))
    if one.kind == "macs":
        return Measure(lambda view: view.on(one.board, "macs"), of_board=True)
    return Measure(lambda view: view.on(one.board, "elements"), wants_elements=True, of_board=True)
