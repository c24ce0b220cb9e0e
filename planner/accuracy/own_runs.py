"""The user's own finished runs as rows of the accuracy model.

Read are folders that `nonn-plan train` and `evaluate` leave (one run, or one of several seeds, of
which the mean counts), and the files of `nonn-plan table`.  Loads no torch.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from nonn_common.errors import InputError
from nonn_core.accuracy_report import Evaluation
from nonn_core.experiments.table_results import RowResult, TableResults
from nonn_core.experiments.table_rows import RowCost, TableDesign, row_cost, table_design
from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.network_cost import Cost, group0_cost, student_cost_line, teacher_cost
from nonn_core.recipe import NonnRecipe, SingleRecipe, SplitNetRecipe, TrainingRecipe
from planner.accuracy.rows import AccuracyRow, Method, TeacherFacts

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
