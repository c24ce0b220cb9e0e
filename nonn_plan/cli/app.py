"""`nonn-plan`: the table of commands, and the exit code of each error."""

import gc
import io
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from shutil import get_terminal_size
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from nonn_common.errors import InfeasibleError, InputError, NonnError, StoppedError, UnprovenError
from nonn_plan.cli.help_page import HelpfulCommand, HelpfulGroup, show_what_is_typed

FAILED, BAD_INPUT, INFEASIBLE, UNPROVEN = 1, 2, 3, 4

COMMANDS = {
    "quickstart": "quickstart:quickstart",
    "devices": "devices:device_commands",
    "fleets": "devices:fleet_commands",
    "calibrate": "devices:calibrate",
    "predict": "latencies:predict",
    "download": "teacher:download",
    "train-teacher": "teacher:train_teacher",
    "partition": "teacher:partition",
    "plan": "plan:plan",
    "replan": "plan:replan",
    "verify": "plan:verify",
    "explain": "plan:explain",
    "explore": "explore:explore",
    "ui": "plan:ui",
    "simulate": "simulate:simulate",
    "sweep": "simulate:sweep",
    "config": "plan:config",
    "train": "train:train",
    "tune": "train:tune",
    "evaluate": "train:evaluate",
    "quantise": "train:quantise",
    "export": "train:export",
    "keys": "worker:key_commands",
    "deploy": "worker:deploy",
    "worker": "worker:worker",
    "host": "host:host",
    "emulate": "host:emulate",
    "profile": "devices:profile",
    "validate": "host:validate",
    "draw": "plan:draw",
    "reproduce": "published:reproduce",
    "table": "published:table",
}
"""Module under `commands` and function or group of each command, in the order of the work."""

PARTS_OF_COMMANDS = {
    **dict.fromkeys(("quickstart", "download", "train-teacher", "train", "evaluate"), "train"),
    **dict.fromkeys(("tune", "partition", "export", "quantise", "table"), "train"),
    **dict.fromkeys(("keys", "deploy", "worker", "host", "emulate"), "boards"),
    **dict.fromkeys(("profile", "validate"), "boards"),
    "ui": "ui",
}
"""Part of the installation that a command needs; all others need the base alone."""

PARTS_OF_PACKAGES = {
    **dict.fromkeys(("fvcore", "numba", "onnxscript", "pooch", "sklearn", "torch"), "train"),
    **dict.fromkeys(("cryptography", "grpc", "grpc_health", "prometheus_client"), "boards"),
    **dict.fromkeys(("asyncssh", "google", "psutil"), "boards"),
    "pyarrow": "parquet",
    **dict.fromkeys(("starlette", "uvicorn"), "ui"),
    **dict.fromkeys(("dask", "distributed"), "dask"),
    **dict.fromkeys(("ncnn", "pnnx"), "ncnn"),
}
"""The one part that holds a package, by the name it is imported by, whichever command needs it."""

PACKAGES_OF_SEVERAL_PARTS = ("onnx", "onnxruntime", "PIL", "safetensors")
"""Packages of which the part is that of the command."""

_COMPLETED = "_TYPER_COMPLETE_ARGS"
"""Variable in which a shell passes the line that it wants completed."""


def _show_version(shown: bool) -> None:
    if shown:
        from importlib.metadata import version

        typer.echo(version("nonn-plan"))
        raise typer.Exit


def main(
    shown: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Plan, prove and train a Network of Neural Networks for a few small boards."""
    del shown


class OnceOnlyCommand(HelpfulCommand):
    """A command that refuses two values for an option that takes one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments; raises InputError where a value would be lost."""
        order = self.make_parser(ctx).parse_args(list(args))[2]
        for parameter, times in Counter(order).items():
            flag = getattr(parameter, "is_flag", False)
            if times > 1 and not flag and not getattr(parameter, "multiple", False):
                raise InputError(
                    "given more than once, and takes one value",
                    where=parameter.opts[-1],
                    fix="leave one of them",
                )
        return super().parse_args(ctx, args)


def command_line() -> typer.Typer:
    """Build the command line with the command that was typed alone, or with all."""
    return commands(_asked())


def commands(command_name: str | None = None) -> typer.Typer:
    """Build the command line with the command that is asked for alone, or with all."""
    app = typer.Typer(
        name="nonn-plan",
        cls=HelpfulGroup,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        epilog="Exit codes: 0 done, 1 failed or stopped, 2 wrong usage or input, 3 proven "
        "infeasible, 4 stopped without a proof.",
    )
    app.callback()(main)
    for name in [command_name] if command_name in COMMANDS else COMMANDS:
        module, _, attribute = COMMANDS[name].partition(":")
        command = getattr(import_module(f"nonn_plan.cli.commands.{module}"), attribute)
        if isinstance(command, typer.Typer):
            for each in command.registered_commands:
                each.cls = OnceOnlyCommand
                if each.callback is not None:
                    show_what_is_typed(each.callback)
            app.add_typer(command, name=name)
        else:
            show_what_is_typed(command)
            app.command(name, cls=OnceOnlyCommand)(command)
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


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn errors and signals into one message and an exit code, never a traceback."""
    _prepare_streams()
    # gRPC's own log has lines for each handshake that fails; what matters of them we say ourselves.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    # With `nohup` it stays ignored.
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _stop)
    try:
        yield
    except NonnError as error:
        _complain(error)
        sys.exit(exit_code(error))
    except ModuleNotFoundError as error:
        _complain(missing_part(error, _asked()))
        sys.exit(BAD_INPUT)
    except OSError as error:
        # What no part of the program expected of the system, such as a full stdout.
        _complain(error)
        sys.exit(FAILED)
    finally:
        # What is alive now ends with the process; the interpreter need not take it apart.
        gc.freeze()


def _complain(error: Exception) -> None:
    """Say what is wrong on stderr; in a terminal its lines end between words."""
    text = f"nonn-plan: {error}"
    if sys.stderr.isatty():
        from nonn_plan.cli.table_layout import wrapped

        text = "\n".join(wrapped(text, get_terminal_size().columns))
    print(text, file=sys.stderr)  # noqa: T201


def missing_part(error: ModuleNotFoundError, command: str | None) -> InputError:
    """Name the part of nonn-plan that holds a missing package.

    Raises the error itself for a package of no part.
    """
    package = (error.name or "").partition(".")[0]
    part = PARTS_OF_PACKAGES.get(package)
    if package in PACKAGES_OF_SEVERAL_PARTS:
        part = PARTS_OF_COMMANDS.get(command or "", "all")
    if part is None:
        raise error
    return InputError(
        f"`{command}` needs the package {package}",
        found="not installed",
        fix=f"pip install 'nonn-plan[{part}]'",
    )


def _asked() -> str | None:
    """Command that was typed, or is being typed in a shell that completes it."""
    typed = os.environ.get(_COMPLETED, "").split()[1:] or sys.argv[1:]
    return next((word for word in typed if not word.startswith("-")), None)


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
