"""`nonn-plan`: the commands, and the one place where errors become exit codes."""

import sys
from typing import NoReturn

import typer

from nonn_plan import hardware, learning, planning, quickstart
from profiles.errors import InfeasibleError, InputError, NonnError, UnprovenError

DONE, FAILED, BAD_INPUT, INFEASIBLE, UNPROVEN = 0, 1, 2, 3, 4

app = typer.Typer(
    name="nonn-plan",
    help="Plan, prove and train a Network of Neural Networks for a few small boards.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 proven infeasible, "
    "4 stopped without a proof.",
)
hardware.register(app)
learning.register(app)
planning.register(app)
quickstart.register(app)


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
    try:
        app()
    except NonnError as error:
        print(f"nonn-plan: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(exit_code(error))
    sys.exit(DONE)
