"""Where a worker is reached, and what keeps it from taking or answering something for a while."""

import errno
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from made_bundle import make_bundle
from worker_processes import asking, keys_for

from boards.protocol import frames
from boards.protocol.address import Address
from boards.protocol.frames import HEADER, RefusalReason, RequestRefused
from boards.tls.credential import Identity
from boards.worker.frame_server import FrameServer
from boards.worker.model_runtime import load_models
from boards.worker.server import Worker, WorkerSettings
from boards.worker.student_pool import NullObserver, StudentPool
from nonn_common.errors import BoardError

IMAGE = (1, 8, 8)
PIXELS = np.zeros((1, *IMAGE), np.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("listening")
    manifest = make_bundle(folder / "bundle", image=IMAGE)
    return folder / "bundle", manifest, keys_for(folder / "keys", "pi")


@contextmanager
def served(made, host):
    """Serve student 0; yield it as it is reached at an address."""
    bundle, _, keys = made
    (model,) = load_models(bundle, ["student-0"])
    running = Worker([model], WorkerSettings(Address(host, 0), Identity.read(keys / "pi")))
    running.start()
    try:
        yield lambda near: SimpleNamespace(
            name="pi", students=["student-0"], address=Address(near, running.address.port)
        )
    finally:
        running.drain()


def has_ip6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ip6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("everywhere", ["0.0.0.0", "::"])  # noqa: S104
def test_all_addresses_are_those_of_both_families(made, everywhere):
    bundle, manifest, keys = made
    with served(made, everywhere) as reached:
        for near in ("127.0.0.1", "::1"):
            with asking(bundle, manifest, keys, [reached(near)]) as client:
                assert client.protocols == {"pi": "frames"}
                assert not client.ask(PIXELS).missing


def test_where_frames_cannot_be_reached_the_standard_protocol_serves(made, monkeypatch):
    bundle, manifest, keys = made
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = closed.getsockname()[1]
    monkeypatch.setattr(FrameServer, "port", nobody)
    with (
        served(made, "127.0.0.1") as reached,
        asking(bundle, manifest, keys, [reached("127.0.0.1")]) as client,
    ):
        assert client.protocols == {"pi": "standard"}
        assert not client.ask(PIXELS).missing


def test_a_proxy_of_the_environment_is_not_for_boards(made, monkeypatch):
    bundle, manifest, keys = made
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with (
        served(made, "127.0.0.1") as reached,
        asking(bundle, manifest, keys, [reached("127.0.0.1")]) as client,
    ):
        assert not client.ask(PIXELS).missing


class Listener:
    """A listening socket of which some accepts fail, as where no descriptor is left."""

    def __init__(self, failures):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._failures = failures
        self.getsockname, self.shutdown = self._listener.getsockname, self._listener.shutdown
        self.close = self._listener.close

    def accept(self):
        accepted = self._listener.accept()
        if self._failures:
            accepted[0].close()
            raise self._failures.pop()
        return accepted


@pytest.fixture
def plain_frames(made):
    """Serve plain frames on a listener."""
    running = []

    def served(listener):
        server = FrameServer(
            listener,
            None,
            StudentPool(load_models(made[0], ["student-0"])),
            1 << 20,
            NullObserver(),
        )
        server.start()
        running.append(server)
        return server

    yield served
    for server in running:
        server.stop()


def welcomed(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        try:
            connection.sendall(frames.hello_frame(["student-0"]).encoded())
            return connection.recv(HEADER.size)[:4] == b"NoNN"
        except ConnectionError:
            return False


def test_a_connection_that_cannot_be_taken_is_not_the_end_of_all(plain_frames, monkeypatch):
    server = plain_frames(Listener([OSError(errno.EMFILE, "too many open files")] * 2))
    assert [welcomed(server) for _ in range(4)] == [False, False, True, True]
    start = threading.Thread.start

    def no_more(self):
        if self.name == "connection":
            monkeypatch.setattr(threading.Thread, "start", start)
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", no_more)
    assert not welcomed(server)
    assert welcomed(server)


@dataclass
class Failing:
    """A model whose engine fails."""

    name: str
    reads: object
    answers: object
    error: Exception

    def answer(self, _):
        raise self.error


@pytest.mark.parametrize("error", [BoardError("ncnn failed: -100"), RuntimeError("bad node")])
def test_an_engine_that_fails_is_a_refusal_with_its_words(made, error):
    (model,) = load_models(made[0], ["student-0"])
    students = StudentPool([Failing(model.name, model.reads, model.answers, error)])
    with pytest.raises(RequestRefused, match=str(error)) as refused:
        students.answer([model.name], PIXELS)
    assert refused.value.reason == RefusalReason.INTERNAL
    assert students.inside == 0
