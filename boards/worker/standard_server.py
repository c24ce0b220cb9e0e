"""The standard protocol: Open Inference Protocol and health over gRPC.

Tensors come and go as raw little-endian bytes; a client that sends typed contents gets typed
contents back.  The answer's parameters `waited_ns` and `computed_ns` say how long the request stood
in the queue and how long it was computed.  A worker loads this module at the first call.
"""

import secrets
import socket
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from boards.protocol.frames import Features, RefusalReason, RequestRefused, Values, format_extension
from boards.protocol.open_inference import METHODS, SERVICE, message_class
from boards.tls.credential import parse_certificate, sending_board
from boards.tls.identity import Identity
from boards.worker.frame_server import TIMEOUT_S
from boards.worker.standard_port import MOST_CONNECTIONS
from boards.worker.student_pool import RequestObserver, ServedModel, StudentPool

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

DATATYPE = "FP32"
MODEL_VERSION = "1"
PLATFORMS = {"onnxruntime": "onnxruntime_onnx", "ncnn": "ncnn"}
_EXTRA_THREADS = 8
"""Calls beside those in the queue that are answered at once: metadata, health, refusals."""
_CONNECT_S = 5.0


class StandardServer:
    """A running gRPC server, which this process alone reaches; it relays what comes to it."""

    def __init__(self, service: "InferenceService", queue: int, largest_bytes: int) -> None:
        """Bind and start; raises RuntimeError where there is no place."""
        self._server = grpc.server(
            ThreadPoolExecutor(queue + _EXTRA_THREADS, thread_name_prefix="standard"),
            options=(
                ("grpc.max_receive_message_length", largest_bytes),
                ("grpc.max_send_message_length", largest_bytes),
                ("grpc.server_handshake_timeout_ms", int(1000 * TIMEOUT_S)),
                ("grpc.max_allowed_incoming_connections", MOST_CONNECTIONS),
                ("grpc.so_reuseport", 0),
                ("grpc.keepalive_time_ms", 20_000),
                ("grpc.keepalive_timeout_ms", 20_000),
            ),
            maximum_concurrent_rpcs=queue + _EXTRA_THREADS,
        )
        self._health = health.HealthServicer(experimental_non_blocking=True)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._server.add_generic_rpc_handlers((service.handler(),))
        # Linux has names of sockets that are no files; else any free port of this machine.
        self._name = f"nonn-{secrets.token_hex(16)}" if sys.platform == "linux" else ""
        place = f"unix-abstract:{self._name}" if self._name else "127.0.0.1:0"
        self._port = self._bind(place, service.identity)
        self._server.start()
        for each in ("", SERVICE):
            self._health.set(each, health_pb2.HealthCheckResponse.SERVING)

    def connect(self) -> socket.socket:
        """Open a connection to it, for bytes of a caller; raises OSError."""
        if not self._name:
            return socket.create_connection(("127.0.0.1", self._port), timeout=_CONNECT_S)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(_CONNECT_S)
            connection.connect(f"\0{self._name}")
        except OSError:
            connection.close()
            raise
        return connection

    def not_serving(self) -> None:
        """Tell who asks for its health that it is about to end."""
        self._health.enter_graceful_shutdown()

    def stop(self, seconds: float) -> None:
        """Take no more calls, let those inside end within so long, and wait."""
        self._server.stop(grace=seconds).wait()

    def _bind(self, place: str, identity: Identity | None) -> int:
        if identity is None:
            return int(self._server.add_insecure_port(place))
        credentials = grpc.ssl_server_credentials(
            [(identity.key, identity.certificate)],
            root_certificates=identity.authority,
            require_client_auth=True,
        )
        return int(self._server.add_secure_port(place, credentials))


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
        self.identity = identity
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
                _check_caller(context, self.identity)
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
