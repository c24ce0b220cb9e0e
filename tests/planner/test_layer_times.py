"""Plans by times of layers: their files, energy not known, intervals, and what flips in them.

Boards are a Raspberry Pi 3B with made rates.  The oracle places two communities on all pairs of
boards and costs each plan with the simulator's closed form.
"""

from itertools import permutations

import pytest
from drawn_instances import made_rates
from planner_questions import question

from nonn_common.errors import InputError, ProfileError
from nonn_plan.api import state_problem
from planner.data.modes import AssignedStudent, Assignment
from planner.diagnosis.explanation import explain
from planner.plan_file.alternatives import find_alternatives
from planner.plan_file.evaluation import PlanEvaluation
from planner.plan_file.plan_document import PlanDocument
from planner.plan_file.validation import require_valid, violations
from planner.problem.goals import ObjectiveLevel
from planner.solve import solve
from profiles.device import DEVICES
from profiles.fleet import Fleet
from profiles.layer_rates import WORKS
from simulator.engine.simulation import simulate
from simulator.workloads.closed_form import fan_out_breakdown

NETWORK = "wrn10:4,8,8"
SIZES = (3, 9)
LATENCY = (ObjectiveLevel(objective="latency"),)
NO_POWER = {"power_fixed_w": None, "power_busy_w": None}


def rated(name, scale, low=0.75, high=1.25, **figures):
    rates = {work: scale * facts.ms for work, facts in WORKS.items()}
    update = {"name": name, "layer_rates": made_rates(rates, low, high)}
    return DEVICES.get("rpi-3b").model_copy(update=update | figures)


def fleet_of(*devices):
    boards = [{"name": f"b{b}", "device": one.name} for b, one in enumerate(devices)]
    content = {"name": "made", "title": "Made", "boards": boards}
    return Fleet.check(content | {"devices": [one.model_dump() for one in devices]}, "this test")


def asked(*devices, **fields):
    return question(
        fleet_of(*devices), SIZES, networks=(NETWORK,), min_students=2, max_students=2,
        epsilon_pct=0.0, **({"objective": LATENCY, "timing": "per-layer"} | fields),
    )  # fmt: skip


def latencies(problem):
    """Latency of every plan of two students on two boards, by the boards' places."""
    return {
        places: PlanEvaluation.of(
            problem,
            Assignment(
                tuple(
                    AssignedStudent((c,), NETWORK, "fp32", place) for c, place in enumerate(places)
                ),
                (),
            ),
        ).predicted.total_ms
        for places in permutations(range(len(problem.fleet.boards)), 2)
    }


def places_of(plan):
    names = [board.name for board in plan.question.fleet.boards]
    by_community = sorted((one.communities, names.index(one.board)) for one in plan.students)
    return tuple(place for _, place in by_community)


BOARDS = (
    rated("quick", 400, 0.5, 2.0), rated("even", 550, 0.95, 1.05), rated("slow", 600, 0.9, 1.1)
)  # fmt: skip


@pytest.fixture(scope="module")
def plan():
    return solve(asked(*BOARDS))


def test_the_best_of_all_placements_is_found(plan):
    known = latencies(plan.question)
    assert plan.predicted.total_ms == pytest.approx(min(known.values()))
    assert known[places_of(plan)] == pytest.approx(min(known.values()))


def test_each_board_says_what_predicts_it_and_its_interval(plan):
    for row in plan.board_times:
        device = next(b.device for b in plan.question.boards if b.name == row.board)
        assert row.how == ("per-layer",)
        assert row.low_ms == pytest.approx(device.layer_rates.low * row.busy_ms)
        assert row.high_ms == pytest.approx(device.layer_rates.high * row.busy_ms)
    problem = plan.question
    for end, value_ms in (("low", plan.predicted.low_ms), ("high", plan.predicted.high_ms)):
        moved = PlanEvaluation(problem.at_end(end), plan.decision, plan.send_order)
        assert value_ms == pytest.approx(moved.predicted.total_ms)
    assert plan.predicted.middle_ms == plan.predicted.total_ms


def test_engine_and_closed_form_have_the_milliseconds_of_the_plan(plan):
    workload = PlanEvaluation.of_plan(plan).workload
    assert fan_out_breakdown(workload).total_ms == plan.predicted.total_ms
    assert simulate(workload).total_ms == pytest.approx(plan.predicted.total_ms)


def test_a_plan_file_keeps_its_times_and_edits_are_refused(plan, tmp_path):
    plan.write(tmp_path / "plan.json")
    assert PlanDocument.read(tmp_path / "plan.json") == plan
    require_valid(plan)
    first = plan.board_times[0].model_copy(update={"high_ms": 0.1})
    edited = plan.model_copy(update={"board_times": (first, *plan.board_times[1:])})
    assert "high_ms of" in violations(edited)[0]
    bare = plan.model_copy(update={"board_times": ()})
    assert violations(bare) == [
        "board_times do not name the boards that work, and what predicts each"
    ]


def test_a_file_from_before_there_was_a_choice_means_what_it_meant(plan):
    """Times by FLOPs alone, though its fleet's devices know layers."""
    content = plan.question.model_dump()
    del content["timing"]
    old = type(plan.question).check(content, "old file")
    assert all(not board.device.knows_layers for board in old.boards)
    by_flops = DEVICES.get("rpi-3b")
    works = PlanEvaluation(old, plan.decision, plan.send_order)
    assert [each.time for each in works.workload.students] == [None, None]
    assert works.board_times == ()
    assert works.predicted.high_ms is None
    row = next(row for row in fan_out_breakdown(works.workload).boards)
    macs = next(one.macs for one in plan.students if one.board == row.board)
    fixed, slope = by_flops.compute_fixed_ms.value, by_flops.compute_ms_per_mmac.value
    assert row.busy_ms == pytest.approx(fixed + slope * macs / 1e6)


@pytest.mark.parametrize("timing", ["per-layer", "upper-end"])
def test_what_flips_within_intervals_is_what_other_placements_beat(timing):
    found = solve(asked(*BOARDS, timing=timing))
    explanation = explain(found, 300)
    names = [board.name for board in found.question.fleet.boards]
    used = [row.board for row in found.board_times]
    expected = (
        [("low", None), ("high", None), *(("high", board) for board in used)]
        if timing == "per-layer"
        else [("low", None), ("middle", None)]
    )
    assert [(one.end, one.board) for one in explanation.flips] == expected
    for one in explanation.flips:
        known = latencies(found.question.at_end(one.end, one.board))
        own, least = known[places_of(found)], min(known.values())
        assert one.total_ms == pytest.approx(own)
        assert one.best_ms == pytest.approx(least)
        assert one.best == (own <= least * (1 + 1e-6))
        assert bool(one.students) == (not one.best)
        best = min(known, key=known.get)
        moved = {
            student.name
            for student, place in zip(
                sorted(found.students, key=lambda s: s.communities), best, strict=True
            )
            if names[place] != student.board
        }
        assert one.best or set(one.students) == moved
    assert any(not one.best for one in explanation.flips)


def test_where_no_plan_keeps_a_limit_that_is_said_and_not_the_solver_blamed(plan):
    """The least latency as a requirement: at the upper ends of all boards nothing keeps it."""
    required = [{"objective": "latency", "bound": 1.0001 * plan.predicted.total_ms}]
    content = plan.question.model_dump() | {"requirements": required}
    kept = solve(type(plan.question).check(content, "test"))
    explanation = explain(kept, 300)
    (everywhere,) = (one for one in explanation.flips if (one.end, one.board) == ("high", None))
    assert (everywhere.best, everywhere.best_ms, everywhere.students) == (False, None, ())
    assert (explanation.proven, explanation.stopped) == (True, False)


def test_robust_plans_are_best_at_the_upper_ends(plan):
    robust = solve(asked(*BOARDS, timing="upper-end"))
    known = latencies(plan.question.at_end("high"))
    assert robust.predicted.total_ms == pytest.approx(min(known.values()))
    assert known[places_of(plan)] > 1.01 * robust.predicted.total_ms
    predicted = robust.predicted
    assert predicted.total_ms == predicted.high_ms > predicted.middle_ms > predicted.low_ms
    middle = latencies(plan.question)[places_of(robust)]
    assert predicted.middle_ms == pytest.approx(middle)
    require_valid(robust)
    assert simulate(PlanEvaluation.of_plan(robust).workload).total_ms == pytest.approx(
        predicted.total_ms
    )


def test_without_intervals_nothing_flips():
    found = solve(asked(*(DEVICES.get("rpi-3b").model_copy(update={"name": "plain"}),) * 1,
                        DEVICES.get("rpi-3b").model_copy(update={"name": "other"})))  # fmt: skip
    assert [row.how for row in found.board_times] == [("flop-affine",)] * 2
    assert found.predicted.low_ms is None
    assert explain(found, 60).flips == ()


def test_alternatives_run_whole_networks_by_layers_too(plan):
    compressed = next(one for one in find_alternatives(plan) if one.kind == "compressed")
    boards = {board.name: board.device for board in plan.question.boards}
    parts = compressed.segmentation.parts
    assert len(parts) == 1
    slower = solve(asked(*(rated(b.name, 6000) for b in BOARDS)))
    other = next(one for one in find_alternatives(slower) if one.kind == "compressed")
    assert other.segmentation.parts[0].compute_ms > 5 * parts[0].compute_ms
    assert boards.keys() >= {parts[0].board}


def test_a_board_without_power_is_planned_for_anything_but_energy():
    dark = rated("dark", 45, **NO_POWER, compute_fixed_ms=None, compute_ms_per_mmac=None)
    found = solve(asked(dark, BOARDS[1]))
    predicted = found.predicted
    assert predicted.energy_fleet_mj is predicted.energy_highest_mj is None
    assert predicted.energy_per_node_mj is None
    require_valid(found)
    cut = [one for one in find_alternatives(found) if one.segmentation]
    assert any(one.energy_fleet_mj is None for one in cut) or all(
        "b0" not in one.segmentation.boards for one in cut
    )
    energy = {"objective": (ObjectiveLevel(objective="energy"),)}
    with pytest.raises(ProfileError, match=r"board b0.*device dark without power"):
        asked(dark, BOARDS[1], **energy)
    assert solve(asked(*BOARDS[:2], **energy)).predicted.energy_fleet_mj > 0


def test_a_stated_problem_predicts_layer_by_layer():
    made = asked(*BOARDS)
    stated = state_problem(
        made.partition, made.fleet, image=made.image, classes=made.classes, networks=(NETWORK,),
        budgets=made.budgets,
    )  # fmt: skip
    assert stated.timing == "per-layer"
    with pytest.raises(InputError):
        made.check(made.model_dump() | {"timing": "guessed"}, "this test")
