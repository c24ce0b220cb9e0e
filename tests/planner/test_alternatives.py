"""Compress or segment: four ways side by side, and which wins."""

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
from planner.plan_file.alternatives import find_alternatives, judge_alternatives, with_alternatives
from planner.plan_file.evaluation import plan_workload
from planner.plan_file.plan_document import Alternative
from planner.plan_file.validation import violations
from planner.problem.goals import AccuracyBasis, ObjectiveLevel, Requirement
from planner.solve import solve
from profiles.fleet import resolve
from simulator.engine.simulation import simulate
from simulator.scenario import Scenario, Times
from simulator.task_graph import period_ms

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
    found = find_alternatives(plan or solve(one))
    assert [each.kind for each in found] == ["nonn", "segmented", "compressed", "both"]
    return found


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
    told = judge_alternatives((nonn, teacher), LATENCY)
    assert told.winner == "nonn"
    assert told.why[0].startswith("Best is the NoNN on 2 boards (up to ")
    assert "The teacher (wrn40:64,128,256) on 2 boards" in told.why[1]
    assert (
        f"loses by latency, {teacher.total_ms:.4g} ms against {nonn.total_ms:.4g} ms" in told.why[1]
    )


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
    told = judge_alternatives(found, LATENCY)
    assert told.winner is None
    assert told.why[0].startswith("The NoNN does not fit (")


def test_a_teacher_that_nobody_names_is_undecided():
    found = ways(asked(500_000, accuracy=None))
    assert (found[1].status, found[1].networks) == ("undecided", ())
    assert "The teacher is undecided" not in judge_alternatives(found, LATENCY).why[0]
    assert "the teacher is undecided (" in judge_alternatives(found, LATENCY).why[1]


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
    assert judge_alternatives(found, (stage("accuracy", 4), stage("latency"))).winner != "segmented"
    assert judge_alternatives(found, (stage("accuracy"),)).winner == "segmented"
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
    _, teacher, *_ = plan.alternatives
    quicker = teacher.segmentation.model_copy(update={"total_ms": 1.0})
    changed = teacher.model_copy(update={"segmentation": quicker})
    wrong = plan.model_copy(update={"alternatives": (changed,)})
    assert any("figures are not those of its cut" in each for each in violations(wrong))
    assert any("verdict does not follow" in each for each in violations(wrong))


def stage(objective, tolerance_pct=0):
    return ObjectiveLevel.model_construct(objective=objective, tolerance_pct=tolerance_pct)


def made(kind, **figures):
    plain = {"total_ms": 100.0, "energy_fleet_mj": 50.0, "energy_highest_mj": 20.0, "boards": 2}
    more = {"throughput_per_s": 10.0, "params": 1000, "memory_highest_bytes": 4000}
    return Alternative(kind=kind, networks=(), status="feasible", **plain | more | figures)


@pytest.mark.parametrize(
    ("asked_for", "winner"),
    [
        ((stage("latency"),), "nonn"),
        ((stage("latency", 50), stage("energy")), "segmented"),
        ((stage("latency", 30), stage("energy")), "nonn"),
        ((stage("boards"),), "compressed"),
        ((stage("throughput"),), "segmented"),
        ((stage("throughput", 20), stage("boards")), "compressed"),
        ((stage("energy-node"),), "compressed"),
        ((stage("capacity"),), "segmented"),
        ((stage("imbalance"), stage("students"), stage("dropped")), "nonn"),
        ((stage("accuracy"), stage("energy")), "segmented"),
    ],
)
def test_the_verdict_is_lexicographic(asked_for, winner):
    found = (
        made("nonn", accuracy_pct=93.0),
        made("segmented", total_ms=140.0, energy_fleet_mj=30.0, throughput_per_s=20, params=9000),
        made("compressed", total_ms=200.0, boards=1, energy_highest_mj=5.0, throughput_per_s=17),
    )
    told = judge_alternatives(found, asked_for)
    assert told.winner == winner
    assert told.why[1].count(" loses by ") == 2


def test_equals_go_to_the_first():
    told = judge_alternatives((made("nonn"), made("compressed")), LATENCY)
    assert told.winner == "nonn"
    assert told.why[1] == "One network whole is its equal."


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
