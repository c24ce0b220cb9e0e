from types import SimpleNamespace

import psutil
import pytest

from boards.profiling.machine import (
    MachineCondition,
    clock_hz,
    condition_warnings,
    machine_condition,
    this_machine,
)
from nonn_common.errors import InputError

COOL = MachineCondition(45.0, 1_500_000_000, "performance")


def silent_firmware(*question):
    return None


def write(root, path, text):
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def expose(monkeypatch, temperature_c=None, clocks_mhz=()):
    """Let psutil find one sensor, if it has a temperature, and cores with these clocks."""
    sensors = {} if temperature_c is None else {"cpu": [SimpleNamespace(current=temperature_c)]}
    cores = [SimpleNamespace(current=each) for each in clocks_mhz]
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: sensors)
    monkeypatch.setattr(psutil, "cpu_freq", lambda **_: cores)


@pytest.fixture
def board(tmp_path, monkeypatch):
    """The sysfs of a board at 61 C, whose system begins to throttle at 80 C."""
    expose(monkeypatch, 61.3, (600.0, 1500.0))
    zone = "sys/class/thermal/thermal_zone0"
    write(tmp_path, f"{zone}/temp", "61300\n")
    write(tmp_path, f"{zone}/trip_point_0_type", "passive\n")
    write(tmp_path, f"{zone}/trip_point_0_temp", "80000\n")
    write(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "ondemand\n")
    write(tmp_path, "proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.2\0")
    return tmp_path


def test_a_board_tells_its_condition(board):
    found = machine_condition(board, silent_firmware)
    assert found == MachineCondition(61.3, 1_500_000_000, "ondemand")


def test_what_is_not_exposed_is_none(tmp_path, monkeypatch):
    expose(monkeypatch)
    assert machine_condition(tmp_path, silent_firmware) == MachineCondition(None, None, None)
    assert (
        condition_warnings(MachineCondition(None, None, None), MachineCondition(None, None, None))
        == ()
    )


def test_the_firmware_tells_of_throttling(board):
    asked = []

    def firmware(*question):
        asked.append(question)
        return "throttled=0x50004\n"

    found = machine_condition(board, firmware)
    assert asked == [("get_throttled",)]
    assert found.throttled
    assert found.throttled_before
    assert not machine_condition(board, lambda *_: "throttled=0x10000\n").throttled
    # The clock is capped; at the soft limit of temperature; these, and never now.
    assert machine_condition(board, lambda *_: "throttled=0x2\n").throttled
    assert machine_condition(board, lambda *_: "throttled=0x8\n").throttled
    assert machine_condition(board, lambda *_: "throttled=0xa0000\n").throttled_before
    assert not machine_condition(board, lambda *_: "error=1 error_msg=...").throttled


def test_heat_that_comes_after_the_students_were_measured_counts():
    later = MachineCondition(84.0, 600_000_000, "ondemand", hot=True, throttled=True)
    after = COOL.until(later)
    assert (after.clock_hz, after.governor) == (COOL.clock_hz, COOL.governor)
    assert len(condition_warnings(COOL, after)) == 2
    assert COOL.until(COOL) == COOL


def test_a_quiet_cool_machine_needs_no_word():
    assert condition_warnings(COOL, COOL) == ()


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (MachineCondition(45.0, 1_500_000_000, "performance", throttled=True), "slowed"),
        (MachineCondition(45.0, 1_500_000_000, "performance", throttled_before=True), "slowed"),
        (MachineCondition(85.0, 1_500_000_000, "performance", hot=True), "85 C"),
        (MachineCondition(45.0, 1_400_000_000, "performance"), "-7 %"),
        (MachineCondition(45.0, 1_600_000_000, "performance"), r"\+7 %"),
        (MachineCondition(45.0, 1_500_000_000, "ondemand"), "governor is ondemand"),
    ],
)
def test_what_makes_a_measurement_doubtful_is_told(after, said):
    (told,) = condition_warnings(COOL, after)
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(told)


def test_what_was_throttled_before_is_no_news_and_small_changes_of_the_clock_neither():
    before = MachineCondition(45.0, 1_500_000_000, "performance", throttled_before=True)
    assert condition_warnings(before, before) == ()
    assert condition_warnings(COOL, MachineCondition(45.0, 1_440_000_000, "performance")) == ()


def test_a_sensor_at_its_trip_point_is_hot(board):
    write(board, "sys/class/thermal/thermal_zone0/temp", "80000")
    assert machine_condition(board, silent_firmware).hot


def test_without_a_device_tree_the_title_is_that_of_cpuinfo(tmp_path, monkeypatch):
    expose(monkeypatch, clocks_mhz=(2445.406,))
    write(tmp_path, "proc/cpuinfo", "model name\t: Tiny CPU\ncpu MHz\t\t: 2445.406\n")
    assert clock_hz() == 2_445_406_000
    machine = this_machine(root=tmp_path)
    assert (machine.title, machine.board) == ("Tiny CPU", "tiny-cpu")


def test_a_machine_is_described(board):
    machine = this_machine(root=board)
    assert machine.title == "Raspberry Pi 4 Model B Rev 1.2"
    assert machine.board == "raspberry-pi-4-model-b-rev-1.2"
    assert machine.clock_hz == 1_500_000_000
    assert machine.cores >= 1
    write(board, "sys/fs/cgroup/memory.max", "1048576\n")
    assert this_machine(root=board).ram_bytes == 1048576
    write(board, "sys/fs/cgroup/memory.max", "max\n")
    assert this_machine(root=board).ram_bytes == machine.ram_bytes


def test_a_person_may_know_the_clock_better(tmp_path, monkeypatch):
    expose(monkeypatch)
    with pytest.raises(InputError, match="--clock"):
        this_machine(root=tmp_path)
    assert this_machine(900_000_000, tmp_path).clock_hz == 900_000_000


def test_a_system_without_clocks_is_no_error(monkeypatch):
    def nothing(**_):
        raise NotImplementedError

    monkeypatch.setattr(psutil, "cpu_freq", nothing)
    assert clock_hz() is None
