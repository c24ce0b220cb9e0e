"""`explore`: what if budgets, fleet or objective were others."""

import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nonn_core.partition import Partition
from nonn_plan.exploring_view import show_exploration
from nonn_plan.options import AsJson
from nonn_plan.output import Output
from nonn_plan.question_options import (
    STAGES_HELP,
    PartitionFile,
    QuestionOptions,
    with_question_options,
)
from nonn_plan.typed_axis import typed_axis
from nonn_plan.typed_grid import Asking, OneFleet, check_own_boards
from planner.stage import Stage
from profiles.document import check_own_place, check_picture, write_atomic
from profiles.errors import InfeasibleError, InputError, UnprovenError
from profiles.units import parse_bytes, parse_macs

if TYPE_CHECKING:
    from planner.exploration.exploration import Cell, Exploration, Solver

_DEFAULT = QuestionOptions().objective


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command()(explore)


@with_question_options
def explore(
    *,
    partition_file: PartitionFile,
    fleet: Annotated[
        list[str],
        typer.Option("--fleet", help="Library name, file, or list: rpi-3b*2,odroid-xu4s. Repeat."),
    ],
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder of what is found.")] = Path(
        "explore"
    ),
    memory: Annotated[
        list[str] | None,
        typer.Option(
            "--memory",
            help="Memory budgets, START:STOP:STEP 300KB:1MB:50KB, or 300KB,500KB, or one; of one "
            "board, in all cells: BOARD=500KB.",
        ),
    ] = None,
    flops: Annotated[
        list[str] | None,
        typer.Option("--flops", help="FLOP budgets per image, 100M:300M:25M, likewise."),
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option("--objective", help=f"{STAGES_HELP} Repeatable; default {_DEFAULT}."),
    ] = None,
    pareto: Annotated[
        str | None,
        typer.Option(
            "--pareto", help="Also the whole front of two or more: accuracy,latency,boards."
        ),
    ] = None,
    breakpoints: Annotated[
        str | None,
        typer.Option(
            "--breakpoints",
            help="memory or flops: also where, within the range of this budget on every board at "
            "once, each better optimum starts; a range START:STOP is enough.",
        ),
    ] = None,
    options: QuestionOptions,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Cores to use; default: all of them.")
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option("--dask", help="Scheduler of a Dask cluster to use instead: tcp://HOST:PORT."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask what if budgets, fleet or objective were others; each cell is solved and proven.

    Killed or stopped, the same command goes on with what is missing.
    """
    from planner.exploration.exploration import explored

    output = Output(as_json)
    partition = Partition.read(partition_file)
    if breakpoints not in (None, "memory", "flops"):
        raise InputError("--breakpoints", found=breakpoints, allowed="memory or flops")
    axes = {
        "memory": typed_axis("--memory", memory or [], parse_bytes, ends=breakpoints == "memory"),
        "flops": typed_axis("--flops", flops or [], parse_macs, ends=breakpoints == "flops"),
    }
    fleets = [OneFleet.of(text, axes) for text in dict.fromkeys(fleet)]
    check_own_boards(fleets, axes)
    stages = _objectives(objective or [], options.minimise)
    measures = None if pareto is None else _measures(pareto, options.minimise)
    asking = Asking(partition, options, axes)
    planned = [
        *asking.plans(fleets, stages),
        *asking.fronts(fleets, measures),
        *asking.breakpoints(fleets, stages, breakpoints),
    ]
    _check_folder(out)
    with output.progress(
        f"finished cells are under {out / 'cells'}, and the same command goes on with the rest"
    ) as progress:
        cells, reused = explored(planned, out / "cells", _solver(jobs, dask), progress)
    if reused:
        output.say(f"{reused} of {len(cells)} cells had been solved before")
    found = _written(cells, out)
    show_exploration(output, found)
    output.say(f"written to {out}: index.html, explore.json, cells.csv, cells.parquet")
    output.result(found.model_dump(mode="json"))
    _require_answers(found, options.limit)


def _objectives(typed: Sequence[str], minimise: Sequence[str] | None) -> list[str]:
    if minimise and typed:
        raise InputError("--minimise is in place of --objective", fix="give one of them")
    return list(dict.fromkeys(typed)) or [_DEFAULT]


def _measures(text: str, minimise: Sequence[str] | None) -> str:
    """Read what a front is of; raises InputError."""
    stages = [Stage.parse(part) for part in text.split(",")]
    if len(stages) < 2 or any(stage.tolerance_pct for stage in stages):
        raise InputError(
            "--pareto", found=text, allowed="two or more objectives without tolerances"
        )
    if minimise:
        raise InputError("--pareto does not go with --minimise", fix="use --objective")
    return ",".join(str(stage) for stage in stages)


def _check_folder(out: Path) -> None:
    """Refuse to replace what is not an exploration's."""
    from planner.exploration.exploration import Exploration
    from planner.exploration.page import START
    from planner.exploration.tables import check_tables

    Exploration.check_target(out / "explore.json")
    check_tables(out)
    check_own_place(out / "index.html", START)


def _solver(jobs: int | None, dask: str | None) -> "Solver":
    from planner.exploration.spread import found_locally, found_on_cluster

    if dask is not None and jobs is not None:
        raise InputError("--jobs is of this machine's cores, and --dask uses none of them")
    if dask is not None:
        return partial(found_on_cluster, address=dask)
    return partial(found_locally, jobs=-1 if jobs is None else jobs)


def _written(cells: "Sequence[Cell]", out: Path) -> "Exploration":
    from planner.exploration.cell import versions
    from planner.exploration.exploration import Exploration
    from planner.exploration.page import page
    from planner.exploration.pictures import pictures
    from planner.exploration.tables import write_tables

    found = Exploration(
        command=shlex.join(["nonn-plan", *sys.argv[1:]]), versions=versions(), cells=tuple(cells)
    )
    drawn = pictures(found)
    found = found.model_copy(update={"pictures": tuple(drawn)})
    for name, content in drawn.items():
        check_picture(out / name)
        write_atomic(out / name, content)
    write_tables(cells, out)
    write_atomic(out / "index.html", page(found, drawn))
    found.write(out / "explore.json")
    return found


def _require_answers(found: "Exploration", limit: float) -> None:
    """Raise what the exit code says."""
    if count := found.with_status("unproven"):
        raise UnprovenError(
            f"the limit of {limit:g} stopped the proof of {count} of {len(found.cells)} cells; "
            "raise --limit"
        )
    if found.with_status("infeasible") == len(found.cells):
        raise InfeasibleError("proven infeasible: every cell; --json and index.html say why")
