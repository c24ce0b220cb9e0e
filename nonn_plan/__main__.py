"""Start of `nonn-plan`; Ctrl-C while the commands are loaded ends it without a traceback."""

import gc
import os
import sys
from typing import NoReturn

OBJECTS_BETWEEN_COLLECTIONS = 50_000
"""Python's own is 700."""


def run() -> NoReturn:
    """Load the command that was typed, and run it."""
    # To look for garbage among the modules again and again takes a fifth of a short command.
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    # Else pydantic reads the metadata of every installed package to find plug-ins of its own.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        from nonn_plan.cli.app import command_line, exit_codes
    except KeyboardInterrupt:
        sys.exit("nonn-plan: stopped by Ctrl-C")
    with exit_codes():
        command_line()(prog_name="nonn-plan")
    sys.exit()


if __name__ == "__main__":
    run()
