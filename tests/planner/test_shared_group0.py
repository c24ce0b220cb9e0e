"""Students of one board and precision share its copy of G0: costed, planned, simulated, written."""

from itertools import product

import pytest
import torch
from planner_questions import SMALL, published, question, stages
from torch import nn

from nonn_common.errors import SimulationError
from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.modules import StudentShape, build_nonn, global_average_pool
from nonn_core.networks.network_cost import (
    Cost,
    group0_cost,
    joint_cost,
    student_cost,
    student_cost_line,
)
from nonn_core.teacher.inspection import measured_cost
from planner.data.mode_costs import counted_copies
from planner.data.problem_data import resolve_problem
from planner.diagnosis.explanation import explain
from planner.heuristics.baselines import BASELINES, solve_by_baseline
from planner.plan_file.evaluation import plan_workload
from planner.plan_file.plan_document import PlanDocument
from planner.plan_file.validation import violations
from planner.problem.problem import Problem
from planner.solve import solve
from planner.solvers.variables import remove_dominated_modes
from profiles.device import compute_mj, compute_ms, slowdown
from simulator.engine.simulation import simulate
from simulator.graph_builder import join_ms, send_ms
from simulator.workloads.fan_out import reply_ms

IMAGE = ImageShape(1, 8, 8)
SPEC = parse_network("wrn10:4,8,8")


def lines(*students, image=IMAGE):
    return [(student_cost_line(parse_network(name), image), filters) for name, filters in students]


def asked(copies="per-board", objective="latency", fleet="rpi-3b", sizes=(3, 5), **fields):
    fields = {"min_students": len(sizes), "max_students": len(sizes)} | fields
    stated = {"group0_copies": copies, "objective": stages(objective)} | fields
    return question(fleet, sizes, **stated)


@pytest.fixture(scope="module")
def plan():
    """Two students of one network on one board."""
    return solve(asked(networks=[str(SPEC)]))


def test_the_cost_of_a_joint_model_by_hand():
    """wrn10:4,8,8 on 8x8, G0's maps of 4x64 values, students of 3 and 5 filters.

    G0: the stem 1 to 16 (144), norm 32, shortcut 64, body 576, norm 8, body 144: 968 parameters;
    16x64 maps twice and 4x64 twice, while body and shortcut are there: 1536... less in all others.
    Behind it: 8+32+288+16+576, 16+64+576+16+576, 16: 2184 parameters, and 10 for each filter.
    There the maps, their norm's copy, the shortcut's and the body's 8x16 values: 256+256+128+128.
    """
    joint = joint_cost(lines(("wrn10:4,8,8", 3), ("wrn10:4,8,8", 5)))
    assert joint.params == 968 + 2 * 2184 + 10 * (3 + 5)
    assert joint.peak_elements == max(1536, 768 + 3 + 5)
    # So many filters that their vectors decide: 2x2 maps of each, then all vectors.
    many = joint_cost(lines(("wrn10:4,8,8", 400), ("wrn10:4,8,8", 5)))
    assert many.peak_elements == 256 + 8 * 4 + 4 * 400 + 405


class Joined(nn.Module):
    """A NoNN's G0 and its heads; the maps are there to the end."""

    def __init__(self, network):
        super().__init__()
        self.group0, self.heads = network.group0[0], network.heads

    def forward(self, images):
        maps = self.group0(images)
        vectors = [global_average_pool(head(maps)) for head in self.heads]
        return torch.cat(vectors, dim=1), maps


@pytest.mark.parametrize(
    ("names", "image"),
    [
        (("wrn10:4,8,8", "wrn10:4,8,16"), IMAGE),
        (("wrn16:16,32,64", "wrn16:16,64,128", "wrn16:16,48,80"), ImageShape(3, 32, 32)),
        (("vgg11:8,16,16,32,32",) * 2, ImageShape(3, 32, 32)),
        (("resnet18:8,16,32,64",) * 2, ImageShape(3, 32, 32)),
    ],
)
def test_the_cost_of_a_joint_model_is_that_of_the_built_one(names, image):
    """The walk of the traced module holds the vectors of heads that have run, not yet of others."""
    students = [(name, 7 + 9 * place) for place, name in enumerate(names)]
    shapes = [StudentShape(parse_network(name), filters) for name, filters in students]
    built = measured_cost(Joined(build_nonn(shapes, image.channels, 10, 0)), image)
    planned = joint_cost(lines(*students, image=image))
    assert (planned.params, planned.macs) == (built.params, built.macs)
    vectors = sum(filters for _, filters in students)
    assert built.peak_elements <= planned.peak_elements <= built.peak_elements + vectors


def test_one_student_costs_what_it_did():
    assert joint_cost(lines(("wrn10:4,8,8", 3))) == student_cost(SPEC, IMAGE, 3)


def test_the_latency_and_energy_of_one_joint_model_by_hand(plan):
    """The beginning of a model once, G0 once, and no slowdown of several models."""
    (board,), joint = plan.question.boards, plan.joint_models[0]
    group0 = group0_cost(SPEC, IMAGE).macs
    each = [student_cost(SPEC, IMAGE, n).macs for n in (3, 5)]
    assert joint.macs == sum(each) - group0
    expected = (
        send_ms(board, IMAGE.size_bytes)
        + compute_ms(board.device, sum(each) - group0)
        + reply_ms(board, 8)
        + 2 * board.link.latency_ms.value
        + join_ms(plan.question.fleet_host)
    )
    assert slowdown(board.device, 2) > 1
    assert plan.predicted.total_ms == pytest.approx(expected, rel=1e-12)
    energy_mj = compute_mj(board.device, sum(each) - group0)
    assert plan.predicted.energy_fleet_mj == pytest.approx(energy_mj, rel=1e-12)
    assert simulate(plan_workload(plan)).inferences[0].latency_ms == pytest.approx(expected)


def test_budgets_count_g0_once(plan):
    used = {row.budget: row.used for row in plan.budgets}
    joint = joint_cost(lines((str(SPEC), 3), (str(SPEC), 5)))
    assert used == {"memory_bytes": joint.memory_bytes("fp32"), "macs": joint.macs}
    assert violations(plan) == []


def test_each_students_own_figures_are_those_of_its_network(plan):
    for one in plan.students:
        cost = student_cost(SPEC, IMAGE, len(one.filters))
        assert (one.params, one.macs, one.peak_elements) == tuple(
            getattr(cost, name) for name in Cost.__slots__
        )


def test_a_file_without_the_field_has_a_copy_per_student(plan):
    rows = plan.question.model_dump(mode="json")
    del rows["group0_copies"]
    assert Problem.model_validate(rows).group0_copies == "per-student"


def test_an_edited_joint_model_is_refused(plan):
    rows = plan.model_dump(mode="json")
    rows["joint_models"][0]["params"] -= 1
    assert any("joint_models" in one for one in violations(PlanDocument.model_validate(rows)))
    rows["joint_models"] = []
    assert any("joint_models" in one for one in violations(PlanDocument.model_validate(rows)))


def test_a_plan_of_shared_copies_is_refused_where_each_student_has_its_own(plan):
    rows = plan.model_dump(mode="json")
    rows["question"]["group0_copies"] = "per-student"
    assert violations(PlanDocument.model_validate(rows))


@pytest.mark.parametrize("objective", ["capacity", "memory", "energy", "latency", "flops"])
def test_one_student_a_board_makes_no_difference(objective):
    """Budgets of which no board holds both students."""
    network = SMALL[2]
    memory = joint_cost(lines((network, 3), (network, 5))).memory_bytes("fp32") - 1
    fields = {"fleet": "rpi-3b*2", "memory": memory, "networks": [network]}
    shared, own = (
        solve(asked(copies, objective, **fields)) for copies in ("per-board", "per-student")
    )
    assert len({one.board for one in shared.students}) == 2
    assert shared.students == own.students
    assert shared.predicted == own.predicted
    assert [one.value for one in shared.stages] == [one.value for one in own.stages]


@pytest.mark.parametrize("texts", [("capacity:5%", "latency"), ("latency",), ()])
def test_the_published_plan_is_the_same(texts):
    """Two boards of one student each, whatever a copy of G0 beside another one costs."""
    fields = {"objective": stages(*texts)} if texts else {}
    shared, own = (
        solve(published(group0_copies=copies, min_students=2, **fields))
        for copies in ("per-board", "per-student")
    )
    assert shared.joint_models == ()
    assert shared.students == own.students
    assert shared.predicted == own.predicted


def test_a_copy_of_g0_is_no_knowledge():
    """Two students of one board know G0 once; on two boards each of them has one."""
    together = solve(asked(objective="capacity", networks=[str(SPEC)]))
    apart = solve(asked(objective="capacity", fleet="rpi-3b*2", networks=[str(SPEC)]))
    group0 = group0_cost(SPEC, IMAGE).params
    assert len({one.board for one in apart.students}) == 2
    assert together.decision.params + group0 == apart.decision.params
    assert together.stages[0].value == together.joint_models[0].params


def test_unlike_precisions_are_two_models_and_know_g0_once():
    """The board pays for both, and what they know counts once."""
    found = solve(asked(objective="capacity", precisions=("int8", "fp32"), networks=[str(SPEC)]))
    rows = found.model_dump(mode="json")
    for student, precision in zip(rows["students"], ("int8", "fp32"), strict=True):
        student["precision"] = precision
    edited = PlanDocument.model_validate(rows | {"joint_models": []}).decision
    costs = [student_cost(SPEC, IMAGE, len(one.filters)) for one in found.students]
    assert edited.fleet_macs == sum(cost.macs for cost in costs)
    group0 = group0_cost(SPEC, IMAGE)
    assert edited.params == sum(cost.params for cost in costs) - group0.params
    assert edited.macs == sum(cost.macs for cost in costs) - group0.macs


@pytest.mark.parametrize("seed", range(60))
def test_the_copies_that_count_are_the_most(seed):
    """Of all ways to take each student on one of its boards, the one with the most boards."""
    draw = torch.Generator().manual_seed(seed)
    sets = []
    for _ in range(int(torch.randint(1, 6, (1,), generator=draw))):
        count = int(torch.randint(1, 4, (1,), generator=draw))
        sets.append(set(torch.randperm(4, generator=draw)[:count].tolist()))
    assert counted_copies(sets) == max(len(set(chosen)) for chosen in product(*sets))


def test_a_replica_beside_the_same_g0_pays_for_what_is_behind_it():
    """Each of two boards holds both students: two joint models."""
    fields = {"fleet": "rpi-3b*2", "max_copies": 2, "networks": [str(SPEC)]}
    fields["objective"] = stages("survival", "memory")
    plans = {
        copies: solve(question(sizes=(3, 5), group0_copies=copies, min_students=2, **fields))
        for copies in ("per-board", "per-student")
    }
    joint = joint_cost(lines((str(SPEC), 3), (str(SPEC), 5)))
    assert [one.params for one in plans["per-board"].joint_models] == [joint.params] * 2
    assert plans["per-board"].stages[1].value == 2 * joint.memory_bytes("fp32")
    assert plans["per-board"].stages[1].value < plans["per-student"].stages[1].value


@pytest.mark.parametrize("method", sorted(BASELINES))
def test_baselines_price_what_is_shared(method):
    """Budgets that hold two students of one G0 and no two copies of it."""
    joint = joint_cost(lines((str(SPEC), 3), (str(SPEC), 5)))
    fields = {"memory": joint.memory_bytes("fp32"), "macs": joint.macs, "networks": [str(SPEC)]}
    if method in ("greedy", "ram", "rocoin-style"):
        fields |= {"fleet": "rpi-3b*2", "memory": 2 * fields["memory"], "macs": 2 * joint.macs}
    found = solve_by_baseline(asked(**fields), method)
    assert violations(found) == []
    assert bool(found.joint_models) == (method in ("lpt", "random"))


def test_explain_finds_the_budget_of_a_joint_model():
    """One byte less holds no two students."""
    joint = joint_cost(lines((str(SPEC), 3), (str(SPEC), 5)))
    fields = {"memory": joint.memory_bytes("fp32") + 1000, "networks": [str(SPEC)]}
    found = explain(solve(asked(objective="memory", **fields)), deterministic_limit=60)
    row = next(row for row in found.sensitivities if row.kind == "memory_bytes")
    assert row.proven
    assert row.tighten_to == joint.memory_bytes("fp32")


def test_the_narrowest_precision_is_enough_where_no_level_asks_for_another():
    data = resolve_problem(asked(precisions=("fp32", "int8")))
    left = remove_dominated_modes(data, ())
    assert {mode.precision for mode in left.modes} == {"int8"}
    both = remove_dominated_modes(data, ("precision", "memory"))
    assert {mode.precision for mode in both.modes} == {"fp32", "int8"}


def test_a_message_per_student_goes_with_a_g0_per_student(plan):
    workload = plan_workload(plan)
    each = workload.per_student()
    assert all(student.copied is None for student in each.students)
    with pytest.raises(SimulationError, match="one model, with one message"):
        type(workload)(**{name: getattr(each, name) for name in each.__slots__}
                       | {"students": workload.students})  # fmt: skip
