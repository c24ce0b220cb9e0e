"""Where `nonn-plan` starts: Ctrl-C before the commands are there ends it without a traceback."""

import sys
from typing import NoReturn


def run() -> NoReturn:
    """Load the commands and run the one that was asked for."""
    try:
        from nonn_plan.main import run as run_command
    except KeyboardInterrupt:
        sys.exit("nonn-plan: stopped by Ctrl-C")
    run_command()


if __name__ == "__main__":
    run()
