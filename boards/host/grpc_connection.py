"""The gRPC connection of the host: one inference call for each student of a board.

Any server of the protocol will do, ours or Triton.  `connect` takes frames where the worker
advertises them; where their port cannot be reached, these calls are slower, but right.
"""

import threading
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

import grpc
import numpy as np

from boards.host.connection import (
    BoardTask,
    Connection,
    ConnectionLostError,
    ProtocolName,
    Reply,
    Request,
    SelfPipe,
)
from boards.host.frame_connection import (
    FramesUnreachableError,
    certificate_fault,
    connect_frames,
)
from boards.protocol.address import Address, BoardAddress
from boards.protocol.frames import Features, RefusalReason, Values, advertised_port
from boards.protocol.open_inference import METHODS, SERVICE, message_class
from boards.tls.identity import Identity
from nonn_core.export.bundle import BundledModel

CONNECT_TIMEOUT_S = 5.0
_FIRST_CALL_S = 20.0
"""Limit of the first standard call: a worker loads gRPC for it, seconds on a small board."""
_ASKED_S = 1.0
_LAST_PORT = 65_535
_FIRST_S = 2.5
"""Limit of the first try of frames; where it is over, the board is asked where they are."""

_LARGEST_BYTES = 64 * 1024 * 1024

_REFUSED = {reason.name for reason in RefusalReason} - {RefusalReason.UNAVAILABLE.name}
"""Statuses of a server that is reachable."""


class GrpcChannel:
    """A channel to one server; methods are those of the protocol."""

    def __init__(self, address: Address, board: str, identity: Identity | None) -> None:
        self._address = address
        options: list[tuple[str, int | str]] = [
            ("grpc.max_send_message_length", _LARGEST_BYTES),
            ("grpc.max_receive_message_length", _LARGEST_BYTES),
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.enable_retries", 0),
            # Boards are near; nobody else is to see, or to stop, what goes to them.
            ("grpc.enable_http_proxy", 0),
            # Two hosts in one process must not share a connection.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if identity is None:
            self._channel = grpc.insecure_channel(str(address), options)
        else:
            # A board is known by its name, wherever it is.
            options.append(("grpc.ssl_target_name_override", board))
            credentials = grpc.ssl_channel_credentials(
                identity.authority, identity.key, identity.certificate
            )
            self._channel = grpc.secure_channel(str(address), credentials, options)
        self._methods = {method: self._method(method) for method in METHODS}

    def call(self, method: str, request: Any, seconds: float) -> Any:
        """Call and wait; raises ConnectionLostError."""
        try:
            return self._methods[method](request, timeout=seconds)
        except grpc.RpcError as error:
            raise ConnectionLostError(f"{self._address}: {rpc_error_text(error)}") from None

    def future(self, method: str, request: Any) -> grpc.Future:
        """Call without waiting."""
        return self._methods[method].future(request)

    def close(self) -> None:
        """Close the channel, and with it every call."""
        self._channel.close()

    def _method(self, name: str) -> grpc.UnaryUnaryMultiCallable:
        return self._channel.unary_unary(
            f"/{SERVICE}/{name}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=message_class(f"{name}Response").FromString,
        )


def rpc_error_text(error: Any) -> str:
    """Text of a failed call."""
    return f"{error.code().name}: {error.details()}"


class GrpcConnection:
    """Calls of one board, whose replies are joined when all of its students have answered.

    One call goes to each of the `joint` models, which the server has, and to each other student.
    """

    protocol: ProtocolName = "standard"

    def __init__(
        self,
        channel: GrpcChannel,
        task: BoardTask,
        joint: tuple[BundledModel, ...] = (),
        fallback: str = "",
    ) -> None:
        self._channel = channel
        self._task = task
        self._joint = joint
        self.fallback = fallback
        self._replies: deque[Reply | ConnectionLostError] = deque()
        # gRPC's threads wake the thread that waits for replies.
        self._pipe = SelfPipe()
        self._lock = threading.Lock()
        self._closed = False

    def fileno(self) -> int:
        """File descriptor to select on."""
        return self._pipe.fileno()

    @property
    def unsent(self) -> bool:
        """Never: gRPC keeps what waits."""
        return False

    def send(self, request: Request) -> None:
        """Call for every student."""
        partial = _PartialReply(request.number, len(self._task.models), self._put)
        try:
            for model, members in self._calls:
                future = self._channel.future("ModelInfer", infer_request(model, request.images))
                receive = _receiver(partial, members, model, len(request.images))
                future.add_done_callback(receive)
        except ValueError as error:
            raise ConnectionLostError(str(error)) from None

    def flush(self) -> None:
        """Nothing waits here."""

    def replies(self) -> list[Reply]:
        """Return the replies received so far."""
        self._pipe.drain()
        found: list[Reply] = []
        while self._replies:
            one = self._replies[0]
            if isinstance(one, Reply):
                found.append(one)
            elif found:
                # Replies before the end count; the next call raises the error.
                self._pipe.wake()
                break
            else:
                raise one
            self._replies.popleft()
        return found

    def close(self) -> None:
        """Close the channel and the pipe."""
        with self._lock:
            self._closed = True
        self._channel.close()
        self._pipe.close()

    @cached_property
    def _calls(self) -> "tuple[tuple[BundledModel, tuple[_Member, ...]], ...]":
        """Models to call, and the students that each of them answers."""
        students = {
            model.name: _Member(place, prod(model.answers.shape))
            for place, model in enumerate(self._task.models)
        }
        joined = {name for model in self._joint for name in model.members}
        alone = [model for model in self._task.models if model.name not in joined]
        return tuple(
            (model, tuple(students[name] for name in model.members or (model.name,)))
            for model in (*self._joint, *alone)
        )

    def _put(self, one: Reply | ConnectionLostError) -> None:
        with self._lock:
            if self._closed:
                return
            self._replies.append(one)
            self._pipe.wake()


class _Member(NamedTuple):
    """A student of a call: its place on the board, and its vector's length."""

    place: int
    width: int


class _PartialReply:
    """The students' answers to one image, until all are there."""

    def __init__(self, number: int, students: int, put: Any) -> None:
        self._number = number
        self._parts: list[Features | None] = [None] * students
        self._timed = True
        self._put = put
        self._lock = threading.Lock()
        self._finished = False

    def add(self, index: int, part: Features, *, timed: bool) -> None:
        with self._lock:
            self._parts[index] = part
            self._timed = self._timed and timed
            parts = [each for each in self._parts if each is not None]
            if len(parts) < len(self._parts):
                return
        self._finish(
            Reply(
                self._number,
                Features(
                    np.concatenate([each.values for each in parts], axis=1),
                    max(each.waited_ns for each in parts),
                    max(each.computed_ns for each in parts),
                ),
                timed=self._timed,
            )
        )

    def refuse(self, refusal: str) -> None:
        self._finish(Reply(self._number, None, refusal))

    def lose(self, why: str) -> None:
        self._finish(ConnectionLostError(why))

    def _finish(self, one: Reply | ConnectionLostError) -> None:
        """Put down one result for the image, whatever more its students say."""
        with self._lock:
            finished, self._finished = self._finished, True
        if not finished:
            self._put(one)


def _receiver(
    partial: _PartialReply, members: Sequence[_Member], model: BundledModel, count: int
) -> Any:
    """Make the callback for the answer of one call, run in a thread of gRPC."""

    def receive(future: grpc.Future) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is not None:
            refused = error.code().name in _REFUSED
            (partial.refuse if refused else partial.lose)(rpc_error_text(error))
            return
        response = future.result()
        features = _features(response, model, count)
        if features is None:
            partial.refuse(f"{model.name} answers something else than the bundle says")
            return
        start = 0
        for member in members:
            values = features.values[:, start : start + member.width]
            part = features._replace(values=values)
            partial.add(member.place, part, timed="computed_ns" in response.parameters)
            start += member.width

    return receive


def infer_request(model: BundledModel, images: Values) -> Any:
    """Return the ModelInfer request for `(n, ...)` images."""
    request = message_class("ModelInferRequest")(model_name=model.name)
    shape = (len(images), *model.reads.shape)
    request.inputs.add(name=model.reads.name, datatype="FP32", shape=shape)
    request.outputs.add(name=model.answers.name)
    request.raw_input_contents.append(np.ascontiguousarray(images, dtype="<f4").tobytes())
    return request


def _features(response: Any, model: BundledModel, count: int) -> Features | None:
    """Features of a response; None if it does not match the request."""
    width = prod(model.answers.shape)
    if len(response.outputs) != 1 or response.outputs[0].datatype != "FP32":
        return None
    raw = response.raw_output_contents
    typed = response.outputs[0].contents.fp32_contents
    if (len(raw[0]) if raw else 4 * len(typed)) != 4 * count * width:
        return None
    values: Values = np.frombuffer(raw[0], "<f4") if raw else np.array(typed, np.float32)
    times = response.parameters
    return Features(
        values.reshape(count, width),
        times["waited_ns"].int64_param if "waited_ns" in times else 0,
        times["computed_ns"].int64_param if "computed_ns" in times else 0,
    )


def connect(task: BoardTask, identity: Identity | None) -> Connection:
    """Connect to a board whose students are ready; raises ConnectionLostError."""
    address = task.board.endpoint
    if task.board.protocol == "fastest" and not task.receivers and address.port < _LAST_PORT:
        # Where workers have frames: few boards need be asked for it, which costs them gRPC.
        with suppress(ConnectionLostError):
            context = None if identity is None else identity.client_context()
            return connect_frames(address.with_port(address.port + 1), task, context, _FIRST_S)
    if identity is not None and identity.revoked:
        # gRPC looks at no list of revoked certificates.
        fault = certificate_fault(address, task.name, identity, CONNECT_TIMEOUT_S)
        if fault:
            raise ConnectionLostError(fault)
    channel = GrpcChannel(address, task.name, identity)
    with ExitStack() as stack:
        stack.callback(channel.close)
        try:
            server = channel.call(
                "ServerMetadata", message_class("ServerMetadataRequest")(), _FIRST_CALL_S
            )
        except ConnectionLostError as error:
            # gRPC says that a handshake failed, not which certificate it was and why.
            fault = ""
            if identity is not None and grpc.StatusCode.UNAVAILABLE.name in str(error):
                fault = certificate_fault(address, task.name, identity, CONNECT_TIMEOUT_S)
            raise ConnectionLostError(fault or str(error)) from None
        port, fallback = advertised_port(server.extensions), ""
        if port is not None and task.board.protocol == "fastest":
            context = None if identity is None else identity.client_context()
            ports = {each.name: _frames_port(each, identity) for each in task.receivers}
            try:
                return connect_frames(
                    address.with_port(port), task, context, CONNECT_TIMEOUT_S, ports
                )
            except FramesUnreachableError as error:
                if task.session:
                    raise
                fallback = str(error)
        if task.session:
            raise ConnectionLostError(f"{address}: maps of G0 go by frames, which are not there")
        connection = GrpcConnection(channel, task, _ready_models(channel, task), fallback)
        # What is open stays open.
        stack.pop_all()
    return connection


def _ready_models(channel: GrpcChannel, task: BoardTask) -> tuple[BundledModel, ...]:
    """Joint models that a server has; all other students must be ready there.

    Raises ConnectionLostError.
    """
    joint = tuple(model for model in task.joint if _serves(channel, model.name))
    joined = {name for model in joint for name in model.members}
    for name in task.students:
        if name not in joined and not _is_ready(channel, name):
            raise ConnectionLostError(f"{task.name} has no {name}, or is not ready yet")
    return joint


def _frames_port(board: BoardAddress, identity: Identity | None) -> int:
    """Port of a board's frames; that after the standard one's, where it does not say."""
    channel = GrpcChannel(board.endpoint, board.name, identity)
    try:
        server = channel.call("ServerMetadata", message_class("ServerMetadataRequest")(), _ASKED_S)
        found = advertised_port(server.extensions)
    except ConnectionLostError:
        found = None
    finally:
        channel.close()
    return found or board.endpoint.port + 1


def _serves(channel: GrpcChannel, model: str) -> bool:
    """Whether a server has a model that it need not have.

    Some call an unknown one an error.
    """
    try:
        return _is_ready(channel, model)
    except ConnectionLostError:
        return False


def _is_ready(channel: GrpcChannel, model: str) -> bool:
    request = message_class("ModelReadyRequest")(name=model)
    return bool(channel.call("ModelReady", request, CONNECT_TIMEOUT_S).ready)
