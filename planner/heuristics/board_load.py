"""Load of a board, and patterns: all loads that boards can have.

All costs are in solver units, the same that the models use.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from itertools import islice, product
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from planner.data.board_capacity import FIGURES, BoardCapacity, limits_of
from planner.data.mode_costs import StudentLoad, StudentsCost, students_cost
from planner.data.modes import delay_units, reply_units
from planner.data.problem_data import ProblemData, community_classes
from planner.heuristics import SearchEffort
from profiles.device import DeviceProfile, slowdown
from profiles.operating_point import whole_power

_uses_of: Callable[["BoardLoad"], tuple[int, ...]] = attrgetter(*FIGURES)
"""Use of each figure that a budget limits; asked for often."""


class BoardLoad(NamedTuple):
    """Tasks of one board and their cost: bytes, MACs, parameters, and solver units.

    `value_bytes` adds up the bytes per value of the students, `send` is the host's time for the
    image, `delay` the time under way on both ways, `late` the time of computing that latencies
    count, `known_macs` the MACs with each copy of G0 once, `drain` that of its battery from image
    to image, `cycle` its energy in that time, `power` what it draws as it computes; each of the
    last three where it counts, else 0.
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
    cycle: int = 0
    power: int = 0

    @property
    def tail(self) -> int:
        """Time from the end of the send until the reply is there."""
        return self.late + self.reply + self.delay

    def no_worse_than(self, other: "BoardLoad", *, counts_energy: bool) -> bool:
        """Whether the same students take no longer here, nor more energy where that counts."""
        frugal = self.energy <= other.energy and self.drain <= other.drain
        frugal = frugal and self.cycle <= other.cycle and self.power <= other.power
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
        [
            BoardCapacity(one.board, slow=one.slow, battery=one.battery, idling=one.idling)
            for one in data.capacities
        ]
    )
    return _cached_loads(replace(data, capacities=bare, most_uneven=None, scenarios=None))


@lru_cache(maxsize=8)
def _cached_loads(data: ProblemData) -> Callable[[int, tuple[StudentLoad, ...]], BoardLoad]:
    first: dict[object, int] = {}
    alike = [first.setdefault(capacity.class_key, b) for b, capacity in enumerate(data.capacities)]
    cost, units = students_cost(data), cache(partial(_board_units, data))
    loaded = cache(lambda board, tasks: _board_load(data, tasks, cost(board, tasks), units(board)))
    return lambda board, tasks: loaded(alike[board], tasks)


_BoardUnits = tuple[int, int, int, int, int, DeviceProfile | None]
"""Time of a board's send, under way, and of a reply for each filter; drain and energy as it rests;
its device where power counts."""


def _board_units(data: ProblemData, place: int) -> _BoardUnits:
    capacity = data.capacities[place]
    board = capacity.board
    rest = capacity.resting("drain"), capacity.resting("cycle")
    powered = board.device if data.counts_power else None
    return data.send(place), delay_units(board), reply_units(board), *rest, powered


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
    resting, idling, device = units[3:]
    spent = cost._replace(drain=cost.drain + resting) if resting else cost
    spent = spent._replace(cycle=cost.cycle + idling) if idling else spent
    return BoardLoad(
        tasks=tasks,
        value_bytes=sum([data.modes[o].value_bytes for o, _ in tasks]),
        send=units[0],
        reply=units[2] * sum([filters for _, filters in tasks]),
        delay=units[1],
        power=whole_power(device, cost.macs) if device else 0,
        **spent._asdict(),
    )


MOST_TYPES = 100
"""Of more types of students than this there are too many loadings to list them."""


@dataclass(frozen=True, order=True, slots=True)
class StudentType:
    """How many communities of each class a student has, and its task."""

    communities: tuple[int, ...]
    task: StudentLoad


PatternStudents = tuple[StudentType, ...]
"""The students of one board, by type."""
PatternRow = tuple[int, PatternStudents]
"""The kind of a board, and its students in the order of `Pattern.key`."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One loading of the boards of one kind, with the types of its students."""

    kind: int
    types: PatternStudents
    loading: BoardLoad
    group0: str

    @property
    def key(self) -> PatternStudents:
        """The types, in an order of their own."""
        return tuple(sorted(self.types))

    def communities(self, place: int) -> int:
        """Return how many communities of a class the students have together."""
        return sum(each.communities[place] for each in self.types)


@dataclass(frozen=True, slots=True)
class PatternCatalogue:
    """Classes of communities (ids, larger ones first), and all entries."""

    classes: tuple[tuple[int, ...], ...]
    entries: tuple[Pattern, ...]


def _student_types(
    data: ProblemData, classes: Sequence[Sequence[int]]
) -> dict[str, list[StudentType]] | None:
    """Student types by the shape of their G0; None for too many."""
    sizes = [data.sizes[ids[0]] for ids in classes]
    fewest, most = data.partition_range
    together = data.spare_communities + 1
    shares: list[tuple[int, ...]] = [()]
    for ids in classes:
        room = range(min(len(ids), together) + 1)
        shares = [(*share, n) for share, n in product(shares, room) if sum(share) + n <= together]
        if len(shares) > MOST_TYPES:
            return None
    types: dict[str, list[StudentType]] = defaultdict(list)
    for share in shares:
        filters = sum(n * size for n, size in zip(share, sizes, strict=True))
        for o, mode in enumerate(data.modes if fewest <= filters <= most else ()):
            types[mode.group0].append(StudentType(share, (o, filters)))
    return types if sum(map(len, types.values())) <= MOST_TYPES else None


UNITS_PER_ROW, UNITS_PER_ROW_STUDENT = 2e-6, 4e-6
"""Deterministic time of a row that is looked at, and of its load for each student."""


def enumerate_patterns(
    data: ProblemData, most: int, effort: SearchEffort | None = None
) -> PatternCatalogue | None:
    """All board loads within the budgets; None where there are more than `most`.

    None, too, where the `effort` ends before.
    """
    classes = community_classes(data)
    types = _student_types(data, classes)
    if types is None:
        return None
    effort, load = effort or SearchEffort(), cached_loads(data)
    boards = [_BoardRows(data, k, classes, load, effort) for k in range(len(data.board_classes))]
    # Students alone and two of them tell soonest, and parts of one row sooner than all rows.
    room = most - sum(one.alone(types) for one in boards)
    if room < 0 or _sure_pairs(data, classes, types) > room:
        return None
    for one, alike in product(boards, types.values()):
        if effort.over or one.parts_of_a_row(alike, most) > most:
            return None
    pairs = (row for row in _patterns(boards, types, 2) if len(row.types) > 1)
    if sum(1 for _ in islice(pairs, room + 1)) > room or effort.over:
        return None
    patterns = tuple(islice(_patterns(boards, types), most + 1))
    return None if len(patterns) > most or effort.over else PatternCatalogue(classes, patterns)


def _sure_pairs(
    data: ProblemData, classes: Sequence[Sequence[int]], types: Mapping[str, list[StudentType]]
) -> int:
    """Pairs of students that boards surely run, as both have room beside each other.

    0 where times or energies limit a board, or it has points to choose from.
    """
    rooms = [data.capacities[board] for board, *_ in data.board_classes]
    if data.rivals or any(one.busy or one.energy or one.latest for one in rooms):
        return 0
    limits = [(one.memory_bytes, one.flash_bytes, one.ram_bytes, one.most_macs) for one in rooms]
    most = np.array([[math.inf if n is None else n for n in row] for row in limits])
    room = [data.rounds * len(ids) for ids in classes]
    number = 0
    for alike in types.values():
        sizes = [(data.modes[one.task[0]], one.task[1]) for one in alike]
        lines = [(mode.line.at(filters), mode.precision) for mode, filters in sizes]
        costs = [(c.memory_bytes(p), c.flash_bytes(p), c.ram_bytes(p), c.macs) for c, p in lines]
        needs = np.array(costs)
        held = np.array([one.communities for one in alike])
        first, second = np.triu_indices(len(alike))
        apart = np.all(held[first] + held[second] <= room, axis=1)
        both = (needs[first] + needs[second])[apart]
        number += sum(int(np.all(both <= row, axis=1).sum()) for row in most)
    return number


def _patterns(
    boards: Sequence["_BoardRows"],
    types: Mapping[str, Sequence[StudentType]],
    most_students: int = 10**9,
) -> Iterator[Pattern]:
    """Yield every entry within the budgets that no other operating point runs as well."""
    for one in boards:
        points = RivalPoints(one.data, one.load)
        for group0, alike in types.items():
            for row in one.rows(alike, most_students):
                here = one.loading(row)
                if here.violation(one.capacity) <= 0 and not points.replaced(one.kind, here):
                    yield Pattern(one.kind, row, here, group0)


@dataclass
class _BoardRows:
    """Rows of students that a board of one kind can run.

    `effort` counts those that are looked at.
    """

    data: ProblemData
    kind: int
    classes: Sequence[Sequence[int]]
    load: Callable[[int, tuple[StudentLoad, ...]], BoardLoad]
    effort: SearchEffort

    def __post_init__(self) -> None:
        self._board, *_ = self.data.board_classes[self.kind]
        self.capacity = room = self.data.capacities[self._board]
        self._limits = [self.data.rounds * len(ids) for ids in self.classes]
        # Where several are quicker than one, one that takes too long may not do so in company.
        self._hurries = slowdown(room.board.device, 2) < 1
        self._room = replace(room, latest=None, busy=None, energy=None) if self._hurries else room

    def loading(self, row: PatternStudents) -> BoardLoad:
        """Load of the students of a row."""
        return self.load(self._board, tuple(sorted([each.task for each in row])))

    def _keeps(self, row: PatternStudents) -> bool:
        """Whether a row, which was kept without its last student, may grow further."""
        if self.effort.over:
            return False
        self.effort.spent += UNITS_PER_ROW
        # Only the last one's communities can be too many.
        for c, n in enumerate(row[-1].communities):
            if n and sum([each.communities[c] for each in row]) > self._limits[c]:
                return False
        self.effort.spent += len(row) * UNITS_PER_ROW_STUDENT
        return self.loading(row).violation(self._room) <= 0

    def rows(
        self,
        types: Sequence[StudentType],
        most: int,
        row: PatternStudents = (),
        start: int = 0,
    ) -> Iterator[PatternStudents]:
        """Yield all rows of at most so many students within the budgets."""
        for place in range(start, len(types)) if len(row) < most else ():
            longer = (*row, types[place])
            if self._keeps(longer):
                yield longer
                yield from self.rows(types, most, longer, place)

    def alone(self, types: Mapping[str, Sequence[StudentType]]) -> int:
        """Number of students that fit alone; 0 where company makes quicker."""
        fits = [self.capacity.most_filters(mode, self.data.filters) for mode in self.data.modes]
        tasks = [one.task for alike in types.values() for one in alike]
        return sum(filters <= fits[mode] for mode, filters in tasks) if not self._hurries else 0

    def parts_of_a_row(self, types: Sequence[StudentType], most: int) -> int:
        """Number of rows that are part of one row.

        It grows until they are more than `most`; they keep the budgets, too.  0 where some may not.
        """
        counts, row, left = [0] * len(types), PatternStudents(), list(range(len(types)))
        while left and not self._hurries and math.prod(n + 1 for n in counts) - 1 <= most:
            for place in left[:]:
                longer = (*row, types[place])
                if self._keeps(longer):
                    row, counts[place] = longer, counts[place] + 1
                else:
                    left.remove(place)
        return math.prod(n + 1 for n in counts) - 1
