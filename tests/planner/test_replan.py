"""Plans for the boards that are left equal a look at every placement of the trained students."""

from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest
from drawn_problems import unlike_question
from enumerated_plans import cost_of
from listed_plans import fits, models_of, values
from planner_questions import published, stages

from nonn_common.errors import InfeasibleError, InputError
from nonn_core.networks.blueprint import ImageShape
from nonn_core.recipe import OptimiserRecipe
from planner.accuracy.rows import TeacherFacts
from planner.certificates.verification import verify_plan
from planner.data.modes import AssignedStudent, Assignment
from planner.data.problem_data import resolve_problem
from planner.diagnosis.explanation import explain
from planner.plan_file.evaluation import unproven_plan
from planner.plan_file.training_recipe import training_recipe
from planner.plan_file.validation import violations
from planner.problem.goals import AccuracyBasis, ObjectiveLevel, Requirement
from planner.problem.problem import Problem
from planner.replan import replan
from planner.solve import solve

OBJECTIVES = (
    ("latency",),
    ("energy",),
    ("latency:20%", "boards"),
    ("throughput",),
    ("energy-node",),
    ("boards", "latency"),
)
ACCURATE = Requirement(objective="accuracy", bound=60.0)
NOISE = {"boards": 0.0}
"""Solver units that rounding hides of a figure, 1,000 where it does."""


def drawn_plan(seed):
    """Students of drawn networks, drawn communities and a drawn placement that fits, if any does.

    Nothing of it is good: what is left must be no better by chance.
    """
    rng = np.random.default_rng(seed)
    objective = tuple(map(ObjectiveLevel.parse, OBJECTIVES[seed % len(OBJECTIVES)]))
    question = unlike_question(seed, boards=(3, 4), students=(2, 4), objective=objective)
    shared = {"group0_copies": "per-board"} if seed % 2 else {}
    question = question.model_copy(update=shared | {"min_students": 1, "epsilon_pct": 0.0})
    owners = rng.integers(question.max_students, size=len(question.partition.communities))
    groups = [tuple(map(int, np.flatnonzero(owners == s))) for s in sorted(set(owners))]
    networks = [question.networks[rng.integers(3)] for _ in groups]
    data, image = resolve_problem(question), question.image_shape
    sizes = [sum(data.sizes[c] for c in own) for own in groups]
    costs = [cost_of(network, image, n) for network, n in zip(networks, sizes, strict=True)]
    for _ in range(30):
        boards = rng.integers(len(question.fleet.boards), size=len(groups)).tolist()
        load = tuple((*row, "int8") for row in zip(boards, costs, sizes, strict=True))
        if fits(data, models_of(image, data, load, networks)):
            rows = zip(groups, networks, boards, strict=True)
            placed = tuple(AssignedStudent(own, name, "int8", b) for own, name, b in rows)
            return unproven_plan(question, Assignment(placed, ()), "drawn")
    return None


def listed(plan, gone):
    """Boards by student, and values, of each placement of most students, with most parameters."""
    question = plan.question
    data, image = resolve_problem(question), question.image_shape
    left = [b for b, row in enumerate(question.fleet.boards) if row.name not in gone]
    names = [row.name for row in question.fleet.boards]
    for count in range(len(plan.students), 0, -1):
        found = []
        for students in combinations(plan.students, count):
            costs = [cost_of(one.network, image, len(one.filters)) for one in students]
            sizes = [len(one.filters) for one in students]
            networks = [one.network for one in students]
            for boards in product(left, repeat=count):
                load = tuple((*row, "int8") for row in zip(boards, costs, sizes, strict=True))
                models = models_of(image, data, load, networks)
                if fits(data, models):
                    at = {one.name: names[b] for one, b in zip(students, boards, strict=True)}
                    found.append((sum(one.params for one in students), at, load, models))
        if found:
            most = max(params for params, *_ in found)
            return [
                (at, values(data, data.drop_choices[0], load, models, (1, 1)))
                for params, at, load, models in found
                if params == most
            ]
    return []


def best_and_moves(plan, placements, slack):
    """Value of the last level, and fewest moves of the placements within all levels."""
    homes = {one.name: one.board for one in plan.students}
    for level in plan.question.objective:
        best = min(worth[level.objective] for _, worth in placements)
        hidden = slack * NOISE.get(level.objective, 1e3)
        allowed = best * (1 + level.tolerance_pct / 100) + hidden
        placements = [row for row in placements if row[1][level.objective] <= allowed]
    moves = min(sum(homes[name] != board for name, board in at.items()) for at, _ in placements)
    return best, moves


@pytest.mark.parametrize("part", range(5))
def test_a_replan_is_the_best_placement_of_what_is_left(part):
    counted = Counter()
    for seed in range(part, 110, 5):
        if (plan := drawn_plan(seed)) is None:
            continue
        used = sorted(plan.decision.used)
        gone = used[seed % len(used) :][:1] if seed % 3 else used[:2]
        placements = listed(plan, gone)
        if not placements:
            with pytest.raises((InfeasibleError, InputError)):
                replan(plan, gone)
            counted["nowhere"] += 1
            continue
        found = replan(plan, gone)
        assert found.proven
        assert violations(found.plan) == []
        assert found.gone == tuple(gone)
        names = {one.name for one in found.plan.students}
        assert names in [set(at) for at, _ in placements]
        counted["smaller" if found.homeless else "whole"] += 1
        at = {one.name: one.board for one in found.plan.students}
        (worth,) = (worth for boards, worth in placements if boards == at)
        last = plan.question.objective[-1].objective
        exact, most = best_and_moves(plan, placements, 1e-9)
        loose, fewest = best_and_moves(plan, placements, 1.0)
        hidden = NOISE.get(last, 1e3)
        assert loose - hidden <= worth[last] <= exact + hidden
        assert fewest <= sum(one.is_move for one in found.models if one.after) <= most
    assert counted["whole"] >= 3
    assert counted["smaller"] + counted["nowhere"] >= 1


def solved(**changes):
    """A proven plan of three students on four unlike boards."""
    question = unlike_question(1, boards=(4, 4), students=(3, 3), communities=(3, 3))
    return solve(Problem.check(dict(question) | changes, where="test"))


def test_with_the_same_boards_it_is_the_same_plan():
    plan = solved()
    found = replan(plan)
    assert found.plan == plan
    assert found.proven
    assert not any(one.is_move for one in found.models)


@pytest.mark.parametrize("seed", range(8))
def test_nobody_moves_where_only_an_idle_board_goes(seed):
    question = unlike_question(seed, boards=(4, 5), students=(2, 3), communities=(2, 3))
    plan = solve(question)
    idle = [row.name for row in question.fleet.boards if row.name not in plan.decision.used]
    assert idle
    found = replan(plan, idle)
    assert not any(one.is_move for one in found.models)
    assert [one.boards for one in found.plan.students] == [one.boards for one in plan.students]
    assert found.plan.predicted == plan.predicted


@pytest.fixture(scope="module")
def published_plan():
    """Two students on two Raspberry Pi 3B, by latency; wrn40-4 is the teacher."""
    known = AccuracyBasis(teacher=TeacherFacts.of_network("wrn40-4", ImageShape(3, 32, 32), 10))
    narrow = ("wrn16:16,32,64", "wrn16:16,64,96")
    goals = stages("capacity", "latency")
    return solve(published(accuracy=known, networks=narrow, objective=goals))


def test_published_boards_take_turns(published_plan):
    """rpi-3b-1 goes, and comes back under another name: the NoNN is whole again."""
    away = replan(published_plan, ["rpi-3b-1"])
    assert away.homeless == ("student-2",)  # of 39 filters; student-1, of 42, has more parameters
    (kept,) = away.plan.students
    assert (kept.name, kept.board) == ("student-1", "rpi-3b-2")
    assert away.proven
    assert away.plan.accuracy.value_pct < published_plan.accuracy.value_pct
    assert "1 of 2 trained students answer" in away.plan.accuracy.basis
    back = replan(away.plan, boards=["rpi-3b"])
    assert back.came == ("rpi-3b-1",)
    assert back.plan.predicted.total_ms == pytest.approx(published_plan.predicted.total_ms)
    assert back.plan.accuracy == published_plan.accuracy
    asked = {"optimiser": OptimiserRecipe(epochs=1), "data": "digits", "teacher": "teacher"}
    assert training_recipe(away.plan, **asked) == training_recipe(published_plan, **asked)


def test_proofs_are_checked_without_a_solver(published_plan):
    found = verify_plan(
        (away := replan(published_plan, ["rpi-3b-1"])).plan.question,
        away.plan.model_dump(mode="json"),
    )
    assert found.untrue == ()
    assert [one.standing for one in found.stages] == ["certified"]


def test_a_student_that_was_not_trained_so_is_named(published_plan):
    away = replan(published_plan, ["rpi-3b-1"]).plan
    student = away.students[0].model_copy(update={"communities": (3,)})
    assert violations(away.model_copy(update={"students": (student,)}))[0] == (
        "student-1: communities is not what it was trained with"
    )


def test_other_students_are_not_asked_for(published_plan):
    away = replan(published_plan, ["rpi-3b-1"]).plan
    for ask in (lambda: solve(away.question), lambda: explain(away, 1.0)):
        with pytest.raises(InputError, match="are trained, and only their boards can be asked"):
            ask()


def test_boards_behind_a_board_go_with_it():
    plan = solved()
    first, second, *rest = plan.question.fleet.boards
    rows = (first, second.model_copy(update={"via": first.name}), *rest)
    fleet = plan.question.fleet.model_copy(update={"boards": rows})
    found = replan(solve(plan.question.model_copy(update={"fleet": fleet})), [first.name])
    assert found.gone == (first.name, second.name)
    assert found.notes == (f"{second.name} is reached through {first.name}, and goes with it",)


@pytest.mark.parametrize(
    "changes",
    [
        {"group0": "own-board"},
        {"reuse": True, "min_students": 4, "max_students": 4},
        {"max_copies": 2, "objective": stages("survival", "latency"), "min_students": 2},
        {"objective": stages("latency-p95")},
        {"objective": stages("fleet-power")},
        {"objective": stages("accuracy"), "requirements": (ACCURATE,)},
    ],
    ids=["stem", "rounds", "copies", "p95", "power", "accuracy"],
)
def test_any_plan_is_replanned_within_its_rules(changes):
    plan = solved(**changes)
    found = replan(plan, [plan.students[0].board])
    assert found.proven
    assert violations(found.plan) == []
    assert not {b for one in found.plan.decision.models for b in one.boards} & set(found.gone)


def test_wrong_boards_are_refused(published_plan):
    with pytest.raises(InputError, match=r"no such board in the plan.*rpi-3b-1, rpi-3b-2"):
        replan(published_plan, ["rpi-9"])
    with pytest.raises(InputError, match="no board is left"):
        replan(published_plan, ["rpi-3b-1", "rpi-3b-2"])
    rows = published_plan.question.budgets
    little = (rows[0], rows[1].model_copy(update={"memory_bytes": 10**6, "macs": 1}))
    question = published_plan.question.model_copy(update={"budgets": little, "balance_pct": None})
    alone = AssignedStudent((0, 1, 2, 3), "wrn16:16,32,64", "int8", 0)
    with pytest.raises(InfeasibleError, match="no trained student keeps the budgets"):
        replan(unproven_plan(question, Assignment((alone,), ()), "by hand"), ["rpi-3b-1"])


def test_a_board_of_another_device_has_the_budget_that_all_have(published_plan):
    found = replan(published_plan, ["rpi-3b-1"], ["rpi-4b@wifi"])
    assert found.notes == ("rpi-4b-1 has the budget of all boards",)
    new = found.plan.question.budgets[-1]
    assert (new.memory_bytes, new.macs) == (500_000, 100_000_000)
    assert found.homeless == ()
    first, second = published_plan.question.budgets
    unlike = (first, second.model_copy(update={"macs": 200_000_000}))
    question = published_plan.question.model_copy(update={"budgets": unlike})
    with pytest.raises(InputError, match="no budget is known for this board"):
        replan(solve(question), ["rpi-3b-1"], ["rpi-4b@wifi"])
