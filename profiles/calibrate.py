"""Calibration: fit the figures of the devices to the published facts, and write their profiles.

Three fits by least squares over relative errors, so that a row of 100 ms and one of 1400 ms count
alike, with no figure below zero (scipy.optimize.lsq_linear)::

    compute         busy_ms = compute_fixed_ms + compute_ms_per_mmac * mmac       per device
    energy          mj      = power_fixed_w * compute_fixed_ms
                            + power_busy_w * compute_ms_per_mmac * mmac           per device
    communication   ms      = K * (message_ms + wire_ms(image)) + wire_ms(reply)
                            + join_fixed_ms + fc_ms                       all devices at once

The last is what the simulator makes of K equal boards: the host sends K times, one board after the
other, the last board's reply follows, then the host joins.  One join_fixed_ms belongs to the host
and one message_ms to each device.

`python -m profiles.calibrate` rewrites `profiles/data/devices/*.yaml`; nothing there is typed in.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from profiles.device import DeviceProfile, Hosting, compute_ms, figure_of
from profiles.figure import Figure
from profiles.link import BYTES_PER_FEATURE, LINKS, wire_ms
from profiles.published import Deployment, PublishedFacts, published_facts

DEVICES_FOLDER = Path(__file__).parent / "data" / "devices"
SIGNIFICANT_DIGITS = 6
"""Digits kept of a fitted figure: far below its error, and the same on every machine."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Coefficients of one fit, and the largest relative error it leaves, in per cent."""

    coefficients: tuple[float, ...]
    residual_pct: float

    def figure(self, position: int, source: str) -> Figure:
        """Return one coefficient as a fitted figure that rests on `source`."""
        return Figure(
            value=self.coefficients[position],
            provenance="fitted",
            source=source,
            residual_pct=self.residual_pct,
        )


def relative_fit(
    columns: Sequence[Sequence[float]],
    observed: Sequence[float],
    known: Sequence[float] | float = 0.0,
) -> Fit:
    """Fit `observed` [rows] as `known` [rows] plus a non-negative mix of `columns`.

    `columns` is [coefficients][rows].  Minimises the sum over rows of
    ((fitted - observed) / observed)^2.
    """
    target: NDArray[np.float64] = np.asarray(observed, dtype=np.float64)
    design: NDArray[np.float64] = np.asarray(columns, dtype=np.float64).T / target[:, np.newaxis]
    wanted = 1.0 - np.asarray(known, dtype=np.float64) / target
    solution = lsq_linear(design, wanted, bounds=(0.0, np.inf)).x
    coefficients = tuple(_rounded(float(value)) for value in solution)
    errors = np.abs(design @ np.asarray(coefficients) - wanted)
    return Fit(coefficients, residual_pct=round(100.0 * float(errors.max()), 2))


def calibrated_devices(facts: PublishedFacts | None = None) -> dict[str, DeviceProfile]:
    """Return every device of the library, by name, fitted to `facts` (the package's by default)."""
    facts = facts or published_facts()
    hosting, message_ms = _communication(facts)
    slow = _computing(facts, facts.sharing.slow_device)
    fast = _computing(facts, facts.sharing.fast_device)
    sharing = _sharing_slowdown(facts, slow, fast)
    assumed_sharing = sharing.model_copy(
        update={"provenance": "assumed", "source": f"the same as {fast.name}", "residual_pct": None}
    )
    fast = fast.model_copy(
        update={"message_ms": message_ms[fast.name], "sharing_slowdown": sharing}
    )
    slow = slow.model_copy(
        update={"message_ms": message_ms[slow.name], "sharing_slowdown": assumed_sharing}
    )
    devices = (slow, fast, _host(facts, hosting), _microcontroller(facts, slow))
    return {device.name: device for device in devices}


def write_devices(folder: Path = DEVICES_FOLDER) -> tuple[Path, ...]:
    """Write every calibrated device to `folder` as `<name>.yaml`; return the files."""
    paths = []
    for name, device in calibrated_devices().items():
        paths.append(folder / f"{name}.yaml")
        device.write(paths[-1])
    return tuple(paths)


def _computing(facts: PublishedFacts, name: str) -> DeviceProfile:
    """Fit compute time and power of one device of the deployment tables."""
    rows = facts.deployments_on(name)
    mmac = [row.macs / 1e6 for row in rows]
    time = relative_fit([[1.0] * len(rows), mmac], [row.busy_ms for row in rows])
    fixed_ms, per_mmac_ms = time.coefficients
    energy = relative_fit(
        [[fixed_ms] * len(rows), [per_mmac_ms * each for each in mmac]],
        [row.energy_per_node_mj for row in rows],
    )
    source = _rows_source(rows)
    return _described(facts, name).model_copy(
        update={
            "compute_fixed_ms": time.figure(0, source),
            "compute_ms_per_mmac": time.figure(1, source),
            "power_fixed_w": energy.figure(0, source),
            "power_busy_w": energy.figure(1, source),
        }
    )


def _communication(facts: PublishedFacts) -> tuple[Hosting, dict[str, Figure]]:
    """Fit the host's fixed part and each device's cost per message, all devices at once."""
    rows = [row for row in facts.deployments if row.students]
    names = list(dict.fromkeys(row.device for row in rows))
    link = LINKS.get(facts.traffic.link)
    once_ms = facts.host.fc_ms + wire_ms(link, BYTES_PER_FEATURE * facts.traffic.features)
    image_ms = wire_ms(link, facts.traffic.image_bytes)
    fit = relative_fit(
        [
            [1.0] * len(rows),
            *([float(row.students * (row.device == name)) for row in rows] for name in names),
        ],
        [row.beyond_compute_ms for row in rows],
        known=[once_ms + row.students * image_ms for row in rows],
    )
    note = f"communication of {_rows_source(rows)}, less the time on a {link.name} link"
    messages = {name: fit.figure(1 + i, note) for i, name in enumerate(names)}
    fc_ms = Figure(value=facts.host.fc_ms, provenance="published", source=facts.host.fc_source)
    return Hosting(join_fixed_ms=fit.figure(0, note), fc_ms=fc_ms), messages


def _sharing_slowdown(facts: PublishedFacts, slow: DeviceProfile, fast: DeviceProfile) -> Figure:
    """Solve slowdown * n * compute_ms(fast) = compute_ms(slow) for the slowdown."""
    sharing = facts.sharing
    one_ms, many_ms = compute_ms(slow, sharing.macs), compute_ms(fast, sharing.macs)
    return Figure(
        value=_rounded(one_ms / (sharing.students_at_once * many_ms)),
        provenance="fitted",
        source=f"{sharing.source}: {sharing.students_at_once} students at once take as long as one "
        f"on {slow.name}",
        residual_pct=0.0,
    )


def _host(facts: PublishedFacts, hosting: Hosting) -> DeviceProfile:
    """Derive the host: its hosting from the fit, its computing from one published model."""
    host = facts.host
    per_mmac = _derived(host.model_ms / (host.model_macs / 1e6), host.model_source)
    return _described(facts, host.device).model_copy(
        update={
            "compute_fixed_ms": _no_fixed_part(),
            "compute_ms_per_mmac": per_mmac,
            "hosting": hosting,
        }
    )


def _microcontroller(facts: PublishedFacts, networked: DeviceProfile) -> DeviceProfile:
    """Derive a microcontroller from one benchmark result; its messages from `networked`."""
    chip = facts.microcontroller
    inference_ms = 1000.0 / chip.inferences_per_s
    power_w = _derived(chip.energy_per_inference_mj / inference_ms, chip.source)
    described = _described(facts, chip.device)
    message_ms = figure_of(networked, "message_ms") * networked.clock_hz / described.clock_hz
    return described.model_copy(
        update={
            "compute_fixed_ms": _no_fixed_part(),
            "compute_ms_per_mmac": _derived(
                inference_ms / (chip.macs_per_inference / 1e6), chip.source
            ),
            "power_fixed_w": power_w,
            "power_busy_w": power_w,
            "message_ms": _assumed(message_ms, f"that of {networked.name}, slower by the clock"),
            "sharing_slowdown": _assumed(1.0, "one core: models take turns and lose nothing"),
        }
    )


def _described(facts: PublishedFacts, name: str) -> DeviceProfile:
    """Return the device without figures."""
    return DeviceProfile.model_validate(facts.device(name).model_dump())


def _derived(value: float, source: str) -> Figure:
    return Figure(value=_rounded(value), provenance="fitted", source=source, residual_pct=0.0)


def _assumed(value: float, source: str) -> Figure:
    return Figure(value=_rounded(value), provenance="assumed", source=source)


def _no_fixed_part() -> Figure:
    return _assumed(0.0, "one measurement does not tell a fixed part from the rest")


def _rows_source(rows: Sequence[Deployment]) -> str:
    table = ", ".join(dict.fromkeys(row.table for row in rows))
    return f"{table}: {', '.join(f'{row.device} {row.row}' for row in rows)}"


def _rounded(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


if __name__ == "__main__":
    for path in write_devices():
        sys.stdout.write(f"{path}\n")
