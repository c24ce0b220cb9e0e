"""Ways: how long bytes to or from an emulated board are held in user space; no sockets yet.

Bytes of one direction are served in the order in which they come.  What carries them (the host's
card, a medium) is busy with one piece at a time, whichever board it is for::

    begin   = max(now, free of each carrier)
    free    = begin + messages * message_ms + bytes * wire_ms_per_byte
    release = free + latency_ms + jitter

Where the kernel has the link's rate, it adds the time on the wire behind the relay, so that bytes
are released earlier by that much.
"""

from collections import defaultdict
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Way:
    """One direction of a board's link."""

    carriers: tuple[str, ...] = ()
    wire_ms_per_byte: float = 0.0
    wire_by_kernel: bool = False
    latency_ms: float = 0.0
    jitter_ms: float = 0.0
    message_ms: float = 0.0
    message_bytes: int = 1


class Burst:
    """Counts the messages on one connection by their bytes, since the board last said something.

    What protocols add to a message of `message_bytes` costs nothing; what is less, such as an
    acknowledgement, is its part of a message.  Where several messages are on their way at once,
    what protocols add may make one too many.
    """

    def __init__(self, message_bytes: int) -> None:
        self._message_bytes = message_bytes
        self._size_bytes = 0

    def messages(self, size_bytes: int) -> float:
        """Return how many messages further bytes are."""
        before = self._counted()
        self._size_bytes += size_bytes
        return self._counted() - before

    def answered(self) -> None:
        """Begin to count anew."""
        self._size_bytes = 0

    def _counted(self) -> float:
        whole = self._size_bytes // self._message_bytes
        return float(whole) if whole else self._size_bytes / self._message_bytes


class Carriers:
    """When each carrier is free again, in ms of whatever clock is used."""

    def __init__(self, seed: int = 0) -> None:
        self._free_ms: dict[str, float] = defaultdict(float)
        self._random = Random(seed)  # noqa: S311

    def release_ms(self, way: Way, size_bytes: int, messages: float, now_ms: float) -> float:
        """Return when bytes that came at `now_ms` are passed on."""
        begin_ms = max([now_ms, *(self._free_ms[each] for each in way.carriers)])
        sent_ms = begin_ms + messages * way.message_ms
        free_ms = sent_ms + size_bytes * way.wire_ms_per_byte
        for each in way.carriers:
            self._free_ms[each] = free_ms
        jitter_ms = self._random.expovariate(1 / way.jitter_ms) if way.jitter_ms else 0.0
        return (sent_ms if way.wire_by_kernel else free_ms) + way.latency_ms + jitter_ms
