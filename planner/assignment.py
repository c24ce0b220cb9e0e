"""An assignment: what the solver decides."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AssignedStudent:
    """One student: the ids of its communities, its network, the place of its board in the fleet."""

    communities: tuple[int, ...]
    network: str
    board: int


@dataclass(frozen=True, slots=True)
class Assignment:
    """All students, and the ids of the communities that are dropped."""

    students: tuple[AssignedStudent, ...]
    dropped: tuple[int, ...]
