"""Fitting by non-negative least squares over relative errors, for devices and for layers.

A row of 100 ms and one of 1400 ms count alike, since each residual is divided by the observed
value; no coefficient falls below zero (Lawson and Hanson's active set, scipy.optimize.nnls).  What
the rows cannot tell from other coefficients is said to be so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat
from scipy.optimize import nnls

from nonn_common.csv_table import CsvTable
from nonn_common.document import Record
from nonn_common.errors import InputError, ProfileError
from profiles import Quantity
from profiles.layer import (
    TERMS,
    KindCost,
    LayerKind,
    LayerModel,
    LayerWork,
    RuntimePrecision,
    Term,
    kernel_of,
    layer_features,
    layer_ms,
)

_MOST_NAMED = 6

SIGNIFICANT_DIGITS = 6
"""Digits kept of a fitted quantity: far below its error, and the same on every machine."""

_ZERO = 1e-9
"""Singular values and shares of a scaled design below this are rounding."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Observation:
    """A measured value as a sum of quantities times factors.

    `terms` holds the factors by the name of the quantity; `known` is the rest of the sum; `row`
    names the measured row.
    """

    observed: float
    terms: Mapping[str, float]
    known: float = 0.0
    row: str = ""


@dataclass(frozen=True, slots=True)
class Coefficient:
    """A fitted value and its standard error, None where it is unknown."""

    value: float
    standard_error: float | None


@dataclass(frozen=True, slots=True)
class Fit:
    """Coefficients of one fit by name, and its largest relative error.

    Those that the rows do not tell apart from others are `unidentifiable` and not among the
    `coefficients`.  `residual_pct` is in per cent.
    """

    coefficients: Mapping[str, Coefficient]
    unidentifiable: tuple[str, ...]
    residual_pct: float

    def quantity(self, name: str, source: str) -> Quantity:
        """One coefficient as a fitted quantity that rests on `source`."""
        coefficient = self.coefficients[name]
        return Quantity(
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
    spent: int = 0,
) -> Fit:
    """Fit `observed` [rows] as `known` [rows] plus a non-negative mix of `columns` [rows each].

    Minimises the sum over rows of ((fitted - observed) / observed)^2; `observed` is above zero.
    A standard error is that of ordinary least squares over the coefficients above zero,
    s^2 (X'X)^-1 with s^2 = RSS / (rows - coefficients - spent); None without a row to spare.
    """
    target: Matrix = np.asarray(observed, dtype=np.float64)
    design = np.column_stack([np.asarray(each, dtype=np.float64) for each in columns.values()])
    design /= target[:, np.newaxis]
    wanted = 1.0 - np.asarray(known, dtype=np.float64) / target
    identifiable = _identifiable(design)
    values = _solution(design, wanted)
    errors = _standard_errors(design, wanted, values, spent)
    rounded = np.array([rounded_value(value) for value in values])
    left = np.abs(design @ rounded - wanted)
    return Fit(
        coefficients={
            name: Coefficient(float(rounded[i]), errors[i])
            for i, name in enumerate(columns)
            if identifiable[i]
        },
        unidentifiable=tuple(name for i, name in enumerate(columns) if not identifiable[i]),
        residual_pct=round(100.0 * float(left.max()), 2),
    )


def fit_observations(
    observations: Sequence[Observation],
    stated: Mapping[str, Quantity | None],
    source: str,
    spent: int = 0,
) -> dict[str, Quantity]:
    """Fit the quantities of `observations` that are neither `stated` nor unidentifiable.

    So many figures beside them, `spent`, were fitted to the same rows before.
    """
    given = {name: quantity.value for name, quantity in stated.items() if quantity is not None}
    wanted = dict.fromkeys(
        name for each in observations for name in each.terms if name not in given
    )
    columns = {name: [each.terms.get(name, 0.0) for each in observations] for name in wanted}
    columns = {name: column for name, column in columns.items() if any(column)}
    if not columns:
        return {}
    known = [
        each.known + sum(given.get(name, 0.0) * factor for name, factor in each.terms.items())
        for each in observations
    ]
    fit = relative_fit(columns, [each.observed for each in observations], known, spent)
    return {name: fit.quantity(name, source) for name in fit.coefficients}


def falling_error(
    device: str, pair: tuple[str, str], observations: Sequence[Observation]
) -> ProfileError:
    """Error that names the rows whose time or energy does not grow with the MACs."""
    fixed, slope = pair
    what, unit = ("energy", "mJ") if slope == "power_busy_w" else ("time", "ms")
    points = []
    for each in observations:
        if each.terms.get(slope):
            # Of several models at once: the work, and the time or energy, of one.
            models = each.terms.get(fixed) or 1.0
            points.append((each.terms[slope] / models, (each.observed - each.known) / models, each))
    points.sort(key=lambda point: point[0])
    falling = [
        (work, value, each)
        for work, value, each in points
        if any(
            (work < more and value >= less) or (work > more and value <= less)
            for more, less, _ in points
        )
    ]
    named = [f"{each.row} ({each.observed:g} {unit})" for *_, each in falling or points]
    if len(named) > _MOST_NAMED:
        named[_MOST_NAMED:] = [f"and {len(named) - _MOST_NAMED} more"]
    return ProfileError(
        f"{what} does not grow with the MACs; in their order: {', '.join(named)}",
        where=f"device {device}",
        fix="measure these rows again, or leave out what is wrong",
    )


def rounded_value(value: float) -> float:
    """`value` with the digits that are kept of a fitted quantity."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def _scales(design: Matrix) -> Matrix:
    """Length of each column, 1 for one of zeros.

    Seconds and bytes differ by 1e6.
    """
    lengths: Matrix = np.linalg.norm(design, axis=0)
    return np.where(lengths > 0, lengths, 1.0)


def _identifiable(design: Matrix) -> list[bool]:
    """Coefficients that the rows determine: those that no null vector moves."""
    _, singular, vectors = np.linalg.svd(design / _scales(design), full_matrices=True)
    rank = int(np.sum(singular > _ZERO * max(1.0, singular[0])))
    moved = np.abs(vectors[rank:]).max(axis=0, initial=0.0)
    return [bool(each < _ZERO) for each in moved]


def _solution(design: Matrix, wanted: Matrix) -> Matrix:
    scales = _scales(design)
    solution: Matrix = nnls(design / scales, wanted)[0] / scales
    return solution


def _standard_errors(
    design: Matrix, wanted: Matrix, values: Matrix, spent: int
) -> list[float | None]:
    free = np.flatnonzero(values > 0)
    spare = len(wanted) - len(free) - spent
    errors: list[float | None] = [None] * len(values)
    active = design[:, free]
    if spare < 1 or np.linalg.matrix_rank(active / _scales(active)) < len(free):
        return errors
    left = active @ values[free] - wanted
    scales = _scales(active)
    inverse = np.linalg.inv((active / scales).T @ (active / scales))
    deviations = np.sqrt(float(left @ left) / spare * np.diag(inverse)) / scales
    for position, deviation in zip(free, deviations, strict=True):
        errors[int(position)] = rounded_value(float(deviation))
    return errors


FOLDS = 5

LayerTimes = Sequence[tuple[LayerWork, float]]
"""Layers and what each took alone on the device, in ms."""


class MeasuredLayer(Record):
    """One line of a table of measured layers: the fields of a LayerWork, and `ms`."""

    error_class: ClassVar[type[InputError]] = ProfileError

    layer: LayerWork = Field(description="The layer.")
    ms: PositiveFloat = Field(description="Its time for one image, in ms.")


def fit_layers(
    measured: LayerTimes, precision: RuntimePrecision = "fp32", source: str = "measured layers"
) -> LayerModel:
    """Fit the time of layers to `measured`, kind by kind.

    Non-negative least squares over relative errors.  Raises ProfileError without layers or for a
    time that is not above zero.
    """
    if not measured:
        raise ProfileError("no layers were measured", where=source)
    for layer, ms in measured:
        if not ms > 0:
            raise ProfileError(
                f"layer {layer.name} took no time", where=source, found=ms, allowed="ms above 0"
            )
    return _model(measured, precision, source, _held_out_pct(measured, precision, source))


def measured_layers(table: CsvTable) -> LayerTimes:
    """Measured layers of a CSV table; the columns are the fields of LayerWork, and ms.

    Raises InputError.
    """
    rows = table.records(MeasuredLayer, _layer_content)
    return tuple((row.layer, row.ms) for row in rows)


def _layer_content(cells: Mapping[str, str]) -> dict[str, object]:
    shape = {name: cell for name, cell in cells.items() if name != "ms"}
    return {"ms": cells.get("ms"), "layer": shape}


def _model(
    measured: LayerTimes, precision: RuntimePrecision, source: str, held_out_pct: float | None
) -> LayerModel:
    kinds: dict[LayerKind, list[tuple[LayerWork, float]]] = {}
    for layer, ms in measured:
        kinds.setdefault(layer.kind, []).append((layer, ms))
    costs = tuple(_kind(kind, rows, precision, source) for kind, rows in kinds.items())
    residuals = [quantity.residual_pct or 0.0 for cost in costs for quantity in cost.terms.values()]
    return LayerModel(
        kinds=costs,
        layers=len(measured),
        residual_pct=max(residuals),
        held_out_pct=held_out_pct,
        source=source,
    )


def _kind(
    kind: LayerKind, measured: LayerTimes, precision: RuntimePrecision, source: str
) -> KindCost:
    features = [layer_features(layer, precision) for layer, _ in measured]
    times = [ms for _, ms in measured]
    columns: dict[Term, list[float]] = {}
    for term in TERMS:
        wider = {**columns, term: [row[term] for row in features]}
        if _independent(wider, times):
            columns = wider
    fit = relative_fit({str(term): column for term, column in columns.items()}, times)
    note = f"{len(measured)} {kind} layers of {source}"
    return KindCost(
        kind=kind,
        kernels=tuple(sorted({kernel_of(layer) for layer, _ in measured})),
        layers=len(measured),
        terms={term: fit.quantity(term, note) for term in columns},
    )


def _independent(columns: dict[Term, list[float]], times: Sequence[float]) -> bool:
    """Whether the rows distinguish all `columns`."""
    design = np.array(list(columns.values())).T / np.array(times)[:, np.newaxis]
    lengths = np.linalg.norm(design, axis=0)
    return bool(lengths.all()) and bool(
        np.linalg.matrix_rank(design / lengths, tol=1e-9) == len(columns)
    )


def _held_out_pct(measured: LayerTimes, precision: RuntimePrecision, source: str) -> float | None:
    errors = []
    for fold in range(FOLDS):
        others = [row for i, row in enumerate(measured) if i % FOLDS != fold]
        if not others:
            continue
        model = _model(others, precision, source, held_out_pct=None)
        for layer, ms in measured[fold::FOLDS]:
            found = layer_ms(model, layer, precision)
            if found is not None:
                errors.append(abs(found / ms - 1.0))
    return round(100.0 * sum(errors) / len(errors), 2) if errors else None
