"""Operating points: which a board has, and what it draws at one.

Oracle: the energies and times of arXiv:1907.11804, Tables 6 and 7, and the definition of the mean.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nonn_common.errors import ProfileError
from profiles.device import DEVICES, compute_mj, compute_ms
from profiles.fleet import Fleet, parse_fleet, resolve
from profiles.operating_point import (
    average_power,
    board_points,
    computing_w,
    most_macs_within,
    operating_points,
)

PUBLISHED_MACS = 83_500_000
"""MACs of the larger student of the NoNN paper."""


def names(points):
    return [[board.device.name for board in row] for row in points]


def test_a_pi_draws_what_tables_6_and_7_say():
    pi = DEVICES.get("rpi-3b")
    assert computing_w(pi, PUBLISHED_MACS) == pytest.approx(238.98 / 101.91, rel=0.01)


@settings(max_examples=50)
@given(
    st.sampled_from(["rpi-3b", "rpi-3b-1200mhz", "odroid-xu4s", "odroid-xu4s-1400mhz"]),
    st.floats(1.0, 15.0),
)
def test_one_mac_more_than_the_most_breaks_the_limit(name, power_w):
    device = DEVICES.get(name)
    most = most_macs_within(device, power_w)
    if most is None:
        assert computing_w(device, 10**12) <= power_w * (1 + 1e-9)
        return
    if most:
        assert compute_mj(device, most) <= power_w * compute_ms(device, most) * (1 + 1e-9)
    assert compute_mj(device, most + 1) > power_w * compute_ms(device, most + 1) * (1 - 1e-9)


def test_average_power_of_a_pi_at_the_published_time_and_energy():
    """101.91 ms and 238.98 mJ of an image, 1.4 W idle: by hand, 1.4 + 5 * (0.23898 - 0.142674)."""
    spent = {"busy_ms": 101.91, "busy_mj": 238.98}
    pi = DEVICES.get("rpi-3b")
    assert average_power(pi, 5.0, **spent) == pytest.approx(1.88153)
    assert average_power(pi, 1e-9, **spent) == pytest.approx(1.4)
    # It computes all the time at 9.81 images per second, and so it does where more come.
    assert average_power(pi, 1000 / 101.91, **spent) == pytest.approx(238.98 / 101.91)
    assert average_power(pi, 100.0, **spent) == pytest.approx(238.98 / 101.91)


def test_average_power_without_idle_power_is_that_of_computing_alone():
    untold = DEVICES.get("stm32l4r5zi")
    assert untold.idle_w is None
    assert average_power(untold, 2.0, busy_ms=100, busy_mj=3.3) == pytest.approx(0.0066)


def test_power_that_is_not_known_keeps_no_limit():
    with pytest.raises(ProfileError, match="power_busy_w"):
        most_macs_within(DEVICES.get("rpi-4b-1t"), 3.0)


def test_points_are_profiles_of_one_board_runtime_and_precision():
    assert [one.name for one in operating_points(DEVICES.get("rpi-3b"))] == [
        "rpi-3b-1200mhz",
        "rpi-3b",
    ]
    assert [one.clock_hz for one in operating_points(DEVICES.get("odroid-xu4s-1000mhz"))] == [
        2_000_000_000,
        1_400_000_000,
        1_000_000_000,
    ]
    assert {one.cores for one in operating_points(DEVICES.get("rpi-4b"))} == {4, 1}


def test_a_named_device_means_that_point_alone():
    assert names(board_points(parse_fleet("rpi3x2"))) == [["rpi-3b"]] * 2


@pytest.mark.parametrize("typed", ["mixed:any", "rpi-3b:any*2,odroid-xu4s:any"])
def test_any_leaves_points_open(typed):
    fleet = parse_fleet(typed)
    assert [board.name for board in fleet.boards] == ["rpi-3b-1", "rpi-3b-2", "odroid-xu4s-1"]
    pis = ["rpi-3b-1200mhz", "rpi-3b"]
    odroid = ["odroid-xu4s", "odroid-xu4s-1400mhz", "odroid-xu4s-1000mhz"]
    assert names(board_points(fleet)) == [pis, pis, odroid]
    assert [board.device.name for board in resolve(fleet)[1]] == ["rpi-3b", "rpi-3b", "odroid-xu4s"]


def test_one_board_of_a_list_may_be_open():
    fleet = parse_fleet("rpi-3b,odroid-xu4s:any@wifi")
    assert [board.points for board in fleet.boards] == ["named", "any"]
    assert fleet.boards[1].link == "wifi"


def test_files_bring_points_of_their_own(tmp_path):
    own = DEVICES.get("rpi-3b").model_copy(update={"name": "mine", "clock_hz": 600_000_000})
    content = {
        "name": "home",
        "title": "one",
        "devices": [own.model_dump()],
        "boards": [{"name": "a", "device": "mine", "points": "any"}],
    }
    fleet = Fleet.check(content, where="home.yaml")
    assert names(board_points(fleet)) == [["rpi-3b-1200mhz", "mine", "rpi-3b"]]


def test_old_files_name_points():
    content = {"name": "old", "title": "old", "boards": [{"name": "a", "device": "rpi-3b"}]}
    assert Fleet.check(content, where="old").boards[0].points == "named"


def test_a_board_in_between_has_one_point():
    boards = [
        {"name": "a", "device": "rpi-3b", "points": "any"},
        {"name": "b", "device": "rpi-3b", "via": "a"},
    ]
    with pytest.raises(ProfileError, match="one operating point"):
        Fleet.check({"name": "row", "title": "row", "boards": boards}, where="row.yaml")


def test_an_unknown_device_is_still_named():
    with pytest.raises(ProfileError, match="rpi-3c"):
        parse_fleet("rpi-3c:any*2")
