"""The exchange of G0's maps between boards, where G0 has a board of its own.

The board of G0 has a sender for each other board, a thread with a short queue: a board that is gone
or slow delays no other one, and what cannot be sent is told at once.  The other boards know the
sessions that hosts have opened with them: which students are asked for, who may send the maps, and
where the features go.
"""

import logging
import queue
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from boards.protocol.address import Address
from boards.protocol.frame_stream import configure_socket
from boards.protocol.frames import Expectation, Frame, opening_maps_frame
from nonn_common.errors import InputError

MOST_WAITING = 16
"""Maps that may wait for one board; those of further images are not sent to it."""
_TIMEOUT_S = 5.0
"""Limit of connecting, and of a pause in sending."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 0.5
_TRIED_S = 3.0
"""How long a host waits, at the start, for the first attempts to connect."""

log = logging.getLogger(__name__)


class MapSender:
    """Sends maps to one board, connecting anew where that is needed, until it is closed."""

    def __init__(self, board: str, address: Address, context: ssl.SSLContext | None) -> None:
        self._board = board
        self._address = address
        self._context = context
        self._down = "not connected yet"
        self._queue: queue.Queue[bytes] = queue.Queue(MOST_WAITING)
        self._tried = threading.Event()
        self._closed = threading.Event()
        threading.Thread(target=self._run, name=f"maps to {board}", daemon=True).start()

    def wait_tried(self, until_s: float) -> None:
        """Wait until it is connected, has once failed to, or time is over."""
        self._tried.wait(max(0.0, until_s - time.monotonic()))

    def send(self, frame: bytes) -> str:
        """Queue a frame without waiting; return why it cannot be sent, nothing where it can."""
        if self._down:
            return f"G0's board cannot reach it: {self._down}"
        try:
            self._queue.put_nowait(frame)
        except queue.Full:
            return f"maps of {MOST_WAITING} images wait for it already"
        return ""

    def close(self) -> None:
        """Send no more."""
        self._closed.set()
        with suppress(queue.Full):
            self._queue.put_nowait(b"")

    def _run(self) -> None:
        pause_s, kept = _FIRST_PAUSE_S, b""
        while not self._closed.is_set():
            try:
                connection = self._connected()
            except OSError as error:
                self._give_up(str(error))
                kept = b""
                self._closed.wait(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                continue
            self._down, pause_s = "", _FIRST_PAUSE_S
            self._tried.set()
            with connection:
                kept = self._send_all(connection, kept)

    def _send_all(self, connection: socket.socket, kept: bytes) -> bytes:
        """Send what is queued; return the frame that another connection must carry."""
        while not self._closed.is_set():
            frame = kept or self._queue.get()
            # The other end never speaks: what can be read is its end.
            if select.select([connection], [], [], 0)[0]:
                return frame
            try:
                connection.sendall(frame)
            except OSError as error:
                log.warning("maps to %s: %s", self._board, error)
                return b""
            kept = b""
        return b""

    def _give_up(self, why: str) -> None:
        """Note that nothing can be sent; forget what waits, whose images are late already."""
        self._down = why
        self._tried.set()
        with suppress(queue.Empty):
            while True:
                self._queue.get_nowait()

    def _connected(self) -> socket.socket:
        """Connect, and make sure which board it is; raises OSError."""
        place = (self._address.host, self._address.port)
        plain = socket.create_connection(place, timeout=_TIMEOUT_S)
        try:
            configure_socket(plain)
            connection = plain
            if self._context is not None:
                # A board is known by its name, wherever it is.
                connection = self._context.wrap_socket(plain, server_hostname=self._board)
            # Or the other end takes it for a stranger's, and closes it before the first image.
            connection.sendall(opening_maps_frame().encoded())
            return connection
        except OSError:
            plain.close()
            raise


def open_senders(
    receivers: Mapping[str, str], context: ssl.SSLContext | None
) -> dict[str, MapSender]:
    """Senders to boards by name, each tried once; raises InputError for what is no address."""
    places = {name: Address.parse(text, name) for name, text in receivers.items()}
    if context is None and not all(place.loopback for place in places.values()):
        raise InputError("plain text is for loopback only", found=", ".join(receivers.values()))
    senders = {name: MapSender(name, place, context) for name, place in places.items()}
    until_s = time.monotonic() + _TRIED_S
    for sender in senders.values():
        sender.wait_tried(until_s)
    return senders


class MapSessions:
    """The sessions of hosts that expect features of maps, by their names."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[Expectation, Callable[[Frame], None]]] = {}
        self._lock = threading.Lock()

    def open(self, expectation: Expectation, answer: Callable[[Frame], None]) -> None:
        """Expect maps of a session, a later host's in place of an earlier one's."""
        with self._lock:
            self._open[expectation.session] = expectation, answer

    def close(self, session: str, answer: Callable[[Frame], None]) -> None:
        """Expect no more maps, unless another connection does by now."""
        with self._lock:
            if session in self._open and self._open[session][1] == answer:
                del self._open[session]

    def find(self, session: str, sender: str) -> tuple[Expectation, Callable[[Frame], None]] | None:
        """Return who expects maps from this board; None where nobody does.

        Without keys, on loopback, senders have no names.
        """
        with self._lock:
            found = self._open.get(session)
        return found if found and sender in ("", found[0].sender) else None
