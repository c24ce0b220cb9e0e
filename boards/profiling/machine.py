"""The machine that is measured: hardware, temperature, clock, governor, throttling.

Read by psutil, from Linux's sysfs where psutil has nothing (governors, the trip points of thermal
zones), and from the firmware of a Raspberry Pi; what is not exposed is None.
"""

import os
import platform
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import which

import psutil

from nonn_common.errors import InputError

MAX_CLOCK_CHANGE_PCT = 5.0
# Frequency capped, throttled, or at the soft limit of temperature: now, and since the start.
_THROTTLED_NOW, _THROTTLED_EVER = 0xE, 0xE0000

Firmware = Callable[[str], str | None]
"""Asks the Raspberry Pi's firmware; None where there is none."""

_LIMITS = ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True, slots=True)
class MachineCondition:
    """One moment of a machine.

    `hot` says that a sensor is at the temperature where the system begins to throttle.
    """

    temperature_c: float | None
    clock_hz: int | None
    governor: str | None
    hot: bool = False
    throttled: bool = False
    throttled_before: bool = False

    def until(self, later: "MachineCondition") -> "MachineCondition":
        """Mark this condition hot or throttled if the machine was so later."""
        return replace(
            self,
            temperature_c=later.temperature_c if later.hot else self.temperature_c,
            hot=self.hot or later.hot,
            throttled=self.throttled or later.throttled,
            throttled_before=self.throttled_before or later.throttled_before,
        )


def machine_condition(
    root: Path = Path("/"), firmware: "Firmware | None" = None
) -> MachineCondition:
    """Read the machine's condition; `root` is the folder of its sysfs."""
    flags = _flags((firmware or ask_firmware)("get_throttled"))
    zones = sorted((root / "sys/class/thermal").glob("thermal_zone*"))
    sensors = (each for chip in psutil.sensors_temperatures().values() for each in chip)
    return MachineCondition(
        temperature_c=max((sensor.current for sensor in sensors), default=None),
        clock_hz=clock_hz(),
        governor=_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        hot=any(_is_hot(zone) for zone in zones),
        throttled=bool(flags & _THROTTLED_NOW),
        throttled_before=bool(flags & _THROTTLED_EVER),
    )


def clock_hz() -> int | None:
    """Clock of the fastest core now, in Hz; None where it is not exposed."""
    try:
        clocks_mhz = [core.current for core in psutil.cpu_freq(percpu=True)]
    except NotImplementedError:
        return None
    return round(1e6 * max(clocks_mhz, default=0.0)) or None


def condition_warnings(before: MachineCondition, after: MachineCondition) -> tuple[str, ...]:
    """Reasons to doubt the measurement."""
    said = []
    if after.throttled or (after.throttled_before and not before.throttled_before):
        said.append(
            "the firmware slowed the machine down while it was measured, for heat or for want of "
            "voltage; cool it, or feed it better, and measure again"
        )
    if after.hot:
        said.append(
            f"a sensor is at {after.temperature_c:.0f} C, where the system begins to slow the "
            "machine down; cool it and measure again"
        )
    if before.clock_hz and after.clock_hz:
        change_pct = 100 * (after.clock_hz / before.clock_hz - 1)
        if abs(change_pct) > MAX_CLOCK_CHANGE_PCT:
            said.append(
                f"the clock changed by {change_pct:+.0f} % (from {before.clock_hz / 1e6:.0f} to "
                f"{after.clock_hz / 1e6:.0f} MHz) while it was measured; fix it, e.g. with the "
                "governor performance"
            )
    if after.governor not in (None, "performance"):
        said.append(
            f"the governor is {after.governor}: times depend on how busy the machine is; "
            "`performance` keeps the clock"
        )
    return tuple(said)


def ask_firmware(*question: str) -> str | None:
    """Ask the Raspberry Pi's firmware; None where there is no vcgencmd or it fails."""
    program = which("vcgencmd")
    if program is None:
        return None
    return _ran([program, *question])


def _ran(command: Sequence[str]) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603  (a program of the system, arguments of our own)
            command, capture_output=True, text=True, errors="replace", timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _flags(answer: str | None) -> int:
    """Read `throttled=0x50000`; 0 for anything else."""
    try:
        return int((answer or "").strip().partition("=")[2], 16)
    except ValueError:
        return 0


def _is_hot(zone: Path) -> bool:
    """Whether a zone is at one of its passive trip points."""
    now = _number(zone / "temp")
    kinds = (kind for kind in zone.glob("trip_point_*_type") if _text(kind) == "passive")
    points = [_number(kind.with_name(kind.name.replace("_type", "_temp"))) for kind in kinds]
    return now is not None and any(point and now >= point for point in points)


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip() or None
    except OSError:
        return None


@dataclass(frozen=True, slots=True)
class MachineInfo:
    """Hardware in a profile; `cores` are those that this process may use."""

    name: str
    title: str
    board: str
    clock_hz: int
    cores: int
    ram_bytes: int


def this_machine(asked_hz: int | None = None, root: Path = Path("/")) -> MachineInfo:
    """Describe this machine; `asked_hz` is its clock where a person knows better.

    Raises InputError where neither a person nor the system says the clock.
    """
    found_hz = asked_hz or clock_hz()
    if found_hz is None:
        raise InputError("the system does not say its clock", where="--clock", fix="--clock 1.2GHz")
    title = _title(root)
    return MachineInfo(
        name=_plain(platform.node().partition(".")[0]) or "this-machine",
        title=title,
        board=_plain(title) or "unknown",
        clock_hz=found_hz,
        cores=len(os.sched_getaffinity(0)),
        ram_bytes=_ram_bytes(root),
    )


def _title(root: Path) -> str:
    """Return the model of a board, or of a processor."""
    try:
        model = (root / "proc/device-tree/model").read_text(errors="replace").strip("\0\n ")
    except OSError:
        model = ""
    if model:
        return model
    try:
        lines = (root / "proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named and named[0] else platform.machine()


def _ram_bytes(root: Path) -> int:
    """Memory of the machine, or of this process's control group if less."""
    ram = psutil.virtual_memory().total
    for name in _LIMITS:
        try:
            ram = min(ram, int((root / name).read_text()))
        except (OSError, ValueError):
            continue  # `max`, or another version of control groups.
    return ram


def _plain(text: str) -> str:
    """Return a name that commands and fleets take as it is."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")
