"""Layers: their work, the shapes of their data, and their time on a device.

What a model costs a device beyond its number of multiply-accumulates (MACs) is decided by the
work of its layers, and where a model can be cut by what is alive between two of them.  A *layer
table* holds a model's layers in the order in which they are executed, for one image.

The time of a layer is a roofline of fixed time, arithmetic and bytes moved.  Per kind of layer,
and for convolutions per shape of kernel (1 x 1, larger, depthwise)::

    ms = fixed_ms + ms_per_<kernel>_mmac * macs / 1e6
       + ms_per_activation_mb * (inputs + outputs) * b / 1e6 + ms_per_weight_mb * weights * b / 1e6

with b bytes per value.  The sum of arithmetic and memory time, not the larger of the two: it is
at most twice off, and linear in the coefficients.  As in nn-Meter (Zhang et al. 2021, MobiSys),
a model's time is the sum over what the device executes one after another.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import Field

from nonn_common.document import Record
from profiles import Quantity

LayerKind = Literal["conv", "norm", "pool", "fc"]


@dataclass(frozen=True, slots=True)
class LayerWork:
    """One layer for one image.

    `macs` and `weights` are counted as in `nonn_core.networks.network_cost`.  `kernel`, `stride`
    and `groups` are 1 where a layer has none; a global pooling has a kernel and a stride of its
    maps' longer side.  `side` marks a layer on a shortcut beside the main path.  `held_elements`
    are values of other branches that are alive after this layer, beside its own output: what is
    cut off here sends both.
    """

    name: str
    kind: LayerKind
    macs: int
    weights: int
    in_channels: int
    in_height: int
    in_width: int
    out_channels: int
    out_height: int
    out_width: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    side: bool = False
    held_elements: int = 0

    @property
    def in_elements(self) -> int:
        """Values that the layer reads."""
        return self.in_channels * self.in_height * self.in_width

    @property
    def out_elements(self) -> int:
        """Values that the layer writes."""
        return self.out_channels * self.out_height * self.out_width


LayerTable = tuple[LayerWork, ...]
"""A model's layers in the order of execution."""

RuntimePrecision = Literal["fp32", "fp16", "int8"]
"""Number format of a measured runtime; students are exported as fp32 or int8."""

BYTES_PER_VALUE: Mapping[RuntimePrecision, int] = {"fp32": 4, "fp16": 2, "int8": 1}

Kernel = Literal["pointwise", "spatial", "depthwise"]

Term = Literal[
    "fixed_ms",
    "ms_per_pointwise_mmac",
    "ms_per_spatial_mmac",
    "ms_per_depthwise_mmac",
    "ms_per_activation_mb",
    "ms_per_weight_mb",
]
TERMS: tuple[Term, ...] = get_args(Term)


class KindCost(Record):
    """Coefficients of one kind of layer."""

    kind: LayerKind = Field(description="Kind of layer.")
    kernels: tuple[Kernel, ...] = Field(description="Shapes of kernel that were measured.")
    layers: int = Field(gt=0, description="Layers that were measured.")
    terms: dict[Term, Quantity] = Field(
        description="ms per layer, per million MACs, or per million bytes. A term that the "
        "measured layers do not tell from an earlier one is left out."
    )

    def __hash__(self) -> int:
        """Hash it, dictionary and all: boards that are alike are found by their profiles."""
        return hash((self.kind, frozenset(self.terms.items())))


class LayerModel(Record):
    """Time of single layers on one device, fitted to measured ones (profiles.fitting)."""

    kinds: tuple[KindCost, ...] = Field(min_length=1, description="One entry per kind.")
    layers: int = Field(gt=0, description="Layers that were measured.")
    residual_pct: float = Field(
        ge=0, description="Largest relative error left on a measured layer, in per cent."
    )
    held_out_pct: float | None = Field(
        ge=0,
        description="Mean relative error, in per cent, on layers that were left out of the fit, "
        "one fifth at a time; null where no layer could be predicted from the others.",
    )
    source: str = Field(min_length=1, description="Where the layers were measured.")


class LayerRates(Record):
    """Rates of a device by kind of work, fitted to measured networks of many boards.

    A model's time is the sum of its work times these rates (profiles.layer_rates).
    """

    ms_per_unit: dict[str, Annotated[float, Field(gt=0)]] = Field(
        min_length=1,
        description="ms of each kind of work of profiles.layer_rates, for a million units or for "
        "one where the kind is counted. A layer with a kind that is not here is not predicted.",
    )
    low: float = Field(
        gt=0,
        le=1,
        description="Lower end of a time's 90 % interval, for a network that was not measured, as "
        "a factor on the time.",
    )
    high: float = Field(ge=1, description="Upper end of that interval, as a factor.")
    rows: int = Field(ge=0, description="Measured rows of this board and setting.")
    threads: int = Field(gt=0, description="Threads that compute.")
    source: str = Field(min_length=1, description="What was measured, and what was fitted to it.")

    def __hash__(self) -> int:
        """Hash it, dictionary and all: boards that are alike are found by their profiles."""
        return hash((self.source, self.threads, self.low, self.high, *self.ms_per_unit.values()))


def kernel_of(layer: LayerWork) -> Kernel:
    """Shape of a layer's kernel; a layer without one counts as pointwise."""
    if layer.groups > 1 and layer.groups == layer.in_channels:
        return "depthwise"
    return "pointwise" if layer.kernel == 1 else "spatial"


def layer_features(layer: LayerWork, precision: RuntimePrecision) -> dict[Term, float]:
    """Factor of each term of the time of `layer`."""
    size = BYTES_PER_VALUE[precision]
    features: dict[Term, float] = dict.fromkeys(TERMS, 0.0)
    features["fixed_ms"] = 1.0
    features[_mmac_term(kernel_of(layer))] = layer.macs / 1e6
    features["ms_per_activation_mb"] = size * (layer.in_elements + layer.out_elements) / 1e6
    features["ms_per_weight_mb"] = size * layer.weights / 1e6
    return features


def layer_ms(model: LayerModel, layer: LayerWork, precision: RuntimePrecision) -> float | None:
    """Time of `layer`, in ms; None for an unmeasured kind or kernel."""
    for cost in model.kinds:
        if cost.kind == layer.kind and kernel_of(layer) in cost.kernels:
            features = layer_features(layer, precision)
            return sum(quantity.value * features[term] for term, quantity in cost.terms.items())
    return None


def rated_ms(rates: LayerRates, layer: LayerWork, precision: RuntimePrecision) -> float | None:
    """Time of `layer` at these rates, in ms; None where one of them is missing.

    A norm takes none: the runtime folds it into its convolution.  fp16 counts as fp32.
    """
    from profiles.layer_rates import WORKS, layer_work  # loads numpy
    from profiles.measured_latency import student_network

    total_ms = 0.0
    for seen in student_network((layer,), int8=precision == "int8"):
        for name, amount in layer_work(seen):
            rate = rates.ms_per_unit.get(name)
            if rate is None:
                return None
            total_ms += rate * amount * (1.0 if WORKS[name].counted else 1e-6)
    return total_ms


def _mmac_term(kernel: Kernel) -> Term:
    terms: dict[Kernel, Term] = {
        "pointwise": "ms_per_pointwise_mmac",
        "spatial": "ms_per_spatial_mmac",
        "depthwise": "ms_per_depthwise_mmac",
    }
    return terms[kernel]
