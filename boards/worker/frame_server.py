"""The frame server of a worker: one thread for each connection reads, computes, answers.

The thread that reads also computes, so that nothing is handed over on the way.  A connection that
does not finish its TLS handshake, stops in the middle of a frame, or does not take its answer is
closed; so is one that sends what is no frame.  The number of connections is limited; those that
are not yet authenticated have a limit of their own, beyond which the oldest is closed, so that
unauthenticated clients keep no host out.
"""

import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from math import prod

from boards.protocol import frames
from boards.protocol.frames import (
    Frame,
    FrameAssembler,
    FrameKind,
    MalformedFrameError,
    RefusalReason,
    RequestRefused,
    configure_socket,
)
from boards.worker.student_pool import RequestObserver, StudentPool

TIMEOUT_S = 10.0
"""Limit of a handshake, of a pause within a frame, and of sending an answer."""

MAX_CONNECTIONS = 32
MAX_UNAUTHENTICATED = 16
"""Connections in their handshake."""
_PAUSE_S = 0.1
"""After a connection that could not be taken, as where no descriptor is left."""
_DRAIN_S = 1.0
_CHUNK_BYTES = 32 * 1024

log = logging.getLogger(__name__)


class FrameServer:
    """Listens for frames; plain ones where there is no TLS context."""

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext | None,
        pool: StudentPool,
        largest_bytes: int,
        observer: RequestObserver,
    ) -> None:
        self._listener = listener
        self._context = context
        self._pool = pool
        self._largest_bytes = largest_bytes
        self._observer = observer
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._unauthenticated: dict[socket.socket, None] = {}
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
            _shut_down(each, socket.SHUT_RD)
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
        try:
            with (
                closing(self._set_up(accepted)) as connection,
                self._slot(),
                self._registered(connection),
            ):
                _Connection(connection, self._pool, self._largest_bytes, self._observer).run()
        except MalformedFrameError as error:
            self._observer.count("frames", "MALFORMED")
            log.warning("a connection was closed: %s", error)
        except (OSError, EOFError) as error:
            log.info("a connection ended: %s", error)

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """Take one of the places; raises ConnectionRefusedError where none is left."""
        if not self._slots.acquire(blocking=False):
            raise ConnectionRefusedError(f"{MAX_CONNECTIONS} connections are open already")
        try:
            yield
        finally:
            self._slots.release()

    def _set_up(self, accepted: socket.socket) -> socket.socket:
        """Configure and authenticate a connection; raises OSError."""
        try:
            configure_socket(accepted)
            accepted.settimeout(TIMEOUT_S)
        except OSError:
            accepted.close()
            raise
        return accepted if self._context is None else self._authenticated(accepted, self._context)

    def _authenticated(self, accepted: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
        """Do the handshake, unless too many newer connections have not done theirs."""
        connection = context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
        with self._lock:
            self._unauthenticated[connection] = None
            oldest = next(iter(self._unauthenticated))
            if len(self._unauthenticated) > MAX_UNAUTHENTICATED:
                del self._unauthenticated[oldest]
                _shut_down(oldest, socket.SHUT_RDWR)
        try:
            connection.do_handshake()
        except OSError:
            connection.close()
            raise
        finally:
            with self._lock:
                self._unauthenticated.pop(connection, None)
        return connection

    @contextmanager
    def _registered(self, connection: socket.socket) -> Iterator[None]:
        """Let `stop` know of an open connection."""
        with self._lock:
            self._connections[connection] = threading.current_thread()
        try:
            yield
        finally:
            with self._lock:
                del self._connections[connection]


def _shut_down(connection: socket.socket, how: int) -> None:
    # The plain socket's: that of an SSLSocket would take off the encryption as well.
    with suppress(OSError):
        socket.socket.shutdown(connection, how)


class _Connection:
    """One connection after its handshake."""

    def __init__(
        self,
        connection: socket.socket,
        pool: StudentPool,
        largest_bytes: int,
        observer: RequestObserver,
    ) -> None:
        self._connection = connection
        self._pool = pool
        self._observer = observer
        self._assembler = FrameAssembler(largest_bytes)

    def run(self) -> None:
        """Answer HELLO and then images, until the client closes or sends what is no frame."""
        names = frames.parse_hello(self._read(FrameKind.HELLO, begun=True))
        try:
            models = [self._pool.model(name) for name in names]
        except RequestRefused as error:
            self._write(frames.refused_frame(0, error.reason, str(error)))
            return
        image_values = prod(models[0].reads.shape)
        answer_values = sum(prod(model.answers.shape) for model in models)
        self._write(frames.welcome_frame(image_values, answer_values))
        while True:
            answer, outcome = self._answered(self._read(FrameKind.IMAGES), names, image_values)
            self._write(answer)
            self._observer.count("frames", outcome)

    def _answered(self, frame: Frame, names: list[str], image_values: int) -> tuple[Frame, str]:
        """Answer to a frame, and the outcome that is counted."""
        try:
            images = frames.parse_images(frame, image_values)
            return frames.features_frame(frame.number, self._pool.answer(names, images)), "OK"
        except MalformedFrameError as error:
            reason, text = RefusalReason.INVALID_ARGUMENT, str(error)
        except RequestRefused as error:
            reason, text = error.reason, str(error)
        return frames.refused_frame(frame.number, reason, text), reason.name

    def _read(self, expected: FrameKind, *, begun: bool = False) -> Frame:
        """Wait for a frame without limit; once it has `begun`, only for a while.

        Raises MalformedFrameError, EOFError and what sockets raise.
        """
        while (frame := self._assembler.frame()) is None:
            try:
                chunk = self._connection.recv(_CHUNK_BYTES)
            except TimeoutError:
                if begun or self._assembler.begun:
                    raise
                continue
            if not chunk:
                raise EOFError("the client closed it")
            self._assembler.add(chunk)
        if frame.kind != expected:
            raise MalformedFrameError(f"{frame.kind.name} in place of {expected.name}")
        return frame

    def _write(self, frame: Frame) -> None:
        self._connection.sendall(frame.encoded())
