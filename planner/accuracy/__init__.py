"""Accuracy of a plan, fitted to published rows and to finished runs."""

from typing import Self

from pydantic import Field

from nonn_common.document import Record

ACCURACIES = ("value_pct", "low_pct", "high_pct")
"""Fields of an estimate that are accuracies: the median, and the ends of its interval."""
DROPS = ("drop_pct", "drop_low_pct", "drop_high_pct")
"""Fields that are drops below the teacher, likewise."""


class AccuracyEstimate(Record):
    """A predicted accuracy with its 95 % prediction interval for one trained network."""

    value_pct: float | None = Field(
        description="Test accuracy with every student, in percent: the median; null where the "
        "teacher's accuracy is not known."
    )
    low_pct: float | None = Field(description="Lower end of the interval, in percent, or null.")
    high_pct: float | None = Field(description="Upper end of the interval, in percent, or null.")
    drop_pct: float = Field(ge=0, description="Median drop below the teacher, in points.")
    drop_low_pct: float = Field(ge=0, description="Smallest drop of the interval, in points.")
    drop_high_pct: float = Field(ge=0, description="Largest drop of the interval, in points.")
    rows: int = Field(gt=0, description="Rows that the fit rests on.")
    own_rows: int = Field(ge=0, description="How many of them are the user's own runs.")
    leave_one_out_pct: float = Field(
        ge=0,
        description="Root mean square, in points, of predicted minus true accuracy of the rows of "
        "this teacher, each by a fit without it; where there are fewer than two, of all rows, each "
        "by a fit without any row of its teacher.",
    )
    basis: str = Field(description="What rows these are and what had to be assumed.")

    def limited(self, floor_pct: float, teacher_pct: float) -> Self:
        """Return it with accuracies of `floor_pct` to 100, and drops down to there at most."""
        limits: dict[str, float] = {}
        for name in ACCURACIES:
            accuracy_pct = getattr(self, name)
            if accuracy_pct is not None:
                limits[name] = min(100.0, max(floor_pct, accuracy_pct))
        for name in DROPS:
            limits[name] = min(max(0.0, teacher_pct - floor_pct), getattr(self, name))
        return self.model_copy(update=limits)
