"""Relaxable constraints of a problem, each by itself and in its own unit.

Amounts are rounded, where at all, to the side that is easier kept, so that a limit that is read
off and typed in again is never tighter than the one that was meant.
"""

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

from planner.data.board_capacity import BoardCapacity
from planner.data.modes import (
    UNITS_PER_POINT,
    DropChoice,
    drop_choice,
    round_down,
    round_up,
    rounding_bound,
)
from planner.data.objective_function import (
    INVERSION,
    OBJECTIVE_FUNCTIONS,
    UNEVENNESS,
    ObjectiveBound,
    ObjectiveFunction,
    bound_at,
    rounding_units,
)
from planner.data.problem_data import ProblemData, resolve_problem
from planner.problem.budgets import BUDGETS, BudgetName, format_budget, round_loosely
from planner.problem.goals import MAXIMISED, Objective, Requirement
from planner.problem.least_spread import PCT_UNITS
from planner.problem.problem import Problem

ConstraintKind = (
    BudgetName
    | Literal["min_students", "max_students", "epsilon", "requirement", "balance", "inversion"]
)

UNLIMITED = 10**15
"""No board needs more of anything, in solver units; a limit that only one board has."""

GROWING_OBJECTIVES: frozenset[Objective] = frozenset(
    ("accuracy", "capacity", "students", "precision", "robustness", "reliability")
)
"""Objectives that students beyond one for each community can raise; no other gains by them."""

EXTRA_STUDENTS = 2
"""Students beyond those allowed that are tried where more of them can be of use without end."""


LEAST_POWER = ObjectiveFunction(lambda _: 0)
"""Stands for the power limit of boards, in millionths of a W."""


@dataclass(frozen=True, slots=True)
class RelaxableConstraint:
    """A board's budget, a bound on students or partitions, epsilon, or a requirement."""

    kind: ConstraintKind
    board: int = -1
    objective: Objective | None = None

    @property
    def budget(self) -> BudgetName | None:
        """Which budget of the board, if it is one."""
        return cast(BudgetName, self.kind) if self.board >= 0 else None

    @property
    def tightness(self) -> ObjectiveFunction:
        """The measure whose best value is the tightest that this constraint can be.

        Of power there is none that models read: `planner.solvers.search` halves the limit.
        """
        if self.kind == "power_w":
            return LEAST_POWER
        if self.budget is not None:
            figure, board = BUDGETS[self.budget].figure, self.board
            return ObjectiveFunction(
                lambda view: view.on(board, figure),
                criteria=budget_criteria(self.budget),
                per_board=True,
            )
        if self.objective is not None:
            return OBJECTIVE_FUNCTIONS[self.objective]
        if self.kind in ("balance", "inversion"):
            return UNEVENNESS if self.kind == "balance" else INVERSION
        if self.kind == "min_students":
            return OBJECTIVE_FUNCTIONS["students"]
        if self.kind == "max_students":
            return ObjectiveFunction(lambda view: view.students())
        return ObjectiveFunction(lambda view: view.dropped(lambda drop: drop.worst_units))

    @property
    def of_plans(self) -> bool:
        """Whether it bounds a measure of plans, of which problem data know nothing."""
        return self.kind in ("requirement", "balance", "inversion")

    @property
    def from_below(self) -> bool:
        """Whether it asks for so much or more."""
        if self.objective is not None:
            return self.objective in MAXIMISED
        return self.kind == "min_students"


def budget_criteria(budget: BudgetName) -> frozenset[Any]:
    """Criteria of a better mode where a board is to use little."""
    memories = {"memory_bytes": "memory", "flash_bytes": "flash", "ram_bytes": "ram"}
    return frozenset({memories[budget]} if budget in memories else ())


def relaxable_constraints(problem: Problem) -> Iterator[RelaxableConstraint]:
    """Yield all that may be relaxed; without any of it there is always a plan."""
    if problem.inversion is not None:
        yield RelaxableConstraint("inversion")
    if problem.balance_pct is not None:
        yield RelaxableConstraint("balance")
    yield RelaxableConstraint("epsilon")
    yield RelaxableConstraint("max_students")
    yield RelaxableConstraint("min_students")
    for one in problem.requirements:
        yield RelaxableConstraint("requirement", objective=one.objective)
    for kind in reversed(get_args(BudgetName)):
        for board, budget in enumerate(problem.budgets):
            if getattr(budget, kind) is not None:
                yield RelaxableConstraint(kind, board)


def interchangeable(
    problem: Problem, constraint: RelaxableConstraint
) -> tuple[RelaxableConstraint, ...]:
    """Constraints that differ from this one only in which of alike boards they limit."""
    if constraint.budget is None:
        return (constraint,)
    data = resolve_problem(problem)
    same = data.site_class(constraint.board)
    boards = range(len(data.places_of))
    return tuple(
        RelaxableConstraint(constraint.kind, b) for b in boards if data.site_class(b) == same
    )


def gains_from_students(problem: Problem, objectives: Iterable[Objective]) -> bool:
    """Say whether students without end could each improve one of these objectives.

    What is not found with `EXTRA_STUDENTS` more is then asked of any number
    (`planner.solvers.further_rounds`).
    """
    return problem.reuse and not GROWING_OBJECTIVES.isdisjoint(objectives)


def lift_constraints(
    problem: Problem,
    lifted: Collection[RelaxableConstraint],
    measured: Collection[RelaxableConstraint] = (),
) -> ProblemData:
    """Return the problem data in which these constraints are lifted.

    Boards whose budgets are measured are told apart from all others, which count as alike to the
    models where their limits are.
    """
    data = resolve_problem(problem)
    out = {*lifted, *measured}
    capacities = tuple(
        _lift(capacity, data.site(b), lifted, measured)
        for b, capacity in enumerate(data.capacities)
    )
    most = data.max_students + (
        EXTRA_STUDENTS if gains_from_students(problem, problem.goals) else 0
    )
    return replace(
        data,
        capacities=capacities,
        min_students=1 if RelaxableConstraint("min_students") in out else data.min_students,
        max_students=(
            max(len(data.sizes), len(data.places_of), most)
            if RelaxableConstraint("max_students") in out
            else data.max_students
        ),
        drop_choices=_measured_drops(problem)
        if RelaxableConstraint("epsilon") in out
        else data.drop_choices,
    )


def loosened_budgets(problem: Problem) -> ProblemData:
    """Problem data whose budgets of time and energy are loosened for rounding.

    A proof that nothing fits holds for exact figures then; `broken_exactly` (planner.plan_file)
    tells a plan that fits by rounding alone.
    """
    units = problem.max_copies * rounding_bound(0, problem.most_students, problem.most_filters)
    data = resolve_problem(problem)
    capacities = []
    for capacity in data.capacities:
        busy, energy, cycle = (
            None if limit is None else limit + units
            for limit in (capacity.busy, capacity.energy, capacity.cycle)
        )
        capacities.append(replace(capacity, busy=busy, energy=energy, cycle=cycle))
    return replace(data, capacities=tuple(capacities))


def _lift(
    capacity: BoardCapacity,
    board: int,
    lifted: Collection[RelaxableConstraint],
    measured: Collection[RelaxableConstraint],
) -> BoardCapacity:
    changes: dict[BudgetName, int | None] = {}
    for budget in BUDGETS:
        one = RelaxableConstraint(budget, board)
        if one in measured:
            changes[budget] = UNLIMITED
        elif one in lifted:
            changes[budget] = None
    return capacity.limited(changes)


def _measured_drops(problem: Problem) -> tuple[DropChoice, ...]:
    """Drop choices without epsilon: all that were measured or are allowed."""
    communities = len(problem.partition.communities)
    return tuple(
        drop_choice(step)
        for step in problem.partition.drop_steps
        if problem.allows(step)
        or (step.delta_val_pct is not None and len(step.communities) < communities)
    )


def requirement_bounds(
    problem: Problem, lifted: Collection[RelaxableConstraint] = (), *, loosened: bool = False
) -> list[ObjectiveBound]:
    """Return the limits of the problem's requirements and balance, but those that are lifted.

    Where `loosened`, each allows what rounding may hide: no plan that keeps it is beyond, and a
    proof that there is none holds for exact figures.
    """
    balance = [
        (RelaxableConstraint("balance"), round_down(problem.balance_pct, PCT_UNITS)),
        (RelaxableConstraint("inversion"), problem.inversion),
    ]
    return [
        ObjectiveBound(one.tightness, bound)
        for one, bound in balance
        if bound is not None and one not in lifted
    ] + [
        _with_slack(bound, rounding_units(problem, bound.measure) if loosened else 0)
        for one in problem.requirements
        if RelaxableConstraint("requirement", objective=one.objective) not in lifted
        for bound in [bound_at(problem, one.objective, one.bound)]
    ]


def _with_slack(limit: ObjectiveBound, units: int) -> ObjectiveBound:
    return replace(limit, bound=limit.bound + (-units if limit.measure.maximise else units))


def constraint_requirement(problem: Problem, constraint: RelaxableConstraint) -> Requirement:
    """Return the requirement that a constraint is."""
    return next(each for each in problem.requirements if each.objective == constraint.objective)


def current_limit(problem: Problem, constraint: RelaxableConstraint) -> int | float:
    """Present limit of a constraint, in the unit that people read."""
    if constraint.budget is not None:
        return cast(float, getattr(problem.budgets[constraint.board], constraint.budget))
    if constraint.kind == "requirement":
        return constraint_requirement(problem, constraint).bound
    if constraint.kind == "epsilon":
        return problem.epsilon_pct
    if constraint.kind == "balance":
        return problem.balance_pct or 0.0
    if constraint.kind == "inversion":
        return problem.inversion or 0
    return problem.min_students if constraint.kind == "min_students" else problem.most_students


def readable_limit(problem: Problem, constraint: RelaxableConstraint, value: int) -> int | float:
    """Return a value of a constraint's relaxation, in solver units, as people read it."""
    if constraint.budget is not None:
        row = BUDGETS[constraint.budget]
        allowance = problem.budgets[constraint.board].allowance(constraint.budget)
        units = row.units_at(problem.rate_per_s)
        return value + (allowance if value else 0) if row.whole else value / units
    if constraint.objective is not None:
        return OBJECTIVE_FUNCTIONS[constraint.objective].scale.read(problem, value)
    if constraint.kind == "balance":
        return value / PCT_UNITS
    return value / UNITS_PER_POINT if constraint.kind == "epsilon" else value


def with_limit(problem: Problem, constraint: RelaxableConstraint, to: float) -> Problem:
    """Return the problem in which one constraint is `to`, as people read it.

    Of epsilon it is what must be allowed: epsilon is then the least above it.  A rate of images
    that is more than the throughput comes down with it.
    """
    if constraint.budget is not None:
        return _with_budget(problem, constraint.budget, constraint.board, to)
    update: dict[str, object] = {constraint.kind: round(to)}
    if constraint.kind == "balance":
        update = {"balance_pct": to}
    elif constraint.kind == "epsilon":
        update = {"epsilon_pct": _epsilon_above(problem, to)}
    elif constraint.kind == "requirement":
        update = {
            "requirements": tuple(
                one.model_copy(update={"bound": to})
                if one.objective == constraint.objective
                else one
                for one in problem.requirements
            )
        }
        if constraint.objective == "throughput" and problem.rate_per_s is not None:
            update["rate_per_s"] = min(problem.rate_per_s, to)
    return problem.model_copy(update=update)


def _with_budget(problem: Problem, budget: BudgetName, board: int, to: float) -> Problem:
    whole = BUDGETS[budget].whole
    rows = list(problem.budgets)
    rows[board] = rows[board].model_copy(update={budget: round(to) if whole else to})
    return problem.model_copy(update={"budgets": tuple(rows)})


def _epsilon_above(problem: Problem, delta_pct: float) -> float:
    """Least epsilon that allows each step up to a cost, rounded up."""
    most = round_up(delta_pct, UNITS_PER_POINT)
    costs = (step.worst_pct or 0.0 for step in problem.partition.drop_steps)
    allowed = [cost for cost in costs if round_up(cost, UNITS_PER_POINT) <= most]
    return math.nextafter(max(allowed), math.inf)


def constraint_label(problem: Problem, constraint: RelaxableConstraint) -> str:
    """Label of a constraint for people."""
    if constraint.budget is not None:
        return f"{BUDGETS[constraint.budget].noun} of {problem.budgets[constraint.board].board}"
    if constraint.objective is not None:
        return constraint.objective
    names = {"min_students": "fewest students", "max_students": "most students"}
    names |= {"balance": "balance, %", "inversion": "filters wider ones lack"}
    return names.get(constraint.kind, constraint.kind)


def format_limit(constraint: RelaxableConstraint, value: float) -> str:
    """Write what a constraint would be."""
    if constraint.budget is not None:
        return format_budget(constraint.budget, value)
    return f"{round_loosely(value, down=constraint.objective in MAXIMISED):g}"


def format_amount(constraint: RelaxableConstraint, value: float) -> str:
    """Write a constraint's limit, or a plan's use of it, to the nearest digit."""
    return f"{value:g}" if constraint.budget is None else BUDGETS[constraint.budget].text(value)


def format_students(count: float) -> str:
    """Write a number of students."""
    return f"{count:g} student{'s' * (count != 1)}"
