"""Operating points of a board, and the power that it draws at one.

An operating point is a clock and the cores in use, with times and watts: a profile of the board.
Profiles of one board, runtime and precision are its points.  At one point a board that computes
draws on average, over the fixed part of its time and all MACs of its students::

    power_w = compute_mj / compute_ms

The fixed part counts once, however many models there are: nothing promises that those parts of
several models do not run while others compute.  Where layers predict times it is power_busy_w.

Images that come at a rate leave it idle between them.  Over all time it draws on average::

    average_w = rate * busy_mj + idle_w * (1 - rate * busy_ms)        (rate in images per ms)

where an image takes it busy_ms and busy_mj of computing.  The radio is not in it.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from typing import NamedTuple

from profiles.device import (
    DEVICES,
    DeviceProfile,
    End,
    at_end,
    compute_mj,
    compute_ms,
    quantity_value,
    spread_cv,
    without_layers,
)
from profiles.fleet import Board, Fleet, resolve


def operating_points(
    device: DeviceProfile, own: Iterable[DeviceProfile] = ()
) -> tuple[DeviceProfile, ...]:
    """Operating points of a device's board, the quickest clock first, with most cores first.

    `own` are further profiles beside those of the library.  Points that cannot run students are
    left out; a device whose board is not told has itself alone.
    """
    if device.board is None:
        return (device,)
    every = {one.name: one for one in (*_library_points(device.board), *own, device)}
    alike = [
        one
        for one in every.values()
        if one.name == device.name or (one.key[:3] == device.key[:3] and not one.missing_as_board)
    ]
    return tuple(sorted(alike, key=lambda one: (-(one.clock_hz or 0), -one.cores, one.name)))


def computing_w(device: DeviceProfile, macs: int) -> float:
    """Mean power of a board while it computes so many MACs, in W.

    Raises ProfileError where its power is not known.
    """
    if device.knows_layers or device.compute_ms_per_mmac is None:
        return quantity_value(device, "power_busy_w")
    time_ms = compute_ms(device, macs)
    if not time_ms:
        return quantity_value(device, "power_busy_w")
    return compute_mj(device, macs) / time_ms


_MOST_PARTS = 2**16


class PowerSaving(NamedTuple):
    """Power of MACs, and how much less the fixed part draws, in 1e-6 W.

    `long` are the MACs that take as long as the fixed part, in parts of which a MAC has `parts`.
    """

    busy: int
    most: int
    long: int
    parts: int


@lru_cache(maxsize=1024)
def power_saving(device: DeviceProfile) -> PowerSaving | None:
    """Saving of a device whose power grows with MACs; None where it does not."""
    fixed_w, busy_w = device.power_fixed_w, device.power_busy_w
    fixed, rate = device.compute_fixed_ms, device.compute_ms_per_mmac
    if device.knows_layers or not (fixed_w and busy_w and fixed and rate and rate.value):
        return None
    most = math.floor(1e6 * (busy_w.value - fixed_w.value) + 1e-3)
    macs, parts = 1e6 * fixed.value / rate.value, 1
    while macs * parts < 2 * most and parts < _MOST_PARTS:  # so that rounding hides no millionth
        parts *= 2
    busy, long = math.ceil(1e6 * busy_w.value - 1e-3), math.floor(macs * parts)
    return PowerSaving(busy, most, long, parts) if most > 0 and long else None


def whole_power(device: DeviceProfile, macs: int) -> int:
    """Power of a board while it computes so many MACs, in 1e-6 W.

    That of `computing_w`, with M the MACs that take as long as the fixed part::

        power = busy - (busy - fixed) M / (M + macs)

    Rounded up; 0 for no MACs, and where no power is known.
    """
    if not macs or not device.power_known:
        return 0
    saving = power_saving(device)
    if saving is None:
        return math.ceil(1e6 * computing_w(device, macs) - 1e-3)
    return saving.busy - saving.most * saving.long // (saving.long + saving.parts * macs)


def average_power(
    device: DeviceProfile, rate_per_s: float, *, busy_ms: float, busy_mj: float
) -> float:
    """Mean power of a board over time, in W, by what an image costs it.

    A board that cannot keep up computes all the time.  Without `idle_w` it counts computing alone,
    so that the board draws at least this.
    """
    per_ms = rate_per_s / 1000
    if per_ms * busy_ms > 1:
        per_ms = 1 / busy_ms
    idle_w = 0.0 if device.idle_w is None else device.idle_w.value
    return per_ms * busy_mj + idle_w * (1 - per_ms * busy_ms)


def most_macs_within(device: DeviceProfile, power_w: float) -> int | None:
    """Most MACs within a power limit in W; None for any number.

    The fixed part needs less power than MACs do, or as much: more MACs raise the average.  Where it
    needs more, the fixed part alone must keep the limit.  Raises ProfileError where its power is
    not known.
    """
    busy_w = quantity_value(device, "power_busy_w")
    if device.knows_layers or device.compute_ms_per_mmac is None:
        return None if busy_w <= power_w else 0
    fixed_w = quantity_value(device, "power_fixed_w")
    fixed_ms = quantity_value(device, "compute_fixed_ms")
    if max(busy_w, fixed_w if fixed_ms else 0.0) <= power_w:
        return None
    if busy_w <= power_w or fixed_w >= power_w:
        return 0
    spare_mj = (power_w - fixed_w) * fixed_ms
    per_mac_mj = (busy_w - power_w) * quantity_value(device, "compute_ms_per_mmac") / 1e6
    return math.floor(spare_mj / per_mac_mj * (1 + 1e-12)) if per_mac_mj else None


_TIMES = (
    *("compute_fixed_ms", "compute_ms_per_mmac", "message_ms", "sharing_slowdown"),
    *("exchange_ms", "peer_message_ms"),
)
"""Figures of a point by which it is no slower than another one."""


@lru_cache(maxsize=4096)
def replaces(
    one: DeviceProfile, other: DeviceProfile, *, counts_energy: bool, counts_power: bool = False
) -> bool:
    """Whether a point is as good as another one; limits on power apart."""
    pairs = [*zip(_figures(one), _figures(other), strict=True)]
    if counts_energy:
        pairs += zip(_energies(one), _energies(other), strict=True)
    if counts_power:
        pairs += zip(_powers(one), _powers(other), strict=True)
    alike = one.layers == other.layers and _rates(one).keys() == _rates(other).keys()
    return alike and all(mine <= theirs for mine, theirs in pairs)


def _rates(device: DeviceProfile) -> dict[str, float]:
    rates = device.layer_rates
    return {} if rates is None else dict(rates.ms_per_unit)


def _figures(device: DeviceProfile) -> Iterator[float]:
    """Times of a point, less being better; infinite where one is not told."""
    for name in _TIMES:
        quantity = getattr(device, name)
        yield float("inf") if quantity is None else quantity.value
    yield spread_cv(device)
    yield from (ms for _, ms in sorted(_rates(device).items()))


def _energies(device: DeviceProfile) -> Iterator[float]:
    """Energy of the fixed part and of each rate, above nothing and above idle."""
    idle_w = 0.0 if device.idle_w is None else device.idle_w.value
    for rest_w in (0.0, idle_w):
        for power, time in (
            (device.power_fixed_w, device.compute_fixed_ms),
            (device.power_busy_w, device.compute_ms_per_mmac),
        ):
            yield 0.0 if power is None or time is None else (power.value - rest_w) * time.value
        busy_w = device.power_busy_w.value if device.power_busy_w else 0.0
        yield from ((busy_w - rest_w) * ms for _, ms in sorted(_rates(device).items()))
    yield idle_w


def _powers(device: DeviceProfile) -> Iterator[float]:
    """Power of MACs and of the fixed part; minus the MACs as long as that.

    The more MACs take as long, the less further ones raise the power of all.
    """
    busy_w, fixed_w = device.power_busy_w, device.power_fixed_w
    fixed, rate = device.compute_fixed_ms, device.compute_ms_per_mmac
    timed = fixed is not None and rate is not None and rate.value > 0
    yield 0.0 if busy_w is None else busy_w.value
    yield 0.0 if fixed_w is None else fixed_w.value
    yield -fixed.value / rate.value if timed and fixed and rate else 0.0


def point_text(device: DeviceProfile) -> str:
    """Name of a point for people: its clock and cores, where they are told."""
    if device.clock_hz is None:
        return device.name
    clock = (
        f"{device.clock_hz / 1e9:g} GHz"
        if device.clock_hz >= 1e9
        else (f"{device.clock_hz / 1e6:g} MHz")
    )
    return f"{clock}, {device.cores} core{'s' * (device.cores != 1)}"


@cache
def _library_points(board: str) -> tuple[DeviceProfile, ...]:
    """Profiles of the library that are of a board."""
    told = json.dumps({"board": board})[1:-1]
    files = (DEVICES.get(name) for name in DEVICES.names())
    lines = (DEVICES.get(name) for name in DEVICES.lines_with(told))
    return tuple(one for one in (*files, *lines) if one.board == board)


@lru_cache(maxsize=64)
def resolved(fleet: Fleet) -> tuple[DeviceProfile, tuple[Board, ...]]:
    """Host and boards of a fleet, as `profiles.fleet.resolve`, remembered."""
    return resolve(fleet)


@lru_cache(maxsize=64)
def board_points(fleet: Fleet) -> tuple[tuple[Board, ...], ...]:
    """Each board of a fleet at each operating point that it may run at.

    A board whose point is named has that one.  Raises ProfileError as `profiles.fleet.resolve`.
    """
    _, boards = resolved(fleet)
    return tuple(
        tuple(replace(board, device=one) for one in operating_points(board.device, fleet.devices))
        if row.points == "any"
        else (board,)
        for row, board in zip(fleet.boards, boards, strict=True)
    )


@lru_cache(maxsize=64)
def timed_boards(fleet: Fleet, end: End, *, by_layer: bool) -> tuple[Board, ...]:
    """Boards of a fleet with times at an interval's end, or by FLOPs."""
    return _timed(resolved(fleet)[1], end, by_layer)


@lru_cache(maxsize=64)
def timed_points(fleet: Fleet, end: End, *, by_layer: bool) -> tuple[tuple[Board, ...], ...]:
    """Each board at each of its operating points, with such times."""
    if all(row.points == "named" for row in fleet.boards):
        return tuple((board,) for board in timed_boards(fleet, end, by_layer=by_layer))
    return tuple(_timed(points, end, by_layer) for points in board_points(fleet))


def _timed(boards: Sequence[Board], end: End, by_layer: bool) -> tuple[Board, ...]:
    found: dict[DeviceProfile, DeviceProfile] = {}
    for device in dict.fromkeys(board.device for board in boards):
        found[device] = at_end(device, end) if by_layer else without_layers(device)
    return tuple(replace(board, device=found[board.device]) for board in boards)
