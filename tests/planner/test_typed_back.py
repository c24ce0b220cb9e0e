"""Values of a plan, typed back as requirements and budgets, never refuse it."""

from typing import get_args

import pytest
from drawn_problems import alike_question, unlike_question

from nonn_common.errors import UnprovenError
from planner.plan_file.evaluation import PlanEvaluation
from planner.plan_file.validation import broken_exactly
from planner.problem.goals import Objective, ObjectiveLevel, Requirement
from planner.solve import solve

OBJECTIVES = tuple(
    one
    for one in get_args(Objective)
    # Of spread, failures or batteries, which are not drawn.
    if one not in ("latency-p95", "robustness", "reliability", "battery", "fleet-average-power")
)


def drawn(seed):
    """A small question: an objective each, every third on a shared medium, every fourth copied."""
    objective = OBJECTIVES[seed % len(OBJECTIVES)]
    asked = unlike_question(
        seed,
        boards=(2, 3),
        students=(1, 2),
        communities=(2, 4),
        objective=(ObjectiveLevel(objective=objective),),
    )
    fleet = asked.fleet
    if seed % 3 == 0:
        air = fleet.links[0].model_copy(update={"shared": True, "duplex": "half"})
        fleet = fleet.model_copy(update={"links": (air, *fleet.links[1:])})
    return asked.model_copy(update={"fleet": fleet, "max_copies": 2 if seed % 4 == 0 else 1})


def with_budgets(asked, plan):
    """The question with the plan's own time and energy as each board's budgets."""
    everything = tuple(
        one.model_copy(update={"busy_ms": 1e9, "energy_mj": 1e9}) for one in asked.budgets
    )
    measured = PlanEvaluation(
        asked.model_copy(update={"budgets": everything}), plan.decision, plan.send_order
    ).budgets
    used = {(row.board, row.budget): row.used for row in measured}
    budgets = tuple(
        one.model_copy(
            update={kind: used[one.board, kind] or None for kind in ("busy_ms", "energy_mj")}
        )
        for one in asked.budgets
    )
    return asked.model_copy(update={"budgets": budgets})


@pytest.mark.parametrize("seed", [*range(28), 44])
def test_each_value_of_a_plan_is_a_limit_that_it_keeps(seed):
    asked = drawn(seed)
    plan = solve(asked)
    if plan.status == "infeasible":
        pytest.skip("this question has no plan")
    evaluation = PlanEvaluation.of_plan(plan)
    for objective in OBJECTIVES:
        limit = Requirement(objective=objective, bound=evaluation.value(objective))
        again = solve(asked.model_copy(update={"requirements": (limit,)}))
        assert again.status == "optimal", f"{limit}: {again.conflict}"
        assert not any(broken_exactly(PlanEvaluation.of_plan(again)))
        assert again.stages[0].value == pytest.approx(plan.stages[0].value, rel=1e-9)
    again = solve(with_budgets(asked, plan))
    assert again.status == "optimal", again.conflict
    assert not any(broken_exactly(PlanEvaluation.of_plan(again)))


def two_boards(**fields):
    """A question whose least latency is known to the last digit."""
    return alike_question(2, 2).model_copy(update=fields)


def test_a_limit_between_a_plan_and_its_rounding_is_kept_or_not_told():
    least_ms = solve(two_boards()).stages[0].value

    def limited(bound):
        return two_boards(requirements=(Requirement(objective="latency", bound=bound),))

    assert solve(limited(least_ms)).status == "optimal"
    with pytest.raises(UnprovenError, match="so near to what a plan needs"):
        solve(limited(least_ms - 2e-6))
    assert solve(limited(least_ms - 0.01)).status == "infeasible"
