"""Rates of images: power, battery life, and what cannot keep up.

Oracles: hand arithmetic on the published time and energy of a Raspberry Pi 3B (arXiv:1907.11804,
Tables 6 and 7), and the event engine, which adds up computing and idle time by itself.
"""

import pytest
from planner_questions import question, stages

from nonn_common.errors import InputError, ProfileError
from planner.diagnosis.explanation import explain
from planner.plan_file.evaluation import plan_workload
from planner.plan_file.plan_document import PlanDocument
from planner.plan_file.validation import violations
from planner.problem.duty import sustained
from planner.problem.goals import Requirement
from planner.problem.problem import Problem
from planner.solve import solve
from profiles.device import DEVICES
from simulator.engine.simulation import simulate
from simulator.scenario import Periodic, Scenario


def rated(asked, per_s, wh=None, **fields):
    """The question at a rate, with these batteries: one for all boards, or one for each."""
    sizes = wh if isinstance(wh, tuple) else (wh,) * len(asked.budgets)
    rows = [
        row.model_copy(update={"battery_wh": size})
        for row, size in zip(asked.budgets, sizes, strict=True)
    ]
    required = sustained(fields.pop("requirements", asked.requirements), per_s)
    own = {"budgets": rows, "rate_per_s": per_s, "requirements": required}
    return Problem.check(dict(asked) | own | fields, where="test")


def published(fleet="rpi3x2", **fields):
    """The published student of 167 MFLOPs on each of two boards."""
    return question(
        fleet, (46, 46), networks=("wrn16:32,64,88",), image="3x32x32", min_students=2,
        max_students=2, group0_copies="per-student", objective=stages("latency"), **fields,
    )  # fmt: skip


def test_the_published_board_lasts_as_by_hand():
    """101.91 ms and 238.98 mJ per image: 1.4 + 5 (0.23898 - 1.4 * 0.10191) = 1.882 W, 5.31 h."""
    plan = solve(rated(published(), 5, wh=10))
    assert plan.status == "optimal"
    for row in plan.duty.boards:
        assert row.busy_pct == pytest.approx(50.96, rel=0.003)
        assert row.average_w == pytest.approx(1.8815, rel=0.003)
        assert row.battery_h == pytest.approx(10 / 1.8815, rel=0.003)
    assert plan.duty.average_w == pytest.approx(2 * 1.8815, rel=0.003)
    assert plan.duty.battery_h == min(row.battery_h for row in plan.duty.boards)
    assert not violations(plan)


def test_a_plan_that_cannot_keep_up_is_refused_by_the_board_that_cannot():
    plan = solve(rated(published(), 20))
    assert plan.status == "infeasible"
    assert any(
        "throughput >= 20" in one and "rpi-3b-1 computes 101.6 ms for each image, so 9.838/s" in one
        for one in plan.conflict
    )


def test_a_rate_is_repaired_by_one_that_the_boards_can_take():
    found = explain(solve(rated(published(), 20)), 60)
    (repair,) = [one for one in found.repairs if one.objective == "throughput"]
    assert repair.value == pytest.approx(1000 / 101.91, rel=0.005)


def test_the_engine_draws_what_is_planned():
    asked = question("rpi-3b,odroid-xu4s", (6, 7), objective=stages("latency"), min_students=2)
    plan = solve(rated(asked, 4.0))
    run = simulate(plan_workload(plan).graph(), 2000, Scenario(arrivals=Periodic(250.0)))
    drawn = {row.board: row.average_w for row in run.boards}
    for row in plan.duty.boards:
        assert drawn[row.board] == pytest.approx(row.average_w, rel=1e-3)


def test_battery_life_takes_the_work_to_the_board_with_the_larger_battery():
    asked = question("rpi3x2", (3, 4, 5), min_students=2)
    plan = solve(rated(asked, 10, wh=(1.0, 1.3), objective=stages("battery")))
    assert plan.status == "optimal"
    assert plan.stages[0].value == pytest.approx(plan.duty.battery_h)
    # Idle alone empties the first one's battery sooner than both students do the second one's.
    assert {one.board for one in plan.students} == {"rpi-3b-2"}
    alike = solve(rated(asked, 10, wh=2.0, objective=stages("battery")))
    highest = max(row.average_w for row in alike.duty.boards)
    assert alike.stages[0].value == pytest.approx(2.0 / highest)


def test_a_required_life_is_a_limit():
    asked = rated(published(), 5, wh=10)
    life_h = solve(asked).duty.battery_h
    most = Requirement(objective="battery", bound=life_h)
    assert solve(rated(asked, 5, wh=10, requirements=(most,))).status == "optimal"
    more = Requirement(objective="battery", bound=life_h * 1.001)
    refused = solve(rated(asked, 5, wh=10, requirements=(more,)))
    assert refused.status == "infeasible"
    assert any("battery >=" in one and "would do" in one for one in refused.conflict)


def test_a_point_that_draws_less_is_taken_for_battery_life():
    """1.2 GHz, 3.7 W as it computes, or 400 MHz: at 2.35 W for three times as long."""
    plan = solve(rated(published("rpi3x2:any"), 1, wh=10, objective=stages("battery")))
    by_point = {}
    for name in ("rpi-3b", "rpi-3b-1200mhz"):
        fixed = solve(rated(published(f"{name}*2"), 1, wh=10))
        by_point[name] = fixed.duty.battery_h
    assert plan.duty.battery_h == pytest.approx(max(by_point.values()))
    assert {row.device for row in plan.question.fleet.boards} == {max(by_point, key=by_point.get)}


def test_idle_power_that_is_not_known_is_told():
    plan = solve(rated(question("stm32l4r5zi*2", (4, 4), min_students=2), 1.0, wh=1.0))
    assert not any(row.idle_known for row in plan.duty.boards)
    device = DEVICES.get("stm32l4r5zi")
    for row in plan.duty.boards:
        alone_w = device.power_busy_w.value * row.busy_pct / 100
        assert row.average_w == pytest.approx(alone_w)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate_per_s": None}, "needs the rate of images"),
        ({"requirements": ()}, "needs the requirement throughput >= 5"),
        ({"rate_per_s": 1e-6}, "greater than or equal to 0.0001"),
    ],
)
def test_a_rate_and_its_batteries_come_together(change, message):
    with pytest.raises(InputError, match=message):
        Problem.check(dict(rated(published(), 5, wh=10)) | change, where="test")


def test_life_needs_the_battery_of_each_board():
    with pytest.raises(InputError, match="none is told of rpi-3b-2"):
        rated(published(), 5, wh=(10.0, None), objective=stages("battery"))


def test_a_board_that_draws_more_idle_than_at_work_has_no_best_life():
    device = DEVICES.get("rpi-3b")
    odd = device.model_copy(
        update={"name": "odd", "idle_w": device.idle_w.model_copy(update={"value": 2.0})}
    )
    asked = published()
    boards = tuple(row.model_copy(update={"device": "odd"}) for row in asked.fleet.boards)
    fleet = asked.fleet.model_copy(update={"boards": boards, "devices": (odd,)})
    with pytest.raises(ProfileError, match=r"idle_w 2, 1\.4"):
        rated(asked, 5, wh=10, fleet=fleet, objective=stages("battery"))


@pytest.mark.parametrize("field", ["average_w", "battery_h", "busy_pct", "idle_known"])
def test_an_edited_duty_is_refused(field):
    plan = solve(rated(published(), 5, wh=10))
    first, *others = plan.duty.boards
    value = getattr(first, field)
    edited = first.model_copy(update={field: not value if value is True else value * 1.01})
    duty = plan.duty.model_copy(update={"boards": (edited, *others)})
    told = violations(plan.model_copy(update={"duty": duty}))
    assert told and told[0].startswith(f"{field} of rpi-3b-1 is ")
    assert violations(plan.model_copy(update={"duty": None}))


def test_a_plan_without_a_rate_has_no_duty_and_older_files_are_read():
    plan = solve(published())
    assert plan.duty is None
    plain = plan.model_dump(mode="json")
    del plain["duty"], plain["question"]["rate_per_s"]
    for row in plain["question"]["budgets"]:
        del row["battery_wh"]
    assert PlanDocument.check(plain, where="test") == plan
