"""Who is told what a worker did; what they make of it delays answers."""

from typing import Protocol


class Counts(Protocol):
    """Told of requests, from any thread."""

    def count(self, protocol: str, outcome: str) -> None:
        """Note a request: over which protocol, and how it ended."""

    def observe(self, student: str, waited_ns: int, computed_ns: int) -> None:
        """Note how long one student's answer waited for its turn and was computed."""


class Uncounted:
    """Where nobody will ask."""

    def count(self, protocol: str, outcome: str) -> None:
        """Note nothing."""

    def observe(self, student: str, waited_ns: int, computed_ns: int) -> None:
        """Note nothing."""
