"""Library of measured boards: every board of the public measurements as devices.

A board is one device for each number of threads and precision that it was measured in.  The one
that is called like the board is its quickest setting in fp32; the others tell in their names what
they are: `rk3588-1t` computes on one thread, `rk3588-little-4t` on the four little cores,
`rk3588-int8` in int8.  Times come from the rates of layers (`profiles.latency_predictor`); what
nobody published (power, memory) is left untold.  Boards that the published facts describe, too,
keep these facts and their name, and get the rates of their own rows beside the published fit.

The devices are the lines of `profiles/data/measured-devices.jsonl`: reading one opens one file and
parses one line.  `python -m profiles.calibration` writes it.
"""

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path

import numpy as np

from nonn_common.document import write_atomic
from nonn_common.errors import ProfileError
from profiles import Quantity
from profiles.calibration_data import Measurement, PublishedFacts
from profiles.device import MEASURED_DEVICES, DeviceProfile, QuantityName
from profiles.fitting import relative_fit, rounded_value
from profiles.latency_predictor import LatencyPredictor
from profiles.layer import LayerRates
from profiles.layer_rates import WORKS, network_work
from profiles.measured_latency import (
    INT8,
    LITTLE,
    BoardSetting,
    LatencyRow,
    RuntimeNetwork,
    measured_networks,
    measured_rows,
)

SOURCE = "ncnn benchmark (Tencent/ncnn a4d2ea1, benchmark/README.md)"
RUNTIME = "ncnn"
FEWEST_NETWORKS = 3
"""Measured networks of a setting and precision that make a device of it."""

_CLOCK = re.compile(r"([\d.]+) ?(GHz|MHz)", re.IGNORECASE)
_HERTZ = {"ghz": 1e9, "mhz": 1e6}
_GRAPHICS = re.compile(r"\b(GPU|Ampere|Volta|Pascal|Mali|Adreno|PowerVR|BXM)\b.*", re.IGNORECASE)
"""Graphics in a description: a clock that follows is none of the cores'."""

_NETWORK_NAMES = {"mobilenet_v1": "mobilenet"}
"""Networks that the published facts spell otherwise."""


@dataclass(frozen=True)
class BoardLibrary:
    """Boards by name, and the predictor fitted to all of their rows.

    `facts` are those published of some of them, `described` the calibrated devices by name.
    """

    facts: PublishedFacts
    described: Mapping[str, DeviceProfile]

    @cached_property
    def rows(self) -> tuple[LatencyRow, ...]:
        """Measured rows, and those of the published facts of boards that these do not have."""
        names = set(self.boards.values())
        published = [
            LatencyRow(self._published_setting(row.device), network, row.total_ms)
            for row in self.facts.measurements
            if row.device not in names and (network := self._network(row)) is not None
        ]
        return (*(row for row in measured_rows() if row.ms is not None), *published)

    @cached_property
    def boards(self) -> Mapping[str, str]:
        """Names of boards by their descriptions."""
        text = (files("profiles") / "data" / "latencies" / "board-names.csv").read_text("utf-8")
        return {line["board"]: line["name"] for line in csv.DictReader(text.splitlines())}

    @cached_property
    def predictor(self) -> LatencyPredictor:
        """The fit to all rows."""
        return LatencyPredictor.fit(self.rows, measured_networks())

    def rated(self) -> dict[str, DeviceProfile]:
        """Published devices with the rates of layers that their rows tell, by name."""
        found = {}
        for name, device in self.described.items():
            rates = self._published_rates(device)
            found[name] = device.model_copy(
                update={"layer_rates": rates, "core": rates and self.setting_of(name).core}
            )
        return found

    def devices(self) -> Iterator[DeviceProfile]:
        """Devices that the published facts do not describe, in the order of their names."""
        for board, name in sorted(self.boards.items(), key=lambda named: named[1]):
            settings = self._settings(board)
            if not settings:
                raise ProfileError("no measured row of this board", found=board)
            for setting in settings:
                for int8 in (False, True):
                    called = self._called(name, setting, settings[0], int8)
                    measured = self._measured(setting, int8)
                    if called not in self.described and measured >= FEWEST_NETWORKS:
                        yield self._device(called, setting, int8)

    def write(self, folder: Path) -> Path:
        """Write `devices` as lines of a file in `folder`, each with what it tells.

        Returns the file.
        """
        lines = [
            json.dumps(_told(device.model_dump(mode="json")), ensure_ascii=False)
            for device in self.devices()
        ]
        path = folder / MEASURED_DEVICES
        write_atomic(path, "".join(f"{line}\n" for line in lines).encode())
        return path

    def setting_of(self, name: str) -> BoardSetting:
        """Setting that the device called like a board stands for."""
        for board, called in self.boards.items():
            if called == name:
                return self._settings(board)[0]
        return self._published_setting(name)

    def _published_setting(self, name: str) -> BoardSetting:
        facts = self.facts.device(name)
        return BoardSetting(f"{facts.title}, {facts.core}", facts.cores, 0)

    def _network(self, row: Measurement) -> str | None:
        """Network of a published row that was measured as these rows were; else None."""
        facts = self.facts.device(row.device)
        name = _NETWORK_NAMES.get(row.row, row.row)
        alike = facts.runtime == RUNTIME and not row.boards and row.total_ms is not None
        return name if alike and facts.core is not None and name in measured_networks() else None

    def _published_rates(self, device: DeviceProfile) -> LayerRates | None:
        if device.runtime != RUNTIME:
            return None
        return self._rates(self.setting_of(device.name), int8=False)

    def _rates(self, setting: BoardSetting, int8: bool) -> LayerRates:
        count, precision = self._measured(setting, int8), "int8" if int8 else "fp32"
        said = (
            f"{SOURCE}: {count} {precision} networks with {_threads(setting)}; rates fitted to "
            f"them and to {len(self.rows) - count} other rows"
        )
        return self.predictor.layer_rates(setting, int8, said)

    def _settings(self, board: str) -> list[BoardSetting]:
        """Settings of a board that differ in cores or threads, the quickest in fp32 first."""
        measured = dict.fromkeys(row.setting for row in self.rows if row.setting.board == board)
        unlike: dict[tuple[int | None, str, int], BoardSetting] = {}
        # All cores first, then the big ones: little ones that are like the others are the same.
        for setting in sorted(measured, key=lambda one: (one.powersave == LITTLE, one)):
            key = clock_hz(setting), setting.core, setting.threads
            unlike.setdefault(key, setting)
        return sorted(unlike.values(), key=self._typical_ms)

    def _typical_ms(self, setting: BoardSetting) -> float:
        """Geometric mean of the predicted times of all fp32 networks, in ms."""
        rates = np.exp(self.predictor.log_rates[self.predictor.settings[setting]])
        return float(np.exp(np.log(self._works @ rates).mean()))

    @cached_property
    def _works(self) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
        networks = measured_networks()
        return network_work([networks[name] for name in networks if not name.endswith(INT8)])

    def _measured(self, setting: BoardSetting, int8: bool) -> int:
        """Number of measured networks of a precision."""
        return sum(
            row.setting == setting and row.network.endswith(INT8) == int8 for row in self.rows
        )

    def _called(self, name: str, setting: BoardSetting, first: BoardSetting, int8: bool) -> str:
        """Name of a device of the board called `name`."""
        parts = [name]
        if setting != first:
            little = setting.powersave == LITTLE and first.powersave != LITTLE
            parts += [*(["little"] if little else []), f"{setting.threads}t"]
        return "-".join([*parts, *(["int8"] if int8 else [])])

    def _device(self, name: str, setting: BoardSetting, int8: bool) -> DeviceProfile:
        base = self.boards[setting.board]
        published = self.described.get(base)
        fixed, slope = self._affine(setting, int8)
        device = DeviceProfile(
            name=name,
            title=setting.board,
            board=base if published is None else published.board,
            core=setting.core,
            clock_hz=clock_hz(setting),
            cores=setting.threads,
            runtime=RUNTIME,
            precision="int8" if int8 else "fp32",
            source=f"{SOURCE}; memory and power are not told there",
            compute_fixed_ms=fixed,
            compute_ms_per_mmac=slope,
            layer_rates=self._rates(setting, int8),
            **self._assumed(clock_hz(setting)),
        )
        if published is None:
            return device
        same = setting == self.setting_of(base)
        kept = ("ram_bytes", "flash_bytes", "source", "default_link", "idle_w", "radio_w")
        busy = ("power_fixed_w", "power_busy_w") if same else ()
        return device.model_copy(update={part: getattr(published, part) for part in kept + busy})

    def _affine(self, setting: BoardSetting, int8: bool) -> tuple[Quantity, Quantity]:
        """Time affine in the MACs, as fitted to the measured networks of a precision."""
        networks = measured_networks()
        pairs = [
            (networks[row.network], row.ms or 0.0)
            for row in self.rows
            if row.setting == setting and row.network.endswith(INT8) == int8
        ]
        note = f"{SOURCE}: {len(pairs)} networks with {_threads(setting)}"
        return affine_quantities(pairs, note)

    def _assumed(self, clock_hz: int | None) -> dict[QuantityName, Quantity]:
        """Figures that no one measured, taken over from published boards."""
        like, shared = self.described["rpi-3b"], self.described["odroid-xu4s"]
        message_ms = like.message_ms.value if like.message_ms else 0.0
        note = f"that of {like.name}"
        if clock_hz and like.clock_hz:
            message_ms, note = message_ms * like.clock_hz / clock_hz, f"{note}, by the clock"
        message = Quantity(value=rounded_value(message_ms), provenance="assumed", source=note)
        slowdown = shared.sharing_slowdown.value if shared.sharing_slowdown else 1.0
        return {
            "message_ms": message,
            "sharing_slowdown": Quantity(
                value=slowdown, provenance="assumed", source=f"that of {shared.name}"
            ),
            "exchange_ms": Quantity(
                value=0.0, provenance="assumed", source="an exchange costs its messages"
            ),
            "peer_message_ms": message.model_copy(
                update={"source": "that of a message from the host"}
            ),
        }


def affine_quantities(
    measured: Sequence[tuple[RuntimeNetwork, float]], source: str
) -> tuple[Quantity, Quantity]:
    """Fixed ms and ms per million MACs, fitted to networks that took so many ms.

    Time grows with the MACs: where a few unlike networks tell no slope beside a fixed part, there
    is none.
    """
    times = [ms for _, ms in measured]
    mmac = [network_macs(network) for network, _ in measured]
    fit = relative_fit({"fixed": [1.0] * len(times), "mmac": mmac}, times)
    if "mmac" not in fit.coefficients or not fit.coefficients["mmac"].value:
        fit = relative_fit({"mmac": mmac}, times)
    fixed = (
        fit.quantity("fixed", source)
        if "fixed" in fit.coefficients
        else Quantity(value=0.0, provenance="assumed", source="networks told no fixed part")
    )
    return fixed, fit.quantity("mmac", source)


def network_macs(network: RuntimeNetwork) -> float:
    """Million MACs of a network, whatever the algorithm."""
    total = 0.0
    for layer in network:
        width, height, _ = layer.in_shape or (0, 1, 1)
        out_width, out_height, _ = layer.out_shape or (0, 1, 1)
        if layer.kind.startswith("Convolution"):
            total += out_width * out_height * layer.weights
        elif layer.kind.startswith("Deconvolution"):
            total += width * height * layer.weights
    fc, matrix = list(WORKS).index("fc weights"), list(WORKS).index("matrix")
    work = network_work([network])[0]
    return total / 1e6 + float(work[fc] + work[matrix])


def _told(content: Mapping[str, object]) -> dict[str, object]:
    """`content` without nulls, its name first."""
    found = {
        key: _told(value) if isinstance(value, dict) else value
        for key, value in content.items()
        if value is not None
    }
    return {"name": found["name"], **found} if "name" in found else found


def clock_hz(setting: BoardSetting) -> int | None:
    """Clock of the cores that compute, in Hz.

    That of the board's slowest cores where little ones compute alone; None where its description
    tells no clock.
    """
    found = _CLOCK.findall(_GRAPHICS.sub("", setting.board))
    clocks = [round(float(number) * _HERTZ[unit.lower()]) for number, unit in found]
    slowest_or_quickest = min if setting.powersave == LITTLE else max
    return slowest_or_quickest(clocks) if clocks else None


def _threads(setting: BoardSetting) -> str:
    return f"{setting.threads} thread{'s' * (setting.threads > 1)}"
