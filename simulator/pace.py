"""A pace: how fast a device does single layers, or parts of layers, of one model.

Layer by layer where the device's profile has a model of its layers that knows all of this model's;
affine in the multiply-accumulates (MACs) otherwise::

    per-layer    ms = sum of layer_ms(layer)                      mj = power_busy_w * ms
    flop-affine  ms = [compute_fixed_ms] + compute_ms_per_mmac * macs / 1e6
                 mj = [power_fixed_w * compute_fixed_ms] + power_busy_w * the rest

What stands in brackets is paid once per image by each device that computes for it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from profiles.device import DeviceProfile, figure_of
from profiles.layer import LayerTable, LayerWork
from profiles.layer_cost import layer_ms


@dataclass(frozen=True, slots=True)
class Effort:
    """What computing costs: time in ms, energy in mJ."""

    ms: float
    mj: float

    def __add__(self, other: "Effort") -> "Effort":
        return Effort(self.ms + other.ms, self.mj + other.mj)


NO_EFFORT = Effort(0.0, 0.0)


class Pace:
    """How fast `device` does layers of the model with this layer table.

    Energy is 0 where the profile has no power, as an x86 host's.  Raises ProfileError where it
    lacks the figures of time.
    """

    def __init__(self, device: DeviceProfile, table: LayerTable) -> None:
        self._device = device
        self._per_layer = bool(table) and all(self._measured_ms(each) is not None for each in table)
        self._busy_w = device.power_busy_w.value if device.power_busy_w else 0.0

    @property
    def begin(self) -> Effort:
        """What an image costs before its first layer."""
        if self._per_layer:
            return NO_EFFORT
        fixed_ms = figure_of(self._device, "compute_fixed_ms")
        power = self._device.power_fixed_w
        return Effort(fixed_ms, power.value * fixed_ms if power else 0.0)

    def layers(self, layers: Iterable[LayerWork]) -> Effort:
        """Return the cost of layers, one after the other."""
        ms = sum(map(self._layer_ms, layers), 0.0)
        return Effort(ms, self._busy_w * ms)

    def _layer_ms(self, layer: LayerWork) -> float:
        if self._per_layer:
            measured_ms = self._measured_ms(layer)
            if measured_ms is not None:
                return measured_ms
        return figure_of(self._device, "compute_ms_per_mmac") * layer.macs / 1e6

    def _measured_ms(self, layer: LayerWork) -> float | None:
        model = self._device.layers
        return None if model is None else layer_ms(model, layer, self._device.precision)
