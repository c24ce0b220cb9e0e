"""Options: the networks that a student may be, and the communities that may be dropped."""

from collections.abc import Sequence
from dataclasses import dataclass

from nonn_core.costs import BYTES_PER_VALUE, Precision, StudentCostLine, student_cost_line
from nonn_core.family import NetworkSpec
from nonn_core.image import Image
from nonn_core.partition import DropStep
from planner.assignment import AssignedStudent
from planner.scaling import UNITS_PER_POINT, up

Head = tuple[int, int, int]
"""Parameters and MACs that one more filter costs a student, and bytes of a value."""


@dataclass(frozen=True, slots=True)
class Option:
    """A network at a precision, as a student may be.

    Options of one `head` have as many parameters, MACs and bytes more per filter.  `behind` is what
    remains of `line` where G0 is on a board of its own.
    """

    name: str
    precision: Precision
    group0: str
    head: Head
    line: StudentCostLine
    behind: StudentCostLine

    @classmethod
    def of(cls, spec: NetworkSpec, precision: Precision, image: Image) -> "Option":
        """Describe a network that looks at images of this shape."""
        line, behind = (student_cost_line(spec, image, own) for own in (True, False))
        head = (line.params_per_filter, line.macs_per_filter, BYTES_PER_VALUE[precision])
        return cls(str(spec), precision, spec.group0, head, line, behind)

    def student(
        self, communities: Sequence[int], boards: Sequence[int], number: int = 1
    ) -> AssignedStudent:
        """Return a student of this option, in the round of this number, on boards."""
        own = tuple(sorted(communities))
        first, *copies = boards
        return AssignedStudent(own, self.name, self.precision, first, number, tuple(copies))

    @property
    def value_bytes(self) -> int:
        """Bytes of one parameter or activation."""
        return BYTES_PER_VALUE[self.precision]

    def memory_bytes(self, filters: int) -> int:
        """Return what parameters and peak activations take, in bytes."""
        return self.line.at(filters).memory_bytes(self.precision)


@dataclass(frozen=True, slots=True)
class DropOption:
    """A union of communities that may be dropped as P0."""

    communities: frozenset[int]
    filters: int
    delta_val_pct: float

    @property
    def delta_units(self) -> int:
        """|delta_val| in solver units."""
        return up(self.delta_val_pct, UNITS_PER_POINT)


def drop_option(step: DropStep) -> DropOption:
    """Describe a drop step; what was not measured but is allowed (g0) counts as no change."""
    return DropOption(frozenset(step.communities), step.filters, abs(step.delta_val_pct or 0.0))
