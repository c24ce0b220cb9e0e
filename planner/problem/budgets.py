"""Budgets of boards: the resources that they limit, and how students share them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from typing import Literal

from pydantic import Field

from nonn_common.document import Record
from nonn_common.errors import InputError
from nonn_common.units import FLOPS_PER_MAC, LARGEST, format_bytes, format_flops
from profiles.device import DeviceProfile
from profiles.fleet import Board, Fleet, resolve
from profiles.operating_point import most_macs_within

BudgetName = Literal["memory_bytes", "macs", "busy_ms", "energy_mj", "power_w"]
Resource = Literal["params", "memory_bytes", "macs", "value_bytes", "busy", "energy"]
"""Cost of a board's students together, in solver units."""

MILLIONTHS = 10**6
"""Solver units of a ms and of a mJ."""


@dataclass(frozen=True, slots=True)
class LimitedResource:
    """A resource that boards have a budget of: a row of `BUDGETS`.

    `figure` is its use in solver units, of which the budget's unit has `units`; `together` says how
    students of one board combine; `allowance` is the budget's field of what the runtime takes;
    `at_device` turns a budget of another quantity into a limit of the figure on a device.
    Time and energy are limited where they are asked for alone, the others are counted always.
    """

    noun: str
    text: Callable[[float], str]
    figure: Resource
    units: int = 1
    together: Literal["sum", "largest"] = "sum"
    allowance: str | None = None
    at_device: Callable[[DeviceProfile, float], int | None] | None = None

    @property
    def whole(self) -> bool:
        """Whether it is counted, exactly, in whole numbers."""
        return self.units == 1

    def limit_at(self, device: DeviceProfile, room: float | None) -> int | None:
        """Limit of the figure on a device with so much room; None is no limit."""
        if room is None or self.at_device is not None:
            return self.at_device(device, room) if self.at_device and room is not None else None
        return math.floor(room * self.units + 1e-3)


BUDGETS: Mapping[BudgetName, LimitedResource] = {
    "memory_bytes": LimitedResource(
        "memory",
        lambda size: format_bytes(int(size)),
        "memory_bytes",
        allowance="runtime_bytes",
    ),
    "macs": LimitedResource("FLOP", lambda macs: format_flops(int(macs)), "macs"),
    "busy_ms": LimitedResource("time", lambda ms: f"{ms:g} ms", "busy", units=MILLIONTHS),
    "energy_mj": LimitedResource("energy", lambda mj: f"{mj:g} mJ", "energy", units=MILLIONTHS),
    "power_w": LimitedResource(
        "power", lambda w: f"{w:g} W", "macs", units=MILLIONTHS, at_device=most_macs_within
    ),
}
"""Resources of boards; a further one is a row here, a field of budgets and loads, and its cost."""

LIMITED: tuple[BudgetName, ...] = tuple(BUDGETS)


_SIGNIFICANT_DIGITS = 6


def format_budget(budget: BudgetName, value: float) -> str:
    """Write a budget, rounded up to the digits that people read."""
    if not BUDGETS[budget].whole:
        return BUDGETS[budget].text(round_loosely(value))
    scale = FLOPS_PER_MAC if budget == "macs" else 1
    return BUDGETS[budget].text(_to_tenths(scale * round(value)) // scale)


def round_loosely(value: float, *, down: bool = False, digits: int = _SIGNIFICANT_DIGITS) -> float:
    """Round up, or down, to six digits; what has fewer stays."""
    near = float(f"{value:.12g}")
    context = Context(prec=digits, rounding=ROUND_FLOOR if down else ROUND_CEILING)
    return float(context.create_decimal(repr(near)))


def _to_tenths(quantity: int) -> int:
    """Round up to a tenth of the prefix (thousand, million ...) that is written."""
    step = 10 ** (3 * ((len(str(quantity)) - 1) // 3) - 1) if quantity >= 1000 else 1
    return -(-quantity // step) * step


class BoardBudget(Record):
    """Budgets of the students of one board together; null is no limit."""

    board: str = Field(min_length=1, description="Name of the board in the fleet.")
    memory_bytes: int = Field(
        gt=0,
        le=LARGEST,
        description="Bytes of weights, peak activations and runtime, B_mem of Eq. 2.",
    )
    runtime_bytes: int = Field(
        default=0, ge=0, le=LARGEST, description="Bytes that the runtime takes of memory_bytes."
    )
    asked_bytes: int | None = Field(
        default=None, gt=0, description="Budget asked for, where the device has less memory."
    )
    macs: int | None = Field(
        default=None, gt=0, le=LARGEST, description="MACs per image, B_FLOP of Eq. 2."
    )
    busy_ms: float | None = Field(
        default=None, gt=0, le=1e9, description="Time that the board may compute per image, in ms."
    )
    energy_mj: float | None = Field(
        default=None, gt=0, le=1e9, description="Energy it may compute with per image, in mJ."
    )
    power_w: float | None = Field(
        default=None,
        gt=0,
        le=1e9,
        description="Power it may draw while it computes, in W: energy over time of an image's "
        "computing, its fixed part once.",
    )

    @property
    def room_bytes(self) -> int:
        """Bytes that the runtime leaves to weights and activations."""
        return max(0, self.memory_bytes - self.runtime_bytes)

    def limit(self, name: BudgetName) -> float | None:
        """A budget, what the runtime takes of it included; None is no limit."""
        found: float | None = getattr(self, name)
        return found

    def allowance(self, name: BudgetName) -> int:
        """Part of a budget that the runtime takes."""
        field = BUDGETS[name].allowance
        return getattr(self, field) if field else 0

    def room(self, name: BudgetName) -> float | None:
        """Part of a budget that the runtime leaves to students; None is no limit."""
        limit = self.limit(name)
        return None if limit is None else max(0, limit - self.allowance(name))

    def exceeded(self, uses: Mapping[BudgetName, float | None]) -> tuple[BudgetName, ...]:
        """Budgets whose room is less than what students use; None is an unknown use."""
        rooms = ((name, self.room(name), used) for name, used in uses.items())
        return tuple(
            name
            for name, room, used in rooms
            if room is not None and used is not None and used > room
        )


@dataclass(frozen=True, slots=True)
class BudgetLimits:
    """Limits as people give them, for all boards or for one; None says nothing."""

    memory_bytes: int | None = None
    runtime_bytes: int | None = None
    macs: int | None = None
    busy_ms: float | None = None
    energy_mj: float | None = None
    power_w: float | None = None

    def over(self, other: "BudgetLimits") -> "BudgetLimits":
        """Return these limits, and the other's where these say nothing."""
        return BudgetLimits(
            self.memory_bytes or other.memory_bytes,
            other.runtime_bytes if self.runtime_bytes is None else self.runtime_bytes,
            self.macs or other.macs,
            self.busy_ms or other.busy_ms,
            self.energy_mj or other.energy_mj,
            self.power_w or other.power_w,
        )


NO_LIMITS = BudgetLimits()


def board_budgets(
    fleet: Fleet,
    everywhere: BudgetLimits = NO_LIMITS,
    own: Mapping[str, BudgetLimits] | None = None,
) -> tuple[BoardBudget, ...]:
    """Return one budget per board of `fleet`: its own limits, or else those of everywhere.

    Where nothing is said, memory is what the device may use (`usable_bytes`), the runtime takes
    nothing of it, and nothing else is limited.  No budget is more than the memory of the device,
    where that is told.  Raises InputError for an unknown board.
    """
    own = own or {}
    _, boards = resolve(fleet)
    names = [board.name for board in boards]
    if unknown := set(own) - set(names):
        raise InputError(
            "no such board in the fleet",
            where=f"fleet {fleet.name}",
            found=min(unknown),
            allowed=", ".join(names),
        )
    rows = []
    for board in boards:
        limits = own.get(board.name, NO_LIMITS).over(everywhere)
        asked_bytes = _memory_bytes(board, limits, f"fleet {fleet.name}: {board.name}")
        memory_bytes = min(asked_bytes, board.device.ram_bytes or asked_bytes)
        rows.append(
            BoardBudget(
                board=board.name,
                memory_bytes=memory_bytes,
                asked_bytes=asked_bytes if asked_bytes > memory_bytes else None,
                runtime_bytes=limits.runtime_bytes or 0,
                macs=limits.macs,
                busy_ms=limits.busy_ms,
                energy_mj=limits.energy_mj,
                power_w=limits.power_w,
            )
        )
    return tuple(rows)


def memory_notes(budgets: Sequence[BoardBudget]) -> tuple[str, ...]:
    """Sentences on budgets of more memory than their boards have, alike ones in one."""
    alike: dict[tuple[int, int], list[str]] = {}
    for row in budgets:
        if row.asked_bytes is not None:
            alike.setdefault((row.asked_bytes, row.memory_bytes), []).append(row.board)
    return tuple(
        f"planned with {format_bytes(has)} on {', '.join(boards)}, all memory that there is, in "
        f"place of the {format_bytes(asked)} asked for"
        for (asked, has), boards in alike.items()
    )


def _memory_bytes(board: Board, limits: BudgetLimits, where: str) -> int:
    """Memory budget of a board, in bytes; raises InputError where nothing tells any."""
    found = limits.memory_bytes or board.device.usable_bytes
    if found is None:
        raise InputError(
            "the memory of this board is not known",
            where=where,
            found=f"no ram_bytes in device {board.device.name}",
            fix="give its budget, such as --memory 500KB",
        )
    return found
