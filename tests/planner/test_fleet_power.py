"""Limits of power of all boards together, and on average at a rate of images.

Oracles: the published rows of two boards, closed forms, and limits typed back.
"""

from itertools import pairwise

import numpy as np
import pytest
from planner_questions import stages
from test_duty import rated
from test_power import mixed, points, powered
from test_power import published as two_students

from nonn_common.errors import InputError, ProfileError
from planner.certificates.verification import verify_plan
from planner.diagnosis.explanation import explain
from planner.plan_file.validation import violations
from planner.problem.duty import sustained
from planner.problem.goals import Requirement
from planner.problem.problem import Problem
from planner.solve import solve
from profiles.device import compute_mj, compute_ms
from profiles.operating_point import average_power, computing_w, whole_power

PUBLISHED_W = 238.98 / 101.91
"""Of a Raspberry Pi 3B at 400 MHz; at 1.2 GHz 3.7 W."""


def published(fleet):
    """The published student on each of two boards, of which none may run both."""
    asked = two_students(fleet)
    rows = [row.model_copy(update={"macs": 10**8}) for row in asked.budgets]
    return Problem.check(dict(asked) | {"budgets": rows}, where="test")


def required(asked, **bounds):
    """The question with these requirements beside its own."""
    named = {name.replace("_", "-"): bound for name, bound in bounds.items()}
    further = tuple(Requirement(objective=name, bound=bound) for name, bound in named.items())
    return Problem.check(
        dict(asked) | {"requirements": (*asked.requirements, *further)}, where="test"
    )


def averaged(asked, watts):
    """The question whose boards draw no more on average."""
    rows = [row.model_copy(update={"average_w": watts}) for row in asked.budgets]
    return Problem.check(dict(asked) | {"budgets": rows}, where="test")


def at_rate(asked, rate_per_s, **fields):
    fields |= {
        "rate_per_s": rate_per_s,
        "requirements": sustained(asked.requirements, rate_per_s),
    }
    return Problem.check(dict(asked) | fields, where="test")


@pytest.mark.parametrize(
    ("watts", "clocks"),
    [
        (2 * PUBLISHED_W + 0.1, ["rpi-3b", "rpi-3b"]),
        (PUBLISHED_W + 3.75, ["rpi-3b", "rpi-3b-1200mhz"]),
        (7.5, ["rpi-3b-1200mhz", "rpi-3b-1200mhz"]),
    ],
)
def test_a_supply_of_two_boards_sets_their_clocks(watts, clocks):
    """Energy tells both apart; by latency the second clock is worth its image's send alone."""
    plan = solve(required(published("rpi3x2:any"), fleet_power=watts))
    assert plan.status == "optimal"
    assert sorted(points(plan)) == clocks
    assert not violations(plan)
    assert verify_plan(plan.question, plan.model_dump()).untrue == ()


def test_a_supply_that_is_too_weak_is_named_with_what_would_do():
    plan = solve(required(published("rpi3x2:any"), fleet_power=4.6))
    assert plan.status == "infeasible"
    (sentence,) = [one for one in plan.conflict if "fleet-power" in one]
    assert sentence.startswith("fleet-power <= 4.6; fleet-power <= 4.69")


def test_average_power_of_boards_and_of_all_is_the_closed_form_and_can_be_typed_back():
    asked = at_rate(published("rpi3x2"), 2.0)
    free = solve(asked)
    device, macs = asked.boards[0].device, free.students[0].macs
    busy_ms, busy_mj = compute_ms(device, macs), compute_mj(device, macs)
    each_w = average_power(device, 2.0, busy_ms=busy_ms, busy_mj=busy_mj)
    assert free.duty.average_w == pytest.approx(2 * each_w, rel=1e-12)
    limited = required(averaged(asked, each_w), fleet_average_power=2 * each_w)
    plan = solve(limited)
    assert plan.status == "optimal"
    assert not violations(plan)
    used = [row.used for row in plan.budgets if row.budget == "average_w"]
    assert used == [pytest.approx(each_w, rel=1e-12)] * 2
    for less in (
        averaged(asked, each_w * 0.999),
        required(asked, fleet_average_power=each_w * 1.999),
    ):
        refused = explain(solve(less), 60.0)
        assert any("average" in one for one in refused.conflict)
        (repair,) = [one for one in refused.repairs if "average" in one.text]
        boards = 1 if repair.objective is None else 2
        assert repair.value == pytest.approx(boards * each_w, rel=1e-6)


def test_the_least_power_is_that_of_the_slowest_clock_on_average_that_of_least_energy():
    asked = at_rate(mixed(), 1.0)
    calm = solve(Problem.check(dict(asked) | {"objective": stages("fleet-power")}, where="t"))
    total = 0.0
    for board in calm.question.boards:
        here = sum(one.macs for one in calm.decision.on(board.name))
        total += computing_w(board.device, here) if here else 0.0
    assert calm.stages[0].value == pytest.approx(total, rel=1e-12)
    rested = solve(
        Problem.check(dict(asked) | {"objective": stages("fleet-average-power")}, where="t")
    )
    assert rested.stages[0].value == pytest.approx(rested.duty.average_w, rel=1e-12)
    assert rested.stages[0].value <= calm.duty.average_w


def test_power_in_whole_numbers_is_that_of_the_closed_form():
    device = published("odroid-xu4s*2").boards[0].device
    for macs in (1, 10**5, 3 * 10**7, 10**9):
        exact = 1e6 * compute_mj(device, macs) / compute_ms(device, macs)
        assert exact - 1e-3 <= whole_power(device, macs) <= exact + 1.2
    assert whole_power(device, 0) == 0


@pytest.mark.parametrize("seed", range(6))
def test_more_drawn_watts_of_all_boards_never_make_the_optimum_worse(seed):
    """Of all boards while they compute, of all on average, or of each on average."""
    draw = np.random.default_rng((17, seed))
    asked = at_rate(mixed(), 3.0)
    kind = ("fleet_power", "fleet_average_power", "average_w")[seed % 3]
    least, most = {"fleet_power": (3.0, 18.0), "fleet_average_power": (1.0, 6.0)}.get(
        kind, (1.3, 1.6)
    )
    values = []
    for watts in sorted(draw.uniform(least, most, 4).tolist()):
        one = averaged(asked, watts) if kind == "average_w" else required(asked, **{kind: watts})
        plan = solve(one)
        assert plan.status in ("optimal", "infeasible")
        assert not violations(plan)
        values.append(plan.stages[0].best if plan.stages else float("inf"))
    assert len(set(values)) > 1
    for less, more in pairwise(values):
        assert more <= less or more == pytest.approx(less, rel=1e-9)


def test_explain_says_what_the_supply_costs_and_what_the_next_watt_buys():
    """At 4.8 W both boards run at 400 MHz; a watt and a quarter more lets one run at 1.2 GHz."""
    plan = solve(required(powered(published("rpi3x2:any"), 9.0), fleet_power=4.8))
    found = explain(plan, 120.0)
    (row,) = [one for one in found.sensitivities if one.objective == "fleet-power"]
    assert row.improves == "latency"
    assert row.loosen_to == pytest.approx(PUBLISHED_W + 3.7, rel=2e-3)
    assert row.tighten_to == pytest.approx(row.used, rel=1e-5)
    board, fleet, free = found.power_prices
    assert (board.limit, board.more_w) == ("power_w", 1.0)
    assert board.values["latency"] == pytest.approx(plan.predicted.total_ms)
    assert (fleet.limit, fleet.more_w) == ("fleet-power", 1.0)
    assert fleet.values["latency"] == pytest.approx(plan.predicted.total_ms)
    assert free.more_w is None
    assert free.points == ("rpi-3b-1200mhz", "rpi-3b-1200mhz")


def test_average_power_needs_a_rate():
    with pytest.raises(InputError, match="average power needs the rate of images"):
        averaged(published("rpi3x2"), 1.0)
    with pytest.raises(InputError, match="average power needs the rate of images"):
        required(published("rpi3x2"), fleet_average_power=3.0)


def test_a_device_that_draws_less_the_more_it_computes_is_refused():
    asked = published("rpi3x2")
    device = asked.boards[0].device
    odd = device.model_copy(
        update={
            "name": "odd",
            "power_fixed_w": device.power_busy_w.model_copy(update={"value": 9.0}),
        }
    )
    rows = tuple(row.model_copy(update={"device": "odd"}) for row in asked.fleet.boards)
    fleet = asked.fleet.model_copy(update={"boards": rows, "devices": (odd,)})
    with pytest.raises(ProfileError, match="draws less the more it computes"):
        required(asked.model_copy(update={"fleet": fleet}), fleet_power=20.0)


def test_a_plan_that_claims_less_average_power_than_it_draws_is_refused():
    plan = solve(averaged(rated(published("rpi3x2"), 2), 3.0))
    rows = tuple(
        row.model_copy(update={"used": row.used / 2, "slack": row.limit - row.used / 2})
        if row.budget == "average_w"
        else row
        for row in plan.budgets
    )
    tampered = plan.model_copy(update={"budgets": rows})
    assert any("budgets" in one for one in violations(tampered))
    assert any("average" in one for one in verify_plan(plan.question, tampered.model_dump()).untrue)
