"""A server: something that does one thing at a time, first come, first served."""

from collections.abc import Callable

from simpy import Environment

Done = Callable[[float, float], None]
"""Called at the end of a job with its start and end, in ms."""


class Server:
    """A first-come-first-served server without a queue to look at: it knows when it will be free.

    One event per job, at its end, in place of a process and a resource per job: the start of a
    job is known the moment it arrives, because nothing can overtake what came before.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._free_ms = 0.0

    def serve(self, duration_ms: float, done: Done) -> None:
        """Take a job of `duration_ms`; call `done(start_ms, end_ms)` when it has ended."""
        now_ms = self._environment.now
        start_ms = max(now_ms, self._free_ms)
        end_ms = self._free_ms = start_ms + duration_ms
        event = self._environment.timeout(end_ms - now_ms)
        event.callbacks.append(lambda _: done(start_ms, end_ms))
