"""The time of a model on a device: layer by layer where layers were measured, else by its MACs."""

from dataclasses import dataclass
from typing import Literal

from profiles.device import DeviceProfile, compute_ms
from profiles.layer import LayerTable
from profiles.layer_cost import layer_ms

How = Literal["per-layer", "flop-affine"]


@dataclass(frozen=True, slots=True)
class Timed:
    """A predicted time in ms, and what predicted it."""

    ms: float
    how: How


def model_ms(device: DeviceProfile, table: LayerTable) -> Timed:
    """Return the time of the layers of `table`, one after another and alone on `device`.

    Per layer where the device has a model of its layers that knows each of these; affine in the
    MACs (`compute_ms`) otherwise.  Raises ProfileError where the profile lacks those figures.
    """
    if device.layers is not None:
        layers = device.layers
        times = [layer_ms(layers, layer, device.precision) for layer in table]
        known = [time for time in times if time is not None]
        if len(known) == len(times):
            return Timed(sum(known), "per-layer")
    return Timed(compute_ms(device, sum(layer.macs for layer in table)), "flop-affine")
