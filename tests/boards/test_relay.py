"""The relay as a process: what it passes on, how late, and how connections end."""

import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boards.emulation.relay import LinkDirection, RelayOrder

HERE, THERE = "127.0.0.2", "127.0.0.1"


@contextmanager
def relay_process():
    command = [sys.executable, "-m", "boards.emulation.relay", "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.stdin.close()
            assert process.wait(10) == 0


def ordered(process, order):
    process.stdin.write(order.encoded())
    process.stdin.flush()
    return process.stdout.readline().decode().strip()


@contextmanager
def board(serve):
    """A board that serves one connection after the other in a thread; its port."""
    with socket.create_server((THERE, 0)) as listener:

        def accept():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    serve(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def echo_all(connection):
    """Read until the other end has said all, then say it back and close."""
    content = bytearray()
    while piece := connection.recv(65536):
        content += piece
    connection.sendall(content)


@contextmanager
def relayed(down=LinkDirection(), up=LinkDirection(), serve=echo_all):  # noqa: B008
    with board(serve) as port, relay_process() as process:
        assert ordered(process, RelayOrder("b", HERE, THERE, (port,), down, up)) == ""
        yield port


def everything(connection):
    content = bytearray()
    while piece := connection.recv(65536):
        content += piece
    return bytes(content)


@pytest.fixture(scope="module")
def echoing():
    way = LinkDirection(carriers=("card",), wire_ms_per_byte=1e-6, jitter_ms=0.5, message_ms=0.1)
    with relayed(way, way) as port:
        yield port


@settings(max_examples=25)
@given(st.lists(st.binary(min_size=1, max_size=300_000), max_size=6))
def test_bytes_come_through_unchanged_and_so_does_the_end(echoing, pieces):
    with socket.create_connection((HERE, echoing), timeout=10) as connection:
        for piece in pieces:
            connection.sendall(piece)
        connection.shutdown(socket.SHUT_WR)
        assert everything(connection) == b"".join(pieces)


def test_bytes_are_as_late_as_both_ways_say():
    down, up = (
        LinkDirection(latency_ms=150.0),
        LinkDirection(latency_ms=100.0, wire_ms_per_byte=0.5),
    )
    with (
        relayed(down, up) as port,
        socket.create_connection((HERE, port), timeout=10) as connection,
    ):
        begun = time.monotonic()
        connection.sendall(b"x" * 100)
        connection.shutdown(socket.SHUT_WR)
        assert everything(connection) == b"x" * 100
        assert time.monotonic() - begun >= 0.3


def test_messages_to_two_boards_wait_for_each_other_on_the_card_of_the_host():
    down = LinkDirection(carriers=("card",), message_ms=200.0, message_bytes=10)
    with board(echo_all) as first, board(echo_all) as second, relay_process() as process:
        for name, port in (("a", first), ("b", second)):
            assert (
                ordered(process, RelayOrder(name, HERE, THERE, (port,), down, LinkDirection()))
                == ""
            )
        with (
            socket.create_connection((HERE, first), timeout=10) as one,
            socket.create_connection((HERE, second), timeout=10) as two,
        ):
            begun = time.monotonic()
            for connection in (one, two):
                connection.sendall(b"0123456789")
                connection.shutdown(socket.SHUT_WR)
            assert everything(one) == everything(two) == b"0123456789"
            assert time.monotonic() - begun >= 0.4


def test_a_board_that_is_not_there_resets_the_connection():
    with socket.create_server((THERE, 0)) as listener:
        port = listener.getsockname()[1]
    with relay_process() as process:
        assert (
            ordered(
                process, RelayOrder("b", HERE, THERE, (port,), LinkDirection(), LinkDirection())
            )
            == ""
        )
        # The reset may come while the connection is still being made.
        with (
            pytest.raises(ConnectionResetError),
            socket.create_connection((HERE, port), timeout=10) as connection,
        ):
            connection.recv(1)


def test_a_reset_by_the_board_is_passed_on():
    def reset(connection):
        connection.recv(1)
        connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00"
        )

    with (
        relayed(serve=reset) as port,
        socket.create_connection((HERE, port), timeout=10) as connection,
    ):
        connection.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_a_taken_port_is_told_and_a_new_order_takes_the_place_of_the_old():
    with board(echo_all) as port, relay_process() as process:
        with socket.create_server((HERE, port)):
            told = ordered(
                process, RelayOrder("b", HERE, THERE, (port,), LinkDirection(), LinkDirection())
            )
            assert "address already in use" in told
        for _ in range(2):
            assert (
                ordered(
                    process, RelayOrder("b", HERE, THERE, (port,), LinkDirection(), LinkDirection())
                )
                == ""
            )
        with socket.create_connection((HERE, port), timeout=10) as connection:
            connection.sendall(b"still here")
            connection.shutdown(socket.SHUT_WR)
            assert everything(connection) == b"still here"
        assert (
            ordered(process, RelayOrder("b", HERE, THERE, (), LinkDirection(), LinkDirection()))
            == ""
        )
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((HERE, port), timeout=10)


def test_an_order_is_a_line_and_comes_back():
    order = RelayOrder(
        "b",
        HERE,
        THERE,
        (1, 2),
        LinkDirection(("card",), 1.5, True, 2.5),
        LinkDirection(jitter_ms=3.0),
    )
    line = order.encoded()
    assert line.count(b"\n") == 1
    assert RelayOrder.decoded(line) == order
