"""Each repair is carried out here once more, on a question rebuilt from its record, and solved."""

import pytest
from planner_questions import partition, question, stages

from nonn_common.errors import InputError, UnprovenError
from nonn_core.networks.blueprint import ImageShape
from planner.accuracy.rows import TeacherFacts
from planner.data.problem_data import resolve_problem
from planner.diagnosis.explanation import explain
from planner.diagnosis.repair import _with_one_more
from planner.problem.budgets import BudgetLimits, board_budgets
from planner.problem.goals import MAXIMISED, AccuracyBasis
from planner.problem.problem import Problem
from planner.reliability.failures import BoardFailure
from planner.solve import solve
from profiles.fleet import Fleet


def repaired(asked):
    plan = solve(asked)
    assert plan.status == "infeasible"
    found = explain(plan, 600)
    assert found.proven
    assert found.irreducible
    return found.repairs


def feasible(asked):
    """Whether there is a plan; at a limit's last digit the best one may stay unproven."""
    try:
        return solve(asked).status != "infeasible"
    except UnprovenError:
        return False


def carried_out(asked, repair, less=0):
    """Rebuild the question with a repair's change, or with a little less than that."""
    if repair.kind in ("memory_bytes", "macs", "busy_ms", "energy_mj"):
        names = repair.boards if repair.each else repair.boards[-1:]
        rows = [
            {**row.model_dump(), repair.kind: repair.value - less} if row.board in names else row
            for row in asked.budgets
        ]
        return rebuilt(asked, budgets=rows)
    if repair.kind in ("min_students", "max_students"):
        return rebuilt(asked, **{repair.kind: repair.value})
    if repair.kind == "epsilon":
        return rebuilt(asked, epsilon_pct=repair.value + (0 if less else 1e-9))
    if repair.kind == "requirement":
        bounds = [
            {"objective": one.objective, "bound": repair.value - less}
            if one.objective == repair.objective
            else one
            for one in asked.requirements
        ]
        return rebuilt(asked, requirements=bounds)
    if repair.kind == "precision":
        return rebuilt(asked, precisions=(*asked.precisions, repair.value))
    place = [board.name for board in asked.fleet.boards].index(repair.value)
    more = asked.fleet.boards[place].model_copy(update={"name": "further"})
    row = asked.budgets[place].model_copy(update={"board": "further"})
    boards = {**asked.fleet.model_dump(), "boards": (*asked.fleet.boards, more)}
    return rebuilt(asked, fleet=Fleet.check(boards, "test"), budgets=(*asked.budgets, row))


def rebuilt(asked, **changes):
    content = {name: getattr(asked, name) for name in Problem.model_fields}
    return Problem.check(content | changes, where="test")


ROUNDED = 1e-4
"""More than rounding hides: a plan whose own figures keep a limit is found below it."""
STEP = {
    "memory_bytes": 1,
    "macs": 1,
    "busy_ms": ROUNDED,
    "energy_mj": ROUNDED,
    "requirement": ROUNDED,
}


LATENCY = {"objective": "latency", "bound": 8.0}
THROUGHPUT = {"objective": "throughput", "bound": 100.0}
CAUSES = (
    {"memory": 19_000},
    {"memory": 19_100, "own": {"odroid-xu4s-1": (18_000, None)}},
    {"macs": 80_000, "max_students": 2},
    {"macs": 80_000, "requirements": [{"objective": "latency", "bound": 300.0}]},
    {"requirements": [LATENCY], "min_students": 2},
    {"requirements": [THROUGHPUT], "min_students": 3},
    {"requirements": [{"objective": "capacity", "bound": 12_000}], "max_students": 1},
    {"busy_ms": 3.0, "max_students": 2},
    {"energy_mj": 14.0},
    {"min_students": 5, "max_students": 6},
    {"memory": 19_010, "max_students": 1, "macs": 90_000},
    {"memory": 19_020, "busy_ms": 17.5},
)


@pytest.mark.parametrize("cause", CAUSES, ids=str)
def test_each_repair_is_feasible_and_no_smaller_one_is(cause):
    cause = dict(cause)
    own = {name: cause.pop(name, None) for name in ("busy_ms", "energy_mj")}
    asked = question(
        "rpi-3b*2,odroid-xu4s",
        partition=partition((30, 4, 5, 3), [((3,), 0.5), ((0, 3), 2.5)]),
        **cause,
    )
    rows = [{**row.model_dump(), **own} for row in asked.budgets]
    asked = rebuilt(asked, budgets=rows)
    shown = repaired(asked)
    assert shown
    for repair in shown:
        if repair.kind == "together":
            continue
        assert feasible(carried_out(asked, repair)), repair
        if repair.kind in STEP:
            more = repair.objective in MAXIMISED
            step = -0.5 if more else STEP[repair.kind]
            assert not feasible(carried_out(asked, repair, step)), repair


def test_memory_of_one_board_or_of_each():
    asked = question("rpi3x2", (3, 4, 5), memory=8_000)
    least = {n: min(o.memory_bytes(n) for o in resolve_problem(asked).modes) for n in (7, 12)}
    one, each, int8 = repaired(asked)
    assert (one.value, one.boards, one.each) == (least[12], ("rpi-3b-1", "rpi-3b-2"), False)
    assert one.text == "memory +11.3 KB, to 19.3 KB, on any one of rpi-3b-1, rpi-3b-2"
    assert each.each
    assert each.value == least[7]
    assert each.text.endswith("on every board")
    assert (int8.kind, int8.value) == ("precision", "int8")


def test_each_board_is_not_raised_where_as_much_on_one_of_them_does():
    """One community cannot be divided: raising the other board as well would be of no use."""
    asked = question("rpi3x2", (12,), memory=8_000)
    kinds = [(one.kind, one.each) for one in repaired(asked)]
    assert kinds[0] == ("memory_bytes", False)
    assert ("memory_bytes", True) not in kinds


def test_a_change_that_does_not_help_is_not_shown():
    """Four students of three communities: boards, memory and precision have no part in it."""
    asked = question("rpi3x8", (3, 4, 5), min_students=4)
    (fewer,) = repaired(asked)
    assert (fewer.kind, fewer.value) == ("min_students", 3)
    assert fewer.text == "at least 3 students in place of 4"


def test_one_more_board_is_shown_where_it_helps():
    """The board has the memory of one student of two, or, in the end, of none."""
    asked = question("rpi-3b", (40, 40), networks=("wrn10:4,8,8",), min_students=2, max_students=2)
    alone = resolve_problem(asked).modes[0].memory_bytes(40)
    tight = asked.model_copy(update={"budgets": board_budgets(asked.fleet, BudgetLimits(alone))})
    kinds = [one.kind for one in repaired(tight)]
    assert kinds == ["memory_bytes", "precision", "board"]
    wider = asked.model_copy(
        update={"budgets": board_budgets(asked.fleet, BudgetLimits(alone - 4))}
    )
    assert "board" not in [one.kind for one in repaired(wider)]


def test_budgets_of_boards_of_their_own_are_raised_alone():
    asked = question("rpi3x2", (3, 4, 5), memory=8_000, own={"rpi-3b-2": (9_000, None)})
    shown = [(one.kind, one.boards, one.each) for one in repaired(asked)][:2]
    assert shown == [
        ("memory_bytes", ("rpi-3b-2",), False),
        ("memory_bytes", ("rpi-3b-1",), False),
    ]


def test_where_no_single_change_does_several_are_found_together():
    asked = question("rpi-3b", (3, 4, 5), memory=8_000, macs=30_000)
    line = resolve_problem(asked).modes
    (both,) = repaired(asked)
    assert both.kind == "together"
    assert both.text.startswith("together: ")
    assert "FLOP +" in both.text
    assert "memory +" in both.text
    macs = min(one.line.at(12).macs for one in line)
    memory = min(one.memory_bytes(12) for one in line if one.line.at(12).macs == macs)
    assert feasible(question("rpi-3b", (3, 4, 5), memory=memory, macs=macs))


def test_without_time_no_repair_is_shown():
    plan = solve(question("rpi3x2", (3, 4, 5), memory=8_000))
    found = explain(plan, 0)
    assert found.repairs == ()
    assert not found.proven
    assert not found.irreducible


def test_a_plan_that_wrongly_says_infeasible_is_refused():
    plan = solve(question(memory=8_000))
    ample = plan.question.model_copy(update={"budgets": board_budgets(plan.question.fleet)})
    with pytest.raises(InputError, match="has a plan"):
        explain(plan.model_copy(update={"question": ample}), 600)


def test_one_more_board_fails_as_the_one_that_it_is_like():
    known = AccuracyBasis(teacher=TeacherFacts.of_network("wrn40-4", ImageShape(3, 32, 32), 10))
    fails = [{"board": f"rpi-3b-{n}", "probability": 0.05} for n in (1, 2)]
    outage = {"name": "switch", "boards": ["rpi-3b-2"], "probability": 0.01}
    asked = question(
        "rpi3x2", (16, 16), accuracy=known, max_copies=2,
        failures={"boards": fails, "outages": [outage]}, objective=stages("boards"),
    )  # fmt: skip
    more = _with_one_more(asked, 1)
    assert more.failures.boards[-1] == BoardFailure(board="rpi-3b-3", probability=0.05)
    assert more.failures.outages[0].boards == ("rpi-3b-2", "rpi-3b-3")
    assert _with_one_more(asked, 0).failures.outages == asked.failures.outages
