"""The relay: a process between host and emulated boards that delays bytes.

It listens beside each board under the same ports and connects to the board for each connection.
It reads orders on stdin, one JSON object a line (`RelayOrder`), and answers each on stdout with an
empty line, or with what is wrong.  It ends when stdin does.  TCP ends here on both sides: bytes are
late, but are never lost, and a reset on one side is passed on to the other.

Bytes of one direction are served in the order in which they come.  What carries them (the host's
card, a shared channel) is busy with one piece at a time, whichever board it is for::

    begin   = max(now, free of each carrier)
    free    = begin + messages * message_ms + bytes * wire_ms_per_byte
    release = free + latency_ms + jitter

Where the kernel has the link's rate, it adds the time on the wire behind the relay, so that bytes
are released earlier by that much.
"""

import asyncio
import json
import random
import selectors
import socket
import struct
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from random import Random
from typing import Any, Self

PIECE_BYTES = 64 * 1024
"""Most bytes that are held together; a message is mostly one piece."""
_MOST_PIECES = 64
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class LinkDirection:
    """One direction of a board's link."""

    carriers: tuple[str, ...] = ()
    wire_ms_per_byte: float = 0.0
    wire_by_kernel: bool = False
    latency_ms: float = 0.0
    jitter_ms: float = 0.0
    message_ms: float = 0.0
    message_bytes: int = 1


class MessageCounter:
    """Counts the messages on one connection by their bytes, since the board last said something.

    What protocols add to a message of `message_bytes` costs nothing; what is less, such as an
    acknowledgement, is its part of a message.  Where several messages are on their way at once,
    what protocols add may make one too many.
    """

    def __init__(self, message_bytes: int) -> None:
        self._message_bytes = message_bytes
        self._size_bytes = 0

    def messages(self, size_bytes: int) -> float:
        """Count the messages in further bytes."""
        before = self._count()
        self._size_bytes += size_bytes
        return self._count() - before

    def answered(self) -> None:
        """Begin to count anew."""
        self._size_bytes = 0

    def _count(self) -> float:
        whole = self._size_bytes // self._message_bytes
        return float(whole) if whole else self._size_bytes / self._message_bytes


class CarrierClock:
    """When each carrier is free again, in ms of whatever clock is used."""

    def __init__(self, seed: int = 0) -> None:
        self._free_ms: dict[str, float] = defaultdict(float)
        self._random = Random(seed)  # noqa: S311

    def release_ms(
        self, direction: LinkDirection, size_bytes: int, messages: float, now_ms: float
    ) -> float:
        """Time at which bytes that came at `now_ms` are passed on."""
        begin_ms = max([now_ms, *(self._free_ms[each] for each in direction.carriers)])
        sent_ms = begin_ms + messages * direction.message_ms
        free_ms = sent_ms + size_bytes * direction.wire_ms_per_byte
        for each in direction.carriers:
            self._free_ms[each] = free_ms
        jitter_ms = (
            self._random.expovariate(1 / direction.jitter_ms) if direction.jitter_ms else 0.0
        )
        return (sent_ms if direction.wire_by_kernel else free_ms) + direction.latency_ms + jitter_ms


_Count = Callable[[int], float]
"""How many messages so many bytes are."""


@dataclass(frozen=True, slots=True)
class RelayOrder:
    """An order to relay for a board, in place of any earlier order for it."""

    board: str
    here: str
    there: str
    ports: tuple[int, ...]
    down: LinkDirection
    up: LinkDirection

    def encoded(self) -> bytes:
        """Return the order as a line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def decoded(cls, line: bytes) -> Self:
        """Parse the order in a line."""
        fields: Mapping[str, Any] = json.loads(line)
        down, up = (_direction(fields[each]) for each in ("down", "up"))
        return cls(**{**fields, "ports": tuple(fields["ports"]), "down": down, "up": up})


class RelayServer:
    """Listens, connects and passes on, as it is ordered."""

    def __init__(self, seed: int) -> None:
        self._carriers = CarrierClock(seed)
        self._servers: dict[str, list[asyncio.Server]] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def apply(self, order: RelayOrder) -> None:
        """Relay as ordered from now on; raises OSError where a port is taken."""
        for server in self._servers.pop(order.board, []):
            server.close()
        servers = self._servers.setdefault(order.board, [])
        for port in order.ports:
            servers.append(
                await asyncio.start_server(
                    self._acceptor(order, port), order.here, port, limit=PIECE_BYTES
                )
            )

    def _acceptor(
        self, order: RelayOrder, port: int
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        """Make the handler of new connections to a port."""

        def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._bridge(order, port, reader, writer))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

        return take

    async def _bridge(
        self,
        order: RelayOrder,
        port: int,
        host_reader: asyncio.StreamReader,
        host_writer: asyncio.StreamWriter,
    ) -> None:
        """Pass bytes between the host and a board until both ends have closed."""
        try:
            reader, writer = await asyncio.open_connection(order.there, port, limit=PIECE_BYTES)
        except OSError:
            _reset(host_writer)
            return
        try:
            counter = MessageCounter(order.down.message_bytes)

            def count_up(_: int) -> float:
                counter.answered()
                return 0.0

            await _run_together(
                self._forward(order.down, host_reader, writer, counter.messages),
                self._forward(order.up, reader, host_writer, count_up),
            )
        except OSError:
            for each in (writer, host_writer):
                _reset(each)
        else:
            for each in (writer, host_writer):
                each.close()

    async def _forward(
        self,
        direction: LinkDirection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        count: _Count,
    ) -> None:
        """Forward each piece when its time has come, and then the end."""
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_MOST_PIECES)
        await _run_together(
            self._read_pieces(direction, reader, pieces, count), _write_pieces(pieces, writer)
        )

    async def _read_pieces(
        self,
        direction: LinkDirection,
        reader: asyncio.StreamReader,
        pieces: "asyncio.Queue[tuple[float, bytes]]",
        count: _Count,
    ) -> None:
        """Read pieces and queue each with its release time."""
        last_ms = 0.0
        piece = b"first"
        while piece:
            piece = await reader.read(PIECE_BYTES)
            # Bytes of one connection do not overtake each other.
            size_bytes = len(piece)
            due_ms = self._carriers.release_ms(direction, size_bytes, count(size_bytes), _now_ms())
            last_ms = max(last_ms, due_ms)
            await pieces.put((last_ms, piece))


async def _write_pieces(
    pieces: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter
) -> None:
    """Write pieces at their times; an empty one is the end."""
    while True:
        release_ms, piece = await pieces.get()
        left_ms = release_ms - _now_ms()
        if left_ms > 0:
            await asyncio.sleep(left_ms / 1000)
        if not piece:
            with suppress(OSError):
                writer.write_eof()
            return
        writer.write(piece)
        await writer.drain()


async def _run_together(*parts: Coroutine[Any, Any, None]) -> None:
    """Run parts at once; if one fails, stop the others and raise its error."""
    tasks = [asyncio.ensure_future(each) for each in parts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection so that the other end notices at once."""
    connection: socket.socket = writer.get_extra_info("socket")
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


def _now_ms() -> float:
    return time.monotonic() * 1000


def _direction(fields: Mapping[str, Any]) -> LinkDirection:
    return LinkDirection(**{**fields, "carriers": tuple(fields["carriers"])})


async def serve(seed: int) -> None:
    """Obey orders from stdin until it ends."""
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(orders), sys.stdin
    )
    relay = RelayServer(seed)
    while line := await orders.readline():
        try:
            await relay.apply(RelayOrder.decoded(line))
            answer = ""
        except OSError as error:
            answer = str(error)
        print(answer, flush=True)  # noqa: T201


def run(seed: int) -> None:
    """Run the relay on a loop whose timers are exact to microseconds, as select() is.

    epoll counts in milliseconds.
    """
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    asyncio.set_event_loop(loop)
    loop.run_until_complete(serve(seed))


if __name__ == "__main__":
    run(int(sys.argv[1]) if len(sys.argv) > 1 else random.randrange(2**31))  # noqa: S311
