"""Figures of a question in whole numbers: what students need and gain on boards.

Times and energies are rounded down, so that they bound exact ones from below.  Knows no solver and
nothing of the planner's models.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from nonn_core.networks.network_cost import (
    Cost,
    Precision,
    StudentCostLine,
    group0_cost,
    group0_table,
    head_peaks,
    student_cost_line,
)
from planner.certificates import PRODUCT, SUMS, UNITS
from planner.problem.goals import MAXIMISED
from planner.problem.problem import Problem
from profiles.device import DEVICES, DeviceProfile, slowdown
from profiles.fleet import Board
from profiles.layer import BYTES_PER_VALUE
from profiles.operating_point import most_macs_within
from simulator.graph_builder import join_ms, send_ms
from simulator.workloads.fan_out import reply_ms
from simulator.workloads.layer_parts import Work, time_line, work_mj, work_ms

NOISE = 1e-3
"""Part of a unit that is taken for noise of binary fractions."""

MEMORY, MACS, BUSY, ENERGY, LATE = range(5)
"""Needs of a set of students: bytes, MACs, time and energy, and time until the reply is there."""
GAINS = ("params", "macs", "memory_bytes", "value_bytes", "energy", "students")
"""Measures that a set of students adds to."""


def signed_measure(objective: str, gains: Sequence[int]) -> int:
    """Part of a board's set in an objective, negative where less is better."""
    name = SUMS.get(objective, objective)
    amount = 1 if name == "boards" else gains[GAINS.index(name)]
    return amount if objective in MAXIMISED or objective in PRODUCT else -amount


Company = Literal["alone", "several", "any"]
"""Whether a board has one student or more: `any` takes the lesser cost of both.

Where several share G0, each figure is that of the one that pays for it; `following` has the others.
"""


@dataclass(frozen=True, slots=True)
class StudentPart:
    """A student, or a community more of one: mode, needs of a board, gains.

    `slope` numbers the modes whose costs grow alike with filters.
    """

    mode: int
    slope: int
    needs: tuple[int, ...]
    gains: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StudentMode:
    """A network at a precision, with its costs as lines in the number of filters."""

    network: str
    group0: str
    precision: Precision
    line: StudentCostLine

    @property
    def value_bytes(self) -> int:
        """Bytes of a parameter or activation."""
        return BYTES_PER_VALUE[self.precision]

    @property
    def stem(self) -> Cost:
        """Cost of its G0."""
        return group0_cost(self.line.outline.spec, self.line.outline.image)

    def joint_peak(self, filters: int) -> int:
        """Peak elements of a joint model with this student, the others' features not counted."""
        behind = max(fixed + slope * filters for fixed, slope in head_peaks(self.line.outline))
        return max(self.stem.peak_elements, behind)

    def works(self, device: DeviceProfile, filters: int) -> tuple[Work, Work] | None:
        """Times of a student and its G0 by layers; None where unknown."""
        outline = self.line.outline
        times = time_line(device, outline)
        if times is None:
            return None
        stem_ms = times.predictor.total_ms(group0_table(outline.spec, outline.image))
        return None if stem_ms is None else (times.at(filters), times.predictor.predicted(stem_ms))


PartKey = tuple[str, Company, bool]
"""Shape of G0, company, and whether times count."""
Parts = tuple[StudentPart, ...]


class CostTables:
    """Figures of a question: what each student needs and gains on each board."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.boards: tuple[Board, ...] = problem.boards
        image = problem.image_shape
        self.modes = tuple(
            StudentMode(str(spec), spec.group0, precision, student_cost_line(spec, image))
            for spec in problem.specs
            for precision in problem.precisions
        )
        self.sizes = tuple(len(one.filters) for one in problem.partition.communities)
        self._binding: dict[object, tuple[int, ...]] = {}
        self._parts: dict[object, tuple[StudentPart, ...]] = {}
        self._slopes: dict[int, dict[object, int]] = defaultdict(dict)

    @cached_property
    def sends(self) -> tuple[int, ...]:
        """Time of the sender for each board's image, rounded down."""
        size = self.problem.image_shape.size_bytes
        return tuple(_down(send_ms(board, size)) for board in self.boards)

    @cached_property
    def delays(self) -> tuple[int, ...]:
        """Time under way to each board and back, rounded down."""
        return tuple(_down(2 * board.link.latency_ms.value) for board in self.boards)

    @cached_property
    def join(self) -> int:
        """Time of the host from the last reply to the answer, rounded down."""
        return _down(min(map(join_ms, _hosts(self.problem))))

    def around(self, place: int) -> int:
        """Latency beside a board's send and late part: under way, and the join."""
        return self.join + self.delays[place]

    def limits(self, place: int) -> list[int | None]:
        """Budgets of a board by need; None is no limit."""
        budget = self.problem.budgets[place]
        times = (
            None if limit is None else math.ceil(limit * UNITS + NOISE)
            for limit in (budget.busy_ms, budget.energy_mj)
        )
        macs = (budget.macs, self._most_macs(place))
        most = min((limit for limit in macs if limit is not None), default=None)
        return [max(0, budget.memory_bytes - budget.runtime_bytes), most, *times, None]

    def _most_macs(self, place: int) -> int | None:
        """MACs with which a board keeps its power limit; None for any number."""
        power_w = self.problem.budgets[place].power_w
        return None if power_w is None else most_macs_within(self.boards[place].device, power_w)

    def alike(self, place: int) -> object:
        """Key of boards that are alike: device, link and budgets."""
        budget = self.problem.budgets[place].model_copy(update={"board": "one"})
        return self.boards[place].device, self.boards[place].link, budget

    def first(self, place: int, filters: int, group0: str, company: Company, timed: bool) -> Parts:
        """Students of so many filters, one for each mode of a shape of G0."""
        key = (place, filters, group0, company, timed, "first")
        if key not in self._parts:
            self._parts[key] = tuple(
                self._student(place, number, filters, company, timed)
                for number, mode in enumerate(self.modes)
                if mode.group0 == group0
            )
        return self._parts[key]

    def joining(
        self, place: int, filters: int, group0: str, company: Company, timed: bool
    ) -> Parts:
        """Costs of so many filters more of a student, one for each slope."""
        key = (place, filters, group0, company, timed, "joining")
        if key not in self._parts:
            found: dict[int, StudentPart] = {}
            for number, mode in enumerate(self.modes):
                if mode.group0 == group0:
                    part = self._further(place, number, filters, company, timed)
                    found.setdefault(part.slope, part)
            self._parts[key] = tuple(found.values())
        return self._parts[key]

    def following(self, place: int, filters: int, group0: str, timed: bool) -> Parts:
        """Students whose G0 another one pays for, one for each mode."""
        key = (place, filters, group0, timed, "following")
        if key not in self._parts:
            self._parts[key] = tuple(
                self._follower(place, number, filters, timed)
                for number, mode in enumerate(self.modes)
                if mode.group0 == group0
            )
        return self._parts[key]

    @cached_property
    def peak_bytes(self) -> tuple[int, ...]:
        """Peak of a joint model with each mode, as far as no filter counts."""
        return tuple(mode.value_bytes * mode.joint_peak(0) for mode in self.modes)

    @cached_property
    def shares_group0(self) -> bool:
        """Whether students of a board and a precision share its copy of G0."""
        return self.problem.group0_copies == "per-board"

    def binding(
        self, place: int, kept: tuple[int, ...], limits: tuple[int | None, ...], key: PartKey
    ) -> tuple[int, ...]:
        """Needs of which all communities together could exceed the limit."""
        known = (place, kept, limits, key)
        if known not in self._binding:
            parts = [
                [*self.first(place, self.sizes[c], *key), *self.joining(place, self.sizes[c], *key)]
                for c in kept
            ]
            self._binding[known] = tuple(
                need
                for need, limit in enumerate(limits)
                if limit is not None
                and sum(max(one.needs[need] for one in row) for row in parts if row) > limit
            )
        return self._binding[known]

    def _student(
        self, place: int, number: int, filters: int, company: Company, timed: bool
    ) -> StudentPart:
        mode = self.modes[number]
        cost = mode.line.at(filters)
        size = cost.memory_bytes(mode.precision)
        if self.shares_group0 and company == "several":
            size = mode.value_bytes * (cost.params + mode.joint_peak(filters))
        busy = energy = late = 0
        if timed:
            busy, energy = self._spent(place, number, filters, company)
            late = busy + _down(reply_ms(self.boards[place], filters))
        needs = (size, cost.macs, busy, energy, late)
        gains = (cost.params, cost.macs, size, mode.value_bytes, energy, 1)
        return StudentPart(number, self._slope(place, number), needs, gains)

    def _further(
        self, place: int, number: int, filters: int, company: Company, timed: bool
    ) -> StudentPart:
        mode = self.modes[number]
        params, macs = (each * filters for each in mode.line.growth)
        size = mode.value_bytes * params
        busy = energy = late = 0
        if timed:
            ends = (self._spent(place, number, n, company) for n in (1, 1 + filters))
            (busy, energy), (more_busy, more_energy) = ends
            busy, energy = max(0, more_busy - busy - 1), max(0, more_energy - energy - 1)
            late = busy + max(0, _down(reply_ms(self.boards[place], filters)))
        needs = (size, macs, busy, energy, late)
        gains = (params, macs, size, 0, energy, 0)
        return StudentPart(number, self._slope(place, number), needs, gains)

    def _follower(self, place: int, number: int, filters: int, timed: bool) -> StudentPart:
        """Cost of a head: that of a joint model with it, less that without."""
        mode = self.modes[number]
        cost, stem = mode.line.at(filters), mode.stem
        params, macs = cost.params - stem.params, cost.macs - stem.macs
        size = mode.value_bytes * params
        busy = energy = late = 0
        if timed:
            busy, energy = self._spent(place, number, filters, "several", head=True)
            late = busy + _down(reply_ms(self.boards[place], filters))
        needs = (size, macs, busy, energy, late)
        gains = (params, macs, size, mode.value_bytes, energy, 1)
        return StudentPart(number, self._slope(place, number), needs, gains)

    def _factor(self, place: int, company: Company) -> float:
        """Least slowdown of a board with so many models."""
        factor = 1.0 if company == "alone" else slowdown(self.boards[place].device, 2)
        one_model = self.shares_group0 and company == "several"
        if company == "any" or (one_model and len(self.problem.precisions) > 1):
            return min(1.0, factor)
        return 1.0 if one_model else factor

    def _spent(
        self, place: int, number: int, filters: int, company: Company, head: bool = False
    ) -> tuple[int, int]:
        """Time and energy of one student, or of its head alone, rounded down.

        A joint model goes by FLOPs where the layers of one of its students are unknown.
        """
        device, mode = self.boards[place].device, self.modes[number]
        by_layers = mode.works(device, filters)
        ways = [] if by_layers is None else [by_layers]
        if by_layers is None or (company == "several" and self._mixed(device)):
            ways.append((mode.line.at(filters).macs, mode.stem.macs))
        ms, mj = (
            min(cost(device, whole) - (cost(device, stem) if head else 0.0) for whole, stem in ways)
            if cost is work_ms or device.power_known
            else 0.0
            for cost in (work_ms, work_mj)
        )
        factor = self._factor(place, company)
        return _down(factor * ms), _down(factor * mj)

    def _mixed(self, device: DeviceProfile) -> bool:
        """Whether students share G0, and the layers of some are known alone."""
        return (
            self.shares_group0 and len({mode.works(device, 1) is None for mode in self.modes}) > 1
        )

    def _slope(self, place: int, number: int) -> int:
        """Number of a slope, of which modes have equal costs per filter."""
        mode, device = self.modes[number], self.boards[place].device
        times = time_line(device, mode.line.outline)
        growth = None if times is None else times.ms_per_filter
        key = (*mode.line.growth, mode.value_bytes, growth)
        slopes = self._slopes[place]
        return slopes.setdefault(key, len(slopes))


def _hosts(problem: Problem) -> Iterable[DeviceProfile]:
    return [DEVICES.get(name) for name in problem.hosts] or [problem.fleet_host]


def _down(value: float) -> int:
    """Millionths, rounded down; a thousandth of one is noise."""
    return math.floor(value * UNITS - NOISE) if value > 0 else 0
