"""Worker processes of an emulated fleet, which never outlive this process."""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Self

from boards.emulation import pdeathsig
from boards.emulation.link_emulation import BoardWorkload
from boards.protocol.address import Address
from nonn_common.errors import BoardError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_LISTENS = "0A"
ENDING_S = 5.0
"""How long a child may take to end when it is asked to, before it is made to."""
WORKER_COMMAND = (sys.executable, "-m", "nonn_plan", "worker")
START_TIMEOUT_S = 60.0
"""How long a worker may take until it serves; eight at once start slowly."""
_SERVES = b"serving "
_SHORTEST_MS = 0.001


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Put off Ctrl-C, SIGTERM and a terminal that closes until the block is done.

    Python handles signals in the main thread alone; in another one there is nothing to put off.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        came.append(number)

    handlers = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            # None is a handler that Python does not know, and cannot put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if came:
            signal.raise_signal(came[0])


def listening_ports(pid: int) -> tuple[int, ...]:
    """TCP ports on which process `pid` listens; raises BoardError if it is gone.

    A socket of IPv6 may listen on an address of IPv4.  psutil (7.2) reads the tables of the
    caller's network namespace, where those of a worker in its own namespace are not.
    """
    try:
        lines = [
            line
            for table in ("tcp", "tcp6")
            if (path := Path(f"/proc/{pid}/net/{table}")).exists()
            for line in path.read_text(encoding="ascii").splitlines()[1:]
        ]
        own = _socket_inodes(pid)
    except OSError as error:
        raise BoardError(f"process {pid}: its sockets cannot be read: {error.strerror}") from None
    rows = (line.split() for line in lines)
    listening = (row for row in rows if row[3] == _LISTENS and row[9] in own)
    return tuple(sorted({int(row[1].rpartition(":")[2], 16) for row in listening}))


def _socket_inodes(pid: int) -> set[str]:
    """Return the inodes of a process's sockets."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        # It may have been closed meanwhile.
        with suppress(OSError):
            target = str(entry.readlink())
            if target.startswith("socket:["):
                found.add(target[len("socket:[") : -1])
    return found


Child = subprocess.Popen[bytes]


class Spawner:
    """Starts children, all from one thread.

    The kernel ends them when the thread that started them ends, which need not be the one that
    asks for a child.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spawner")

    def start(
        self,
        command: Sequence[str],
        errors: IO[bytes],
        namespace: str | None = None,
        *,
        with_stdin: bool = False,
    ) -> Child:
        """Start a child whose stdout, and stdin `with_stdin`, are pipes.

        It has a session of its own: Ctrl-C ends it when its owner wants.
        """
        within = [] if namespace is None else ["ip", "netns", "exec", namespace]
        leashed = [sys.executable, "-I", "-S", pdeathsig.__file__, str(os.getpid()), *command]
        return self._thread.submit(
            subprocess.Popen,
            [*within, *leashed],
            stdin=subprocess.PIPE if with_stdin else subprocess.DEVNULL,
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
    _close_pipes(child)


def kill(child: Child) -> None:
    """Kill a child and wait until it is dead."""
    child.kill()
    child.wait()
    _close_pipes(child)


def stderr_tail(errors: Path) -> str:
    """Tail of a child's stderr, on one line."""
    text = errors.read_text(encoding="utf-8", errors="replace")
    return " ".join(text.split())[-500:] or "it said nothing"


def _close_pipes(child: Child) -> None:
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            # What was not yet written to a dead child is lost with it.
            with suppress(OSError):
                pipe.close()


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
        spawner: Spawner,
        log: Path,
        when_serving: Callable[["EmulatedWorker"], None] | None,
    ) -> None:
        """Port 0 lets the first start choose one, which later ones keep."""
        self.board = board
        self.students = students
        self.address = listens
        self._command = command
        self._namespace = namespace
        self._spawner = spawner
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
            self._child = self._spawner.start(
                [*self._command, "--listen", str(self.address)], errors, self._namespace
            )

    def wait(self) -> None:
        """Wait until it serves; raises BoardError if it ends or is too late."""
        child = self._child
        if child is None or child.stdout is None:
            raise BoardError(f"the worker of {self.board} was never started")
        line = _first_line(child, time.monotonic() + START_TIMEOUT_S)
        if not line.startswith(_SERVES):
            code = child.poll()
            how = (
                f"did not serve in {START_TIMEOUT_S:g} s" if code is None else f"ended with {code}"
            )
            raise BoardError(f"the worker of {self.board} {how}: {stderr_tail(self._log)}")
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


def worker_command(
    command: Sequence[str], bundle: Path, keys: Path, workload: BoardWorkload
) -> list[str]:
    """Return the command line of a board's worker, but for where it listens."""
    students = [word for name in workload.students for word in ("--student", name)]
    holds = [
        word
        for name, hold_ms in workload.holds_ms.items()
        if hold_ms >= _SHORTEST_MS
        for word in ("--at-least", f"{name}={hold_ms:.3f}ms")
    ]
    precision = [] if workload.precision is None else ["--precision", workload.precision]
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
