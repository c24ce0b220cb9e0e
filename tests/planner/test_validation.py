import pytest
from planner_questions import bounded, partition, published, question, stages

from nonn_common.errors import InputError
from nonn_core.networks.blueprint import ImageShape
from planner.accuracy.rows import TeacherFacts
from planner.plan_file.validation import require_valid, violations
from planner.problem.goals import AccuracyBasis
from planner.solve import solve


@pytest.fixture(scope="module")
def plan():
    steps = [((3,), 0.5), ((3, 2), 5.0)]
    return solve(
        question(
            partition=partition((3, 4, 5, 6), steps),
            memory=60_000,
            macs=200_000,
            networks=("wrn10:4,8,8", "wrn10:4,8,16", "wrn10:4,8,64", "wrn16:4,8,8"),
            objective=stages("dropped", "capacity:10%", "latency"),
        )
    )


def edited(plan, **changes):
    """The plan as it would be read after a person edited it."""
    return type(plan).model_validate(plan.model_dump(mode="json") | changes)


def first_student(plan, **changes):
    rows = plan.model_dump(mode="json")["students"]
    return edited(plan, students=[rows[0] | changes, *rows[1:]])


def stage(plan, place, **changes):
    rows = plan.model_dump(mode="json")["stages"]
    rows[place] |= changes
    return edited(plan, stages=rows)


def asked(plan, **changes):
    return edited(plan, question=plan.question.model_dump(mode="json") | changes)


def tighter(plan, **changes):
    rows = plan.question.model_dump(mode="json")["budgets"]
    return asked(plan, budgets=[rows[0] | changes, *rows[1:]])


def test_the_planners_own_plan_is_valid(plan):
    assert plan.status == "optimal"
    assert len(plan.students) == 2
    assert violations(plan) == []
    require_valid(plan)


EDITS = {
    "a larger network": (
        lambda plan: first_student(plan, network="wrn10:4,8,64"),
        "memory budget of rpi-3b-1: its students need .*, allowed 60.0 KB",
    ),
    "a smaller memory budget": (
        lambda plan: tighter(plan, memory_bytes=10_000),
        "memory budget of rpi-3b-1: its students need .*, allowed 10.0 KB",
    ),
    "a smaller FLOP budget": (
        lambda plan: tighter(plan, macs=1000),
        "FLOP budget of rpi-3b-1: its students need .*, allowed 2.0 KFLOP",
    ),
    "a network nobody offered": (
        lambda plan: first_student(plan, network="wrn10:4,8,9"),
        "network wrn10:4,8,9 is not among",
    ),
    "an unknown board": (
        lambda plan: first_student(plan, board="x"),
        "board x is not in the fleet",
    ),
    "an unknown community": (
        lambda plan: first_student(plan, communities=[9]),
        "community 9 does not exist",
    ),
    "an unknown dropped community": (
        lambda plan: edited(plan, dropped=[7]),
        "dropped community 7 does not exist",
    ),
    "two students of one name": (
        lambda plan: first_student(plan, name="student-2"),
        "several students are called student-2",
    ),
    "a community twice": (
        lambda plan: first_student(plan, communities=[0, 1, 2]),
        r"community \d appears 2 times",
    ),
    "a community lost": (
        lambda plan: edited(plan, dropped=[]),
        "community 3 appears 0 times",
    ),
    "more dropped than epsilon allows": (
        lambda plan: asked(plan, epsilon_pct=0.1),
        r"dropping communities \[3\] changes validation accuracy by 0.5 points; epsilon is 0.1",
    ),
    "a drop that was never tried": (
        lambda plan: asked(plan, partition=partition((3, 4, 5, 6)).model_dump(mode="json")),
        r"dropped communities \[3\] are not one of the drop steps",
    ),
    "too many students": (lambda plan: asked(plan, max_students=1), "2 students; the question"),
    "a G0 of its own": (lambda plan: first_student(plan, network="wrn16:4,8,8"), "share G0"),
    "a board missing in the send order": (
        lambda plan: edited(plan, send_order=["rpi-3b-1"]),
        "send_order must name each board",
    ),
    "fewer parameters": (lambda plan: first_student(plan, params=1), "params is 1; it should be"),
    "other filters": (lambda plan: first_student(plan, filters=[0]), "filters is"),
    "more slack": (
        lambda plan: edited(
            plan,
            budgets=[row | {"slack": 0} for row in plan.model_dump(mode="json")["budgets"]],
        ),
        "use or slack",
    ),
    "a larger P0": (lambda plan: edited(plan, dropped_filters=9), "dropped_filters is 9"),
    "a drop whose loss is bounded above epsilon": (
        lambda plan: asked(
            plan,
            partition=bounded(plan.question.partition, 1.96, 7.5).model_dump(mode="json"),
        ),
        r"changes validation accuracy by 0.5 points, and may cost 1.96; epsilon is 1.0",
    ),
    "a better delta_val": (lambda plan: edited(plan, delta_val_pct=0.0), "delta_val_pct is 0.0"),
    "a faster prediction": (
        lambda plan: edited(plan, predicted=plan.predicted.model_dump() | {"total_ms": 1.0}),
        "predicted total_ms is 1; the closed form gives",
    ),
    "a better value": (lambda plan: stage(plan, 1, value=1e9), "capacity is 1e.09; the plan gives"),
    "a value outside its tolerance": (
        lambda plan: stage(plan, 1, best=1e6, bound=1e6),
        r"within 10% of its best \(1e.06\) was asked",
    ),
    "a bound that the plan beats": (
        lambda plan: stage(plan, 2, bound=1e9),
        "latency is better than its proven bound",
    ),
    "a proof with a gap": (
        lambda plan: stage(plan, 2, bound=0.0),
        "latency is called proven, yet best and bound differ",
    ),
    "a stage less": (
        lambda plan: edited(plan, stages=plan.model_dump(mode="json")["stages"][:2]),
        "the stages are not those",
    ),
    "a proof less": (lambda plan: edited(plan, status="feasible"), "status is feasible"),
    "no students": (lambda plan: edited(plan, students=[]), "a feasible plan has students"),
    "an infeasible plan with students": (
        lambda plan: edited(plan, status="infeasible"),
        "an infeasible question has no students",
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_by_hand_is_rejected_with_the_rule_it_breaks(plan, edit):
    change, sentence = EDITS[edit]
    with pytest.raises(InputError, match=sentence):
        require_valid(change(plan), where="plan.json")


def test_a_slower_send_order_is_not_called_the_optimum():
    best = solve(question("mixed", (3, 4, 5), min_students=3, objective=stages("latency")))
    if len(best.send_order) < 2:
        pytest.fail("the test needs a plan on several boards")
    slower = edited(best, send_order=best.send_order[::-1])
    assert any("predicted total_ms" in sentence for sentence in violations(slower))


def test_an_accuracy_below_chance_in_an_older_plan_is_read_as_chance():
    teacher = TeacherFacts.of_network("wrn40-10", ImageShape(3, 32, 32), 10)
    known = AccuracyBasis(teacher=teacher, teacher_accuracy_pct=40.0)
    plan = solve(published(accuracy=known))
    found = plan.accuracy.model_dump(mode="json")
    assert (found["low_pct"], found["drop_high_pct"]) == (10, 30)
    assert violations(edited(plan, accuracy=found | {"low_pct": 0.0, "drop_high_pct": 55.0})) == []
    higher = violations(edited(plan, accuracy=found | {"low_pct": 10.5}))
    assert higher == ["the predicted accuracy is not what the question's rows give"]


def test_an_infeasible_plan_needs_its_conflict():
    plan = solve(question(memory=1000))
    assert violations(plan) == []
    assert violations(edited(plan, conflict=[])) == ["an infeasible question has a conflict"]


def test_the_error_names_the_file_and_counts_the_rest():
    plan = solve(published())
    broken = tighter(plan, memory_bytes=1000, macs=1000)
    with pytest.raises(InputError, match=r"plan.json: the plan breaks its own.*and 1 more"):
        require_valid(broken, where="plan.json")
