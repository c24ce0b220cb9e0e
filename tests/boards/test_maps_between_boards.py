"""G0 on a board of its own: real workers, of which one sends its maps on to the others."""

import signal
import socket
import ssl
import time
from contextlib import contextmanager, suppress
from functools import partial

import numpy as np
import onnxruntime
import pytest
from made_bundle import make_bundle
from safetensors.numpy import load_file
from worker_processes import keys_for, running

from boards.host.client import InferenceClient, QuorumPolicy
from boards.host.connection import BoardTask, ConnectionLostError, Reconnector
from boards.host.grpc_connection import GrpcChannel, connect
from boards.host.inference import FeatureClassifier
from boards.protocol import frames
from boards.protocol.address import Address, BoardAddress
from boards.protocol.frames import Expectation, FrameKind
from boards.protocol.open_inference import message_class
from boards.tls.credential import parse_certificate, sending_board
from boards.tls.identity import Identity
from boards.worker import frame_server
from boards.worker.map_exchange import MapSender
from boards.worker.model_runtime import load_models
from boards.worker.student_pool import NullObserver, StudentPool
from nonn_common.errors import InputError

IMAGE = (2, 8, 8)
PLACEMENT = {
    "g": ["group0"],
    "pi-1": ["student-0", "student-2"],
    "pi-2": ["student-1"],
}
HEADS = ("pi-1", "pi-2")
SESSION = "0123456789abcdef" * 2


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    manifest = make_bundle(folder / "bundle", filters=(5, 3, 4), image=IMAGE, alone=True)
    return folder / "bundle", manifest, keys_for(folder / "keys", *PLACEMENT, sender="g")


@pytest.fixture
def workers(made):
    bundle, _, keys = made
    with running(bundle, keys, PLACEMENT) as found:
        yield found


def pictures(count, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (count, *IMAGE)).astype(np.float32)


def run(bundle, name, values):
    path = bundle / f"{name}.fp32.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": values})[0]


def expected(bundle, images, without=()):
    """Logits by onnxruntime alone: G0, then each head, then the FC layer."""
    maps = run(bundle, "group0", images)
    names = ("student-0", "student-1", "student-2")
    vectors = [run(bundle, name, maps) * (name not in without) for name in names]
    layer = load_file(bundle / "fc.safetensors")
    return np.concatenate(vectors, axis=1) @ layer["weight"].T + layer["bias"]


def tasks_of(workers, manifest):
    models = {model.name: model for model in manifest.models}
    places = {
        name: BoardAddress(name=name, address=str(each.address)) for name, each in workers.items()
    }
    receivers = tuple(places[name] for name in HEADS)
    first = BoardTask(places["g"], (models["group0"],), receivers=receivers, session=SESSION)
    heads = [
        BoardTask(
            places[name],
            tuple(models[student] for student in PLACEMENT[name]),
            sender="g",
            session=SESSION,
        )
        for name in HEADS
    ]
    return [first, *heads]


@contextmanager
def asking(made, workers, policy=None):
    bundle, manifest, keys = made
    client = InferenceClient(
        tasks_of(workers, manifest),
        FeatureClassifier(bundle, manifest),
        Reconnector(partial(connect, identity=Identity.read(keys / "host"))),
        policy or QuorumPolicy(),
    )
    try:
        assert client.wait_connected(60), client.down
        yield client
    finally:
        client.close()


def until_whole(client, seconds=30):
    end = time.monotonic() + seconds
    while (answer := client.ask(pictures(1))).missing:
        assert time.monotonic() < end, answer.missing
        time.sleep(0.05)
    return answer


def test_the_host_sends_to_one_board_and_all_others_answer_it(made, workers):
    bundle, _, _ = made
    with asking(made, workers, QuorumPolicy(in_flight=4)) as client:
        until_whole(client)
        images = [pictures(1, seed) for seed in range(20)] + [pictures(3)]
        for image, answer in zip(images, client.stream(images), strict=True):
            assert not answer.missing
            assert answer.logits == pytest.approx(expected(bundle, image), rel=1e-5, abs=1e-5)
            times = {timing.board: timing for timing in answer.timings}
            assert set(HEADS) <= times.keys() <= set(PLACEMENT)
            assert all(each.computed_ms > 0 for each in times.values())


def frame_from(connection, assembler):
    while (frame := assembler.frame()) is None:
        chunk = connection.recv(4096)
        assert chunk
        assembler.add(chunk)
    return frame


def test_a_connection_of_maps_waits_for_the_first_image(made, monkeypatch):
    """A worker closes a connection on which nothing comes for a while, but not this one."""
    bundle, _, _ = made
    monkeypatch.setattr(frame_server, "TIMEOUT_S", 0.2)
    listener = socket.create_server(("127.0.0.1", 0))
    pool = StudentPool(load_models(bundle, ["student-1"]))
    server = frame_server.FrameServer(listener, None, pool, 1 << 20, NullObserver())
    server.start()
    sender = MapSender("pi-2", Address("127.0.0.1", server.port), None)
    maps = np.random.default_rng(0).normal(size=(2, 4, 8, 8)).astype(np.float32)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as host:
        assembler = frames.FrameAssembler(1 << 20)
        host.sendall(frames.expect_frame(Expectation(SESSION, "g", ["student-1"])).encoded())
        assert frames.parse_welcome(frame_from(host, assembler)) == (4 * 8 * 8, 3)
        sender.wait_tried(time.monotonic() + 10)
        time.sleep(0.8)
        assert len(server._connections) == 2
        assert sender.send(frames.maps_frame(7, SESSION, maps).encoded()) == ""
        answer = frame_from(host, assembler)
    assert (answer.kind, answer.number) == (FrameKind.FEATURES, 7)
    features = frames.parse_features(answer, 3).values
    assert features == pytest.approx(run(bundle, "student-1", maps), rel=1e-5, abs=1e-6)
    sender.close()
    server.stop()


def test_a_head_that_is_down_is_a_missing_student_and_comes_back(made, workers):
    bundle, _, _ = made
    with asking(made, workers) as client:
        until_whole(client)
        workers["pi-2"].kill()
        image = pictures(1)
        for _ in range(3):
            answer = client.ask(image)
            assert set(answer.missing) == {"student-1"}
            assert answer.missing["student-1"].startswith("pi-2: ")
        assert answer.logits == pytest.approx(expected(bundle, image, {"student-1"}), abs=1e-5)
        workers["pi-2"].start()
        until_whole(client)


def test_without_the_board_of_g0_an_image_is_lost_and_the_board_named(made, workers):
    with asking(made, workers, QuorumPolicy(deadline_ms=1500)) as client:
        until_whole(client)
        workers["g"].kill()
        answer = client.ask(pictures(1))
        assert set(answer.missing) == {"student-0", "student-1", "student-2"}
        assert all(why.startswith("g, which computes G0: ") for why in answer.missing.values())
        workers["g"].start()
        until_whole(client)


def test_a_board_of_g0_that_says_nothing_is_named_at_the_deadline(made, workers):
    with asking(made, workers, QuorumPolicy(deadline_ms=500)) as client:
        until_whole(client)
        workers["g"].send(signal.SIGSTOP)
        reasons = set(client.ask(pictures(1)).missing.values())
        assert reasons == {"g, which computes G0: not within 500 ms"}
        workers["g"].send(signal.SIGCONT)
        until_whole(client)


def board_socket(keys, board, worker):
    """Frames of a worker, called with the keys of a board."""
    identity = Identity.read(keys / board)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=identity.authority.decode())
    context.load_cert_chain(keys / board / "certificate.pem", keys / board / "key.pem")
    plain = socket.create_connection((worker.address.host, worker.address.port + 1), timeout=10)
    return context.wrap_socket(plain, server_hostname=worker.name)


def said(connection):
    """All that a worker says until it closes."""
    content = b""
    try:
        while chunk := connection.recv(4096):
            content += chunk
    except (ssl.SSLError, ConnectionError):
        pass
    return content


@pytest.mark.parametrize(
    "frame",
    [
        frames.hello_frame(["student-1"]),
        frames.expect_frame(Expectation(SESSION, "g", ["student-1"])),
        frames.Frame(FrameKind.ROUTE, 0, b"{}"),
    ],
)
def test_the_sender_commands_nobody(made, workers, frame):
    _, _, keys = made
    assert sending_board_of(keys / "g") == "g"
    assert sending_board_of(keys / "pi-1") == sending_board_of(keys / "host") == ""
    with board_socket(keys, "g", workers["pi-2"]) as connection:
        connection.sendall(frame.encoded())
        assert said(connection) == b""
    channel = GrpcChannel(workers["pi-2"].address, "pi-2", Identity.read(keys / "g"))
    try:
        with pytest.raises(ConnectionLostError, match="PERMISSION_DENIED"):
            channel.call("ServerMetadata", message_class("ServerMetadataRequest")(), 10)
    finally:
        channel.close()
    with pytest.raises(InputError, match="is not the certificate of a host"):
        Identity.read(keys / "g").client_context()


def sending_board_of(folder):
    path = folder / "certificate.pem"
    return sending_board(parse_certificate(path.read_bytes(), path))


def test_maps_of_a_stranger_or_of_no_session_are_dropped(made, workers):
    """A head answers its host as before, whatever else it is sent."""
    _, _, keys = made
    maps = np.zeros((1, 4, 8, 8), np.float32)
    with asking(made, workers) as client:
        until_whole(client)
        with board_socket(keys, "pi-1", workers["pi-2"]) as connection:
            with suppress(ssl.SSLError, ConnectionError):
                connection.sendall(frames.opening_maps_frame().encoded())
                connection.sendall(frames.maps_frame(1, SESSION, maps).encoded())
            assert said(connection) == b""
        with board_socket(keys, "g", workers["pi-2"]) as connection:
            connection.sendall(frames.opening_maps_frame().encoded())
            connection.sendall(frames.maps_frame(1, "0" * 32, maps).encoded())
            until_whole(client)


def test_a_board_whose_keys_let_it_send_nothing_says_so(made, tmp_path):
    bundle, manifest, _ = made
    keys = keys_for(tmp_path / "keys", *PLACEMENT)
    with running(bundle, keys, PLACEMENT) as workers:
        task, *_ = tasks_of(workers, manifest)
        with pytest.raises(ConnectionLostError, match="does not let it send maps of G0"):
            connect(task, Identity.read(keys / "host"))


@pytest.mark.parametrize(
    ("parse", "frame"),
    [
        (frames.parse_route, frames.Frame(FrameKind.ROUTE, 0, b"{}")),
        (frames.parse_route, frames.Frame(FrameKind.ROUTE, 0, b"\xff")),
        (
            frames.parse_route,
            frames.Frame(
                FrameKind.ROUTE,
                0,
                b'{"session": "%s", "group0": "g", "receivers": [1]}' % SESSION.encode(),
            ),
        ),
        (
            frames.parse_expectation,
            frames.Frame(
                FrameKind.EXPECT,
                0,
                b'{"session": "0", "sender": "g", "students": ["a"]}',
            ),
        ),
        (
            frames.parse_expectation,
            frames.Frame(
                FrameKind.EXPECT,
                0,
                b'{"session": "%s", "sender": "g", "students": "a"}' % SESSION.encode(),
            ),
        ),
        (frames.maps_session, frames.Frame(FrameKind.MAPS, 0, b"short")),
        (frames.parse_sent, frames.Frame(FrameKind.SENT, 0, b"\0" * 20 + b"[]")),
    ],
)
def test_what_is_no_frame_of_an_exchange_is_refused(parse, frame):
    with pytest.raises(frames.MalformedFrameError):
        parse(frame)
