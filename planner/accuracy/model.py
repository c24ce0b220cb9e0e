"""The accuracy model: what students of this size will know, how sure that is, and from which rows.

It stands on published rows (A, Tables 2 to 5) and on the user's own finished runs; for the form of
the fit see `accuracy_fit`.  Accuracy is that of trained fp32 weights: no row tells what storing
them at fewer bits costs.  Loads scipy when a model is made, not before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, log

from pydantic import Field

from planner.accuracy.fit import (
    AccuracyFit,
    Spread,
    fitted,
    left_out_errors,
    left_out_teacher_errors,
    root_mean_square,
)
from planner.accuracy.rows import AccuracyRow, Method, TeacherFacts, index_of, published_rows
from profiles.document import Record
from profiles.errors import InputError


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


@dataclass(frozen=True, slots=True)
class AccuracyModel:
    """Accuracy as a function of size, for one teacher; grows with parameters and with MACs.

    `index` is what an optimiser maximises: accuracy depends on size through it alone, and grows
    with it.  `teacher_accuracy_pct` is None where it is not known.
    """

    teacher: TeacherFacts
    teacher_accuracy_pct: float | None
    fit: AccuracyFit
    rows: tuple[AccuracyRow, ...]
    own_rows: int
    leave_one_out_pct: float

    @property
    def slope(self) -> float:
        """By how much ln(drop) falls where the index grows by 1."""
        return self.fit.slope

    def index(self, params: float, macs: float) -> float:
        """Return half of ln(params) plus half of ln(MACs); of all boards, copies of G0 counted."""
        return index_of(params, macs)

    def accuracy_pct(self, index: float, method: Method = "nonn") -> float:
        """Return the median accuracy in percent, not below 0.

        Raises InputError where the teacher's accuracy is not known.
        """
        return max(0.0, self._teacher_pct() - self.drop_pct(index, method))

    def drop_pct(self, index: float, method: Method = "nonn") -> float:
        """Return the median drop below the teacher in points, which may be more than it has."""
        return exp(self._spread(index, method).centre)

    def index_for(self, accuracy_pct: float, method: Method = "nonn") -> float:
        """Return the least index whose median accuracy is at least this.

        -inf where any size does, inf where none does, which is so from the teacher's accuracy on.
        Raises InputError where the teacher's accuracy is not known.
        """
        drop = self._teacher_pct() - accuracy_pct
        if accuracy_pct <= 0:
            return -inf
        here = self.teacher.index
        excess = self._spread(here, method).centre - log(drop) if drop > 0 else inf
        if excess > 0 and (drop <= 0 or self.slope == 0):
            return inf
        return here + excess / self.slope if self.slope > 0 else -inf

    def estimate(self, params: float, macs: float, method: Method = "nonn") -> AccuracyEstimate:
        """Predict a model whose boards together have `params` and do `macs` for an image."""
        spread = self._spread(self.index(params, macs), method)
        drop, least, most = (exp(spread.centre + k * spread.half) for k in (0, -1, 1))
        known = self.teacher_accuracy_pct
        return AccuracyEstimate(
            value_pct=None if known is None else max(0.0, known - drop),
            low_pct=None if known is None else max(0.0, known - most),
            high_pct=None if known is None else max(0.0, known - least),
            drop_pct=drop,
            drop_low_pct=least,
            drop_high_pct=most,
            rows=len(self.rows),
            own_rows=self.own_rows,
            leave_one_out_pct=self.leave_one_out_pct,
            basis=self._basis(params, macs),
        )

    def _teacher_pct(self) -> float:
        if self.teacher_accuracy_pct is None:
            raise InputError(
                "the teacher's accuracy is not known, so that only the drop below it can be told",
                where=self.teacher.title,
            )
        return self.teacher_accuracy_pct

    def _spread(self, index: float, method: Method) -> Spread:
        missing = self.teacher.index - index
        known = self.teacher_accuracy_pct
        error = None if known is None else 100 - known
        return self.fit.spread(self.fit.known(self.teacher), missing, method, error)

    def _basis(self, params: float, macs: float) -> str:
        place = self.fit.known(self.teacher)
        parts = [_counted_rows(len(self.rows), self.own_rows)]
        if place is None:
            titles = "; ".join(teacher.title for teacher in self.fit.teachers)
            parts.append(f"teacher not among them ({titles}), so that the mean offset stands in")
        else:
            known = self.fit.teachers[place]
            same = sum(row.teacher == known for row in self.rows)
            like = "" if self.teacher.same(known) else ", same network, image and classes"
            parts.append(f"{same} of them of {known.title}{like}")
        missing = self.teacher.index - self.index(params, macs)
        seen = [row.missing for row in self.rows]
        if not min(seen) <= missing <= max(seen):
            beside = "smaller" if missing > max(seen) else "larger"
            parts.append(f"{beside} beside its teacher than any row: extrapolated")
        return "; ".join(parts)


def accuracy_model(
    teacher: TeacherFacts,
    teacher_accuracy_pct: float | None = None,
    own_rows: Sequence[AccuracyRow] = (),
) -> AccuracyModel:
    """Fit the published rows and `own_rows`, for this teacher.

    A teacher without own rows takes the published rows of the same network, image and classes, and
    their teacher's accuracy where its own is None; otherwise the mean of all teachers.  The
    accuracy of a teacher with own rows is, where it is None, that of these rows.
    """
    rows = (*own_rows, *published_rows())
    fit = fitted(rows)
    place = fit.known(teacher)
    same = () if place is None else tuple(r for r in rows if r.teacher == fit.teachers[place])
    known = teacher_accuracy_pct
    if known is None and same:
        known = same[0].teacher_accuracy_pct
    return AccuracyModel(
        teacher, known, fit, rows, len(own_rows), _leave_one_out_pct(rows, fit, place)
    )


def _leave_one_out_pct(rows: Sequence[AccuracyRow], fit: AccuracyFit, place: int | None) -> float:
    if place is not None:
        errors = zip(rows, left_out_errors(rows), strict=True)
        known = root_mean_square(e for row, e in errors if row.teacher == fit.teachers[place])
        if known is not None:
            return known
    return root_mean_square(left_out_teacher_errors(rows)) or 0.0


def _counted_rows(rows: int, own: int) -> str:
    published = f"{rows - own} rows of arXiv:1907.11804"
    return f"{own} own and {published}" if own else published
