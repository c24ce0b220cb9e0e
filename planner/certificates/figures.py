"""Figures of a question and of a plan, rebuilt in plain integers.

Times and energies are rounded down, so that they bound exact ones from below.  What a plan file
says of its own plan is replayed.  Knows no solver and nothing of the planner's models.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import Precision, StudentCostLine, student_cost_line
from planner.certificates import PRODUCT, SUMS, UNITS
from planner.problem.goals import MAXIMISED
from planner.problem.problem import Problem
from profiles.device import DEVICES, DeviceProfile, slowdown
from profiles.fleet import Board
from profiles.layer import BYTES_PER_VALUE
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
"""Whether a board has one student or more: `any` takes the lesser cost of both."""


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

    def work(self, device: DeviceProfile, filters: int) -> Work:
        """Time on a device that knows its layers, else its MACs."""
        times = time_line(device, self.line.outline)
        return self.line.at(filters).macs if times is None else times.at(filters)


PartKey = tuple[str, Company, bool]
"""Shape of G0, company, and whether times count."""


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
        return [max(0, budget.memory_bytes - budget.runtime_bytes), budget.macs, *times, None]

    def alike(self, place: int) -> object:
        """Key of boards that are alike: device, link and budgets."""
        budget = self.problem.budgets[place].model_copy(update={"board": "one"})
        return self.boards[place].device, self.boards[place].link, budget

    def first(
        self, place: int, filters: int, group0: str, company: Company, timed: bool
    ) -> tuple[StudentPart, ...]:
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
    ) -> tuple[StudentPart, ...]:
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

    def _spent(self, place: int, number: int, filters: int, company: Company) -> tuple[int, int]:
        """Time and energy of one student, rounded down."""
        device = self.boards[place].device
        factor = 1.0 if company == "alone" else slowdown(device, 2)
        if company == "any":
            factor = min(1.0, factor)
        work = self.modes[number].work(device, filters)
        energy = factor * work_mj(device, work) if device.power_known else 0.0
        return _down(factor * work_ms(device, work)), _down(energy)

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


@dataclass(frozen=True)
class PlanReplay:
    """A plan file's plain content, replayed in whole numbers from its question."""

    problem: Problem
    plan: Mapping[str, Any]

    def false_claims(self) -> Iterator[str]:
        """Sentences for all that is untrue of students, budgets, counts and requirements."""
        yield from self._wrong_students()
        yield from self._misplaced()
        yield from self._wrong_budgets()
        values = self._values()
        for stage in self.plan["stages"]:
            value = values.get(stage["objective"], stage["value"])
            if stage["value"] != value:
                yield f"{stage['objective']} is {value:g}, not {stage['value']:g}"
        for asked in self.problem.requirements:
            value = values.get(asked.objective, asked.bound)
            sign = -1 if asked.objective in MAXIMISED else 1
            if sign * value > sign * asked.bound:
                yield f"{asked} is required; the plan has {value:g}"

    def _wrong_students(self) -> Iterator[str]:
        """Figures that are not those of a student's network and number of filters."""
        problem = self.problem
        for one in self.plan["students"]:
            if one["network"] not in problem.networks or one["precision"] not in problem.precisions:
                yield f"{one['name']}: {one['network']} {one['precision']} is not asked for"
            spec, own = parse_network(one["network"]), self.plan["group0"] is None
            cost = student_cost_line(spec, problem.image_shape, own).at(len(one["filters"]))
            rights = (
                ("params", cost.params),
                ("macs", cost.macs),
                ("peak_elements", cost.peak_elements),
                ("memory_bytes", cost.memory_bytes(one["precision"])),
            )
            for name, right in rights:
                if one[name] != right:
                    yield f"{one['name']}: {name} is {one[name]}; it should be {right}"

    def _misplaced(self) -> Iterator[str]:
        """Communities that are not in one place, and students that are not allowed."""
        problem, plan = self.problem, self.plan
        known = {one.id: one.filters for one in problem.partition.communities}
        first = [one for one in plan["students"] if one["round"] == 1]
        held = Counter(c for one in first for c in one["communities"])
        held.update(plan["dropped"])
        yield from (f"community {c} is in {held[c]} places" for c in known if held[c] != 1)
        steps = (one for one in problem.partition.drop_steps if problem.allows(one))
        if not any(set(one.communities) == set(plan["dropped"]) for one in steps):
            yield f"communities {plan['dropped']} may not be dropped"
        for one in first:
            if set(one["filters"]) != {n for c in one["communities"] for n in known.get(c, ())}:
                yield f"{one['name']}: its filters are not those of its communities"
        if not problem.min_students <= len(plan["students"]) <= problem.most_students:
            yield f"{len(plan['students'])} students are not asked for"
        if len({parse_network(one["network"]).group0 for one in plan["students"]}) > 1:
            yield "students differ in G0, which they share"

    def _wrong_budgets(self) -> Iterator[str]:
        """Use of memory and MACs that is above a budget, or not as written."""
        rows = {(row["board"], row["budget"]): row["used"] for row in self.plan["budgets"]}
        for budget in self.problem.budgets:
            here = [one for one in self._models() if budget.board in _boards(one)]
            runtime = budget.runtime_bytes if here else 0
            for name, limit, fixed in (
                ("memory_bytes", budget.memory_bytes, runtime),
                ("macs", budget.macs, 0),
            ):
                used = fixed + sum(one[name] for one in here)
                if limit is not None and used > limit:
                    yield f"{budget.board} uses {used} of {limit} {name}"
                if rows.get((budget.board, name)) != used:
                    yield f"{budget.board} uses {used} {name}; the file says otherwise"

    def _models(self) -> list[Mapping[str, Any]]:
        alone = self.plan["group0"]
        return [*self.plan["students"], *([] if alone is None else [alone])]

    def _values(self) -> dict[str, float]:
        """Values of the objectives that are counted."""
        plan, models = self.plan, self._models()
        sizes = [len(one["filters"]) for one in plan["students"]]
        known = {one.id: len(one.filters) for one in self.problem.partition.communities}
        lost = sum(known.get(c, 0) for c in plan["dropped"])
        return {
            "capacity": sum(one["params"] for one in models),
            "memory": sum(one["memory_bytes"] * len(_boards(one)) for one in models),
            "flops": 2 * sum(one["macs"] * len(_boards(one)) for one in models),
            "students": len(sizes),
            "imbalance": max(sizes) - min(sizes),
            "boards": len({board for one in models for board in _boards(one)}),
            "precision": sum(BYTES_PER_VALUE[one["precision"]] for one in plan["students"]),
            "dropped": abs(plan["delta_val_pct"] or 0.0) - lost,
        }


def _boards(model: Mapping[str, Any]) -> list[str]:
    return [model["board"], *model.get("replicas", ())]
