"""Price of power: what a watt more buys, and what all limits cost.

Limits are of each board, while it computes or on average, and of all boards together.
"""

from collections.abc import Collection
from typing import Literal, get_args

from pydantic import Field

from nonn_common.document import Record
from nonn_common.errors import UnprovenError
from planner.plan_file.evaluation import PlanEvaluation
from planner.problem.problem import Problem
from planner.solvers.lexicographic import lexicographic_optimum
from planner.solvers.search import SolverSession

PowerLimit = Literal["power_w", "average_w", "fleet-power", "fleet-average-power"]
"""A budget of boards, or a requirement of all of them together."""

NEXT_W = 1.0
"""How much more power a price is asked for."""


class PowerPrice(Record):
    """Best values of a question whose power limits are others, all else as asked."""

    limit: PowerLimit = Field(
        default="power_w",
        description="What is raised: power_w or average_w of each board that has it, or the "
        "requirement of all boards together; where more_w is null, each limit of power goes.",
    )
    more_w: float | None = Field(description="W more of this limit; null: no limits of power.")
    values: dict[str, float] = Field(
        description="Best value of each stage there, in its unit; empty where none was proven."
    )
    points: tuple[str, ...] = Field(
        description="Operating points of the boards at work there, devices by name."
    )


def power_prices(session: SolverSession) -> tuple[PowerPrice, ...]:
    """Values that a watt more of each limit buys, and those without any.

    Empty where a question has no limit of power.
    """
    asked = [limit for limit in get_args(PowerLimit) if _has(session.problem, limit)]
    if not asked:
        return ()
    more = (_price(session, [limit], NEXT_W) for limit in asked)
    return (*more, _price(session, asked, None))


def _has(problem: Problem, limit: PowerLimit) -> bool:
    return any(getattr(row, limit, None) is not None for row in problem.budgets) or any(
        one.objective == limit for one in problem.requirements
    )


def _price(session: SolverSession, limits: list[PowerLimit], more_w: float | None) -> PowerPrice:
    problem = _with_more(session.problem, limits, more_w)
    values: dict[str, float] = {}
    try:
        found = lexicographic_optimum(session.for_problem(problem))
    except UnprovenError:
        return PowerPrice(limit=limits[0], more_w=more_w, values=values, points=())
    evaluation = PlanEvaluation.of(problem, found.assignment)
    used, boards = evaluation.decision.used, evaluation.problem.fleet.boards
    if found.proven:
        values = {one.objective: evaluation.value(one.objective) for one in problem.objective}
    return PowerPrice(
        limit=limits[0],
        more_w=more_w,
        values=values,
        points=tuple(row.device for row in boards if row.name in used),
    )


def _with_more(problem: Problem, limits: Collection[str], more_w: float | None) -> Problem:
    """The problem with so much more power of these limits, or without them."""
    rows = []
    for row in problem.budgets:
        said = {name: getattr(row, name, None) for name in limits}
        raised = {
            name: None if more_w is None else value + more_w
            for name, value in said.items()
            if value is not None
        }
        rows.append(row.model_copy(update=raised))
    requirements = [
        one.model_copy(update={"bound": one.bound + (more_w or 0.0)})
        if one.objective in limits
        else one
        for one in problem.requirements
        if more_w is not None or one.objective not in limits
    ]
    update = {"budgets": tuple(rows), "requirements": tuple(requirements)}
    return problem.model_copy(update=update)
