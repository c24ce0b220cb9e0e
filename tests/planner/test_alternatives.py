"""Compress or segment: ways side by side, and the teacher alone."""

import subprocess
import sys

import pytest
from planner_questions import PUBLISHED_SIZES, WRN16, question, stages
from segmentation_graph import segmentation_graph

from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from planner.accuracy.rows import TeacherFacts
from planner.pipelines.segment_costs import cut_model
from planner.pipelines.segmentation import describe_segmentation
from planner.plan_file.alternatives import find_alternatives, teacher_alone, with_alternatives
from planner.plan_file.evaluation import plan_workload
from planner.plan_file.plan_document import PlanDocument
from planner.plan_file.validation import violations
from planner.problem.goals import AccuracyBasis, Requirement
from planner.solve import solve
from profiles.device import compute_mj, compute_ms
from profiles.fleet import resolve
from simulator.engine.simulation import simulate
from simulator.graph_builder import join_ms, send_ms
from simulator.scenario import Scenario, Times
from simulator.task_graph import period_ms
from simulator.workloads.fan_out import reply_ms

TEACHER = parse_network("wrn40-4")
KNOWN = AccuracyBasis(teacher=TeacherFacts.of_network("wrn40-4", ImageShape(3, 32, 32), 10))
LATENCY = stages("latency")


def asked(memory, fleet="rpi3x2", **fields):
    """The published case with this memory for each board, two students, in the least time."""
    return question(
        fleet,
        PUBLISHED_SIZES,
        memory=memory,
        **{
            "precisions": ("int8",),
            "image": "3x32x32",
            "networks": WRN16,
            "min_students": 2,
            "objective": LATENCY,
            "accuracy": KNOWN,
        }
        | fields,
    )


def ways(one, plan=None):
    found = {each.kind: each for each in find_alternatives(plan or solve(one))}
    assert list(found) == ["nonn", "compressed", "both", "segmented", "teacher"]
    return found["nonn"], found["segmented"], found["compressed"], found["both"]


@pytest.fixture(scope="module")
def roomy():
    one = asked(5_500_000)
    plan = solve(one)
    return one, plan, ways(one, plan)


def test_each_way_costs_what_a_simulation_says(roomy):
    one, plan, found = roomy
    for each in found:
        graph = (
            segmentation_graph(one, each.segmentation)
            if each.segmentation
            else plan_workload(plan).graph()
        )
        result = simulate(graph)
        assert result.total_ms == pytest.approx(each.total_ms, abs=1e-6)
        assert result.energy_total_mj == pytest.approx(each.energy_fleet_mj)
        assert len(result.boards) == each.boards
        assert each.status == "feasible"
        assert each.reason is None


def test_a_nonn_beats_the_teacher_on_two_boards(roomy):
    _, plan, (nonn, teacher, compressed, both) = roomy
    assert nonn.total_ms == plan.predicted.total_ms
    assert teacher.networks == (str(TEACHER),)
    assert teacher.boards == both.boards == 2
    assert compressed.boards == 1
    assert teacher.memory_highest_bytes <= 5_500_000
    assert teacher.total_ms > 2 * nonn.total_ms


def test_a_compressed_network_is_the_best_of_all_on_all_boards():
    one = asked(400_000, "odroid-xu4s,rpi-3b,rpi-zero-2w@wired-100mbit", objective=stages("energy"))
    _, boards = resolve(one.fleet)
    known = [
        describe_segmentation(
            one, cut_model(spec, one.image_shape, one.classes, "int8"), (board,), ()
        )
        for spec in one.specs
        for board in boards
    ]
    least = min(each.energy_fleet_mj for each in known if each.memory_highest_bytes <= 400_000)
    _, _, compressed, both = ways(one)
    assert compressed.energy_fleet_mj == pytest.approx(least)
    assert both.boards >= 2


def test_what_does_not_fit_says_why():
    one = asked(80_000, min_students=1, epsilon_pct=0.0)
    found = ways(one)
    assert {each.status for each in found} == {"infeasible"}
    nonn, teacher, compressed, both = (each.reason for each in found)
    assert nonn
    assert "needs 639.0 KB, the largest board has 80.0 KB" in teacher
    assert compressed == "wrn16:16,32,64: it needs 224.2 KB, the largest board has 80.0 KB"
    assert "wrn16:16,32,64: its weights need 175.1 KB, all boards together have 160.0 KB" in both


def test_a_teacher_that_nobody_names_is_undecided():
    found = ways(asked(500_000, accuracy=None))
    assert (found[1].status, found[1].networks) == ("undecided", ())
    alone = teacher_alone(asked(500_000, accuracy=None))
    assert (alone.status, alone.total_ms, alone.reason) == (
        "undecided",
        None,
        "the teacher is not known",
    )


def test_a_search_that_is_too_large_is_undecided(monkeypatch, roomy):
    one, plan, _ = roomy
    monkeypatch.setattr("planner.pipelines.label_search.MOST_LABELS", 1)
    _, teacher, *_ = ways(one, plan)
    assert teacher.status == "undecided"
    assert "too large a search" in teacher.reason


def test_accuracy_is_known_or_estimated(roomy):
    one, plan, found = roomy
    nonn, teacher, compressed, both = (each.accuracy_pct for each in found)
    assert nonn == plan.accuracy.value_pct
    assert teacher == 95.49
    for each, accuracy_pct in zip(found[2:], (compressed, both), strict=True):
        cut = each.segmentation
        estimate = one.accuracy_model.estimate(cut.params, cut.macs, "atkd")
        assert accuracy_pct == estimate.value_pct
        assert (each.accuracy_low_pct, each.accuracy_high_pct) == (
            estimate.low_pct,
            estimate.high_pct,
        )
    unknown = ways(asked(5_500_000, accuracy=None))
    assert {each.accuracy_pct for each in unknown} == {None}


def test_what_is_required_holds_for_every_alternative():
    loose = ways(asked(5_500_000))
    fast = Requirement(objective="latency", bound=loose[1].total_ms - 1)
    sure = Requirement(objective="accuracy", bound=94.4)
    nonn, teacher, compressed, both = ways(asked(5_500_000, requirements=(fast,)))
    assert teacher.status == "infeasible"
    assert max(each.total_ms for each in (nonn, compressed, both)) <= fast.bound
    nonn, teacher, compressed, both = ways(asked(5_500_000, requirements=(sure,)))
    assert min(nonn.accuracy_pct, teacher.accuracy_pct) >= 94.4
    assert "none of 30 networks alone keeps what is required" in compressed.reason
    assert both.status == "infeasible"


def test_a_plan_with_wrong_alternatives_is_refused(roomy):
    plan = with_alternatives(roomy[1])
    assert violations(plan) == []
    *_, cut, alone = plan.alternatives
    quicker = cut.segmentation.model_copy(update={"total_ms": 1.0})
    changed = cut.model_copy(update={"segmentation": quicker})
    wrong = plan.model_copy(update={"alternatives": (changed,)})
    assert any("figures are not those of its cut" in each for each in violations(wrong))
    quick = plan.model_copy(update={"alternatives": (alone.model_copy(update={"total_ms": 1.0}),)})
    assert any("not those of its board" in each for each in violations(quick))


def test_a_plan_of_before_keeps_its_verdict_and_is_valid(roomy):
    plan = with_alternatives(roomy[1])
    told = {"winner": "nonn", "why": ["Best is the NoNN."]}
    old = plan.model_dump(mode="json") | {"verdict": told}
    old["alternatives"] = old["alternatives"][:4]
    for one in old["alternatives"]:
        del one["accuracy_low_pct"], one["accuracy_high_pct"], one["on"]
    assert violations(PlanDocument.check(old, where="test")) == []


MIXED = "odroid-xu4s,rpi-3b,rpi-zero-2w@wired-100mbit"


@pytest.mark.parametrize(("memory", "status"), [(30_000_000, "feasible"), (400_000, "infeasible")])
def test_the_teacher_alone_is_on_the_board_where_it_answers_soonest(memory, status):
    one = asked(memory, MIXED)
    model = cut_model(TEACHER, one.image_shape, one.classes, "int8")
    every = [describe_segmentation(one, model, (board,), ()) for board in resolve(one.fleet)[1]]
    soonest = min(every, key=lambda each: each.total_ms)
    alone = teacher_alone(one)
    assert (alone.status, alone.boards, alone.on) == (status, 1, soonest.boards[0])
    assert (alone.total_ms, alone.energy_fleet_mj) == (soonest.total_ms, soonest.energy_fleet_mj)
    assert simulate(segmentation_graph(one, alone.segmentation)).total_ms == pytest.approx(
        alone.total_ms, abs=1e-6
    )
    needs = f"it needs 9.1 MB, {alone.on} has 400.0 KB"
    assert alone.reason == (None if status == "feasible" else needs)


def test_of_boards_as_quick_the_teacher_is_on_one_that_holds_it():
    one = asked(400_000, own={"rpi-3b-2": (30_000_000, None)})
    assert (teacher_alone(one).on, teacher_alone(one).status) == ("rpi-3b-2", "feasible")


def test_a_teacher_that_keeps_budgets_and_breaks_a_requirement_does_not_fit():
    late = Requirement(objective="latency", bound=100.0)
    alone = teacher_alone(asked(30_000_000, requirements=(late,)))
    assert (alone.status, alone.reason) == ("infeasible", "latency <= 100 is required")
    assert alone.total_ms > 1000


def test_a_teacher_of_the_user_s_own_has_the_latency_of_its_macs():
    """Sent to, computed, answered with ten values, and joined: each from the profiles, by hand."""
    own = TeacherFacts(None, "3x32x32", 10, 2_000_000.0, 300_000_000.0)
    one = asked(30_000_000, accuracy=AccuracyBasis(teacher=own, teacher_accuracy_pct=97.0,
                                                   teacher_images=135))  # fmt: skip
    host, (board, *_) = resolve(one.fleet)
    known_ms = (
        send_ms(board, one.image_shape.size_bytes)
        + compute_ms(board.device, 300_000_000)
        + reply_ms(board, 10)
        + 2 * board.link.latency_ms.value
        + join_ms(host)
    )
    alone = teacher_alone(one)
    assert alone.total_ms == pytest.approx(known_ms)
    assert alone.energy_fleet_mj == pytest.approx(compute_mj(board.device, 300_000_000))
    assert (alone.networks, alone.segmentation, alone.params) == ((), None, 2_000_000)
    # 135 images: Wilson's interval of 97 %.
    assert (alone.accuracy_low_pct, alone.accuracy_pct, alone.accuracy_high_pct) == (
        pytest.approx(92.6, abs=0.1),
        97.0,
        pytest.approx(98.8, abs=0.1),
    )


def test_no_alternative_is_less_accurate_than_chance():
    own = TeacherFacts(None, "3x32x32", 10, 2e6, 3e8)
    basis = AccuracyBasis(teacher=own, teacher_accuracy_pct=12.0, teacher_images=100)
    for each in find_alternatives(solve(asked(5_500_000, accuracy=basis))):
        if each.accuracy_pct is not None:
            assert each.accuracy_pct >= 10.0


def test_images_of_a_nonn_leave_at_its_throughput():
    one = asked(2_000_000, "rpi-3b", max_students=2)
    plan = solve(one)
    graph = plan_workload(plan).graph()
    nonn, *_ = ways(one, plan)
    assert nonn.throughput_per_s == pytest.approx(1000 / period_ms(graph))
    rows = simulate(graph, 300, Scenario(arrivals=Times((0.0,) * 300))).inferences
    mean_ms = (rows[-1].end_ms - rows[0].end_ms) / 299
    assert mean_ms == pytest.approx(period_ms(graph), rel=1e-3)


def test_alternatives_load_neither_torch_nor_a_solver():
    code = (
        "import planner.plan_file.alternatives, sys; "
        "assert not {'torch', 'ortools'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_network_whole_is_on_the_board_that_is_up_most_often():
    fails = [{"board": "rpi-3b-1", "probability": 0.5}, {"board": "rpi-3b-2", "probability": 0.1}]
    one = asked(5_500_000, failures={"boards": fails})
    _, _, compressed, _ = ways(one)
    assert compressed.segmentation.boards == ("rpi-3b-2",)
    assert compressed.robustness_pct == pytest.approx(0.9 * compressed.accuracy_pct)


def test_memory_that_is_required_holds_activations_too():
    one = asked(5_500_000)
    _, _, compressed, _ = ways(one)
    needed = compressed.segmentation.parts[0].memory_bytes
    for bound, status in ((needed, "feasible"), (needed - 1, None)):
        limits = {"requirements": (Requirement(objective="memory", bound=bound),)}
        _, _, again, _ = ways(one.model_copy(update=limits))
        if status:
            assert again.status == status
        assert again.status != "feasible" or again.segmentation.parts[0].memory_bytes <= bound
