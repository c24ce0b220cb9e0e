"""A quantity, one number of a profile, with its provenance and its error."""

from contextlib import suppress
from numbers import Real
from typing import Literal

from pydantic import Field, field_validator

from nonn_common.document import Record

Provenance = Literal["measured", "published", "fitted", "assumed"]


class Quantity(Record):
    """A non-negative number with its provenance.

    Its unit is the suffix of the field it fills.
    """

    value: float = Field(ge=0, description="The number, in the unit that ends the field's name.")
    provenance: Provenance = Field(
        description="measured on this board; published by others; fitted to measurements; "
        "assumed for want of a measurement."
    )
    source: str = Field(min_length=1, description="Table, page or reasoning the number rests on.")
    residual_pct: float | None = Field(
        default=None,
        ge=0,
        description="Largest relative error, in per cent, that the fit leaves on the rows it used; "
        "0 where it has as many figures as rows, which then says nothing of its error elsewhere.",
    )
    standard_error: float | None = Field(
        default=None,
        ge=0,
        description="Standard error of the value, in its unit; absent where there are not more "
        "rows than figures fitted to them, or where the value lies on its bound of zero.",
    )

    @field_validator("value", mode="before")
    @classmethod
    def _is_a_plain_number(cls, value: object) -> float:
        # YAML's 1e8 is a text, which counts; 100Mbit/s is none, and `true` is no 1.
        if isinstance(value, str | Real) and not isinstance(value, bool):
            with suppress(ValueError):
                return float(value)
        raise ValueError(
            f"must be a plain number, in the unit that ends the field's name; found {value!r}"
        )
