"""Figure 7 of arXiv:1907.11804: students move, one by one, from Raspberry Pis to one Odroid."""

from itertools import pairwise

import pytest

from profiles.fleet import parse_fleet, resolve
from simulator.engine.simulation import simulate
from simulator.workloads.fan_out import FanOut, StudentWork

STUDENTS = 8
ODROID = "odroid-xu4s-1"


def sweep(odroid_first):
    return [simulate(moved(count, odroid_first)).total_ms for count in range(STUDENTS + 1)]


def moved(count, odroid_first):
    """Put `count` students on the Odroid and each of the others on a Raspberry Pi of its own."""
    host, boards = resolve(parse_fleet(f"rpi-3b*{STUDENTS},odroid-xu4s"))
    pis = [f"rpi-3b-{i + 1}" for i in range(STUDENTS - count)]
    homes = [*pis, *[ODROID] * count]
    students = tuple(
        StudentWork(f"student-{i}", home, 83_500_000, features=46) for i, home in enumerate(homes)
    )
    odroid = [ODROID] * (count > 0)
    order = [*odroid, *pis] if odroid_first else [*pis, *odroid]
    return FanOut(host, boards, students, tuple(order), image_bytes=12_288)


@pytest.mark.parametrize("odroid_first", [True, False])
def test_latency_is_least_with_four_students_on_the_odroid(odroid_first):
    total_ms = sweep(odroid_first)
    assert min(range(STUDENTS + 1), key=total_ms.__getitem__) == 4
    assert all(earlier > later for earlier, later in pairwise(total_ms[:5]))
    assert all(earlier < later for earlier, later in pairwise(total_ms[4:]))


def test_beyond_four_students_the_odroid_is_the_bottleneck():
    for count in range(1, STUDENTS + 1):
        rows = simulate(moved(count, odroid_first=True)).boards
        slowest = max(rows, key=lambda row: row.done_ms)
        assert (slowest.board == ODROID) == (count > 4)


def test_four_students_on_the_odroid_take_as_long_as_one_on_a_raspberry_pi():
    rows = {row.board: row for row in simulate(moved(4, odroid_first=True)).boards}
    assert rows[ODROID].busy_ms == pytest.approx(rows["rpi-3b-1"].busy_ms, rel=1e-4)
