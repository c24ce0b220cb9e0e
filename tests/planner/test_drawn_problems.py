"""Questions drawn by a seed: the same every time, unlike within, mostly feasible."""

import pytest
from drawn_problems import NETWORKS, alike_question, unlike_question

from planner.data.problem_data import resolve_problem
from planner.problem.problem import Problem
from planner.solve import solve
from profiles.fleet import resolve


def test_a_seed_draws_the_same_question_every_time():
    assert unlike_question(3) == unlike_question(3)
    assert unlike_question(3) != unlike_question(4)


def test_seed_0_draws_what_it_always_drew():
    asked = unlike_question(0)
    assert [len(one.filters) for one in asked.partition.communities] == [
        *(36, 8, 37, 24, 18, 28, 25, 14, 16, 30, 26)
    ]
    assert [step.delta_val_pct for step in asked.partition.drop_steps] == [0.0, 0.37, 0.78]
    assert asked.min_students == asked.max_students == 4
    assert [(one.memory_bytes, one.macs) for one in asked.budgets[:2]] == [
        (820_085, 44_033_564),
        (635_577, 31_710_638),
    ]
    assert [link.bits_per_s.value for link in asked.fleet.links[:3]] == [1e8, 1e8, 1e9]


def test_a_question_survives_being_written_and_read():
    asked = unlike_question(5)
    assert Problem.model_validate_json(asked.model_dump_json()) == asked


def test_boards_differ_in_everything_that_counts():
    asked = unlike_question(0, boards=(8, 8))
    _, boards = resolve(asked.fleet)
    for figure in ("compute_ms_per_mmac", "compute_fixed_ms", "message_ms", "power_busy_w"):
        assert len({getattr(board.device, figure).value for board in boards}) == 8
    assert len({(b.link.bits_per_s.value, b.link.latency_ms.value) for b in boards}) > 2
    assert len({(budget.memory_bytes, budget.macs) for budget in asked.budgets}) == 8
    assert len(resolve_problem(asked).board_classes) == 8


def test_ranges_are_kept_and_used():
    asked = [
        unlike_question(s, boards=(2, 3), students=(1, 2), communities=(1, 5)) for s in range(40)
    ]
    assert {len(one.fleet.boards) for one in asked} == {2, 3}
    assert {one.min_students for one in asked} == {1, 2}
    counts = [len(one.partition.communities) for one in asked]
    assert set(counts) == {1, 2, 3, 4, 5}
    assert all(one.min_students <= count for one, count in zip(asked, counts, strict=True))


def test_all_networks_can_be_mixed():
    assert len({option.group0 for option in resolve_problem(unlike_question(0)).modes}) == 1
    assert len(NETWORKS) == 3


def test_most_questions_have_a_plan_and_budgets_bind():
    asked = [unlike_question(seed) for seed in range(12)]
    without = [
        one.model_copy(
            update={
                "budgets": tuple(
                    budget.model_copy(update={"memory_bytes": 10**9, "macs": None})
                    for budget in one.budgets
                )
            }
        )
        for one in asked
    ]
    plans = [solve(one) for one in asked]
    feasible = [plan for plan in plans if plan.status == "optimal"]
    assert len(feasible) >= 10
    free = [solve(one).stages[0].value for one in without]
    bound = [
        plan.stages[0].value > value * 1.001
        for plan, value in zip(plans, free, strict=True)
        if plan.status == "optimal"
    ]
    assert sum(bound) >= 6


@pytest.mark.parametrize(("students", "boards"), [(2, 2), (5, 3)])
def test_alike_boards_and_communities_are_of_one_kind(students, boards):
    asked = alike_question(students, boards)
    instance = resolve_problem(asked)
    assert len(instance.capacities) == boards
    assert len(instance.board_classes) == 1
    assert instance.sizes == (16,) * students
    assert asked.min_students == asked.max_students == students
    assert solve(asked).status == "optimal"
