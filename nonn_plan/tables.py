"""`table`: train the rows of a published accuracy table, and print published beside obtained.

torch is loaded inside the command, so that the others start without it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nonn_core.family import parse_network
from nonn_core.grid import Axis, settings
from nonn_core.recipe import ComputeRecipe, OptimiserRecipe
from nonn_core.tables.experiment import Experiment
from nonn_core.tables.published import PublishedPart, dataset_name, table_name
from nonn_core.tables.results import RowResult, TableResults
from nonn_core.tables.robustness import Robustness, robustness
from nonn_core.tables.row_cost import published_sizes, row_cost
from nonn_core.tables.rows import Design, design
from nonn_plan.options import AsJson, BatchSize, Device, Precision, Seed, Tried, Views
from nonn_plan.output import Output
from nonn_plan.table_view import costs_sheet, markdown, sheets, show
from profiles.document import check_place, write_atomic
from profiles.errors import InputError

if TYPE_CHECKING:
    from nonn_core.tables.bench import Bench

TO_RESUME = "finished rows and epochs are kept; run the same command again to go on"
_HERE = "nonn-plan table"


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command()(table)


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
    tried: Tried = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    views: Views = 0,
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
    chosen = design(table_name(number), dataset_name(against) if against else None, network)
    chosen = chosen.only(rows.split(",")) if rows else chosen
    if costs:
        _show_costs(output, chosen)
        return
    axes = tuple(Axis.parse(text) for text in tried or ())
    settings(axes)
    optimisers = {
        name: OptimiserRecipe(epochs=count, batch_size=batch_size)
        for name, count in (("optimiser", epochs), ("teacher_optimiser", teacher_epochs))
    }
    compute = {"device": device, "precision": precision, "cached_views": views}
    experiment = Experiment.check(
        {
            "data": _data(data, chosen),
            "images_per_class": subset,
            "teacher_network": chosen.teacher,
            "given_teacher": teacher,
            **optimisers,
            "compute": ComputeRecipe.check(compute, where=_HERE),
            "seed": seed,
        },
        where=_HERE,
    )
    found = _trained(output, chosen, experiment, axes, seeds, out)
    show(output, sheets(found))
    output.say(f"written to {out / _name(chosen)}.json and, for reading, .md")
    output.result(found.model_dump(mode="json"))


def _show_costs(output: Output, chosen: Design) -> None:
    found = {
        row.name: row_cost(
            row, chosen.image, chosen.classes, published_sizes(chosen.teacher, row.students)
        )
        for row in chosen.rows
    }
    show(output, [costs_sheet(chosen, found)])
    output.result({name: asdict(cost) for name, cost in found.items()})


def _trained(
    output: Output,
    chosen: Design,
    experiment: Experiment,
    axes: Sequence[Axis],
    seeds: int,
    out: Path,
) -> TableResults:
    """Train row by row; after each, all rows of this table that are finished are written."""
    from nonn_core.tables.bench import prepare, train_row

    table_file = out / _name(chosen)
    check_place(table_file.with_suffix(".json"))
    with output.progress(f"{out}: {TO_RESUME}") as progress:
        bench = prepare(chosen, experiment, out, progress)
        rows = _finished_before(table_file.with_suffix(".json"), bench)
        for row in chosen.rows:
            output.say(f"{row.name}: {row.network}")
            rows[row.name] = train_row(bench, row, axes, seeds, progress)
            found = _results(bench, rows)
            found.write(table_file.with_suffix(".json"))
            write_atomic(table_file.with_suffix(".md"), markdown(found).encode())
    return found


def _finished_before(path: Path, bench: "Bench") -> dict[str, RowResult]:
    """Return the rows that earlier calls left, by name; raises InputError for another teacher's."""
    if not path.exists():
        return {}
    found = TableResults.read(path)
    if found.teacher_fingerprint != bench.teacher_fingerprint:
        raise InputError(
            "holds rows of another teacher", where=str(path), fix="choose another output folder"
        )
    same = found.dataset == bench.design.published.dataset
    return {row.row: row for row in found.rows} if same else {}


def _results(bench: "Bench", rows: Mapping[str, RowResult]) -> TableResults:
    from nonn_core.tables.machine import machine, versions

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
        machine=machine(bench.experiment.compute.device),
        versions=versions(),
        rows=tuple(rows[one.row] for one in in_order if one.row in rows),
        robustness=_robustness(published, rows),
    )


def _robustness(published: PublishedPart, rows: Mapping[str, RowResult]) -> Robustness | None:
    """Aggregate the subsets of the row that the figure is of, once it is finished."""
    row = rows.get(published.rows[0].row)
    if published.robustness is None or row is None:
        return None
    return robustness([run.subsets for run in row.runs], published.robustness)


def _teacher_network(teacher: str | None, network: str | None) -> str | None:
    """Return the network whose students are trained: the option's, or that of a ready teacher."""
    if teacher is None:
        return network
    from nonn_core.teacher import SUFFIX, TeacherCard

    if not teacher.endswith(SUFFIX):
        if network is None:
            raise InputError(
                "such a teacher does not say which network it is",
                where=teacher,
                fix="give the one that it stands for as --teacher-network",
            )
        return network
    found = TeacherCard.read(Path(teacher).with_suffix(".json")).network
    if network is not None and str(parse_network(network)) != found:
        raise InputError(
            "--teacher-network is not that of the teacher",
            where=teacher,
            found=network,
            allowed=f"{found}, or nothing",
        )
    return found


def _data(given: str | None, chosen: Design) -> str:
    found = given or chosen.data
    if found is None:
        raise InputError(
            f"--data is needed: images of {chosen.published.dataset} cannot be downloaded",
            allowed="imagefolder:PATH",
        )
    return found


def _name(chosen: Design) -> str:
    """Name a table's files: `table-2`, `fig8`."""
    name = chosen.published.table
    return name if name == "fig8" else f"table-{name}"
