"""A worker as a server: both protocols, health and metrics, from start to drain."""

import logging
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from boards.credentials.identity import Identity
from boards.protocol.address import Address
from boards.protocol.messages import SERVICE
from boards.runtime.model import LoadedModel
from boards.worker.counts import Uncounted
from boards.worker.framing import FrameServer
from boards.worker.metrics import Metrics
from boards.worker.standard import StandardService
from boards.worker.students import Students
from profiles.errors import BoardError

DRAIN_S = 10.0
"""How long the requests that are inside may take when the worker is told to end."""

_EVERYWHERE = ("::", "0.0.0.0")  # noqa: S104  (what the user may ask for)

_BESIDE_QUEUE = 8
"""Calls beside those in the queue that are answered at once: metadata, health, refusals."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker serves.  Without an identity it speaks plain text."""

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
        self._metrics = None if settings.metrics is None else Metrics()
        counts = self._metrics or Uncounted()
        self._students = Students(models, settings.queue, dict(settings.at_least_ms), counts)
        self._health = health.HealthServicer(experimental_non_blocking=True)
        self._server = self._grpc_server()
        self.address = settings.listen.with_port(self._bound())
        self._frames = FrameServer(
            _listener(self.address),
            None if settings.identity is None else settings.identity.server_context(),
            self._students,
            settings.largest_bytes,
            counts,
        )
        service = StandardService(self._students, self._frames.port, counts)
        self._server.add_generic_rpc_handlers((service.handler(),))

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
        self._server.start()
        for service in ("", SERVICE):
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    def drain(self) -> None:
        """Take no more requests, answer those inside, and close."""
        self._health.enter_graceful_shutdown()
        if not self._students.drain(DRAIN_S):
            log.warning("requests were still computed after %g s and are dropped", DRAIN_S)
        self._server.stop(grace=1).wait()
        self._frames.stop()

    def _grpc_server(self) -> grpc.Server:
        settings = self._settings
        server = grpc.server(
            ThreadPoolExecutor(settings.queue + _BESIDE_QUEUE, thread_name_prefix="standard"),
            options=(
                ("grpc.max_receive_message_length", settings.largest_bytes),
                ("grpc.max_send_message_length", settings.largest_bytes),
                # Otherwise a second worker on this port would take every other request.
                ("grpc.so_reuseport", 0),
                ("grpc.keepalive_time_ms", 20_000),
                ("grpc.keepalive_timeout_ms", 20_000),
            ),
            maximum_concurrent_rpcs=settings.queue + _BESIDE_QUEUE,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        return server

    def _bound(self) -> int:
        """Bind the standard protocol; return the port."""
        listen, identity = self._settings.listen, self._settings.identity
        try:
            if identity is None:
                return int(self._server.add_insecure_port(str(listen)))
            credentials = grpc.ssl_server_credentials(
                [(identity.key, identity.certificate)],
                root_certificates=identity.authority,
                require_client_auth=True,
            )
            return int(self._server.add_secure_port(str(listen), credentials))
        except RuntimeError as error:
            raise _cannot_listen(listen, error) from None


def _listener(standard: Address) -> socket.socket:
    """Listen for frames on the port behind the standard protocol's, or on any free one.

    On all addresses of both families where that is asked of either, as gRPC does.
    """
    family = socket.AF_INET6 if ":" in standard.host else socket.AF_INET
    places = [(standard.host, family, False)]
    if standard.host in _EVERYWHERE and socket.has_dualstack_ipv6():
        places.insert(0, ("::", socket.AF_INET6, True))
    for port, (host, family, both) in product((standard.port + 1, 0), places):
        try:
            return socket.create_server(
                (host, port), family=family, backlog=64, dualstack_ipv6=both
            )
        except (OSError, OverflowError) as error:
            refused = error
    raise _cannot_listen(standard.with_port(0), refused)


def _cannot_listen(address: Address, error: Exception) -> BoardError:
    return BoardError(
        f"cannot listen on {address}: {error}; is another worker on this port? choose another one"
    )
