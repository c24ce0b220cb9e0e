"""The frame server of a worker: one thread for each connection reads, computes, answers.

The thread that reads also computes, so that nothing is handed over on the way.  A connection that
does not finish its TLS handshake, stops in the middle of a frame, or does not take its answer is
closed; so is one that sends what is no frame.  The number of connections is limited; those that
are not yet authenticated have a limit of their own, beyond which the oldest is closed, so that
unauthenticated clients keep no host out.
"""

import logging
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from math import prod

from cryptography.x509 import load_der_x509_certificate

from boards.protocol import frames
from boards.protocol.frame_stream import FrameStream, OneImage, configure_socket
from boards.protocol.frames import (
    Expectation,
    Frame,
    FrameKind,
    MalformedFrameError,
    RefusalReason,
    RequestRefused,
    Route,
)
from boards.tls.credential import sending_board
from boards.tls.identity import Identity
from boards.worker.map_exchange import MapSessions, open_senders
from boards.worker.student_pool import AskedStudents, RequestObserver, StudentPool
from nonn_common.errors import InputError

TIMEOUT_S = 10.0
"""Limit of a handshake, of a pause within a frame, and of sending an answer."""

MAX_CONNECTIONS = 32
MAX_UNAUTHENTICATED = 16
"""Connections in their handshake."""
_PAUSE_S = 0.1
"""After a connection that could not be taken, as where no descriptor is left."""
_DRAIN_S = 1.0
_FIRST = (FrameKind.HELLO, FrameKind.ROUTE, FrameKind.EXPECT, FrameKind.MAPS)

log = logging.getLogger(__name__)


class FrameServer:
    """Listens for frames; plain ones where there is no identity."""

    def __init__(
        self,
        listener: socket.socket,
        identity: Identity | None,
        pool: StudentPool,
        largest_bytes: int,
        observer: RequestObserver,
    ) -> None:
        self._listener = listener
        self._identity = identity
        self._context = None if identity is None else identity.server_context()
        self._sessions = MapSessions()
        self._pool = pool
        self._largest_bytes = largest_bytes
        self._observer = observer
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._connections: dict[FrameStream, threading.Thread] = {}
        self._unauthenticated: dict[FrameStream, None] = {}
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, name="frames", daemon=True)

    @property
    def port(self) -> int:
        """Port that it listens on."""
        return int(self._listener.getsockname()[1])

    def start(self) -> None:
        """Begin to take connections."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more connections and no more frames; what is being answered still goes out."""
        self._stopping.set()
        # A thread that waits in accept() is only woken by a shutdown.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            connections = dict(self._connections)
        for each in connections:
            _shut_down(each.socket, socket.SHUT_RD)
        end = time.monotonic() + _DRAIN_S
        for thread in connections.values():
            thread.join(max(0.0, end - time.monotonic()))

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                accepted, _ = self._listener.accept()
                self._begin(accepted)
            except (OSError, RuntimeError) as error:
                if not self._stopping.wait(_PAUSE_S):
                    log.warning("a connection could not be taken: %s", error)

    def _begin(self, accepted: socket.socket) -> None:
        """Give a connection a thread; raises RuntimeError where there can be no more of them."""
        serve = threading.Thread(
            target=self._serve, args=(accepted,), name="connection", daemon=True
        )
        try:
            serve.start()
        except RuntimeError:
            accepted.close()
            raise

    def _serve(self, accepted: socket.socket) -> None:
        """Serve one connection until it ends."""
        client = _client_name(accepted)
        try:
            with (
                closing(self._set_up(accepted)) as connection,
                self._slot(),
                self._registered(connection),
            ):
                parts = self._pool, self._observer, self._sessions, self._identity
                _Connection(connection, *parts).run()
        except MalformedFrameError as error:
            self._observer.count("frames", "MALFORMED")
            log.warning("the connection of %s was closed: %s", client, error)
        except (OSError, EOFError) as error:
            log.info("the connection of %s ended: %s", client, error)

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """Take one of the places; raises ConnectionRefusedError where none is left."""
        if not self._slots.acquire(blocking=False):
            raise ConnectionRefusedError(f"{MAX_CONNECTIONS} connections are open already")
        try:
            yield
        finally:
            self._slots.release()

    def _set_up(self, accepted: socket.socket) -> FrameStream:
        """Configure and authenticate a connection; raises OSError."""
        try:
            configure_socket(accepted)
            connection = FrameStream(accepted, self._largest_bytes, self._context)
            if self._context is not None:
                self._authenticate(connection)
            connection.limit(TIMEOUT_S)
        except OSError:
            accepted.close()
            raise
        return connection

    def _authenticate(self, connection: FrameStream) -> None:
        """Do the handshake, unless too many newer connections have not done theirs."""
        with self._lock:
            self._unauthenticated[connection] = None
            oldest = next(iter(self._unauthenticated))
            if len(self._unauthenticated) > MAX_UNAUTHENTICATED:
                del self._unauthenticated[oldest]
                _shut_down(oldest.socket, socket.SHUT_RDWR)
        try:
            connection.handshake(TIMEOUT_S)
        finally:
            with self._lock:
                self._unauthenticated.pop(connection, None)

    @contextmanager
    def _registered(self, connection: FrameStream) -> Iterator[None]:
        """Let `stop` know of an open connection."""
        with self._lock:
            self._connections[connection] = threading.current_thread()
        try:
            yield
        finally:
            with self._lock:
                del self._connections[connection]


def _client_name(connection: socket.socket) -> str:
    """Address and port of the other end, as people write them."""
    try:
        host, port = connection.getpeername()[:2]
    except OSError:
        return "a client that is gone"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _sending_board(connection: FrameStream) -> str:
    """Name of the board at the other end; nothing where it is a host."""
    shown = connection.peer_certificate()
    return sending_board(load_der_x509_certificate(shown)) if shown else ""


def _shut_down(connection: socket.socket, how: int) -> None:
    with suppress(OSError):
        connection.shutdown(how)


class _Connection:
    """One connection after its handshake."""

    def __init__(
        self,
        connection: FrameStream,
        pool: StudentPool,
        observer: RequestObserver,
        sessions: MapSessions,
        identity: Identity | None,
    ) -> None:
        self._connection = connection
        self._pool = pool
        self._observer = observer
        self._sessions = sessions
        self._identity = identity
        self._writing = threading.Lock()

    def run(self) -> None:
        """Serve what the first frame asks for, until the client closes or sends no frame.

        A board may send maps, and ask for nothing.
        """
        sender = _sending_board(self._connection)
        allowed = (FrameKind.MAPS,) if sender else _FIRST
        first = self._read(*allowed, begun=True)
        try:
            if first.kind == FrameKind.MAPS:
                self._take_maps(sender)
            elif first.kind == FrameKind.ROUTE:
                self._send_maps(frames.parse_route(first))
            elif first.kind == FrameKind.EXPECT:
                self._expect_maps(frames.parse_expectation(first))
            else:
                self._answer_images(frames.parse_hello(first))
        except RequestRefused as error:
            self._write(frames.refused_frame(0, error.reason, str(error)))

    def _answer_images(self, names: Sequence[str]) -> None:
        """Answer images with the features of these students; raises RequestRefused at first."""
        image_values = self._welcome(names)
        asked, stream = self._pool.asked(names), self._connection
        one = OneImage.of(stream, asked.shapes[0], asked.width)
        compute = None if one is None else self._pool.bound(asked, one.image, one.features)
        while True:
            frame = stream.wait_frame()
            try:
                # Nobody else writes here: no lock.
                if one is not None and compute is not None and one.has_come(frame):
                    stream.send_all(one.answer(frame.number, compute()))
                else:
                    self._answer_frame(frame, asked, image_values)
            except RequestRefused as error:
                self._write(_refused(frame.number, error)[0])

    def _answer_frame(self, frame: Frame, asked: AskedStudents, image_values: int) -> None:
        if frame.kind is not FrameKind.IMAGES:
            raise _out_of_place(frame, (FrameKind.IMAGES,))

        def features() -> Frame:
            images = frames.parse_images(frame, image_values)
            return frames.features_frame(frame.number, self._pool.answer(asked, images))

        answer, outcome = self._answered(frame.number, features)
        self._write(answer)
        self._observer.count("frames", outcome)

    def _welcome(self, names: Sequence[str], *, sends: bool = False) -> int:
        """Welcome who asks for these students; return the values that they read.

        A board that sends maps answers no values.  Raises RequestRefused for an unknown student.
        """
        models = [self._pool.model(name) for name in names]
        read_values = prod(models[0].reads.shape)
        answer_values = sum(prod(model.answers.shape) for model in models)
        self._write(frames.welcome_frame(read_values, 0 if sends else answer_values))
        return read_values

    def _expect_maps(self, expectation: Expectation) -> None:
        """Answer the maps of a session over this connection, until the host closes it."""
        answer = self._write
        # Before the welcome: the next image's maps may come at once.
        self._sessions.open(expectation, answer)
        try:
            self._welcome(expectation.students)
            # Another thread writes: this one may read only where there is something.
            select.select([self._connection], [], [])
            with self._writing:
                said = self._connection.receive()
            if said:
                raise MalformedFrameError("a host that expects maps says nothing more")
        finally:
            self._sessions.close(expectation.session, answer)

    def _take_maps(self, sender: str) -> None:
        """Compute the features of maps; they go to the host that expects them."""
        while True:
            self._answer_maps(self._read(FrameKind.MAPS), sender)

    def _answer_maps(self, frame: Frame, sender: str) -> None:
        found = self._sessions.find(frames.maps_session(frame), sender)
        if found is None:
            self._observer.count("frames", RefusalReason.NOT_FOUND.name)
            return
        expectation, write = found

        def features() -> Frame:
            values = prod(self._pool.model(expectation.students[0]).reads.shape)
            maps = frames.parse_maps(frame, values)
            return frames.features_frame(
                frame.number, self._pool.answer(expectation.students, maps)
            )

        answer, outcome = self._answered(frame.number, features)
        # A host that is gone connects anew, and its next images count.
        with suppress(OSError):
            write(answer)
        self._observer.count("frames", outcome)

    def _send_maps(self, route: Route) -> None:
        """Compute G0 of images, and hand its maps on in the route's order."""
        self._pool.model(route.group0)
        try:
            context = None if self._identity is None else self._identity.sender_context()
            senders = open_senders(route.receivers, context)
        except InputError as error:
            raise RequestRefused(RefusalReason.PERMISSION_DENIED, str(error)) from None
        try:
            image_values = self._welcome([route.group0], sends=True)
            while True:
                frame = self._read(FrameKind.IMAGES)

                def sent(frame: Frame = frame) -> Frame:
                    images = frames.parse_images(frame, image_values)
                    maps = self._pool.answer([route.group0], images)
                    content = frames.maps_frame(frame.number, route.session, maps.values).encoded()
                    failed = {name: each.send(content) for name, each in senders.items()}
                    unsent = {name: why for name, why in failed.items() if why}
                    return frames.sent_frame(frame.number, maps, unsent)

                answer, outcome = self._answered(frame.number, sent)
                self._write(answer)
                self._observer.count("frames", outcome)
        finally:
            for sender in senders.values():
                sender.close()

    def _answered(self, number: int, made: Callable[[], Frame]) -> tuple[Frame, str]:
        """Answer to a frame, and the outcome that is counted."""
        try:
            return made(), "OK"
        except (MalformedFrameError, RequestRefused) as error:
            return _refused(number, error)

    def _read(self, *expected: FrameKind, begun: bool = False) -> Frame:
        """Wait for a frame without limit; once it has `begun`, only for a while.

        Raises MalformedFrameError, EOFError and what sockets raise.
        """
        frame = self._connection.wait_frame(begun=begun)
        if frame.kind not in expected:
            raise _out_of_place(frame, expected)
        return frame

    def _write(self, frame: Frame) -> None:
        self._send(frame.encoded())

    def _send(self, content: bytes) -> None:
        with self._writing:
            try:
                self._connection.send_all(content)
            except OSError:
                # What was sent in part can have no successor.
                _shut_down(self._connection.socket, socket.SHUT_RDWR)
                raise


def _out_of_place(frame: Frame, expected: Sequence[FrameKind]) -> MalformedFrameError:
    wanted = " or ".join(kind.name for kind in expected)
    return MalformedFrameError(f"{frame.kind.name} in place of {wanted}")


def _refused(number: int, error: MalformedFrameError | RequestRefused) -> tuple[Frame, str]:
    """Refusal of a frame, and the outcome that is counted."""
    reason = error.reason if isinstance(error, RequestRefused) else RefusalReason.INVALID_ARGUMENT
    return frames.refused_frame(number, reason, str(error)), reason.name
