"""`emulate`: the fleet of a plan on this machine, until Ctrl-C."""

import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nonn_plan.options import AsJson, PlanFile, Seed
from nonn_plan.output import Output
from nonn_plan.planning import read_plan
from planner.plan import PlanDocument
from planner.workload import fan_out
from profiles.errors import StoppedError
from profiles.units import parse_ms
from simulator.hops import join_ms

if TYPE_CHECKING:
    from boards.emulation.fleet import EmulatedFleet

LOOK_S = 0.5
"""How often it is looked whether all workers live."""


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command()(emulate)


def emulate(
    plan_file: PlanFile,
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder that `export` wrote.")],
    keys: Annotated[
        Path | None,
        typer.Option("--keys", help="Folder of `keys init`; default: keys for this time alone."),
    ] = None,
    out: Annotated[
        Path, typer.Option("-o", "--output", help="Where the boards are, for `host`.")
    ] = Path("emulated.yaml"),
    own_message: Annotated[
        str,
        typer.Option(
            "--own-message", help="What a message costs here anyway; only what is more is added."
        ),
    ] = "1ms",
    loopback: Annotated[
        bool, typer.Option("--loopback", help="Without namespaces and tc, even where they work.")
    ] = False,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Run the fleet of a plan on this machine, a worker for each board, until Ctrl-C."""
    from boards.emulation.capabilities import LOOPBACK
    from boards.emulation.fleet import emulated
    from boards.host.addresses import BoardAddresses

    output = Output(as_json)
    plan = read_plan(plan_file)
    BoardAddresses.check_target(out)
    own_message_ms = parse_ms(own_message, "--own-message")
    with (
        emulated(
            plan,
            bundle,
            keys,
            capabilities=LOOPBACK if loopback else None,
            own_message_ms=own_message_ms,
            seed=seed,
        ) as fleet,
        # Once it serves, a stop is how it ends.
        suppress(StoppedError),
    ):
        fleet.addresses.write(out)
        expected_ms = _expected_ms(plan)
        _show(output, fleet, expected_ms)
        output.say(
            f"next: nonn-plan host {plan_file} {bundle} --boards {out} "
            f"--keys {fleet.keys / 'host'}; Ctrl-C ends the fleet"
        )
        output.result(
            {
                **fleet.addresses.model_dump(mode="json"),
                "keys": str(fleet.keys / "host"),
                "expected_ms": expected_ms,
                "emulated": fleet.does,
                "not_emulated": fleet.notes,
            }
        )
        sys.stdout.flush()
        _watch(output, fleet)
    output.say("the fleet has ended")


def _expected_ms(plan: PlanDocument) -> float:
    """Return the closed form's time from an image to the last reply, the host's join left out."""
    from simulator.closed_form import fan_out as closed_form

    workload = fan_out(plan)
    return closed_form(workload).total_ms - join_ms(workload.host)


def _watch(output: Output, fleet: "EmulatedFleet") -> None:
    """Stay until the program is stopped, and say once of each worker that it has ended."""
    gone: set[str] = set()
    while True:
        time.sleep(LOOK_S)
        for board, worker in fleet.workers.items():
            if board not in gone and not worker.running:
                gone.add(board)
                output.say(f"the worker of {board} has ended")
        if fleet.relay is not None and not fleet.relay.running and "relay" not in gone:
            gone.add("relay")
            output.say("the relay has ended: no board can be reached; start the fleet again")


def _show(output: Output, fleet: "EmulatedFleet", expected_ms: float) -> None:
    rows = [
        (board.name, board.address, ", ".join(fleet.worker(board.name).students))
        for board in fleet.addresses.boards
    ]
    output.table("Boards that serve", ("board", "address", "students"), rows)
    for title, lines in (("emulated", fleet.does), ("not emulated", fleet.notes)):
        output.say(f"{title}:")
        for line in lines:
            output.say(f"  - {line}")
    output.say(
        f"expected: {expected_ms:.1f} ms from an image to the last reply, without jitter and loss, "
        "by the closed form"
    )
