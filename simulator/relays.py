"""Relays: the boards that a message passes on its way, and their part of its time on the wire.

Of links in a row each board draws its radio's power for its own hops: one in between receives and
sends on, the last one only receives, or sends.  Between two boards all of them draw for the whole
time, which is that of the slower one's links.
"""

from profiles.fleet import Board, Relay


def between(sender: Board, receiver: Board) -> tuple[Relay, ...]:
    """Return the boards on the way from `sender` to `receiver`, in this order.

    It leads towards the host as far as the last board that the routes of both have in common.
    """
    there, back = (*sender.via, sender), (*receiver.via, receiver)
    common = 0
    for one, other in zip(there, back, strict=False):
        if one.name != other.name:
            break
        common += 1
    turn = max(common - 1, 0)
    way = (*reversed(there[turn:]), *back[common:])
    ends = (sender.name, receiver.name)
    return tuple(each for each in way if each.name not in ends)


def radio_parts(board: Board) -> tuple[tuple[str, float], ...]:
    """Return which part of the time on the wire to `board` is of whose own hops, by name.

    Empty where the host reaches the board itself and one hop is all.
    """
    if not board.via:
        return ()
    route = (*board.via, board)
    until = [1 / each.link.bits_per_s.value for each in route]  # s per bit, from the host to each
    since = (0.0, *until[:-1])
    sent_on = (*until[1:], until[-1])
    return tuple(
        (each.name, (last - first) / until[-1])
        for each, first, last in zip(route, since, sent_on, strict=True)
    )
