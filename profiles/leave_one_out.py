"""Leave-one-out error of the calibration on a row that it has not seen.

Every row is left out in turn, everything is fitted anew without it, and the row is predicted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import get_args

from pydantic import Field

from nonn_common.document import Record
from nonn_common.errors import ProfileError
from profiles import Quantity
from profiles.calibration import PAIRS, Calibration, calibrate
from profiles.calibration_data import METRICS, Measurement, Metric, PublishedFacts, published_facts
from profiles.device import DeviceProfile, QuantityName
from profiles.layer import LayerModel

DOUBTFUL_ERROR_PCT = 25.0
"""Error of a fitted row, in per cent, above which it is doubtful; the library's are below 17."""

_NOTHING, _FACTOR, _ALL = range(3)


class FittedRow(Record):
    """One published quantity beside the fitted one."""

    table: str = Field(description="Table the row is from.")
    device: str = Field(description="Device of the row.")
    row: str = Field(description="Name of the row within table and device.")
    quantity: Metric = Field(description="What was measured; its suffix is the unit.")
    published: float | None = Field(description="The measured value; null where it is withheld.")
    fitted: float = Field(description="The closed form of the calibrated profiles.")
    used_for_fit: bool = Field(description="Whether a fit used the value.")
    loo_error_pct: float | None = Field(
        description="Relative error, in per cent with its sign, of the prediction by profiles "
        "fitted without this row."
    )
    reason: str | None = Field(description="Why there is no such error; null where there is one.")

    @property
    def error_pct(self) -> float | None:
        """Relative error of the fitted value, in per cent with its sign."""
        return None if self.published is None else 100.0 * (self.fitted / self.published - 1.0)


def fitted_rows(
    facts: PublishedFacts | None = None, library: Mapping[str, DeviceProfile] | None = None
) -> tuple[FittedRow, ...]:
    """Every metric of `facts` (the package's by default), fitted and left out.

    Raises ProfileError where the rows leave a quantity open that one of them needs.
    """
    facts = facts or published_facts()
    whole = calibrate(facts, library)
    rows: list[FittedRow] = []
    for row in facts.measurements:
        without = _without(row, facts, library)
        rows += [
            _fitted_row(row, quantity, whole, without)
            for quantity in METRICS
            if row.value(quantity) is not None or quantity in row.withheld
        ]
    return tuple(rows)


def _without(
    row: Measurement, facts: PublishedFacts, library: Mapping[str, DeviceProfile] | None
) -> Calibration | str | None:
    """Calibration without `row`, or the reason why there is none."""
    if all(row.fitted_to(quantity) is None for quantity in METRICS):
        return row.note
    try:
        return calibrate(facts.without(row), library)
    except ProfileError as error:
        return f"without it, {error}"


def _fitted_row(
    row: Measurement, quantity: Metric, whole: Calibration, without: Calibration | str | None
) -> FittedRow:
    published = row.value(quantity)
    error_pct, reason = None, None
    if published is None:
        reason = "withheld: predicted, not fitted"
    elif not isinstance(without, Calibration):
        reason = without
    else:
        error_pct, reason = _loo(row, quantity, published, _unseen(row, whole, without))
    return FittedRow(
        table=row.table,
        device=row.device,
        row=row.row,
        quantity=quantity,
        published=published,
        fitted=whole.predicted(row, quantity),
        used_for_fit=row.fitted_to(quantity) is not None,
        loo_error_pct=error_pct,
        reason=reason,
    )


def _loo(
    row: Measurement, quantity: Metric, published: float, without: Calibration
) -> tuple[float | None, str | None]:
    try:
        found = without.predicted(row, quantity)
    except ProfileError as error:
        return None, f"no other row tells it: {error.where}: {error.what}"
    return round(100.0 * (found / published - 1.0), 2), None


def _unseen(row: Measurement, whole: Calibration, without: Calibration) -> Calibration:
    """`without` less the quantities of which `row` alone tells something."""
    fitted, device = whole.devices[row.device], without.devices[row.device]
    lost = [
        name
        for name in get_args(QuantityName)
        if _told(getattr(fitted, name)) > _told(getattr(device, name))
    ]
    bare = device.model_copy(update=dict.fromkeys(lost))
    return replace(without, devices={**without.devices, row.device: bare})


def _told(quantity: Quantity | None) -> int:
    """Rank by what the rows tell: all, the factor of a scaled pair, nothing."""
    if quantity is None or quantity.residual_pct is None:
        return _NOTHING
    return _ALL if quantity.provenance == "fitted" else _FACTOR


def doubts(device: DeviceProfile, rows: Sequence[FittedRow], like: str) -> tuple[str, ...]:
    """Reasons to doubt a device that was fitted to `rows`.

    `like` names the device that the rest was taken from.
    """
    said = [sentence for pair in PAIRS for sentence in _pair_doubts(device, pair, like)]
    for name in get_args(QuantityName):
        quantity: Quantity | None = getattr(device, name)
        if name == "compute_cv":  # that alike boards do not differ is no doubt
            continue
        if quantity is not None and quantity.provenance == "fitted" and not quantity.value:
            said.append(
                f"{name} is 0: without a bound the rows would put it below zero; measure more "
                "networks of unlike sizes"
            )
    return (
        *said,
        *_layer_doubts(device.layers),
        *(
            f"row {row.row}: {row.quantity} is {row.published:.4g} as measured, {row.fitted:.4g} "
            f"as fitted ({row.error_pct:+.0f} %): rows contradict each other, or MACs do not tell"
            for row in rows
            if row.used_for_fit and abs(row.error_pct or 0.0) > DOUBTFUL_ERROR_PCT
        ),
    )


def _layer_doubts(model: LayerModel | None) -> Iterator[str]:
    for cost in model.kinds if model else ():
        if cost.layers <= len(cost.terms):
            yield (
                f"{cost.layers} measured {cost.kind} layer{'s' * (cost.layers > 1)} for "
                f"{', '.join(cost.terms)}: nothing shows their error; measure more of them"
            )
        added = [quantity.value for term, quantity in cost.terms.items() if term != "fixed_ms"]
        if added and not any(added):
            yield (
                f"the time of {cost.kind} layers does not grow with their work; measure them again"
            )


def _pair_doubts(
    device: DeviceProfile, pair: tuple[QuantityName, QuantityName], like: str
) -> Iterator[str]:
    both = f"{pair[0]} and {pair[1]}"
    quantities = [found for name in pair if (found := getattr(device, name)) is not None]
    told = {_told(each) for each in quantities}
    if told == {_NOTHING}:
        yield f"no row tells {both}: those of {like} are taken over as they are"
    elif told == {_FACTOR}:
        yield (
            f"rows of one size do not tell {both} apart: both are those of {like}, scaled to meet "
            "the rows; measure networks of two sizes or more"
        )
    elif told == {_ALL} and all(each.value and each.standard_error is None for each in quantities):
        yield (
            f"{both} rest on as many rows as they are, so that nothing shows their error; measure "
            "a network of a third size"
        )
    for name, quantity in zip(pair, quantities, strict=False):
        if _told(quantity) == _ALL and (quantity.standard_error or 0.0) > quantity.value / 2 > 0:
            yield (
                f"{name} is {quantity.value:.3g} with a standard error of "
                f"{quantity.standard_error:.2g}; measure more networks, of more unlike sizes"
            )
