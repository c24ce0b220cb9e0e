"""The order in which a host sends: boards that need longest once their image is there come first.

This order gives the least latency, whatever the sends take: one machine, all jobs there from the
start, delivery times, longest delivery time first (Jackson 1955).  Where boards share a medium,
their replies wait for each other, and another order may be quicker: the planner searches for it.
Boards of which no reply is waited for, as those of spare copies, come behind all others.

A board with G0 alone sends its maps on in the same order: what follows an exchange is what follows
a send, and the latency of the sender's own link is the same for all.  Where its own students stand
in the order does not matter, as their reply waits for all exchanges.
"""

from collections.abc import Collection, Sequence

from profiles.fleet import Board
from simulator.workload import StudentWork, busy_ms, reply_ms


def longest_first(boards: Sequence[Board], students: Sequence[StudentWork]) -> tuple[str, ...]:
    """Return the boards that have students, by what follows the send; ties keep their order."""
    tails_ms = {}
    for board in boards:
        here = [student for student in students if student.board == board.name]
        if here:
            replied_ms = reply_ms(board, sum(student.features for student in here))
            computed_ms = busy_ms(board.device, [student.macs for student in here])
            tails_ms[board.name] = computed_ms + replied_ms + 2 * board.link.latency_ms.value
    return tuple(sorted(tails_ms, key=lambda name: -tails_ms[name]))


def awaited_first(
    boards: Sequence[Board], students: Sequence[StudentWork], awaited: Collection[str]
) -> tuple[str, ...]:
    """Return the boards that have students, those whose replies are `awaited` longest first.

    The others are behind them, longest first too: to send to them delays nobody who is waited for.
    """
    order = longest_first(boards, students)
    return tuple(sorted(order, key=lambda name: name not in awaited))
