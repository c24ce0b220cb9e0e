"""`nonn-plan`: the commands, and the one place where errors become exit codes."""

import io
import os
import signal
import sys
from importlib.metadata import version
from types import FrameType
from typing import Annotated, NoReturn

import typer

from nonn_plan import (
    download,
    explaining,
    exploring,
    exporting,
    hardware,
    learning,
    partitioning,
    planning,
    quickstart,
    reproducing,
    simulating,
    sweeping,
    tables,
    tuning,
)
from profiles.errors import (
    InfeasibleError,
    InputError,
    NonnError,
    StoppedError,
    UnprovenError,
)

DONE, FAILED, BAD_INPUT, INFEASIBLE, UNPROVEN = 0, 1, 2, 3, 4

app = typer.Typer(
    name="nonn-plan",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 1 failed or stopped, 2 wrong usage or input, 3 proven infeasible, "
    "4 stopped without a proof.",
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(version("nonn-plan"))
        raise typer.Exit


@app.callback()
def main(
    asked: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Plan, prove and train a Network of Neural Networks for a few small boards."""
    del asked


quickstart.register(app)
hardware.register(app)
download.register(app)
learning.register(app)
tuning.register(app)
partitioning.register(app)
planning.register(app)
explaining.register(app)
exploring.register(app)
simulating.register(app)
sweeping.register(app)
reproducing.register(app)
exporting.register(app)
tables.register(app)


def exit_code(error: NonnError) -> int:
    """Map an error to the exit code of the command."""
    if isinstance(error, InputError):
        return BAD_INPUT
    if isinstance(error, InfeasibleError):
        return INFEASIBLE
    if isinstance(error, UnprovenError):
        return UNPROVEN
    return FAILED


def run() -> NoReturn:
    """Run the command line; an error that we know is one message, never a traceback."""
    _prepare_streams()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        app()
    except NonnError as error:
        print(f"nonn-plan: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(exit_code(error))
    except OSError as error:
        # What no part of the program expected of the system, such as a full stdout.
        print(f"nonn-plan: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(FAILED)
    sys.exit(DONE)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """Unwind as from an error, so that no temporary file stays behind."""
    del frame
    cause = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    raise StoppedError(f"stopped by {cause}")


def _prepare_streams() -> None:
    """Give closed streams a place to go, and let no letter end the program."""
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
