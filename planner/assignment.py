"""An assignment: what the solver decides."""

from dataclasses import dataclass

from nonn_core.costs import Precision
from planner.group0 import OwnGroup0


@dataclass(frozen=True, slots=True)
class AssignedStudent:
    """One student: its communities, network, precision, and the place of its board in the fleet.

    A student of a later round than the first mimics as many filters as its community has, of all
    kept ones reshuffled.  `copies` are further boards that hold the same student.
    """

    communities: tuple[int, ...]
    network: str
    precision: Precision
    board: int
    round: int = 1
    copies: tuple[int, ...] = ()

    @property
    def boards(self) -> tuple[int, ...]:
        """All boards that hold it; the host waits for the first one."""
        return (self.board, *self.copies)


@dataclass(frozen=True, slots=True)
class Assignment:
    """All students, and the ids of the communities that are dropped.

    `send_order` names boards by their places in the fleet.  It is empty where the solver decided
    nothing that longest first (`simulator.send_order`) does not do as well.  `own` is G0 on a board
    of its own; None: each board has a copy.
    """

    students: tuple[AssignedStudent, ...]
    dropped: tuple[int, ...]
    send_order: tuple[int, ...] = ()
    own: OwnGroup0 | None = None
