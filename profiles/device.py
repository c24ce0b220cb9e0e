"""A device: the compute, power and memory of one kind of board or host.

A profile holds for one device under one runtime, precision and clock; the same board under another
runtime is another profile.  The model behind its quantities, fitted in `profiles.calibration`, is
affine in the multiply-accumulates (MACs) of a model::

    compute_ms = compute_fixed_ms + compute_ms_per_mmac * macs / 1e6
    compute_mj = power_fixed_w * compute_fixed_ms
               + power_busy_w * compute_ms_per_mmac * macs / 1e6          (W x ms = mJ)

A model's time is predicted layer by layer instead where the layers of a device were measured, or
where rates of layers were fitted to networks that ran there and on other boards.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Self, get_args

from pydantic import Field, field_validator, model_validator

from nonn_common.document import Document, Record
from nonn_common.errors import InputError, ProfileError
from profiles import Quantity, Registry
from profiles.layer import (
    LayerModel,
    LayerRates,
    LayerTable,
    LayerWork,
    RuntimePrecision,
    layer_ms,
    rated_ms,
)
from profiles.time_spread import MOST_CV

BoardQuantity = Literal[
    "compute_fixed_ms",
    "compute_ms_per_mmac",
    "power_fixed_w",
    "power_busy_w",
    "message_ms",
    "sharing_slowdown",
]
"""Quantities that a device needs to be a board with students."""

QuantityName = Literal[
    BoardQuantity, "compute_cv", "idle_w", "radio_w", "exchange_ms", "peer_message_ms"
]

ProfileKey = tuple[str, str, str, int | None, int]
"""Board, runtime, precision, clock in Hz and cores in use: what a profile holds for."""


class Hosting(Record):
    """A host's cost of joining all boards' replies into one answer."""

    join_fixed_ms: Quantity = Field(
        description="Time to receive and concatenate the features of one image, in ms, whatever "
        "the number of boards."
    )
    fc_ms: Quantity = Field(
        description="Time of the final fully-connected layer, in ms (arXiv:1907.11804, 6.1)."
    )


class DeviceProfile(Document):
    """One device under one runtime, precision and clock."""

    error_class: ClassVar[type[InputError]] = ProfileError

    name: str = Field(min_length=1, description="Name that fleets and commands use.")
    title: str = Field(min_length=1, description="Name that people use.")
    board: str | None = Field(
        default=None,
        min_length=1,
        description="The hardware, such as raspberry-pi-3b; the profile's name where absent.",
    )
    core: str | None = Field(
        default=None,
        min_length=1,
        description="Kind of core that computes, such as A72; kinds that compute alike are one.",
    )
    clock_hz: int | None = Field(
        default=None, gt=0, description="Clock of the cores in use, in Hz; null where untold."
    )
    cores: int = Field(gt=0, description="Cores in use.")
    ram_bytes: int | None = Field(
        default=None,
        gt=0,
        description="Memory of the device, in bytes; null where untold. Where "
        "flash_bytes is told, it holds activations alone.",
    )
    flash_bytes: int | None = Field(
        default=None,
        gt=0,
        description="Memory that holds weights, in bytes, where it is apart: a microcontroller's "
        "flash.  Its firmware runs models one after the other; null: one memory holds all.",
    )
    runtime: str = Field(min_length=1, description="What executes the model, such as tvm.")
    precision: RuntimePrecision = Field(description="Number format of weights and activations.")
    memory_budget_bytes: int | None = Field(
        default=None,
        gt=0,
        description="What one plan may use, in bytes, where that is less than ram_bytes.",
    )
    source: str | None = Field(default=None, description="Where clock, cores and memory are from.")
    default_link: str | None = Field(
        default=None,
        min_length=1,
        description="Name of the link of a board of this device where its fleet names none; "
        "wired-100mbit where absent.",
    )
    compute_fixed_ms: Quantity | None = Field(
        default=None, description="Part of the time of one model that no MAC explains, in ms."
    )
    compute_ms_per_mmac: Quantity | None = Field(
        default=None, description="Time per million MACs, in ms."
    )
    power_fixed_w: Quantity | None = Field(
        default=None, description="Power during the fixed part of the time, in W."
    )
    power_busy_w: Quantity | None = Field(
        default=None, description="Power while MACs are executed, in W."
    )
    message_ms: Quantity | None = Field(
        default=None,
        description="Time that the host's sender spends per image for this board, in ms, on top "
        "of the time on the wire.",
    )
    sharing_slowdown: Quantity | None = Field(
        default=None,
        description="Factor on the summed time of two or more models that run at once.",
    )
    compute_cv: Quantity | None = Field(
        default=None,
        description="Spread of computing times over alike boards and over runs: coefficient of "
        "variation, standard deviation over mean, at most 0.3; unknown where absent.",
    )
    idle_w: Quantity | None = Field(
        default=None, description="Power while nothing is executed, in W."
    )
    radio_w: Quantity | None = Field(
        default=None, description="Power on top of it while messages are on the air, in W."
    )
    exchange_ms: Quantity | None = Field(
        default=None,
        description="Software time of one synchronised exchange of a model that is split over "
        "boards, in ms, whatever the number of boards.",
    )
    peer_message_ms: Quantity | None = Field(
        default=None,
        description="Software time per message to another board in such an exchange, in ms, on "
        "top of the time on the wire.",
    )
    layers: LayerModel | None = Field(
        default=None, description="Time of single layers, where layers have been measured."
    )
    layer_rates: LayerRates | None = Field(
        default=None,
        description="Rates of layers, fitted to measured networks, where no layers were measured.",
    )
    hosting: Hosting | None = Field(
        default=None, description="Cost of being the host; absent where the device cannot be one."
    )

    @model_validator(mode="after")
    def _flash_is_beside_ram(self) -> Self:
        if self.flash_bytes is not None and self.ram_bytes is None:
            raise ValueError("flash_bytes holds weights; ram_bytes, of activations, is missing")
        return self

    @field_validator("compute_cv")
    @classmethod
    def _draws_no_time_below_zero(cls, quantity: Quantity | None) -> Quantity | None:
        if quantity is not None and not 0 <= quantity.value <= MOST_CV:
            raise ValueError(
                f"a coefficient of variation is from 0 to {MOST_CV}; found {quantity.value:g}"
            )
        return quantity

    def __hash__(self) -> int:
        """Hash it by its name: a profile is looked up often, and has many figures."""
        return hash((self.name, self.runtime, self.precision, self.clock_hz))

    @property
    def key(self) -> ProfileKey:
        """Board, runtime, precision, clock and cores that this profile holds for."""
        board = self.board or self.name
        return board, self.runtime, self.precision, self.clock_hz, self.cores

    @property
    def usable_bytes(self) -> int | None:
        """Memory of one plan, weights and activations together, in bytes.

        It is the smaller of budget and RAM, of the budget alone where weights are in flash; None
        where neither is told.
        """
        if self.flash_bytes is not None:
            return self.memory_budget_bytes
        told = [size for size in (self.ram_bytes, self.memory_budget_bytes) if size is not None]
        return min(told, default=None)

    @property
    def missing_as_board(self) -> tuple[QuantityName, ...]:
        """Figures that this profile lacks to be a board that runs students.

        Rates of layers stand in for those of time; power is asked for only where energy is.
        """
        rated = () if self.layer_rates is None else ("compute_fixed_ms", "compute_ms_per_mmac")
        untold = ("power_fixed_w", "power_busy_w", *rated)
        return tuple(name for name in self.missing(*get_args(BoardQuantity)) if name not in untold)

    @property
    def knows_layers(self) -> bool:
        """Whether layers, measured or by rates, may predict a model's time."""
        return self.layers is not None or self.layer_rates is not None

    @property
    def power_known(self) -> bool:
        """Whether the energy of computing follows from this profile."""
        fixed = self.compute_fixed_ms is None or self.power_fixed_w is not None
        return fixed and self.power_busy_w is not None

    def missing(self, *quantities: QuantityName) -> tuple[QuantityName, ...]:
        """Those of `quantities` that this profile lacks."""
        return tuple(name for name in quantities if getattr(self, name) is None)


End = Literal["low", "middle", "high"]
"""An end of the intervals of times, or what is predicted."""


def at_end(device: DeviceProfile, end: End) -> DeviceProfile:
    """The device as it is where its times lie at an end of their interval.

    The interval itself stays what it is; a device without one stays as it is.
    """
    rates = device.layer_rates
    if rates is None or end == "middle":
        return device
    factor = rates.low if end == "low" else rates.high
    moved = {
        "ms_per_unit": {name: factor * ms for name, ms in rates.ms_per_unit.items()},
        "low": rates.low / factor,
        "high": rates.high / factor,
    }
    return device.model_copy(update={"layer_rates": rates.model_copy(update=moved)})


def without_layers(device: DeviceProfile) -> DeviceProfile:
    """The device whose times follow from FLOPs alone."""
    if not device.knows_layers:
        return device
    return device.model_copy(update={"layers": None, "layer_rates": None})


MEASURED_DEVICES = "measured-devices.jsonl"
"""Devices of the library beside those with a file each (`profiles.board_library`)."""

DEVICES = Registry(DeviceProfile, "device", "devices", MEASURED_DEVICES)


def quantity_value(device: DeviceProfile, name: QuantityName) -> float:
    """Value of one quantity; raises ProfileError where the profile lacks it."""
    quantity: Quantity | None = getattr(device, name)
    if quantity is None:
        raise ProfileError(
            f"this device has no {name}",
            where=f"device {device.name}",
            fix=f"add {name} to its profile or choose another device",
        )
    return quantity.value


def compute_ms(device: DeviceProfile, macs: int) -> float:
    """Time of one model of `macs` alone on `device`, in ms.

    Raises ProfileError where a quantity is missing.
    """
    fixed_ms = quantity_value(device, "compute_fixed_ms")
    return fixed_ms + quantity_value(device, "compute_ms_per_mmac") * macs / 1e6


def compute_mj(device: DeviceProfile, macs: int) -> float:
    """Energy of one model of `macs` alone on `device`, in mJ.

    Raises ProfileError where a quantity is missing.

    Compute only, as in Table 7 of arXiv:1907.11804: no idle time and no radio.
    """
    fixed_mj = quantity_value(device, "power_fixed_w") * quantity_value(device, "compute_fixed_ms")
    busy_ms = quantity_value(device, "compute_ms_per_mmac") * macs / 1e6
    return fixed_mj + quantity_value(device, "power_busy_w") * busy_ms


def spread_cv(device: DeviceProfile) -> float:
    """Coefficient of variation of computing times on `device`; 0 where none is known."""
    return device.compute_cv.value if device.compute_cv else 0.0


def slowdown(device: DeviceProfile, students: int) -> float:
    """Factor on the summed time of `students` models that run at once.

    It is 1 for none or one, and the device's `sharing_slowdown` for more; raises ProfileError.
    """
    return quantity_value(device, "sharing_slowdown") if students > 1 else 1.0


TimingMethod = Literal["per-layer", "flop-affine"]


@dataclass(frozen=True, slots=True)
class PredictedTime:
    """A predicted time in ms, and what predicted it.

    `low_ms` and `high_ms` are the ends of its 90 % interval; None where none is known.
    """

    ms: float
    how: TimingMethod
    low_ms: float | None = None
    high_ms: float | None = None


def model_ms(device: DeviceProfile, table: LayerTable) -> PredictedTime:
    """Time of the layers of `table` one after another, alone on `device`.

    Per layer where the device's measured layers, or else its rates, know each of these; affine in
    the MACs (`compute_ms`) otherwise.  Raises ProfileError where the profile lacks those
    quantities.
    """
    known = known_time(device, table)
    macs = sum(layer.macs for layer in table)
    return known or PredictedTime(compute_ms(device, macs), "flop-affine")


def known_time(device: DeviceProfile, table: LayerTable) -> PredictedTime | None:
    """Time of these layers alone on `device`; None where one is unknown, or for none."""
    found = ((each, each.total_ms(table)) for each in layer_predictors(device) if table)
    return next((each.predicted(ms) for each, ms in found if ms is not None), None)


class LayerPredictor(NamedTuple):
    """Prediction of single layers: ms of a layer, or None for an unknown one.

    `low` and `high` are the ends of the 90 % interval of a model's time, as factors on it.
    """

    predict: Callable[[LayerWork], float | None]
    low: float | None = None
    high: float | None = None

    def total_ms(self, table: LayerTable) -> float | None:
        """Time of layers one after another, in ms; None where one of them is unknown."""
        times = [self.predict(layer) for layer in table]
        known = [time for time in times if time is not None]
        return sum(known) if len(known) == len(times) else None

    def predicted(self, ms: float) -> PredictedTime:
        """Time of a model whose layers take `ms` together."""
        if self.low is None or self.high is None:
            return PredictedTime(ms, "per-layer")
        return PredictedTime(ms, "per-layer", ms * self.low, ms * self.high)


def layer_predictors(device: DeviceProfile) -> Iterator[LayerPredictor]:
    """Predictors of the layers of a device: measured layers first, then rates."""
    precision = device.precision
    if (layers := device.layers) is not None:
        yield LayerPredictor(lambda layer: layer_ms(layers, layer, precision))
    if (rates := device.layer_rates) is not None:
        yield LayerPredictor(lambda layer: rated_ms(rates, layer, precision), rates.low, rates.high)
