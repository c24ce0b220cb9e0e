"""Figures of a question in whole numbers: what students need and gain on boards.

Times and energies are rounded down, so that they bound exact ones from below.  Knows no solver and
nothing of the planner's models.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Literal, NamedTuple

from nonn_core.networks.network_cost import (
    Cost,
    Precision,
    StudentCostLine,
    group0_cost,
    group0_table,
    head_peaks,
    student_cost_line,
)
from planner.certificates import NOISE, PRODUCT, SUMS, UNITS
from planner.problem.budgets import BoardBudget, BudgetName
from planner.problem.goals import MAXIMISED
from planner.problem.problem import Problem
from profiles.device import DEVICES, DeviceProfile, slowdown
from profiles.fleet import Board
from profiles.layer import BYTES_PER_VALUE
from profiles.operating_point import most_macs_within
from simulator.graph_builder import join_ms, send_ms
from simulator.workloads.fan_out import reply_ms
from simulator.workloads.layer_parts import Work, time_line, work_mj, work_ms

LEAST_FEATURES = 2
"""Filters of two students together, at least."""

MEMORY, FLASH, MACS, BUSY, ENERGY, LATE = range(6)
"""Needs of a set of students: bytes, those of weights, MACs, time, energy, time to the reply."""
GAINS = ("params", "known_macs", "macs", "memory_bytes", "value_bytes", "energy", "students")
"""Measures that a set of students adds to; what it knows counts a shared G0 once for the board."""
MEASURES = SUMS | {"params": "params", "macs": "known_macs"}
"""Measure of each weight, those of accuracy among them."""


def signed_measure(objective: str, gains: Sequence[int]) -> int:
    """Part of a board's set in an objective, negative where less is better."""
    name = MEASURES[objective]
    amount = 1 if name == "boards" else gains[GAINS.index(name)]
    return amount if objective in MAXIMISED or objective in PRODUCT else -amount


Company = Literal["alone", "several", "any"]
"""Whether a board runs one model or more: `any` takes the lesser cost of both."""


class Role(NamedTuple):
    """Part of a student in what its board runs.

    It is a model of its own; or it has a head of a joint one, whose first student pays for G0.  Its
    G0 may be `counted` as knowledge, and its filters as `features`, which stay alive.
    """

    company: Company
    share: Literal["own", "first", "further"] = "own"
    counted: bool = True
    features: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class BoardModels:
    """Models that a board may run together: modes, their roles, and which one student has.

    `roles` are mode, role and, of a role that one student has, its bit; `once` are all these bits.
    `company` tells students with models of their own apart, where they have them.
    """

    company: Company
    roles: tuple[tuple[int, Role, int], ...]
    once: int = 0


@dataclass(frozen=True, slots=True)
class StudentPart:
    """A student, or a community more of one: mode, needs of a board, gains.

    `slope` numbers the modes whose costs grow alike with filters.  `ram` is the least peak of
    activations, in bytes, of a model with so many filters; models run one after the other.
    """

    mode: int
    slope: int
    needs: tuple[int, ...]
    gains: tuple[int, ...]
    ram: int = 0


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

    def behind(self, filters: int) -> int:
        """Peak elements behind G0 in a joint model, its students' features not counted."""
        return max(fixed + slope * filters for fixed, slope in head_peaks(self.line.outline))

    def joint_ram(self, filters: int) -> int:
        """Least bytes of the peak of a joint model with such a student."""
        return self.value_bytes * max(self.stem.peak_elements, self.behind(filters) + filters)

    def least_ram(self, filters: int) -> int:
        """Least bytes of the peak of a model with so many filters, or more."""
        alone = self.line.at(filters).peak_elements
        return min(self.value_bytes * alone, self.joint_ram(filters))

    def works(self, device: DeviceProfile, filters: int) -> tuple[Work, Work] | None:
        """Times of a student and its G0 by layers; None where unknown."""
        outline = self.line.outline
        times = time_line(device, outline)
        if times is None:
            return None
        stem_ms = times.predictor.total_ms(group0_table(outline.spec, outline.image))
        return None if stem_ms is None else (times.at(filters), times.predictor.predicted(stem_ms))


ONE_STUDENT = 1 << 490
"""Bit of the first role that one student of a board has."""


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
        self._students: dict[object, StudentPart] = {}
        self._growths: dict[object, StudentPart] = {}
        self._own: dict[object, BoardModels] = {}
        self._joint: dict[object, tuple[BoardModels, ...]] = {}
        self.binding: dict[object, tuple[int, ...]] = {}
        self.parts: dict[object, tuple[tuple[StudentPart, int], ...]] = {}
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
        sizes = (_room(budget, name) for name in ("memory_bytes", "flash_bytes"))
        return [*sizes, most, *times, None]

    def ram_limit(self, place: int) -> int | None:
        """Bytes that a board has for the activations of one model; None is no limit."""
        return _room(self.problem.budgets[place], "ram_bytes")

    def _most_macs(self, place: int) -> int | None:
        """MACs with which a board keeps its power limit; None for any number."""
        power_w = self.problem.budgets[place].power_w
        return None if power_w is None else most_macs_within(self.boards[place].device, power_w)

    def alike(self, place: int) -> object:
        """Key of boards that are alike: device, link and budgets."""
        budget = self.problem.budgets[place].model_copy(update={"board": "one"})
        return self.boards[place].device, self.boards[place].link, budget

    def student(
        self, place: int, number: int, filters: int, role: Role, timed: bool
    ) -> StudentPart:
        """Student of so many filters in a mode."""
        key = place, number, filters, role, timed
        if key not in self._students:
            self._students[key] = self._student(place, number, filters, role, timed)
        return self._students[key]

    def growth(self, place: int, number: int, filters: int, role: Role, timed: bool) -> StudentPart:
        """So many filters more of a student in a mode."""
        key = place, number, filters, role, timed
        if key not in self._growths:
            self._growths[key] = self._growth(place, number, filters, role, timed)
        return self._growths[key]

    def numbers(self, group0: str) -> tuple[int, ...]:
        """Numbers of the modes of a shape of G0."""
        return tuple(n for n, mode in enumerate(self.modes) if mode.group0 == group0)

    def own_models(self, group0: str, company: Company) -> BoardModels:
        """Students that are a model each."""
        key = group0, company
        if key not in self._own:
            roles = tuple((n, Role(company), 0) for n in self.numbers(group0))
            self._own[key] = BoardModels(company, roles)
        return self._own[key]

    def joint_models(self, group0: str, *, slowed: bool, generous: bool) -> tuple[BoardModels, ...]:
        """Models of students that share G0: of each precision none, alone, or joint.

        Which mode has the largest peak behind G0 is tried.  Where `slowed`, several models are; a
        `generous` count takes the G0 of each student for knowledge.
        """
        key = group0, slowed, generous
        if key not in self._joint:
            modes = self.numbers(group0)
            ways: list[list[tuple[Precision, int | None] | None]] = []
            for precision in self.problem.precisions:
                alike = (self.modes[n] for n in modes if self.modes[n].precision == precision)
                own = {mode.behind(0) for mode in alike}
                ways.append([None, (precision, None), *((precision, each) for each in sorted(own))])
            self._joint[key] = tuple(
                self._models([one for one in chosen if one is not None], *key)
                for chosen in product(*ways)
                if any(chosen)
            )
        return self._joint[key]

    def _models(
        self,
        models: Sequence[tuple[Precision, int | None]],
        group0: str,
        slowed: bool,
        generous: bool,
    ) -> BoardModels:
        """Roles in these models, given by precision and peak behind G0, None for one student.

        What the students' features and that peak take is the most, or else what G0 takes.
        """
        company: Company = "any"
        if slowed:
            company = "several" if len(models) > 1 else "alone"
        roles: list[tuple[int, Role, int]] = []
        for place, (precision, peak) in enumerate(models):
            once, counted = ONE_STUDENT << place, generous or not place
            for number in self.numbers(group0):
                mode = self.modes[number]
                if mode.precision != precision:
                    continue
                if peak is None:
                    roles.append((number, Role(company, "own", counted), once))
                elif mode.behind(0) <= peak:
                    features = peak + LEAST_FEATURES >= mode.stem.peak_elements
                    if mode.behind(0) == peak:
                        role = Role(company, "first", counted, features)
                        roles.append((number, role, once))
                    roles.append((number, Role(company, "further", generous, features), 0))
        return BoardModels("any", tuple(roles), (ONE_STUDENT << len(models)) - ONE_STUDENT)

    @cached_property
    def shares_group0(self) -> bool:
        """Whether students of a board and a precision share its copy of G0."""
        return self.problem.group0_copies == "per-board"

    def _student(
        self, place: int, number: int, filters: int, role: Role, timed: bool
    ) -> StudentPart:
        """Of a head: the cost of a joint model with it, less that without."""
        mode = self.modes[number]
        cost, stem = mode.line.at(filters), mode.stem
        params, macs, peak = cost.params, cost.macs, cost.peak_elements
        ram = mode.value_bytes * peak if role.share == "own" else mode.joint_ram(filters)
        if role.share == "first":
            peak = mode.behind(filters)
            peak = peak if role.features else max(stem.peak_elements, peak)
        elif role.share == "further":
            params, macs, peak = params - stem.params, macs - stem.macs, 0
        stored = mode.value_bytes * params
        size = stored + mode.value_bytes * (peak + role.features * filters)
        busy = energy = late = 0
        if timed:
            busy, energy = (
                min(map(_down, ways)) for ways in self._spent(place, number, filters, role)
            )
            late = busy + _down(reply_ms(self.boards[place], filters))
        known = (0, 0) if role.counted else (stem.params, stem.macs)
        gains = (
            *(cost.params - known[0], cost.macs - known[1], macs),
            *(size, mode.value_bytes, energy, 1),
        )
        needs = (size, stored, macs, busy, energy, late)
        return StudentPart(number, self._slope(place, number), needs, gains, ram)

    def _growth(
        self, place: int, number: int, filters: int, role: Role, timed: bool
    ) -> StudentPart:
        mode = self.modes[number]
        params, macs = (each * filters for each in mode.line.growth)
        size = mode.value_bytes * (params + role.features * filters)
        busy = energy = late = 0
        if timed:
            ends = (self._spent(place, number, n, role) for n in (1, 1 + filters))
            # In each way of timing: the lesser of two ways grows otherwise than either.
            busy, energy = (
                max(0, min(_down(more) - _down(less) - 1 for less, more in zip(*both, strict=True)))
                for both in zip(*ends, strict=True)
            )
            late = busy + max(0, _down(reply_ms(self.boards[place], filters)))
        gains = (params, macs, macs, size, 0, energy, 0)
        needs = (size, mode.value_bytes * params, macs, busy, energy, late)
        slope = self._slope(place, number)
        return StudentPart(number, slope, needs, gains, mode.least_ram(filters))

    def _spent(
        self, place: int, number: int, filters: int, role: Role
    ) -> tuple[list[float], list[float]]:
        """Time and energy of one student, or its head, in each way of timing.

        A joint model goes by FLOPs where the layers of one of its students are unknown.
        """
        device, mode = self.boards[place].device, self.modes[number]
        slow = slowdown(device, 2)
        factor = {"alone": 1.0, "several": slow, "any": min(1.0, slow)}[role.company]
        by_layers, head = mode.works(device, filters), role.share == "further"
        ways = [] if by_layers is None else [by_layers]
        if by_layers is None or (role.share != "own" and self._mixed(device)):
            ways.append((mode.line.at(filters).macs, mode.stem.macs))
        ms, mj = (
            [
                factor * (cost(device, whole) - (cost(device, stem) if head else 0.0))
                if cost is work_ms or device.power_known
                else 0.0
                for whole, stem in ways
            ]
            for cost in (work_ms, work_mj)
        )
        return ms, mj

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


def _room(budget: BoardBudget, name: BudgetName) -> int | None:
    """Bytes of a budget beside what the runtime takes of it."""
    limit: int | None = getattr(budget, name)
    return None if limit is None else max(0, limit - budget.allowance(name))


def _hosts(problem: Problem) -> Iterable[DeviceProfile]:
    return [DEVICES.get(name) for name in problem.hosts] or [problem.fleet_host]


def _down(value: float) -> int:
    """Millionths, rounded down; a thousandth of one is noise."""
    return math.floor(value * UNITS - NOISE) if value > 0 else 0
