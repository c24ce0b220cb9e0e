"""Power meters, and the power of a profile: measured, given, or else assumed.

Three kinds of meter: energy counters of the processor (RAPL), power sensors (hwmon), and the
converters of a Raspberry Pi 5.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from boards.profiling.machine import Firmware, ask_firmware
from profiles import Quantity
from profiles.fitting import rounded_value

_RAIL = re.compile(r"(\w+)_([AV]) (?:current|volt)\(\d+\)=([\d.]+)")
_PACKAGE = re.compile(r"package-\d+|psys")
_PARTS = frozenset(("amdgpu", "radeon", "nouveau", "i915", "xe", "nvme", "drivetemp"))
"""Drivers of graphics and disks, whose sensors cover these alone."""

ASSUMED_W_PER_THREAD = 5.0
"""Power of an unknown board: its profile needs a value, and says that it is assumed."""
_REST_S = 0.05


class PowerMeter(Protocol):
    """Measures power."""

    name: str
    """Measured quantity, in words for people."""

    def start(self) -> None:
        """Begin a measurement."""

    def sample(self) -> None:
        """Take a look; this is done again and again during a measurement."""

    def mean_w(self) -> float | None:
        """Return the mean since `start`; None where the meter failed."""


def find_meter(
    root: Path = Path("/"),
    firmware: Firmware = ask_firmware,
    now_s: Callable[[], float] = time.monotonic,
) -> PowerMeter | None:
    """Find the meter that covers most of the machine; None where none is readable."""
    if _rails_w(firmware("pmic_read_adc")) is not None:
        return _SamplingMeter(
            "converters of the board", lambda: _rails_w(firmware("pmic_read_adc"))
        )
    sensors = sorted((root / "sys/class/hwmon").glob("hwmon*/power*_input"))
    readable = [sensor for sensor in sensors if _integer(sensor) is not None and _of_all(sensor)]
    if readable:
        name = f"power sensor {readable[0].parent.name}/{readable[0].name}"
        return _SamplingMeter(name, lambda: _watts(readable[0]))
    counters = _rapl_counters(root)
    if counters:
        return _CounterMeter("RAPL counters of the processor alone", counters, now_s)
    return None


def mean_w(meter: PowerMeter, work: Callable[[], object], seconds: float) -> float | None:
    """Mean power while `work` is repeated; None where the meter failed."""
    end_s = time.monotonic() + seconds
    meter.start()
    while time.monotonic() < end_s:
        work()
        meter.sample()
    return meter.mean_w()


class _SamplingMeter:
    """The mean of what is read now and then."""

    def __init__(self, name: str, read: Callable[[], float | None]) -> None:
        self.name = name
        self._read = read
        self._found: list[float | None] = []

    def start(self) -> None:
        self._found = [self._read()]

    def sample(self) -> None:
        self._found.append(self._read())

    def mean_w(self) -> float | None:
        known = [each for each in self._found if each is not None]
        return sum(known) / len(known) if known else None


class _CounterMeter:
    """Energy counters in microjoules, which begin again at their range."""

    def __init__(
        self, name: str, counters: list[tuple[Path, int]], now_s: Callable[[], float]
    ) -> None:
        self.name = name
        self._counters = counters
        self._now_s = now_s
        self._began_s = 0.0
        self._last: list[int | None] = []
        self._total_uj = 0.0

    def start(self) -> None:
        self._began_s, self._total_uj = self._now_s(), 0.0
        self._last = [_integer(path) for path, _ in self._counters]

    def sample(self) -> None:
        now = [_integer(path) for path, _ in self._counters]
        for last, value, (_, span) in zip(self._last, now, self._counters, strict=True):
            if last is not None and value is not None:
                self._total_uj += value - last if value >= last else value - last + span
        self._last = now

    def mean_w(self) -> float | None:
        self.sample()
        seconds = self._now_s() - self._began_s
        if None in self._last or seconds <= 0:
            return None
        return self._total_uj / 1e6 / seconds


def _rapl_counters(root: Path) -> list[tuple[Path, int]]:
    """Return each package's counter and its range; readable by root alone on most systems."""
    # Some processors expose the same package twice, over MSR and over MMIO.
    found: dict[str, tuple[Path, int]] = {}
    for zone in sorted((root / "sys/class/powercap").glob("*")):
        try:
            name = (zone / "name").read_text().strip()
        except OSError:
            continue
        counter, span = zone / "energy_uj", _integer(zone / "max_energy_range_uj")
        if _PACKAGE.fullmatch(name) and span and _integer(counter) is not None:
            found.setdefault(name, (counter, span))
    # What the whole platform takes holds the packages.
    return [found["psys"]] if "psys" in found else list(found.values())


def _of_all(sensor: Path) -> bool:
    """Whether a power sensor may cover the machine, not only a card or disk."""
    try:
        return (sensor.parent / "name").read_text().strip() not in _PARTS
    except OSError:
        return True


def _rails_w(answer: str | None) -> float | None:
    """Sum of volts times amperes over the rails of `vcgencmd pmic_read_adc`."""
    values = {(rail, unit): float(value) for rail, unit, value in _RAIL.findall(answer or "")}
    rails = {rail for rail, unit in values if unit == "A" and (rail, "V") in values}
    if not rails:
        return None
    return sum(values[rail, "A"] * values[rail, "V"] for rail in rails)


def _watts(sensor: Path) -> float | None:
    microwatts = _integer(sensor)
    return None if microwatts is None else microwatts / 1e6


def _integer(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class GivenPower:
    """Power given by a person, in W; None where not given."""

    idle_w: float | None = None
    busy_w: float | None = None


@dataclass(frozen=True, slots=True)
class PowerFigures:
    """Power at rest, where it is known, and while a student is computed."""

    idle_w: Quantity | None
    busy_w: Quantity


def measure_power(
    meter: PowerMeter | None,
    given: GivenPower,
    work: Callable[[], object],
    threads: int,
    seconds: float,
) -> PowerFigures:
    """Measure each power for `seconds`, unless a person gave it."""
    idle_w = _power_figure(
        meter, given.idle_w, "--idle-w", "at rest", lambda: time.sleep(_REST_S), seconds
    )
    busy_w = _power_figure(meter, given.busy_w, "--busy-w", "while students compute", work, seconds)
    return PowerFigures(idle_w, busy_w or _assumed(threads))


def _power_figure(
    meter: PowerMeter | None,
    given_w: float | None,
    option: str,
    when: str,
    work: Callable[[], object],
    seconds: float,
) -> Quantity | None:
    if given_w is not None:
        return Quantity(value=given_w, provenance="measured", source=f"given with {option}")
    found_w = None if meter is None else mean_w(meter, work, seconds)
    if meter is None or found_w is None:
        return None
    return Quantity(
        value=rounded_value(found_w), provenance="measured", source=f"{meter.name}, {when}"
    )


def _assumed(threads: int) -> Quantity:
    return Quantity(
        value=ASSUMED_W_PER_THREAD * threads,
        provenance="assumed",
        source=f"no meter on this machine: {ASSUMED_W_PER_THREAD:g} W for each thread",
    )
