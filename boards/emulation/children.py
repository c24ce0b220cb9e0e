"""Child processes that never outlive this one."""

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from boards.emulation import leash

Child = subprocess.Popen[bytes]

ENDING_S = 5.0
"""How long a child may take to end when it is asked to, before it is made to."""


class Starter:
    """Starts children, all from one thread.

    The kernel ends them when the thread that started them ends, which need not be the one that
    asks for a child.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="starter")

    def start(
        self,
        command: Sequence[str],
        errors: IO[bytes],
        namespace: str | None = None,
        *,
        told: bool = False,
    ) -> Child:
        """Start a child whose stdout, and stdin if it is `told` things, are pipes.

        It has a session of its own: Ctrl-C ends it when its owner wants.
        """
        within = [] if namespace is None else ["ip", "netns", "exec", namespace]
        leashed = [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), *command]
        return self._thread.submit(
            subprocess.Popen,
            [*within, *leashed],
            stdin=subprocess.PIPE if told else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        ).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown()


def end(child: Child) -> None:
    """Make a child end, politely first, and wait until it has."""
    child.terminate()
    try:
        child.wait(ENDING_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    _close(child)


def kill(child: Child) -> None:
    """Kill a child and wait until it is dead."""
    child.kill()
    child.wait()
    _close(child)


def last_words(errors: Path) -> str:
    """Return the end of what a child wrote to its stderr, on one line."""
    text = errors.read_text(encoding="utf-8", errors="replace")
    return " ".join(text.split())[-500:] or "it said nothing"


def _close(child: Child) -> None:
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            # What was not yet written to a dead child is lost with it.
            with suppress(OSError):
                pipe.close()
