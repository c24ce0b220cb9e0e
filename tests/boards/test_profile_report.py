from dataclasses import replace

import pytest
from made_measurement import COOL, made_measured

from boards.profiling.benchmark_run import BenchmarkSettings
from boards.profiling.layer_benchmark import LayerTimes
from boards.profiling.machine import MachineInfo
from boards.profiling.power_meter import GivenPower, measure_power
from boards.profiling.profile_report import build_report, profile_name
from nonn_common.errors import InputError
from profiles.device import compute_ms

MACHINE = MachineInfo("board", "A board", "some-board", 10**9, 4, 2**30)


@pytest.fixture
def found():
    return made_measured()


def test_a_profile_holds_what_was_measured(found):
    report = build_report(BenchmarkSettings(MACHINE), found)
    device = report.device
    assert compute_ms(device, 10_000_000) == pytest.approx(7.0, rel=1e-4)
    assert device.message_ms.value == pytest.approx(0.3, rel=1e-3)
    assert device.hosting.join_fixed_ms.value == pytest.approx(0.5, rel=1e-3)
    assert device.hosting.fc_ms.value == pytest.approx(0.1)
    assert device.sharing_slowdown.value == pytest.approx(0.6)
    assert device.power_fixed_w == device.power_busy_w
    assert (device.cores, device.ram_bytes, device.clock_hz) == (4, 2**30, 10**9)
    assert device.missing_as_board == ()
    assert report.loopback.bits_per_s.value == pytest.approx(8000 / 2e-5, rel=1e-3)
    assert report.held_out_mean_pct == pytest.approx(0, abs=0.01)
    assert "7 students held out" in device.source
    assert report.warnings == ()


def off(found, factor):
    rows = tuple(
        replace(row, timing=replace(row.timing, ms=row.timing.ms * factor))
        if row.student.held_out
        else row
        for row in found.students.rows
    )
    return replace(found, students=replace(found.students, rows=rows))


def spread(found, spread_pct):
    rows = tuple(
        replace(row, timing=replace(row.timing, spread_pct=spread_pct))
        for row in found.students.rows
    )
    return replace(found, students=replace(found.students, rows=rows))


def flat(found):
    rows = tuple(replace(row, timing=replace(row.timing, ms=1.0)) for row in found.students.rows)
    return replace(found, students=replace(found.students, rows=rows))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: replace(found, after=replace(COOL, throttled=True)), "slowed"),
        (
            lambda found: replace(found, students=replace(found.students, drift_pct=30.0)),
            r"changed by \+30 %",
        ),
        (lambda found: off(found, 2.0), "--teacher and --image"),
        (lambda found: spread(found, 40.0), "differ by 40 %"),
        (flat, "whatever their MACs"),
        (
            lambda found: replace(
                found, power=measure_power(None, GivenPower(), lambda: None, 1, 0.0)
            ),
            "--busy-w",
        ),
    ],
)
def test_what_makes_it_doubtful_is_told(found, change, said):
    (warning,) = build_report(BenchmarkSettings(MACHINE), change(found)).warnings
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(warning)


def test_the_error_on_students_held_out_is_part_of_the_profile(found):
    report = build_report(BenchmarkSettings(MACHINE), off(found, 2.0))
    assert report.held_out_mean_pct == pytest.approx(50, abs=0.1)
    assert "error 50.0 % in the mean, 50.0 % at most" in report.device.source


def test_layers_are_left_out_where_they_were_not_measured(found):
    report = build_report(BenchmarkSettings(MACHINE), found)
    assert report.device.layers is None
    assert report.layers_held_out_mean_pct is None
    with pytest.raises(InputError, match="no layers"):
        build_report(BenchmarkSettings(MACHINE), replace(found, layers=LayerTimes(())))


def test_a_profile_has_a_name_that_no_device_of_the_library_has():
    assert profile_name(None, MACHINE) == "board"
    assert profile_name(None, replace(MACHINE, name="rpi-4b")) == "rpi-4b-measured"
    assert profile_name("mine", MACHINE) == "mine"
    with pytest.raises(InputError, match="--name"):
        profile_name("rpi-4b", MACHINE)
