"""Where `nonn-plan` starts: Ctrl-C before the commands are there ends it without a traceback."""

import gc
import sys
from typing import NoReturn

OBJECTS_BETWEEN_COLLECTIONS = 50_000
"""Python's own is 700."""


def run() -> NoReturn:
    """Load the commands and run the one that was asked for."""
    # To look for garbage among the modules again and again takes a fifth of a short command.
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    try:
        from nonn_plan.cli.app import run as run_command
    except KeyboardInterrupt:
        sys.exit("nonn-plan: stopped by Ctrl-C")
    run_command()


if __name__ == "__main__":
    run()
