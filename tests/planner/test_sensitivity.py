"""Thresholds are checked by solving again on both sides of each: the values change exactly there.

More of a budget never makes an optimum worse, so that two questions beside a threshold say all.
"""

import numpy as np
import pytest
from planner_questions import SMALL, WRN16, bounded, partition, published, question, stages

from planner.data.modes import rounding_bound
from planner.data.objective_function import rounding_tolerance
from planner.data.problem_data import resolve_problem
from planner.data.relaxable_constraint import RelaxableConstraint
from planner.diagnosis.explanation import explain, thresholds
from planner.solve import solve
from planner.solvers.lexicographic import lexicographic_optimum
from planner.solvers.search import SolverSession, TimeBudget

UNITS = {"memory_bytes": 1, "macs": 1, "busy_ms": 1e-6, "energy_mj": 1e-6}
OBJECTIVES = (
    ("capacity",),
    ("capacity:10%", "imbalance"),
    ("latency",),
    ("energy", "capacity"),
    ("imbalance:50%", "flops"),
    ("dropped", "memory"),
    ("boards", "latency:5%", "capacity"),
)


def with_budget(asked, board, kind, value):
    rows = list(asked.budgets)
    rows[board] = rows[board].model_copy(update={kind: value})
    return asked.model_copy(update={"budgets": tuple(rows)})


def best(asked):
    """The best value of each stage; nothing where there is no plan."""
    return pytest.approx([stage.best for stage in solve(asked).stages], rel=1e-9, abs=1e-5)


def rows_of(asked):
    return {(row.kind, row.board, row.objective): row for row in explained(asked).sensitivities}


def explained(asked):
    return explain(solve(asked), 600)


def test_of_one_student_on_one_board_thresholds_are_its_needs_and_those_of_the_next():
    asked = question("rpi-3b", (3, 4, 5), objective=stages("capacity"), memory=20_000)
    options = resolve_problem(asked).modes
    needs = sorted((one.line.at(12).params, one.memory_bytes(12)) for one in options)
    fits = max(one for one in needs if one[1] <= 20_000)
    larger = min(memory for params, memory in needs if params > fits[0])
    row = rows_of(asked)["memory_bytes", "rpi-3b-1", None]
    assert (row.tighten_to, row.loosen_to, row.improves) == (fits[1], larger, "capacity")
    assert row.binds
    assert row.proven
    assert row.slack == 20_000 - fits[1]


def test_ample_budgets_do_not_bind():
    rows = rows_of(question("rpi-3b", (3, 4, 5), objective=stages("capacity"), macs=10**9))
    for kind in ("memory_bytes", "macs"):
        row = rows[kind, "rpi-3b-1", None]
        assert (row.binds, row.loosen_to, row.proven) == (False, None, True)


def test_the_memory_of_the_runtime_is_part_of_what_is_needed():
    asked = question("rpi-3b", (3, 4, 5), objective=stages("capacity"), memory=20_000)
    plain = rows_of(asked)["memory_bytes", "rpi-3b-1", None]
    budget = asked.budgets[0].model_copy(update={"memory_bytes": 25_000, "runtime_bytes": 5_000})
    run = rows_of(asked.model_copy(update={"budgets": (budget,)}))
    row = run["memory_bytes", "rpi-3b-1", None]
    assert row.tighten_to == plain.tighten_to + 5_000
    assert row.loosen_to == plain.loosen_to + 5_000


def test_a_board_that_nobody_needs_may_lose_all():
    asked = question("rpi-3b*2", (3, 4, 5), objective=stages("boards", "capacity"))
    rows = rows_of(asked)
    assert rows["memory_bytes", "rpi-3b-1", None].tighten_to == 0
    assert rows["memory_bytes", "rpi-3b-2", None].tighten_to == 0


def test_a_budget_that_no_board_has_is_no_row():
    kinds = {kind for kind, _, _ in rows_of(question("rpi-3b", (3, 4)))}
    assert kinds == {"memory_bytes", "min_students", "max_students", "epsilon"}


def test_boards_that_are_alike_are_solved_once_and_move_alike():
    asked = question("rpi-3b*2", (3, 4, 5), memory=20_000, objective=stages("capacity"))
    rows = rows_of(asked)
    one, other = (rows["memory_bytes", f"rpi-3b-{n}", None] for n in (1, 2))
    assert (one.tighten_to, one.loosen_to) == (other.tighten_to, other.loosen_to)
    check(asked, 1, "memory_bytes", other.tighten_to, other.loosen_to)


def test_more_students_would_be_better_where_their_number_binds():
    asked = question("rpi-3b*3", (3, 4, 5), max_students=1, objective=stages("capacity"))
    row = rows_of(asked)["max_students", None, None]
    assert (row.tighten_to, row.loosen_to, row.binds) == (1, 2, True)
    assert best(asked.model_copy(update={"max_students": 2})) != best(asked).expected


def test_epsilon_binds_where_dropping_more_would_be_better():
    asked = question(
        "rpi-3b", partition=partition((3, 4, 5), [((0,), 1.5)]), objective=stages("dropped")
    )
    row = rows_of(asked)["epsilon", None, None]
    assert (row.limit, row.used, row.tighten_to, row.loosen_to) == (1, 0, 0, 1.5)


def test_epsilon_moves_to_the_bound_on_the_loss():
    made = bounded(partition((3, 4, 5), [((0,), 0.0)]), 1.96)
    row = rows_of(question("rpi-3b", partition=made, objective=stages("dropped")))
    assert row["epsilon", None, None].loosen_to == 1.96


@pytest.mark.parametrize("required", ["latency", "throughput"])
def test_requirements_move_as_budgets_do(required):
    at = {"objective": "latency", "bound": 40.0}
    if required != "latency":
        at = {"objective": "throughput", "bound": 20.0}
    asked = question(
        "rpi-3b*2,odroid-xu4s", (3, 4, 5), objective=stages("capacity", "energy"), requirements=[at]
    )
    row = rows_of(asked)["requirement", None, at["objective"]]

    def moved(bound):
        one = asked.requirements[0].model_copy(update={"bound": bound})
        return best(asked.model_copy(update={"requirements": (one,)}))

    now = best(asked).expected
    nudge = rounding_tolerance(asked, required, row.tighten_to) + 1e-6
    nudge = nudge if required == "latency" else -nudge
    assert moved(row.tighten_to) == now
    assert moved(row.tighten_to - nudge) != now
    if row.loosen_to is not None:
        assert moved(row.loosen_to) != now
        assert moved(row.loosen_to - nudge) == now


def test_without_time_nothing_is_called_proven():
    asked = question("rpi-3b*2", (3, 4, 5), memory=20_000)
    prover = SolverSession(asked, TimeBudget(600))
    found = lexicographic_optimum(prover)
    prover.time_budget.remaining = 0
    row = thresholds(prover, found, RelaxableConstraint("memory_bytes", 0))
    assert (row.tight, row.loose, row.proven) == (None, None, False)


@pytest.mark.parametrize("seed", range(32))
def test_values_change_exactly_at_the_thresholds(seed):
    draw = np.random.default_rng(seed)
    asked = drawn(draw, OBJECTIVES[seed % len(OBJECTIVES)])
    prover = SolverSession(asked, TimeBudget(600))
    if prover.plan().infeasible:
        pytest.skip("no plan")
    limited = [
        RelaxableConstraint(kind, board)
        for board, row in enumerate(asked.budgets)
        for kind in UNITS
        if getattr(row, kind) is not None
    ]
    demand = limited[draw.integers(len(limited))]
    found = thresholds(prover, lexicographic_optimum(prover), demand)
    assert found.proven
    unit = UNITS[demand.kind]
    loose = None if found.loose is None else found.loose * unit
    check(asked, demand.board, demand.kind, found.tight * unit, loose)


def drawn(draw, objective):
    """Three boards, two of them alike, three communities, and budgets that often bind."""
    sizes = tuple(map(int, draw.integers(2, 12, 3)))
    asked = question(
        "rpi-3b*2,odroid-xu4s",
        partition=partition(sizes, [((0,), 0.5)]),
        networks=SMALL,
        max_students=3,
        objective=stages(*objective),
        memory=int(draw.integers(19_000, 45_000)),
        macs=int(draw.integers(60_000, 300_000)),
    )
    limits = {
        "busy_ms": round(float(draw.uniform(17, 40)), 3),
        "energy_mj": round(float(draw.uniform(20, 120)), 3),
    }
    kind = ("busy_ms", "energy_mj")[draw.integers(2)]
    return with_budget(asked, int(draw.integers(3)), kind, limits[kind])


def check(asked, board, kind, tight, loose):
    """Solve on both sides of both thresholds."""
    now, unit = best(asked).expected, UNITS[kind]
    if kind in ("busy_ms", "energy_mj"):
        # A plan whose own figures keep a budget is found where rounding would break it.
        unit *= 1 + rounding_bound(0, asked.most_students, asked.most_filters)
    assert best(with_budget(asked, board, kind, max(tight, unit))) == now
    if tight > unit:
        assert best(with_budget(asked, board, kind, tight - unit)) != now
    if loose is None:
        assert best(with_budget(asked, board, kind, 10**9)) == now
    else:
        assert best(with_budget(asked, board, kind, loose)) != now
        assert best(with_budget(asked, board, kind, loose - unit)) == now


def test_slack_is_what_a_requirement_leaves_on_either_side():
    bounds = [{"objective": "throughput", "bound": 5.0}, {"objective": "latency", "bound": 900.0}]
    asked = question("rpi3x2", (3, 4, 5), objective=stages("latency"), requirements=bounds)
    rows = rows_of(asked)
    for one in bounds:
        row = rows["requirement", None, one["objective"]]
        assert row.slack == pytest.approx(abs(row.used - row.limit)) and row.slack > 0


def test_more_students_than_communities_may_be_of_use():
    asked = question("rpi3x2", (16, 16), objective=stages("capacity"), max_students=2, reuse=True)
    row = rows_of(asked)["max_students", None, None]
    assert (row.loosen_to, row.improves, row.binds) == (3, "capacity", True)
    more = asked.model_copy(update={"max_students": 3})
    assert solve(more).stages[0].best > solve(asked).stages[0].best


def test_that_no_number_of_students_is_of_use_is_proven_where_memory_ends():
    """Each student's activations take memory from what counts as capacity."""
    networks = ("wrn16:16,16,16", *WRN16)
    asked = published(reuse=True, networks=networks, objective=stages("capacity"))
    prover = SolverSession(asked, TimeBudget(600))
    optimum = lexicographic_optimum(prover)
    least = min(mode.line.at(12).peak_elements for mode in resolve_problem(asked).modes)
    assert 2 * 500_000 - 5 * least < optimum.levels[0].best
    found = thresholds(prover, optimum, RelaxableConstraint("max_students"))
    assert (found.tight, found.loose, found.proven) == (2, None, True)


def test_no_number_of_students_is_of_use_where_the_boards_hold_no_more():
    modes = resolve_problem(question("rpi3x2", (4,) * 6)).modes
    memory = 2 * min(mode.memory_bytes(4) for mode in modes)
    asked = question("rpi3x2", (4,) * 6, memory=memory, objective=stages("capacity"), reuse=True)
    row = rows_of(asked)["max_students", None, None]
    assert (row.loosen_to, row.binds, row.proven) == (None, False, True)
    for students in (4, 5, 8):
        assert best(asked.model_copy(update={"max_students": students})) == best(asked).expected


def test_far_more_students_than_are_allowed_are_found_to_be_of_use():
    """Of one community each, six students of the smallest network have the least capacity."""
    required = [{"objective": "students", "bound": 6}]
    asked = question("rpi3x2", (16, 16), max_students=6, reuse=True, requirements=required)
    assert solve(asked).status == "optimal"
    fewer = asked.model_copy(update={"max_students": 2})
    found = explained(fewer)
    assert (found.proven, found.irreducible) == (True, True)
    assert any(one.kind == "max_students" and one.value == 6 for one in found.repairs)
