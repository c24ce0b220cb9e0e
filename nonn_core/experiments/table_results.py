"""Experiment: one teacher on one data set, and the rows trained from it.

FOLDER/experiment.yaml            what all rows have in common
FOLDER/teacher.safetensors        the teacher, unless it was given
FOLDER/partition.json             its partition; one that lies there already is used as it is
FOLDER/ROW/[SETTING/]seed-N/      a run, as `nonn-plan train` and `nonn-plan evaluate` leave it
FOLDER/table-T.json, table-T.md   a table's results, the file that is kept and committed

Tables of one experiment share the folder and so the runs that they have in common.  A table
of missing boards holds every subset of students, by how many answer (arXiv:1907.11804,
Fig. 8).  Torch-free.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

from pydantic import Field

from nonn_common.document import Document, Record
from nonn_common.errors import InputError
from nonn_core.accuracy_report import DatasetName, PublishedRobustness, PublishedRow, TableName
from nonn_core.experiments.table_rows import Method, TableDesign, TableRow, row_cost
from nonn_core.networks.blueprint import Filters
from nonn_core.networks.family import NetworkName
from nonn_core.partition import reshuffle_filters
from nonn_core.recipe import (
    PRINTED,
    Axis,
    ComputeRecipe,
    DistillationRecipe,
    LossForm,
    NonnRecipe,
    OptimiserRecipe,
    Setting,
    SingleRecipe,
    SplitNetRecipe,
    StudentRecipe,
    TrainingRecipe,
    Trial,
)

_EXPERIMENT, _TEACHER, _PARTITION = "experiment.yaml", "teacher.safetensors", "partition.json"

_DISTILLATION: Mapping[Method, DistillationRecipe] = {
    "kd": DistillationRecipe(beta=0),
    # The weight that the authors of attention transfer publish (arXiv:1612.03928).
    "atkd": DistillationRecipe(beta=0, attention=1000),
    "nonn": DistillationRecipe(),
    "kd-nonn": DistillationRecipe(beta=0),
    "splitnet": DistillationRecipe(beta=0),
}
_METHODS_WITH: Mapping[str, tuple[Method, ...]] = {
    "distillation.beta": ("nonn",),
    "distillation.attention": ("atkd",),
    "distillation.student_dropout": ("nonn", "kd-nonn"),
}


class Experiment(Document):
    """Common settings of all rows."""

    data: str = Field(description="Data set.")
    images_per_class: int | None = Field(
        ge=1, description="Training images of each class that are used; null uses all."
    )
    teacher_network: NetworkName = Field(
        description="The teacher's network, which says what students it has."
    )
    given_teacher: str | None = Field(
        description="The teacher (a file, or package.module:callable); null trains it here."
    )
    teacher_optimiser: OptimiserRecipe = Field(description="How the teacher is trained.")
    optimiser: OptimiserRecipe = Field(description="How every row is trained.")
    compute: ComputeRecipe = Field(description="Where and how training computes.")
    seed: int = Field(
        ge=0, lt=2**31, description="Seed of teacher, partition, reshuffling, and the first run."
    )

    def init_folder(self, folder: Path) -> None:
        """Write this into the folder; raises InputError when another experiment lives there.

        The same one on another device is no other.
        """
        path = folder / _EXPERIMENT
        if path.exists() and _without_device(Experiment.read(path)) != _without_device(self):
            raise InputError(
                "this folder holds another experiment",
                where=str(path),
                fix="choose another output folder",
            )
        self.write(path)

    def teacher(self, folder: Path) -> str:
        """Return where the teacher is."""
        return self.given_teacher or str(folder / _TEACHER)


def partition_path(folder: Path) -> Path:
    """Return where the partition of an experiment is."""
    return folder / _PARTITION


def row_recipe(
    row: TableRow,
    experiment: Experiment,
    folder: Path,
    image: str,
    partitions: tuple[Filters, ...],
) -> TrainingRecipe:
    """Return the recipe of a row's first seed; `partitions` are the teacher's, for a NoNN.

    Raises InputError where the row cannot be trained so, such as a SplitNet in one epoch.
    """
    content = {
        "data": experiment.data,
        "image": image,
        "teacher": experiment.teacher(folder),
        "model": _model(row, partitions, experiment.seed),
        "optimiser": experiment.optimiser,
        "distillation": _DISTILLATION[row.method],
        "compute": experiment.compute,
        "seed": experiment.seed,
    }
    return TrainingRecipe.check(content, where=f"row {row.name}")


def axes_of(row: TableRow, axes: Iterable[Axis]) -> tuple[Axis, ...]:
    """Return those axes whose field changes how this row is trained."""
    return tuple(
        axis for axis in axes if row.method in _METHODS_WITH.get(axis.field, (row.method,))
    )


def _without_device(experiment: Experiment) -> Experiment:
    compute = experiment.compute.model_copy(update={"device": ComputeRecipe().device})
    return experiment.model_copy(update={"compute": compute})


def _model(
    row: TableRow, partitions: tuple[Filters, ...], seed: int
) -> NonnRecipe | SingleRecipe | SplitNetRecipe:
    if row.method == "splitnet":
        return SplitNetRecipe(network=row.network, groups=row.groups)
    if not row.is_nonn:
        return SingleRecipe(network=row.network)
    filters = reshuffle_filters(partitions, row.students, seed)
    return NonnRecipe(
        students=tuple(
            StudentRecipe(name=f"s{number}", network=row.network, filters=each)
            for number, each in enumerate(filters, start=1)
        ),
        group0="own-board" if row.group0_has_a_board else "replicated",
    )


Subsets = Mapping[str, float]
"""Test accuracy in percent by the students that answer, `s1 s3`."""


class AnsweringBoards(Record):
    """All subsets of one size."""

    boards: int = Field(ge=1, description="Boards that answer.")
    subsets: int = Field(ge=1, description="Subsets of this size.")
    mean_pct: float = Field(description="Mean accuracy over subsets and seeds, percent.")
    lowest_pct: float = Field(description="Of the worst subset, mean over seeds, percent.")
    highest_pct: float = Field(description="Of the best subset, mean over seeds, percent.")
    imputed_mean_pct: float | None = Field(
        default=None, description="Mean with imputed features; null where that was not measured."
    )
    published_above_pct: float | None = Field(
        description="What the published mean lies above, percent; null where nothing is published."
    )


class RobustnessResult(Record):
    """Accuracy by number of boards that answer."""

    answering: tuple[AnsweringBoards, ...] = Field(description="From one board to all of them.")
    best_single_student_pct: float = Field(
        description="The best student alone, mean over seeds, percent."
    )
    published_best_single_student_pct: float = Field(description="The same, as published.")


def robustness_result(
    runs: Sequence[Subsets], published: PublishedRobustness, imputed: Sequence[Subsets] = ()
) -> RobustnessResult:
    """Aggregate the accuracies of every subset; `runs` holds one mapping for each seed.

    So does `imputed`, of the same subsets with imputed features; it is empty if unknown.
    """
    by_size = _by_size(runs)
    told = _by_size(imputed) if imputed else {}
    return RobustnessResult(
        answering=tuple(
            AnsweringBoards(
                boards=size,
                subsets=len(found),
                mean_pct=mean(found),
                lowest_pct=min(found),
                highest_pct=max(found),
                imputed_mean_pct=mean(told[size]) if told else None,
                published_above_pct=published.mean_accuracy_above_pct.get(size),
            )
            for size, found in sorted(by_size.items())
        ),
        best_single_student_pct=max(by_size[1]),
        published_best_single_student_pct=published.best_single_student_pct,
    )


def _by_size(runs: Sequence[Subsets]) -> dict[int, list[float]]:
    """Mean over the runs of each subset's accuracy, by how many answer."""
    found: dict[int, list[float]] = {}
    for subset in runs[0]:
        found.setdefault(len(subset.split()), []).append(mean(run[subset] for run in runs))
    return found


class Machine(Record):
    """Machine that computed the results."""

    system: str = Field(description="Operating system and architecture.")
    processor: str = Field(description="Name of the processor.")
    threads: int = Field(ge=1, description="Threads that torch computes with.")
    accelerator: str | None = Field(description="Name of the GPU; null if none was used.")


class TrialResult(Record):
    """One setting that was tried for a row."""

    setting: dict[str, float | str] = Field(description="Fields of the recipe and their values.")
    validation_accuracy_pct: float | None = Field(
        description="On the 10 % held from training, percent; null where training diverged."
    )


class RunResult(Record):
    """One seed of a row."""

    seed: int = Field(ge=0, description="Seed of weights, order and augmentation.")
    validation_accuracy_pct: float = Field(description="On the 10 % held from training, percent.")
    accuracy_pct: float = Field(description="On the test images, percent.")
    subsets: dict[str, float] = Field(
        description="Test accuracy by the students that answer, `s1 s3`, percent, with zeros for "
        "the others, as published; empty for an undivided network."
    )
    imputed: dict[str, float] = Field(
        default={}, description="The same with imputed features; empty in older files, too."
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
    setting: dict[str, float | str] = Field(
        description="The setting that was chosen by validation."
    )
    runs: tuple[RunResult, ...] = Field(min_length=1, description="One for each seed.")
    accuracy_pct: float = Field(description="Mean test accuracy, percent.")
    std_pct: float | None = Field(description="Its standard deviation (n - 1); null for one seed.")
    minus_teacher_pct: float = Field(description="Mean minus the teacher's accuracy, points.")
    form: LossForm | None = Field(
        default=PRINTED, description="Form of its losses; null for the teacher, which has none."
    )
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
    robustness: RobustnessResult | None = Field(
        description="Of Fig. 8, when it is trained; else null."
    )


def row_result(
    design: TableDesign,
    row: TableRow,
    filters: Sequence[int],
    trials: Sequence[Trial],
    setting: Setting,
    runs: Sequence[RunResult],
    teacher_accuracy_pct: float,
) -> RowResult:
    """Result of a row, beside its cost and the published row."""
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
        form=_form(row.method, setting),
        runs=tuple(runs),
        accuracy_pct=mean(accuracies),
        std_pct=stdev(accuracies) if len(accuracies) > 1 else None,
        minus_teacher_pct=mean(accuracies) - teacher_accuracy_pct,
        published=published,
        published_minus_teacher_pct=published.accuracy_pct - design.published.teacher.accuracy_pct,
    )


def _form(method: Method, setting: Setting) -> LossForm | None:
    if method == "teacher":
        return None
    return DistillationRecipe.check(
        {"form": setting.get("distillation.form", _DISTILLATION[method].form)}, where=method
    ).form


def _trial_result(trial: Trial) -> TrialResult:
    return TrialResult(
        setting=dict(trial.setting), validation_accuracy_pct=trial.validation_accuracy_pct
    )
