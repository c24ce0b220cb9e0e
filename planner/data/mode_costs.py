"""Costs of modes on boards, also where students share their copy of G0.

Students of one board and precision are one joint model then: G0, and a head for each.  A board runs
such a model for each precision of its students, and pays for G0, and for what a model begins with,
once in each::

    busy = slowdown of the models * sum over models (G0 + heads)

What the students know together counts G0 once for a board, whatever its precisions.  Of a student
on several boards one counts; which one, is chosen so that most copies of G0 do.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from typing import Literal, NamedTuple, get_args

from nonn_core.networks.network_cost import (
    Cost,
    Precision,
    StudentCostLine,
    StudentOutline,
    group0_cost,
    group0_table,
    joint_cost,
)
from planner.data.board_capacity import BoardCapacity
from planner.data.modes import (
    SEVERAL,
    UNITS_PER_MJ,
    UNITS_PER_MS,
    Affine,
    DedicatedStem,
    Mode,
    Stem,
    UnitCost,
    busy_units,
    drain_units,
    energy_units,
    round_up,
)
from planner.data.objective_function import ModeCriterion, ObjectiveFunction
from planner.data.problem_data import ProblemData, late_cost, late_units
from profiles.device import DeviceProfile, compute_mj, compute_ms, quantity_value, slowdown
from profiles.layer import BYTES_PER_VALUE
from simulator.workloads.fan_out import CopiedGroup
from simulator.workloads.layer_parts import time_line

Spent = Literal["busy", "energy", "late", "drain", "cycle"]
"""Time, energy, time as latencies count it, drain of a battery, or energy from image to image."""
_DRAINS: tuple[Spent, ...] = ("drain", "cycle")


def spent_units(spent: Spent, capacity: BoardCapacity) -> UnitCost:
    """Cost of a student that is a model of its own."""
    units = {"busy": busy_units, "energy": energy_units, "late": late_units(capacity)}
    return units.get(spent) or drain_units(capacity.drain_of(spent))


def copied_group(
    device: DeviceProfile, outline: StudentOutline, precision: Precision
) -> CopiedGroup:
    """Work of a student's copy of G0, timed where the student's layers are known."""
    times, time = time_line(device, outline), None
    if times is not None:
        own_ms = times.predictor.total_ms(group0_table(outline.spec, outline.image))
        time = None if own_ms is None else times.predictor.predicted(own_ms)
    return CopiedGroup(precision, group0_cost(outline.spec, outline.image).macs, time)


@dataclass(frozen=True, slots=True)
class JointUnits:
    """Cost of a joint model in solver units: G0 with the beginning, and a head."""

    stem: int
    head: Affine


def stem_cost(mode: Mode) -> Cost:
    """Cost of the G0 that a mode has a copy of."""
    outline = mode.line.outline
    return group0_cost(outline.spec, outline.image)


def knows_layers(device: DeviceProfile, mode: Mode) -> bool:
    """Whether the layers of such a student predict its time; else its FLOPs do."""
    return time_line(device, mode.line.outline) is not None


def joint_units(
    spent: Spent, capacity: BoardCapacity, mode: Mode, *, several: bool, by_layers: bool
) -> JointUnits:
    """Cost of such a student in a joint model, alone or among several models.

    `by_layers` where the layers of all students of the model are known.  Energy is 0 where no power
    is known, and so is a drain without a battery.
    """
    device, drain = capacity.board.device, capacity.drain_of(spent)
    in_mj = spent in ("energy", "drain", "cycle")
    if in_mj and not (device.power_known and (spent == "energy" or drain)):
        return JointUnits(0, Affine(0, 0))
    factor = slowdown(device, SEVERAL) if several else 1.0
    parts_of = _parts_by_layers if by_layers else _parts_by_flops
    parts = parts_of(device, mode.line, in_mj)
    if drain is not None:
        pairs = zip(parts_of(device, mode.line, False), parts, strict=True)
        parts = tuple(drain.computing_mj(*pair) for pair in pairs)
    units = UNITS_PER_MJ if in_mj else UNITS_PER_MS
    stem, *head = (round_up(factor * part, units) for part in parts)
    if spent != "late":
        return JointUnits(stem, Affine(*head))
    later = late_cost(capacity, Affine(stem, 0)).constant
    return JointUnits(later, late_cost(capacity, Affine(*head)))


def joint_ways(spent: Spent, capacity: BoardCapacity, mode: Mode) -> Iterator[JointUnits]:
    """Yield the cost of a student in a joint model, for each way of timing."""
    device = capacity.board.device
    ways = [True] if knows_layers(device, mode) else []
    ways += [False] if device.compute_ms_per_mmac is not None else []
    for several, by_layers in product((False, True), ways):
        yield joint_units(spent, capacity, mode, several=several, by_layers=by_layers)


Parts = tuple[float, ...]
"""ms or mJ of G0 and the beginning, of a head without filters, and of each of its filters."""


def _parts_by_layers(device: DeviceProfile, line: StudentCostLine, energy: bool) -> Parts:
    outline = line.outline
    times = time_line(device, outline)
    table = group0_table(outline.spec, outline.image)
    stem_ms = times.predictor.total_ms(table) if times else None
    assert times is not None and stem_ms is not None  # noqa: S101  (asked only where known)
    power = quantity_value(device, "power_busy_w") if energy else 1.0
    return power * stem_ms, power * (times.fixed_ms - stem_ms), power * times.ms_per_filter


def _parts_by_flops(device: DeviceProfile, line: StudentCostLine, energy: bool) -> Parts:
    macs = group0_cost(line.outline.spec, line.outline.image).macs
    rate = quantity_value(device, "compute_ms_per_mmac") / 1e6
    rate *= quantity_value(device, "power_busy_w") if energy else 1.0
    stem = (compute_mj if energy else compute_ms)(device, macs)
    return stem, rate * (line.macs - macs), rate * line.macs_per_filter


StudentLoad = tuple[int, int]
"""A student as a board sees it: place of its mode in the problem data, and its filters."""


class StudentsCost(NamedTuple):
    """Cost of a board's students together: bytes, MACs, parameters, and solver units.

    Models run one after the other in `ram_bytes`: the largest counts.
    `params` and `known_macs` count a shared G0 once for the board.
    """

    memory_bytes: int
    flash_bytes: int
    macs: int
    params: int
    known_macs: int
    busy: int
    energy: int
    late: int
    drain: int
    cycle: int
    ram_bytes: int


def students_cost(data: ProblemData) -> Callable[[int, Sequence[StudentLoad]], StudentsCost]:
    """Function of a board's place and its students to their cost; it remembers units."""
    if data.shares_stem:
        units: _UnitsOf = cache(partial(_joint_units_at, data))
        return lambda board, tasks: _joint_load(data, board, tasks, units)
    alone = cache(partial(_separate_cost, data, cache(partial(_spent_units_at, data))))
    return lambda board, tasks: _added([alone(board, *task, len(tasks) > 1) for task in tasks])


_SpentOf = Callable[[int, int, bool], Mapping[Spent, Affine]]
"""Cost of each kind, by a board's place, a mode's, and whether it has company."""


def _spent_units_at(
    data: ProblemData, board: int, mode: int, several: bool
) -> Mapping[Spent, Affine]:
    capacity, line = data.capacities[board], data.modes[mode].line
    device, every = capacity.board.device, get_args(Spent)
    return {one: spent_units(one, capacity)(device, line, several) for one in every}


def _separate_cost(
    data: ProblemData, spent: _SpentOf, board: int, mode: int, filters: int, several: bool
) -> StudentsCost:
    """Cost of a student that is a model of its own."""
    units = spent(board, mode, several)
    cost, precision = data.modes[mode].line.at(filters), data.modes[mode].precision
    return StudentsCost(
        memory_bytes=cost.memory_bytes(precision),
        flash_bytes=cost.flash_bytes(precision),
        ram_bytes=cost.ram_bytes(precision),
        macs=cost.macs,
        params=cost.params,
        known_macs=cost.macs,
        busy=units["busy"].at(filters),
        energy=units["energy"].at(filters),
        late=units["late"].at(filters),
        drain=units["drain"].at(filters),
        cycle=units["cycle"].at(filters),
    )


def _added(costs: Sequence[StudentsCost]) -> StudentsCost:
    """Cost of students that are a model each, one after the other in RAM."""
    if len(costs) == 1:
        return costs[0]
    *added, ram_bytes = zip(*costs, strict=True)
    return StudentsCost(*[*map(sum, added), max(ram_bytes)])


_UnitsOf = Callable[[Spent, int, int, bool, bool], JointUnits]
"""Joint units of a board's place, a mode's place, among several models, by layers."""


def _joint_units_at(
    data: ProblemData, spent: Spent, board: int, mode: int, several: bool, by_layers: bool
) -> JointUnits:
    capacity = data.capacities[board]
    return joint_units(spent, capacity, data.modes[mode], several=several, by_layers=by_layers)


def _joint_load(
    data: ProblemData, board: int, tasks: Sequence[StudentLoad], units: _UnitsOf
) -> StudentsCost:
    """Cost of students that are a joint model for each precision."""
    capacity = data.capacities[board]
    device = capacity.board.device
    models: dict[str, list[StudentLoad]] = defaultdict(list)
    for mode, filters in tasks:
        models[data.modes[mode].precision].append((mode, filters))
    memory_bytes = flash_bytes = ram_bytes = macs = 0
    spent: dict[Spent, int] = dict.fromkeys(("busy", "energy", "late"), 0)
    spent |= {one: 0 for one in _DRAINS if capacity.drain_of(one)}
    known = _joint_cost(data, tasks)
    for students in models.values():
        cost = known if len(models) == 1 else _joint_cost(data, students)
        precision = data.modes[students[0][0]].precision
        memory_bytes += cost.memory_bytes(precision)
        flash_bytes += cost.flash_bytes(precision)
        ram_bytes = max(ram_bytes, cost.ram_bytes(precision))
        macs += cost.macs
        by_layers = all(knows_layers(device, data.modes[mode]) for mode, _ in students)
        for what in spent:
            parts = [units(what, board, mode, len(models) > 1, by_layers) for mode, _ in students]
            spent[what] += max(part.stem for part in parts)
            spent[what] += sum(
                part.head.at(filters) for part, (_, filters) in zip(parts, students, strict=True)
            )
    return StudentsCost(
        memory_bytes=memory_bytes,
        flash_bytes=flash_bytes,
        ram_bytes=ram_bytes,
        macs=macs,
        params=known.params,
        known_macs=known.macs,
        busy=spent["busy"],
        energy=spent["energy"],
        late=spent["late"],
        drain=spent.get("drain", 0),
        cycle=spent.get("cycle", 0),
    )


def joint_models(students: Sequence[tuple[Mode, int]]) -> list[tuple[Precision, Cost]]:
    """Precision and cost of each joint model of a board with students of these filters."""
    models: dict[Precision, list[tuple[StudentCostLine, int]]] = defaultdict(list)
    for mode, filters in students:
        models[mode.precision].append((mode.line, filters))
    return [(precision, joint_cost(joined)) for precision, joined in models.items()]


def _joint_cost(data: ProblemData, tasks: Sequence[tuple[int, int]]) -> Cost:
    return joint_cost([(data.modes[mode].line, filters) for mode, filters in tasks])


def counted_copies(replica_sets: Sequence[Collection[Hashable]]) -> int:
    """Number of boards whose copy of G0 counts as knowledge.

    It is the most that students can be on, where each is on one of its boards: a largest matching
    of students and boards.
    """
    taken: dict[Hashable, int] = {}

    def place(student: int, tried: set[Hashable]) -> bool:
        for board in replica_sets[student]:
            if board not in tried:
                tried.add(board)
                if board not in taken or place(taken[board], tried):
                    taken[board] = student
                    return True
        return False

    return sum(place(student, set()) for student in range(len(replica_sets)))


def stem_placements(
    data: ProblemData, criteria: Collection[ModeCriterion]
) -> Iterator[ProblemData]:
    """Yield the problem data for each placement of G0, one for boards that are alike.

    On a board of its own, G0 is stored as widely as fits or, where memory counts, as narrowly as
    may be; nothing else depends on it.
    """
    if data.copies_stem:
        yield replace(data, stems=())
    board_classes = {
        data.board_class(place): place for place in reversed(range(len(data.capacities)))
    }
    narrow = not {"memory", "flash", "ram"}.isdisjoint(criteria)
    for group0 in data.stems if len(data.places_of) > 1 else ():
        for place in sorted(board_classes.values()):
            stem = _with_stem_on(data, group0, place, narrow=narrow)
            if stem is not None:
                yield data.with_stem(stem)


def _with_stem_on(
    data: ProblemData, group0: Stem, place: int, *, narrow: bool
) -> DedicatedStem | None:
    """Put G0 on a board; None where it does not fit at any precision."""
    capacity = data.capacities[place]
    precisions = {mode.precision for mode in data.modes}
    every = (
        group0.on(
            *(place, capacity.board, precision, data.image_bytes),
            battery=capacity.battery,
            idling=capacity.idling,
        )
        for precision in sorted(precisions, key=BYTES_PER_VALUE.__getitem__, reverse=not narrow)
    )
    return next((stem for stem in every if _fits(stem, capacity)), None)


def _fits(stem: DedicatedStem, capacity: BoardCapacity) -> bool:
    """Say whether G0 keeps the budgets of its board."""
    return all(limit is None or stem.of(figure) <= limit for figure, limit in capacity.limits)


def percentile_cases(
    data: ProblemData, measures: Collection[ObjectiveFunction]
) -> Iterator[tuple[ProblemData, int | None]]:
    """Problem data for each number of boards at work, and this number.

    The latency of a percentile depends on it (`ProblemData.at_percentile`): with at most so many
    boards it is an upper bound, and exact where all of them work, so that the least of all cases
    is the least of all plans.  Without such a latency there is one case of any number.
    """
    shares = [measure.share for measure in measures if measure.share is not None]
    if not shares or not data.spreads:
        yield data, None
        return
    alone = int(data.stem is not None)
    for boards in range(1, data.most_boards + 1):
        case = data.at_percentile(max(shares), boards + alone)
        yield case.with_late_stem(), boards + alone
