"""The fit behind the accuracy model: how far students fall below their teacher.

With A_T the teacher's accuracy, P and M the parameters and MACs of all boards together::

    ln((A_T - A) / (100 - A_T)) = offset(teacher) + kd * [plain KD] + slope * missing
    missing = ln(P_T / P) / 2 + ln(M_T / M) / 2,   slope >= 0

Least squares under the bound.  One teacher on one data set has one offset; a teacher without rows
gets the mean of the others', which may be off by as much as they differ.  Why this form:
benchmarks/accuracy_forms.py compares it with others.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt

import numpy as np
from numpy.typing import NDArray

from planner.accuracy.rows import AccuracyRow, Method, TeacherFacts

CONFIDENCE = 0.95
LEAST_PCT = 0.1
"""Smallest drop and smallest error of a teacher, in points, that count: below, test images do not
tell any (one of 10,000 is 0.01, the standard error at 95 % is 0.2)."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Spread:
    """A logarithm of a drop: its median, and half of its 95 % prediction interval."""

    centre: float
    half: float


@dataclass(frozen=True, slots=True)
class AccuracyFit:
    """Fitted figures: offsets by teacher, then kd, then slope; `covariance` is theirs.

    `variance` is that of a row about the fit, with `freedom` degrees of freedom.
    """

    teachers: tuple[TeacherFacts, ...]
    errors_pct: tuple[float, ...]
    values: Matrix
    covariance: Matrix
    variance: float
    freedom: int

    @property
    def offsets(self) -> Matrix:
        """Offset of each teacher."""
        return self.values[:-2]

    @property
    def kd(self) -> float:
        """What plain KD adds to the logarithm of the drop."""
        return float(self.values[-2])

    @property
    def slope(self) -> float:
        """How fast the drop grows as the size shrinks; not below 0."""
        return float(self.values[-1])

    def known(self, teacher: TeacherFacts) -> int | None:
        """Return the place of this teacher, or else of one like it; None without any."""
        places = range(len(self.teachers))
        same = [place for place in places if teacher.same(self.teachers[place])]
        alike = [place for place in places if teacher.like(self.teachers[place])]
        return next(iter(same + alike), None)

    def spread(
        self, place: int | None, missing: float, method: Method, error_pct: float | None
    ) -> Spread:
        """Return ln(drop in points) of a model `missing` so much of its teacher's size.

        `place` is the teacher's, None for one without rows; `error_pct` is 100 minus its accuracy,
        None where that is not known.
        """
        from scipy.special import stdtrit

        others = len(self.teachers)
        chosen = np.full(others, 1 / others) if place is None else np.eye(others)[place]
        given = np.array([*chosen, float(method == "kd"), missing])
        centre, variance = float(given @ self.values), self.variance
        variance += float(given @ self.covariance @ given)
        freedom = self.freedom
        scales = np.log(self.errors_pct)
        if place is None:
            # How the teachers' own offsets scatter; without an error, those of the drop in points.
            scattered = self.offsets + (scales if error_pct is None else 0.0)
            variance += float(np.var(scattered, ddof=1)) * (1 + 1 / others)
            freedom = others - 1
        scale = float(chosen @ scales) if error_pct is None else log(_counted(error_pct))
        half = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * sqrt(variance)
        return Spread(centre + scale, half)


def fitted(rows: Sequence[AccuracyRow]) -> AccuracyFit:
    """Fit the rows; there must be more of them than teachers plus two, of two teachers or more."""
    # The first row of a teacher says how accurate it is.
    errors = {row.teacher: _counted(100 - row.teacher_accuracy_pct) for row in reversed(rows)}
    teachers = tuple(dict.fromkeys(row.teacher for row in rows))
    design = np.array([_design_line(row, teachers) for row in rows])
    wanted = np.array([_response(row) for row in rows])
    values = _solution(design, wanted)
    # A slope at its bound is no figure that the rows tell.
    free = [*range(design.shape[1] - 1), *([-1] if values[-1] > 0 else [])]
    left = wanted - design @ values
    freedom = len(rows) - len(free)
    variance = float(left @ left) / freedom
    covariance = np.zeros((len(values), len(values)))
    active = design[:, free]
    covariance[np.ix_(free, free)] = variance * np.linalg.inv(active.T @ active)
    return AccuracyFit(
        teachers,
        tuple(errors[teacher] for teacher in teachers),
        values,
        covariance,
        variance,
        freedom,
    )


def left_out_errors(rows: Sequence[AccuracyRow]) -> tuple[float | None, ...]:
    """Return, row by row, predicted minus true accuracy (points) by a fit without that row.

    None for the only row of its teacher.
    """
    errors: list[float | None] = []
    for place, row in enumerate(rows):
        others = [*rows[:place], *rows[place + 1 :]]
        alone = all(other.teacher != row.teacher for other in others)
        errors.append(None if alone else _error(fitted(others), row))
    return tuple(errors)


def left_out_teacher_errors(rows: Sequence[AccuracyRow]) -> tuple[float, ...]:
    """Return, row by row, that error by a fit without any row of the row's teacher."""
    fits = {
        teacher: fitted([row for row in rows if not _related(row.teacher, teacher)])
        for teacher in dict.fromkeys(row.teacher for row in rows)
    }
    return tuple(_error(fits[row.teacher], row) for row in rows)


def root_mean_square(errors: Iterable[float | None]) -> float | None:
    """Return the root of the mean square of those that are known; None without any."""
    known = [error for error in errors if error is not None]
    return sqrt(sum(error * error for error in known) / len(known)) if known else None


def _related(teacher: TeacherFacts, other: TeacherFacts) -> bool:
    return teacher.same(other) or teacher.like(other)


def _error(fit: AccuracyFit, row: AccuracyRow) -> float:
    place = fit.teachers.index(row.teacher) if row.teacher in fit.teachers else None
    spread = fit.spread(place, row.missing, row.method, 100 - row.teacher_accuracy_pct)
    return row.teacher_accuracy_pct - exp(spread.centre) - row.accuracy_pct


def _solution(design: Matrix, wanted: Matrix) -> Matrix:
    """Solve least squares with the last coefficient, the slope, not below 0.

    With one bounded coefficient the constrained solution is the free one, or that without it.
    """
    values = _least_squares(design, wanted)
    if values[-1] < 0:
        values = np.append(_least_squares(design[:, :-1], wanted), 0.0)
    return values


def _least_squares(design: Matrix, wanted: Matrix) -> Matrix:
    # numpy's: scipy.linalg has the same and takes a twentieth of `nonn-plan plan` to load.
    return np.linalg.lstsq(design, wanted)[0].astype(np.float64)


def _design_line(row: AccuracyRow, teachers: Sequence[TeacherFacts]) -> list[float]:
    own = [float(row.teacher == teacher) for teacher in teachers]
    return [*own, float(row.method == "kd"), row.missing]


def _response(row: AccuracyRow) -> float:
    drop = row.teacher_accuracy_pct - row.accuracy_pct
    return log(_counted(drop) / _counted(100 - row.teacher_accuracy_pct))


def _counted(points: float) -> float:
    return max(points, LEAST_PCT)
