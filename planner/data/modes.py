"""Modes of a student, and its assignment to a board.

A mode is a network at a precision.  Where G0 has a board of its own, the host sends the image to
this board alone, which runs G0 and sends its maps on to each board that has a student
(arXiv:1907.11804, 4.3, shares G0; a copy of it on each board is the other way to do so).  The maps
travel as fp32, as features do.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from nonn_core.networks.blueprint import ImageShape, NetworkSpec
from nonn_core.networks.network_cost import (
    Cost,
    Precision,
    StudentCostLine,
    group0_cost,
    group0_maps,
    group0_table,
    student_cost_line,
)
from nonn_core.partition import DropStep
from planner.accuracy.model import UNITS_PER_INDEX
from planner.problem.budgets import MILLIONTHS, Resource
from planner.problem.duty import BatteryDrain
from profiles.device import DeviceProfile, known_time
from profiles.fleet import Board
from profiles.layer import BYTES_PER_VALUE, LayerTable
from profiles.link import BYTES_PER_FEATURE
from profiles.operating_point import whole_power
from simulator.graph_builder import send_ms
from simulator.workloads.fan_out import busy_mj, busy_ms, reply_ms
from simulator.workloads.layer_parts import Work, time_line, work_mj, work_ms

UNITS_PER_MS = UNITS_PER_MJ = MILLIONTHS
UNITS_PER_POINT = 10**6

LATEST_UNITS = 10**9 * UNITS_PER_MS
"""No plan answers later; a bound that only the solver's arithmetic needs."""
SEVERAL = 2
"""How many students stand for `several` where a device slows down for two or more."""


@dataclass(frozen=True, slots=True)
class Affine:
    """A cost in solver units: `constant` plus `per_filter` for each filter of a student."""

    constant: int
    per_filter: int

    def at(self, filters: int) -> int:
        """Return the cost for this many filters."""
        return self.constant + self.per_filter * filters


UnitCost = Callable[[DeviceProfile, StudentCostLine, bool], Affine]
"""Cost of one student on a device, alone (False) or as its share among several (True)."""


def round_up(value: float, units: int) -> int:
    """Scale a cost: the least whole number of units that is not below it.

    A thousandth of a unit is taken for noise of binary fractions: 1.1 points are 1,100,000
    millionths, not one more.
    """
    return math.ceil(value * units - 1e-3)


def round_down(limit: float | None, units: int) -> int | None:
    """Scale a capacity: the most whole units that fit; None stays None."""
    return None if limit is None else math.floor(limit * units + 1e-3)


def least_within(best: int, tolerance_pct: float) -> int:
    """Least value of a maximised objective within a tolerance of its best."""
    return math.ceil(best - abs(best) * tolerance_pct / 100 - 1e-6)


def most_within(best: int, tolerance_pct: float) -> int:
    """Largest value of a minimised objective within a tolerance of its best."""
    return math.floor(best + abs(best) * tolerance_pct / 100 + 1e-6)


def send_units(board: Board, image_bytes: int) -> int:
    """Time of the host's sender for one image to `board`."""
    return round_up(send_ms(board, image_bytes), UNITS_PER_MS)


def delay_units(board: Board) -> int:
    """Time under way to `board` and back, while nothing is busy."""
    return round_up(2 * board.link.latency_ms.value, UNITS_PER_MS)


def one_way_units(board: Board) -> int:
    """Time under way to `board`, or back from it."""
    return round_up(board.link.latency_ms.value, UNITS_PER_MS)


def reply_units(board: Board) -> int:
    """Time of a reply from `board` per filter; the model's reply has no fixed part."""
    return round_up(reply_ms(board, 1), UNITS_PER_MS)


def busy_units(device: DeviceProfile, line: StudentCostLine, several: bool) -> Affine:
    """Time of one student on `device`, alone or as its share among several."""
    works = _works(device, line, several)
    return _affine((busy_ms(device, each) / len(each) for each in works), UNITS_PER_MS)


def energy_units(device: DeviceProfile, line: StudentCostLine, several: bool) -> Affine:
    """Energy of one student on `device`, alone or as its share among several.

    It is 0 where no power is known; no problem that needs it is planned there.
    """
    if not device.power_known:
        return Affine(0, 0)
    works = _works(device, line, several)
    return _affine((busy_mj(device, each) / len(each) for each in works), UNITS_PER_MJ)


def drain_units(battery: BatteryDrain | None) -> UnitCost:
    """Drain of a battery by one student, beyond that of a resting board."""

    def units(device: DeviceProfile, line: StudentCostLine, several: bool) -> Affine:
        if battery is None or not device.power_known:
            return Affine(0, 0)
        works = _works(device, line, several)
        drains = (
            battery.computing_mj(busy_ms(device, each), busy_mj(device, each)) / len(each)
            for each in works
        )
        return _affine(drains, UNITS_PER_MJ)

    return units


def _works(device: DeviceProfile, line: StudentCostLine, several: bool) -> list[list[Work]]:
    return [[student_work(device, line, n)] * (SEVERAL if several else 1) for n in (0, 1)]


def _affine(costs: Iterable[float], units: int) -> Affine:
    constant, further = costs
    return Affine(round_up(constant, units), round_up(further - constant, units))


def student_work(device: DeviceProfile, line: StudentCostLine, filters: int) -> Work:
    """Time of a student on `device`, or its MACs where no layers are known."""
    times = time_line(device, line.outline)
    return line.macs + line.macs_per_filter * filters if times is None else times.at(filters)


def rounding_bound(boards: int, students: int, filters: int) -> int:
    """Bound on rounding errors of a latency or of a fleet's energy, in units.

    Each send and delay, each student's constant, each filter's compute and reply, and the join are
    rounded once, by less than one unit; a delay twice where boards share a medium, but then only
    the delays of two boards count.
    """
    return 2 * boards + students + 2 * filters + 1


def log_units(amount: int) -> int:
    """Return ln(amount) in whole solver units, rounded down."""
    return math.floor(UNITS_PER_INDEX * math.log(amount))


@dataclass(frozen=True, slots=True)
class Stem:
    """G0 of one shape: its cost for one image, its maps, its layers."""

    shape: str
    cost: Cost
    maps_bytes: int
    table: LayerTable

    @classmethod
    def of(cls, spec: NetworkSpec, image: ImageShape) -> "Stem":
        """Describe the G0 of a network."""
        maps_bytes = BYTES_PER_FEATURE * group0_maps(spec, image).elements
        return cls(spec.group0, group0_cost(spec, image), maps_bytes, group0_table(spec, image))

    def work(self, device: DeviceProfile) -> Work:
        """Its time on `device` where its layers are known there; or its MACs."""
        return known_time(device, self.table) or self.cost.macs

    def on(
        self,
        place: int,
        board: Board,
        precision: Precision,
        image_bytes: int,
        battery: BatteryDrain | None = None,
        idling: BatteryDrain | None = None,
    ) -> "DedicatedStem":
        """Put it on a board, which has this place in the fleet."""
        sent_ms = send_ms(board, image_bytes)
        device, work = board.device, self.work(board.device)
        busy_ms = work_ms(device, work)
        under_way_ms = 2 * board.link.latency_ms.value
        busy_mj = work_mj(device, work) if device.power_known else 0.0
        drain, cycle = (
            round_up(one.resting_mj + one.computing_mj(busy_ms, busy_mj), UNITS_PER_MJ)
            if one
            else 0
            for one in (battery, idling)
        )
        return DedicatedStem(
            shape=self.shape,
            board=place,
            precision=precision,
            maps_bytes=self.maps_bytes,
            params=self.cost.params,
            macs=self.cost.macs,
            memory_bytes=self.cost.memory_bytes(precision),
            flash_bytes=self.cost.flash_bytes(precision),
            ram_bytes=self.cost.ram_bytes(precision),
            busy=round_up(busy_ms, UNITS_PER_MS),
            energy=round_up(busy_mj, UNITS_PER_MJ),
            drain=drain,
            cycle=cycle,
            power=whole_power(device, self.cost.macs),
            sent=round_up(sent_ms, UNITS_PER_MS),
            lead=round_up(sent_ms + busy_ms + under_way_ms, UNITS_PER_MS),
        )


@dataclass(frozen=True, slots=True)
class DedicatedStem:
    """G0 on a board of its own, by the board's place; times in solver units.

    `sent` is the host's time for the image; `lead` is all that passes until maps can be sent, and
    the latency of this board's link on the way back, which all of them have.
    """

    shape: str
    board: int
    precision: Precision
    maps_bytes: int
    params: int
    macs: int
    memory_bytes: int
    flash_bytes: int
    ram_bytes: int
    busy: int
    energy: int
    drain: int
    cycle: int
    power: int
    sent: int
    lead: int

    def of(self, figure: Resource) -> int:
        """Return a figure; precisions are those of students, which it is not."""
        return 0 if figure == "value_bytes" else int(getattr(self, figure))


@dataclass(frozen=True, slots=True)
class AssignedStudent:
    """One student: its communities, network, precision, and the place of its board in the fleet.

    A student of a later round than the first mimics as many filters as its community has, of all
    kept ones reshuffled.  `copies` are further boards that hold the same student.
    """

    communities: tuple[int, ...]
    network: str
    precision: Precision
    board: int
    round: int = 1
    copies: tuple[int, ...] = ()

    @property
    def boards(self) -> tuple[int, ...]:
        """All boards that hold it; the host waits for the first one."""
        return (self.board, *self.copies)


@dataclass(frozen=True, slots=True)
class Assignment:
    """All students, and the ids of the communities that are dropped.

    `send_order` names boards by their places in the fleet.  It is empty where the solver decided
    nothing that longest first (`simulator.workloads.fan_out`) does not do as well.  `stem` is G0 on
    a board of its own; None: each board has a copy.
    """

    students: tuple[AssignedStudent, ...]
    dropped: tuple[int, ...]
    send_order: tuple[int, ...] = ()
    stem: DedicatedStem | None = None

    @property
    def boards_at_work(self) -> int:
        """How many boards have a student, or G0 alone."""
        students = {board for student in self.students for board in student.boards}
        return len(students) + (self.stem is not None)


CostSlope = tuple[int, int, int, int]
"""Parameters and MACs that one more filter costs a student, bytes of a value, and a number of the
devices (as bits) on which layers predict its time."""


@dataclass(frozen=True, slots=True)
class Mode:
    """A network at a precision, as a student may be.

    Options of one `cost_slope` have as many parameters, MACs, bytes and ms more per filter.
    `line_without_stem` is what remains of `line` where G0 is on a board of its own.
    """

    name: str
    precision: Precision
    group0: str
    cost_slope: CostSlope
    line: StudentCostLine
    line_without_stem: StudentCostLine

    def __hash__(self) -> int:
        """Hash of what tells modes apart; all figures would take too long."""
        return hash((self.name, self.precision, self.cost_slope))

    @classmethod
    def of(
        cls,
        spec: NetworkSpec,
        precision: Precision,
        image: ImageShape,
        devices: Iterable[DeviceProfile] = (),
    ) -> "Mode":
        """Describe a network that looks at images of this shape, on any of `devices`."""
        line, behind = (student_cost_line(spec, image, own) for own in (True, False))
        timed = (time_line(d, one.outline) is not None for d in devices for one in (line, behind))
        bits = sum(known << place for place, known in enumerate(timed))
        head = (*line.growth, BYTES_PER_VALUE[precision], bits)
        return cls(str(spec), precision, spec.group0, head, line, behind)

    def student(
        self, communities: Sequence[int], boards: Sequence[int], number: int = 1
    ) -> AssignedStudent:
        """Return a student of this option, in the round of this number, on boards."""
        own = tuple(sorted(communities))
        first, *copies = boards
        return AssignedStudent(own, self.name, self.precision, first, number, tuple(copies))

    @property
    def value_bytes(self) -> int:
        """Bytes of one parameter or activation."""
        return BYTES_PER_VALUE[self.precision]

    def memory_bytes(self, filters: int) -> int:
        """Bytes of parameters and peak activations."""
        return self.line.at(filters).memory_bytes(self.precision)

    def flash_bytes(self, filters: int) -> int:
        """Bytes of parameters."""
        return self.line.at(filters).flash_bytes(self.precision)

    def ram_bytes(self, filters: int) -> int:
        """Bytes of peak activations."""
        return self.line.at(filters).ram_bytes(self.precision)


@dataclass(frozen=True, slots=True)
class DropChoice:
    """A union of communities that may be dropped as P0."""

    communities: frozenset[int]
    filters: int
    delta_val_pct: float
    loss_bound_pct: float = 0.0

    @property
    def delta_units(self) -> int:
        """|delta_val| in solver units."""
        return round_up(self.delta_val_pct, UNITS_PER_POINT)

    @property
    def worst_units(self) -> int:
        """Cost that is held against epsilon, in solver units."""
        return round_up(max(self.delta_val_pct, self.loss_bound_pct), UNITS_PER_POINT)

    def dropped(self, worth: Callable[["DropChoice"], int]) -> int:
        """Worth of it, as plans with this choice have it."""
        return worth(self)


def drop_choice(step: DropStep) -> DropChoice:
    """Choice of a drop step; an unmeasured allowed one (g0) counts as no change."""
    delta_val_pct = abs(step.delta_val_pct or 0.0)
    return DropChoice(
        frozenset(step.communities), step.filters, delta_val_pct, step.loss_bound_pct or 0.0
    )
