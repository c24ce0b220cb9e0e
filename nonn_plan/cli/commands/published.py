"""`table`, `reproduce`: published accuracy and deployment figures beside obtained ones.

torch and the simulator are loaded inside the commands, so that the others start without them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nonn_common.document import check_own_place, check_place, write_atomic
from nonn_common.errors import InputError
from nonn_core.accuracy_report import PublishedPart, dataset_name, table_name
from nonn_core.experiments.table_results import (
    Experiment,
    RobustnessResult,
    RowResult,
    TableResults,
    robustness_result,
)
from nonn_core.experiments.table_rows import TableDesign, published_sizes, row_cost, table_design
from nonn_core.networks.family import parse_network
from nonn_core.recipe import Axis, ComputeRecipe, OptimiserRecipe, grid_settings
from nonn_plan.cli.commands.latencies import show_latency_errors
from nonn_plan.cli.output import Output
from nonn_plan.cli.parsers.options import (
    AsJson,
    BatchSize,
    CachedViews,
    Device,
    Precision,
    Seed,
    SettingAxes,
)
from nonn_plan.cli.views.table_report import costs_sheet, sheets, show_sheets, table_markdown

if TYPE_CHECKING:
    from nonn_core.experiments.row_training import TrainingSetup
    from nonn_plan.reproduction import ReproducedFigure


TO_RESUME = "finished rows and epochs are kept; run the same command again to go on"
_HERE = "nonn-plan table"


def table(
    number: Annotated[str, typer.Argument(metavar="TABLE", help="2, 3, 4, 5 or fig8.")],
    data: Annotated[
        str | None,
        typer.Option("--data", help="Data set; default: where `download` puts the published one."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against", help="Published data set, if the table has two: cifar-100 (4), cub (5)."
        ),
    ] = None,
    teacher: Annotated[
        str | None, typer.Option("--teacher", help="A ready teacher; default: train one.")
    ] = None,
    teacher_network: Annotated[
        str | None,
        typer.Option(
            "--teacher-network", help="Default: the published one; for small machines wrn16-2."
        ),
    ] = None,
    rows: Annotated[
        str | None, typer.Option("--rows", help="Only these, e.g. kd,nonn-2s; default: all.")
    ] = None,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Epochs of every row.")] = 200,
    teacher_epochs: Annotated[
        int, typer.Option("--teacher-epochs", min=1, help="Epochs of the teacher.")
    ] = 200,
    batch_size: BatchSize = 128,
    subset: Annotated[
        int | None,
        typer.Option("--subset", min=1, help="Train on the first so many images of each class."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Runs of every row.")] = 5,
    tried: SettingAxes = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    views: CachedViews = 0,
    costs: Annotated[
        bool, typer.Option("--costs", help="Only show what the rows need; train nothing.")
    ] = False,
    out: Annotated[
        Path, typer.Option("-o", "--output", help="Folder; tables of one teacher may share it.")
    ] = Path("tables"),
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Train the rows of a published accuracy table; show published beside obtained."""
    output = Output(as_json)
    network = _teacher_network(teacher, teacher_network)
    design = table_design(table_name(number), dataset_name(against) if against else None, network)
    design = design.only(rows.split(",")) if rows else design
    if costs:
        _show_costs(output, design)
        return
    axes = tuple(Axis.parse(text) for text in tried or ())
    grid_settings(axes)
    optimisers = {
        name: OptimiserRecipe(epochs=count, batch_size=batch_size)
        for name, count in (("optimiser", epochs), ("teacher_optimiser", teacher_epochs))
    }
    compute = {"device": device, "precision": precision, "cached_views": views}
    experiment = Experiment.check(
        {
            "data": _data(data, design),
            "images_per_class": subset,
            "teacher_network": design.teacher,
            "given_teacher": teacher,
            **optimisers,
            "compute": ComputeRecipe.check(compute, where=_HERE),
            "seed": seed,
        },
        where=_HERE,
    )
    results = _train_rows(output, design, experiment, axes, seeds, out)
    show_sheets(output, sheets(results))
    output.say(f"written to {out / _table_name(design)}.json and, for reading, .md")
    output.result(results.model_dump(mode="json"))


def _show_costs(output: Output, design: TableDesign) -> None:
    costs = {
        row.name: row_cost(
            row, design.image, design.classes, published_sizes(design.teacher, row.students)
        )
        for row in design.rows
    }
    show_sheets(output, [costs_sheet(design, costs)])
    output.result({name: asdict(cost) for name, cost in costs.items()})


def _train_rows(
    output: Output,
    design: TableDesign,
    experiment: Experiment,
    axes: Sequence[Axis],
    seeds: int,
    out: Path,
) -> TableResults:
    """Train row by row, and write all finished rows after each one."""
    from nonn_core.experiments.row_training import prepare, train_row

    table_file = out / _table_name(design)
    check_place(table_file.with_suffix(".json"))
    with output.progress(f"{out}: {TO_RESUME}") as progress:
        bench = prepare(design, experiment, out, progress)
        output.warn(*bench.dataset.warnings, *bench.warnings)
        rows = _finished_rows(table_file.with_suffix(".json"), bench)
        for row in design.rows:
            output.say(f"{row.name}: {row.network}")
            rows[row.name] = train_row(bench, row, axes, seeds, progress)
            results = _results(bench, rows)
            results.write(table_file.with_suffix(".json"))
            write_atomic(table_file.with_suffix(".md"), table_markdown(results).encode())
    return results


def _finished_rows(path: Path, bench: "TrainingSetup") -> dict[str, RowResult]:
    """Rows that earlier calls left, by name.

    Raises InputError for another teacher's.
    """
    if not path.exists():
        return {}
    found = TableResults.read(path)
    if found.teacher_fingerprint != bench.teacher_fingerprint:
        raise InputError(
            "holds rows of another teacher", where=str(path), fix="choose another output folder"
        )
    same = found.dataset == bench.design.published.dataset
    return {row.row: row for row in found.rows} if same else {}


def _results(bench: "TrainingSetup", rows: Mapping[str, RowResult]) -> TableResults:
    from nonn_core.experiments.row_training import describe_machine, software_versions

    published, dataset = bench.design.published, bench.dataset
    training, _ = dataset.split(bench.teacher.seed)
    in_order = (published.teacher, *published.rows)
    return TableResults(
        table=published.table,
        dataset=published.dataset,
        source=published.source,
        experiment=bench.experiment,
        teacher_fingerprint=bench.teacher_fingerprint,
        classes=dataset.classes,
        training_images=len(training),
        test_images=len(dataset.test),
        machine=describe_machine(bench.experiment.compute.device),
        versions=software_versions(),
        rows=tuple(rows[one.row] for one in in_order if one.row in rows),
        robustness=_robustness(published, rows),
    )


def _robustness(published: PublishedPart, rows: Mapping[str, RowResult]) -> RobustnessResult | None:
    """Aggregate the subsets of the row that the figure is of, once it is finished."""
    row = rows.get(published.rows[0].row)
    if published.robustness is None or row is None:
        return None
    imputed = [run.imputed for run in row.runs]
    return robustness_result(
        [run.subsets for run in row.runs], published.robustness, imputed if all(imputed) else ()
    )


def _teacher_network(teacher: str | None, network: str | None) -> str | None:
    """Network whose students are trained: the option's, or a ready teacher's."""
    if teacher is None:
        return network
    from nonn_core.teacher.teacher import SUFFIX, TeacherCard

    if not teacher.endswith(SUFFIX):
        if network is None:
            raise InputError(
                "such a teacher does not say which network it is",
                where=teacher,
                fix="give the one that it stands for as --teacher-network",
            )
        return network
    found = TeacherCard.beside(Path(teacher)).network
    if network is not None and str(parse_network(network)) != found:
        raise InputError(
            "--teacher-network is not that of the teacher",
            where=teacher,
            found=network,
            allowed=f"{found}, or nothing",
        )
    return found


def _data(given: str | None, design: TableDesign) -> str:
    found = given or design.data
    if found is None:
        raise InputError(
            f"--data is needed: images of {design.published.dataset} cannot be downloaded",
            allowed="imagefolder:PATH",
        )
    return found


def _table_name(design: TableDesign) -> str:
    """Name a table's files: `table-2`, `fig8`."""
    name = design.published.table
    return name if name == "fig8" else f"table-{name}"


PAGE_TITLE = "# Reproduction of published deployment figures"
FIGURE_COLUMNS = ("row", "quantity", "published", "simulated", "error %", "fitted", "left out %")
SIGN_OF_ERRORS = (
    "Errors are simulated less published, in per cent of what is published: + where the simulator "
    "says more."
)


def reproduce(
    out: Annotated[
        Path | None,
        typer.Option("-o", "--output", "--markdown", help="Write the page as Markdown, page.md."),
    ] = None,
    latencies: Annotated[
        bool,
        typer.Option(
            "--latencies", help="Errors of predicted latencies on public measurements instead."
        ),
    ] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="With --latencies: draw them, picture.png.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Every published deployment figure beside the simulated one, with the error.

    `fitted` says whether the profiles were fitted to the figure, `left out` how far off they are
    when they are fitted without its row: none, where no other row tells a figure that it needs.
    Withheld figures have a prediction alone.
    """
    from nonn_plan.reproduction import reproduced_figures

    output = Output(as_json)
    if latencies:
        if out is not None:
            raise InputError("not with --latencies", where="-o", found=str(out))
        show_latency_errors(output, plot)
        return
    if plot is not None:
        raise InputError("only with --latencies", where="--plot", found=str(plot))
    if out is not None:
        check_own_place(out, PAGE_TITLE.encode())
    rows = reproduced_figures()
    for table in dict.fromkeys(row.table for row in rows):
        output.table(
            table, FIGURE_COLUMNS, [_figure_cells(row) for row in rows if row.table == table]
        )
    output.say(SIGN_OF_ERRORS)
    output.say(largest_errors(rows))
    if out is not None:
        write_atomic(out, reproduction_page(rows).encode())
        output.say(f"written to {out}")
    output.result([row.model_dump(mode="json") for row in rows])


def largest_errors(rows: "Sequence[ReproducedFigure]") -> str:
    """Sentence with the largest error of fitted figures, table by table."""
    parts = []
    for table in dict.fromkeys(row.table for row in rows):
        errors = [
            abs(row.error_pct)
            for row in rows
            if row.table == table and row.used_for_fit and row.error_pct is not None
        ]
        if errors:
            parts.append(f"{table}: {max(errors):.1f} % ({len(errors)} figures)")
    return f"Largest error of figures used to fit: {'; '.join(parts)}."


def reproduction_page(rows: "Sequence[ReproducedFigure]") -> str:
    """Page of the documentation, in Markdown."""
    parts = [
        PAGE_TITLE,
        "Written by `nonn-plan reproduce -o docs/reproduction.md`; not edited by hand.",
        "Each published measurement is run as a workload in the simulator, on the profiles of the "
        "library. These were fitted (`profiles.calibration`) to the figures marked so under "
        "*fitted*; *left out* is the error on a figure when its row takes no part in the fit. "
        "A figure without a published value is withheld: a blind test, predicted from the others. "
        f"Published figures and their sources: `profiles/data/published.yaml`. {SIGN_OF_ERRORS}",
        "In Figure 7 students move one by one from slow boards of their own to one fast board; "
        "`nonn-plan sweep --from rpi-3b --to odroid-xu4s --student 167M --sends per-student` draws "
        "it: the host sends an image to each student, also to those of one board. "
        "A student there has the published 167 MFLOPs, as in Tables 6 and 7; "
        "`--student wrn16:32,64,88`, the network of the nearest size, has 171 (decision 0015) and "
        "takes longer. "
        "Communication there is the total latency less the busy time of the board that computes "
        "longest; energy is that of computing, of all boards together.",
        largest_errors(rows),
    ]
    for table in dict.fromkeys(row.table for row in rows):
        lines = [(*FIGURE_COLUMNS, "note"), ("---",) * (len(FIGURE_COLUMNS) + 1)]
        lines += [(*_figure_cells(row), row.loo_reason or "") for row in rows if row.table == table]
        parts += [f"## {table}", "\n".join(f"| {' | '.join(line)} |" for line in lines)]
    return "\n\n".join(parts) + "\n"


def _figure_cells(row: "ReproducedFigure") -> tuple[str, ...]:
    return (
        row.row,
        row.quantity,
        "withheld" if row.published is None else f"{row.published:.10g}",
        f"{row.simulated:.4g}" if row.simulated < 1000 else f"{row.simulated:.0f}",
        _signed(row.error_pct),
        "yes" if row.used_for_fit else "no",
        _signed(row.loo_error_pct) or ("none" if row.used_for_fit else ""),
    )


def _signed(error_pct: float | None) -> str:
    return "" if error_pct is None else f"{round(error_pct, 1) + 0.0:+.1f}"
