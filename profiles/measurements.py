"""Measurements: what one image took on one device, or on several boards that are alike.

A table of them, as YAML (`measurements: [...]`) or as CSV with these fields for columns, is what
`profiles.calibrate` fits a device's figures to.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self, get_args

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from profiles.document import Document, Record
from profiles.errors import InputError, ProfileError

Quantity = Literal["compute_ms", "communication_ms", "total_ms", "energy_per_node_mj"]
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)


class Measurement(Record):
    """One row of a table.

    Three kinds: a model alone on a device that has the image (`boards` 0); models on `boards`
    boards, `models_per_board` on each, to which a host sends the image and from which it gets
    features; and one model whose every layer is split over `boards` boards (`exchanges` above 0).
    """

    mistake: ClassVar[type[InputError]] = ProfileError

    table: str = Field(default="measured", description="Table or campaign the row is from.")
    row: str = Field(description="Name of the row within table and device.")
    device: str = Field(description="Device of every board, by the name of its profile.")
    model: str | None = Field(default=None, description="Network, as the commands spell it.")
    macs: PositiveInt = Field(description="Multiply-accumulates of one model per image.")
    boards: int = Field(default=0, ge=0, description="Boards at work; 0 for one device, no host.")
    models_per_board: PositiveInt = Field(
        default=1, description="Models that run at once on each board."
    )
    exchanges: int = Field(
        default=0, ge=0, description="Layers after which all boards exchange their shares."
    )
    exchanged_elements: int = Field(
        default=0, ge=0, description="fp32 outputs of those layers together, whole model."
    )
    image_bytes: PositiveInt | None = Field(
        default=None, description="Size of the image that the host sends to a board, in bytes."
    )
    reply_bytes: PositiveInt | None = Field(
        default=None, description="Size of the features that a board returns, in bytes."
    )
    link: str | None = Field(
        default=None,
        description="Link of the library; where absent, the rate is fitted to these rows.",
    )
    compute_ms: PositiveFloat | None = Field(
        default=None, description="Time that a board computes, in ms."
    )
    communication_ms: PositiveFloat | None = Field(
        default=None, description="The rest of the latency, in ms."
    )
    total_ms: PositiveFloat | None = Field(default=None, description="Latency per image, in ms.")
    energy_per_node_mj: PositiveFloat | None = Field(
        default=None, description="Energy of one board's computing per image, in mJ."
    )
    left_out: tuple[Quantity, ...] = Field(
        default=(), description="Quantities of this row that no fit uses."
    )
    withheld: tuple[Quantity, ...] = Field(
        default=(), description="Quantities that were measured, but are to be predicted."
    )
    note: str | None = Field(default=None, description="Why, and what else matters.")

    @model_validator(mode="after")
    def _is_one_of_the_three_kinds(self) -> Self:
        if self.exchanges and self.boards < 2:
            raise ValueError("a model that exchanges is split over at least 2 boards")
        if self.boards and not self.exchanges and not (self.image_bytes and self.reply_bytes):
            raise ValueError("a row with boards needs image_bytes and reply_bytes")
        if not self.boards and self.communication_ms is not None:
            raise ValueError("communication_ms is for rows with boards")
        if (self.left_out or self.withheld) and not self.note:
            raise ValueError("a row with left_out or withheld quantities needs a note")
        if any(self.value(name) is not None for name in self.withheld):
            raise ValueError("a withheld quantity has no value here")
        return self

    @property
    def fans_out(self) -> bool:
        """Whether a host sends an image to boards that do not talk to each other."""
        return self.boards > 0 and not self.exchanges

    def value(self, quantity: Quantity) -> float | None:
        """Return what was measured, or None."""
        found: float | None = getattr(self, quantity)
        return found

    def fitted_to(self, quantity: Quantity) -> float | None:
        """Return what was measured where a fit may use it, or None."""
        return None if quantity in self.left_out else self.value(quantity)


class MeasurementTable(Document):
    """A file of measurements."""

    mistake: ClassVar[type[InputError]] = ProfileError

    measurements: tuple[Measurement, ...] = Field(min_length=1, description="The rows.")


def read_measurements(path: Path | str) -> tuple[Measurement, ...]:
    """Read a table of measurements from YAML, JSON or CSV; raises InputError.

    In CSV the first line names the columns; an empty cell is a quantity that was not measured.
    """
    if Path(path).suffix != ".csv":
        return MeasurementTable.read(path).measurements
    try:
        with Path(path).open(newline="", encoding="utf-8") as stream:
            lines = list(csv.DictReader(stream, restkey="more cells than columns"))
    except FileNotFoundError:
        raise InputError("no such file", where=str(path)) from None
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"cannot be read: {error}", where=str(path)) from None
    if not lines:
        raise ProfileError("no measurements", where=str(path), fix="add a row below the header")
    return tuple(
        Measurement.check({name: cell for name, cell in line.items() if cell}, f"{path} row {n}")
        for n, line in enumerate(lines, start=1)
    )


def sources(rows: Sequence[Measurement]) -> str:
    """Name the tables and rows that a figure rests on."""
    tables = dict.fromkeys(row.table for row in rows)
    return "; ".join(
        f"{table}: "
        + ", ".join(dict.fromkeys(f"{r.device} {r.row}" for r in rows if r.table == table))
        for table in tables
    )
