"""What the system's `ip` and `tc` are told to do, many lines in one call."""

import subprocess
from collections.abc import Sequence
from typing import Literal

from profiles.errors import BoardError

Tool = Literal["ip", "tc"]

PATIENCE_S = 30.0
"""How long one call may take; it takes milliseconds."""


def configure(tool: Tool, lines: Sequence[str], namespace: str | None = None) -> None:
    """Let `ip` or `tc` execute `lines` in order, in a network namespace if one is named.

    Raises BoardError with what the tool says about the first line that fails.
    """
    if lines:
        within = [] if namespace is None else ["-n", namespace]
        called([tool, *within, "-batch", "-"], text="\n".join(lines) + "\n")


def called(command: Sequence[str], text: str = "") -> str:
    """Run a command of the system and return what it prints; raises BoardError where it fails."""
    try:
        done = subprocess.run(  # noqa: S603
            command, input=text, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BoardError(f"`{' '.join(command)}` could not be run: {error}") from None
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())
        raise BoardError(f"`{' '.join(command)}` failed: {said}")
    return done.stdout
