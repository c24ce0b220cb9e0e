"""The relay: a process between the host and emulated boards that holds bytes on their way.

It listens beside each board under the same ports and connects to the board for each connection.
Told on stdin, one JSON object a line, what to relay (`Order`); answers each on stdout with an
empty line, or with what is wrong.  Ends when stdin does.  TCP ends here on both sides: bytes are
late, but are never lost, and a reset on one side is passed on to the other.
"""

import asyncio
import json
import random
import selectors
import socket
import struct
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Self

from boards.emulation.delays import Burst, Carriers, Way

PIECE_BYTES = 64 * 1024
"""Most bytes that are held together; a message is mostly one piece."""

_MOST_PIECES = 64
_Count = Callable[[int], float]
"""How many messages so many bytes are."""

_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Order:
    """What to relay for a board, in place of what was relayed for it before."""

    board: str
    here: str
    there: str
    ports: tuple[int, ...]
    down: Way
    up: Way

    def encoded(self) -> bytes:
        """Return the order as a line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def decoded(cls, line: bytes) -> Self:
        """Return the order that a line holds."""
        fields: Mapping[str, Any] = json.loads(line)
        down, up = (_way(fields[each]) for each in ("down", "up"))
        return cls(**{**fields, "ports": tuple(fields["ports"]), "down": down, "up": up})


class Relay:
    """Listens, connects and passes on, as it is ordered."""

    def __init__(self, seed: int) -> None:
        self._carriers = Carriers(seed)
        self._servers: dict[str, list[asyncio.Server]] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def obey(self, order: Order) -> None:
        """Relay as ordered from now on; raises OSError where a port is taken."""
        for server in self._servers.pop(order.board, []):
            server.close()
        servers = self._servers.setdefault(order.board, [])
        for port in order.ports:
            servers.append(
                await asyncio.start_server(
                    self._taken(order, port), order.here, port, limit=PIECE_BYTES
                )
            )

    def _taken(
        self, order: Order, port: int
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        """Return what is done with a new connection."""

        def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._joined(order, port, reader, writer))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

        return take

    async def _joined(
        self,
        order: Order,
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
            burst = Burst(order.down.message_bytes)

            def count_up(_: int) -> float:
                burst.answered()
                return 0.0

            await _both(
                self._passed(order.down, host_reader, writer, burst.messages),
                self._passed(order.up, reader, host_writer, count_up),
            )
        except OSError:
            for each in (writer, host_writer):
                _reset(each)
        else:
            for each in (writer, host_writer):
                each.close()

    async def _passed(
        self,
        way: Way,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        count: _Count,
    ) -> None:
        """Pass on what is read, each piece when its time has come, and then the end."""
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_MOST_PIECES)
        await _both(self._held(way, reader, pieces, count), _released(pieces, writer))

    async def _held(
        self,
        way: Way,
        reader: asyncio.StreamReader,
        pieces: "asyncio.Queue[tuple[float, bytes]]",
        count: _Count,
    ) -> None:
        """Read pieces, and say of each when its time comes."""
        last_ms = 0.0
        piece = b"first"
        while piece:
            piece = await reader.read(PIECE_BYTES)
            # Bytes of one connection do not overtake each other.
            size_bytes = len(piece)
            due_ms = self._carriers.release_ms(way, size_bytes, count(size_bytes), _now_ms())
            last_ms = max(last_ms, due_ms)
            await pieces.put((last_ms, piece))


async def _released(
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


async def _both(*parts: Coroutine[Any, Any, None]) -> None:
    """Run parts at once until all are done; if one fails, stop the others and raise its error."""
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


def _way(fields: Mapping[str, Any]) -> Way:
    return Way(**{**fields, "carriers": tuple(fields["carriers"])})


async def serve(seed: int) -> None:
    """Obey orders from stdin until it ends."""
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(orders), sys.stdin
    )
    relay = Relay(seed)
    while line := await orders.readline():
        try:
            await relay.obey(Order.decoded(line))
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
