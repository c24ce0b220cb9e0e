"""Messages of the Open Inference Protocol (KServe V2, gRPC), in their own pool.

Stubs that protoc generates live in protobuf's default pool, where a program may hold a name once:
with tritonclient in the same process they clash.  Here the protocol's fields are listed as the
specification numbers them (kserve/open-inference-protocol, `inference.GRPCInferenceService`) and
built when the module is loaded.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

OPTIONAL, REPEATED = FieldDescriptorProto.LABEL_OPTIONAL, FieldDescriptorProto.LABEL_REPEATED
PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

_FIELDS = """
ServerLiveRequest
ServerLiveResponse: bool live=1
ServerReadyRequest
ServerReadyResponse: bool ready=1
ModelReadyRequest: string name=1, string version=2
ModelReadyResponse: bool ready=1
ServerMetadataRequest
ServerMetadataResponse: string name=1, string version=2, repeated string extensions=3
ModelMetadataRequest: string name=1, string version=2
ModelMetadataResponse: string name=1, repeated string versions=2, string platform=3,
    repeated .TensorMetadata inputs=4, repeated .TensorMetadata outputs=5
ModelMetadataResponse.TensorMetadata: string name=1, string datatype=2, repeated int64 shape=3
InferParameter: bool bool_param=1, int64 int64_param=2, string string_param=3,
    double double_param=4, uint64 uint64_param=5
InferTensorContents: repeated bool bool_contents=1, repeated int32 int_contents=2,
    repeated int64 int64_contents=3, repeated uint32 uint_contents=4,
    repeated uint64 uint64_contents=5, repeated float fp32_contents=6,
    repeated double fp64_contents=7, repeated bytes bytes_contents=8
ModelInferRequest: string model_name=1, string model_version=2, string id=3,
    map InferParameter parameters=4, repeated .InferInputTensor inputs=5,
    repeated .InferRequestedOutputTensor outputs=6, repeated bytes raw_input_contents=7
ModelInferRequest.InferInputTensor: string name=1, string datatype=2, repeated int64 shape=3,
    map InferParameter parameters=4, InferTensorContents contents=5
ModelInferRequest.InferRequestedOutputTensor: string name=1, map InferParameter parameters=2
ModelInferResponse: string model_name=1, string model_version=2, string id=3,
    map InferParameter parameters=4, repeated .InferOutputTensor outputs=5,
    repeated bytes raw_output_contents=6
ModelInferResponse.InferOutputTensor: string name=1, string datatype=2, repeated int64 shape=3,
    map InferParameter parameters=4, InferTensorContents contents=5
"""
"""`Message: fields`; a type with a dot before it is nested in the message, `map T` is of string to
T, and the fields of InferParameter are one of each other."""

_ONE_OF = {"InferParameter": "parameter_choice"}

METHODS = (
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "ModelInfer",
)
"""Each has a request and a response of its name."""


def _schema() -> FileDescriptorProto:
    """Return the protocol's file descriptor."""
    file = FileDescriptorProto(
        name="nonn/open_inference_protocol.proto", package=PACKAGE, syntax="proto3"
    )
    made: dict[str, DescriptorProto] = {}
    for name, fields in _messages():
        outer, _, inner = name.rpartition(".")
        message = made[outer].nested_type.add() if outer else file.message_type.add()
        message.name = inner
        made[name] = message
        if name in _ONE_OF:
            message.oneof_decl.add(name=_ONE_OF[name])
        for field in fields:
            _add(message, name, field)
    return file


def _messages() -> Iterator[tuple[str, list[str]]]:
    """Yield each message's name and its fields."""
    for line in _FIELDS.replace(",\n", ",").strip().splitlines():
        name, _, fields = line.partition(":")
        yield name, [field.strip() for field in fields.split(",") if field.strip()]


def _add(message: DescriptorProto, name: str, text: str) -> None:
    """Add one field, such as `repeated int64 shape=3`."""
    *words, last = text.split()
    label, number = last.split("=")
    field = message.field.add(name=label, number=int(number))
    many = words[0] in ("repeated", "map")
    field.label = (
        FieldDescriptorProto.LABEL_REPEATED if many else FieldDescriptorProto.LABEL_OPTIONAL
    )
    if words[0] == "map":
        _type(field, name, f".{_map_entry(message, label, words[1])}")
    else:
        _type(field, name, words[-1])
    if name in _ONE_OF:
        field.oneof_index = 0


def _map_entry(message: DescriptorProto, label: str, kind: str) -> str:
    """Add the message that stands for one entry of a map; return its name."""
    entry = message.nested_type.add(name=f"{label.capitalize()}Entry")
    entry.options.map_entry = True
    for number, (key, of) in enumerate((("key", "string"), ("value", kind)), start=1):
        field = entry.field.add(name=key, number=number)
        field.label = OPTIONAL
        _type(field, "", of)
    return str(entry.name)


def _type(field: FieldDescriptorProto, outer: str, kind: str) -> None:
    """Set a field's type: scalar, message, or (with a dot) one nested in `outer`."""
    if kind[0] == ".":
        field.type_name = f".{PACKAGE}.{outer}{kind}"
    elif kind[0].isupper():
        field.type_name = f".{PACKAGE}.{kind}"
    else:
        field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
        return
    field.type = FieldDescriptorProto.TYPE_MESSAGE


_POOL = DescriptorPool()
_POOL.Add(_schema())


@cache
def message_class(name: str) -> Any:
    """Return the class of a message, such as ModelInferRequest."""
    return GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))
