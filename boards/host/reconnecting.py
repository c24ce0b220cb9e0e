"""Connecting beside the work: a thread for each board that is wanted, until it is there."""

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from boards.host.connection import Connection, ConnectionLostError
from boards.host.task import Task
from profiles.errors import InputError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0

Connect = Callable[[Task], Connection]


class Reconnecting:
    """Connects to boards; readable, for a selector, when there is something to take."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._found: deque[tuple[str, Connection | str]] = deque()
        self._waker, self._bell = os.pipe()
        os.set_blocking(self._waker, False)
        os.set_blocking(self._bell, False)
        self._closed = threading.Event()
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """Return what to wait on."""
        return self._waker

    def want(self, task: Task) -> None:
        """Begin to connect to a board, and go on until it works."""
        threading.Thread(
            target=self._run, args=(task,), name=f"connect {task.name}", daemon=True
        ).start()

    def results(self) -> list[tuple[str, Connection | str]]:
        """Return boards with their new connection, or with why there is none yet."""
        with suppress(BlockingIOError):
            os.read(self._waker, 4096)
        found = []
        while self._found:
            found.append(self._found.popleft())
        return found

    def close(self) -> None:
        """Stop connecting."""
        with self._lock:
            self._closed.set()
            os.close(self._waker)
            os.close(self._bell)
        for _, found in self._found:
            if not isinstance(found, str):
                found.close()

    def _run(self, task: Task) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._closed.is_set():
            try:
                connection = self._connect(task)
            except (ConnectionLostError, InputError, OSError) as error:
                self._put(task.name, str(error))
                self._closed.wait(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                continue
            if not self._put(task.name, connection):
                connection.close()
            return

    def _put(self, name: str, found: Connection | str) -> bool:
        """Hand over what was found; not where nobody takes it any more."""
        with self._lock:
            if self._closed.is_set():
                return False
            self._found.append((name, found))
            # A full pipe wakes as well.
            with suppress(BlockingIOError):
                os.write(self._bell, b"!")
            return True
