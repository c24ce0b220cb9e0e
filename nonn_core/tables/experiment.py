"""An experiment: one teacher on one data set, and the rows of tables that are trained from it.

FOLDER/experiment.yaml            what all rows have in common
FOLDER/teacher.safetensors        the teacher, unless it was given
FOLDER/partition.json             its partition; one that lies there already is used as it is
FOLDER/ROW/[SETTING/]seed-N/      a run, as `nonn-plan train` and `nonn-plan evaluate` leave it
FOLDER/table-T.json, table-T.md   a table's results

Tables of one experiment share the folder and so the runs that they have in common.  Torch-free.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import Field

from nonn_core.family import NetworkName
from nonn_core.grid import Axis
from nonn_core.partition import Filters
from nonn_core.recipe import (
    ComputeRecipe,
    DistillationRecipe,
    NonnRecipe,
    OptimiserRecipe,
    SingleRecipe,
    SplitNetRecipe,
    StudentRecipe,
    TrainingRecipe,
)
from nonn_core.reshuffle import reshuffled
from nonn_core.tables.rows import Method, Row
from profiles.document import Document
from profiles.errors import InputError

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
    """What all rows have in common."""

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

    def claim(self, folder: Path) -> None:
        """Write this into the folder; raises InputError when another experiment lives there.

        The same one on another device is no other.
        """
        path = folder / _EXPERIMENT
        if path.exists() and _wherever(Experiment.read(path)) != _wherever(self):
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
    row: Row,
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


def axes_of(row: Row, axes: Iterable[Axis]) -> tuple[Axis, ...]:
    """Return those axes whose field changes how this row is trained."""
    return tuple(
        axis for axis in axes if row.method in _METHODS_WITH.get(axis.field, (row.method,))
    )


def _wherever(experiment: Experiment) -> Experiment:
    compute = experiment.compute.model_copy(update={"device": ComputeRecipe().device})
    return experiment.model_copy(update={"compute": compute})


def _model(
    row: Row, partitions: tuple[Filters, ...], seed: int
) -> NonnRecipe | SingleRecipe | SplitNetRecipe:
    if row.method == "splitnet":
        return SplitNetRecipe(network=row.network, groups=row.groups)
    if not row.is_nonn:
        return SingleRecipe(network=row.network)
    filters = reshuffled(partitions, row.students, seed)
    return NonnRecipe(
        students=tuple(
            StudentRecipe(name=f"s{number}", network=row.network, filters=each)
            for number, each in enumerate(filters, start=1)
        ),
        group0="own-board" if row.group0_has_a_board else "replicated",
    )
