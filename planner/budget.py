"""Budgets: what the students of each board may use together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from profiles.document import Record
from profiles.errors import InputError
from profiles.fleet import Fleet, resolve
from profiles.units import LARGEST, format_bytes, format_flops

BudgetName = Literal["memory_bytes", "macs", "busy_ms", "energy_mj"]


@dataclass(frozen=True, slots=True)
class Shown:
    """How a budget is called, and how a quantity of it is written."""

    noun: str
    text: Callable[[float], str]


BUDGETS: dict[BudgetName, Shown] = {
    "memory_bytes": Shown("memory", lambda size: format_bytes(int(size))),
    "macs": Shown("FLOP", lambda macs: format_flops(int(macs))),
    "busy_ms": Shown("time", lambda time_ms: f"{time_ms:g} ms"),
    "energy_mj": Shown("energy", lambda energy_mj: f"{energy_mj:g} mJ"),
}


class BoardBudget(Record):
    """What the students of one board may use together; null is no limit."""

    board: str = Field(min_length=1, description="Name of the board in the fleet.")
    memory_bytes: int = Field(
        gt=0,
        le=LARGEST,
        description="Bytes of weights, peak activations and runtime, B_mem of A, Eq. 2.",
    )
    runtime_bytes: int = Field(
        default=0, ge=0, le=LARGEST, description="Bytes that the runtime takes of memory_bytes."
    )
    macs: int | None = Field(
        default=None, gt=0, le=LARGEST, description="MACs per image, B_FLOP of A, Eq. 2."
    )
    busy_ms: float | None = Field(
        default=None, gt=0, le=1e9, description="Time that the board may compute per image, in ms."
    )
    energy_mj: float | None = Field(
        default=None, gt=0, le=1e9, description="Energy it may compute with per image, in mJ."
    )

    @property
    def room_bytes(self) -> int:
        """What the runtime leaves to weights and activations."""
        return max(0, self.memory_bytes - self.runtime_bytes)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits as people give them, for all boards or for one; None says nothing."""

    memory_bytes: int | None = None
    runtime_bytes: int | None = None
    macs: int | None = None
    busy_ms: float | None = None
    energy_mj: float | None = None

    def over(self, other: "Limits") -> "Limits":
        """Return these limits, and the other's where these say nothing."""
        return Limits(
            self.memory_bytes or other.memory_bytes,
            other.runtime_bytes if self.runtime_bytes is None else self.runtime_bytes,
            self.macs or other.macs,
            self.busy_ms or other.busy_ms,
            self.energy_mj or other.energy_mj,
        )


NO_LIMITS = Limits()


def budgets(
    fleet: Fleet, everywhere: Limits = NO_LIMITS, own: Mapping[str, Limits] | None = None
) -> tuple[BoardBudget, ...]:
    """Return one budget per board of `fleet`: its own limits, or else those of everywhere.

    Where nothing is said, memory is what the device may use (`usable_bytes`), the runtime takes
    nothing of it, and nothing else is limited.  Raises InputError for an unknown board.
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
        rows.append(
            BoardBudget(
                board=board.name,
                memory_bytes=limits.memory_bytes or board.device.usable_bytes,
                runtime_bytes=limits.runtime_bytes or 0,
                macs=limits.macs,
                busy_ms=limits.busy_ms,
                energy_mj=limits.energy_mj,
            )
        )
    return tuple(rows)
