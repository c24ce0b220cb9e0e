"""A connection to one board's worker, over either protocol."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, Protocol

from boards.protocol import frames
from boards.protocol.frames import Features, Values

Wire = Literal["frames", "standard"]


class ConnectionLostError(Exception):
    """The worker is gone, or what it sends makes no sense; what it owed does not come."""


@dataclass(frozen=True)
class Request:
    """`(n, ...)` images under a number; the same for all boards."""

    number: int
    images: Values

    @cached_property
    def frame(self) -> bytes:
        """The request as a frame."""
        return frames.images(self.number, self.images).encoded()


class Reply(NamedTuple):
    """What a worker says to one request: features, or why there are none.

    `timed` says whether it told how long it waited and computed, which other servers do not.
    """

    number: int
    features: Features | None
    refusal: str = ""
    timed: bool = True


class Connection(Protocol):
    """Sends images without waiting; replies are fetched where `fileno` is readable.

    One thread uses it.  Every method may raise ConnectionLostError, after which it is only closed.
    """

    wire: Wire

    def fileno(self) -> int:
        """Return what to wait on for replies, and for room to send where `unsent`."""

    @property
    def unsent(self) -> bool:
        """Whether images wait for room on the way to the worker."""

    def send(self, request: Request) -> None:
        """Ask for the features of images."""

    def flush(self) -> None:
        """Send what waits, as far as there is room."""

    def replies(self) -> list[Reply]:
        """Return what has come."""

    def close(self) -> None:
        """Close it."""
