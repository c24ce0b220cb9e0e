"""Heuristics: plans found fast and without a proof."""

import math
from dataclasses import dataclass, field

DROPPED = -1


@dataclass(slots=True)
class SearchEffort:
    """Deterministic time that a search or a listing may take, and what it took."""

    limit: float = math.inf
    spent: float = 0.0

    @property
    def over(self) -> bool:
        """Whether the limit is reached."""
        return self.spent >= self.limit


@dataclass(slots=True)
class Solution:
    """Owner of each community (or `DROPPED`), mode and board of each student, drop choice.

    The last students, one for each in `again`, are of further rounds: they mimic as many filters
    as these communities have.  `copies` are further boards of each student.
    """

    owners: list[int]
    modes: list[int]
    boards: list[int]
    drop: int
    extra_communities: list[int] = field(default_factory=list)
    copies: list[tuple[int, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.copies = self.copies or [()] * len(self.modes)

    def copy(self) -> "Solution":
        """Return a solution of its own."""
        return Solution(
            self.owners[:],
            self.modes[:],
            self.boards[:],
            self.drop,
            self.extra_communities[:],
            self.copies[:],
        )

    def replica_sets(self) -> list[tuple[int, ...]]:
        """Return all boards of each student; the host waits for the first one."""
        return [(board, *copies) for board, copies in zip(self.boards, self.copies, strict=True)]

    @property
    def first_round(self) -> range:
        """The students that own communities."""
        return range(len(self.modes) - len(self.extra_communities))
