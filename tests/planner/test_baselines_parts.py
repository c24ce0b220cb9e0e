"""Parts of baselines: drafts, merges, menus, and choosing the best."""

import itertools

import numpy as np
import pytest
from drawn_problems import unlike_question
from planner_questions import partition, question, stages

from nonn_core.partition import largest_first
from planner.data.modes import AssignedStudent, Assignment
from planner.data.problem_data import resolve_problem
from planner.heuristics.partial_placement import (
    COUNTED,
    PartialPlacement,
    community_merges,
    mode_menus,
)
from planner.plan_file.evaluation import plan_workload as workload_of
from planner.plan_file.evaluation import unproven_plan
from planner.plan_file.validation import best_assignment, level_values
from simulator.workloads.closed_form import fan_out_breakdown


@pytest.mark.parametrize("seed", range(10))
def test_a_drafts_times_and_use_are_those_of_the_plan(seed):
    asked = unlike_question(seed, boards=(3, 3), students=(5, 5))
    instance = resolve_problem(asked)
    draw = np.random.default_rng(seed)
    draft = PartialPlacement.empty(instance)
    for community in range(len(instance.sizes)):
        option = instance.modes[draw.integers(3)]
        draft = draft.plus(int(draw.integers(3)), option, (community,))
    plan = unproven_plan(asked, draft.assignment(()), "baseline")
    done_ms = {row.board: row.done_ms for row in fan_out_breakdown(workload_of(plan)).boards}
    used = {(row.board, row.budget): row.used for row in plan.budgets}
    for board in draft.use:
        name = instance.capacities[board].board.name
        assert draft.done_ms(board) == pytest.approx(done_ms[name], rel=1e-12)
        # At int8 an element is a byte.
        use = dict(zip(COUNTED, draft.use[board], strict=True))
        assert (use["memory_bytes"], use["macs"]) == (
            used[name, "memory_bytes"],
            used[name, "macs"],
        )


def test_a_draft_offers_exactly_the_boards_that_have_room():
    asked = question("rpi3x8", own={"rpi-3b-1": (1_000, None), "rpi-3b-2": (None, 1_000)})
    instance = resolve_problem(asked)
    draft = PartialPlacement.empty(instance)
    assert draft.boards_for(instance.modes[0], (0,)) == (2, 3, 4, 5, 6, 7)


def test_a_board_that_is_full_is_not_offered_again():
    instance = resolve_problem(question(sizes=(3, 3)))
    option = instance.modes[0]
    need = option.memory_bytes(3)
    instance = resolve_problem(question(sizes=(3, 3), memory=2 * need - 1))
    draft = PartialPlacement.empty(instance).plus(0, option, (0,))
    assert draft.boards_for(option, (1,)) == (1,)


def test_the_published_example_of_the_merge():
    found = largest_first({0: 12, 1: 14, 2: 25, 3: 30}, 2)
    assert found == ((3, 0), (2, 1))


def test_merges_go_from_most_students_to_fewest_and_drop_what_they_can():
    steps = [((0,), 0.4), ((0, 1), 0.9)]
    instance = resolve_problem(
        question("rpi3x8", partition=partition((3, 4, 5, 6), steps), min_students=2)
    )
    found = [(len(merge.shares), merge.dropped) for merge in community_merges(instance, 8)]
    assert found == [(4, ()), (3, (0,)), (2, (0, 1))]
    for merge in community_merges(instance, 8):
        sizes = [sum(instance.sizes[c] for c in share) for share in merge.shares]
        assert sizes == sorted(sizes, reverse=True)


def test_menus_hold_networks_of_one_group0_from_the_largest_down():
    names = [[option.name for option in menu] for menu in mode_menus(resolve_problem(question()))]
    assert names == [
        ["wrn10:8,8,16"],
        ["wrn10:4,8,16", "wrn10:4,8,8"],
        ["wrn10:4,8,8"],
    ]


def candidates(asked):
    """Two students on one board or two, in each pair of networks that share G0."""
    pairs = itertools.product(("wrn10:4,8,8", "wrn10:4,8,16"), repeat=2)
    return [
        Assignment(
            (AssignedStudent((0, 1), one, "int8", 0), AssignedStudent((2,), other, "int8", board)),
            (),
        )
        for one, other in pairs
        for board in (0, 1)
    ]


@pytest.mark.parametrize(
    ("objective", "networks", "boards"),
    [
        ("capacity,boards", {"wrn10:4,8,16"}, {0}),
        ("capacity,latency", {"wrn10:4,8,16"}, {0, 1}),
        ("capacity:90%,energy", {"wrn10:4,8,8"}, {0, 1}),
    ],
)
def test_the_best_is_lexicographic_within_tolerances(objective, networks, boards):
    asked = question(image="3x32x32", networks=("wrn10:4,8,8", "wrn10:4,8,16")).model_copy(
        update={"objective": stages(*objective.split(","))}
    )
    found = best_assignment(asked, candidates(asked))
    assert {student.network for student in found.students} == networks
    assert {student.board for student in found.students} == boards


def test_of_equal_candidates_the_first_is_best():
    asked = question(objective=stages("students"))
    every = candidates(asked)
    assert best_assignment(asked, every) is every[0]
    assert level_values(asked, every[0]) == (2.0,)
