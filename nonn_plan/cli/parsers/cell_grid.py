"""Cells of `explore`: the grid over fleets, budgets and objectives, fronts, break-points."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product, starmap
from typing import TYPE_CHECKING, Self

from nonn_common.errors import InputError
from nonn_common.units import FLOPS_PER_MAC, parse_w
from nonn_core.partition import Partition
from nonn_plan.cli.parsers.problem_options import ProblemOptions
from planner.problem.budgets import BudgetName
from planner.problem.goals import ObjectiveLevel
from profiles.fleet import Fleet, parse_fleet

if TYPE_CHECKING:
    from planner.exploration.budget_grid import BudgetGrid
    from planner.exploration.cell import CellKind
    from planner.exploration.exploration import PlannedCell
    from planner.problem.problem import Problem


MOST_VALUES = 1000
STEPPED: Mapping[str, tuple[str, BudgetName]] = {
    "memory": ("memory_bytes", "memory_bytes"),
    "flops": ("flops", "macs"),
    "flash": ("flash_bytes", "flash_bytes"),
    "ram": ("ram_bytes", "ram_bytes"),
}
"""Axes that have break-points: field of a cell's place, and the budget of boards."""


@dataclass(frozen=True, slots=True)
class BudgetAxis:
    """Values of a budget on every board, and those of single boards.

    One value, None, where nothing was said for every board.  `ends` are the least and the largest
    number that was typed for them: a range may end between two steps.  `unit` is the last one that
    was typed, of which there are `scale` in what values count.
    """

    values: tuple[int | None, ...]
    own: tuple[str, ...]
    ends: tuple[int, int] | None
    unit: str = ""
    scale: int = 0

    def text(self, value: int | None, noun: str) -> str | None:
        """A value in the unit that was typed; None where none was."""
        if value is None or not self.scale:
            return None
        return f"{value / self.scale:g} {self.unit}{noun}"


def parse_axis(
    option: str, texts: Sequence[str], parse: Callable[[str, str], int], *, ends: bool
) -> BudgetAxis:
    """Read `300KB:1MB:50KB`, `300KB,500KB`, `500KB` and `BOARD=500KB`.

    `ends`: a range without steps, `300KB:1MB`, means its two ends.  Raises InputError.
    """
    own = tuple(text for text in texts if "=" in text)
    for text in own:
        parse(text.rpartition("=")[2], f"{option} {text}")
    ranges = [part.strip() for text in texts if "=" not in text for part in text.split(",")]
    values = [value for each in ranges for value in _axis_values(option, each, parse, ends=ends)]
    typed = [parse(end, option) for each in ranges for end in each.split(":")[:2]]
    distinct = tuple(sorted(set(values)))
    if len(distinct) > MOST_VALUES:
        raise InputError(
            "too many values", where=option, found=len(distinct), allowed=f"up to {MOST_VALUES}"
        )
    ends_typed = (min(typed), max(typed)) if typed else None
    unit = (
        re.sub(r"(?i)b$|flops?$", "", ranges[-1].split(":")[-1].strip("0123456789. "))
        if ranges
        else ""
    )
    kind = "B" if option in ("--memory", "--flash", "--ram") else ""
    scale = parse(f"1{unit}{kind}", option) if unit else 0
    return BudgetAxis(distinct or (None,), own, ends_typed, unit, scale)


def _axis_values(
    option: str, text: str, parse: Callable[[str, str], int], *, ends: bool
) -> Sequence[int]:
    where = f"{option} {text}"
    parts = [parse(part, where) for part in text.split(":")]
    if len(parts) == 1:
        return parts
    if len(parts) > 3 or (len(parts) == 2 and not ends):
        raise InputError(
            "not a range",
            where=option,
            found=text,
            allowed="START:STOP:STEP, or values with commas",
        )
    start, stop = parts[:2]
    if stop < start:
        raise InputError(
            "the range ends before it starts",
            where=option,
            found=text,
            allowed="START:STOP:STEP with START up to STOP",
        )
    if len(parts) == 2:
        return sorted({start, stop})
    found = range(start, stop + 1, parts[2])
    if len(found) > MOST_VALUES:
        raise InputError(
            "too many values", where=option, found=text, allowed=f"up to {MOST_VALUES}"
        )
    return found


@dataclass(frozen=True, slots=True)
class GridFleet:
    """A fleet as typed, and budgets of its single boards, by axis."""

    text: str
    boards: Fleet
    own: dict[str, tuple[str, ...]]

    @classmethod
    def of(cls, text: str, axes: Mapping[str, BudgetAxis]) -> Self:
        """Read a fleet; raises ProfileError for an unknown one."""
        boards = parse_fleet(text)
        names = {board.name for board in boards.boards}
        own = {
            name: tuple(each for each in axis.own if each.rpartition("=")[0] in names)
            for name, axis in axes.items()
        }
        return cls(text, boards, own)


@dataclass(frozen=True, slots=True)
class GridPoint:
    """Budgets of every board in one cell: bytes, MACs, mW; None where nothing was said."""

    memory: int | None
    macs: int | None
    power: int | None
    flash: int | None
    ram: int | None

    @property
    def flops(self) -> int | None:
        """The budget of MACs as FLOPs."""
        return None if self.macs is None else FLOPS_PER_MAC * self.macs

    @property
    def further(self) -> tuple[int | None, ...]:
        """Budgets beside memory and FLOPs: of each of their values there is a grid."""
        return self.power, self.flash, self.ram


def parse_mw(text: str, where: str) -> int:
    """Read a power of an axis in whole mW; raises InputError."""
    return round(1000 * parse_w(text, where))


@dataclass(frozen=True, slots=True)
class CellGrid:
    """Partition, options and axes that all cells share."""

    partition: Partition
    options: ProblemOptions
    axes: Mapping[str, BudgetAxis]

    def plans(
        self, fleets: Sequence[GridFleet], objectives: Sequence[str]
    ) -> "Iterator[PlannedCell]":
        """Yield the cells of the grid."""
        for fleet, objective in product(fleets, objectives):
            for at, problem, grid in self._problems(fleet, objective):
                yield self._planned("plan", problem, fleet, at, grid)

    def fronts(self, fleets: Sequence[GridFleet], objective: str | None) -> "Iterator[PlannedCell]":
        """Yield a front for each fleet and budget, if there is to be any."""
        if objective is None:
            return
        levels = tuple(map(ObjectiveLevel.parse, objective.split(",")))
        for fleet in fleets:
            # Of several precisions a plan's last stage prefers more bytes; a front does not.
            for at, problem, grid in self._problems(fleet, objective, objective=levels):
                yield self._planned("front", problem, fleet, at, grid)

    def breakpoints(
        self, fleets: Sequence[GridFleet], objectives: Sequence[str], axis: str | None
    ) -> "Iterator[PlannedCell]":
        """Yield the break-points of one budget, for each value of the other."""
        if axis is None:
            return
        ends = self.axes[axis].ends
        if ends is None or ends[0] == ends[1]:
            raise InputError(f"--breakpoints {axis} needs a range", fix=f"give --{axis} START:STOP")
        for fleet, objective in product(fleets, objectives):
            for at in self._grid(**{axis: (ends[1],)}):
                yield self._steps(self._problem(fleet, at, objective), fleet, axis, ends, at)

    def _grid(self, **fixed: tuple[int | None, ...]) -> "Iterator[GridPoint]":
        axes = {name: axis.values for name, axis in self.axes.items()} | fixed
        names = ("memory", "flops", "power", "flash", "ram")
        yield from starmap(GridPoint, product(*(axes[name] for name in names)))

    def _problems(
        self, fleet: GridFleet, typed: str, **update: object
    ) -> "Iterator[tuple[GridPoint, Problem, BudgetGrid]]":
        """Yield each cell's problem, and the grid of those that differ in memory and FLOPs."""
        from planner.exploration.budget_grid import BudgetGrid

        grids: dict[tuple[int | None, ...], BudgetGrid] = {}
        for at in self._grid():
            if at.further not in grids:
                top = self._problem(fleet, self._loosest(at), typed)
                top = top.model_copy(update=update)
                grids[at.further] = BudgetGrid.of(
                    top,
                    {
                        "memory_bytes": _places_without(fleet, "memory", top),
                        "macs": _places_without(fleet, "flops", top),
                    },
                )
            problem = self._problem(fleet, at, typed).model_copy(update=update)
            yield at, problem, grids[at.further]

    def _loosest(self, at: "GridPoint") -> "GridPoint":
        """The largest budgets of memory and FLOPs beside these others; None is no limit."""
        memory, macs = (self.axes[name].values for name in ("memory", "flops"))
        return replace(
            at,
            memory=None if None in memory else max(filter(None, memory)),
            macs=None if None in macs else max(filter(None, macs)),
        )

    def _problem(self, fleet: GridFleet, at: "GridPoint", objective: str) -> "Problem":
        options = replace(
            self.options,
            memory=[*([] if at.memory is None else [f"{at.memory}B"]), *fleet.own["memory"]],
            flops=[*([] if at.flops is None else [f"{at.flops}"]), *fleet.own["flops"]],
            power=[*([] if at.power is None else [f"{at.power}mW"]), *fleet.own["power"]],
            flash=[*([] if at.flash is None else [f"{at.flash}B"]), *fleet.own["flash"]],
            ram=[*([] if at.ram is None else [f"{at.ram}B"]), *fleet.own["ram"]],
            objective=objective,
        )
        return options.problem(self.partition, fleet.boards, where="nonn-plan explore")

    def _planned(
        self,
        kind: "CellKind",
        problem: "Problem",
        fleet: GridFleet,
        at: "GridPoint",
        grid: "BudgetGrid | None" = None,
    ) -> "PlannedCell":
        from planner.exploration.cell import CellRequest
        from planner.exploration.exploration import CellPlace, PlannedCell

        place = CellPlace(
            fleet=fleet.text,
            memory_bytes=at.memory,
            flops=at.flops,
            power_w=None if at.power is None else at.power / 1000,
            objective=",".join(map(str, problem.objective)),
            memory_text=self.axes["memory"].text(at.memory, "B"),
            flops_text=self.axes["flops"].text(at.macs, "FLOP"),
            flash_bytes=at.flash,
            flash_text=self.axes["flash"].text(at.flash, "B"),
            ram_bytes=at.ram,
            ram_text=self.axes["ram"].text(at.ram, "B"),
        )
        return PlannedCell(place, CellRequest(kind, problem, grid=grid))

    def _steps(
        self,
        problem: "Problem",
        fleet: GridFleet,
        axis: str,
        ends: tuple[int, int],
        at: "GridPoint",
    ) -> "PlannedCell":
        from planner.exploration.cell import CellRequest
        from planner.exploration.trade_offs import BudgetRange

        places = _places_without(fleet, axis, problem)
        if not places:
            raise InputError(f"every board of {fleet.text} has its own {axis}: nothing to move")
        field, budget = STEPPED[axis]
        span = BudgetRange(budget, places, *ends)
        base = self._planned("breakpoints", problem, fleet, at)
        update = {"axis": axis, field: None, f"{axis}_text": None}
        return replace(
            base,
            place=base.place.model_copy(update=update),
            asked=CellRequest("breakpoints", problem, span),
        )


def _places_without(fleet: GridFleet, axis: str, problem: "Problem") -> tuple[int, ...]:
    """Places of boards with this memory, without a budget of their own."""
    own = {text.rpartition("=")[0] for text in fleet.own[axis]}
    return tuple(
        place
        for place, row in enumerate(problem.budgets)
        if row.board not in own and (axis not in ("flash", "ram") or row.flash_bytes is not None)
    )


def check_own_boards(fleets: Sequence[GridFleet], axes: Mapping[str, BudgetAxis]) -> None:
    """Refuse a budget of a board that no fleet has."""
    for name, axis in axes.items():
        for text in axis.own:
            if not any(text in fleet.own[name] for fleet in fleets):
                boards = [board.name for fleet in fleets for board in fleet.boards.boards]
                raise InputError(
                    "no fleet has this board",
                    where=f"--{name} {text}",
                    found=text.rpartition("=")[0],
                    allowed=", ".join(dict.fromkeys(boards)),
                )
