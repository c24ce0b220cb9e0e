"""Tables 6 and 7 of arXiv:1907.11804, simulated."""

import pytest

from nonn_plan.reproduction import published_value
from profiles.device import DEVICES
from profiles.fleet import parse_fleet, resolve
from simulator.engine.simulation import simulate
from simulator.workloads.fan_out import FanOut, SingleModel, StudentWork

TEACHER_MACS = 1_301_400_000
STUDENT_MACS = 83_500_000
WITHIN = 0.01

ROWS = {  # students: latency, compute, communication in ms, energy per node in mJ
    "rpi-3b": {2: (115, 101.91, 13.10, 238.98), 8: (150, 106.24, 43.76, 249.15)},
    "odroid-xu4s": {2: (25, 19.01, 6.00, 219.07)},
}
TEACHERS = {"rpi-3b": (1405, 3430.67), "odroid-xu4s": (224, 3084.08)}


def nonn(device, students):
    host, boards = resolve(parse_fleet(f"{device}*{students}"))
    work = tuple(StudentWork(f"on {b.name}", b.name, STUDENT_MACS, features=46) for b in boards)
    return FanOut(host, boards, work, tuple(b.name for b in boards), image_bytes=12_288)


@pytest.mark.parametrize(
    ("device", "students"), [(device, k) for device, rows in ROWS.items() for k in rows]
)
def test_a_nonn_takes_what_was_published(device, students):
    """In expectation over what unlike boards and runs take: the join waits for the slowest."""
    quantities = ("total_ms", "compute_ms", "communication_ms", "energy_per_node_mj")
    found = [published_value(nonn(device, students), quantity) for quantity in quantities]
    assert found == pytest.approx(ROWS[device][students], rel=WITHIN)


@pytest.mark.parametrize(
    ("device", "students"), [(device, k) for device, rows in ROWS.items() for k in rows]
)
def test_at_the_mean_of_each_board_the_latency_is_hardly_less(device, students):
    found_ms = simulate(nonn(device, students)).total_ms
    assert found_ms < ROWS[device][students][0]
    assert found_ms == pytest.approx(ROWS[device][students][0], rel=WITHIN)


@pytest.mark.parametrize("device", TEACHERS)
def test_a_teacher_takes_what_was_published(device):
    result = simulate(SingleModel(DEVICES.get(device), TEACHER_MACS))
    assert (result.total_ms, result.energy_per_node_mj) == pytest.approx(
        TEACHERS[device], rel=WITHIN
    )
    assert result.communication_ms == 0


def test_the_library_fleets_are_those_of_the_tables():
    for name, device, count in (("rpi3x2", "rpi-3b", 2), ("rpi3x8", "rpi-3b", 8)):
        assert resolve(parse_fleet(name)) == resolve(parse_fleet(f"{device}*{count}"))
