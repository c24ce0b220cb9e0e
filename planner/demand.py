"""Demands: what a question asks for and a person could relax; each alone, in its own unit."""

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

from planner.budget import BUDGETS, BudgetName
from planner.instance import Instance, instance_of
from planner.objective import MEASURES, Limit, Measure, limit_of
from planner.option import DropOption, drop_option
from planner.question import Question
from planner.scaling import UNITS_PER_MJ, UNITS_PER_MS, UNITS_PER_POINT, up
from planner.site import Site
from planner.stage import MORE_IS_BETTER, Objective, Requirement
from planner.view import Figure

DemandKind = BudgetName | Literal["min_students", "max_students", "epsilon", "requirement"]

FREE = 10**15
"""No board needs more of anything, in solver units; a limit that only one board has."""

GROWING: frozenset[Objective] = frozenset(
    ("accuracy", "capacity", "students", "precision", "robustness", "reliability")
)
"""What students beyond one for each community can raise; all else they leave or make worse."""

FURTHER = 2
"""Students beyond those allowed that are tried where more of them can be of use without end."""

_FIGURES: dict[BudgetName, Figure] = {
    "memory_bytes": "memory_bytes",
    "macs": "macs",
    "busy_ms": "busy",
    "energy_mj": "energy",
}
_UNITS: dict[BudgetName, int] = {"busy_ms": UNITS_PER_MS, "energy_mj": UNITS_PER_MJ}


@dataclass(frozen=True, slots=True)
class Demand:
    """A board's budget, a bound on the number of students, epsilon, or a requirement."""

    kind: DemandKind
    board: int = -1
    objective: Objective | None = None

    @property
    def budget(self) -> BudgetName | None:
        """Which budget of the board, if it is one."""
        return cast(BudgetName, self.kind) if self.board >= 0 else None

    @property
    def relaxation(self) -> Measure:
        """The measure whose best value is the tightest that this demand can be."""
        if self.budget is not None:
            figure, board = _FIGURES[self.budget], self.board
            return Measure(
                lambda view: view.on(board, figure), wants=wants(self.budget), of_board=True
            )
        if self.objective is not None:
            return MEASURES[self.objective]
        if self.kind == "min_students":
            return MEASURES["students"]
        if self.kind == "max_students":
            return Measure(lambda view: view.students())
        return Measure(lambda view: view.dropped(1, 0))

    @property
    def from_below(self) -> bool:
        """Whether it asks for so much or more."""
        if self.objective is not None:
            return self.objective in MORE_IS_BETTER
        return self.kind == "min_students"


def wants(budget: BudgetName) -> frozenset[Any]:
    """Return what makes one network better than another where a board is to use little."""
    return frozenset({"memory"} if budget == "memory_bytes" else ())


def figure_of(budget: BudgetName) -> Figure:
    """Return the figure of a board that a budget limits."""
    return _FIGURES[budget]


def demands(question: Question) -> Iterator[Demand]:
    """Yield all that may be relaxed; without any of it there is always a plan."""
    yield Demand("epsilon")
    yield Demand("max_students")
    yield Demand("min_students")
    for one in question.requirements:
        yield Demand("requirement", objective=one.objective)
    for kind in reversed(get_args(BudgetName)):
        for board, budget in enumerate(question.budgets):
            if getattr(budget, kind) is not None:
                yield Demand(kind, board)


def alike(question: Question, demand: Demand) -> tuple[Demand, ...]:
    """Return the demands that differ from this one in nothing but which of alike boards it is."""
    if demand.budget is None:
        return (demand,)
    instance = instance_of(question)
    same = instance.kind_of(demand.board)
    boards = range(len(instance.sites))
    return tuple(Demand(demand.kind, b) for b in boards if instance.kind_of(b) == same)


def grows(question: Question, objectives: Iterable[Objective]) -> bool:
    """Say whether there may be students without end, each of use to one of these objectives.

    What was not found with `FURTHER` students more is then not proven to be there with none.
    """
    return question.reuse and not GROWING.isdisjoint(objectives)


def without(
    question: Question, lifted: Collection[Demand], measured: Collection[Demand] = ()
) -> Instance:
    """Return the instance in which these demands are lifted.

    Boards whose budgets are measured are told apart from all others, which count as alike to the
    models where their limits are.
    """
    instance = instance_of(question)
    out = {*lifted, *measured}
    asked = [
        *(stage.objective for stage in question.objective),
        *(required.objective for required in question.requirements),
    ]
    most = instance.max_students + (FURTHER if grows(question, asked) else 0)
    sites = tuple(_without(site, b, lifted, measured) for b, site in enumerate(instance.sites))
    return replace(
        instance,
        sites=sites,
        min_students=1 if Demand("min_students") in out else instance.min_students,
        max_students=(
            max(len(instance.sizes), len(sites), most)
            if Demand("max_students") in out
            else instance.max_students
        ),
        drops=_measured_drops(question) if Demand("epsilon") in out else instance.drops,
    )


def _without(
    site: Site, board: int, lifted: Collection[Demand], measured: Collection[Demand]
) -> Site:
    changes: dict[str, int | None] = {}
    for budget in _FIGURES:
        one = Demand(budget, board)
        if one in measured:
            changes[_field(budget)] = FREE
        elif one in lifted:
            changes[_field(budget)] = None
    return replace(site, **cast(Any, changes))


def _field(budget: BudgetName) -> str:
    return {"busy_ms": "busy", "energy_mj": "energy"}.get(budget, budget)


def _measured_drops(question: Question) -> tuple[DropOption, ...]:
    """Return what may be dropped if epsilon did not matter: all that was measured or is allowed."""
    communities = len(question.partition.communities)
    return tuple(
        drop_option(step)
        for step in question.partition.drop_steps
        if question.allows(step)
        or (step.delta_val_pct is not None and len(step.communities) < communities)
    )


def required(question: Question, lifted: Collection[Demand] = ()) -> list[Limit]:
    """Return the limits of the question's requirements, but those that are lifted."""
    return [
        limit_of(question, one.objective, one.bound)
        for one in question.requirements
        if Demand("requirement", objective=one.objective) not in lifted
    ]


def requirement_of(question: Question, demand: Demand) -> Requirement:
    """Return the requirement that a demand is."""
    return next(each for each in question.requirements if each.objective == demand.objective)


def limit_now(question: Question, demand: Demand) -> int | float:
    """Return what a demand is at present, as people read it."""
    if demand.budget is not None:
        return cast(float, getattr(question.budgets[demand.board], demand.budget))
    if demand.kind == "requirement":
        return requirement_of(question, demand).bound
    if demand.kind == "epsilon":
        return question.epsilon_pct
    return question.min_students if demand.kind == "min_students" else question.most_students


def amount(question: Question, demand: Demand, value: int) -> int | float:
    """Return a value of a demand's relaxation, in solver units, as people read it."""
    if demand.budget == "memory_bytes":
        runtime_bytes = question.budgets[demand.board].runtime_bytes
        return value + (runtime_bytes if value else 0)
    if demand.budget is not None and demand.budget in _UNITS:
        return value / _UNITS[demand.budget]
    if demand.objective is not None:
        return MEASURES[demand.objective].scale.read(question, value)
    return value / UNITS_PER_POINT if demand.kind == "epsilon" else value


def changed(question: Question, demand: Demand, to: float) -> Question:
    """Return the question in which one demand is `to`, as people read it.

    Of epsilon it is what must be allowed: epsilon is then the least above it.
    """
    if demand.budget is not None:
        return _with_budget(question, demand.budget, demand.board, to)
    update: dict[str, object] = {demand.kind: round(to)}
    if demand.kind == "epsilon":
        update = {"epsilon_pct": _above(question, to)}
    elif demand.kind == "requirement":
        update = {
            "requirements": tuple(
                one.model_copy(update={"bound": to}) if one.objective == demand.objective else one
                for one in question.requirements
            )
        }
    return question.model_copy(update=update)


def _with_budget(question: Question, budget: BudgetName, board: int, to: float) -> Question:
    whole = budget in ("memory_bytes", "macs")
    rows = list(question.budgets)
    rows[board] = rows[board].model_copy(update={budget: round(to) if whole else to})
    return question.model_copy(update={"budgets": tuple(rows)})


def _above(question: Question, delta_pct: float) -> float:
    """Return the least epsilon that allows each step up to a delta_val, rounded up to units."""
    most = up(delta_pct, UNITS_PER_POINT)
    deltas = (abs(step.delta_val_pct or 0.0) for step in question.partition.drop_steps)
    allowed = [delta for delta in deltas if up(delta, UNITS_PER_POINT) <= most]
    return math.nextafter(max(allowed), math.inf)


def label(question: Question, demand: Demand) -> str:
    """Return what a demand is called."""
    if demand.budget is not None:
        return f"{BUDGETS[demand.budget].noun} of {question.budgets[demand.board].board}"
    if demand.objective is not None:
        return demand.objective
    names = {"min_students": "fewest students", "max_students": "most students"}
    return names.get(demand.kind, demand.kind)
