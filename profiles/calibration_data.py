"""Calibration data: measured rows, and the facts that stand around them.

A table of measurements, as YAML (`measurements: [...]`) or as CSV with these fields for columns,
is what `profiles.calibration` fits a device's quantities to.  The published facts are those that
the package carries; a device of one's own is measured in a few rows, and else like a device of the
library.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import ClassVar, Literal, Self, get_args

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from nonn_common.csv_table import CsvTable, is_csv
from nonn_common.document import Document, Record, plain_yaml
from nonn_common.errors import InputError, ProfileError
from profiles import Quantity
from profiles.device import DeviceProfile, QuantityName

Metric = Literal["compute_ms", "communication_ms", "total_ms", "energy_per_node_mj"]
METRICS: tuple[Metric, ...] = get_args(Metric)


class Measurement(Record):
    """One row of a table.

    Three kinds: a model alone on a device that has the image (`boards` 0); models on `boards`
    boards, `models_per_board` on each, to which a host sends the image and from which it gets
    features; and one model whose every layer is split over `boards` boards (`exchanges` above 0).
    """

    error_class: ClassVar[type[InputError]] = ProfileError

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
    left_out: tuple[Metric, ...] = Field(
        default=(), description="Quantities of this row that no fit uses."
    )
    withheld: tuple[Metric, ...] = Field(
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

    def value(self, quantity: Metric) -> float | None:
        """Measured value of `metric`, or None."""
        found: float | None = getattr(self, quantity)
        return found

    def fitted_to(self, quantity: Metric) -> float | None:
        """Measured value of `metric` where a fit may use it, or None."""
        return None if quantity in self.left_out else self.value(quantity)


class MeasurementTable(Document):
    """A file of measurements."""

    error_class: ClassVar[type[InputError]] = ProfileError

    measurements: tuple[Measurement, ...] = Field(min_length=1, description="The rows.")


def read_measurements(path: Path | str) -> tuple[Measurement, ...]:
    """Read a table of measurements from YAML, JSON or CSV; raises InputError.

    A name that ends in `.csv` or `.tsv` is a CSV table's (`measured_rows`).
    """
    if is_csv(path):
        return measured_rows(CsvTable.read(path))
    return MeasurementTable.read(path).measurements


def measured_rows(table: CsvTable) -> tuple[Measurement, ...]:
    """Measurements of a CSV table, whose columns are their fields; raises InputError.

    A blank cell is a quantity that was not measured.
    """
    rows = table.records(Measurement)
    if not rows:
        raise ProfileError("no measurements", where=table.place, fix="add a row below the header")
    return rows


def sources(rows: Sequence[Measurement]) -> str:
    """Tables and rows that a quantity rests on."""
    tables = dict.fromkeys(row.table for row in rows)
    return "; ".join(
        f"{table}: "
        + ", ".join(dict.fromkeys(f"{r.device} {r.row}" for r in rows if r.table == table))
        for table in tables
    )


class TakenOver(Record):
    """Quantities taken from another device, for want of a measurement."""

    device: str = Field(description="The other device.")
    figures: tuple[QuantityName, ...] = Field(min_length=1, description="Names of the figures.")
    by_clock: bool = Field(
        default=False, description="Whether they shrink as the clock rises: times of software."
    )


class DeviceFacts(DeviceProfile):
    """Facts of a device: description, stated quantities, and quantities taken over.

    Figures that are neither are fitted to the measurements.
    """

    like: tuple[TakenOver, ...] = Field(default=(), description="Figures of other devices.")

    def described(self) -> DeviceProfile:
        """The profile with the stated quantities only."""
        return DeviceProfile.model_validate(self.model_dump(exclude={"like"}))


class HostFacts(Record):
    """Facts of the host that joins the replies."""

    device: str = Field(description="Device of the host.")
    fc_ms: Quantity = Field(description="Final fully-connected layer, in ms per image.")
    join_fixed_ms: Quantity | None = Field(
        default=None, description="The rest of joining, in ms; fitted where absent."
    )


class PublishedSweep(Record):
    """Published sweep: students move one by one to one fast board."""

    table: str = Field(description="Figure it was published in.")
    slow_device: str = Field(description="Device that runs one student.")
    fast_device: str = Field(description="Device that runs several at once.")
    students: int = Field(ge=2, description="How many there are.")
    macs: PositiveInt = Field(description="Multiply-accumulates per image of each student.")
    students_at_once: int = Field(
        ge=2, description="How many on the fast device take as long as one on the slow device."
    )
    least_total_ms_at: int = Field(
        ge=0, description="Students on the fast device where the total latency is least."
    )
    withheld: tuple[Literal["energy_per_fleet_mj", "communication_ms"], ...] = Field(
        description="What was measured along the sweep, but is to be predicted."
    )
    source: str = Field(description="Where these facts are from.")


class PublishedFacts(Document):
    """All published facts; each names its source."""

    devices: tuple[DeviceFacts, ...] = Field(description="The devices of the library.")
    host: HostFacts = Field(description="What is known of the host.")
    sweep: PublishedSweep | None = Field(
        default=None, description="What several students at once cost."
    )
    measurements: tuple[Measurement, ...] = Field(description="Rows of the published tables.")

    @model_validator(mode="after")
    def _profiles_have_keys_of_their_own(self) -> Self:
        keys = [device.key for device in self.devices]
        repeated = {key for key in keys if keys.count(key) > 1}
        if repeated:
            raise ValueError(f"board, runtime, precision and clock repeat: {sorted(repeated)}")
        return self

    def device(self, name: str) -> DeviceFacts:
        """Facts of the device called `name`; raises ProfileError without any."""
        for facts in self.devices:
            if facts.name == name:
                return facts
        raise ProfileError("no published facts for this device", found=name)

    def measured_on(self, device: str) -> tuple[Measurement, ...]:
        """Rows measured on `device`, in the file's order."""
        return tuple(row for row in self.measurements if row.device == device)

    def without(self, row: Measurement) -> Self:
        """These facts without one row."""
        kept = tuple(each for each in self.measurements if each is not row)
        return self.model_copy(update={"measurements": kept})


@cache
def published_facts() -> PublishedFacts:
    """Published facts of the package's `data/published.yaml`."""
    text = (files("profiles") / "data" / "published.yaml").read_text(encoding="utf-8")
    return PublishedFacts.check(plain_yaml(text), where="published.yaml")


def own_facts(
    rows: Sequence[Measurement], like: DeviceProfile, host: DeviceProfile
) -> tuple[PublishedFacts, Mapping[str, DeviceProfile]]:
    """Facts of the one device of `rows`, and the library they lean on.

    Clock, cores, memory, runtime, precision and every quantity that the rows leave open are those
    of `like`, but for the spread: how unlike one's own boards are only they tell.  The host that
    joined the replies is `host`.  `profiles.calibration.calibrate` and
    `profiles.leave_one_out.fitted_rows` take both.  Raises ProfileError for rows of several
    devices or of one that is called like a device it leans on, for a row that measures nothing, and
    for a host that cannot host.
    """
    names = sorted({row.device for row in rows})
    if len(names) != 1 or names[0] in (like.name, host.name):
        raise ProfileError(
            "a table for one device must measure one device, with a name of its own",
            found=", ".join(names),
            allowed=f"one name other than {like.name} and {host.name}",
        )
    if host.hosting is None:
        raise ProfileError("this device cannot be the host", found=host.name)
    for row in rows:
        if all(row.value(metric) is None for metric in METRICS):
            raise ProfileError(
                "nothing was measured",
                where=f"row {row.row}",
                allowed=f"one of {', '.join(METRICS)}",
            )
    described = like.model_dump(
        include={"clock_hz", "cores", "ram_bytes", "flash_bytes", "runtime", "precision"}
        | {"memory_budget_bytes", "default_link"}
    )
    taken_over = tuple(name for name in get_args(QuantityName) if name != "compute_cv")
    device = DeviceFacts(
        name=names[0],
        title=f"{names[0]}, as measured",
        source=f"clock, cores, memory and link taken from {like.name}",
        like=(TakenOver(device=like.name, figures=taken_over),),
        **described,
    )
    facts = PublishedFacts(
        devices=(device,),
        host=HostFacts(
            device=host.name,
            fc_ms=host.hosting.fc_ms,
            join_fixed_ms=host.hosting.join_fixed_ms,
        ),
        measurements=tuple(rows),
    )
    return facts, {like.name: like, host.name: host}
