"""Radio: when the message of a step is on the wire, and which part of that a board draws for.

The wire is the last part of a try, behind the time of the software; further tries follow
`retry_ms` apart.  A failure that breaks them off ends the draw where it ends them: of a single try
max(0, end - start - (duration - wire)) was on the wire.
"""

from collections.abc import Iterator

from simulator.job import Step


def on_wire(step: Step, held_ms: float) -> Iterator[tuple[float, float]]:
    """Yield from when to when a message that was broken off after `held_ms` was on the wire.

    In ms since its step began.
    """
    wire_ms, retry_ms = step.transit.wire_ms, step.transit.retry_ms
    if wire_ms is None:
        yield 0.0, held_ms
        return
    begin_ms = step.duration_ms - wire_ms
    while begin_ms < held_ms:
        yield begin_ms, min(begin_ms + wire_ms, held_ms)
        if not retry_ms:
            return
        begin_ms += retry_ms


def on_wire_ms(step: Step, held_ms: float) -> float:
    """Return how long a message that was broken off after `held_ms` was on the wire, in ms."""
    return sum(end - begin for begin, end in on_wire(step, held_ms))


def radio_part(step: Step, board: str) -> float:
    """Return which part of a message's time on the wire `board` draws for; 0 if it has none."""
    if step.message is None or board not in step.message.places:
        return 0.0
    return dict(step.transit.radio_parts).get(board, 1.0)
