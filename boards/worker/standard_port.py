"""The port of the standard protocol, behind which gRPC runs only while somebody calls.

A gRPC server that nobody calls wakes a processor forty times a second, and its code takes 20 MB:
boards whose hosts speak frames pay neither.  One thread waits here.  It relays the bytes of callers
to a server in this process, which it starts for the first of them and ends some time after the
last; TLS is between the caller and that server.
"""

import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from boards.protocol.frame_stream import configure_socket

MOST_CONNECTIONS = 64
"""Connections of the standard protocol; more would take the descriptors that others need."""
MOST_SILENT = 16
"""Connections over which nothing has come yet; for one more, the oldest is closed."""
SILENT_S = 10.0
LINGER_S = 30.0
"""Time without a caller after which the server ends."""
_PIECE_BYTES = 64 * 1024
_MOST_WAITING = 4 * _PIECE_BYTES
"""Bytes that wait for one end; until they are less, no more are taken from the other."""
_PAUSE_S = 0.1
"""After a connection that could not be taken, as where no descriptor is left."""
_END_S = 1.0

log = logging.getLogger(__name__)


class RelayedServer(Protocol):
    """A server in this process."""

    def connect(self) -> socket.socket:
        """Open a connection to it; raises OSError."""

    def not_serving(self) -> None:
        """Tell who asks that it is about to end."""

    def stop(self, seconds: float) -> None:
        """Let calls end within so long, and wait."""


@dataclass(slots=True, eq=False)
class _RelayEnd:
    """One end of a relayed connection, and what waits to be sent there."""

    socket: socket.socket
    other: "_RelayEnd | None" = None
    waiting: bytearray = field(default_factory=bytearray)
    ended: bool = False
    """Whether nothing more comes from it."""


class StandardPort:
    """The listening port, and the relay to a server that `start_server` starts."""

    def __init__(self, listener: socket.socket, start_server: Callable[[], RelayedServer]) -> None:
        self._listener = listener
        self._start_server = start_server
        self._server: RelayedServer | None = None
        self._silent: dict[socket.socket, float] = {}
        """Connections over which nothing has come, and when each began."""
        self._relayed: set[_RelayEnd] = set()
        self._unused_since_s = 0.0
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="standard", daemon=True)

    def start(self) -> None:
        """Begin to take connections."""
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread.start()

    def not_serving(self) -> None:
        """Tell who asks for its health that it is about to end."""
        with self._lock:
            if self._server is not None:
                self._server.not_serving()

    def stop(self) -> None:
        """Take no more connections; what is being answered still goes out."""
        with self._lock:
            self._stopping = True
            server, self._server = self._server, None
        # It wakes the thread that waits.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        if server is not None:
            server.stop(_END_S)
        self._thread.join(2 * _END_S)

    def _run(self) -> None:
        end_s = float("inf")
        while time.monotonic() < end_s:
            for key, mask in self._selector.select(self._patience_s()):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.data is None:
                    self._begin(key.fileobj)  # type: ignore[arg-type]
                elif key.data in self._relayed:
                    self._relay(key.data, mask)
            self._end_what_is_over()
            if self._stopping and end_s == float("inf"):
                self._selector.unregister(self._listener)
                self._listener.close()
                end_s = time.monotonic() + 2 * _END_S
            if self._stopping and not self._relayed:
                break
        for each in [*self._silent, *(end.socket for end in self._relayed)]:
            each.close()
        self._selector.close()

    def _patience_s(self) -> float | None:
        """Time until something is over; None where nothing can be."""
        ends = [began + SILENT_S for began in self._silent.values()]
        if self._server is not None and not self._relayed:
            ends.append(self._unused_since_s + LINGER_S)
        if self._stopping:
            return _PAUSE_S
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _end_what_is_over(self) -> None:
        now_s = time.monotonic()
        for each, began_s in list(self._silent.items()):
            if now_s >= began_s + SILENT_S:
                self._forget(each)
        if self._relayed or now_s < self._unused_since_s + LINGER_S:
            return
        with self._lock:
            server, self._server = self._server, None
        if server is not None:
            server.stop(0)

    def _accept(self) -> None:
        if self._stopping:
            return
        try:
            accepted, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if not self._stopping:
                log.warning("a connection could not be taken: %s", error)
                time.sleep(_PAUSE_S)
            return
        try:
            configure_socket(accepted)
            accepted.setblocking(False)
        except OSError:
            accepted.close()
            return
        self._silent[accepted] = time.monotonic()
        self._selector.register(accepted, selectors.EVENT_READ)
        if len(self._silent) > MOST_SILENT:
            self._forget(next(iter(self._silent)))

    def _forget(self, connection: socket.socket) -> None:
        """Close a connection over which nothing came."""
        del self._silent[connection]
        self._selector.unregister(connection)
        connection.close()

    def _begin(self, connection: socket.socket) -> None:
        """Relay a connection that has something to say, or has ended."""
        if connection not in self._silent:
            return
        try:
            if not connection.recv(1, socket.MSG_PEEK):
                raise EOFError
            if len(self._relayed) >= 2 * MOST_CONNECTIONS:
                raise ConnectionRefusedError(f"{MOST_CONNECTIONS} connections are open already")
            there = self._connected()
        except BlockingIOError:
            return
        except EOFError:
            self._forget(connection)
            return
        except (OSError, RuntimeError, ImportError) as error:
            log.warning("the standard protocol: %s", error)
            self._forget(connection)
            return
        del self._silent[connection]
        there.setblocking(False)
        caller, callee = _RelayEnd(connection), _RelayEnd(there)
        caller.other, callee.other = callee, caller
        self._relayed |= {caller, callee}
        self._selector.modify(connection, selectors.EVENT_READ, caller)
        self._selector.register(there, selectors.EVENT_READ, callee)

    def _connected(self) -> socket.socket:
        """Connect to the server, which is started where it does not run; raises OSError."""
        with self._lock:
            if self._stopping:
                raise ConnectionRefusedError("the worker is about to end")
            if self._server is None:
                self._server = self._start_server()
            return self._server.connect()

    def _relay(self, end: _RelayEnd, mask: int) -> None:
        """Send on what came from an end, and what waits for it."""
        other = end.other
        if other is None:
            return
        try:
            if mask & selectors.EVENT_WRITE:
                _flush(end)
            if mask & selectors.EVENT_READ:
                piece = end.socket.recv(_PIECE_BYTES)
                end.ended = not piece
                other.waiting += piece
                _flush(other)
        except BlockingIOError:
            pass
        except OSError:
            end.ended, other.waiting = True, bytearray()
        for one, two in ((end, other), (other, end)):
            if one.ended and not two.waiting:
                self._close(end, other)
                return
        self._watch(end)
        self._watch(other)

    def _watch(self, end: _RelayEnd) -> None:
        """Watch an end for bytes, and for room for bytes."""
        full = end.other is not None and len(end.other.waiting) > _MOST_WAITING
        wanted = 0 if end.ended or full else selectors.EVENT_READ
        wanted |= selectors.EVENT_WRITE if end.waiting else 0
        known = self._selector.get_map().get(end.socket)
        if known is None and wanted:
            self._selector.register(end.socket, wanted, end)
        elif known is not None and not wanted:
            self._selector.unregister(end.socket)
        elif known is not None and known.events != wanted:
            self._selector.modify(end.socket, wanted, end)

    def _close(self, *ends: _RelayEnd) -> None:
        for end in ends:
            if self._selector.get_map().get(end.socket) is not None:
                self._selector.unregister(end.socket)
            end.socket.close()
            self._relayed.discard(end)
        self._unused_since_s = time.monotonic()


def _flush(end: _RelayEnd) -> None:
    """Send what waits for an end, as far as there is room; raises OSError."""
    with suppress(BlockingIOError):
        while end.waiting:
            del end.waiting[: end.socket.send(end.waiting)]
