"""Duty of boards at a rate of images: power and battery life.

A board that works computes busy_ms and busy_mj for each image, and is idle for the rest of the time
from image to image (`profiles.operating_point.average_power`)::

    average_w = rate * busy_mj + idle_w * (1 - rate * busy_ms)        (rate in images per ms)
    battery_h = battery_wh / average_w

The radio is not counted, nor a board without students.  Models count the same in mJ from image to
image, as if of the smallest battery, so that batteries of all sizes compare in whole numbers::

    drain = smallest_wh / battery_wh * (idle_w * period_ms + busy_mj - idle_w * busy_ms)
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from pydantic import Field

from nonn_common.document import Record
from nonn_common.errors import ProfileError
from planner.problem.budgets import BoardBudget
from planner.problem.goals import Requirement
from profiles.device import DeviceProfile
from profiles.fleet import Board
from profiles.operating_point import average_power

LEAST_PER_S, MOST_PER_S = 1e-4, 1e6
"""Rates that models count exactly: from an image in three hours."""


class BoardDuty(Record):
    """Duty of one board that works."""

    board: str = Field(description="Name of the board.")
    busy_pct: float = Field(ge=0, description="Part of all time in which it computes, in percent.")
    average_w: float | None = Field(
        ge=0,
        description="Mean power, computing and idle, without the radio; null where no power is "
        "known of its device.",
    )
    idle_known: bool = Field(
        description="Whether its device tells idle_w; else average_w is of computing alone, and "
        "the board draws more."
    )
    battery_h: float | None = Field(
        ge=0, description="Hours that its battery lasts; null without a battery or power."
    )


class Duty(Record):
    """Duty of all boards that work, at the rate of the question."""

    rate_per_s: float = Field(gt=0, description="Images per second.")
    boards: tuple[BoardDuty, ...] = Field(description="Each board that works.")
    average_w: float | None = Field(
        ge=0, description="Mean power of these boards together; null where one's is not known."
    )
    battery_h: float | None = Field(
        ge=0, description="Hours of the battery that is empty first; null without one."
    )

    @classmethod
    def of(
        cls,
        rate_per_s: float,
        boards: Iterable[Board],
        budgets: Sequence[BoardBudget],
        spent: Mapping[str, tuple[float, float]],
    ) -> Self:
        """Duty of boards that spend so many ms and mJ of computing on an image."""
        batteries = {row.board: row.battery_wh for row in budgets}
        rows = tuple(
            _board_duty(rate_per_s, board, batteries[board.name], *spent[board.name])
            for board in boards
            if board.name in spent
        )
        drawn = [row.average_w for row in rows if row.average_w is not None]
        return cls(
            rate_per_s=rate_per_s,
            boards=rows,
            average_w=sum(drawn) if len(drawn) == len(rows) else None,
            battery_h=min(
                (row.battery_h for row in rows if row.battery_h is not None), default=None
            ),
        )


def _board_duty(
    rate_per_s: float, board: Board, battery_wh: float | None, busy_ms: float, busy_mj: float
) -> BoardDuty:
    device = board.device
    drawn_w = (
        average_power(device, rate_per_s, busy_ms=busy_ms, busy_mj=busy_mj)
        if device.power_known
        else None
    )
    return BoardDuty(
        board=board.name,
        busy_pct=min(100.0, rate_per_s * busy_ms / 10),
        average_w=drawn_w,
        idle_known=device.idle_w is not None,
        battery_h=battery_wh / drawn_w if battery_wh and drawn_w else None,
    )


@dataclass(frozen=True, slots=True)
class BatteryDrain:
    """Drain of a board's battery from image to image, as of the smallest one.

    Of a board's own energy, of which average power is told, the share is 1.
    """

    share: float
    idle_w: float
    period_ms: float

    @property
    def resting_mj(self) -> float:
        """Part of a board that computes nothing."""
        return self.share * self.idle_w * self.period_ms

    def computing_mj(self, busy_ms: Any, busy_mj: Any) -> Any:
        """Further part of computing, beyond that of resting."""
        return self.share * (busy_mj - self.idle_w * busy_ms)


def battery_drain(
    rate_per_s: float | None, budgets: Sequence[BoardBudget], site: int, device: DeviceProfile
) -> BatteryDrain | None:
    """Drain of a board's battery; None unless all boards have one, and images a rate."""
    smallest_wh, own_wh = smallest_battery_wh(budgets), budgets[site].battery_wh
    if smallest_wh is None or own_wh is None:
        return None
    drain = cycle_drain(rate_per_s, device)
    return None if drain is None else replace(drain, share=smallest_wh / own_wh)


def cycle_drain(rate_per_s: float | None, device: DeviceProfile) -> BatteryDrain | None:
    """Energy of a board from image to image; None without a rate."""
    if rate_per_s is None:
        return None
    idle_w = 0.0 if device.idle_w is None else device.idle_w.value
    return BatteryDrain(1.0, idle_w, 1000 / rate_per_s)


def smallest_battery_wh(budgets: Sequence[BoardBudget]) -> float | None:
    """Smallest battery; None unless all boards have one."""
    sizes = [row.battery_wh for row in budgets if row.battery_wh is not None]
    return min(sizes) if sizes and len(sizes) == len(budgets) else None


def check_power(
    points: Sequence[Sequence[Board]],
    budgets: Sequence[BoardBudget],
    asked: Sequence[bool],
    *,
    added: bool,
) -> None:
    """Check that power is known of each board where it counts; raises ProfileError.

    Where powers of boards are `added` up, more MACs must not draw less.
    """
    for board, budget, counts in zip(points, budgets, asked, strict=True):
        limited = added or budget.power_w is not None or budget.average_w is not None
        if (counts or limited) and not any(one.device.power_known for one in board):
            raise ProfileError(
                f"{'power' if limited else 'energy'} is asked for, and the power of a board is "
                "not known",
                where=f"board {board[0].name}",
                found=f"device {board[0].device.name} without power",
                fix="measure it (nonn-plan profile), give power_fixed_w and power_busy_w in a "
                "profile of your own, or ask for no energy and no power",
            )
    for device in (one.device for board in points if added for one in board):
        fixed_w, busy_w = device.power_fixed_w, device.power_busy_w
        timed = device.compute_fixed_ms and device.compute_fixed_ms.value
        if fixed_w and busy_w and timed and fixed_w.value > busy_w.value:
            raise ProfileError(
                "fleet-power is asked for, and a device draws less the more it computes",
                where=f"device {device.name}",
                found=f"power_fixed_w {fixed_w.value:g}, power_busy_w {busy_w.value:g}",
                fix="measure its power again (nonn-plan profile), or limit each board (--power)",
            )


def check_duty(
    rate_per_s: float | None,
    budgets: Sequence[BoardBudget],
    requirements: Sequence[Requirement],
    lives: Sequence[Sequence[Board]],
    averaged: Sequence[Sequence[Board]],
) -> None:
    """Check a rate, the requirement that it is, and batteries.

    `lives` are boards at their operating points whose battery life counts, `averaged` those whose
    average power does.  Raises ValueError, and ProfileError for a board that draws less as it
    computes than idle.
    """
    if rate_per_s is None:
        if lives or any(row.battery_wh is not None for row in budgets):
            raise ValueError("battery life needs the rate of images: give rate_per_s (--rate 5/s)")
        if averaged:
            raise ValueError("average power needs the rate of images: give rate_per_s (--rate 5/s)")
        return
    if sustained(requirements, rate_per_s) != tuple(requirements):
        raise ValueError(f"rate_per_s needs the requirement throughput >= {rate_per_s:g}")
    without = [row.board for row in budgets if row.battery_wh is None]
    if lives and without:
        raise ValueError(
            "battery needs the battery of every board, battery_wh (--battery 10Wh); none is told "
            f"of {', '.join(without)}"
        )
    for board in (one for row in (*lives, *averaged) for one in row):
        device = board.device
        powers = [device.power_busy_w, device.power_fixed_w if device.compute_fixed_ms else None]
        least_w = min((one.value for one in powers if one is not None), default=0.0)
        if device.power_known and device.idle_w is not None and device.idle_w.value > least_w:
            raise ProfileError(
                f"{'battery' if lives else 'average power'} is asked for, and a device draws less "
                "as it computes than idle",
                where=f"board {board.name}",
                found=f"device {device.name}: idle_w {device.idle_w.value:g}, {least_w:g} W",
                fix="measure its power again (nonn-plan profile), or ask for energy",
            )


def sustained(
    requirements: Sequence[Requirement], rate_per_s: float | None
) -> tuple[Requirement, ...]:
    """Requirements, and that of a throughput of at least the rate."""
    told = next((one for one in requirements if one.objective == "throughput"), None)
    if rate_per_s is None or (told is not None and told.bound >= rate_per_s):
        return tuple(requirements)
    others = tuple(one for one in requirements if one is not told)
    return (*others, Requirement(objective="throughput", bound=rate_per_s))
