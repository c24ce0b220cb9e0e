"""Our messages against the stubs of another program that speaks the protocol, in one process."""

import pytest
from tritonclient.grpc import service_pb2

from boards.protocol.open_inference import METHODS, message_class

NAMES = [f"{method}{end}" for method in METHODS for end in ("Request", "Response")]


def layout(descriptor):
    """Return a message's fields, and those of the messages nested in it."""
    return (
        {(f.name, f.number, f.type, f.label) for f in descriptor.fields},
        {one.name: {field.name for field in one.fields} for one in descriptor.oneofs},
        {nested.name: layout(nested) for nested in descriptor.nested_types},
    )


@pytest.mark.parametrize("name", [*NAMES, "InferParameter", "InferTensorContents"])
def test_a_message_has_the_fields_that_tritonclient_knows(name):
    theirs = service_pb2.DESCRIPTOR.message_types_by_name[name]
    assert layout(message_class(name).DESCRIPTOR) == layout(theirs)


def test_what_is_written_here_is_read_there():
    ours = message_class("ModelInferRequest")(model_name="student-0", id="7")
    ours.parameters["deadline"].int64_param = 5
    ours.inputs.add(name="images", datatype="FP32", shape=(1, 2)).contents.fp32_contents.extend(
        (1.5, -2.0)
    )
    ours.raw_input_contents.append(b"\0\1")
    theirs = service_pb2.ModelInferRequest.FromString(ours.SerializeToString())
    assert theirs.model_name == "student-0"
    assert theirs.parameters["deadline"].int64_param == 5
    assert list(theirs.inputs[0].contents.fp32_contents) == [1.5, -2.0]
    back = message_class("ModelInferRequest").FromString(theirs.SerializeToString())
    assert back == ours
