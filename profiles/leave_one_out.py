"""Leave-one-out error of the calibration on a row that it has not seen.

Every row is left out in turn, everything is fitted anew without it, and the row is predicted.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import get_args

from pydantic import Field

from nonn_common.document import Record
from nonn_common.errors import ProfileError
from profiles.calibration import Calibration, calibrate
from profiles.calibration_data import METRICS, Measurement, Metric, PublishedFacts, published_facts
from profiles.device import DeviceProfile, QuantityName
from profiles.quantity import Quantity


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
        without = calibrate(facts.without(row), library) if _used(row) else None
        rows += [
            _fitted_row(row, quantity, whole, without)
            for quantity in METRICS
            if row.value(quantity) is not None or quantity in row.withheld
        ]
    return tuple(rows)


def _used(row: Measurement) -> bool:
    return any(row.fitted_to(quantity) is not None for quantity in METRICS)


def _fitted_row(
    row: Measurement, quantity: Metric, whole: Calibration, without: Calibration | None
) -> FittedRow:
    published = row.value(quantity)
    error_pct, reason = None, None
    if published is None:
        reason = "withheld: predicted, not fitted"
    elif without is None:
        reason = row.note
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
    """`without` less the quantities taken over because only `row` identifies them."""
    fitted, device = whole.devices[row.device], without.devices[row.device]
    lost = [
        name
        for name in get_args(QuantityName)
        if _is_fitted(getattr(fitted, name)) and not _is_fitted(getattr(device, name))
    ]
    bare = device.model_copy(update=dict.fromkeys(lost))
    return replace(without, devices={**without.devices, row.device: bare})


def _is_fitted(quantity: Quantity | None) -> bool:
    return quantity is not None and quantity.provenance == "fitted"
