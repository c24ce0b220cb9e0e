"""A draft: students that a baseline has placed so far, and what the boards still take."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from planner.assignment import Assignment
from planner.instance import Instance
from planner.option import Option
from simulator.workload import busy_ms, reply_ms, send_ms

Use = tuple[int, int]
"""Bytes and MACs that the students of a board need together."""


@dataclass(frozen=True, slots=True)
class Placed:
    """One student of a draft: the ids of its communities, their filters, network, boards."""

    communities: tuple[int, ...]
    filters: int
    option: Option
    boards: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Draft:
    """Students on boards of an instance; use, and time after the send, of each board in use."""

    instance: Instance
    placed: tuple[Placed, ...]
    use: dict[int, Use]
    tails_ms: dict[int, float]

    @classmethod
    def empty(cls, instance: Instance) -> "Draft":
        """Begin with no student."""
        return cls(instance, (), {}, {})

    def boards_for(self, option: Option, communities: Sequence[int]) -> tuple[int, ...]:
        """Return the boards with room for one student more, in the fleet's order."""
        more = _needs(option, self.filters(communities))
        return tuple(b for b in range(len(self.instance.sites)) if self._takes(b, more))

    def _takes(self, board: int, more: Use) -> bool:
        site = self.instance.sites[board]
        size, macs = self._used(board, more)
        return (site.memory_bytes is None or size <= site.memory_bytes) and (
            site.macs is None or macs <= site.macs
        )

    def _used(self, board: int, more: Use) -> Use:
        size, macs = self.use.get(board, (0, 0))
        return size + more[0], macs + more[1]

    def filters(self, communities: Sequence[int]) -> int:
        """Return how many filters these communities hold."""
        return sum(self.instance.sizes[c] for c in communities)

    def plus(
        self, board: int, option: Option, communities: Sequence[int], copies: Sequence[int] = ()
    ) -> "Draft":
        """Return this draft with one student more, and copies; the caller knows that all fit."""
        filters, boards = self.filters(communities), (board, *copies)
        placed = (*self.placed, Placed(tuple(communities), filters, option, boards))
        use = {b: self._used(b, _needs(option, filters)) for b in boards}
        tails_ms = {
            b: self._tail_ms(b, [each for each in placed if b in each.boards]) for b in boards
        }
        return replace(self, placed=placed, use=self.use | use, tails_ms=self.tails_ms | tails_ms)

    def _tail_ms(self, board: int, students: Sequence[Placed]) -> float:
        site = self.instance.sites[board].board
        computed_ms = busy_ms(
            site.device, [each.option.line.at(each.filters).macs for each in students]
        )
        replied_ms = reply_ms(site, sum(each.filters for each in students))
        return computed_ms + replied_ms + 2 * site.link.latency_ms.value

    def done_ms(self, board: int) -> float:
        """Return when the reply of a board with students is there (`simulator.closed_form`).

        The host sends first to boards that need longest once their image is there.
        """
        tail_ms = self.tails_ms[board]
        before = [b for b, other in self.tails_ms.items() if (-other, b) <= (-tail_ms, board)]
        sites = self.instance.sites
        sent_ms = sum(send_ms(sites[b].board, self.instance.image_bytes) for b in before)
        return sent_ms + tail_ms

    def alone_ms(self, board: int, option: Option, communities: Sequence[int]) -> float:
        """Return how long one image takes where this is the only student anywhere."""
        return Draft.empty(self.instance).plus(board, option, communities).done_ms(board)

    def assignment(self, dropped: Sequence[int]) -> Assignment:
        """Return what has been decided."""
        students = tuple(each.option.student(each.communities, each.boards) for each in self.placed)
        return Assignment(students, tuple(sorted(dropped)))


def _needs(option: Option, filters: int) -> Use:
    return option.memory_bytes(filters), option.line.at(filters).macs
