"""Which ways a relay has to emulate, beside what the kernel does.

The kernel's are rates (tbf), media (ifb) and delays (netem), where it has them.  Left to a relay
are the cost of messages, jitter, and what the kernel lacks, but for loss.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from boards.emulation.capabilities import Capabilities
from boards.emulation.delays import Way
from boards.emulation.duties import Duty
from boards.emulation.networks import carrier
from profiles.link import wire_ms

SMALL_MS = 0.2
"""What a relay itself costs a message; what takes less than that is not worth one."""

_CARD = "card"


@dataclass(frozen=True, slots=True)
class Ways:
    """Both directions of a board's link."""

    down: Way
    up: Way


def relayed(duties: Sequence[Duty], can: Capabilities, own_message_ms: float) -> Mapping[str, Ways]:
    """Return the ways of each board by name; none if the kernel emulates all that there is.

    What a message costs here anyway, `own_message_ms`, is left out.  If one board needs a relay,
    all have one: the host sends to one after the other, whichever they are.
    """
    # Each carrier is an ifb of its own; only a relay sends one message at a time through several.
    one = len({carrier(duty.board) for duty in duties}) == 1
    media = can.media and one
    if not any(_needed(duty, len(duties), can, media, own_message_ms) for duty in duties):
        return {}
    return {
        duty.board.name: Ways(_down(duty, can, own_message_ms), _up(duty, can)) for duty in duties
    }


def _needed(duty: Duty, boards: int, can: Capabilities, media: bool, own_message_ms: float) -> bool:
    link = duty.board.link
    late_ms = link.jitter_ms.value + (0.0 if can.delays else link.latency_ms.value)
    alone = boards == 1 and link.duplex == "full"
    by_kernel = media or (can.rates and alone)
    serial = _wire_counts(duty) and not by_kernel
    return late_ms > 0 or serial or duty.message_ms > own_message_ms


def _down(duty: Duty, can: Capabilities, own_message_ms: float) -> Way:
    """Keep the host's card, and a medium that the kernel lacks, busy with message and wire."""
    carriers = dict.fromkeys([_CARD] if can.media else [_CARD, carrier(duty.board)])
    return replace(
        _way(duty, can, tuple(carriers), _wire_ms_per_byte(duty, can)),
        message_ms=max(0.0, duty.message_ms - own_message_ms),
        message_bytes=duty.image_bytes,
    )


def _up(duty: Duty, can: Capabilities) -> Way:
    full = duty.board.link.duplex == "full"
    if can.media or (can.rates and full):
        return _way(duty, can, (), 0.0)
    own = f"up {duty.board.name}" if full else carrier(duty.board)
    return _way(duty, can, (own,), _wire_ms_per_byte(duty, can))


def _way(duty: Duty, can: Capabilities, carriers: tuple[str, ...], on_wire_ms: float) -> Way:
    link = duty.board.link
    return Way(
        carriers=carriers,
        wire_ms_per_byte=on_wire_ms,
        wire_by_kernel=can.rates,
        latency_ms=0.0 if can.delays else link.latency_ms.value,
        jitter_ms=link.jitter_ms.value,
    )


def _wire_ms_per_byte(duty: Duty, can: Capabilities) -> float:
    counts = can.rates or _wire_counts(duty)
    return wire_ms(duty.board.link, 1) if counts else 0.0


def _wire_counts(duty: Duty) -> bool:
    return wire_ms(duty.board.link, duty.image_bytes) >= SMALL_MS
