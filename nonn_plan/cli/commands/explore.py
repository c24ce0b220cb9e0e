"""`explore`: plans under other budgets, fleets or objectives."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nonn_common.errors import InfeasibleError, InputError, UnprovenError
from nonn_common.units import FLOPS_PER_MAC, format_bytes, format_flops, parse_bytes, parse_macs
from nonn_core.evidence import partition_warnings
from nonn_core.partition import Partition
from nonn_plan.api import check_exploration_folder, solve_cells, write_exploration
from nonn_plan.cli.output import Output
from nonn_plan.cli.parsers.cell_grid import (
    CellGrid,
    GridFleet,
    check_own_boards,
    parse_axis,
    parse_mw,
)
from nonn_plan.cli.parsers.options import AsJson
from nonn_plan.cli.parsers.problem_options import (
    OBJECTIVE_HELP,
    PROPOSED,
    PartitionFile,
    ProblemOptions,
    with_problem_options,
)
from nonn_plan.cli.views.plan_report import unknown_spread
from planner.problem.budgets import memory_notes
from planner.problem.goals import ObjectiveLevel

if TYPE_CHECKING:
    from planner.exploration.exploration import Cell, CellPlace, Exploration, PlannedCell


_DEFAULT_OBJECTIVE = ProblemOptions().objective


@with_problem_options
def explore(
    *,
    partition_file: PartitionFile,
    fleet: Annotated[
        list[str],
        typer.Option("--fleet", help="Library name, file, or list: rpi-3b*2,rpi-4b@wifi. Repeat."),
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
        typer.Option(
            "--objective", help=f"{OBJECTIVE_HELP} Repeatable; default {_DEFAULT_OBJECTIVE}."
        ),
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
    options: ProblemOptions,
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
    from planner.exploration.exploration import refusals_told
    from simulator.results.tables import GET_PARQUET, HAS_PARQUET

    output = Output(as_json)
    partition = Partition.read(partition_file)
    if breakpoints not in (None, "memory", "flops"):
        raise InputError("--breakpoints", found=breakpoints, allowed="memory or flops")
    axes = {
        "memory": parse_axis("--memory", memory or [], parse_bytes, ends=breakpoints == "memory"),
        "flops": parse_axis("--flops", flops or [], parse_macs, ends=breakpoints == "flops"),
        "power": parse_axis("--power", options.power or [], parse_mw, ends=False),
    }
    fleets = [GridFleet.of(text, axes) for text in dict.fromkeys(fleet)]
    check_own_boards(fleets, axes)
    objectives = _objectives(objective or [], options.minimise)
    front = None if pareto is None else _measures(pareto, options.minimise)
    grid = CellGrid(partition, options, axes)
    cells = [
        *grid.plans(fleets, objectives),
        *grid.fronts(fleets, front),
        *grid.breakpoints(fleets, objectives, breakpoints),
    ]
    if options.proposes_students(partition):
        output.say(PROPOSED)
    if dask is not None and jobs is not None:
        raise InputError("--jobs is of this machine's cores, and --dask uses none of them")
    check_exploration_folder(out)
    with output.progress(
        f"finished cells are under {out / 'cells'}, and the same command goes on with the rest"
    ) as progress:
        solved, reused = solve_cells(cells, out, jobs=jobs or -1, dask=dask, progress=progress)
    if reused:
        output.say(f"{reused} of {len(solved)} cells had been solved before")
    exploration = write_exploration(solved, out, shlex.join(["nonn-plan", *sys.argv[1:]]))
    notes = [note for cell in cells for note in memory_notes(cell.asked.problem.budgets)]
    output.warn(*partition_warnings(partition, options.epsilon), *_unknown_spreads(cells))
    output.warn(*dict.fromkeys(notes))
    _show_exploration(output, exploration)
    if refusals := refusals_told(exploration.cells):
        output.say(f"infeasible cells: {refusals}")
    parquet = ", cells.parquet" if HAS_PARQUET else f"; Parquet is left out; {GET_PARQUET}"
    output.say(f"written to {out}: index.html, explore.json, cells.csv{parquet}")
    left_out = {} if HAS_PARQUET else {"left_out": [f"Parquet; {GET_PARQUET}"]}
    output.result({**exploration.model_dump(mode="json"), **left_out})
    _require_answers(exploration, options.limit)


def _objectives(typed: Sequence[str], minimise: Sequence[str] | None) -> list[str]:
    if minimise and typed:
        raise InputError("--minimise is in place of --objective", fix="give one of them")
    return list(dict.fromkeys(typed)) or [_DEFAULT_OBJECTIVE]


def _measures(text: str, minimise: Sequence[str] | None) -> str:
    """Read what a front is of; raises InputError."""
    levels = [ObjectiveLevel.parse(part) for part in text.split(",")]
    if len(levels) < 2 or any(stage.tolerance_pct for stage in levels):
        raise InputError(
            "--pareto", found=text, allowed="two or more objectives without tolerances"
        )
    if minimise:
        raise InputError("--pareto does not go with --minimise", fix="use --objective")
    return ",".join(str(stage) for stage in levels)


def _require_answers(exploration: "Exploration", limit: float) -> None:
    """Raise what the exit code says."""
    if count := exploration.with_status("unproven"):
        raise UnprovenError(
            f"the limit of {limit:g} stopped the proof of {count} of {len(exploration.cells)} "
            "cells; raise --limit"
        )
    if exploration.with_status("infeasible") == len(exploration.cells):
        from planner.exploration.exploration import refusals_told

        raise InfeasibleError(
            "proven infeasible: every cell; --json and index.html say why of each; "
            f"{refusals_told(exploration.cells)}"
        )


def _show_exploration(output: Output, exploration: "Exploration") -> None:
    """Show a table for each fleet and objective, each front, and each budget's break-points.

    Below it, why there is no plan in the last infeasible cell.
    """
    groups: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in exploration.cells:
        key = (cell.found.kind, cell.place.fleet, cell.place.objective)
        groups.setdefault(key, []).append(cell)
    for (kind, fleet, objective), cells in groups.items():
        names = [part.split(":")[0] for part in objective.split(",")]
        if kind == "plan":
            _show_plans(output, f"{fleet}: {objective}", names, cells)
        else:
            noun = "front" if kind == "front" else f"break-points of {cells[0].place.axis},"
            _show_steps(output, f"{fleet}: {noun} {objective}", names, cells)


def _unknown_spreads(cells: "Sequence[PlannedCell]") -> Iterator[str]:
    """Warnings of boards whose spread a percentile does without, each once."""
    problems = [cell.asked.problem for cell in cells]
    yield from dict.fromkeys(
        sentence
        for problem in problems
        for sentence in unknown_spread(problem, {board.name for board in problem.boards})
    )


def _show_plans(output: Output, title: str, names: Sequence[str], cells: "Sequence[Cell]") -> None:
    from planner.exploration.exploration import labelled

    output.table(
        title,
        (*_budget_names(cells), *map(labelled, names), "students", "status"),
        [
            (
                *_budget_cells(cell.place)[: len(_budget_names(cells))],
                *(_value(cell.found.values.get(name)) for name in names),
                _value(cell.found.values.get("students")),
                cell.found.status,
            )
            for cell in cells
        ],
    )
    refused = [cell for cell in cells if cell.found.conflict]
    if refused:
        budgets = zip(_budget_names(cells), _budget_cells(refused[-1].place), strict=False)
        given = " and ".join(f"{name} {value}" for name, value in budgets if value != "-")
        output.say(
            f"{len(refused)} of {len(cells)} infeasible; {f'with {given} ' if given else ''}"
            "these cannot hold together:"
        )
        for sentence in refused[-1].found.conflict:
            output.say(f"  - {sentence}")


def _show_steps(output: Output, title: str, names: Sequence[str], cells: "Sequence[Cell]") -> None:
    from planner.exploration.exploration import labelled

    rows = []
    for cell in cells:
        found = [(_budget_cells(cell.place), one.values) for one in cell.found.points]
        for step in cell.found.breakpoints:
            memory, flops, power = _budget_cells(cell.place)
            below = " or less" if step.below_range else ""
            if cell.place.axis == "memory":
                memory = f"{step.least:,} B{below}"
            else:
                flops = f"{step.least:,} FLOP{below}"
            found.append(((memory, flops, power), step.values))
        rows += [
            (
                *budgets[: len(_budget_names(cells))],
                *(_value(values.get(name)) for name in names),
                cell.found.status,
            )
            for budgets, values in found or [(_budget_cells(cell.place), {})]
        ]
    output.table(title, (*_budget_names(cells), *map(labelled, names), "status"), rows)
    counts = [count for cell in cells if (count := cell.found.enumerated_plans) is not None]
    if counts:
        of = f"{len(counts)} of {len(cells)} fronts" if len(cells) > 1 else "the front"
        most = f"up to {max(counts):,}" if len(counts) > 1 else f"{counts[0]:,}"
        output.say(f"{of}: proven by enumeration of {most} plans")


def _budget_names(cells: "Sequence[Cell]") -> tuple[str, ...]:
    """Names of the budgets of cells; power where one has a limit."""
    limited = any(cell.place.power_w is not None for cell in cells)
    return ("memory", "FLOPs", "power") if limited else ("memory", "FLOPs")


def _budget_cells(place: "CellPlace") -> tuple[str, str, str]:
    memory = "-" if place.memory_bytes is None else format_bytes(place.memory_bytes)
    flops = "-" if place.flops is None else format_flops(place.flops / FLOPS_PER_MAC)
    return memory, flops, "-" if place.power_w is None else f"{place.power_w:g} W"


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
