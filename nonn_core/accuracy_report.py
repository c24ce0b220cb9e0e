"""Accuracy documents: evaluations of trained networks, and the published accuracy tables.

`Evaluation` and `RepeatedEvaluation` are what `nonn-plan evaluate` leaves; the published
tables are those that the package carries in `accuracy.yaml`.  Torch-free.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from statistics import mean, stdev
from typing import Literal, cast, get_args

from pydantic import Field, PositiveFloat

from nonn_common.document import Document, Record, plain_yaml
from nonn_common.errors import InputError
from nonn_core.class_accuracy import ClassAccuracy, summed


class SubsetAccuracy(Record):
    """Accuracy when only these students answer."""

    students: tuple[str, ...] = Field(description="Names of the students that answer.")
    accuracy_pct: float = Field(
        description="Test accuracy in percent, as the host answers: features that are missing are "
        "imputed from those that came, if the run has their moments."
    )
    zero_filled_pct: float | None = Field(
        default=None,
        description="The same with zeros for what is missing; null in files of older versions, "
        "whose accuracy is this one.",
    )

    @property
    def zero_filled(self) -> float:
        """Accuracy with zeros for what is missing, in percent."""
        return self.accuracy_pct if self.zero_filled_pct is None else self.zero_filled_pct


class Evaluation(Document):
    """Test accuracy of one trained network."""

    data: str = Field(description="Data set; its test images were used.")
    images: int = Field(gt=0, description="Number of test images.")
    weights: str | None = Field(
        default=None, description="Digest of the weights that were evaluated; null if unknown."
    )
    accuracy_pct: float = Field(description="Test accuracy with every student, in percent.")
    subsets: tuple[SubsetAccuracy, ...] = Field(
        description="Accuracy for every non-empty subset of students (arXiv:1907.11804, "
        "Fig. 8); empty for an "
        "undivided network."
    )
    class_accuracy: tuple[ClassAccuracy, ...] = Field(
        default=(),
        description="Accuracy of each class with every student, and what it was taken for; empty "
        "in files of older versions.",
    )


class SeedAccuracy(Record):
    """Accuracy of the run of one seed."""

    seed: int = Field(ge=0, lt=2**31, description="Seed of weights, order and augmentation.")
    accuracy_pct: float = Field(description="Test accuracy in percent.")


class RepeatedEvaluation(Document):
    """Test accuracy of one recipe over several seeds."""

    data: str = Field(description="Data set; its test images were used.")
    images: int = Field(gt=0, description="Number of test images.")
    accuracy_pct: float = Field(description="Mean test accuracy over the seeds, in percent.")
    deviation_pct: float | None = Field(
        description="Standard deviation over the seeds (n - 1), in percentage points; null for one."
    )
    seeds: tuple[SeedAccuracy, ...] = Field(min_length=1, description="Accuracy for each seed.")
    subsets: tuple[SubsetAccuracy, ...] = Field(
        description="Mean over the seeds for every non-empty subset of students; empty for an "
        "undivided network."
    )
    class_accuracy: tuple[ClassAccuracy, ...] = Field(
        default=(),
        description="Accuracy of each class; its images are counted once for each seed.  Empty in "
        "files of older versions.",
    )


def summary(found: Sequence[tuple[int, Evaluation]]) -> RepeatedEvaluation:
    """Put together the evaluations of one recipe's seeds."""
    evaluations = [evaluation for _, evaluation in found]
    accuracies = [evaluation.accuracy_pct for evaluation in evaluations]
    by_subset = zip(*(evaluation.subsets for evaluation in evaluations), strict=True)
    return RepeatedEvaluation(
        data=evaluations[0].data,
        images=evaluations[0].images,
        accuracy_pct=mean(accuracies),
        deviation_pct=stdev(accuracies) if len(accuracies) > 1 else None,
        seeds=tuple(SeedAccuracy(seed=s, accuracy_pct=e.accuracy_pct) for s, e in found),
        subsets=tuple(
            SubsetAccuracy(
                students=same[0].students,
                accuracy_pct=mean(each.accuracy_pct for each in same),
                zero_filled_pct=mean(each.zero_filled for each in same),
            )
            for same in by_subset
        ),
        class_accuracy=summed([evaluation.class_accuracy for evaluation in evaluations]),
    )


TableName = Literal["2", "3", "4", "5", "fig8"]
DatasetName = Literal["cifar-10", "cifar-100", "scene", "cub"]


class PublishedRow(Record):
    """One row of a published table; what the table does not say is null."""

    row: str = Field(description="Name of the row here, e.g. nonn-2s.")
    model: str = Field(description="Name of the model in the publication.")
    params: PositiveFloat | None = Field(
        default=None, description="Parameters of the largest student, its copy of G0 included."
    )
    flops: PositiveFloat | None = Field(
        default=None, description="FLOPs per image on the largest board."
    )
    total_params: PositiveFloat | None = Field(
        default=None, description="Parameters of the whole model, G0 counted once."
    )
    memory_compression: PositiveFloat | None = Field(
        default=None, description="Teacher's parameters over those of all boards."
    )
    flops_compression: PositiveFloat | None = Field(
        default=None, description="Teacher's FLOPs over those of all boards."
    )
    accuracy_pct: float = Field(ge=0, le=100, description="Mean test accuracy, percent.")
    std_pct: float | None = Field(
        default=None, ge=0, description="Its standard deviation over runs, percentage points."
    )


class PublishedRobustness(Record):
    """Published accuracy of every subset of boards."""

    mean_accuracy_above_pct: Mapping[int, float] = Field(
        description="By number of boards answering: what the mean over subsets lies above, percent."
    )
    best_single_student_pct: float = Field(description="The best student alone, percent.")


class PublishedPart(Record):
    """The rows of one table for one data set."""

    table: TableName = Field(description="Table or figure.")
    dataset: DatasetName = Field(description="Data set that the rows are measured on.")
    source: str = Field(description="Where the rows are from.")
    flops_per_mac: Literal[1, 2] = Field(
        default=2, description="What this table counts as FLOPs for a multiply-accumulate."
    )
    teacher: PublishedRow = Field(description="The teacher of all rows.")
    rows: tuple[PublishedRow, ...] = Field(min_length=1, description="The other rows, in order.")
    robustness: PublishedRobustness | None = Field(
        default=None, description="What was published about missing boards."
    )

    def of(self, row: str) -> PublishedRow:
        """Return the row of this name; raises InputError without any."""
        for found in (self.teacher, *self.rows):
            if found.row == row:
                return found
        raise InputError(
            f"no row of table {self.table}",
            found=row,
            allowed=", ".join(one.row for one in (self.teacher, *self.rows)),
        )


class PublishedAccuracy(Document):
    """All published accuracy tables; each part names its source."""

    parts: tuple[PublishedPart, ...] = Field(description="Tables, data set by data set.")

    def part(self, table: TableName, dataset: DatasetName | None = None) -> PublishedPart:
        """Return a table's rows for a data set, or for its first one; raises InputError."""
        parts = [part for part in self.parts if part.table == table]
        for part in parts:
            if dataset in (None, part.dataset):
                return part
        raise InputError(
            f"table {table} has no rows for this data set",
            found=dataset,
            allowed=", ".join(part.dataset for part in parts),
        )


@cache
def published_accuracy() -> PublishedAccuracy:
    """Return the tables in the package's `accuracy.yaml`."""
    text = (files("nonn_core") / "accuracy.yaml").read_text(encoding="utf-8")
    return PublishedAccuracy.check(plain_yaml(text), where="accuracy.yaml")


def table_name(text: str) -> TableName:
    """Read the name of a table; raises InputError."""
    for name in get_args(TableName):
        if text.lower() == name:
            return cast(TableName, name)
    raise InputError("no such table", found=text, allowed=", ".join(get_args(TableName)))


def dataset_name(text: str) -> DatasetName:
    """Read the name of a published data set; raises InputError."""
    for name in get_args(DatasetName):
        if text.lower() == name:
            return cast(DatasetName, name)
    raise InputError("no such data set", found=text, allowed=", ".join(get_args(DatasetName)))
