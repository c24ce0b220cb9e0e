"""The cells of a grid as typed: each fleet, budget and objective, fronts and break-points."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Self

from nonn_core.partition import Partition
from nonn_plan.question_options import QuestionOptions
from nonn_plan.typed_axis import TypedAxis
from planner.stage import Stage
from profiles.errors import InputError
from profiles.fleet import Fleet, parse_fleet
from profiles.units import FLOPS_PER_MAC

if TYPE_CHECKING:
    from planner.exploration.cell import Kind
    from planner.exploration.exploration import Planned
    from planner.question import Question


@dataclass(frozen=True, slots=True)
class OneFleet:
    """A fleet as typed, and the budgets of single boards of it, by axis."""

    text: str
    boards: Fleet
    own: dict[str, tuple[str, ...]]

    @classmethod
    def of(cls, text: str, axes: Mapping[str, TypedAxis]) -> Self:
        """Read a fleet; raises ProfileError for an unknown one."""
        boards = parse_fleet(text)
        names = {board.name for board in boards.boards}
        own = {
            name: tuple(each for each in axis.own if each.rpartition("=")[0] in names)
            for name, axis in axes.items()
        }
        return cls(text, boards, own)


@dataclass(frozen=True, slots=True)
class Asking:
    """What all cells have in common."""

    partition: Partition
    options: QuestionOptions
    axes: Mapping[str, TypedAxis]

    def plans(self, fleets: Sequence[OneFleet], objectives: Sequence[str]) -> "Iterator[Planned]":
        """Yield the cells of the grid."""
        for fleet, objective in product(fleets, objectives):
            for memory, macs in self._grid():
                question = self._question(fleet, memory, macs, objective)
                yield self._planned("plan", question, fleet, memory, macs)

    def fronts(self, fleets: Sequence[OneFleet], measures: str | None) -> "Iterator[Planned]":
        """Yield a front for each fleet and budget, if there is to be any."""
        if measures is None:
            return
        exactly = tuple(map(Stage.parse, measures.split(",")))
        for fleet in fleets:
            for memory, macs in self._grid():
                # Of several precisions a plan's last stage prefers more bytes; a front does not.
                question = self._question(fleet, memory, macs, measures)
                question = question.model_copy(update={"objective": exactly})
                yield self._planned("front", question, fleet, memory, macs)

    def breakpoints(
        self, fleets: Sequence[OneFleet], objectives: Sequence[str], axis: str | None
    ) -> "Iterator[Planned]":
        """Yield the break-points of one budget, for each value of the other."""
        if axis is None:
            return
        ends = self.axes[axis].ends
        if ends is None or ends[0] == ends[1]:
            raise InputError(f"--breakpoints {axis} needs a range", fix=f"give --{axis} START:STOP")
        for fleet, objective in product(fleets, objectives):
            for other in self.axes["flops" if axis == "memory" else "memory"].values:
                memory, macs = (ends[1], other) if axis == "memory" else (other, ends[1])
                question = self._question(fleet, memory, macs, objective)
                yield self._steps(question, fleet, axis, ends, memory, macs)

    def _grid(self) -> Iterator[tuple[int | None, int | None]]:
        yield from product(self.axes["memory"].values, self.axes["flops"].values)

    def _question(
        self, fleet: OneFleet, memory: int | None, macs: int | None, objective: str
    ) -> "Question":
        flops = None if macs is None else FLOPS_PER_MAC * macs
        options = replace(
            self.options,
            memory=_texts(memory, fleet.own["memory"]),
            flops=_texts(flops, fleet.own["flops"]),
            objective=objective,
        )
        return options.question(self.partition, fleet.boards, where="nonn-plan explore")

    def _planned(
        self,
        kind: "Kind",
        question: "Question",
        fleet: OneFleet,
        memory: int | None,
        macs: int | None,
    ) -> "Planned":
        from planner.exploration.cell import Asked
        from planner.exploration.exploration import Place, Planned

        place = Place(
            fleet=fleet.text,
            memory_bytes=memory,
            flops=None if macs is None else FLOPS_PER_MAC * macs,
            objective=",".join(map(str, question.objective)),
        )
        return Planned(place, Asked(kind, question))

    def _steps(
        self,
        question: "Question",
        fleet: OneFleet,
        axis: str,
        ends: tuple[int, int],
        memory: int | None,
        macs: int | None,
    ) -> "Planned":
        from planner.exploration.breakpoints import Range
        from planner.exploration.cell import Asked

        own = {text.rpartition("=")[0] for text in fleet.own[axis]}
        places = tuple(place for place, row in enumerate(question.budgets) if row.board not in own)
        if not places:
            raise InputError(f"every board of {fleet.text} has its own {axis}: nothing to move")
        over = Range("memory_bytes" if axis == "memory" else "macs", places, *ends)
        base = self._planned("breakpoints", question, fleet, memory, macs)
        update = {"axis": axis, "memory_bytes" if axis == "memory" else "flops": None}
        return replace(
            base,
            place=base.place.model_copy(update=update),
            asked=Asked("breakpoints", question, over),
        )


def _texts(value: int | None, own: Sequence[str]) -> list[str]:
    return [*([] if value is None else [str(value)]), *own]


def check_own_boards(fleets: Sequence[OneFleet], axes: Mapping[str, TypedAxis]) -> None:
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
