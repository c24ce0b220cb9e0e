"""Calibration: quantities of devices fitted to measurements, and written as profiles.

A quantity that the facts state is known; the others are fitted, stage by stage, wherever the rows
tell them, with none below zero (`profiles.fitting`); the model is that of
`profiles.prediction`::

    spread          compute_cv per device, of rows of one size on unlike numbers of boards
    communication   message_ms per device, join_fixed_ms of the host, rate of an unknown link:
                    all devices at once
    compute         compute_fixed_ms, compute_ms_per_mmac, exchange_ms, peer_message_ms per device
    sharing         sharing_slowdown per device
    energy          power_fixed_w, power_busy_w per device

After each stage devices take over what they lack from those they are `like`.  Rows of one size tell
no fixed part from one that grows with the MACs: both are then those of the other device, times the
factor that meets the rows.

`python -m profiles.calibration` rewrites all devices in `profiles/data`; none is typed in.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from nonn_common.errors import ProfileError
from profiles import Quantity
from profiles.calibration_data import Measurement, Metric, PublishedFacts, published_facts, sources
from profiles.device import (
    DeviceProfile,
    Hosting,
    QuantityName,
    compute_ms,
    quantity_value,
)
from profiles.fitting import Observation, falling_error, fit_observations, rounded_value
from profiles.link import LINKS, LinkProfile
from profiles.prediction import (
    MOST_ROUNDS,
    communication_observation,
    energy_observations,
    fitted_cv,
    hidden_in_fit_ms,
    predict_metric,
    sharing_observations,
    spread_observations,
    time_observations,
)

if TYPE_CHECKING:
    from profiles.board_library import BoardLibrary

DEVICES_FOLDER = Path(__file__).parent / "data" / "devices"


@dataclass(frozen=True, slots=True)
class Calibration:
    """Devices and links by name, as far as the rows identify them.

    The link of a row that names none is the one whose rate was fitted; it is absent where the rows
    do not tell it.
    """

    facts: PublishedFacts
    devices: Mapping[str, DeviceProfile]
    links: Mapping[str | None, LinkProfile] = field(default_factory=dict)

    @property
    def host(self) -> DeviceProfile:
        """The device that hosts."""
        return self.devices[self.facts.host.device]

    def predicted(self, row: Measurement, metric: Metric) -> float:
        """Prediction of `metric` of `row`; raises ProfileError where a quantity is missing."""
        return predict_metric(row, metric, self.devices[row.device], self.host, self.links)


PAIRS: tuple[tuple[QuantityName, QuantityName], ...] = (
    ("compute_fixed_ms", "compute_ms_per_mmac"),
    ("power_fixed_w", "power_busy_w"),
)
"""Quantities that only rows of unlike sizes tell apart: a fixed part, and one that MACs add."""

_FACTOR = "factor"

FitStage = Callable[
    [Calibration, DeviceProfile, Sequence[Measurement]], tuple[list[Observation], str]
]
"""Observations of some quantities of one device, and the rows that they are from."""


def calibrate(
    facts: PublishedFacts | None = None, library: Mapping[str, DeviceProfile] | None = None
) -> Calibration:
    """Fit every device of `facts` (the package's by default).

    `library` holds further devices that those of the facts may be like, or that host.  Raises
    ProfileError where a row names an unknown device or link, and where times or energies do not
    grow with the MACs.
    """
    facts = facts or published_facts()
    devices = dict(library or {}) | {device.name: device.described() for device in facts.devices}
    for row in facts.measurements:
        if row.device not in devices:
            raise ProfileError(
                "was measured on an unknown device",
                where=f"row {row.row}",
                found=row.device,
                allowed=", ".join(devices),
            )
    links: dict[str | None, LinkProfile] = {
        row.link: LINKS.get(row.link, f"row {row.row}") for row in facts.measurements if row.link
    }
    result = _spreading(Calibration(facts, devices, links))
    result = _communicating(_taken_over(result, _no_observations, ("compute_cv",)))
    result = _taken_over(result, _no_observations, ("message_ms",))
    for observations, quantities in _STAGES:
        result = _taken_over(_fitted_devices(result, observations), observations, quantities)
    return _exchanging_assumed(_taken_over(result, _no_observations, get_args(QuantityName)))


def write_devices(folder: Path = DEVICES_FOLDER) -> tuple[Path, ...]:
    """Write every calibrated device to `folder` as `<name>.yaml`; return the files."""
    paths = []
    for name, device in board_library().rated().items():
        paths.append(folder / f"{name}.yaml")
        device.write(paths[-1])
    return tuple(paths)


def _spreading(before: Calibration) -> Calibration:
    """Fit each device's compute_cv where computing takes longer on more boards."""
    devices = dict(before.devices)
    for name, device in devices.items():
        rows = before.facts.measured_on(name)
        if device.compute_cv is None and spread_observations(rows, {}):
            devices[name] = _with(device, {"compute_cv": fitted_cv(device, rows)})
    return replace(before, devices=devices)


def board_library() -> "BoardLibrary":
    """Boards of the public measurements, beside the calibrated devices."""
    from profiles.board_library import BoardLibrary

    calibration = calibrate()
    return BoardLibrary(calibration.facts, calibration.devices)


def _communicating(before: Calibration) -> Calibration:
    """Fit the host's fixed part, costs per message, and an unknown link's rate."""
    host = before.facts.host
    rows = [r for r in before.facts.measurements if r.fans_out and r.fitted_to("communication_ms")]
    stated = {name: device.message_ms for name, device in before.devices.items()}
    note = f"communication of {sources(rows)}, less the time on a link of known rate"
    quantities: dict[str, Quantity] = {}
    for _ in range(MOST_ROUNDS):  # what slow boards hide depends on how long the sends take
        observations = [
            communication_observation(
                row,
                host.fc_ms.value,
                before.links,
                hidden_in_fit_ms(row, before.devices[row.device], before.links, quantities),
            )
            for row in rows
        ]
        earlier, quantities = (
            quantities,
            fit_observations(observations, {**stated, "join_fixed_ms": host.join_fixed_ms}, note),
        )
        if quantities == earlier:
            break
    devices = {
        name: _with(device, {"message_ms": quantities[name]}) if name in quantities else device
        for name, device in before.devices.items()
    }
    join = quantities.get("join_fixed_ms", host.join_fixed_ms)
    if join is not None:
        hosting = Hosting(join_fixed_ms=join, fc_ms=host.fc_ms)
        devices[host.device] = devices[host.device].model_copy(update={"hosting": hosting})
    links = dict(before.links)
    if "ms_per_byte" in quantities and quantities["ms_per_byte"].value > 0:
        links[None] = _fitted_link(quantities["ms_per_byte"])
    return replace(before, devices=devices, links=links)


def _computing(
    now: Calibration, device: DeviceProfile, rows: Sequence[Measurement]
) -> tuple[list[Observation], str]:
    """Observations of time per model, per MAC and per exchange."""
    of_rows = [(row, tuple(time_observations(row, device, now.host, now.links))) for row in rows]
    observations = [each for _, of_row in of_rows for each in of_row]
    return observations, sources([row for row, of_row in of_rows if of_row])


def _sharing(
    now: Calibration, device: DeviceProfile, rows: Sequence[Measurement]
) -> tuple[list[Observation], str]:
    """Observations of several models at once, the published sweep's among them."""
    observations = [
        observation
        for row in rows
        for observation in sharing_observations(row, device, now.host, now.links)
    ]
    note = sources([row for row in rows if row.models_per_board > 1])
    sweep = now.facts.sweep
    if sweep is None or sweep.fast_device != device.name:
        return observations, note
    slow = now.devices[sweep.slow_device]
    if any(each.missing("compute_ms_per_mmac", "compute_fixed_ms") for each in (slow, device)):
        return observations, note
    many_ms = sweep.students_at_once * compute_ms(device, sweep.macs)
    observation = Observation(compute_ms(slow, sweep.macs), {"sharing_slowdown": many_ms})
    said = (
        f"{sweep.source}: {sweep.students_at_once} students at once take as long as one on "
        f"{slow.name}"
    )
    return [*observations, observation], "; ".join(filter(None, [note, said]))


def _energy(
    _now: Calibration, device: DeviceProfile, rows: Sequence[Measurement]
) -> tuple[list[Observation], str]:
    """Observations of power in the fixed part of the time and beyond."""
    measured = [row for row in rows if row.fitted_to("energy_per_node_mj")]
    return [
        observation for row in measured for observation in energy_observations(row, device)
    ], sources(measured)


def _no_observations(
    _now: Calibration, _device: DeviceProfile, _rows: Sequence[Measurement]
) -> tuple[list[Observation], str]:
    return [], ""


_STAGES: tuple[tuple[FitStage, tuple[QuantityName, ...]], ...] = (
    (_computing, ("compute_fixed_ms", "compute_ms_per_mmac", "exchange_ms", "peer_message_ms")),
    (_sharing, ("sharing_slowdown",)),
    (_energy, ("power_fixed_w", "power_busy_w")),
)
"""Stages of the fit, in order, each with the quantities that it fits."""


def _fitted_devices(before: Calibration, fit_stage: FitStage) -> Calibration:
    devices = dict(before.devices)
    for facts in before.facts.devices:
        device, rows = devices[facts.name], before.facts.measured_on(facts.name)
        devices[facts.name] = _fitted(device, *fit_stage(before, device, rows))
    return replace(before, devices=devices)


def _fitted(device: DeviceProfile, observations: Sequence[Observation], note: str) -> DeviceProfile:
    """`device` with those missing quantities that `observations` identify.

    Raises ProfileError where a quantity that MACs add would be below zero.
    """
    stated = {
        name: getattr(device, name) for observation in observations for name in observation.terms
    }
    # Where the rows told the spread, too, one of them is spent.
    spread = device.compute_cv is not None and device.compute_cv.provenance == "fitted"
    spent = int(spread and any("compute_fixed_ms" in each.terms for each in observations))
    quantities = fit_observations(observations, stated, note, spent)
    for fixed, slope in PAIRS:
        if slope in quantities and not quantities[slope].value:
            raise falling_error(device.name, (fixed, slope), observations)
    return _with(device, quantities)


def _taken_over(
    before: Calibration, fit_stage: FitStage, quantities: Sequence[QuantityName]
) -> Calibration:
    """Fill those of `quantities` that devices lack from devices they are like.

    First the pairs that rows do not tell apart, scaled to meet them.  Then one at a time, and the
    rows are fitted again after each: they may identify one when the other is known.
    """
    devices = dict(before.devices)
    for facts in before.facts.devices:
        observations, note = fit_stage(
            before, devices[facts.name], before.facts.measured_on(facts.name)
        )
        for part in facts.like:
            for pair in PAIRS:
                if set(pair) <= {*quantities} & {*part.figures}:
                    device, other = devices[facts.name], devices[part.device]
                    devices[facts.name] = _scaled(device, other, pair, observations, note)
            for name in part.figures:
                device, other = devices[facts.name], devices[part.device]
                if name in quantities and device.missing(name) and not other.missing(name):
                    taken = _with(device, {name: _like(name, device, other, part.by_clock)})
                    devices[facts.name] = _fitted(taken, observations, note)
    return replace(before, devices=devices)


def _scaled(
    device: DeviceProfile,
    other: DeviceProfile,
    pair: tuple[QuantityName, QuantityName],
    observations: Sequence[Observation],
    note: str,
) -> DeviceProfile:
    """`device` with both quantities of `pair` from `other`, times a factor.

    The factor is fitted to the rows; without one, `device` stays as it is.  Raises ProfileError
    where the rows leave nothing for them.
    """
    if device.missing(*pair) != pair or other.missing(*pair):
        return device
    scaled = []
    for each in observations:
        terms = {name: factor for name, factor in each.terms.items() if name not in pair}
        alike = sum(quantity_value(other, name) * each.terms.get(name, 0.0) for name in pair)
        scaled.append(replace(each, terms={**terms, _FACTOR: alike}))
    stated = {name: getattr(device, name) for each in scaled for name in {*each.terms} - {_FACTOR}}
    factor = fit_observations(scaled, stated, note).get(_FACTOR)
    if factor is None:
        return device
    if not factor.value:
        raise ProfileError(
            f"no time is left for computing in {', '.join(each.row for each in observations)}: "
            "communication alone takes as long",
            where=f"device {device.name}",
        )
    return _with(device, {name: _times(factor, name, other, note) for name in pair})


def _times(factor: Quantity, name: QuantityName, other: DeviceProfile, note: str) -> Quantity:
    """A quantity of `other` times a fitted factor.

    Assumed, as the rows do not tell it from the other one of its pair.
    """
    value, error = quantity_value(other, name), factor.standard_error
    return Quantity(
        value=rounded_value(factor.value * value),
        provenance="assumed",
        source=f"that of {other.name} times {factor.value:.4g}, to meet {note}",
        residual_pct=factor.residual_pct,
        standard_error=error and rounded_value(error * value),
    )


def _like(
    name: QuantityName, device: DeviceProfile, other: DeviceProfile, by_clock: bool
) -> Quantity:
    ratio = 1.0
    if by_clock and other.clock_hz and device.clock_hz:
        ratio = other.clock_hz / device.clock_hz
    note = f"that of {other.name}{', by the clock' if by_clock else ''}"
    return _assumed(ratio * quantity_value(other, name), note)


def _exchanging_assumed(before: Calibration) -> Calibration:
    """Assume costs of exchanges where none was measured.

    A message to another board then costs as much as one from the host.
    """
    devices = dict(before.devices)
    for facts in before.facts.devices:
        device = devices[facts.name]
        measured = any(row.exchanges for row in before.facts.measured_on(facts.name))
        if measured or device.missing("message_ms"):
            continue
        message_ms = quantity_value(device, "message_ms")
        quantities = {
            "exchange_ms": _assumed(0.0, "an exchange costs its messages"),
            "peer_message_ms": _assumed(message_ms, "that of a message from the host"),
        }
        devices[facts.name] = _with(
            device,
            {name: quantities[name] for name in device.missing("exchange_ms", "peer_message_ms")},
        )
    return replace(before, devices=devices)


def _fitted_link(ms_per_byte: Quantity) -> LinkProfile:
    rate = 8000.0 / ms_per_byte.value
    error = ms_per_byte.standard_error
    quantity = ms_per_byte.model_copy(
        update={
            "value": rounded_value(rate),
            # First order: the relative error of a reciprocal is that of its argument.
            "standard_error": error and rounded_value(rate * error / ms_per_byte.value),
        }
    )
    return LinkProfile(name="fitted", title="Link of the measurements", bits_per_s=quantity)


def _with(device: DeviceProfile, quantities: Mapping[str, Quantity]) -> DeviceProfile:
    return device.model_copy(update=dict(quantities))


def _assumed(value: float, source: str) -> Quantity:
    return Quantity(value=rounded_value(value), provenance="assumed", source=source)


if __name__ == "__main__":
    for path in (*write_devices(), board_library().write(DEVICES_FOLDER.parent)):
        sys.stdout.write(f"{path}\n")
