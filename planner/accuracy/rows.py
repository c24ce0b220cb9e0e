"""Rows behind the accuracy model: published networks and the user's own finished runs.

Sizes are those of all boards together, every copy of G0 counted, as in A, Table 4.  Own runs are
folders that `nonn-plan train` and `evaluate` leave (one run, or one of several seeds, of which
the mean counts), and the files of `nonn-plan table`.  Loads no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import log
from pathlib import Path
from statistics import mean
from typing import Annotated, Literal, Self

from pydantic import Field

from nonn_common.errors import InputError
from nonn_core.accuracy_report import Evaluation, PublishedPart, PublishedRow, published_accuracy
from nonn_core.experiments.table_results import RowResult, TableResults
from nonn_core.experiments.table_rows import RowCost, TableDesign, TableRow, row_cost, table_design
from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import Cost, group0_cost, student_cost_line, teacher_cost
from nonn_core.partition import TeacherReference
from nonn_core.recipe import NonnRecipe, SingleRecipe, SplitNetRecipe, TrainingRecipe

Method = Literal["nonn", "atkd", "kd"]
"""nonn: students that mimic activations (A, Eq. 6). atkd: one model with attention transfer.
kd: any model that only learns soft labels (A, Eq. 1)."""

_TABLES = ("2", "3", "4", "5")
_SAME_NETWORK: Mapping[str, str] = {"kd-nonn-2s-xl": "nonn-2s-xl"}
"""Rows that are built as another one and trained otherwise."""


@dataclass(frozen=True, slots=True)
class TeacherFacts:
    """A teacher on a data set; equal ones share their rows."""

    network: Annotated[
        str | None, Field(description="Its network; null for one of no family known here.")
    ]
    image: Annotated[str, Field(description="Image shape CHANNELSxHEIGHTxWIDTH.")]
    classes: Annotated[int, Field(description="Number of classes.")]
    params: Annotated[float, Field(description="Parameters.")]
    macs: Annotated[float, Field(description="Multiply-accumulates per image.")]
    fingerprint: Annotated[
        str | None, Field(description="Digest of its weights; null if unknown.")
    ] = None
    title: Annotated[str, Field(description="Name for people.")] = field(
        default="the teacher", compare=False
    )

    @classmethod
    def of_network(cls, network: str, image: ImageShape, classes: int) -> Self:
        """Describe a network of a family; raises InputError."""
        spec = parse_network(network)
        cost = teacher_cost(spec, image, classes)
        title = f"{spec} on {image} images of {classes} classes"
        return cls(str(spec), str(image), classes, cost.params, cost.macs, title=title)

    @classmethod
    def of_reference(cls, reference: TeacherReference) -> Self:
        """Describe the teacher of a partition; raises InputError where its MACs are unknown."""
        if reference.macs is None:
            raise InputError(
                "accuracy cannot be predicted without the teacher's multiply-accumulates",
                where=reference.path,
            )
        return cls(
            reference.network,
            reference.image,
            reference.classes,
            reference.params,
            reference.macs,
            reference.fingerprint,
            f"{reference.network or 'a network'} of {reference.path}",
        )

    @property
    def index(self) -> float:
        """Its size as `index_of` measures it."""
        return size_index(self.params, self.macs)

    def same(self, other: "TeacherFacts") -> bool:
        """Say whether both are one teacher: by their weights, or else in everything known."""
        by_weights = self.fingerprint is not None and self.fingerprint == other.fingerprint
        return by_weights or self == other

    def like(self, other: "TeacherFacts") -> bool:
        """Say whether both are the same known network for the same kind of images."""
        return self.network is not None and (self.network, self.image, self.classes) == (
            other.network,
            other.image,
            other.classes,
        )


@dataclass(frozen=True, slots=True)
class AccuracyRow:
    """One trained row."""

    name: Annotated[str, Field(description="Name of the row.")]
    source: Annotated[str, Field(description="Where its accuracy is from.")]
    method: Annotated[Method, Field(description="How it was trained: nonn, atkd or kd.")]
    students: Annotated[int, Field(description="Number of students.")]
    teacher: Annotated[TeacherFacts, Field(description="Its teacher.")]
    teacher_accuracy_pct: Annotated[float, Field(description="The teacher's accuracy, percent.")]
    params: Annotated[float, Field(description="Parameters of all boards.")]
    macs: Annotated[float, Field(description="Multiply-accumulates per image, all boards.")]
    accuracy_pct: Annotated[float, Field(description="Test accuracy, percent.")]

    @property
    def missing(self) -> float:
        """How far its index lies below its teacher's."""
        return self.teacher.index - size_index(self.params, self.macs)


def size_index(params: float, macs: float) -> float:
    """Size index of accuracy: half of ln(params) plus half of ln(MACs), all boards."""
    return (log(params) + log(macs)) / 2


@cache
def published_rows() -> tuple[AccuracyRow, ...]:
    """Published rows with a whole size, each once (arXiv:1907.11804, Tables 2 to 5).

    SplitNet is another method; the rows that are compared with it lack FLOPs.
    """
    rows: dict[tuple[TeacherFacts, str], AccuracyRow] = {}
    for part in published_accuracy().parts:
        if part.table not in _TABLES:
            continue
        chosen = table_design(part.table, part.dataset)
        teacher = _teacher(part, chosen.rows[0].network, chosen.image, chosen.classes)
        for row in chosen.rows[1:]:
            found = _published_row(part, row, teacher)
            if found is not None:
                rows.setdefault((teacher, row.name), found)
    return tuple(rows.values())


def _teacher(part: PublishedPart, network: str, image: ImageShape, classes: int) -> TeacherFacts:
    params, flops = part.teacher.params, part.teacher.flops
    if params is None or flops is None:
        raise ValueError(f"table {part.table} does not say how large its teacher is")
    title = f"{part.teacher.model} on {part.dataset}"
    return TeacherFacts(
        network, str(image), classes, params, flops / part.flops_per_mac, title=title
    )


def _published_row(part: PublishedPart, row: TableRow, teacher: TeacherFacts) -> AccuracyRow | None:
    size = _size(part, row, teacher)
    if row.method not in ("nonn", "kd-nonn", "atkd", "kd") or size is None:
        return None
    method: Method = "kd" if row.method == "kd-nonn" else row.method
    return AccuracyRow(
        name=row.name,
        source=part.source,
        method=method,
        students=row.students,
        teacher=teacher,
        teacher_accuracy_pct=part.teacher.accuracy_pct,
        params=size[0],
        macs=size[1],
        accuracy_pct=part.of(row.name).accuracy_pct,
    )


def _size(part: PublishedPart, row: TableRow, teacher: TeacherFacts) -> tuple[float, float] | None:
    """Return parameters and MACs of all boards; None where they are not published."""
    compressed = _compressed(part, _SAME_NETWORK.get(row.name, row.name))
    if compressed and compressed.memory_compression and compressed.flops_compression:
        return (
            teacher.params / compressed.memory_compression,
            teacher.macs / compressed.flops_compression,
        )
    published = part.of(row.name)
    if published.params is None or published.flops is None:
        return None
    # One model, or students that are alike.
    return (
        row.students * published.params,
        row.students * published.flops / part.flops_per_mac,
    )


def _compressed(part: PublishedPart, name: str) -> PublishedRow | None:
    """Row of this name with a compression in Table 4, of the same data set."""
    for other in published_accuracy().parts:
        if other.table == "4" and other.dataset == part.dataset:
            return next((row for row in other.rows if row.row == name), None)
    return None


RECIPE, EVALUATION = "train.yaml", "evaluation.json"


def read_own_rows(
    path: Path, teacher: TeacherFacts, teacher_accuracy_pct: float | None
) -> tuple[AccuracyRow, ...]:
    """Rows of a run's folder or of a file of `nonn-plan table`.

    `teacher` is that of a folder's run, and its accuracy (percent) what the run's is compared
    with; a table's file names its own.  Raises InputError for anything else, for a run that was
    not evaluated, whose teacher is another one, or that says nothing of a NoNN.
    """
    if path.is_file():
        return table_rows(path)
    if teacher_accuracy_pct is None:
        raise InputError(
            "the teacher's accuracy is not known, so that its run tells no drop below it",
            where=str(path),
        )
    return (run_row(path, teacher, teacher_accuracy_pct),)


def run_row(folder: Path, teacher: TeacherFacts, teacher_accuracy_pct: float) -> AccuracyRow:
    """Row of one run, or mean row of the runs of several seeds.

    Raises InputError as `own_rows` does.
    """
    runs = [folder] if (folder / RECIPE).exists() else sorted(folder.glob(f"seed-*/{RECIPE}"))
    runs = [run.parent if run.name == RECIPE else run for run in runs]
    if not runs:
        raise InputError(
            "is not the folder of a run",
            where=str(folder),
            allowed="a folder that `nonn-plan train` made, or a file of `nonn-plan table`",
        )
    recipe = _common_recipe(folder, [TrainingRecipe.read(run / RECIPE) for run in runs])
    _check_teacher(recipe, teacher, folder)
    cost = _cost(recipe, teacher.classes, folder)
    return AccuracyRow(
        name=str(folder),
        source="own run",
        method=_method(recipe),
        students=len(recipe.model.students) if isinstance(recipe.model, NonnRecipe) else 1,
        teacher=teacher,
        teacher_accuracy_pct=teacher_accuracy_pct,
        params=cost.params,
        macs=cost.macs,
        accuracy_pct=mean(_evaluation(run).accuracy_pct for run in runs),
    )


def table_rows(path: Path) -> tuple[AccuracyRow, ...]:
    """Return the rows that `nonn-plan table` trained, less a SplitNet's; raises InputError."""
    results = TableResults.read(path)
    designed = table_design(results.table, results.dataset, results.experiment.teacher_network)
    own = next((row for row in results.rows if row.method == "teacher"), None)
    if own is None:
        raise InputError("holds no row of the teacher", where=str(path))
    whole = _cost_of_row(own, designed, results.classes, path)
    teacher = TeacherFacts(
        own.network,
        str(designed.image),
        results.classes,
        whole.fleet_params,
        whole.fleet_macs,
        results.teacher_fingerprint,
        f"{own.network} of {path}",
    )
    rows = []
    for row in results.rows:
        method = _table_method(row)
        if method is None:
            continue
        cost = _cost_of_row(row, designed, results.classes, path)
        rows.append(
            AccuracyRow(
                name=f"{path}: {row.row}",
                source="own run",
                method=method,
                students=max(1, len(row.filters)),
                teacher=teacher,
                teacher_accuracy_pct=own.accuracy_pct,
                params=cost.fleet_params,
                macs=cost.fleet_macs,
                accuracy_pct=row.accuracy_pct,
            )
        )
    return tuple(rows)


def _cost_of_row(row: RowResult, designed: TableDesign, classes: int, path: Path) -> RowCost:
    """Return a row's size in closed form; raises InputError where the file says another one."""
    where = f"{path}: {row.row}"
    how = next((one for one in designed.rows if one.name == row.row), None)
    if how is None or len(row.filters) != (how.students if how.is_nonn else 0):
        raise InputError(f"is no row of table {designed.published.table}", where=where)
    cost = row_cost(how, designed.image, classes, row.filters)
    if cost.board_macs != row.board_macs:
        raise InputError(
            "was trained on images of another shape than the published ones, which it does not say",
            where=where,
            fix="name the folders of its runs instead",
        )
    return cost


def _table_method(row: RowResult) -> Method | None:
    if row.method in ("teacher", "splitnet"):
        return None
    return "kd" if row.method in ("kd", "kd-nonn") else "nonn" if row.method == "nonn" else "atkd"


def _evaluation(run: Path) -> Evaluation:
    if not (run / EVALUATION).exists():
        raise InputError(
            "this run was not evaluated", where=str(run), fix=f"run: nonn-plan evaluate {run}"
        )
    return Evaluation.read(run / EVALUATION)


def _common_recipe(folder: Path, recipes: Sequence[TrainingRecipe]) -> TrainingRecipe:
    if any(each.model_copy(update={"seed": recipes[0].seed}) != recipes[0] for each in recipes):
        raise InputError("its runs are not of one recipe with several seeds", where=str(folder))
    return recipes[0]


def _check_teacher(recipe: TrainingRecipe, teacher: TeacherFacts, folder: Path) -> None:
    if recipe.image != teacher.image:
        raise InputError(
            "the run is for images of another shape than the teacher",
            where=str(folder),
            found=recipe.image,
            allowed=teacher.image,
        )
    digests = {recipe.teacher_fingerprint, teacher.fingerprint} - {None}
    if len(digests) > 1:
        raise InputError(
            "the run was trained from another teacher",
            where=str(folder),
            found=recipe.teacher_fingerprint,
            allowed=teacher.fingerprint,
        )


def _method(recipe: TrainingRecipe) -> Method:
    losses = recipe.distillation
    if isinstance(recipe.model, NonnRecipe):
        return "nonn" if losses.beta or losses.attention else "kd"
    return "atkd" if losses.attention else "kd"


def _cost(recipe: TrainingRecipe, classes: int, folder: Path) -> Cost:
    """Cost of all boards together, copies of G0 counted."""
    model, image = recipe.model, ImageShape.parse(recipe.image)
    if isinstance(model, SplitNetRecipe):
        raise InputError("a SplitNet says nothing of a NoNN's accuracy", where=str(folder))
    if isinstance(model, SingleRecipe):
        return teacher_cost(model.spec, image, classes)
    alone = model.group0 == "own-board"
    boards = [
        student_cost_line(one.spec, image, own_group0=not alone).at(len(one.filters))
        for one in model.students
    ]
    if alone:
        boards.append(group0_cost(model.students[0].spec, image))
    return Cost(
        params=sum(board.params for board in boards),
        macs=sum(board.macs for board in boards),
        peak_elements=max(board.peak_elements for board in boards),
    )
