"""Four ways to carry an image to eight boards and features back: loopback, authenticated, batch 1.

    pip install pyzmq && python benchmarks/transports.py

Each way has eight echo processes, which answer 12,288 bytes by 1,024 without computing, and one
client that sends to all and waits for all: what the fan-out itself costs.  gRPC and frames use
mutual TLS with the same keys, ZeroMQ its CURVE.  The ways are timed in turns; medians, in ms.
"""

import multiprocessing
import selectors
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Annotated

import grpc
import typer
import zmq
from rich.console import Console
from rich.table import Table

from boards.tls.authority import make_keys
from boards.tls.credential import board_subject
from boards.tls.identity import Identity

BOARDS = 8
IMAGE, FEATURES = bytes(12_288), bytes(1_024)
NAME = "pi"

Ask = Callable[[], object]


def serve_grpc(keys: Path, port: Connection) -> None:
    """Echo over gRPC: /echo/unary and /echo/stream."""
    identity = Identity.read(keys / NAME)
    handlers = {
        "unary": grpc.unary_unary_rpc_method_handler(lambda _, __: FEATURES),
        "stream": grpc.stream_stream_rpc_method_handler(
            lambda requests, _: (FEATURES for _ in requests)
        ),
    }
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo", handlers),))
    credentials = grpc.ssl_server_credentials(
        [(identity.key, identity.certificate)], identity.authority, require_client_auth=True
    )
    port.send(server.add_secure_port("127.0.0.1:0", credentials))
    server.start()
    server.wait_for_termination()


def serve_frames(keys: Path, port: Connection) -> None:
    """Echo over a TLS connection: so many bytes come, so many go."""
    context = Identity.read(keys / NAME).server_context()
    listener = socket.create_server(("127.0.0.1", 0))
    port.send(listener.getsockname()[1])
    plain, _ = listener.accept()
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with context.wrap_socket(plain, server_side=True) as connection:
        buffer = bytearray(len(IMAGE))
        while True:
            view = memoryview(buffer)
            while view:
                count = connection.recv_into(view)
                if not count:
                    return
                view = view[count:]
            connection.sendall(FEATURES)


def serve_zmq(keys: Path, port: Connection) -> None:
    """Echo over ZeroMQ with CURVE."""
    del keys
    socket_ = zmq.Context().socket(zmq.REP)
    public, secret = zmq.curve_keypair()
    socket_.curve_secretkey, socket_.curve_publickey, socket_.curve_server = secret, public, True
    port.send((socket_.bind_to_random_port("tcp://127.0.0.1"), public))
    while True:
        socket_.recv()
        socket_.send(FEATURES)


@contextmanager
def servers(serve: Callable[[Path, Connection], None], keys: Path) -> Iterator[list[object]]:
    """Run eight echo processes; yield where they are."""
    start = multiprocessing.get_context("spawn")
    found, processes = [], []
    for _ in range(BOARDS):
        here, there = start.Pipe()
        process = start.Process(target=serve, args=(keys, there), daemon=True)
        process.start()
        processes.append(process)
        found.append(here.recv())
    try:
        yield found
    finally:
        for process in processes:
            process.kill()


def channels(ports: list[object], keys: Path) -> list[grpc.Channel]:
    """Connect to gRPC servers."""
    identity = Identity.read(keys / "host")
    credentials = grpc.ssl_channel_credentials(
        identity.authority, identity.key, identity.certificate
    )
    options = (("grpc.ssl_target_name_override", NAME),)
    return [grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) for port in ports]


def unary(ports: list[object], keys: Path) -> Ask:
    """Make one call for each image and board."""
    calls = [channel.unary_unary("/echo/unary") for channel in channels(ports, keys)]

    def ask() -> None:
        for future in [call.future(IMAGE) for call in calls]:
            future.result()

    return ask


def streams(ports: list[object], keys: Path) -> Ask:
    """Keep one call open for each board, which carries all images."""
    queues: list[SimpleQueue[bytes]] = [SimpleQueue() for _ in ports]
    replies = [
        channel.stream_stream("/echo/stream")(iter(queue.get, None))
        for channel, queue in zip(channels(ports, keys), queues, strict=True)
    ]

    def ask() -> None:
        for queue in queues:
            queue.put(IMAGE)
        for reply in replies:
            next(reply)

    return ask


def frames(ports: list[object], keys: Path) -> Ask:
    """Keep a TLS connection for each board."""
    context = Identity.read(keys / "host").client_context()
    selector = selectors.DefaultSelector()
    connections = []
    for port in ports:
        plain = socket.create_connection(("127.0.0.1", port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connections.append(context.wrap_socket(plain, server_hostname=NAME))
        selector.register(connections[-1], selectors.EVENT_READ)

    def ask() -> None:
        for connection in connections:
            connection.sendall(IMAGE)
        left = dict.fromkeys(connections, len(FEATURES))
        while left:
            for key, _ in selector.select():
                left[key.fileobj] -= len(key.fileobj.recv(65_536))
                if not left[key.fileobj]:
                    del left[key.fileobj]

    return ask


def zeromq(places: list[object], keys: Path) -> Ask:
    """Keep a ZeroMQ connection for each board."""
    del keys
    context, sockets = zmq.Context(), []
    for port, public in places:
        one = context.socket(zmq.REQ)
        one.curve_publickey, one.curve_secretkey = zmq.curve_keypair()
        one.curve_serverkey = public
        one.connect(f"tcp://127.0.0.1:{port}")
        sockets.append(one)

    def ask() -> None:
        for one in sockets:
            one.send(IMAGE, copy=False)
        for one in sockets:
            one.recv()

    return ask


WAYS = {
    "gRPC, a call each": (serve_grpc, unary),
    "gRPC, open streams": (serve_grpc, streams),
    "ZeroMQ, CURVE": (serve_zmq, zeromq),
    "frames over TLS": (serve_frames, frames),
}


def main(rounds: Annotated[int, typer.Option(help="Images over each way.")] = 500) -> None:
    """Print what each way costs."""
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        keys = Path(place) / "keys"
        make_keys(keys, [board_subject(NAME)])
        asks = {
            name: connect(stack.enter_context(servers(serve, keys)), keys)
            for name, (serve, connect) in WAYS.items()
        }
        for number in range(-50, rounds):
            for name, ask in asks.items():
                began = time.perf_counter()
                ask()
                if number >= 0:
                    times[name].append(1e3 * (time.perf_counter() - began))
        fastest = min(map(statistics.median, times.values()))
        table = Table(f"to {BOARDS} processes and back", "ms", "p95", "times the fastest")
        for name, each in times.items():
            middle, p95 = statistics.median(each), statistics.quantiles(each, n=20)[-1]
            table.add_row(name, f"{middle:.2f}", f"{p95:.2f}", f"{middle / fastest:.1f}")
        Console(width=100, highlight=False).print(table)


if __name__ == "__main__":
    typer.run(main)
