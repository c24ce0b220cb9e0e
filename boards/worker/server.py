"""The server of a worker: its ports, its metrics, and how it ends.

Frames are always served.  The standard protocol's port is open, too; gRPC is loaded when somebody
calls there.
"""

import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from boards.protocol.address import Address
from boards.tls.identity import Identity
from boards.worker.frame_server import FrameServer
from boards.worker.model_runtime import LoadedModel
from boards.worker.standard_port import StandardPort
from boards.worker.student_pool import NullObserver, StudentPool
from nonn_common.errors import BoardError

if TYPE_CHECKING:
    from prometheus_client import Histogram

    from boards.worker.standard_server import StandardServer

_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

DRAIN_S = 10.0
"""Time limit of requests in progress when the worker is to end."""
_ANY_ADDRESS = ("::", "0.0.0.0")  # noqa: S104  (what the user may ask for)


class WorkerMetrics:
    """The figures of one worker, in a registry of their own."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge

        self._registry = CollectorRegistry()
        self._requests = Counter(
            "nonn_requests_total",
            "Requests, by protocol and outcome.",
            ("protocol", "outcome"),
            registry=self._registry,
        )
        self._waited = self._histogram("nonn_waited_seconds", "Time until a student's turn came.")
        self._computed = self._histogram("nonn_computed_seconds", "Time of a student's answer.")
        self._inside = Gauge(
            "nonn_requests_inside", "Requests that wait or are computed.", registry=self._registry
        )

    def count(self, protocol: str, outcome: str) -> None:
        """Count a request."""
        self._requests.labels(protocol, outcome).inc()

    def observe(self, student: str, waited_ns: int, computed_ns: int) -> None:
        """Note how long one answer took."""
        self._waited.labels(student).observe(waited_ns / 1e9)
        self._computed.labels(student).observe(computed_ns / 1e9)

    def serve(self, address: Address, inside: Callable[[], float]) -> int:
        """Serve the figures over HTTP; return the port.  Raises OSError."""
        from prometheus_client import start_http_server

        self._inside.set_function(inside)
        server, _ = start_http_server(address.port, address.host, registry=self._registry)
        return int(server.server_port)

    def _histogram(self, name: str, text: str) -> "Histogram":
        from prometheus_client import Histogram

        return Histogram(name, text, ("student",), buckets=_BUCKETS_S, registry=self._registry)


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Settings of a worker.  Without an identity it speaks plain text."""

    listen: Address
    identity: Identity | None
    queue: int = 64
    largest_bytes: int = 16 * 1024 * 1024
    at_least_ms: tuple[tuple[str, float], ...] = ()
    metrics: Address | None = None


class Worker:
    """A running worker."""

    def __init__(self, models: Sequence[LoadedModel], settings: WorkerSettings) -> None:
        """Bind all ports; raises BoardError where one is taken."""
        self._settings = settings
        self._metrics = None if settings.metrics is None else WorkerMetrics()
        self._observer = self._metrics or NullObserver()
        self._students = StudentPool(
            models, settings.queue, dict(settings.at_least_ms), self._observer
        )
        standard = _listener(settings.listen, (settings.listen.port,))
        self._standard = StandardPort(standard, self._standard_server)
        self.address = settings.listen.with_port(int(standard.getsockname()[1]))
        try:
            self._frames = FrameServer(
                # The port after it, or any free one.
                _listener(self.address, (self.address.port + 1, 0)),
                settings.identity,
                self._students,
                settings.largest_bytes,
                self._observer,
            )
        except BoardError:
            standard.close()
            raise
        self._frames_port = self._frames.port

    @property
    def students(self) -> tuple[str, ...]:
        """Names of its students."""
        return self._students.names

    def start(self) -> None:
        """Begin to answer; raises BoardError where metrics cannot be served."""
        if self._metrics is not None and self._settings.metrics is not None:
            try:
                self._metrics.serve(self._settings.metrics, lambda: self._students.inside)
            except OSError as error:
                raise _cannot_listen(self._settings.metrics, error) from None
        self._frames.start()
        self._standard.start()

    def drain(self) -> None:
        """Take no more requests, answer those inside, and close."""
        self._standard.not_serving()
        if not self._students.drain(DRAIN_S):
            log.warning("requests were still computed after %g s and are dropped", DRAIN_S)
        self._standard.stop()
        self._frames.stop()

    def _standard_server(self) -> "StandardServer":
        """Load gRPC and start its server, for the first caller."""
        from boards.worker.standard_server import InferenceService, StandardServer

        settings = self._settings
        service = InferenceService(
            self._students, self._frames_port, self._observer, settings.identity
        )
        return StandardServer(service, settings.queue, settings.largest_bytes)


def _listener(place: Address, ports: Sequence[int]) -> socket.socket:
    """Listen at a host, on the first of these ports that is free; raises BoardError.

    On all addresses of both families where that is asked of either.
    """
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    candidates = [(place.host, family, False)]
    if place.host in _ANY_ADDRESS and socket.has_dualstack_ipv6():
        candidates.insert(0, ("::", socket.AF_INET6, True))
    for port, (host, family, both) in product(ports, candidates):
        try:
            # The system's own form: Python loses the zone of a link-local address otherwise.
            found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0][4]
            return socket.create_server(found, family=family, backlog=64, dualstack_ipv6=both)
        except (OSError, OverflowError) as error:
            refused = error
    raise _cannot_listen(place.with_port(ports[-1]), refused)


def _cannot_listen(address: Address, error: Exception) -> BoardError:
    return BoardError(
        f"cannot listen on {address}: {error}; is another worker on this port? choose another one"
    )
