"""Boards whose flash and RAM are apart: weights in one, activations of one model in the other."""

import copy

import pytest
from planner_questions import PUBLISHED_SIZES, question, stages

from nonn_common.errors import InputError
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import student_cost
from nonn_plan.cli.parsers.requirements import parse_budgets
from planner.certificates.verification import verify_plan
from planner.diagnosis.explanation import explain
from planner.heuristics.baselines import BASELINES, solve_by_baseline
from planner.pipelines.segmentation import best_segmentation, infeasibility_reason
from planner.plan_file.plan_document import PlanDocument
from planner.plan_file.validation import violations
from planner.problem.budgets import BoardBudget, memory_notes, one_memory_notes
from planner.solve import solve
from planner.solvers.certificate_search import with_certificates
from profiles.device import DEVICES, DeviceProfile
from profiles.fleet import parse_fleet

FLASH, RAM = 2 * 1024**2, 640 * 1024
BOARD = "stm32l4r5zi"
LARGE = {
    "sizes": PUBLISHED_SIZES,
    "precisions": ("int8",),
    "objective": stages("students", "latency"),
}


def budgets(problem, **limits):
    rows = tuple(row.model_copy(update=limits) for row in problem.budgets)
    return problem.model_copy(update={"budgets": rows})


def one_memory(count, size_bytes):
    """Such boards, if their flash and RAM were one memory."""
    device = DEVICES.get(BOARD).model_copy(
        update={"name": "summed", "flash_bytes": None, "ram_bytes": size_bytes}
    )
    fleet = parse_fleet(f"{BOARD}*{count}")
    boards = tuple(one.model_copy(update={"device": "summed"}) for one in fleet.boards)
    return fleet.model_copy(update={"devices": (device,), "boards": boards})


def test_eight_boards_hold_students_that_one_sum_of_their_ram_refuses():
    asked = {**LARGE, "networks": ("wrn16:32,64,128",), "image": "3x32x32"}
    plan = solve(question(f"{BOARD}*8", **asked))
    assert plan.status == "optimal"
    assert violations(plan) == []
    assert all(RAM < one.memory_bytes < FLASH for one in plan.students)
    summed = solve(question(one_memory(8, RAM), **asked))
    assert summed.status == "infeasible"


@pytest.mark.parametrize("fields", [{}, {"group0_copies": "per-board", "reuse": True}])
def test_what_a_sum_of_both_would_accept_is_refused_by_its_ram(fields):
    asked = {**LARGE, **fields, "networks": ("wrn10:16,16,16",), "image": "3x160x160"}
    assert solve(question(one_memory(8, FLASH + RAM), **asked)).status == "optimal"
    plan = with_certificates(solve(question(f"{BOARD}*8", **asked)))
    assert plan.status == "infeasible"
    assert any(f"RAM budget of {BOARD}-1: 655.4 KB" in line for line in plan.conflict)
    assert not any("flash" in line or "memory" in line for line in plan.conflict)
    found = verify_plan(plan.question, plan.model_dump(mode="json"))
    assert found.stages[0].standing == "certified"
    repairs = explain(plan, deterministic_limit=60).repairs
    assert any(repair.kind == "ram_bytes" for repair in repairs)


def needs(plan):
    """Bytes of weights and of activations of each student, by hand."""
    costs = [
        student_cost(parse_network(one.network), plan.question.image_shape, len(one.filters))
        for one in plan.students
    ]
    return [4 * cost.params for cost in costs], [4 * cost.peak_elements for cost in costs]


ONE_BOARD = {
    "sizes": (3, 4, 5),
    "min_students": 3,
    "max_students": 3,
    "networks": ("wrn10:4,8,8",),
    "objective": stages("capacity", "latency"),
}


@pytest.mark.parametrize("copies", ["per-student", "per-board"])
def test_students_of_a_board_run_one_after_the_other_in_one_arena(copies):
    asked = question(BOARD, **ONE_BOARD, group0_copies=copies)
    plan = with_certificates(solve(asked))
    rows = {row.budget: row.used for row in plan.budgets}
    if copies == "per-student":
        stored, alive = needs(plan)
        assert (rows["flash_bytes"], rows["ram_bytes"]) == (sum(stored), max(alive))
        assert rows["memory_bytes"] == sum(stored) + sum(alive)
    else:
        (joint,) = plan.joint_models
        assert rows["flash_bytes"] == 4 * joint.params
        assert rows["ram_bytes"] == 4 * joint.peak_elements
    exact = {name: rows[name] for name in ("flash_bytes", "ram_bytes")}
    same = with_certificates(solve(budgets(asked, **exact)))
    assert [stage.value for stage in same.stages] == [stage.value for stage in plan.stages]
    found = verify_plan(same.question, same.model_dump(mode="json"))
    assert not found.untrue
    assert found.stages[0].standing == "certified"
    for name, used in exact.items():
        short = solve(budgets(asked, **exact | {name: used - 1}))
        assert short.status == "infeasible"
        noun = {"flash_bytes": "flash", "ram_bytes": "RAM"}[name]
        assert any(line.startswith(f"{noun} budget of {BOARD}-1") for line in short.conflict)


def test_an_untrue_use_of_flash_or_ram_is_found():
    plan = with_certificates(solve(question(BOARD, **ONE_BOARD)))
    content = plan.model_dump(mode="json")
    for name in ("flash_bytes", "ram_bytes"):
        changed = copy.deepcopy(content)
        (row,) = [one for one in changed["budgets"] if one["budget"] == name]
        row["used"] -= 1
        (line,) = verify_plan(plan.question, changed).untrue
        assert name in line
        tight = copy.deepcopy(changed)
        tight["question"]["budgets"][0][name] = row["used"]
        problem = PlanDocument.model_validate(tight).question
        assert any(f"of {row['used']} {name}" in one for one in verify_plan(problem, tight).untrue)


def test_the_budget_that_binds_is_named():
    asked = question(BOARD, **{**ONE_BOARD, "networks": ("wrn10:4,8,8", "wrn10:4,8,16")})
    free = solve(asked)
    used = {row.budget: int(row.used) for row in free.budgets}
    plan = solve(budgets(asked, flash_bytes=used["flash_bytes"] - 1))
    rows = {
        row.kind: row for row in explain(plan, deterministic_limit=60).sensitivities if row.board
    }
    assert rows["flash_bytes"].binds
    assert rows["flash_bytes"].loosen_to == used["flash_bytes"]
    assert not rows["ram_bytes"].binds
    assert rows["ram_bytes"].tighten_to == used["ram_bytes"]


@pytest.mark.parametrize("method", sorted(BASELINES))
def test_baselines_keep_flash_and_ram(method):
    asked = question(f"{BOARD}*2", sizes=(3, 4, 5), objective=stages("latency"))
    alive = min(max(needs(solve(asked))[1]), 20_000)
    tight = budgets(asked, flash_bytes=60_000, ram_bytes=alive)
    plan = solve_by_baseline(tight, method)
    assert violations(plan) == []


def test_parts_of_a_cut_network_keep_flash_and_ram():
    asked = question(f"{BOARD}*3", precisions=("int8",), image="3x32x32")
    spec = parse_network("wrn16-1")
    whole = best_segmentation(asked, [spec])
    assert whole is not None and len(whole.parts) == 1
    weights = student_cost(spec, asked.image_shape, 1).params
    cut = best_segmentation(budgets(asked, flash_bytes=weights // 2), [spec])
    assert cut is not None and len(cut.parts) > 1
    assert best_segmentation(budgets(asked, ram_bytes=1000), [spec]) is None
    assert "of RAM" in infeasibility_reason(budgets(asked, ram_bytes=1000), spec)
    assert "of flash" in infeasibility_reason(budgets(asked, flash_bytes=1000), spec)


def test_budgets_are_those_of_the_device_less_the_runtime():
    fleet = parse_fleet(f"{BOARD}*2,rpi-3b")
    one, two, pi = parse_budgets(
        fleet, [], [], ["60KB+16KB", f"{BOARD}-2=8KB"], flash=["1MB"], ram=[f"{BOARD}-2=2MB"]
    )
    assert (one.flash_bytes, one.ram_bytes, one.memory_bytes) == (1_000_000, RAM, None)
    assert (one.room("flash_bytes"), one.room("ram_bytes")) == (940_000, RAM - 16_000)
    assert (two.room("flash_bytes"), two.room("ram_bytes")) == (992_000, RAM - 8_000)
    assert (pi.flash_bytes, pi.ram_bytes, pi.runtime_bytes) == (None, None, 76_000)
    (note,) = memory_notes((one, two, pi))
    assert note == (
        f"planned with 655.4 KB on {BOARD}-2, all RAM that there is, in place of the 2.0 MB asked "
        "for"
    )
    (note,) = one_memory_notes((one, two, pi))
    assert "rpi-3b-1" in note and BOARD not in note


def test_flash_of_boards_with_one_memory_is_refused():
    with pytest.raises(InputError, match="not apart"):
        parse_budgets(parse_fleet("rpi3x2"), [], [], ram=["100KB"])
    with pytest.raises(InputError, match="not apart"):
        parse_budgets(parse_fleet(f"{BOARD},rpi-3b"), [], [], flash=["rpi-3b-1=100KB"])


def test_a_device_with_flash_tells_its_ram():
    content = DEVICES.get(BOARD).model_dump(mode="json")
    with pytest.raises(InputError, match="ram_bytes"):
        DeviceProfile.check(content | {"ram_bytes": None}, where="test")


def test_a_budget_of_before_is_one_memory():
    row = BoardBudget.model_validate({"board": "a", "memory_bytes": 1000, "runtime_bytes": 10})
    assert row.room("memory_bytes") == 990
    assert row.room("flash_bytes") is row.room("ram_bytes") is None
    problem = question("rpi3x2")
    content = problem.model_dump(mode="json")
    new = ("flash_bytes", "ram_bytes", "runtime_flash_bytes", "runtime_ram_bytes")
    for one in content["budgets"]:
        for name in (*new, "asked_flash_bytes", "asked_ram_bytes"):
            one.pop(name)
    assert type(problem).check(content, where="test") == problem
