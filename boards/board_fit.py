"""Fit of built students, and of exported files, to the budgets of their boards.

The planner promises this from closed forms, with one value for each parameter; here the built
modules are measured, and the files are weighed: they also hold scales, biases and the graph.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from nonn_common.document import Record
from nonn_common.errors import BoardError
from nonn_common.units import format_bytes, format_flops
from nonn_core.export.bundle import Manifest, ModelPrecision
from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import BYTES_PER_VALUE, Cost, group0_maps
from planner.plan_file.plan_document import PlanDocument, PlannedModel, require_students
from planner.problem.goals import BoardBudget

if TYPE_CHECKING:
    from nonn_core.networks.modules import Nonn


class BoardFit(Record):
    """Need of the built students of one board together, and its budgets."""

    board: str = Field(description="Name of the board.")
    students: tuple[str, ...] = Field(description="Names of its students; group0 of G0 alone.")
    params: int = Field(description="Parameters of the built students, counted.")
    macs: int = Field(description="MACs per image, counted by fvcore.")
    memory_bytes: int = Field(description="Parameters and peak activations, in bytes.")
    macs_limit: int | None = Field(description="The board's MAC budget; null is no limit.")
    memory_limit_bytes: int = Field(description="The board's memory budget, in bytes.")

    @property
    def fits(self) -> bool:
        """Whether both budgets hold."""
        return self.memory_bytes <= self.memory_limit_bytes and (
            self.macs_limit is None or self.macs <= self.macs_limit
        )


def check_board_fit(plan: PlanDocument, network: "Nonn") -> tuple[BoardFit, ...]:
    """Measure each built model, and add up board by board.

    Raises BoardError when a student is not the one that was planned, or when a board's budget does
    not hold.
    """
    require_students(plan)
    if len(plan.students) != len(network.heads):
        raise BoardError(f"{len(network.heads)} students were built, {len(plan.students)} planned")
    models: dict[str, list[tuple[PlannedModel, Cost]]] = defaultdict(list)
    for planned, cost in zip(plan.decision.models, _built(plan, network), strict=True):
        _check_as_planned(planned, cost)
        for board in planned.boards:
            models[board].append((planned, cost))
    fits = tuple(
        _added_up(budget, models[budget.board])
        for budget in plan.question.budgets
        if budget.board in models
    )
    for fit in fits:
        _check(fit)
    return fits


def _built(plan: PlanDocument, network: "Nonn") -> Iterator[Cost]:
    """Measure the built models in the order of the planned ones."""
    from nonn_core.teacher.inspection import measured_cost

    image = plan.question.image_shape
    if plan.group0 is None:
        yield from (measured_cost(built, image) for built in network.deployed())
        return
    yield measured_cost(network.group0[0], image)
    maps = group0_maps(parse_network(plan.students[0].network), image)
    reads = ImageShape(maps.channels, maps.height, maps.width)
    yield from (measured_cost(built, reads) for built in network.deployed_heads())


def _added_up(budget: BoardBudget, models: list[tuple[PlannedModel, Cost]]) -> BoardFit:
    costs = [cost for _, cost in models]
    return BoardFit(
        board=budget.board,
        students=tuple(planned.name for planned, _ in models),
        params=sum(cost.params for cost in costs),
        macs=sum(cost.macs for cost in costs),
        memory_bytes=sum(cost.memory_bytes(one.precision) for one, cost in models),
        macs_limit=budget.macs,
        memory_limit_bytes=budget.room_bytes,
    )


def _check_as_planned(planned: PlannedModel, cost: Cost) -> None:
    promised = Cost(planned.params, planned.macs, planned.peak_elements)
    if cost != promised:
        raise BoardError(
            f"{planned.name} was built as {cost}, but planned as {promised}; "
            "train the recipe that `nonn-plan config` writes for this plan"
        )


def _check(fit: BoardFit) -> None:
    if fit.fits:
        return
    memory = format_bytes(fit.memory_limit_bytes)
    flops = "no limit" if fit.macs_limit is None else format_flops(fit.macs_limit)
    raise BoardError(
        f"board {fit.board}: its built students need {format_bytes(fit.memory_bytes)} and "
        f"{format_flops(fit.macs)}; allowed: {memory} and {flops}"
    )


class BundleFit(Record):
    """Memory of one board's models at one precision, and its budget."""

    board: str = Field(description="Name of the board.")
    students: tuple[str, ...] = Field(description="Names of its students; group0 of G0 alone.")
    precision: ModelPrecision = Field(description="Of the models.")
    file_bytes: int = Field(description="Size of the models' files.")
    activation_bytes: int = Field(description="Peak activations at this precision, by the plan.")
    planned_bytes: int = Field(
        description="Parameters and peak activations at this precision, by the plan."
    )
    limit_bytes: int = Field(
        description="The board's memory budget, less what the runtime takes of it."
    )
    fits: bool = Field(description="Whether files and activations together are within the budget.")


def bundle_fits(plan: PlanDocument, bundle: Manifest) -> tuple[BundleFit, ...]:
    """Add up a bundle's models board by board, for each of its precisions.

    Raises InputError where the plan has no students.
    """
    require_students(plan)
    sizes = {
        (model.name, one.precision): one.size_bytes
        for model in bundle.models
        for one in model.files
    }
    models: dict[str, list[PlannedModel]] = defaultdict(list)
    for model in plan.decision.models:
        for board in model.boards:
            models[board].append(model)
    return tuple(
        _bundle_fit(budget.board, models[budget.board], precision, sizes, budget.room_bytes)
        for budget in plan.question.budgets
        if budget.board in models
        for precision in dict.fromkeys(row.precision for row in bundle.agreement)
    )


def _bundle_fit(
    board: str,
    models: list[PlannedModel],
    precision: ModelPrecision,
    sizes: dict[tuple[str, ModelPrecision], int],
    limit_bytes: int,
) -> BundleFit:
    value_bytes = BYTES_PER_VALUE[precision]
    file_bytes = sum(sizes[model.name, precision] for model in models)
    activation_bytes = sum(model.peak_elements for model in models) * value_bytes
    return BundleFit(
        board=board,
        students=tuple(model.name for model in models),
        precision=precision,
        file_bytes=file_bytes,
        activation_bytes=activation_bytes,
        planned_bytes=sum(model.params for model in models) * value_bytes + activation_bytes,
        limit_bytes=limit_bytes,
        fits=file_bytes + activation_bytes <= limit_bytes,
    )
