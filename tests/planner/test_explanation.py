import pytest
from planner_questions import published, question

from planner.explanation import binds, explanation
from planner.model import solve


@pytest.fixture(scope="module")
def plan():
    return solve(published())


def test_a_plan_is_explained_by_its_proof_its_stages_and_its_budgets(plan):
    head, dropped, capacity, imbalance, latency, *budgets = explanation(plan)
    assert head.startswith("optimal: 2 students on 2 of 2 boards, 0 filters dropped; OR-Tools")
    assert dropped.startswith("dropped (points - filters): 0 (best 0, bound 0,")
    assert capacity.startswith("capacity (parameters): ")
    assert imbalance == "imbalance (filters): 3 (best 3, bound 3, gap 0.00 %, proven)"
    assert latency.startswith("latency (ms): ")
    assert len(budgets) == 4
    assert all(row.startswith(("rpi-3b-1: ", "rpi-3b-2: ")) for row in budgets)


def test_a_budget_binds_exactly_where_no_larger_network_fits(plan):
    for row in plan.budgets:
        grown = row.limit + 10**9
        assert not binds(plan, row.model_copy(update={"slack": grown - row.used, "limit": grown}))
        assert binds(plan, row.model_copy(update={"slack": 0, "limit": row.used}))


def test_a_network_that_cannot_grow_is_not_held_back_by_a_budget():
    only = solve(question("rpi-3b", networks=("wrn10:4,8,8",), memory=20_000, macs=90_000))
    assert [binds(only, row) for row in only.budgets] == [False, False]
    assert "binds" not in " ".join(explanation(only))


def test_no_limit_is_said_so():
    plan = solve(question("rpi-3b"))
    assert explanation(plan)[-1].endswith("no limit")
    assert not binds(plan, plan.budgets[-1])


def test_an_infeasible_question_is_explained_by_its_conflict():
    plan = solve(question(memory=1000))
    assert explanation(plan)[0].startswith("infeasible: these requirements cannot hold together")
    assert explanation(plan)[1:] == plan.conflict
