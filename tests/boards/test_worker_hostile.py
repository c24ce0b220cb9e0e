"""Hostile bytes from the network: the worker says no, or hangs up, and lives."""

import resource
import socket
import ssl
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from forked_python import run_forked, template
from made_bundle import make_bundle
from worker_processes import WORKER, asking, keys_for, running

from boards.protocol import frames
from boards.protocol.frames import HEADER, Frame, FrameKind
from boards.tls.identity import Identity
from boards.worker.frame_server import MAX_CONNECTIONS

IMAGE = (1, 8, 8)
LARGEST = 100_000
LOOPBACK = ("--insecure", "--listen", "127.0.0.1:0")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    manifest = make_bundle(folder / "bundle", image=IMAGE)
    keys = keys_for(folder / "keys", "pi")
    options = ("--largest-message", f"{LARGEST}B")
    with running(folder / "bundle", keys, {"pi": ["student-0"]}, *options) as workers:
        yield folder / "bundle", manifest, keys, workers["pi"]


@pytest.fixture(autouse=True)
def lives(place):
    """After each test the worker answers as if nothing had been."""
    yield
    bundle, manifest, keys, worker = place
    for protocol in ("fastest", "standard"):
        with asking(bundle, manifest, keys, [worker], protocol=protocol) as client:
            assert not client.ask(np.zeros((1, *IMAGE), np.float32)).missing


def open_files(worker):
    return len(list(Path(f"/proc/{worker.process.pid}/fd").iterdir()))


def frames_port(worker):
    """Return where frames are, which is the port behind that of the standard protocol."""
    return worker.address.port + 1


def secured(place, identity=None):
    """Open a connection of frames as the host."""
    _, _, keys, worker = place
    context = (identity or Identity.read(keys / "host")).client_context()
    plain = socket.create_connection(("127.0.0.1", frames_port(worker)), timeout=30)
    return context.wrap_socket(plain, server_hostname="pi")


def ends(connection):
    """Say whether the other side hangs up."""
    try:
        while connection.recv(65536):
            pass
    except (ConnectionError, ssl.SSLError):
        pass
    return True


def frame_of(connection):
    """Read one frame."""
    head = connection.recv(HEADER.size)
    kind, number, length = frames.parse_header(head, 1 << 20)
    content = b""
    while len(content) < length:
        content += connection.recv(length - len(content))
    return Frame(kind, number, content)


@pytest.mark.parametrize(
    "content",
    [b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 40, b"\x16\x03\x01\xff\xff" + bytes(200)],
    ids=["http", "noise", "half a hello of TLS"],
)
@pytest.mark.parametrize("standard", [True, False], ids=["standard", "frames"])
def test_what_is_no_tls_is_hung_up_on(place, content, standard):
    worker = place[3]
    port = worker.address.port if standard else frames_port(worker)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        # The worker may hang up before all of it is there.
        with suppress(OSError):
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
        assert ends(connection)


@pytest.mark.parametrize("standard", [True, False], ids=["standard", "frames"])
def test_connections_that_say_nothing_keep_nobody_out(place, standard):
    worker = place[3]
    port = worker.address.port if standard else frames_port(worker)
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(MAX_CONNECTIONS + 8)]
    try:
        bundle, manifest, keys, _ = place
        protocol = "standard" if standard else "fastest"
        with asking(bundle, manifest, keys, [worker], protocol=protocol) as client:
            assert not client.ask(np.zeros((1, *IMAGE), np.float32)).missing
    finally:
        for each in silent:
            # A reset, as of a peer that crashed.
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            each.close()


@pytest.mark.parametrize("who", ["nobody", "another authority", "a board"])
def test_frames_are_for_hosts_of_this_authority(place, tmp_path, who):
    _, _, keys, worker = place
    context = ssl.create_default_context(cafile=keys / "host" / "authority.pem")
    context.check_hostname = False
    if who == "another authority":
        other = keys_for(tmp_path / "other") / "host"
        context.load_cert_chain(other / "certificate.pem", other / "key.pem")
    if who == "a board":
        context.load_cert_chain(keys / "pi" / "certificate.pem", keys / "pi" / "key.pem")
    plain = socket.create_connection(("127.0.0.1", frames_port(worker)), timeout=30)
    try:
        connection = context.wrap_socket(plain)
    except (ssl.SSLError, ConnectionError):
        return
    # TLS 1.3 tells a client only after its handshake.
    with connection, pytest.raises((ssl.SSLError, ConnectionError)):
        connection.sendall(frames.hello_frame(["student-0"]).encoded())
        if not connection.recv(1):
            raise ConnectionError("the worker hung up without a word")


def test_silent_connections_leave_descriptors_and_end(place):
    """More of them than the standard port takes, at a limit that they would exhaust."""
    bundle, manifest, keys, worker = place
    before = open_files(worker)
    resource.prlimit(worker.process.pid, resource.RLIMIT_NOFILE, (before + 100, before + 100))
    port = worker.address.port
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(150)]
    try:
        with asking(bundle, manifest, keys, [worker], protocol="standard") as client:
            assert not client.ask(np.zeros((1, *IMAGE), np.float32)).missing
        assert open_files(worker) < before + 100
    finally:
        for each in silent:
            each.close()


@pytest.mark.parametrize(
    "content",
    [
        bytes(HEADER.size),
        HEADER.pack(b"NoNN", 2, FrameKind.HELLO, 0, 0, 0),
        HEADER.pack(b"NoNN", 1, 77, 0, 0, 0),
        HEADER.pack(b"NoNN", 1, FrameKind.HELLO, 0, 0, LARGEST + 1),
        frames.images_frame(1, np.zeros((1, 64), np.float32)).encoded(),
        Frame(FrameKind.HELLO, 0, b"\xff\xfe").encoded(),
        frames.hello_frame(["student-0", "student-0"]).encoded(),
    ],
    ids=["zeros", "another version", "another kind", "too long", "no hello", "no text", "twice"],
)
def test_what_is_no_hello_is_hung_up_on(place, content):
    with secured(place) as connection:
        connection.sendall(content)
        assert ends(connection)


def test_hello_to_a_student_that_is_not_here_is_refused(place):
    with secured(place) as connection:
        connection.sendall(frames.hello_frame(["student-1"]).encoded())
        assert "NOT_FOUND: no model 'student-1' here" in frames.parse_refusal(frame_of(connection))
        assert ends(connection)


@pytest.mark.parametrize(
    "payload",
    [b"", struct.pack("<I", 0), struct.pack("<I", 2) + bytes(256), struct.pack("<I", 2**31)],
    ids=["empty", "none", "one of two", "very many"],
)
def test_images_of_another_length_are_refused_and_the_connection_goes_on(place, payload):
    with secured(place) as connection:
        connection.sendall(frames.hello_frame(["student-0"]).encoded())
        assert frames.parse_welcome(frame_of(connection)) == (64, 5)
        connection.sendall(Frame(FrameKind.IMAGES, 8, payload).encoded())
        refused = frame_of(connection)
        assert (refused.kind, refused.number) == (FrameKind.REFUSED, 8)
        assert "INVALID_ARGUMENT" in frames.parse_refusal(refused)
        connection.sendall(frames.images_frame(9, np.zeros((1, 64), np.float32)).encoded())
        assert frame_of(connection).kind == FrameKind.FEATURES


def test_a_host_that_is_gone_in_the_middle_of_an_image_leaves_nothing_behind(place):
    worker = place[3]
    before = open_files(worker)
    for _ in range(40):
        with secured(place) as connection:
            connection.sendall(frames.hello_frame(["student-0"]).encoded())
            frame_of(connection)
            connection.sendall(
                frames.images_frame(1, np.zeros((1, 64), np.float32)).encoded()[:100]
            )
    with secured(place) as connection:
        connection.sendall(frames.hello_frame(["student-0"]).encoded())
        frame_of(connection)
    assert open_files(worker) <= before + 3


def worker_says(bundle, *options):
    """Start a worker that ends at once; return its exit code and what it said."""
    line = ("-m", "nonn_plan", "worker", bundle, "--student", "0", *options)
    return run_forked(template(*WORKER), *line, timeout=60)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--keys", "KEYS/pi", "--insecure"], "either keys or --insecure"),
        ([], "either keys or --insecure"),
        (["--insecure", "--listen", "0.0.0.0:0"], "plain text is for loopback only"),
        ([*LOOPBACK, "--largest-message", "2GiB"], "less than 2 GiB"),
        ([*LOOPBACK, "--at-least", "1=5ms"], "of this worker: student-0"),
        ([*LOOPBACK, "--at-least", "0=5ms", "--at-least", "student-0=6ms"], "given twice"),
        ([*LOOPBACK, "--largest-message", "16"], "it has no unit"),
        ([*LOOPBACK, "--metrics", "[fe80::1%eth0]:9000"], "allowed: [::]:9000, or another address"),
        ([*LOOPBACK, "--student", "9"], "1 for student-1"),
        (["--keys", "KEYS/host"], "is not the certificate of a board"),
        (["--keys", "KEYS/pi", "--listen", "nowhere"], "not an address"),
        (["--keys", "KEYS/pi", "--at-least", "5"], "--at-least"),
        (["--keys", "KEYS/pi", "--precision", "int8"], "no int8 model of student-0"),
    ],
)
def test_a_wrong_command_is_one_sentence(place, options, text):
    bundle, _, keys, _ = place
    found = worker_says(bundle, *(option.replace("KEYS", str(keys)) for option in options))
    assert found.returncode == 2, found.stderr
    assert text in found.stderr
    assert "Traceback" not in found.stderr


def test_a_model_that_was_changed_is_not_loaded(place, tmp_path):
    keys = place[2]
    make_bundle(tmp_path / "bundle", image=IMAGE)
    model = tmp_path / "bundle" / "student-0.fp32.onnx"
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    found = worker_says(tmp_path / "bundle", "--keys", keys / "pi")
    assert found.returncode == 2
    assert "SHA-256" in found.stderr


def test_a_port_that_is_taken_is_said(place):
    bundle, _, keys, worker = place
    found = worker_says(bundle, "--keys", keys / "pi", "--listen", worker.address)
    assert found.returncode == 1
    assert f"cannot listen on {worker.address}" in found.stderr
