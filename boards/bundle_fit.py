"""Whether exported models fit the memory of the boards that a plan gave them.

The plan counts a value for each parameter; a file also holds scales, biases and the graph.
"""

from collections import defaultdict

from pydantic import Field

from nonn_core.bundle import Manifest, ModelPrecision
from nonn_core.costs import BYTES_PER_VALUE
from planner.plan import PlanDocument, PlannedStudent
from planner.workload import require_students
from profiles.document import Record


class BundleFit(Record):
    """What the models of one board take at one precision, and what they may take."""

    board: str = Field(description="Name of the board.")
    students: tuple[str, ...] = Field(description="Names of its students.")
    precision: ModelPrecision = Field(description="Of the models.")
    file_bytes: int = Field(description="Size of the models' files.")
    activation_bytes: int = Field(description="Peak activations at this precision, by the plan.")
    planned_bytes: int = Field(
        description="Parameters and peak activations at this precision, by the plan."
    )
    limit_bytes: int = Field(description="The board's memory budget.")
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
    students: dict[str, list[PlannedStudent]] = defaultdict(list)
    for student in plan.students:
        for board in student.boards:
            students[board].append(student)
    return tuple(
        _fit(budget.board, students[budget.board], precision, sizes, budget.memory_bytes)
        for budget in plan.question.budgets
        if budget.board in students
        for precision in dict.fromkeys(row.precision for row in bundle.agreement)
    )


def _fit(
    board: str,
    students: list[PlannedStudent],
    precision: ModelPrecision,
    sizes: dict[tuple[str, ModelPrecision], int],
    limit_bytes: int,
) -> BundleFit:
    value_bytes = BYTES_PER_VALUE[precision]
    file_bytes = sum(sizes[student.name, precision] for student in students)
    activation_bytes = sum(student.peak_elements for student in students) * value_bytes
    return BundleFit(
        board=board,
        students=tuple(student.name for student in students),
        precision=precision,
        file_bytes=file_bytes,
        activation_bytes=activation_bytes,
        planned_bytes=sum(student.params for student in students) * value_bytes + activation_bytes,
        limit_bytes=limit_bytes,
        fits=file_bytes + activation_bytes <= limit_bytes,
    )
