import pytest
from planner_questions import bounded, partition, question, stages

from nonn_common.units import format_bytes, format_flops
from planner.data.problem_data import resolve_problem
from planner.data.relaxable_constraint import RelaxableConstraint
from planner.diagnosis.conflict import irreducible_conflict
from planner.problem.budgets import BudgetLimits, board_budgets
from planner.solve import solve
from planner.solvers.search import SolverSession, TimeBudget


def cheapest(asked, filters):
    """Least bytes and MACs of one student with this many filters."""
    options = resolve_problem(asked).modes
    return (
        min(option.memory_bytes(filters) for option in options),
        min(option.line.at(filters).macs for option in options),
    )


def needed_of(asked):
    found = irreducible_conflict(SolverSession(asked, TimeBudget(600)))
    assert found.proven
    return found.demands


def test_memory_that_no_student_fits_is_named_with_what_would_do():
    asked = question("rpi3x2", (3, 4, 5), memory=8_000)
    smallest, _ = cheapest(asked, 3)
    whole, _ = cheapest(asked, 12)
    plan = solve(asked)
    assert whole == 19_232
    assert plan.status == "infeasible"
    assert plan.students == plan.stages == plan.send_order == ()
    assert plan.conflict == tuple(
        f"memory budget of rpi-3b-{n}: 8.0 KB; the smallest student needs {format_bytes(smallest)};"
        " 19.3 KB would do if all else stays"
        for n in (1, 2)
    )


def test_memory_that_the_runtime_takes_is_named():
    asked = question("rpi-3b", (3, 4, 5), memory=100_000)
    smallest, _ = cheapest(asked, 3)
    budget = asked.budgets[0].model_copy(update={"runtime_bytes": 95_000})
    (told,) = solve(asked.model_copy(update={"budgets": (budget,)})).conflict
    assert told.startswith(
        "memory budget of rpi-3b-1: 100.0 KB, less 95.0 KB for the runtime; the smallest student "
        f"needs {format_bytes(smallest)};"
    )


def test_what_would_do_does():
    asked = question("rpi3x2", (3, 4, 5), memory=8_000)
    whole, _ = cheapest(asked, 12)
    enough = board_budgets(asked.fleet, BudgetLimits(8_000), {"rpi-3b-2": BudgetLimits(whole)})
    short = board_budgets(asked.fleet, BudgetLimits(8_000), {"rpi-3b-2": BudgetLimits(whole - 4)})
    assert solve(asked.model_copy(update={"budgets": enough})).status == "optimal"
    assert solve(asked.model_copy(update={"budgets": short})).status == "infeasible"


def test_a_flop_budget_is_named_where_memory_is_ample():
    asked = question("rpi-3b", (3, 4, 5), macs=30_000)
    _, smallest = cheapest(asked, 3)
    _, whole = cheapest(asked, 12)
    assert solve(asked).conflict == (
        f"FLOP budget of rpi-3b-1: {format_flops(30_000)}; the smallest student needs "
        f"{format_flops(smallest)}; {format_flops(whole)} would do if all else stays",
    )


def test_more_students_than_communities_cannot_be():
    asked = question("rpi3x8", (3, 4, 5), min_students=4)
    assert solve(asked).conflict == (
        "at least 4 students; each needs a community and there are 3; 3 would do if all else stays",
    )


def test_epsilon_is_named_where_dropping_more_would_fit():
    steps = [((2,), 0.5), ((1, 2), 2.5)]
    asked = question("rpi-3b", partition=partition((3, 30, 60), steps))
    room, _ = cheapest(asked, 3)
    tight = asked.model_copy(update={"budgets": board_budgets(asked.fleet, BudgetLimits(room))})
    assert needed_of(tight) == (
        RelaxableConstraint("epsilon"),
        RelaxableConstraint("memory_bytes", 0),
    )
    assert solve(tight).conflict[0] == (
        "|delta_val| below epsilon, 1 percentage points; more than 2.5 would do if all else stays"
    )


def test_of_a_bounded_loss_the_bound_is_what_epsilon_must_be_above():
    steps = [((2,), 0.0), ((1, 2), -0.5)]
    made = bounded(partition((3, 30, 60), steps), 1.96, 2.75)
    asked = question("rpi-3b", partition=made)
    room, _ = cheapest(asked, 3)
    tight = asked.model_copy(update={"budgets": board_budgets(asked.fleet, BudgetLimits(room))})
    assert solve(tight).conflict[0] == (
        "the loss that dropping filters may cost below epsilon, 1 percentage points; more than "
        "2.75 would do if all else stays"
    )
    enough = tight.model_copy(update={"epsilon_pct": 2.76})
    assert solve(enough).dropped == (1, 2)


def test_too_few_students_are_named_where_knowledge_could_be_spread():
    asked = question("rpi3x2", (40, 40), networks=("wrn10:4,8,8",), max_students=1)
    both, _ = cheapest(asked, 80)
    tight = asked.model_copy(update={"budgets": board_budgets(asked.fleet, BudgetLimits(both - 4))})
    assert needed_of(tight)[0] == RelaxableConstraint("max_students")
    assert solve(tight).conflict[0] == "at most 1 student; 2 would do if all else stays"


def test_of_alike_boards_as_many_are_needed_as_conflict():
    """Two students of at least 19 KB on three boards of 8 KB: any one board more would do."""
    asked = question("rpi-3b*3", (3, 4, 5), memory=8_000, min_students=2)
    assert needed_of(asked) == tuple(
        RelaxableConstraint("memory_bytes", board) for board in range(3)
    )


def test_a_proof_that_was_stopped_is_no_proof():
    asked = question("rpi-3b*2", (3, 4, 5), memory=8_000)
    assert not irreducible_conflict(SolverSession(asked, TimeBudget(0))).proven


def test_what_would_do_is_least_where_another_board_became_alike():
    """Without a FLOP budget the first board would be like the second, and be taken first."""
    asked = question(
        "rpi-3b*2",
        (3, 40),
        networks=("wrn10:4,8,8",),
        min_students=2,
        own={"rpi-3b-1": (None, 1_000)},
        requirements=({"objective": "energy-node", "bound": 35.0},),
        objective=stages("capacity"),
    )
    tightest = SolverSession(asked, TimeBudget(600)).tightest(RelaxableConstraint("macs", 0))
    assert tightest.value == resolve_problem(asked).modes[0].line.at(3).macs


@pytest.mark.parametrize("seed", range(24))
def test_no_requirement_of_a_conflict_can_be_left_out(seed):
    steps = [((0,), 0.5), ((0, 1), 1.5)]
    asked = question(
        "rpi-3b*2,odroid-xu4s",
        partition=partition((3, 4, 5, 6), steps),
        min_students=1 + seed % 4,
        max_students=4,
        memory=(15_000, 22_000, 50_000)[seed % 3],
        macs=(80_000, 170_000)[seed // 6 % 2],
        own={"rpi-3b-2": (19_000, None)},
        requirements=({"objective": "latency", "bound": (25.0, 60.0)[seed % 2]},),
    )
    rows = list(asked.budgets)
    rows[2] = rows[2].model_copy(update={"busy_ms": 18.0 + 4 * (seed % 4), "energy_mj": 90.0})
    asked = asked.model_copy(update={"budgets": tuple(rows)})
    plan = solve(asked)
    if plan.status != "infeasible":
        assert plan.conflict == ()
        return
    needed = needed_of(asked)
    assert not feasible_with(asked, needed)
    for one in needed:
        assert feasible_with(asked, [other for other in needed if other != one])


def feasible_with(asked, requirements):
    """Rebuild the question with only these requirements, the others set out of reach."""

    def keeps(kind, board):
        return RelaxableConstraint(kind, board) in requirements

    rows = [
        row.model_copy(
            update={
                "memory_bytes": row.memory_bytes if keeps("memory_bytes", b) else 2**50,
                "macs": row.macs if keeps("macs", b) else None,
                "busy_ms": row.busy_ms if keeps("busy_ms", b) else None,
                "energy_mj": row.energy_mj if keeps("energy_mj", b) else None,
            }
        )
        for b, row in enumerate(asked.budgets)
    ]
    changes = {"budgets": tuple(rows), "max_students": 99, "min_students": 1, "epsilon_pct": 99.0}
    changes["requirements"] = tuple(
        one
        for one in asked.requirements
        if RelaxableConstraint("requirement", objective=one.objective) in requirements
    )
    for field in ("max_students", "min_students"):
        if RelaxableConstraint(field) in requirements:
            changes[field] = getattr(asked, field)
    if RelaxableConstraint("epsilon") in requirements:
        changes["epsilon_pct"] = asked.epsilon_pct
    return solve(asked.model_copy(update=changes)).status == "optimal"


def test_too_few_students_are_a_conflict_where_more_than_communities_would_do():
    asked = question("rpi3x2", (16, 16), max_students=2, reuse=True, objective=stages("latency"))
    most = solve(asked.model_copy(update={"objective": stages("capacity")})).stages[0].best
    bound = {"objective": "capacity", "bound": most + 1}
    asked = question(
        "rpi3x2", (16, 16), max_students=2, reuse=True, requirements=[bound],
        objective=stages("latency"),
    )  # fmt: skip
    assert set(needed_of(asked)) == {
        RelaxableConstraint("max_students"),
        RelaxableConstraint("requirement", objective="capacity"),
    }  # fmt: skip


def test_behind_g0_the_smallest_student_has_none():
    asked = question("rpi3x2", (3, 4, 5), memory=8_000, group0="own-board")
    smallest = min(
        option.line_without_stem.at(3).params + option.line_without_stem.at(3).peak_elements
        for option in resolve_problem(asked).modes
    )
    text = f"the smallest student needs {format_bytes(4 * smallest)}"
    assert any(text in line for line in solve(asked).conflict) or 4 * smallest <= 8_000
