"""G0 on a board of its own: chosen, costed, simulated, trained and checked like all else."""

import pytest
from planner_questions import question, stages

from nonn_common.errors import InputError
from nonn_core.networks.network_cost import group0_cost, student_cost_line
from nonn_core.recipe import OptimiserRecipe
from planner.diagnosis.conflict import explain_conflict
from planner.diagnosis.explanation import explain
from planner.heuristics.baselines import solve_by_baseline
from planner.plan_file.evaluation import plan_workload
from planner.plan_file.training_recipe import require_matching_recipe, training_recipe
from planner.plan_file.validation import violations
from planner.solve import solve
from profiles.fleet import Fleet, parse_fleet
from simulator.engine.simulation import simulate

OPTIMISER = OptimiserRecipe(epochs=1, batch_size=8, learning_rate=0.1)


def asked(group0, objective="latency", **fields):
    fleet = fields.pop("fleet", "rpi-3b*3,odroid-xu4s")
    fields = {"min_students": 2, "max_students": 3} | fields
    return question(fleet, (3, 4, 5), group0=group0, objective=stages(objective), **fields)


@pytest.fixture(scope="module")
def plan():
    return solve(asked("own-board"))


def edited(plan, **changes):
    """The plan with other values in its group0."""
    rows = plan.model_dump(mode="json")
    return type(plan).model_validate(rows | {"group0": rows["group0"] | changes})


def test_the_plan_is_valid_and_proven(plan):
    assert plan.status == "optimal"
    assert violations(plan) == []


def test_its_board_runs_nothing_else(plan):
    assert plan.group0.board not in {student.board for student in plan.students}
    assert plan.group0.board not in plan.send_order


def test_students_cost_what_follows_g0(plan):
    spec, image = plan.question.specs[0], plan.question.image_shape
    assert plan.group0.params == group0_cost(spec, image).params
    for one in plan.students:
        network = next(s for s in plan.question.specs if str(s) == one.network)
        head = student_cost_line(network, image, own_group0=False).at(len(one.filters))
        assert (one.params, one.macs) == (head.params, head.macs)


def test_the_simulated_latency_is_the_planned_one(plan):
    found = simulate(plan_workload(plan))
    assert found.inferences[0].latency_ms == pytest.approx(plan.predicted.total_ms, rel=1e-9)


@pytest.mark.parametrize(
    "objective", ["latency", "latency-p95", "memory", "energy", "boards", "capacity"]
)
def test_either_is_the_better_of_both(objective):
    plans = {group0: solve(asked(group0, objective)) for group0 in ("replicated", "own-board")}
    both = solve(asked("either", objective))
    assert both.status == "optimal"
    pick = max if objective == "capacity" else min
    best = pick(one.stages[0].value for one in plans.values())
    assert both.stages[0].value == pytest.approx(best, rel=1e-9)


def test_it_may_be_what_makes_a_plan_possible():
    """Boards too small for a whole student hold what follows G0."""
    spec = asked("replicated").specs[0]
    image = asked("replicated").image_shape
    line = student_cost_line(spec, image, own_group0=False)
    fields = {"memory": line.at(6).memory_bytes("fp32"), "networks": [str(spec)]}
    assert solve(asked("replicated", **fields)).status == "infeasible"
    plan = solve(asked("either", **fields))
    assert plan.status == "optimal"
    assert plan.group0 is not None


def test_where_g0_does_not_fit_alone_the_conflict_says_so():
    tiny = asked("own-board", memory=2_000)
    assert solve(tiny).status == "infeasible"
    assert any("memory budget" in sentence for sentence in explain_conflict(tiny))


def test_explain_knows_the_board_of_g0(plan):
    budgeted = solve(asked("own-board", memory=100_000))
    found = explain(budgeted, deterministic_limit=60)
    of_g0 = [one for one in found.sensitivities if one.board == budgeted.group0.board]
    assert of_g0
    assert all(one.used >= budgeted.group0.memory_bytes for one in of_g0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"params": 1}, "group0: params is 1"),
        ({"board": "nowhere"}, "G0 is on board nowhere"),
        ({"precision": "int8"}, "precision int8 of G0"),
    ],
)
def test_an_edited_g0_is_refused(plan, changes, message):
    assert message in " ".join(violations(edited(plan, **changes)))


def test_a_student_beside_g0_is_refused(plan):
    wrong = edited(plan, board=plan.students[0].board)
    assert "the board of G0 runs nothing else" in " ".join(violations(wrong))


def test_a_plan_has_g0_where_the_question_wants_it(plan):
    copied = solve(asked("replicated"))
    wrong = copied.model_copy(update={"question": plan.question})
    assert "the question asks for a board of G0 alone" in violations(wrong)
    wrong = plan.model_copy(update={"question": copied.question})
    assert "the question asks for a copy of G0" in " ".join(violations(wrong))


def test_it_is_trained_for_its_board(plan):
    found = training_recipe(plan, optimiser=OPTIMISER, data="digits", teacher="t.safetensors")
    assert found.model.group0 == "own-board"
    require_matching_recipe(plan, found, "run")
    copied = solve(asked("replicated"))
    with pytest.raises(InputError, match=r"its G0 is elsewhere.*own-board"):
        require_matching_recipe(copied, found, "run")


def shared_air():
    fleet = parse_fleet("rpi-3b*2").model_dump(mode="json")
    for board in fleet["boards"]:
        board["link"] = "wifi"
    return Fleet.model_validate(fleet)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fleet": shared_air()}, "needs full-duplex links"),
        ({"max_copies": 2}, "goes without copies and failures"),
        ({"fleet": "rpi-3b", "group0": "own-board"}, "needs a second board"),
    ],
)
def test_what_does_not_go_together_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        asked(**{"group0": "either"} | fields)


def test_baselines_replicate_g0():
    with pytest.raises(InputError, match="baselines put a copy of G0"):
        solve_by_baseline(asked("own-board"), "lpt")
    assert solve_by_baseline(asked("either"), "lpt").group0 is None
