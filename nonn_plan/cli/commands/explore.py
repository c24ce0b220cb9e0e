"""`explore`: plans under other budgets, fleets or objectives."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nonn_common.errors import InfeasibleError, InputError, UnprovenError
from nonn_common.units import parse_bytes, parse_macs, parse_pct
from nonn_core.evidence import partition_warnings
from nonn_core.partition import Partition
from nonn_plan.api import check_exploration_folder, solve_cells, write_exploration
from nonn_plan.cli.output import Output
from nonn_plan.cli.parsers.cell_grid import (
    STEPPED,
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
from planner.problem.budgets import memory_notes, one_memory_notes
from planner.problem.goals import OBJECTIVES, ObjectiveLevel

if TYPE_CHECKING:
    from planner.exploration.exploration import Cell, Exploration, PlannedCell


MOST_LINES = 40
"""Lines that an exploration is shown in, all sentences included."""
_LINES_OF_TABLE = 5
"""Title, heads and rules of a table."""
_LINES_AROUND = 8
"""Sentences before and behind the tables."""

Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]
"""Title, columns and rows."""
_DEFAULT_OBJECTIVE = ProblemOptions().objective
_FRONT_STEP = "2%"


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
            help="memory, flops, flash or ram: also where, within the range of this budget on "
            "every board at once, each better optimum starts; a range START:STOP is enough.",
        ),
    ] = None,
    front_step: Annotated[
        str | None,
        typer.Option(
            "--front-step",
            help="Points of fronts that people are shown differ by this part of the range of some "
            f"measure, by default {_FRONT_STEP}; CSV and Parquet have all.",
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
    if breakpoints not in (None, *STEPPED):
        allowed = "memory, flops, flash or ram"
        raise InputError("not a budget", where="--breakpoints", found=breakpoints, allowed=allowed)
    axes = {
        name: parse_axis(f"--{name}", texts or [], parse, ends=breakpoints == name)
        for name, texts, parse in (
            ("memory", memory, parse_bytes),
            ("flops", flops, parse_macs),
            ("power", options.power, parse_mw),
            ("flash", options.flash, parse_bytes),
            ("ram", options.ram, parse_bytes),
        )
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
    if front_step is not None and pareto is None:
        raise InputError("goes with --pareto, which asks for fronts", where="--front-step")
    step_pct = parse_pct(_FRONT_STEP if front_step is None else front_step, "--front-step")
    with output.progress(
        f"finished cells are under {out / 'cells'}, and the same command goes on with the rest"
    ) as progress:
        solved, reused = solve_cells(cells, out, jobs=jobs or -1, dask=dask, progress=progress)
    if reused:
        output.say(f"{reused} of {len(solved)} cells had been solved before")
    command = shlex.join(["nonn-plan", *sys.argv[1:]])
    output.warn(*_replaced(out, cells))
    exploration = write_exploration(solved, out, command, step_pct)
    notes = [note for cell in cells for note in memory_notes(cell.asked.problem.budgets)]
    output.warn(*partition_warnings(partition, options.epsilon), *_unknown_spreads(cells))
    output.warn(*dict.fromkeys(notes))
    if options.limits_flash:
        told = (note for one in cells for note in one_memory_notes(one.asked.problem.budgets))
        output.warn(*dict.fromkeys(told))
    _show_exploration(output, exploration, step_pct)
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
    levels = [ObjectiveLevel.parse(part, "--pareto") for part in text.split(",")]
    if len(levels) < 2 or any(stage.tolerance_pct for stage in levels):
        raise InputError(
            "no front",
            where="--pareto",
            found=text,
            allowed="two or more objectives without tolerances",
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


def _unknown_spreads(cells: "Sequence[PlannedCell]") -> Iterator[str]:
    """Warnings of boards whose spread a percentile does without, each once."""
    problems = [cell.asked.problem for cell in cells]
    yield from dict.fromkeys(
        sentence
        for problem in problems
        for sentence in unknown_spread(problem, {board.name for board in problem.boards})
    )


def _replaced(folder: Path, cells: "Sequence[PlannedCell]") -> Iterator[str]:
    """Warn that the page of another question is replaced; its cells stay solved."""
    from planner.exploration.exploration import Exploration

    if not (file := folder / "explore.json").exists():
        return
    earlier = Exploration.read(file)
    if {cell.found.digest for cell in earlier.cells} - {cell.asked.digest for cell in cells}:
        yield (
            f"{folder} held the answers of another question; page and tables are replaced, and its "
            f"cells stay solved: {earlier.command}"
        )


def _show_exploration(output: Output, exploration: "Exploration", step_pct: float) -> None:
    """Show all cells in up to forty lines, or else a line a group.

    Below them, why there is no plan in the last infeasible cell.
    """
    from planner.exploration.exploration import CELL_BUDGETS

    groups: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in exploration.cells:
        key = (cell.found.kind, cell.place.fleet, cell.place.objective)
        groups.setdefault(key, []).append(cell)
    tables = [_table(*key, cells, step_pct) for key, cells in groups.items()]
    conflicts = max((len(cell.found.conflict) for cell in exploration.cells), default=0)
    room = MOST_LINES - _LINES_AROUND - conflicts
    if sum(_LINES_OF_TABLE + len(rows) for _, _, rows in tables) > room:
        tables = list(_summaries(groups, room))
    for table in tables:
        output.table(*table)
    fronts = [cell for cell in exploration.cells if cell.found.enumerated_plans is not None]
    if fronts:
        most = max(cell.found.enumerated_plans or 0 for cell in fronts)
        of = f"{len(fronts)} of {len(exploration.of('front'))} fronts"
        output.say(f"{of}: proven by enumeration of up to {most:,} plans")
    refused = [cell for cell in exploration.plans if cell.found.conflict]
    if refused:
        place = refused[-1].place
        said = " and ".join(
            f"{noun} {text}"
            for (field, noun), text in zip(CELL_BUDGETS.items(), place.budgets, strict=True)
            if getattr(place, field) is not None
        )
        output.say(
            f"{len(refused)} of {len(exploration.plans)} infeasible; "
            f"{f'with {said} ' if said else ''}these cannot hold together:"
        )
        for sentence in refused[-1].found.conflict:
            output.say(f"  - {sentence}")


def _table(
    kind: str, fleet: str, objective: str, cells: "Sequence[Cell]", step_pct: float
) -> Table:
    """All rows of a group: plans, points of fronts that people are shown, or break-points."""
    from planner.exploration.exploration import CELL_BUDGETS, labelled, thinned

    names = [part.split(":")[0] for part in objective.split(",")]
    rows: list[tuple[str, ...]] = []
    # All but memory and FLOPs are shown where one has a limit.
    fields = list(CELL_BUDGETS)
    axes = [
        place
        for place, field in enumerate(fields)
        if place < 2
        or any(getattr(one.place, field) is not None or field == one.place.field for one in cells)
    ]
    for cell in cells:
        budgets, found = tuple(cell.place.budgets[axis] for axis in axes), cell.found
        if kind == "plan":
            values = [found.values.get(name) for name in (*names, "students")]
            rows.append((*budgets, *map(_value, values), found.status))
            continue
        shown = thinned(found.points, step_pct)
        steps = [
            (budgets, one.values) for one, kept in zip(found.points, shown, strict=True) if kept
        ]
        for step in found.breakpoints:
            below = " or less" if step.below_range else ""
            least = f"{step.least:,} {'FLOP' if cell.place.axis == 'flops' else 'B'}{below}"
            at = [
                least if fields[axis] == cell.place.field else cell.place.budgets[axis]
                for axis in axes
            ]
            steps.append((tuple(at), step.values))
        rows += [
            (*at, *(_value(values.get(name)) for name in names), found.status)
            for at, values in steps or [(budgets, {})]
        ]
    noun = {"plan": "", "front": "front of "}.get(kind, f"break-points of {cells[0].place.axis}, ")
    students = ("students",) if kind == "plan" else ()
    budget_names = (CELL_BUDGETS[fields[axis]] for axis in axes)
    columns = (*budget_names, *map(labelled, names), *students, "status")
    return f"{fleet}: {noun}{objective}", columns, rows


def _summaries(groups: "dict[tuple[str, str, str], list[Cell]]", room: int) -> Iterator[Table]:
    """A table with a line a group, as many as there is room for."""
    rows = [_summary(*key, cells) for key, cells in groups.items()]
    most = max(1, room - _LINES_OF_TABLE - 1)
    left = f"; {len(rows) - most} more groups" if len(rows) > most else ""
    yield (
        f"Summary: {sum(map(len, groups.values()))} cells in {len(rows)} groups{left}; all rows "
        "are in index.html, cells.csv and front.csv",
        ("fleet", "what", "cells", "no plan", "unproven", "first goal"),
        rows[:most],
    )


def _summary(kind: str, fleet: str, objective: str, cells: "Sequence[Cell]") -> tuple[str, ...]:
    """Line of a group: its cells, and the range of its first goal."""
    goal = objective.split(",")[0].split(":")[0]
    values = [
        one[goal]
        for cell in cells
        for one in (
            cell.found.values,
            *(point.values for point in cell.found.points),
            *(step.values for step in cell.found.breakpoints),
        )
        if goal in one
    ]
    unit = f" {OBJECTIVES[goal].unit}" if goal in OBJECTIVES else ""
    ends = dict.fromkeys((min(values), max(values)) if values else ())
    span = f"{' to '.join(map(_value, ends))}{unit}" if ends else "-"
    points = sum(len(cell.found.points) + len(cell.found.breakpoints) for cell in cells)
    what = {"plan": objective, "front": f"front of {objective}: {points} points"}.get(
        kind, f"break-points of {cells[0].place.axis}, {objective}: {points}"
    )
    return (
        fleet,
        what,
        str(len(cells)),
        str(sum(cell.found.status == "infeasible" for cell in cells)),
        str(sum(cell.found.status == "unproven" for cell in cells)),
        span,
    )


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
