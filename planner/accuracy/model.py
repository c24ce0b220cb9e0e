"""The accuracy model: accuracy and its interval by the size of all students.

It stands on published rows (arXiv:1907.11804, Tables 2 to 5) and on the user's own finished runs.
With A_T the teacher's accuracy, P and M the parameters and MACs of all boards together::

    ln((A_T - A) / (100 - A_T)) = offset(teacher) + kd * [plain KD] + slope * missing
    missing = ln(P_T / P) / 2 + ln(M_T / M) / 2,   slope >= 0

Least squares under the bound.  One teacher on one data set has one offset; a teacher without rows
gets the mean of the others', which may be off by as much as they differ.  Why this form:
benchmarks/accuracy_forms.py compares it with others.  Accuracy is that of trained fp32 weights:
no row tells what storing them at fewer bits costs.  No network is worse than chance, 100 / classes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, hypot, inf, log, sqrt

import numpy as np
from numpy.typing import NDArray

from nonn_common.errors import InputError
from nonn_core.evidence import counted_images, student_t_quantile, wilson_bounds_pct
from planner.accuracy import ACCURACIES, DROPS, AccuracyEstimate
from planner.accuracy.rows import AccuracyRow, Method, TeacherFacts, published_rows, size_index

CONFIDENCE = 0.95
LEAST_PCT = 0.1
"""Smallest drop and smallest error of a teacher, in points, that count: below, test images do not
tell any (one of 10,000 is 0.01, the standard error at 95 % is 0.2)."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DropInterval:
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
    values: FloatArray
    covariance: FloatArray
    variance: float
    freedom: int

    @property
    def offsets(self) -> FloatArray:
        """Offset of each teacher."""
        return self.values[:-2]

    @property
    def kd(self) -> float:
        """Offset of plain KD in the logarithm of the drop."""
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
    ) -> DropInterval:
        """Return ln(drop in points) of a model `missing` so much of its teacher's size.

        `place` is the teacher's, None for one without rows; `error_pct` is 100 minus its accuracy,
        None where that is not known.
        """
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
        scale = float(chosen @ scales) if error_pct is None else log(_at_least_least(error_pct))
        half = student_t_quantile(freedom, CONFIDENCE) * sqrt(variance)
        return DropInterval(centre + scale, half)


def fit_rows(rows: Sequence[AccuracyRow]) -> AccuracyFit:
    """Least-squares fit of the rows.

    There must be more rows than teachers plus two, of two teachers or more.
    """
    # The first row of a teacher says how accurate it is.
    errors = {
        row.teacher: _at_least_least(100 - row.teacher_accuracy_pct) for row in reversed(rows)
    }
    teachers = tuple(dict.fromkeys(row.teacher for row in rows))
    design = np.array([_design_row(row, teachers) for row in rows])
    wanted = np.array([_response(row) for row in rows])
    values = _bounded_least_squares(design, wanted)
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


def leave_one_out_errors(rows: Sequence[AccuracyRow]) -> tuple[float | None, ...]:
    """Return, row by row, predicted minus true accuracy (points) by a fit without that row.

    None for the only row of its teacher.
    """
    errors: list[float | None] = []
    for place, row in enumerate(rows):
        others = [*rows[:place], *rows[place + 1 :]]
        alone = all(other.teacher != row.teacher for other in others)
        errors.append(None if alone else _error(fit_rows(others), row))
    return tuple(errors)


def leave_teacher_out_errors(rows: Sequence[AccuracyRow]) -> tuple[float, ...]:
    """Errors (points) of each row under a fit without its teacher's rows."""
    fits = {
        teacher: fit_rows([row for row in rows if not _related(row.teacher, teacher)])
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


def _bounded_least_squares(design: FloatArray, wanted: FloatArray) -> FloatArray:
    """Solve least squares with the last coefficient, the slope, not below 0.

    With one bounded coefficient the constrained solution is the free one, or that without it.
    """
    values = _least_squares(design, wanted)
    if values[-1] < 0:
        values = np.append(_least_squares(design[:, :-1], wanted), 0.0)
    return values


def _least_squares(design: FloatArray, wanted: FloatArray) -> FloatArray:
    # numpy's: scipy.linalg has the same and takes a twentieth of `nonn-plan plan` to load.
    return np.linalg.lstsq(design, wanted)[0].astype(np.float64)


def _design_row(row: AccuracyRow, teachers: Sequence[TeacherFacts]) -> list[float]:
    own = [float(row.teacher == teacher) for teacher in teachers]
    return [*own, float(row.method == "kd"), row.missing]


def _response(row: AccuracyRow) -> float:
    drop = row.teacher_accuracy_pct - row.accuracy_pct
    return log(_at_least_least(drop) / _at_least_least(100 - row.teacher_accuracy_pct))


def _at_least_least(points: float) -> float:
    return max(points, LEAST_PCT)


@dataclass(frozen=True, slots=True)
class AccuracyModel:
    """Accuracy as a function of size, for one teacher; grows with parameters and with MACs.

    `index` is what an optimiser maximises: accuracy depends on size through it alone, and grows
    with it.  `teacher_accuracy_pct` is None where it is not known, `teacher_images` where it is not
    known on how many images it was measured.
    """

    teacher: TeacherFacts
    teacher_accuracy_pct: float | None
    fit: AccuracyFit
    rows: tuple[AccuracyRow, ...]
    own_rows: int
    leave_one_out_pct: float
    teacher_images: int | None = None

    @property
    def floor_pct(self) -> float:
        """Least accuracy that any network has: chance, or a teacher that surely is worse."""
        chance_pct = 100 / self.teacher.classes
        if self.teacher_accuracy_pct is None:
            return chance_pct
        return min(chance_pct, self.teacher_interval_pct()[1])

    @property
    def slope(self) -> float:
        """By how much ln(drop) falls where the index grows by 1."""
        return self.fit.slope

    def index(self, params: float, macs: float) -> float:
        """Return half of ln(params) plus half of ln(MACs); of all boards, copies of G0 counted."""
        return size_index(params, macs)

    def accuracy_pct(self, index: float, method: Method = "nonn") -> float:
        """Return the median accuracy in percent, not below `floor_pct`.

        Raises InputError where the teacher's accuracy is not known.
        """
        return max(self.floor_pct, self._teacher_pct() - self.drop_pct(index, method))

    def drop_pct(self, index: float, method: Method = "nonn") -> float:
        """Median drop below the teacher in points, by the fit alone.

        It may be more than there is between the teacher and chance.
        """
        return exp(self._spread(index, method).centre)

    def index_for(self, accuracy_pct: float, method: Method = "nonn") -> float:
        """Return the least index whose median accuracy is at least this.

        -inf where any size does, inf where none does, which is so from the teacher's accuracy on.
        Raises InputError where the teacher's accuracy is not known.
        """
        drop = self._teacher_pct() - accuracy_pct
        if accuracy_pct <= self.floor_pct:
            return -inf
        here = self.teacher.index
        excess = self._spread(here, method).centre - log(drop) if drop > 0 else inf
        if excess > 0 and (drop <= 0 or self.slope == 0):
            return inf
        return here + excess / self.slope if self.slope > 0 else -inf

    def estimate(self, params: float, macs: float, method: Method = "nonn") -> AccuracyEstimate:
        """Predict a model whose boards together have `params` and do `macs` for an image."""
        spread = self._spread(self.index(params, macs), method)
        drops = [exp(spread.centre + k * spread.half) for k in (0, -1, 1)]
        accuracies = [None, None, None] if self.teacher_accuracy_pct is None else self._from(*drops)
        estimate = AccuracyEstimate(
            **dict(zip(ACCURACIES, accuracies, strict=True)),
            **dict(zip(DROPS, drops, strict=True)),
            rows=len(self.rows),
            own_rows=self.own_rows,
            leave_one_out_pct=self.leave_one_out_pct,
            basis=self._basis(params, macs),
        )
        return self.limited(estimate)

    def limited(self, estimate: AccuracyEstimate) -> AccuracyEstimate:
        """Return an estimate that is nowhere below `floor_pct`."""
        known = self.teacher_accuracy_pct
        return estimate.limited(self.floor_pct, 100.0 if known is None else known)

    def _from(self, drop: float, least: float, most: float) -> tuple[float, float, float]:
        """Accuracy and its interval from a drop and the ends of its interval.

        Where the teacher's accuracy was measured on a number of images, its own interval is added
        in squares (Zou and Donner 2008, Statistics in Medicine 27, 1693-1702).
        """
        known, (low, high) = self._teacher_pct(), self.teacher_interval_pct()
        value = known - drop
        return (
            value,
            value - hypot(known - low, most - drop),
            value + hypot(high - known, drop - least),
        )

    def teacher_interval_pct(self) -> tuple[float, float]:
        """Interval of the teacher's accuracy (Wilson 1927); a point of unknown images."""
        known = self._teacher_pct()
        if self.teacher_images is None:
            return known, known
        return wilson_bounds_pct(known, self.teacher_images, 50 * (1 + CONFIDENCE))

    def _teacher_pct(self) -> float:
        if self.teacher_accuracy_pct is None:
            raise InputError(
                "the teacher's accuracy is not known, so that only the drop below it can be told",
                where=self.teacher.title,
            )
        return self.teacher_accuracy_pct

    def _spread(self, index: float, method: Method) -> DropInterval:
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
        if self.teacher_images is not None:
            parts.append(f"the teacher's accuracy is of {counted_images(self.teacher_images)}")
        missing = self.teacher.index - self.index(params, macs)
        seen = [row.missing for row in self.rows]
        if not min(seen) <= missing <= max(seen):
            beside = "smaller" if missing > max(seen) else "larger"
            parts.append(f"{beside} beside its teacher than any row: extrapolated")
        return "; ".join(parts)


def fit_accuracy_model(
    teacher: TeacherFacts,
    teacher_accuracy_pct: float | None = None,
    own_rows: Sequence[AccuracyRow] = (),
    teacher_images: int | None = None,
) -> AccuracyModel:
    """Fit the published rows and `own_rows`, for this teacher.

    A teacher without own rows takes the published rows of the same network, image and classes, and
    their teacher's accuracy where its own is None; otherwise the mean of all teachers.  The
    accuracy of a teacher with own rows is, where it is None, that of these rows.
    """
    rows = (*own_rows, *published_rows())
    fit = fit_rows(rows)
    place = fit.known(teacher)
    same = () if place is None else tuple(r for r in rows if r.teacher == fit.teachers[place])
    known = teacher_accuracy_pct
    if known is None and same:
        known = same[0].teacher_accuracy_pct
    return AccuracyModel(
        teacher,
        known,
        fit,
        rows,
        len(own_rows),
        _leave_one_out_pct(rows, fit, place),
        teacher_images,
    )


def _leave_one_out_pct(rows: Sequence[AccuracyRow], fit: AccuracyFit, place: int | None) -> float:
    if place is not None:
        errors = zip(rows, leave_one_out_errors(rows), strict=True)
        known = root_mean_square(e for row, e in errors if row.teacher == fit.teachers[place])
        if known is not None:
            return known
    return root_mean_square(leave_teacher_out_errors(rows)) or 0.0


def _counted_rows(rows: int, own: int) -> str:
    published = f"{rows - own} rows of arXiv:1907.11804"
    return f"{own} own and {published}" if own else published


UNITS_PER_INDEX = 10**6
"""Units per 1 of ln(parameters) + ln(MACs), what accuracy grows with."""
