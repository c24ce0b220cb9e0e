"""Load of a board: what its students use together.

All costs are in solver units, the same that the models use.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from operator import attrgetter
from typing import NamedTuple

from planner.data.board_capacity import FIGURES, BoardCapacity, limits_of
from planner.data.mode_costs import StudentLoad, StudentsCost, students_cost
from planner.data.modes import delay_units, reply_units
from planner.data.problem_data import ProblemData

_uses_of: Callable[["BoardLoad"], tuple[int, ...]] = attrgetter(*FIGURES)
"""Use of each figure that a budget limits; asked for often."""


class BoardLoad(NamedTuple):
    """Tasks of one board and their cost: bytes, MACs, parameters, and solver units.

    `value_bytes` adds up the bytes per value of the students, `send` is the host's time for the
    image, `delay` the time under way on both ways, `late` the time of computing that latencies
    count, `known_macs` the MACs with each copy of G0 once, `drain` that of its battery from image
    to image.
    """

    tasks: tuple[StudentLoad, ...]
    memory_bytes: int
    flash_bytes: int
    ram_bytes: int
    macs: int
    params: int
    value_bytes: int
    busy: int
    energy: int
    send: int
    reply: int
    delay: int
    late: int
    known_macs: int
    drain: int

    @property
    def tail(self) -> int:
        """Time from the end of the send until the reply is there."""
        return self.late + self.reply + self.delay

    def no_worse_than(self, other: "BoardLoad", *, counts_energy: bool) -> bool:
        """Whether the same students take no longer here, nor more energy where that counts."""
        frugal = self.energy <= other.energy and self.drain <= other.drain
        timely = self.send <= other.send and self.busy <= other.busy and self.tail <= other.tail
        return timely and (frugal or not counts_energy)

    def violation(self, capacity: BoardCapacity) -> float:
        """Return by which part of them the budgets of `site` are exceeded, added up."""
        needs = (*_uses_of(self), self.busy + self.reply)
        rows = zip(needs, (*limits_of(capacity), capacity.latest), strict=True)
        return sum([(n - most) / max(1, most) for n, most in rows if most is not None and n > most])


def cached_loads(data: ProblemData) -> Callable[[int, tuple[StudentLoad, ...]], BoardLoad]:
    """Cached function of a board's place and sorted students to its load.

    Loads know no limits and no failures: questions that differ in these have one function.
    """
    bare = tuple(
        [BoardCapacity(one.board, slow=one.slow, battery=one.battery) for one in data.capacities]
    )
    return _cached_loads(replace(data, capacities=bare, most_uneven=None, scenarios=None))


@lru_cache(maxsize=8)
def _cached_loads(data: ProblemData) -> Callable[[int, tuple[StudentLoad, ...]], BoardLoad]:
    first: dict[object, int] = {}
    alike = [first.setdefault(capacity.class_key, b) for b, capacity in enumerate(data.capacities)]
    cost, units = students_cost(data), cache(partial(_board_units, data))
    loaded = cache(lambda board, tasks: _board_load(data, tasks, cost(board, tasks), units(board)))
    return lambda board, tasks: loaded(alike[board], tasks)


_BoardUnits = tuple[int, int, int, int]
"""Time of a board's send, under way, and of a reply for each filter; drain as it rests."""


def _board_units(data: ProblemData, place: int) -> _BoardUnits:
    capacity = data.capacities[place]
    board = capacity.board
    return data.send(place), delay_units(board), reply_units(board), capacity.resting


@dataclass(frozen=True)
class RivalPoints:
    """Operating points at which boards may run instead what they run at one of them."""

    data: ProblemData
    load: Callable[[int, tuple[StudentLoad, ...]], BoardLoad]

    def replaced(self, kind: int, here: BoardLoad) -> bool:
        """Whether another point of a kind's boards runs a load as well.

        Of points that are equal for it, the first one is kept.
        """
        kinds = self.data.points_of[kind]
        for other in kinds if len(kinds) > 1 else ():
            place, energy = self.data.board_classes[other][0], self.data.counts_energy
            there = self.load(place, here.tasks)
            as_good = there.no_worse_than(here, counts_energy=energy) and (
                other < kind or not here.no_worse_than(there, counts_energy=energy)
            )
            if as_good and there.violation(self.data.capacities[place]) <= 0:
                return True
        return False


def _board_load(
    data: ProblemData, tasks: tuple[StudentLoad, ...], cost: StudentsCost, units: _BoardUnits
) -> BoardLoad:
    spent = cost._replace(drain=cost.drain + units[3]) if units[3] else cost
    return BoardLoad(
        tasks=tasks,
        value_bytes=sum([data.modes[o].value_bytes for o, _ in tasks]),
        send=units[0],
        reply=units[2] * sum([filters for _, filters in tasks]),
        delay=units[1],
        **spent._asdict(),
    )
