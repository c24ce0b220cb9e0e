"""Routes: links in a row, where a board is reached through another one.

A message is taken in whole and passed on (store and forward), so that times on the wire add up and
one link of the summed time per bit stands for the row.  The rates of loss and the delays add up as
well; the board in between spends its own time per message.  While it is down nothing comes through,
and its radio draws for what it passes on (`simulator.relays`).  That its processor and its other
messages are held up by passing on is not modelled.
"""

from collections.abc import Mapping

from profiles.device import DeviceProfile, figure_of
from profiles.errors import ProfileError
from profiles.figure import Figure
from profiles.link import LinkProfile


def route_order(via: Mapping[str, str | None], where: str) -> tuple[str, ...]:
    """Return all boards, each after the one that it is reached through.

    `via` holds for each board the board in between, or None.  Raises ProfileError for a board that
    is not among them and for a loop.
    """
    order: list[str] = []
    for board in via:
        trail = [board]
        while (between := via[trail[-1]]) is not None and trail[-1] not in order:
            if between not in via:
                raise ProfileError(
                    f"board {trail[-1]} is reached through a board that the fleet does not have",
                    where=where,
                    found=between,
                    allowed=", ".join(sorted(set(via) - {trail[-1]})) or None,
                )
            if between in trail:
                raise ProfileError(
                    "boards are reached through each other in a loop",
                    where=where,
                    found=" via ".join([*trail, between]),
                    fix="let one of them be reached from the host",
                )
            trail.append(between)
        order += [each for each in reversed(trail) if each not in order]
    return tuple(order)


def in_a_row(first: LinkProfile, between: DeviceProfile, last: LinkProfile) -> LinkProfile:
    """Return one link that stands for `first`, the board `between`, and `last`.

    It has the name of the one that shares a medium, so that it shares it too.  Raises ProfileError
    where the board in between has no message_ms.
    """
    note = f"{first.name}, then {last.name}, passed on by {between.name}"

    def assumed(value: float) -> Figure:
        return Figure(value=value, provenance="assumed", source=note)

    passing_ms = figure_of(between, "message_ms")
    arriving = (1 - first.loss_pct.value / 100) * (1 - last.loss_pct.value / 100)
    return LinkProfile(
        name=first.name if first.shared and not last.shared else last.name,
        title=note,
        bits_per_s=assumed(1 / (1 / first.bits_per_s.value + 1 / last.bits_per_s.value)),
        latency_ms=assumed(first.latency_ms.value + passing_ms + last.latency_ms.value),
        duplex="half" if "half" in (first.duplex, last.duplex) else "full",
        shared=first.shared or last.shared,
        loss_pct=assumed(100 * (1 - arriving)),
        retransmit_ms=assumed(max(first.retransmit_ms.value, last.retransmit_ms.value)),
        jitter_ms=assumed(first.jitter_ms.value + last.jitter_ms.value),
    )
