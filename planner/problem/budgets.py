"""Budgets of boards: the resources that they limit, and how students share them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from typing import Literal, Self

from pydantic import Field, model_validator

from nonn_common.document import Record
from nonn_common.errors import InputError
from nonn_common.units import FLOPS_PER_MAC, LARGEST, format_bytes, format_flops
from profiles.device import DeviceProfile
from profiles.fleet import Board, Fleet, resolve
from profiles.operating_point import most_macs_within

BudgetName = Literal[
    "memory_bytes",
    "flash_bytes",
    "ram_bytes",
    "macs",
    "busy_ms",
    "energy_mj",
    "power_w",
    "average_w",
]
Resource = Literal[
    "params",
    "memory_bytes",
    "flash_bytes",
    "ram_bytes",
    "macs",
    "value_bytes",
    "busy",
    "energy",
    "drain",
    "cycle",
    "power",
]
"""Cost of a board's students together, in solver units.

`cycle` is its energy from image to image, rest included, `drain` the same as of the smallest
battery, and `power` what it draws while it computes, in millionths of a W.
"""

MILLIONTHS = 10**6
"""Solver units of a ms and of a mJ."""


@dataclass(frozen=True, slots=True)
class LimitedResource:
    """A resource that boards have a budget of: a row of `BUDGETS`.

    `figure` is its use in solver units, of which the budget's unit has `units`; `together` says how
    students of one board combine; `allowance` is the budget's field of what the runtime takes;
    `at_device` turns a budget of another quantity into a limit of the figure on a device;
    `per_image` ones are a power, their figure the energy from image to image.
    Time and energy are limited where they are asked for alone, the others are counted always.
    """

    noun: str
    text: Callable[[float], str]
    figure: Resource
    units: int = 1
    together: Literal["sum", "largest"] = "sum"
    allowance: str | None = None
    at_device: Callable[[DeviceProfile, float], int | None] | None = None
    per_image: bool = False

    @property
    def whole(self) -> bool:
        """Whether it is counted, exactly, in whole numbers."""
        return self.units == 1

    def limit_at(
        self, device: DeviceProfile, room: float | None, rate_per_s: float | None = None
    ) -> int | None:
        """Limit of the figure on a device with so much room; None is no limit."""
        if room is None or self.at_device is not None:
            return self.at_device(device, room) if self.at_device and room is not None else None
        return math.floor(room * self.units_at(rate_per_s) + 1e-3)

    def units_at(self, rate_per_s: float | None) -> float:
        """Solver units of the budget's unit, at a rate of images."""
        return self.units * 1000 / (rate_per_s or 1.0) if self.per_image else self.units


def _bytes_text(size: float) -> str:
    return format_bytes(int(size))


BUDGETS: Mapping[BudgetName, LimitedResource] = {
    "memory_bytes": LimitedResource(
        "memory", _bytes_text, "memory_bytes", allowance="runtime_bytes"
    ),
    "flash_bytes": LimitedResource(
        "flash", _bytes_text, "flash_bytes", allowance="runtime_flash_bytes"
    ),
    "ram_bytes": LimitedResource(
        "RAM", _bytes_text, "ram_bytes", together="largest", allowance="runtime_ram_bytes"
    ),
    "macs": LimitedResource("FLOP", lambda macs: format_flops(int(macs)), "macs"),
    "busy_ms": LimitedResource("time", lambda ms: f"{ms:g} ms", "busy", units=MILLIONTHS),
    "energy_mj": LimitedResource("energy", lambda mj: f"{mj:g} mJ", "energy", units=MILLIONTHS),
    "power_w": LimitedResource(
        "power", lambda w: f"{w:g} W", "macs", units=MILLIONTHS, at_device=most_macs_within
    ),
    "average_w": LimitedResource(
        "average power", lambda w: f"{w:g} W", "cycle", units=MILLIONTHS, per_image=True
    ),
}
"""Resources of boards; a further one is a row here, a field of budgets and loads, and its cost."""

LIMITED: tuple[BudgetName, ...] = tuple(BUDGETS)
IN_TURN = frozenset(row.figure for row in BUDGETS.values() if row.together == "largest")
"""Resources that models use one after the other, so that the largest use of them counts."""


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
    memory_bytes: int | None = Field(
        default=None,
        gt=0,
        le=LARGEST,
        description="Bytes of weights, peak activations and runtime together, B_mem of Eq. 2; null "
        "where flash_bytes and ram_bytes alone limit them.",
    )
    runtime_bytes: int = Field(
        default=0, ge=0, le=LARGEST, description="Bytes that the runtime takes of memory_bytes."
    )
    asked_bytes: int | None = Field(
        default=None, gt=0, description="Budget asked for, where the device has less memory."
    )
    flash_bytes: int | None = Field(
        default=None,
        gt=0,
        le=LARGEST,
        description="Bytes of weights and runtime, where the device keeps them apart from RAM; "
        "null: as memory_bytes says.",
    )
    ram_bytes: int | None = Field(
        default=None,
        gt=0,
        le=LARGEST,
        description="Bytes of the peak activations of the largest model, models running one after "
        "the other, and of the runtime, where flash is apart; null: as memory_bytes says.",
    )
    runtime_flash_bytes: int = Field(
        default=0, ge=0, le=LARGEST, description="Bytes that the runtime takes of flash_bytes."
    )
    runtime_ram_bytes: int = Field(
        default=0, ge=0, le=LARGEST, description="Bytes that the runtime takes of ram_bytes."
    )
    asked_flash_bytes: int | None = Field(
        default=None, gt=0, description="Flash asked for, where the device has less."
    )
    asked_ram_bytes: int | None = Field(
        default=None, gt=0, description="RAM asked for, where the device has less."
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
    average_w: float | None = Field(
        default=None,
        gt=0,
        le=1e9,
        description="Power it may draw on average at the question's rate, idle too, in W.",
    )
    battery_wh: float | None = Field(
        default=None,
        gt=0,
        le=1e9,
        description="What its battery holds, in Wh, for the hours that it lasts at the question's "
        "rate; null without a battery.",
    )

    @model_validator(mode="after")
    def _memory_is_limited(self) -> Self:
        if self.memory_bytes is None and (self.flash_bytes is None or self.ram_bytes is None):
            raise ValueError("memory_bytes is missing, or flash_bytes and ram_bytes are")
        return self

    @property
    def size_bytes(self) -> int:
        """Bytes of its memories together, what the runtime takes of them included."""
        apart = (self.flash_bytes or 0) + (self.ram_bytes or 0)
        return apart if self.memory_bytes is None else self.memory_bytes

    def limit(self, name: BudgetName) -> float | None:
        """A budget, what the runtime takes of it included; None is no limit."""
        found: float | None = getattr(self, name)
        return found

    def allowance(self, name: BudgetName) -> int:
        """Part of a budget that the runtime takes."""
        field = BUDGETS[name].allowance
        return getattr(self, field) if field else 0

    def cut(self, name: BudgetName) -> bool:
        """Whether more was asked for than the device has."""
        return getattr(self, f"asked_{name.removeprefix('memory_')}", None) is not None

    def room(self, name: BudgetName) -> float | None:
        """Part of a budget that the runtime leaves to students; None is no limit."""
        limit = self.limit(name)
        return None if limit is None else max(0, limit - self.allowance(name))

    def exceeded(self, uses: Mapping[BudgetName, float | None]) -> tuple[BudgetName, ...]:
        """Budgets whose room is less than what students use; None is an unknown use."""
        return tuple(
            name
            for name, used in uses.items()
            if used is not None and (room := self.room(name)) is not None and used > room
        )


@dataclass(frozen=True, slots=True)
class BudgetLimits:
    """Limits as people give them, for all boards or for one; None says nothing.

    What the runtime takes of flash and of RAM is `runtime_bytes` of each, unless it is told apart.
    """

    memory_bytes: int | None = None
    runtime_bytes: int | None = None
    macs: int | None = None
    busy_ms: float | None = None
    energy_mj: float | None = None
    power_w: float | None = None
    average_w: float | None = None
    battery_wh: float | None = None
    flash_bytes: int | None = None
    ram_bytes: int | None = None
    runtime_flash_bytes: int | None = None
    runtime_ram_bytes: int | None = None

    def over(self, other: "BudgetLimits") -> "BudgetLimits":
        """Return these limits, and the other's where these say nothing."""
        said = {name: value for name, value in asdict(self).items() if value is not None}
        if "runtime_bytes" in said:  # of this board in particular, so of each of its memories
            other = replace(other, runtime_flash_bytes=None, runtime_ram_bytes=None)
        return replace(other, **said)


NO_LIMITS = BudgetLimits()


def board_budgets(
    fleet: Fleet,
    everywhere: BudgetLimits = NO_LIMITS,
    own: Mapping[str, BudgetLimits] | None = None,
) -> tuple[BoardBudget, ...]:
    """Return one budget per board of `fleet`: its own limits, or else those of everywhere.

    Where nothing is said, memory is what the device may use (`usable_bytes`), or its flash and its
    RAM where they are apart, the runtime takes nothing of it, and nothing else is limited.  No
    budget is more than the memory of the device, where that is told.  Limits of flash and RAM that
    are said of everywhere are of the boards that have them apart.  Raises InputError for an unknown
    board, and where no board, or not the one that is named, has flash apart.
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
    _check_apart(everywhere, boards, f"fleet {fleet.name}")
    for board in boards:
        _check_apart(own.get(board.name, NO_LIMITS), [board], f"fleet {fleet.name}")
    return tuple(
        _budget(board, own.get(board.name, NO_LIMITS).over(everywhere), f"fleet {fleet.name}")
        for board in boards
    )


def _check_apart(limits: BudgetLimits, boards: Sequence[Board], where: str) -> None:
    """Check that a board has flash and RAM apart where they are limited; raises InputError."""
    apart = [board.name for board in boards if board.device.flash_bytes is not None]
    if limits.flash_bytes is limits.ram_bytes is None or apart:
        return
    raise InputError(
        "flash and RAM are not apart",
        where=where,
        found=", ".join(f"{b.name}: {b.device.name} with one memory" for b in boards),
        fix="in place of --flash and --ram give one memory, such as --memory 500KB, or take a "
        "device with flash_bytes and ram_bytes",
    )


def _budget(board: Board, limits: BudgetLimits, where: str) -> BoardBudget:
    """Budget of one board; raises InputError where nothing tells its memory."""
    device = board.device
    sizes: dict[str, tuple[int | None, int | None]]
    if device.flash_bytes is None or device.ram_bytes is None:
        asked_bytes = _memory_bytes(board, limits, f"{where}: {board.name}")
        sizes = {"memory": (asked_bytes, device.ram_bytes)}
    else:
        sizes = {
            "memory": (limits.memory_bytes or device.usable_bytes, None),
            "flash": (limits.flash_bytes or device.flash_bytes, device.flash_bytes),
            "ram": (limits.ram_bytes or device.ram_bytes, device.ram_bytes),
        }
    every = limits.runtime_bytes or 0
    runtimes = {
        "memory": every,
        "flash": every if limits.runtime_flash_bytes is None else limits.runtime_flash_bytes,
        "ram": every if limits.runtime_ram_bytes is None else limits.runtime_ram_bytes,
    }
    found: dict[str, float | None] = {}
    for name, (asked, most) in sizes.items():
        cut = asked is not None and most is not None and asked > most
        part = "" if name == "memory" else f"{name}_"
        found |= {f"{name}_bytes": most if cut else asked}
        found |= {f"asked_{part}bytes": asked if cut else None}
        found |= {f"runtime_{part}bytes": 0 if asked is None else runtimes[name]}
    others = ("macs", "busy_ms", "energy_mj", "power_w", "average_w", "battery_wh")
    found |= {name: getattr(limits, name) for name in others}
    return BoardBudget.model_validate({"board": board.name, **found})


def memory_notes(budgets: Sequence[BoardBudget]) -> tuple[str, ...]:
    """Sentences on budgets of more memory than their boards have, alike ones in one."""
    alike: dict[tuple[str, int, int], list[str]] = {}
    for row in budgets:
        for noun, asked, has in (
            ("memory", row.asked_bytes, row.memory_bytes),
            ("flash", row.asked_flash_bytes, row.flash_bytes),
            ("RAM", row.asked_ram_bytes, row.ram_bytes),
        ):
            if asked is not None and has is not None:
                alike.setdefault((noun, asked, has), []).append(row.board)
    return tuple(
        f"planned with {format_bytes(has)} on {', '.join(boards)}, all {noun} that there is, in "
        f"place of the {format_bytes(asked)} asked for"
        for (noun, asked, has), boards in alike.items()
    )


def one_memory_notes(budgets: Sequence[BoardBudget]) -> tuple[str, ...]:
    """Sentence on boards that limits of flash and RAM of every board do not reach."""
    boards = ", ".join(row.board for row in budgets if row.flash_bytes is None)
    said = f"--flash and --ram say nothing of {boards}: one memory has weights and activations"
    return (f"{said}, and --memory limits it",) if boards else ()


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
