"""Two unlike boards and a host with round figures, so that a test can compute by hand."""

import pytest
from made_hardware import device, figure, link

from profiles.device import Hosting
from profiles.fleet import Board
from simulator.workloads.fan_out import FanOut, StudentWork


@pytest.fixture
def host():
    return device("desk", hosting=Hosting(join_fixed_ms=figure(2.5), fc_ms=figure(0.5)))


@pytest.fixture
def slow():
    """10 ms + 2 ms per million MACs at 1 W and 3 W; 8 ms per 1000 bytes."""
    profile = device(
        "tortoise",
        compute_fixed_ms=10,
        compute_ms_per_mmac=2,
        power_fixed_w=1,
        power_busy_w=3,
        message_ms=4,
        sharing_slowdown=1.5,
    )
    return Board("slow", profile, link("narrow", 1_000_000))


@pytest.fixture
def fast():
    """1 ms + 0.5 ms per million MACs at 2 W and 4 W; 0.8 ms per 1000 bytes."""
    profile = device(
        "hare",
        compute_fixed_ms=1,
        compute_ms_per_mmac=0.5,
        power_fixed_w=2,
        power_busy_w=4,
        message_ms=1,
        sharing_slowdown=1.25,
    )
    return Board("fast", profile, link("wide", 10_000_000))


@pytest.fixture
def idle(slow):
    return Board("idle", slow.device, slow.link)


@pytest.fixture
def students():
    return (
        StudentWork("a", "slow", macs=5_000_000, features=250),
        StudentWork("b", "fast", macs=4_000_000, features=100),
        StudentWork("c", "fast", macs=6_000_000, features=150),
    )


@pytest.fixture
def make_fan_out(host, slow, fast, idle, students):
    """Build the fan-out of the hand calculation, with some of its parts changed."""

    def make(**changed):
        parts = {
            "host": host,
            "boards": (slow, fast, idle),
            "students": students,
            "send_order": ("slow", "fast"),
            "image_bytes": 1000,
        }
        return FanOut(**{**parts, **changed})

    return make
