"""What can be read of a plan, whether it is numbers or expressions of a model."""

from typing import Literal, Protocol, TypeVar

Figure = Literal["params", "memory_bytes", "macs", "value_bytes", "busy", "energy"]
"""What a board's students cost together, in solver units."""

SENDER = "host"
"""What the host sends with: one message at a time."""

Amount = Literal["params", "macs", "value_bytes"]
"""What a student has of its own, wherever it runs and however often."""

Amount_co = TypeVar("Amount_co", covariant=True)


class View(Protocol[Amount_co]):
    """A plan, or all plans at once: amounts are numbers, or linear expressions of a model."""

    def total(self, figure: Figure) -> Amount_co:
        """Return a figure, added up over all boards."""

    def knowledge(self, figure: Amount) -> Amount_co:
        """Return a figure, added up over all students, copies not counted."""

    def survival(self) -> Amount_co:
        """Return how many failures, whichever they are, leave each student an answering board."""

    def boards(self) -> Amount_co:
        """Return how many boards have a student, or G0 alone."""

    def students(self) -> Amount_co:
        """Return how many students there are."""

    def highest(self, figure: Figure) -> Amount_co:
        """Return a figure of the board where it is highest."""

    def latency(self) -> Amount_co:
        """Return the latency of one image, in solver units."""

    def period(self) -> Amount_co:
        """Return the longest time that anything is busy with one image, in solver units."""

    def size(self) -> Amount_co:
        """Return ln(parameters) + ln(MACs) of all students, in solver units."""

    def spread(self) -> Amount_co:
        """Return the filters of the largest student less those of the smallest."""

    def dropped(self, delta_val: int, filters: int) -> Amount_co:
        """Return |delta_val| in solver units times one factor plus |P0| times the other."""


class BoardView(View[Amount_co], Protocol[Amount_co]):
    """A view that tells boards apart even where they are alike."""

    def on(self, board: int, figure: Figure) -> Amount_co:
        """Return a figure of one board, by its place in the fleet."""

    def robustness(self) -> Amount_co:
        """Return the expected accuracy when boards fail, in solver units."""

    def reliability(self) -> Amount_co:
        """Return the chance that an answer has the target accuracy, in solver units."""
