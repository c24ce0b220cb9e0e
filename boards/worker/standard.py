"""The standard protocol of a worker: Open Inference Protocol (KServe V2) over gRPC.

Tensors come and go as raw little-endian bytes; a client that sends typed contents gets typed
contents back.  The answer's parameters `waited_ns` and `computed_ns` say how long the request stood
in the queue and how long it was computed.
"""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from math import prod
from typing import Any

import grpc
import numpy as np

from boards.protocol.frames import Features, Values, extension
from boards.protocol.messages import METHODS, SERVICE, message
from boards.protocol.refusal import Reason, RequestRefused
from boards.runtime.model import LoadedModel
from boards.worker.counts import Counts
from boards.worker.students import Students

DATATYPE = "FP32"
MODEL_VERSION = "1"
PLATFORMS = {"onnxruntime": "onnxruntime_onnx", "ncnn": "ncnn"}


class StandardService:
    """The protocol's six methods, for the students of one worker."""

    def __init__(self, students: Students, frames_port: int | None, counts: Counts) -> None:
        self._students = students
        self._extensions = () if frames_port is None else (extension(frames_port),)
        self._counts = counts

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a gRPC server serves."""
        answers: dict[str, Callable[[Any], Any]] = {
            "ServerLive": lambda _: message("ServerLiveResponse")(live=True),
            "ServerReady": lambda _: message("ServerReadyResponse")(ready=self._students.ready),
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
        }
        return grpc.method_handlers_generic_handler(
            SERVICE, {method: self._method(method, answers[method]) for method in METHODS}
        )

    def _method(self, name: str, answer: Callable[[Any], Any]) -> grpc.RpcMethodHandler:
        """Serve one method: what refuses a request becomes its status."""

        def respond(content: bytes, context: grpc.ServicerContext) -> bytes:
            try:
                response: bytes = answer(_parsed(f"{name}Request", content)).SerializeToString()
            except RequestRefused as error:
                self._counts.count("standard", error.reason.name)
                context.abort(_status(error.reason), str(error))
                raise
            if name == "ModelInfer":
                self._counts.count("standard", "OK")
            return response

        return grpc.unary_unary_rpc_method_handler(respond)

    def _model_ready(self, request: Any) -> Any:
        known = request.name in self._students.names and request.version in ("", MODEL_VERSION)
        return message("ModelReadyResponse")(ready=known and self._students.ready)

    def _server_metadata(self, request: Any) -> Any:
        del request
        return message("ServerMetadataResponse")(
            name="nonn-plan", version=version("nonn-plan"), extensions=self._extensions
        )

    def _model_metadata(self, request: Any) -> Any:
        model = self._model(request.name, request.version)
        tensor = message("ModelMetadataResponse.TensorMetadata")
        inputs, outputs = (
            [tensor(name=port.name, datatype=DATATYPE, shape=(-1, *port.shape))]
            for port in (model.reads, model.answers)
        )
        return message("ModelMetadataResponse")(
            name=model.name,
            versions=[MODEL_VERSION],
            platform=PLATFORMS[model.engine],
            inputs=inputs,
            outputs=outputs,
        )

    def _infer(self, request: Any) -> Any:
        model = self._model(request.model_name, request.model_version)
        images = _images(request, model)
        _check_outputs(request, model)
        return _response(request, model, self._students.answer([model.name], images))

    def _model(self, name: str, asked: str) -> LoadedModel:
        if asked not in ("", MODEL_VERSION):
            raise RequestRefused(
                Reason.NOT_FOUND, f"no version {asked!r} of a model; allowed: {MODEL_VERSION}"
            )
        return self._students.model(name)


def _parsed(name: str, content: bytes) -> Any:
    from google.protobuf.message import DecodeError

    try:
        return message(name).FromString(content)
    except DecodeError:
        raise RequestRefused(Reason.INVALID_ARGUMENT, f"not a {name}") from None


def _status(reason: Reason) -> grpc.StatusCode:
    return grpc.StatusCode[reason.name]


def _images(request: Any, model: LoadedModel) -> Values:
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
    values = _values(request, tensor)
    if len(values) != prod(shape):
        raise _invalid(f"{len(values)} values for shape {shape}")
    return values.reshape(shape)


def _values(request: Any, tensor: Any) -> Values:
    """Return a tensor's values, which come as raw bytes or as a list of floats."""
    raw: Sequence[bytes] = request.raw_input_contents
    if not raw:
        return np.array(tensor.contents.fp32_contents, dtype=np.float32)
    if len(raw) != 1 or len(raw[0]) % 4:
        raise _invalid("raw contents that are not the bytes of one float32 tensor")
    return np.frombuffer(raw[0], dtype="<f4")


def _check_outputs(request: Any, model: LoadedModel) -> None:
    unknown = [each.name for each in request.outputs if each.name != model.answers.name]
    if unknown:
        raise _invalid(f"outputs {unknown}; allowed: {model.answers.name!r}")


def _response(request: Any, model: LoadedModel, answer: Features) -> Any:
    response = message("ModelInferResponse")(
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
    return RequestRefused(Reason.INVALID_ARGUMENT, message_text)
