"""Addresses of a worker, and the faults that keep it from taking or answering for a while."""

import errno
import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from made_bundle import make_bundle
from worker_processes import asking, keys_for

from boards.protocol import frames
from boards.protocol.address import Address, BoardAddress
from boards.protocol.frames import HEADER, RefusalReason, RequestRefused
from boards.tls.identity import Identity
from boards.worker import standard_port as standard_port_module
from boards.worker.frame_server import FrameServer
from boards.worker.model_runtime import load_models
from boards.worker.server import Worker, WorkerSettings
from boards.worker.student_pool import NullObserver, StudentPool
from nonn_common.errors import BoardError, InputError

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
    monkeypatch.setattr(FrameServer, "start", lambda self: self._listener.close())
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
    students: tuple = ()

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


LINK_LOCAL = """
import sys
from types import SimpleNamespace
import numpy as np
from boards.protocol.address import Address
from boards.tls.identity import Identity
from boards.worker.model_runtime import load_models
from boards.worker.server import Worker, WorkerSettings
from nonn_core.export.bundle import MANIFEST, Manifest
from pathlib import Path
from worker_processes import asking

bundle, keys = map(Path, sys.argv[1:])
near = Address.parse("[fe80::1%lo]:0", "test", free_port=True)
running = Worker(
    load_models(bundle, ["student-0"]), WorkerSettings(near, Identity.read(keys / "pi"))
)
running.start()
board = SimpleNamespace(name="pi", students=["student-0"], address=running.address)
with asking(bundle, Manifest.read(bundle / MANIFEST), keys, [board]) as client:
    print(board.address, client.protocols, client.ask(np.zeros((1, 1, 8, 8), np.float32)).missing)
running.drain()
"""
OWN_NETWORK = ["unshare", "--user", "--map-root-user", "--net"]


def has_own_network():
    try:
        return subprocess.run([*OWN_NETWORK, "ip", "link"], capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(not has_own_network(), reason="no network namespace of one's own here")
def test_a_board_is_reached_by_its_link_local_address(made):
    """Both protocols, on an address that is none without its zone."""
    bundle, _, keys = made
    script = 'ip link set lo up && ip addr add fe80::1/64 dev lo nodad && exec "$@"'
    line = [sys.executable, "-c", LINK_LOCAL, bundle, keys]
    tests = str(Path(__file__).parents[1])
    said = subprocess.run(
        [*OWN_NETWORK, "sh", "-c", script, "sh", *line], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), tests])},
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    address, _, rest = said.stdout.partition(" ")
    assert address.startswith("[fe80::1%lo]:")
    assert rest == "{'pi': 'frames'} {}\n"


@pytest.mark.parametrize(
    ("text", "host", "zone"),
    [
        ("[fe80::1%eth0]:8001", "fe80::1%eth0", "eth0"),
        (
            "[fe80::ba27:ebff:fe12:3456%wlp2s0.7]:1",
            "fe80::ba27:ebff:fe12:3456%wlp2s0.7",
            "wlp2s0.7",
        ),
        ("[::1]:8001", "::1", ""),
        ("pi.local:8001", "pi.local", ""),
    ],
)
def test_an_address_has_the_zone_that_was_typed(text, host, zone):
    address = Address.parse(text, "test")
    assert (address.host, address.zone, str(address)) == (host, zone, text)
    assert BoardAddress(name="pi", address=text).endpoint == address
    assert str(address.with_port(7)).startswith(text.rpartition(":")[0])


@pytest.mark.parametrize(
    "text", ["[fe80::1%]:8001", "fe80::1%eth0:8001", "[192.168.1.11%eth0]:x", "[fe80::1%a b]:8001"]
)
def test_what_is_no_address_names_the_form_with_a_zone(text):
    with pytest.raises(InputError, match=r"or \[fe80::1%eth0\]:8001, port 1 to 65535"):
        Address.parse(text, "test")


def echoing():
    """A server in this process that says again what it hears, and what was done with it."""
    there = socket.create_server(("127.0.0.1", 0))

    def echo():
        with suppress(OSError):
            while True:
                connection, _ = there.accept()
                threading.Thread(target=repeat, args=(connection,), daemon=True).start()

    def repeat(connection):
        with connection:
            while piece := connection.recv(4096):
                connection.sendall(piece)

    threading.Thread(target=echo, daemon=True).start()
    stopped = threading.Event()
    return SimpleNamespace(
        connect=lambda: socket.create_connection(there.getsockname()),
        not_serving=lambda: None,
        stop=lambda _: (stopped.set(), there.close()),
        stopped=stopped,
    )


@pytest.fixture
def standard_port(monkeypatch):
    """Open a port of the standard protocol; yield its address, and the servers started so far."""
    monkeypatch.setattr(standard_port_module, "LINGER_S", 0.2)
    monkeypatch.setattr(standard_port_module, "MOST_CONNECTIONS", 2)
    monkeypatch.setattr(standard_port_module, "MOST_SILENT", 3)
    started = []
    listener = socket.create_server(("127.0.0.1", 0))
    place = listener.getsockname()
    port = standard_port_module.StandardPort(
        listener, lambda: started.append(echoing()) or started[-1]
    )
    port.start()
    yield place, started
    port.stop()


def said_again(connection, content):
    connection.sendall(content)
    got = b""
    while len(got) < len(content) and (piece := connection.recv(1 << 20)):
        got += piece
    return got == content


def test_a_server_runs_from_the_first_caller_to_the_last(standard_port):
    place, started = standard_port
    with socket.create_connection(place):
        pass
    with socket.create_connection(place, timeout=10) as first:
        assert not started
        for content in (b"a", bytes(range(256)) * 8000):
            sending = threading.Thread(target=first.sendall, args=(content,))
            sending.start()
            left = len(content)
            while left:
                left -= len(first.recv(1 << 20))
            sending.join()
        with socket.create_connection(place, timeout=10) as second:
            assert said_again(second, b"b")
        assert len(started) == 1
        assert not started[0].stopped.is_set()
    assert started[0].stopped.wait(10)
    with socket.create_connection(place, timeout=10) as later:
        assert said_again(later, b"c")
    assert len(started) == 2


def test_a_port_keeps_few_connections_and_fewer_silent_ones(standard_port):
    place, started = standard_port
    silent = [socket.create_connection(place, timeout=10) for _ in range(4)]
    assert silent[0].recv(1) == b""
    assert not started
    assert said_again(silent[1], b"a")
    assert said_again(silent[2], b"b")
    silent[3].sendall(b"c")
    with suppress(ConnectionResetError):
        assert silent[3].recv(1) == b""
    for each in silent:
        each.close()
