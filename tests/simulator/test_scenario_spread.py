"""Boards that draw their times: means and percentiles of many images are those of the join."""

from dataclasses import replace

import numpy as np
import pytest
from made_hardware import figure

from simulator.engine.simulation import simulate
from simulator.scenario import Poisson, Scenario
from simulator.workloads.closed_form import join_spread
from simulator.workloads.fan_out import SingleModel, StudentWork

SPREAD = Scenario(spread=True, seed=3)
IMAGES = 8_000


@pytest.fixture
def workload(make_fan_out, slow, fast, idle):
    def with_cv(board, cv):
        return replace(board, device=board.device.model_copy(update={"compute_cv": figure(cv)}))

    students = (
        StudentWork("a", "slow", 1_000_000, 25),
        StudentWork("b", "fast", 9_000_000, 10),
        StudentWork("c", "fast", 6_000_000, 15),
        StudentWork("d", "idle", 1_000_000, 25),
    )
    boards = (with_cv(slow, 0.1), with_cv(fast, 0.3), idle)
    return make_fan_out(boards=boards, students=students, send_order=("slow", "idle", "fast"))


@pytest.mark.parametrize("path", ["events", None])
def test_the_mean_and_p95_of_images_are_those_of_the_join(workload, path):
    alone = replace(workload, students=tuple(s for s in workload.students if s.name != "c"))
    for each in (workload, alone):
        found = simulate(each, IMAGES, SPREAD, keep="totals", path=path)
        known = join_spread(each)
        assert found.total_ms == pytest.approx(known.expected_ms, rel=4e-3)
        assert found.p95_ms == pytest.approx(known.p95_ms, rel=1e-2)
        assert found.compute_ms == pytest.approx(known.compute_ms, rel=1e-2)
        assert found.energy_total_mj == pytest.approx(simulate(each).energy_total_mj)


def test_students_of_one_board_are_slow_in_the_same_images(workload):
    """The sum of their work spreads by 0.3; by 0.22 if each student drew its own time."""
    result = simulate(workload, 2000, SPREAD)
    ends = {}
    for row in result.intervals:
        if row.actor == "fast" and row.activity == "compute":
            start, end = ends.get(row.inference, (np.inf, 0.0))
            ends[row.inference] = min(start, row.start_ms), max(end, row.end_ms)
    busy = np.array([end - start for start, end in ends.values()])
    assert busy.std() / busy.mean() == pytest.approx(0.3, rel=5e-2)


def test_undisturbed_boards_take_their_mean(workload):
    plain = simulate(workload, 3)
    assert len({round(row.latency_ms, 9) for row in plain.inferences}) == 1
    known = replace(
        workload,
        boards=tuple(
            replace(b, device=b.device.model_copy(update={"compute_cv": None}))
            for b in workload.boards
        ),
    )
    assert simulate(known, 3, SPREAD).inferences == plain.inferences


def test_one_seed_draws_the_same_times_whatever_else_is_random(workload):
    def compute(scenario):
        result = simulate(workload, 50, scenario)
        return [row.end_ms - row.start_ms for row in result.intervals if row.actor == "slow"]

    once, again = compute(SPREAD), compute(SPREAD)
    assert once == again
    assert compute(replace(SPREAD, seed=4)) != once
    apart = compute(replace(SPREAD, arrivals=Poisson(0.1)))
    assert apart == pytest.approx(once)


def test_a_model_alone_spreads_about_its_mean(slow):
    device = slow.device.model_copy(update={"compute_cv": figure(0.2)})
    result = simulate(SingleModel(device, 5_000_000), IMAGES, SPREAD)
    times = np.array([row.latency_ms for row in result.inferences])
    assert times.mean() == pytest.approx(20, rel=1e-2)
    assert times.std() == pytest.approx(4, rel=3e-2)
    assert times.min() > 0
