"""The server of a worker: Open Inference Protocol over gRPC, frames, health, metrics.

Tensors come and go as raw little-endian bytes; a client that sends typed contents gets typed
contents back.  The answer's parameters `waited_ns` and `computed_ns` say how long the request stood
in the queue and how long it was computed.
"""

import logging
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from itertools import product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from boards.protocol.address import Address
from boards.protocol.frames import Features, RefusalReason, RequestRefused, Values, format_extension
from boards.protocol.open_inference import METHODS, SERVICE, message_class
from boards.tls.credential import parse_certificate, sending_board
from boards.tls.identity import Identity
from boards.worker.frame_server import TIMEOUT_S, FrameServer
from boards.worker.model_runtime import LoadedModel
from boards.worker.student_pool import NullObserver, RequestObserver, ServedModel, StudentPool
from nonn_common.errors import BoardError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

DATATYPE = "FP32"
MODEL_VERSION = "1"
PLATFORMS = {"onnxruntime": "onnxruntime_onnx", "ncnn": "ncnn"}
DRAIN_S = 10.0
"""Time limit of requests in progress when the worker is to end."""
_MOST_CONNECTIONS = 64
"""Connections of the standard protocol; more would take the descriptors that others need."""
_ANY_ADDRESS = ("::", "0.0.0.0")  # noqa: S104  (what the user may ask for)
_EXTRA_THREADS = 8
"""Calls beside those in the queue that are answered at once: metadata, health, refusals."""


class WorkerMetrics:
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


class InferenceService:
    """The protocol's six methods, for the students of one worker."""

    def __init__(
        self,
        students: StudentPool,
        frames_port: int | None,
        observer: RequestObserver,
        identity: Identity | None = None,
    ) -> None:
        self._students = students
        self._identity = identity
        self._extensions = () if frames_port is None else (format_extension(frames_port),)
        self._observer = observer

    def handler(self) -> grpc.GenericRpcHandler:
        """Make the handler of the service, for a gRPC server."""
        answers: dict[str, Callable[[Any], Any]] = {
            "ServerLive": lambda _: message_class("ServerLiveResponse")(live=True),
            "ServerReady": lambda _: message_class("ServerReadyResponse")(
                ready=self._students.ready
            ),
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
        }
        return grpc.method_handlers_generic_handler(
            SERVICE, {method: self._method(method, answers[method]) for method in METHODS}
        )

    def _method(self, name: str, answer: Callable[[Any], Any]) -> grpc.RpcMethodHandler:
        """Serve one method; a refused request becomes its status."""

        def respond(content: bytes, context: grpc.ServicerContext) -> bytes:
            try:
                _check_caller(context, self._identity)
                response: bytes = answer(_parse(f"{name}Request", content)).SerializeToString()
            except RequestRefused as error:
                self._observer.count("standard", error.reason.name)
                context.abort(grpc.StatusCode[error.reason.name], str(error))
                raise
            if name == "ModelInfer":
                self._observer.count("standard", "OK")
            return response

        return grpc.unary_unary_rpc_method_handler(respond)

    def _model_ready(self, request: Any) -> Any:
        known = self._students.has(request.name) and request.version in ("", MODEL_VERSION)
        return message_class("ModelReadyResponse")(ready=known and self._students.ready)

    def _server_metadata(self, request: Any) -> Any:
        del request
        return message_class("ServerMetadataResponse")(
            name="nonn-plan", version=version("nonn-plan"), extensions=self._extensions
        )

    def _model_metadata(self, request: Any) -> Any:
        model = self._model(request.name, request.version)
        tensor = message_class("ModelMetadataResponse.TensorMetadata")
        inputs, outputs = (
            [tensor(name=port.name, datatype=DATATYPE, shape=(-1, *port.shape))]
            for port in (model.reads, model.answers)
        )
        return message_class("ModelMetadataResponse")(
            name=model.name,
            versions=[MODEL_VERSION],
            platform=PLATFORMS[model.engine],
            inputs=inputs,
            outputs=outputs,
        )

    def _infer(self, request: Any) -> Any:
        model = self._model(request.model_name, request.model_version)
        images = _request_images(request, model)
        _check_outputs(request, model)
        return _response(request, model, self._students.answer([model.name], images))

    def _model(self, name: str, asked: str) -> ServedModel:
        if asked not in ("", MODEL_VERSION):
            raise RequestRefused(
                RefusalReason.NOT_FOUND,
                f"no version {asked!r} of a model; allowed: {MODEL_VERSION}",
            )
        return self._students.model(name)


def _check_caller(context: grpc.ServicerContext, identity: Identity | None) -> None:
    """Refuse a board, and a host whose certificate was revoked; raises RequestRefused."""
    for pem in context.auth_context().get("x509_pem_cert", ()):
        caller = _caller(pem)
        if sending_board(caller):
            raise RequestRefused(RefusalReason.PERMISSION_DENIED, "a board may send maps alone")
        if identity is not None and identity.has_revoked(caller):
            raise RequestRefused(RefusalReason.PERMISSION_DENIED, "this certificate was taken back")


@lru_cache(maxsize=64)
def _caller(pem: bytes) -> "Certificate":
    return parse_certificate(pem, Path("the caller's certificate"))


def _parse(name: str, content: bytes) -> Any:
    from google.protobuf.message import DecodeError

    try:
        return message_class(name).FromString(content)
    except DecodeError:
        raise RequestRefused(RefusalReason.INVALID_ARGUMENT, f"not a {name}") from None


def _request_images(request: Any, model: ServedModel) -> Values:
    """Return the images of a request, `(n, *shape)`; raises RequestRefused."""
    if len(request.inputs) != 1 or request.inputs[0].name != model.reads.name:
        found = [each.name for each in request.inputs]
        raise _invalid(f"inputs {found}; allowed: one, {model.reads.name!r}")
    tensor = request.inputs[0]
    if tensor.datatype != DATATYPE:
        raise _invalid(f"datatype {tensor.datatype!r}; allowed: {DATATYPE}")
    shape = tuple(tensor.shape)
    if shape[1:] != model.reads.shape or shape[0] < 1:
        raise _invalid(f"shape {shape}; allowed: (n, *{model.reads.shape})")
    values = _tensor_values(request, tensor)
    if len(values) != prod(shape):
        raise _invalid(f"{len(values)} values for shape {shape}")
    return values.reshape(shape)


def _tensor_values(request: Any, tensor: Any) -> Values:
    """Return a tensor's values, which come as raw bytes or as a list of floats."""
    raw: Sequence[bytes] = request.raw_input_contents
    if not raw:
        return np.array(tensor.contents.fp32_contents, dtype=np.float32)
    if len(raw) != 1 or len(raw[0]) % 4:
        raise _invalid("raw contents that are not the bytes of one float32 tensor")
    return np.frombuffer(raw[0], dtype="<f4")


def _check_outputs(request: Any, model: ServedModel) -> None:
    unknown = [each.name for each in request.outputs if each.name != model.answers.name]
    if unknown:
        raise _invalid(f"outputs {unknown}; allowed: {model.answers.name!r}")


def _response(request: Any, model: ServedModel, answer: Features) -> Any:
    response = message_class("ModelInferResponse")(
        model_name=model.name, model_version=MODEL_VERSION, id=request.id
    )
    response.parameters["waited_ns"].int64_param = answer.waited_ns
    response.parameters["computed_ns"].int64_param = answer.computed_ns
    shape = (len(answer.values), *model.answers.shape)
    output = response.outputs.add(name=model.answers.name, datatype=DATATYPE, shape=shape)
    if request.raw_input_contents:
        response.raw_output_contents.append(answer.values.astype("<f4", copy=False).tobytes())
    else:
        output.contents.fp32_contents.extend(answer.values.ravel().tolist())
    return response


def _invalid(message_text: str) -> RequestRefused:
    return RequestRefused(RefusalReason.INVALID_ARGUMENT, message_text)


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
        observer = self._metrics or NullObserver()
        self._students = StudentPool(models, settings.queue, dict(settings.at_least_ms), observer)
        self._health = health.HealthServicer(experimental_non_blocking=True)
        self._server = self._grpc_server()
        self.address = settings.listen.with_port(self._bind())
        self._frames = FrameServer(
            _listener(self.address),
            settings.identity,
            self._students,
            settings.largest_bytes,
            observer,
        )
        service = InferenceService(self._students, self._frames.port, observer, settings.identity)
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
            ThreadPoolExecutor(settings.queue + _EXTRA_THREADS, thread_name_prefix="standard"),
            options=(
                ("grpc.max_receive_message_length", settings.largest_bytes),
                ("grpc.max_send_message_length", settings.largest_bytes),
                ("grpc.server_handshake_timeout_ms", int(1000 * TIMEOUT_S)),
                ("grpc.max_allowed_incoming_connections", _MOST_CONNECTIONS),
                # Otherwise a second worker on this port would take every other request.
                ("grpc.so_reuseport", 0),
                ("grpc.keepalive_time_ms", 20_000),
                ("grpc.keepalive_timeout_ms", 20_000),
            ),
            maximum_concurrent_rpcs=settings.queue + _EXTRA_THREADS,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        return server

    def _bind(self) -> int:
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
    """Listen for frames on the port after the standard protocol's, or on any free one.

    On all addresses of both families where that is asked of either, as gRPC does.
    """
    family = socket.AF_INET6 if ":" in standard.host else socket.AF_INET
    candidates = [(standard.host, family, False)]
    if standard.host in _ANY_ADDRESS and socket.has_dualstack_ipv6():
        candidates.insert(0, ("::", socket.AF_INET6, True))
    for port, (host, family, both) in product((standard.port + 1, 0), candidates):
        try:
            # The system's own form: Python loses the zone of a link-local address otherwise.
            place = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0][4]
            return socket.create_server(place, family=family, backlog=64, dualstack_ipv6=both)
        except (OSError, OverflowError) as error:
            refused = error
    raise _cannot_listen(standard.with_port(0), refused)


def _cannot_listen(address: Address, error: Exception) -> BoardError:
    return BoardError(
        f"cannot listen on {address}: {error}; is another worker on this port? choose another one"
    )
