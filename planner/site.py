"""A site: a board with its budgets, and which students fit there."""

from dataclasses import dataclass

from planner.option import Option
from planner.question import Question
from planner.scaling import (
    UNITS_PER_MJ,
    UNITS_PER_MS,
    Units,
    busy_units,
    energy_units,
    reply_units,
    within,
)
from profiles.fleet import Board, resolve


@dataclass(frozen=True, slots=True)
class Site:
    """A board with what one plan may put on it; None is no limit.

    `busy`, `energy` and `latest` are in solver units; the last bounds the time that computing and
    replying take.
    """

    board: Board
    memory_bytes: int | None
    macs: int | None
    busy: int | None = None
    energy: int | None = None
    latest: int | None = None

    @property
    def kind(self) -> tuple[object, ...]:
        """What makes boards do the same as long as they are up: device, link and budgets."""
        limits = (self.memory_bytes, self.macs, self.busy, self.energy)
        return self.board.device, self.board.link, *limits

    def fits(self, option: Option, filters: int) -> bool:
        """Say whether a student of this network and size fits on this board, alone or not."""
        if self.memory_bytes is not None and option.memory_bytes(filters) > self.memory_bytes:
            return False
        if self.macs is not None and option.line.at(filters).macs > self.macs:
            return False
        if self.energy is not None and self._least(energy_units, option, filters) > self.energy:
            return False
        busy = self._least(busy_units, option, filters)
        replied = busy + filters * reply_units(self.board)
        return (self.busy is None or busy <= self.busy) and (
            self.latest is None or replied <= self.latest
        )

    def _least(self, units: Units, option: Option, filters: int) -> int:
        """Return the least cost of one student, alone or as its share among several."""
        device = self.board.device
        return min(units(device, option.line, several).at(filters) for several in (False, True))

    def most_filters(self, option: Option, at_most: int) -> int:
        """Return the most filters, up to `at_most`, that such a student may mimic here; -1: none.

        Costs grow with filters, so that bisection finds it.
        """
        low, high = -1, at_most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.fits(option, middle) else (low, middle - 1)
        return low


def sites_of(question: Question) -> tuple[Site, ...]:
    """Return the boards with their budgets."""
    _, boards = resolve(question.fleet)
    return tuple(
        Site(
            board,
            budget.room_bytes,
            budget.macs,
            busy=within(budget.busy_ms, UNITS_PER_MS),
            energy=within(budget.energy_mj, UNITS_PER_MJ),
        )
        for board, budget in zip(boards, question.budgets, strict=True)
    )
