"""The power figures of a profile: measured here, given by a person, or else assumed."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from boards.profiling.power import Meter, mean_w
from profiles.figure import Figure
from profiles.fitting import rounded_figure

ASSUMED_W_PER_THREAD = 5.0
"""Where nothing is known: a board's profile cannot do without, and says that it is assumed."""

_REST_S = 0.05


@dataclass(frozen=True, slots=True)
class GivenPower:
    """What a person says, in W; None where they say nothing."""

    idle_w: float | None = None
    busy_w: float | None = None


@dataclass(frozen=True, slots=True)
class PowerFigures:
    """Power at rest, where it is known, and while a student is computed."""

    idle_w: Figure | None
    busy_w: Figure


def measure_power(
    meter: Meter | None,
    given: GivenPower,
    work: Callable[[], object],
    threads: int,
    seconds: float,
) -> PowerFigures:
    """Return the figures; each is measured for `seconds` unless a person gave it."""
    idle_w = _figure(meter, given.idle_w, "--idle-w", "at rest", _rest, seconds)
    busy_w = _figure(meter, given.busy_w, "--busy-w", "while students compute", work, seconds)
    return PowerFigures(idle_w, busy_w or _assumed(threads))


def _figure(
    meter: Meter | None,
    given_w: float | None,
    option: str,
    when: str,
    work: Callable[[], object],
    seconds: float,
) -> Figure | None:
    if given_w is not None:
        return Figure(value=given_w, provenance="measured", source=f"given with {option}")
    found_w = None if meter is None else mean_w(meter, work, seconds)
    if meter is None or found_w is None:
        return None
    return Figure(
        value=rounded_figure(found_w), provenance="measured", source=f"{meter.name}, {when}"
    )


def _assumed(threads: int) -> Figure:
    return Figure(
        value=ASSUMED_W_PER_THREAD * threads,
        provenance="assumed",
        source=f"no meter on this machine: {ASSUMED_W_PER_THREAD:g} W for each thread",
    )


def _rest() -> None:
    time.sleep(_REST_S)
