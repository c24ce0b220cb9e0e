import pytest
from planner_questions import published, question

from nonn_common.errors import UnprovenError
from planner.diagnosis.explanation import Explanation, explain, proof_sentences
from planner.solve import solve


@pytest.fixture(scope="module")
def plan():
    return solve(published())


@pytest.fixture(scope="module")
def found(plan):
    return explain(plan, 600)


def test_a_plan_is_explained_by_its_proof_and_its_stages(plan):
    head, dropped, capacity, imbalance, latency = proof_sentences(plan)
    assert head.startswith("optimal: 2 students on 2 of 2 boards, 0 filters dropped; OR-Tools")
    assert dropped.startswith("dropped, least points - filters: 0 (best 0, bound 0,")
    assert capacity.startswith("capacity, most parameters: ")
    assert imbalance == "imbalance, fewest filters: 3 (best 3, bound 3, gap 0.00 %, proven)"
    assert latency.startswith("latency, least ms: ")


def test_used_limit_and_slack_are_those_of_the_plan(plan, found):
    rows = {(row.board, row.kind): row for row in found.sensitivities}
    for budget in plan.budgets:
        row = rows[budget.board, budget.budget]
        assert (row.used, row.limit, row.slack) == (budget.used, budget.limit, budget.slack)
    assert (rows[None, "max_students"].used, rows[None, "epsilon"].slack) == (2, 1.0)


def test_of_the_published_case_memory_binds_and_flops_do_not(found):
    binding = {(row.board, row.kind) for row in found.sensitivities if row.binds}
    assert binding == {("rpi-3b-1", "memory_bytes"), ("rpi-3b-2", "memory_bytes")}
    assert found.proven


def test_an_explanation_is_a_record_that_json_keeps(found):
    assert Explanation.model_validate_json(found.model_dump_json()) == found


def test_an_infeasible_question_is_explained_by_its_conflict():
    plan = solve(question(memory=1000))
    found = explain(plan, 600)
    assert found.status == "infeasible"
    assert found.conflict == plan.conflict
    assert found.irreducible
    assert found.sensitivities == ()
    assert found.stages == ()


def test_progress_is_told():
    told = []
    asked = question("rpi-3b", (3, 4))
    explain(solve(asked), 600, lambda what, done, total: told.append((what, done, total)))
    assert told[0] == ("moving memory of rpi-3b-1", 0, 4)
    assert [done for _, done, _ in told] == [0, 1, 2, 3]


def test_a_limit_that_finds_no_optimum_is_said(plan):
    with pytest.raises(UnprovenError, match="raise --limit"):
        explain(plan, 0)


def test_the_limit_is_called_the_cause_only_where_it_stopped_a_search(found, plan):
    assert (found.proven, found.stopped) == (True, False)
    hurried = explain(solve(question(memory=1000)), 0)
    assert (hurried.proven, hurried.stopped) == (False, True)
