"""Every baseline: valid plans, none better than the optimum, and what each one is known for."""

import sys
from pathlib import Path

import pytest
from drawn_problems import alike_question, unlike_question
from planner_questions import partition, published, question, stages

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from planning import compare, page

from nonn_common.errors import InputError
from planner.data.objective_function import rounding_tolerance
from planner.data.problem_data import resolve_problem
from planner.heuristics.baselines import (
    BASELINES,
    find_baseline,
    greedy,
    longest_processing_time,
    proportional_to_ram,
    random_search,
    rocoin_style,
    solve_by_baseline,
)
from planner.plan_file.evaluation import unproven_plan
from planner.plan_file.validation import level_values, violations
from planner.problem.goals import MAXIMISED
from planner.solve import solve
from profiles.fleet import parse_fleet

NAMES = tuple(BASELINES)
SEEDS = range(30)
ONE_WIDTH = ("wrn10:4,8,8",)
PUBLISHED = {"image": "3x32x32", "networks": ("wrn16:16,32,64",)}


def answered(name, asked):
    """Answer a question; random search in few samples, for a short test."""
    return random_search(asked, 8) if name == "random" else find_baseline(name)(asked)


def sizes(asked, assignment):
    """Filters of each student, by board."""
    communities = resolve_problem(asked).sizes
    return {s.board: sum(communities[c] for c in s.communities) for s in assignment.students}


@pytest.mark.parametrize("name", NAMES)
def test_what_a_baseline_finds_is_a_valid_plan(name):
    asked = [unlike_question(seed) for seed in SEEDS]
    found = [(one, answered(name, one)) for one in asked]
    plans = [unproven_plan(one, answer, "baseline") for one, answer in found if answer is not None]
    assert len(plans) >= len(asked) / 2
    assert [violations(plan) for plan in plans] == [[] for _ in plans]


@pytest.mark.parametrize("objective", ["latency", "energy", "capacity", "imbalance", "dropped"])
def test_no_baseline_is_better_than_the_optimum(objective):
    sign = -1.0 if objective in MAXIMISED else 1.0
    compared = 0
    for seed in range(8):
        asked = unlike_question(seed, students=(2, 4), objective=stages(objective))
        answer = solve(asked)
        assert answer.status == "optimal"
        bound = sign * answer.stages[0].bound
        for name in NAMES:
            found = answered(name, asked)
            if found is not None:
                compared += 1
                (value,) = level_values(asked, found)
                slack = rounding_tolerance(asked, objective, value)
                assert sign * value >= bound - slack - 1e-9 * abs(bound), name
    assert compared >= 20


@pytest.mark.parametrize("name", NAMES)
def test_a_baseline_finds_nothing_where_the_solver_proves_that_there_is_nothing(name):
    asked = question(memory=1_000)
    assert solve(asked).status == "infeasible"
    assert answered(name, asked) is None


@pytest.mark.parametrize("name", NAMES)
def test_a_baseline_finds_nothing_with_fewer_communities_than_students(name):
    assert answered(name, question("rpi3x8", sizes=(3, 4), min_students=3)) is None


@pytest.mark.parametrize("name", NAMES)
def test_the_same_question_has_the_same_answer(name):
    asked = unlike_question(1)
    assert answered(name, asked) == answered(name, asked)


@pytest.mark.parametrize("name", ["greedy", "rocoin-style", "ram"])
def test_one_student_per_board_cannot_serve_more_students_than_boards(name):
    asked = question("rpi3x2", sizes=(3, 4, 5), min_students=3, max_students=3)
    assert answered(name, asked) is None
    assert longest_processing_time(asked) is not None


@pytest.mark.parametrize("name", ["greedy", "lpt", "rocoin-style"])
def test_the_published_communities_are_merged_as_published(name):
    asked = published()
    assert sorted(sizes(asked, answered(name, asked)).values()) == [39, 42]


def test_greedy_runs_one_network_and_takes_the_largest_that_each_student_fits():
    # 60 KB hold the second network, but not on the board of 25 KB.
    asked = question(memory=60_000, own={"rpi-3b-2": (25_000, None)}, objective=stages("capacity"))
    found = greedy(asked)
    assert {student.network for student in found.students} == {"wrn10:4,8,8"}
    assert len(found.students) == 2
    assert {s.network for s in greedy(question(memory=60_000)).students} == {"wrn10:8,8,16"}


def test_greedy_gives_the_largest_partition_to_the_fastest_board():
    asked = question(parse_fleet("rpi-3b,odroid-xu4s,rpi-3b-1200mhz"), sizes=(9, 5, 2), **PUBLISHED)
    assert sizes(asked, greedy(asked)) == {1: 9, 2: 5, 0: 2}


def test_greedy_drops_the_largest_p0_that_is_allowed():
    steps = [((0,), 0.4), ((0, 1), 0.9), ((0, 1, 2), 2.0)]
    asked = question(partition=partition((3, 4, 5, 6), steps))
    assert greedy(asked).dropped == (0, 1)
    assert greedy(asked.model_copy(update={"epsilon_pct": 0.5})).dropped == (0,)


def test_greedy_tries_one_student_less_where_a_board_has_no_room():
    asked = question("rpi3x8", sizes=(3,) * 8, own={"rpi-3b-4": (1_000, None)})
    assert {student.board for student in greedy(asked).students} == {0, 1, 2, 4, 5, 6, 7}


def test_lpt_puts_several_students_where_that_is_faster():
    fleet = parse_fleet("rpi-3b,odroid-xu4s")
    asked = question(fleet, sizes=(4, 4), min_students=2, **PUBLISHED)
    assert {student.board for student in longest_processing_time(asked).students} == {1}
    assert {student.board for student in greedy(asked).students} == {0, 1}


def test_lpt_is_optimal_for_alike_students_on_alike_boards():
    asked = alike_question(4, 4)
    (found,) = level_values(asked, longest_processing_time(asked))
    assert found == pytest.approx(solve(asked).stages[0].value, rel=1e-6)


def test_lpt_goes_on_with_a_smaller_network_where_the_largest_has_no_room():
    asked = question(own={"rpi-3b-2": (25_000, None)}, memory=40_000, objective=stages("capacity"))
    networks = {s.board: s.network for s in longest_processing_time(asked).students}
    assert networks == {0: "wrn10:4,8,16", 1: "wrn10:4,8,8"}


def test_rocoin_style_gives_each_group_of_like_boards_one_student():
    fleet = parse_fleet("rpi-3b*2,jetson-nano*2")
    found = rocoin_style(question(fleet, sizes=(4, 4), max_students=2, min_students=2))
    assert sorted(student.board for student in found.students) == [0, 2]


def test_rocoin_style_lets_every_board_of_a_group_hold_its_student():
    fleet = parse_fleet("rpi-3b*2,jetson-nano*2")
    asked = question(fleet, sizes=(4, 4), max_students=2, min_students=2, max_copies=2)
    assert sorted(sorted(one.boards) for one in rocoin_style(asked).students) == [[0, 1], [2, 3]]
    assert violations(solve_by_baseline(asked, "rocoin-style")) == []


def test_rocoin_style_takes_the_network_that_the_weakest_of_the_group_has_room_for():
    fleet = parse_fleet("rpi-3b*2,jetson-nano*2")
    asked = question(
        fleet,
        sizes=(4, 4),
        memory=60_000,
        own={"rpi-3b-2": (25_000, None)},
        max_students=2,
        min_students=2,
        networks=("wrn10:4,8,8", "wrn10:4,8,16"),
        objective=stages("capacity"),
    )
    networks = {student.board: student.network for student in rocoin_style(asked).students}
    assert networks == {0: "wrn10:4,8,8", 2: "wrn10:4,8,16"}


def test_rocoin_style_leaves_a_board_out_that_has_room_for_nothing():
    asked = question("rpi3x8", sizes=(4, 4), own={"rpi-3b-1": (1_000, None)}, max_students=2)
    found = rocoin_style(asked)
    assert len(found.students) == 2
    assert 0 not in {student.board for student in found.students}


def test_ram_spreads_filters_in_proportion_to_memory():
    asked = question(
        sizes=(4,) * 8, own={"rpi-3b-1": (1_000_000, None), "rpi-3b-2": (3_000_000, None)}
    )
    assert sizes(asked, proportional_to_ram(asked)) == {0: 8, 1: 24}


def test_ram_leaves_no_board_without_a_community():
    asked = question(
        sizes=(9, 1), own={"rpi-3b-1": (100_000, None), "rpi-3b-2": (90_000_000, None)}
    )
    assert sizes(asked, proportional_to_ram(asked)) == {0: 1, 1: 9}


def test_ram_uses_the_boards_of_most_memory():
    own = {"rpi-3b-3": (900_000, None), "rpi-3b-6": (800_000, None)}
    asked = question("rpi3x8", sizes=(4, 4), memory=500_000, own=own)
    assert {student.board for student in proportional_to_ram(asked).students} == {2, 5}


def test_more_samples_are_never_worse():
    asked = unlike_question(5)
    values = [level_values(asked, random_search(asked, n))[0] for n in (1, 4, 16, 64)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < values[0]


def test_random_search_finds_the_optimum_of_a_tiny_question():
    asked = question(sizes=(3, 4, 5), networks=ONE_WIDTH, objective=stages("latency"))
    (found,) = level_values(asked, random_search(asked, 200))
    assert found == pytest.approx(solve(asked).stages[0].value, rel=1e-6)


def test_an_unknown_baseline_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="greedy, lpt, rocoin-style, ram, random"):
        find_baseline("best")


def test_the_page_of_the_docs_is_written_of_all_baselines():
    compared = compare("capacity", 1, 1)
    assert (compared.feasible, compared.proven) == (1, 1)
    assert all(row.worst >= 0 for row in compared.rows)
    assert sum(f"| {row.baseline} |" in page([compared], "a solver") for row in compared.rows) == 5
