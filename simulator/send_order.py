"""The order in which a host sends: boards that need longest once their image is there come first.

This order gives the least latency, whatever the sends take: one machine, all jobs there from the
start, delivery times, longest delivery time first (Jackson 1955).  Where boards share a medium,
their replies wait for each other, and another order may be quicker: the planner searches for it.
"""

from collections.abc import Sequence

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
