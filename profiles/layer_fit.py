"""Fit a device's layer model to measured layers."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field, PositiveFloat

from profiles.document import Record
from profiles.errors import InputError, ProfileError
from profiles.fitting import relative_fit
from profiles.layer import LayerKind, LayerWork
from profiles.layer_cost import (
    TERMS,
    KindCost,
    LayerModel,
    Precision,
    Term,
    kernel_of,
    layer_features,
    layer_ms,
)

FOLDS = 5

Measured = Sequence[tuple[LayerWork, float]]
"""Layers and what each took alone on the device, in ms."""


class MeasuredLayer(Record):
    """One line of a table of measured layers: the fields of a LayerWork, and `ms`."""

    mistake: ClassVar[type[InputError]] = ProfileError

    layer: LayerWork = Field(description="The layer.")
    ms: PositiveFloat = Field(description="Its time for one image, in ms.")


def fit_layers(
    measured: Measured, precision: Precision = "fp32", source: str = "measured layers"
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


def read_measured_layers(path: Path | str) -> tuple[tuple[LayerWork, float], ...]:
    """Read measured layers from CSV; the columns are the fields of LayerWork, and ms.

    Raises InputError.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8") as stream:
            lines = list(csv.DictReader(stream))
    except FileNotFoundError:
        raise InputError("no such file", where=str(path)) from None
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"cannot be read: {error}", where=str(path)) from None
    rows = []
    for number, line in enumerate(lines, start=1):
        cells = {name: cell for name, cell in line.items() if cell}
        content = {"ms": cells.pop("ms", None), "layer": cells}
        rows.append(MeasuredLayer.check(content, f"{path} row {number}"))
    return tuple((row.layer, row.ms) for row in rows)


def _model(
    measured: Measured, precision: Precision, source: str, held_out_pct: float | None
) -> LayerModel:
    kinds: dict[LayerKind, list[tuple[LayerWork, float]]] = {}
    for layer, ms in measured:
        kinds.setdefault(layer.kind, []).append((layer, ms))
    costs = tuple(_kind(kind, rows, precision, source) for kind, rows in kinds.items())
    residuals = [figure.residual_pct or 0.0 for cost in costs for figure in cost.terms.values()]
    return LayerModel(
        kinds=costs,
        layers=len(measured),
        residual_pct=max(residuals),
        held_out_pct=held_out_pct,
        source=source,
    )


def _kind(kind: LayerKind, measured: Measured, precision: Precision, source: str) -> KindCost:
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
        terms={term: fit.figure(term, note) for term in columns},
    )


def _independent(columns: dict[Term, list[float]], times: Sequence[float]) -> bool:
    """Tell whether the rows distinguish all `columns`."""
    design = np.array(list(columns.values())).T / np.array(times)[:, np.newaxis]
    lengths = np.linalg.norm(design, axis=0)
    return bool(lengths.all()) and bool(
        np.linalg.matrix_rank(design / lengths, tol=1e-9) == len(columns)
    )


def _held_out_pct(measured: Measured, precision: Precision, source: str) -> float | None:
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
