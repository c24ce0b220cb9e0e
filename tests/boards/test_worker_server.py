"""The standard protocol of a real worker process, asked by Triton's own client."""

import grpc
import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc
from made_bundle import make_bundle
from tritonclient.utils import InferenceServerException
from worker_processes import keys_for, running

IMAGE = (3, 8, 8)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("standard")
    make_bundle(folder / "bundle", filters=(5, 3), image=IMAGE)
    keys = keys_for(folder / "keys", "pi")
    students = {"pi": ["student-0", "student-1"]}
    with running(folder / "bundle", keys, students, "--largest-message", "100KB") as workers:
        yield folder, workers["pi"]


@pytest.fixture(scope="module")
def client(place):
    folder, worker = place
    host = folder / "keys" / "host"
    with triton.InferenceServerClient(
        str(worker.address),
        ssl=True,
        root_certificates=str(host / "authority.pem"),
        private_key=str(host / "key.pem"),
        certificate_chain=str(host / "certificate.pem"),
    ) as found:
        yield found


def asked(client, images, model="student-0", name="images", datatype="FP32", shape=None, **more):
    tensor = triton.InferInput(name, shape or images.shape, datatype)
    tensor.set_data_from_numpy(images)
    return client.infer(model, [tensor], **more)


def test_a_client_of_triton_reads_what_there_is(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("student-0")
    assert not client.is_model_ready("student-7")
    assert client.get_server_metadata().name == "nonn-plan"
    found = client.get_model_metadata("student-1")
    assert (found.name, list(found.versions), found.platform) == (
        "student-1",
        ["1"],
        "onnxruntime_onnx",
    )
    (reads,), (answers,) = found.inputs, found.outputs
    assert (reads.name, reads.datatype, list(reads.shape)) == ("images", "FP32", [-1, *IMAGE])
    assert (answers.name, answers.datatype, list(answers.shape)) == ("features", "FP32", [-1, 3])


@pytest.mark.parametrize("model", ["student-0", "student-1"])
@pytest.mark.parametrize("count", [1, 7])
def test_a_client_of_triton_gets_what_onnxruntime_computes(place, client, model, count):
    folder, _ = place
    images = np.random.default_rng(count).uniform(0, 255, (count, *IMAGE)).astype(np.float32)
    session = onnxruntime.InferenceSession(
        folder / "bundle" / f"{model}.fp32.onnx", providers=["CPUExecutionProvider"]
    )
    (expected,) = session.run(None, {"images": images})
    answer = asked(client, images, model, request_id="41")
    assert np.array_equal(answer.as_numpy("features"), expected)
    response = answer.get_response()
    assert response.id == "41"
    assert response.parameters["computed_ns"].int64_param > 0
    assert response.parameters["waited_ns"].int64_param >= 0


def test_typed_contents_are_answered_by_typed_contents(place):
    folder, worker = place
    images = np.full((1, *IMAGE), 128, np.float32)
    request = triton.service_pb2.ModelInferRequest(model_name="student-0")
    tensor = request.inputs.add(name="images", datatype="FP32", shape=images.shape)
    tensor.contents.fp32_contents.extend(images.ravel().tolist())
    with channel(folder / "keys" / "host", worker) as opened:
        stub = triton.service_pb2_grpc.GRPCInferenceServiceStub(opened)
        typed = stub.ModelInfer(request).outputs[0].contents.fp32_contents
        del request.inputs[0].contents.fp32_contents[:]
        request.raw_input_contents.append(images.tobytes())
        raw = stub.ModelInfer(request).raw_output_contents[0]
    assert np.array_equal(np.frombuffer(raw, np.float32), np.array(typed, np.float32))


@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        ({"model": "student-7"}, "NOT_FOUND", "no model 'student-7' here; here are: student-0"),
        ({"model_version": "2"}, "NOT_FOUND", "no version '2'"),
        ({"name": "pixels"}, "INVALID_ARGUMENT", "inputs ['pixels']"),
        ({"images": np.zeros((1, 3, 8, 9), np.float32)}, "INVALID_ARGUMENT", "shape (1, 3, 8, 9)"),
        ({"images": np.zeros((0, 3, 8, 8), np.float32)}, "INVALID_ARGUMENT", "shape (0, 3, 8, 8)"),
        (
            {"images": np.zeros((1, 3, 8, 8), np.float64), "datatype": "FP64"},
            "INVALID_ARGUMENT",
            "datatype 'FP64'; allowed: FP32",
        ),
        (
            {"images": np.full((1, 3, 8, 8), np.nan, np.float32)},
            "INVALID_ARGUMENT",
            "no finite number",
        ),
        (
            {"outputs": [triton.InferRequestedOutput("logits")]},
            "INVALID_ARGUMENT",
            "outputs ['logits']; allowed: 'features'",
        ),
        ({"images": np.zeros((200, 3, 8, 8), np.float32)}, "RESOURCE_EXHAUSTED", "larger than max"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_wrong_request_gets_a_status_and_the_worker_lives(client, change, status, text):
    with pytest.raises(InferenceServerException) as caught:
        asked(client, **{"images": np.zeros((1, *IMAGE), np.float32), **change})
    assert caught.value.status() == f"StatusCode.{status}"
    assert text in caught.value.message()
    assert client.is_server_ready()


@pytest.mark.parametrize("raw", [b"123", b"1234"], ids=["no floats", "too few"])
def test_contents_of_another_length_get_a_status(place, raw):
    folder, worker = place
    request = triton.service_pb2.ModelInferRequest(model_name="student-0")
    request.raw_input_contents.append(raw)
    request.inputs.add(name="images", datatype="FP32", shape=(1, *IMAGE))
    with (
        channel(folder / "keys" / "host", worker) as opened,
        pytest.raises(grpc.RpcError) as caught,
    ):
        triton.service_pb2_grpc.GRPCInferenceServiceStub(opened).ModelInfer(request)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_bytes_that_are_no_message_get_a_status(place):
    folder, worker = place
    with (
        channel(folder / "keys" / "host", worker) as opened,
        pytest.raises(grpc.RpcError) as caught,
    ):
        opened.unary_unary("/inference.GRPCInferenceService/ModelInfer")(b"\xff\xff\xff")
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "not a ModelInferRequest" in caught.value.details()


def test_health_is_told_as_grpc_tells_it(place):
    folder, worker = place
    with channel(folder / "keys" / "host", worker) as opened:
        stub = health_pb2_grpc.HealthStub(opened)
        for service in ("", "inference.GRPCInferenceService"):
            found = stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert found.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("keys", ["none", "another authority", "a board's"])
def test_who_is_not_a_host_of_this_authority_is_refused(place, tmp_path, keys):
    folder, worker = place
    if keys == "none":
        authority = (folder / "keys" / "host" / "authority.pem").read_bytes()
        opened = grpc.secure_channel(
            str(worker.address), grpc.ssl_channel_credentials(root_certificates=authority)
        )
    elif keys == "another authority":
        other = keys_for(tmp_path / "other") / "host"
        (other / "authority.pem").write_bytes(
            (folder / "keys" / "host" / "authority.pem").read_bytes()
        )
        opened = channel(other, worker)
    else:
        opened = channel(folder / "keys" / "pi", worker)
    with opened, pytest.raises(grpc.RpcError) as caught:
        triton.service_pb2_grpc.GRPCInferenceServiceStub(opened).ServerLive(
            triton.service_pb2.ServerLiveRequest(), timeout=20
        )
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def channel(identity, worker):
    """Open a channel with the keys of a folder."""
    credentials = grpc.ssl_channel_credentials(
        *(
            (identity / name).read_bytes()
            for name in ("authority.pem", "key.pem", "certificate.pem")
        )
    )
    # What another channel of this process found out about the worker must not count here.
    options = (("grpc.use_local_subchannel_pool", 1),)
    return grpc.secure_channel(str(worker.address), credentials, options)
