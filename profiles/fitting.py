"""Fitting: non-negative least squares over relative errors, with what the rows cannot tell.

A row of 100 ms and one of 1400 ms count alike, since each residual is divided by the observed
value; no coefficient falls below zero (Lawson and Hanson's active set, scipy.optimize.nnls).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from profiles.figure import Figure

SIGNIFICANT_DIGITS = 6
"""Digits kept of a fitted figure: far below its error, and the same on every machine."""

_ZERO = 1e-9
"""Singular values and shares of a scaled design below this are rounding."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Line:
    """A measured value as the sum of `known` and of figures by name, each times its factor."""

    observed: float
    terms: Mapping[str, float]
    known: float = 0.0


@dataclass(frozen=True, slots=True)
class Coefficient:
    """A fitted value and its standard error, which is None where there is nothing to tell it."""

    value: float
    standard_error: float | None


@dataclass(frozen=True, slots=True)
class Fit:
    """Coefficients of one fit by name, and the largest relative error it leaves, in per cent.

    `coefficients` lacks those that the rows do not tell apart from others: `untold`.
    """

    coefficients: Mapping[str, Coefficient]
    untold: tuple[str, ...]
    residual_pct: float

    def figure(self, name: str, source: str) -> Figure:
        """Return one coefficient as a fitted figure that rests on `source`."""
        coefficient = self.coefficients[name]
        return Figure(
            value=coefficient.value,
            provenance="fitted",
            source=source,
            residual_pct=self.residual_pct,
            standard_error=coefficient.standard_error,
        )


def relative_fit(
    columns: Mapping[str, Sequence[float]],
    observed: Sequence[float],
    known: Sequence[float] | float = 0.0,
) -> Fit:
    """Fit `observed` [rows] as `known` [rows] plus a non-negative mix of `columns` [rows each].

    Minimises the sum over rows of ((fitted - observed) / observed)^2; `observed` is above zero.
    A standard error is that of ordinary least squares over the coefficients above zero,
    s^2 (X'X)^-1 with s^2 = RSS / (rows - coefficients); None without a row to spare.
    """
    target: Matrix = np.asarray(observed, dtype=np.float64)
    design = np.column_stack([np.asarray(each, dtype=np.float64) for each in columns.values()])
    design /= target[:, np.newaxis]
    wanted = 1.0 - np.asarray(known, dtype=np.float64) / target
    told = _told(design)
    values = _solution(design, wanted)
    errors = _standard_errors(design, wanted, values)
    rounded = np.array([rounded_figure(value) for value in values])
    left = np.abs(design @ rounded - wanted)
    return Fit(
        coefficients={
            name: Coefficient(float(rounded[i]), errors[i])
            for i, name in enumerate(columns)
            if told[i]
        },
        untold=tuple(name for i, name in enumerate(columns) if not told[i]),
        residual_pct=round(100.0 * float(left.max()), 2),
    )


def fit_lines(
    lines: Sequence[Line], stated: Mapping[str, Figure | None], source: str
) -> dict[str, Figure]:
    """Fit the figures of `lines` that are not `stated`; return those that the lines tell."""
    given = {name: figure.value for name, figure in stated.items() if figure is not None}
    wanted = dict.fromkeys(name for line in lines for name in line.terms if name not in given)
    columns = {name: [line.terms.get(name, 0.0) for line in lines] for name in wanted}
    columns = {name: column for name, column in columns.items() if any(column)}
    if not columns:
        return {}
    known = [
        line.known + sum(given.get(name, 0.0) * factor for name, factor in line.terms.items())
        for line in lines
    ]
    fit = relative_fit(columns, [line.observed for line in lines], known)
    return {name: fit.figure(name, source) for name in fit.coefficients}


def rounded_figure(value: float) -> float:
    """Return `value` with the digits that are kept of a fitted figure."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def _scales(design: Matrix) -> Matrix:
    """Return the length of each column, 1 for one of zeros: seconds and bytes differ by 1e6."""
    lengths: Matrix = np.linalg.norm(design, axis=0)
    return np.where(lengths > 0, lengths, 1.0)


def _told(design: Matrix) -> list[bool]:
    """Tell which coefficients the rows determine: those that no null vector moves."""
    _, singular, vectors = np.linalg.svd(design / _scales(design), full_matrices=True)
    rank = int(np.sum(singular > _ZERO * max(1.0, singular[0])))
    moved = np.abs(vectors[rank:]).max(axis=0, initial=0.0)
    return [bool(each < _ZERO) for each in moved]


def _solution(design: Matrix, wanted: Matrix) -> Matrix:
    scales = _scales(design)
    solution: Matrix = nnls(design / scales, wanted)[0] / scales
    return solution


def _standard_errors(design: Matrix, wanted: Matrix, values: Matrix) -> list[float | None]:
    free = np.flatnonzero(values > 0)
    spare = len(wanted) - len(free)
    errors: list[float | None] = [None] * len(values)
    active = design[:, free]
    if spare < 1 or np.linalg.matrix_rank(active / _scales(active)) < len(free):
        return errors
    left = active @ values[free] - wanted
    scales = _scales(active)
    inverse = np.linalg.inv((active / scales).T @ (active / scales))
    deviations = np.sqrt(float(left @ left) / spare * np.diag(inverse)) / scales
    for position, deviation in zip(free, deviations, strict=True):
        errors[int(position)] = rounded_figure(float(deviation))
    return errors
