"""`nonn-plan`: the commands, and the one place where errors become exit codes."""

import gc
import io
import os
import signal
import sys
from importlib import import_module
from importlib.metadata import version
from types import FrameType
from typing import Annotated, NoReturn

import typer

from profiles.errors import (
    InfeasibleError,
    InputError,
    NonnError,
    StoppedError,
    UnprovenError,
)

DONE, FAILED, BAD_INPUT, INFEASIBLE, UNPROVEN = 0, 1, 2, 3, 4

COMMANDS: dict[str, tuple[str, ...]] = {
    "quickstart": ("quickstart",),
    "hardware": ("devices", "fleets", "calibrate"),
    "download": ("download",),
    "learning": ("train-teacher", "train", "evaluate"),
    "tuning": ("tune",),
    "partitioning": ("partition",),
    "planning": ("plan", "config"),
    "explaining": ("explain",),
    "exploring": ("explore",),
    "simulating": ("simulate",),
    "sweeping": ("sweep",),
    "reproducing": ("reproduce",),
    "exporting": ("export", "quantise"),
    "keys": ("keys",),
    "working": ("worker",),
    "hosting": ("host",),
    "emulating": ("emulate",),
    "profiling": ("profile",),
    "validating": ("validate",),
    "tables": ("table",),
}
"""The commands of each module, in the order of the help."""


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(version("nonn-plan"))
        raise typer.Exit


def main(
    asked: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Plan, prove and train a Network of Neural Networks for a few small boards."""
    del asked


def commands(asked: str | None = None) -> typer.Typer:
    """Return the command line; it loads the module of the command that is asked for, or all."""
    app = typer.Typer(
        name="nonn-plan",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        epilog="Exit codes: 0 done, 1 failed or stopped, 2 wrong usage or input, 3 proven "
        "infeasible, 4 stopped without a proof.",
    )
    app.callback()(main)
    for module in [each for each, names in COMMANDS.items() if asked in names] or COMMANDS:
        import_module(f"nonn_plan.{module}").register(app)
    return app


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
    # gRPC's own log has lines for each handshake that fails; what matters of them we say ourselves.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    # With `nohup` it stays ignored.
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _stop)
    try:
        commands(next((word for word in sys.argv[1:] if not word.startswith("-")), None))()
    except NonnError as error:
        print(f"nonn-plan: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(exit_code(error))
    except OSError as error:
        # What no part of the program expected of the system, such as a full stdout.
        print(f"nonn-plan: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(FAILED)
    finally:
        # What is alive now ends with the process; the interpreter need not take it apart.
        gc.freeze()
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
