"""Fit of built students, and of exported files, to the budgets of their boards.

The planner promises this from closed forms, with one value for each parameter; here the built
modules are measured, and the files are weighed: they also hold scales, biases and the graph.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from nonn_common.document import Record
from nonn_common.errors import BoardError
from nonn_common.units import format_bytes, format_flops
from nonn_core.export.bundle import Manifest, ModelPrecision
from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import BYTES_PER_VALUE, Cost, group0_maps
from planner.plan_file.plan_document import (
    JointModel,
    PlanDocument,
    PlannedModel,
    require_students,
)
from planner.plan_file.training_recipe import trained_students
from planner.problem.budgets import BoardBudget, BudgetName

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
    memory_limit_bytes: int | None = Field(
        description="The board's memory budget, in bytes; null where flash and RAM are limited."
    )
    flash_bytes: int = Field(default=0, description="Parameters, in bytes.")
    flash_limit_bytes: int | None = Field(
        default=None, description="The board's flash, in bytes; null where it is not apart."
    )
    ram_bytes: int = Field(
        default=0, description="Peak activations of the largest model, in bytes."
    )
    ram_limit_bytes: int | None = Field(
        default=None, description="The board's RAM for them, in bytes; null where it is not apart."
    )

    @property
    def needed(self) -> str:
        """Memory that is needed, for people."""
        if self.flash_limit_bytes is None:
            return format_memories(self.memory_bytes, None, None)
        return format_memories(None, self.flash_bytes, self.ram_bytes)

    @property
    def allowed(self) -> str:
        """Memory that is allowed, for people."""
        limits = (self.memory_limit_bytes, self.flash_limit_bytes, self.ram_limit_bytes)
        return format_memories(*limits)

    @property
    def fits(self) -> bool:
        """Whether all budgets hold."""
        return all(
            limit is None or need <= limit
            for need, limit in (
                (self.memory_bytes, self.memory_limit_bytes),
                (self.flash_bytes, self.flash_limit_bytes),
                (self.ram_bytes, self.ram_limit_bytes),
                (self.macs, self.macs_limit),
            )
        )


def check_board_fit(plan: PlanDocument, network: "Nonn") -> tuple[BoardFit, ...]:
    """Measure each built model, and add up board by board.

    Raises BoardError when a student is not the one that was planned, or when a board's budget does
    not hold.
    """
    require_students(plan)
    names = [one.name for one in trained_students(plan).students]
    if len(names) != len(network.heads):
        raise BoardError(f"{len(network.heads)} students were built, {len(names)} planned")
    names = [*([plan.group0.name] if plan.group0 else []), *names]
    costs = dict(zip(names, _built(plan, network), strict=True))
    built = {one: costs[one.name] for one in plan.decision.models}
    for planned, cost in built.items():
        _check_as_planned(planned.name, planned, cost)
    fits = tuple(
        _added_up(
            budget,
            [
                (one, _joint(plan, one, network) if isinstance(one, JointModel) else built[one])
                for one in plan.decision.on(budget.board)
            ],
        )
        for budget in plan.question.budgets
        if budget.board in plan.decision.used
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


def _joint(plan: PlanDocument, planned: JointModel, network: "Nonn") -> Cost:
    """Measure students of one board as one model, with one G0."""
    from nonn_core.teacher.inspection import measured_cost

    places = [student.name for student in trained_students(plan).students]
    joint = network.joint(places.index(name) for name in planned.students)
    cost = measured_cost(joint, plan.question.image_shape)
    _check_as_planned(", ".join(planned.students), planned, cost)
    return cost


def _names(model: PlannedModel | JointModel) -> tuple[str, ...]:
    return model.students if isinstance(model, JointModel) else (model.name,)


def _added_up(
    budget: BoardBudget, models: Sequence[tuple[PlannedModel | JointModel, Cost]]
) -> BoardFit:
    costs = [cost for _, cost in models]
    return BoardFit(
        board=budget.board,
        students=tuple(name for planned, _ in models for name in _names(planned)),
        params=sum(cost.params for cost in costs),
        macs=sum(cost.macs for cost in costs),
        memory_bytes=sum(cost.memory_bytes(one.precision) for one, cost in models),
        macs_limit=budget.macs,
        memory_limit_bytes=_room(budget, "memory_bytes"),
        flash_bytes=sum(cost.flash_bytes(one.precision) for one, cost in models),
        flash_limit_bytes=_room(budget, "flash_bytes"),
        ram_bytes=max(cost.ram_bytes(one.precision) for one, cost in models),
        ram_limit_bytes=_room(budget, "ram_bytes"),
    )


def _room(budget: BoardBudget, name: BudgetName) -> int | None:
    """Bytes of a budget that the runtime leaves; None is no limit."""
    room = budget.room(name)
    return None if room is None else int(room)


def format_memories(memory: int | None, flash: int | None, ram: int | None) -> str:
    """Text of memories that are told: `500 KB`, or `2 MB of flash`."""
    sizes = (("", memory), (" of flash", flash), (" of RAM", ram))
    return " and ".join(f"{format_bytes(size)}{of}" for of, size in sizes if size is not None)


def _check_as_planned(name: str, planned: PlannedModel | JointModel, cost: Cost) -> None:
    promised = Cost(planned.params, planned.macs, planned.peak_elements)
    if cost != promised:
        raise BoardError(
            f"{name} was built as {cost}, but planned as {promised}; "
            "train the recipe that `nonn-plan config` writes for this plan"
        )


def _check(fit: BoardFit) -> None:
    if fit.fits:
        return
    flops = "no limit" if fit.macs_limit is None else format_flops(fit.macs_limit)
    raise BoardError(
        f"board {fit.board}: its built students need {fit.needed} and "
        f"{format_flops(fit.macs)}; allowed: {fit.allowed} and {flops}"
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
    limit_bytes: int | None = Field(
        description="The board's memory budget, less what the runtime takes of it; null where "
        "flash and RAM are limited."
    )
    flash_limit_bytes: int | None = Field(
        default=None, description="The same of its flash, for the files, where that is apart."
    )
    ram_limit_bytes: int | None = Field(
        default=None, description="The same of its RAM, for activations, where flash is apart."
    )
    fits: bool = Field(
        description="Whether files and activations together are within the budget, or files within "
        "flash and activations within RAM."
    )

    @property
    def allowed(self) -> str:
        """Memory that is allowed, for people."""
        return format_memories(self.limit_bytes, self.flash_limit_bytes, self.ram_limit_bytes)


def bundle_fits(plan: PlanDocument, bundle: Manifest) -> tuple[BundleFit, ...]:
    """Add up a bundle's models board by board, for each of its precisions.

    Students that share a G0 in the plan are one model, where the bundle has it.  Raises InputError
    where the plan has no students.
    """
    require_students(plan)
    sizes = {
        (model.members or (model.name,), one.precision): one.size_bytes
        for model in bundle.models
        for one in model.files
    }
    return tuple(
        _bundle_fit(budget, _exported(plan, budget.board, bundle), precision, sizes)
        for budget in plan.question.budgets
        if budget.board in plan.decision.used
        for precision in dict.fromkeys(row.precision for row in bundle.agreement)
    )


def _exported(
    plan: PlanDocument, board: str, bundle: Manifest
) -> tuple[PlannedModel | JointModel, ...]:
    """Models that a board runs of a bundle: joint ones, else their students alone."""
    known = {model.members for model in bundle.models}
    found: list[PlannedModel | JointModel] = []
    for model in plan.decision.on(board):
        if not isinstance(model, JointModel) or model.students in known:
            found.append(model)
        else:
            found += [student for student in plan.students if student.name in model.students]
    return tuple(found)


def _bundle_fit(
    budget: BoardBudget,
    models: Sequence[PlannedModel | JointModel],
    precision: ModelPrecision,
    sizes: dict[tuple[tuple[str, ...], ModelPrecision], int],
) -> BundleFit:
    value_bytes = BYTES_PER_VALUE[precision]
    file_bytes = sum(sizes[_names(model), precision] for model in models)
    # Where flash is apart, models run one after the other in one arena.
    peaks = [model.peak_elements for model in models]
    activation_bytes = (sum if budget.ram_bytes is None else max)(peaks) * value_bytes
    limit_bytes, flash_bytes, ram_bytes = (
        _room(budget, name) for name in ("memory_bytes", "flash_bytes", "ram_bytes")
    )
    needs = (
        (file_bytes + activation_bytes, limit_bytes),
        (file_bytes, flash_bytes),
        (activation_bytes, ram_bytes),
    )
    return BundleFit(
        board=budget.board,
        students=tuple(name for model in models for name in _names(model)),
        precision=precision,
        file_bytes=file_bytes,
        activation_bytes=activation_bytes,
        planned_bytes=sum(model.params for model in models) * value_bytes + activation_bytes,
        limit_bytes=limit_bytes,
        flash_limit_bytes=flash_bytes,
        ram_limit_bytes=ram_bytes,
        fits=all(limit is None or need <= limit for need, limit in needs),
    )
