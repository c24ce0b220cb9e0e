"""A wrapper (PR_SET_PDEATHSIG) that ends a command when its starter ends, however that ends.

Executed as a file, by a Python without site packages: PID of the starter, then the command.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def run(spawner: int, command: list[str]) -> None:
    """Become `command`, to be killed by the kernel together with `starter`."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != spawner:
            # It died before prctl took effect.
            sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606


if __name__ == "__main__":
    run(int(sys.argv[1]), sys.argv[2:])
