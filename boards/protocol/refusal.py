"""Why a worker does not answer a request, the same over both protocols."""

from enum import IntEnum


class Reason(IntEnum):
    """Numbered and named as gRPC's status codes."""

    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    INTERNAL = 13
    UNAVAILABLE = 14


class RequestRefused(Exception):  # noqa: N818
    """A request that gets an error status; the worker lives."""

    def __init__(self, reason: Reason, message: str) -> None:
        self.reason = reason
        super().__init__(message)
