"""What a worker tells Prometheus: requests by outcome, how long they waited and were computed."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from boards.protocol.address import Address

_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """The figures of one worker, in a registry of their own."""

    def __init__(self) -> None:
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
        self._inside.set_function(inside)
        server, _ = start_http_server(address.port, address.host, registry=self._registry)
        return int(server.server_port)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, ("student",), buckets=_BUCKETS_S, registry=self._registry)
