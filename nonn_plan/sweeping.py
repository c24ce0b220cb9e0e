"""`sweep`: students move from slow boards of their own to one fast board, one by one."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nonn_core.costs import student_cost
from nonn_core.family import parse_network
from nonn_core.image import Image
from nonn_plan.options import AsJson
from nonn_plan.output import Output, shown
from nonn_plan.typed_workload import MOST_STUDENTS
from profiles.document import check_picture
from profiles.errors import InputError
from profiles.fleet import DEFAULT_HOST, DEFAULT_LINK, Fleet, FleetBoard, resolve

if TYPE_CHECKING:
    from simulator.moving import Move, Moved


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command()(sweep)


def sweep(
    slow: Annotated[str, typer.Option("--from", help="Device that students leave: rpi-3b.")],
    fast: Annotated[str, typer.Option("--to", help="Device that they move to: odroid-xu4s.")],
    student: Annotated[
        str, typer.Option("--student", help="Network of every student: wrn16:32,64,88.")
    ],
    students: Annotated[
        int, typer.Option("--students", min=1, max=MOST_STUDENTS, help="How many there are.")
    ] = 8,
    filters: Annotated[
        int, typer.Option("--filters", min=1, help="Features that each student returns.")
    ] = 46,
    image: Annotated[str, typer.Option("--image", help="What the host sends.")] = "3x32x32",
    link: Annotated[str, typer.Option("--link", help="Link of every board.")] = DEFAULT_LINK,
    host: Annotated[str, typer.Option("--host", help="Device that joins.")] = DEFAULT_HOST,
    table: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the sweep as CSV or Parquet.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw the sweep, picture.png.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Move students, one by one, from boards of one device to one board of another.

    Figure 7 of arXiv:1907.11804 is
    sweep --from rpi-3b --to odroid-xu4s --student wrn16:32,64,88 --plot figure-7.png
    """
    from simulator.moving import Moved, least_total_at, write_table
    from simulator.moving_plot import write_plot
    from simulator.tables import check_table

    output = Output(as_json)
    if table is not None and plot is not None and table.absolute() == plot.absolute():
        raise InputError("two outputs of one name", found=str(plot))
    if table is not None:
        check_table(Moved, table)
    if plot is not None:
        check_picture(plot)
    form = Image.parse(image)
    macs = student_cost(parse_network(student), form, filters).macs
    move = _move(slow, fast, link, host, (students, macs, filters, form.size_bytes))
    moved = move.simulated()
    least = least_total_at(moved)
    _show(output, move, moved, least)
    if table is not None:
        write_table(moved, table)
    if plot is not None:
        write_plot(move, moved, plot)
    for path in (table, plot):
        if path is not None:
            output.say(f"written to {path}")
    output.result({"least_total_ms_at": least, "rows": [row.to_dict() for row in moved]})


def _move(slow: str, fast: str, link: str, host: str, work: tuple[int, int, int, int]) -> "Move":
    from simulator.moving import Move

    boards = tuple(
        FleetBoard(name=name, device=device, link=link)
        for name, device in (("slow", slow), ("fast", fast))
    )
    fleet = Fleet(name="sweep", title="sweep", host=host, boards=boards)
    hosting, found = resolve(fleet)
    return Move(found[0].device, found[1].device, found[0].link, hosting, *work)


def _show(output: Output, move: "Move", moved: "Sequence[Moved]", least: int) -> None:
    output.table(
        f"{move.students} students, each on a {move.slow.name} or together on one {move.fast.name}:"
        " ms; compute energy in mJ",
        (f"on {move.fast.name}", "total", "compute", "communication", "per node", "fleet", ""),
        [
            (
                str(row.moved),
                shown(row.total_ms, 2),
                shown(row.compute_ms, 2),
                shown(row.communication_ms, 2),
                shown(row.energy_per_node_mj, 1),
                shown(row.energy_per_fleet_mj, 1),
                "least latency" if row.moved == least else "",
            )
            for row in moved
        ],
    )
