import pytest
from planner_questions import bounded, partition, question, stages

from nonn_common.errors import InputError, ProfileError
from planner.problem.budgets import BoardBudget, BudgetLimits, board_budgets, memory_notes
from planner.problem.goals import ObjectiveLevel
from planner.problem.problem import Problem
from profiles.device import DEVICES
from profiles.fleet import Fleet, parse_fleet


@pytest.mark.parametrize(
    ("text", "objective", "tolerance_pct"),
    [("latency", "latency", 0), ("capacity:5%", "capacity", 5), (" Energy:0.5% ", "energy", 0.5)],
)
def test_a_stage_is_read_as_people_type_it(text, objective, tolerance_pct):
    stage = ObjectiveLevel.parse(text)
    assert (stage.objective, stage.tolerance_pct) == (objective, tolerance_pct)
    assert ObjectiveLevel.parse(str(stage)) == stage


@pytest.mark.parametrize("text", ["", "speed", "latency:5", "energy:-5%", "boards:101%"])
def test_a_wrong_stage_says_what_is_allowed(text):
    with pytest.raises(InputError, match="capacity, imbalance, dropped, latency"):
        ObjectiveLevel.parse(text)


def test_a_budget_is_the_devices_own_unless_somebody_says_otherwise():
    fleet = parse_fleet("mcu-500kb,rpi-3b*2")
    found = board_budgets(fleet, BudgetLimits(macs=7), {"rpi-3b-2": BudgetLimits(1000)})
    assert [(one.board, one.memory_bytes, one.macs) for one in found] == [
        ("mcu-500kb-1", 500_000, 7),
        ("rpi-3b-1", 2**30, 7),
        ("rpi-3b-2", 1000, 7),
    ]


def test_no_budget_is_more_than_the_memory_that_a_device_has():
    tiny = DEVICES.get("rpi-3b").model_copy(update={"name": "tiny", "ram_bytes": 8192})
    untold = tiny.model_copy(update={"name": "untold", "ram_bytes": None})
    boards = [{"name": f"b{n}", "device": one.name} for n, one in enumerate((tiny, tiny, untold))]
    content = {"name": "made", "title": "Made", "boards": boards}
    fleet = Fleet.check(content | {"devices": [tiny.model_dump(), untold.model_dump()]}, "test")
    budgets = board_budgets(fleet, BudgetLimits(250_000))
    assert [row.memory_bytes for row in budgets] == [8192, 8192, 250_000]
    (note,) = memory_notes(budgets)
    assert note == (
        "planned with 8.2 KB on b0, b1, all memory that there is, in place of the 250.0 KB "
        "asked for"
    )
    within = board_budgets(fleet, BudgetLimits(8000))
    assert [row.memory_bytes for row in within] == [8000, 8000, 8000]
    assert memory_notes(within) == ()


def test_a_budget_of_a_file_from_before_was_asked_for_as_it_stands():
    row = BoardBudget.check({"board": "b", "memory_bytes": 250_000}, "old file")
    assert (row.memory_bytes, row.asked_bytes) == (250_000, None)


def test_a_budget_for_an_unknown_board_is_refused():
    with pytest.raises(InputError, match=r"no such board.*rpi-3b-9.*rpi-3b-1, rpi-3b-2"):
        board_budgets(parse_fleet("rpi3x2"), own={"rpi-3b-9": BudgetLimits(1)})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_students": 3}, r"min_students \(3\) is above max_students \(2\)"),
        ({"networks": ("wrn10-1", "wrn10:16,32,64")}, "each network is named once"),
        ({"networks": ("wrn11-1",)}, "depth"),
        ({"objective": stages("latency", "latency:5%")}, "each objective is named once"),
        ({"budgets": ()}, "budgets must name each board once"),
        ({"epsilon_pct": -1}, "greater than or equal to 0"),
        ({"image": "32x32"}, "image"),
        ({"cost": 1}, "not a field"),
    ],
)
def test_a_question_that_makes_no_sense_names_the_field(fields, message):
    with pytest.raises(InputError, match=message):
        question(**fields)


def test_a_fleet_with_an_unknown_device_is_refused():
    with pytest.raises(ProfileError):
        board_budgets(parse_fleet("rpi-3b*2").model_copy(update={"host": "nobody"}))


def test_most_students_are_one_per_board_unless_somebody_says_otherwise():
    assert question("rpi3x8").most_students == 8
    assert question("rpi3x8", max_students=3).most_students == 3


def test_steps_are_allowed_below_epsilon_only():
    steps = [((0,), -0.4), ((0, 1), 1.0), ((0, 1, 2), 0.2)]
    asked = question(partition=partition((3, 4, 5), steps))
    allowed = [asked.allows(step) for step in asked.partition.drop_steps]
    assert allowed == [True, True, False, False]  # not below 1.0; and something must remain
    strict = asked.model_copy(update={"epsilon_pct": 0.0})
    assert [strict.allows(step) for step in asked.partition.drop_steps] == [True] + [False] * 3


def test_a_drop_needs_a_bound_on_its_loss_below_epsilon():
    steps = [((0,), 0.0), ((0, 1), -0.4)]
    made = partition((3, 4, 5), steps)
    for bounds, allowed in (((1.96, 2.3), 1), ((0.99, 1.0), 2), ((0.3, 0.7), 3)):
        asked = question(partition=bounded(made, *bounds))
        assert [asked.allows(step) for step in asked.partition.drop_steps].count(True) == allowed
    # A gain beyond epsilon is a change all the same (Eq. 2).
    gain = question(partition=bounded(partition((3, 4, 5), [((0,), 1.2)]), 0.1))
    assert not gain.allows(gain.partition.drop_steps[1])


def test_without_a_measurement_only_what_has_no_link_may_be_dropped():
    steps = [((1,), None), ((1, 0), None)]
    asked = question(partition=partition((3, 4, 5), steps, unlinked=(1,)))
    assert [asked.allows(step) for step in asked.partition.drop_steps] == [True, True, False]
    linked = question(partition=partition((3, 4, 5), steps))
    assert [linked.allows(step) for step in linked.partition.drop_steps] == [True, False, False]


def test_a_question_survives_its_own_json():
    asked = question()
    assert Problem.model_validate_json(asked.model_dump_json()) == asked
