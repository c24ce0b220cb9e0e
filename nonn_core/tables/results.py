"""What training a table's rows came to: the file that is kept and committed.  Torch-free."""

from collections.abc import Sequence
from statistics import mean, stdev

from pydantic import Field

from nonn_core.grid import Setting, Trial
from nonn_core.tables.experiment import Experiment
from nonn_core.tables.published import DatasetName, PublishedRow, TableName
from nonn_core.tables.robustness import Robustness
from nonn_core.tables.row_cost import row_cost
from nonn_core.tables.rows import Design, Method, Row
from profiles.document import Document, Record


class Machine(Record):
    """What computed the results."""

    system: str = Field(description="Operating system and architecture.")
    processor: str = Field(description="Name of the processor.")
    threads: int = Field(ge=1, description="Threads that torch computes with.")
    accelerator: str | None = Field(description="Name of the GPU; null if none was used.")


class TrialResult(Record):
    """One setting that was tried for a row."""

    setting: dict[str, float] = Field(description="Fields of the recipe and their values.")
    validation_accuracy_pct: float | None = Field(
        description="On the 10 % held from training, percent; null where training diverged."
    )


class RunResult(Record):
    """One seed of a row."""

    seed: int = Field(ge=0, description="Seed of weights, order and augmentation.")
    validation_accuracy_pct: float = Field(description="On the 10 % held from training, percent.")
    accuracy_pct: float = Field(description="On the test images, percent.")
    subsets: dict[str, float] = Field(
        description="Test accuracy by the students that answer, `s1 s3`, percent; empty for an "
        "undivided network."
    )


class RowResult(Record):
    """One row: how it was trained, what it needs, what came out."""

    row: str = Field(description="Name of the row.")
    method: Method = Field(description="How it was trained.")
    network: str = Field(description="The network, or that of each student.")
    filters: tuple[int, ...] = Field(description="Filters that each student mimics.")
    student_params: int = Field(
        ge=0, description="Parameters of the largest student, its copy of G0 included."
    )
    board_macs: int = Field(ge=0, description="MACs per image on the board that computes most.")
    total_params: int = Field(ge=0, description="Parameters of the whole, G0 counted once.")
    trials: tuple[TrialResult, ...] = Field(
        description="Settings that were tried with the first seed; empty if there was one only."
    )
    setting: dict[str, float] = Field(description="The setting that was chosen by validation.")
    runs: tuple[RunResult, ...] = Field(min_length=1, description="One for each seed.")
    accuracy_pct: float = Field(description="Mean test accuracy, percent.")
    std_pct: float | None = Field(description="Its standard deviation (n - 1); null for one seed.")
    minus_teacher_pct: float = Field(description="Mean minus the teacher's accuracy, points.")
    published: PublishedRow = Field(description="The published row.")
    published_minus_teacher_pct: float = Field(description="The same difference, as published.")


class TableResults(Document):
    """The rows of one table that are trained so far."""

    table: TableName = Field(description="Table or figure.")
    dataset: DatasetName = Field(description="Data set of the published rows.")
    source: str = Field(description="Where the published rows are from.")
    experiment: Experiment = Field(description="Data, teacher and training of all rows.")
    teacher_fingerprint: str = Field(description="Digest of the weights of the rows' teacher.")
    classes: int = Field(gt=1, description="Classes of the data set.")
    training_images: int = Field(ge=1, description="Images that rows are trained on.")
    test_images: int = Field(ge=1, description="Images behind every accuracy.")
    machine: Machine = Field(description="What computed it.")
    versions: dict[str, str] = Field(description="Versions of what computed it.")
    rows: tuple[RowResult, ...] = Field(description="The teacher and the finished rows.")
    robustness: Robustness | None = Field(description="Of Fig. 8, when it is trained; else null.")


def row_result(
    design: Design,
    row: Row,
    filters: Sequence[int],
    trials: Sequence[Trial],
    setting: Setting,
    runs: Sequence[RunResult],
    teacher_accuracy_pct: float,
) -> RowResult:
    """Put what a row came to beside what it needs and what was published of it."""
    cost = row_cost(row, design.image, design.classes, filters)
    published = design.published.of(row.name)
    accuracies = [run.accuracy_pct for run in runs]
    return RowResult(
        row=row.name,
        method=row.method,
        network=row.network,
        filters=tuple(filters),
        student_params=cost.student_params,
        board_macs=cost.board_macs,
        total_params=cost.total_params,
        trials=tuple(map(_trial_result, trials)) if len(trials) > 1 else (),
        setting=dict(setting),
        runs=tuple(runs),
        accuracy_pct=mean(accuracies),
        std_pct=stdev(accuracies) if len(accuracies) > 1 else None,
        minus_teacher_pct=mean(accuracies) - teacher_accuracy_pct,
        published=published,
        published_minus_teacher_pct=published.accuracy_pct - design.published.teacher.accuracy_pct,
    )


def _trial_result(trial: Trial) -> TrialResult:
    return TrialResult(
        setting=dict(trial.setting), validation_accuracy_pct=trial.validation_accuracy_pct
    )
