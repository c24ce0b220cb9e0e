"""Size of exported models beside the memory of the boards that the plan gave them.

The plan counts a value for each parameter; a file also holds scales, biases and the graph.
"""

from collections import defaultdict

from pydantic import Field

from nonn_common.document import Record
from nonn_core.export.bundle import Manifest, ModelPrecision
from nonn_core.networks.network_cost import BYTES_PER_VALUE
from planner.plan_file.plan_document import PlanDocument, PlannedModel, require_students


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
        _fit(budget.board, models[budget.board], precision, sizes, budget.room_bytes)
        for budget in plan.question.budgets
        if budget.board in models
        for precision in dict.fromkeys(row.precision for row in bundle.agreement)
    )


def _fit(
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
