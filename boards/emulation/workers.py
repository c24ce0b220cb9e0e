"""The workers of an emulated fleet: one process for each board."""

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from boards.emulation.children import Child, Starter, end, kill, last_words
from boards.emulation.duties import Duty
from boards.protocol.address import Address
from profiles.errors import BoardError

COMMAND = (sys.executable, "-m", "nonn_plan", "worker")
PATIENCE_S = 60.0
"""How long a worker may take until it serves; eight at once start slowly."""

_SERVES = b"serving "
_SHORTEST_MS = 0.001


class EmulatedWorker:
    """The worker of one board: a real process, to be killed, stopped, continued and restarted."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        board: str,
        students: tuple[str, ...],
        listens: Address,
        namespace: str | None,
        starter: Starter,
        log: Path,
        when_serving: Callable[["EmulatedWorker"], None] | None,
    ) -> None:
        """Port 0 lets the first start choose one, which later ones keep."""
        self.board = board
        self.students = students
        self.address = listens
        self._command = command
        self._namespace = namespace
        self._starter = starter
        self._log = log
        self._when_serving = when_serving
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        """Process that runs now, or ran last; raises BoardError before the first."""
        if self._child is None:
            raise BoardError(f"the worker of {self.board} was never started")
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether its process lives, stopped or not."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start it; `wait` says when it serves."""
        with self._log.open("ab") as errors:
            self._child = self._starter.start(
                [*self._command, "--listen", str(self.address)], errors, self._namespace
            )

    def wait(self) -> None:
        """Wait until it serves; raises BoardError if it ends, or does not in time."""
        child = self._child
        if child is None or child.stdout is None:
            raise BoardError(f"the worker of {self.board} was never started")
        line = _first_line(child, time.monotonic() + PATIENCE_S)
        if not line.startswith(_SERVES):
            code = child.poll()
            how = f"did not serve in {PATIENCE_S:g} s" if code is None else f"ended with {code}"
            raise BoardError(f"the worker of {self.board} {how}: {last_words(self._log)}")
        served = line.decode(errors="replace").split()[-1]
        self.address = self.address.with_port(Address.parse(served, self.board).port)
        if self._when_serving is not None:
            self._when_serving(self)

    def kill(self) -> None:
        """Kill it (SIGKILL)."""
        if self._child is not None:
            kill(self._child)

    def stop(self) -> None:
        """Stop it (SIGSTOP) and wait until it is: it answers nothing and closes nothing."""
        os.kill(self.pid, signal.SIGSTOP)
        # A thread that runs on another processor goes on until that one has heard of it.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def cont(self) -> None:
        """Let it go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Kill it if it runs, and start it again at the same address."""
        self.kill()
        self.start()
        self.wait()

    def ask_to_end(self) -> None:
        """Let it drain and end (SIGTERM), even if it was stopped; `end` waits for that."""
        if self._child is not None and self.running:
            self._child.terminate()
            self.cont()

    def end(self) -> None:
        """Wait until it has ended; kill it if that takes too long."""
        if self._child is not None:
            end(self._child)


def worker_command(command: Sequence[str], bundle: Path, keys: Path, duty: Duty) -> list[str]:
    """Return the command line of a board's worker, but for where it listens."""
    students = [word for name in duty.students for word in ("--student", name)]
    holds = [
        word
        for name, hold_ms in duty.holds_ms.items()
        if hold_ms >= _SHORTEST_MS
        for word in ("--at-least", f"{name}={hold_ms:.3f}ms")
    ]
    precision = [] if duty.precision is None else ["--precision", duty.precision]
    return [*command, str(bundle), *students, "--keys", str(keys), *holds, *precision]


def _first_line(child: Child, until_s: float) -> bytes:
    """Return the first line that a child prints, as far as it came until then."""
    line = b""
    if child.stdout is None:
        return line
    handle = child.stdout.fileno()
    while not line.endswith(b"\n"):
        left_s = until_s - time.monotonic()
        if left_s <= 0 or not select.select([handle], [], [], left_s)[0]:
            return b""
        if not (piece := os.read(handle, 4096)):
            # It closed its stdout, as it does when it ends.
            with suppress(Exception):
                child.wait(1.0)
            return b""
        line += piece
    return line
