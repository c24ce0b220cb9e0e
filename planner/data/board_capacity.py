"""Capacity of a board: what one plan may put on it."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from operator import attrgetter
from typing import Any

from planner.data.modes import (
    UNITS_PER_MJ,
    Affine,
    Mode,
    UnitCost,
    busy_units,
    energy_units,
    one_way_units,
    reply_units,
    round_up,
)
from planner.problem.budgets import BUDGETS, BudgetName, Resource
from planner.problem.duty import BatteryDrain
from profiles.fleet import Board

_FIELDS: Mapping[BudgetName, str] = {
    name: {"power_w": "power_macs"}.get(name, row.figure) for name, row in BUDGETS.items()
}
"""Field of a capacity for each budget."""
FIGURES: tuple[Resource, ...] = tuple(row.figure for row in BUDGETS.values())
"""Figure that each budget limits."""
limits_of: Callable[["BoardCapacity"], tuple[int | None, ...]] = attrgetter(*_FIELDS.values())
"""Limits of a capacity, one for each budget; asked for often."""


@dataclass(frozen=True, slots=True)
class BoardCapacity:
    """A board with what one plan may put on it; None is no limit.

    `busy`, `energy` and `latest` are in solver units, `power_macs` are the most MACs that keep a
    power limit; `latest` bounds the time that computing and replying take; `flash_bytes` holds
    weights and `ram_bytes` the activations of one model at a time, where they are apart.
    Latencies count computing `slow` times, where they are those of a percentile; `battery` says how
    computing and rest drain it, where its life is told, and `idling` how they add up from image to
    image, where average power counts; `cycle` is the most of that.
    """

    board: Board
    memory_bytes: int | None = None
    macs: int | None = None
    busy: int | None = None
    energy: int | None = None
    power_macs: int | None = None
    latest: int | None = None
    slow: float = 1.0
    flash_bytes: int | None = None
    ram_bytes: int | None = None
    battery: BatteryDrain | None = None
    cycle: int | None = None
    idling: BatteryDrain | None = None

    @property
    def class_key(self) -> tuple[object, ...]:
        """Key of interchangeable boards: device, link, budgets and battery."""
        limits = (limit for _, limit in self.limits)
        return self.board.device, self.board.link, self.battery, self.idling, *limits

    def drain_of(self, figure: str) -> BatteryDrain | None:
        """Part of rest and of computing in its battery's drain, or a cycle's energy."""
        return {"drain": self.battery, "cycle": self.idling}.get(figure)

    def resting(self, figure: str) -> int:
        """Drain or energy of a cycle as it rests, in solver units; else 0."""
        one = self.drain_of(figure)
        return 0 if one is None else round_up(one.resting_mj, UNITS_PER_MJ)

    @property
    def limits(self) -> tuple[tuple[Resource, int | None], ...]:
        """Each limited figure and its limit, in solver units, one for each budget."""
        return tuple(zip(FIGURES, limits_of(self), strict=True))

    @property
    def most_macs(self) -> float:
        """Most MACs by budget and power limit; infinite where neither limits them."""
        return min((one for one in (self.macs, self.power_macs) if one is not None), default=inf)

    def has_room_of(self, other: "BoardCapacity") -> bool:
        """Whether the limits let run whatever those of another one do."""
        pairs = [
            (inf if mine is None else mine, inf if theirs is None else theirs)
            for (figure, mine), (_, theirs) in zip(self.limits, other.limits, strict=True)
            if figure != "macs"
        ]
        return all(a >= b for a, b in [*pairs, (self.most_macs, other.most_macs)])

    def limited(self, limits: Mapping[BudgetName, int | None]) -> "BoardCapacity":
        """The board with other limits of these budgets' figures."""
        changes: dict[str, Any] = {_FIELDS[name]: limit for name, limit in limits.items()}
        return replace(self, **changes)

    def most_filters(self, mode: Mode, at_most: int) -> int:
        """Most filters, up to `at_most`, of such a student here; -1 for none.

        Alone or not: the least cost counts.  Costs grow with filters, so that bisection finds it.
        """
        timed = self.busy is not None or self.latest is not None
        busy = self._units(busy_units, mode) if timed else []
        energy = self._units(energy_units, mode) if self.energy is not None else []
        low, high = -1, at_most
        while low < high:
            middle = (low + high + 1) // 2
            fits = self._fits(mode, middle, busy, energy)
            low, high = (middle, high) if fits else (low, middle - 1)
        return low

    def _fits(
        self, mode: Mode, filters: int, busy: Sequence[Affine], energy: Sequence[Affine]
    ) -> bool:
        """Fit of a student of this size, at the least of these costs."""
        cost, size = mode.line.at(filters), mode.value_bytes
        stored, alive = size * cost.params, size * cost.peak_elements
        if self.memory_bytes is not None and stored + alive > self.memory_bytes:
            return False
        if self.flash_bytes is not None and stored > self.flash_bytes:
            return False
        if self.ram_bytes is not None and alive > self.ram_bytes:
            return False
        if any(limit is not None and cost.macs > limit for limit in (self.macs, self.power_macs)):
            return False
        if self.energy is not None and min(each.at(filters) for each in energy) > self.energy:
            return False
        least = min((each.at(filters) for each in busy), default=0)
        replied = least + filters * reply_units(self.board)
        return (self.busy is None or least <= self.busy) and (
            self.latest is None or replied <= self.latest
        )

    def _units(self, units: UnitCost, mode: Mode) -> list[Affine]:
        """Cost of one student by its filters, alone and as its share among several."""
        device = self.board.device
        return [units(device, mode.line, several) for several in (False, True)]


def delay_spread_bound(boards: Iterable[Board]) -> int:
    """Bound, in solver units, what unlike latencies on one medium add to a latency.

    The model lets the last reply on a shared medium take the longest latency of its boards.
    """
    media: dict[str, list[int]] = defaultdict(list)
    for board in boards:
        if board.link.shared:
            media[board.link.name].append(one_way_units(board))
    return max((max(delays) - min(delays) for delays in media.values()), default=0)
