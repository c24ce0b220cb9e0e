"""The clock: SimPy's environment, with events at a time in place of processes and delays."""

from collections.abc import Callable, Sequence
from heapq import heappush
from typing import Any

from simpy import Environment
from simpy.events import NORMAL, Event

LATE = 2
"""Priority of an event that comes after all others of its time."""


class Moment(Event):
    """An event that is certain to happen and calls functions; it costs less than a Timeout.

    `callbacks` may be one tuple for all moments of a kind: SimPy never changes it.
    """

    __slots__ = ("callbacks",)
    _ok = True
    _value = None

    def __init__(self, callbacks: Sequence[Callable[[Any], None]]) -> None:
        self.callbacks = callbacks  # type: ignore[assignment]


class Clock(Environment):
    """SimPy's environment, which also takes events at an absolute time.

    Going through a delay would round: now + (end - now) is not always end.
    """

    def at(self, time_ms: float, moment: Event, priority: int = NORMAL) -> None:
        """Let `moment` happen at `time_ms`, after all events of that time that came before."""
        heappush(self._queue, (time_ms, priority, next(self._eid), moment))  # type: ignore[misc]
