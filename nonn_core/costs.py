"""Exact cost of a network, in closed form and without torch: parameters, MACs, peak activations.

MACs are what fvcore counts: the multiply-accumulates of convolutions and linear layers, two per
element that is normalised (scale, shift), one per element that is pooled.  Published FLOPs are
`FLOPS_PER_MAC` times these (WRN40-4: 1301.4 M MACs, 2.6 GFLOPs).  Peak activations are the most
elements that are alive at once when element-wise operations work in place and a tensor is freed
after its last use, which is what static memory planners of board runtimes do; `nonn_core.measure`
finds the same figures by walking the graph of a built module.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from nonn_core.blueprint import (
    Blueprint,
    Conv,
    Maps,
    MaxPool,
    Norm,
    Op,
    Ops,
    Residual,
    activated,
    after,
    after_all,
)
from nonn_core.family import NetworkSpec
from nonn_core.image import Image

Precision = Literal["fp32", "fp16", "int8"]
BYTES_PER_VALUE: dict[Precision, int] = {"fp32": 4, "fp16": 2, "int8": 1}


@dataclass(frozen=True, slots=True)
class Layer:
    """One operation: its name, parameters, MACs, and the elements alive while it runs."""

    name: str
    params: int
    macs: int
    live_elements: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What a network needs: parameters, MACs per image, peak activations in elements."""

    params: int
    macs: int
    peak_elements: int

    def memory_bytes(self, precision: Precision) -> int:
        """Bytes of weights and peak activations, both stored at `precision`."""
        return (self.params + self.peak_elements) * BYTES_PER_VALUE[precision]


@dataclass(frozen=True, slots=True)
class StudentCostLine:
    """A student's cost as a function of the filters it mimics; exact, and linear for the planner.

    params = `params` + `params_per_filter` x filters; MACs likewise; peak elements are the
    largest of `peaks`, each a pair (constant, per filter).
    """

    params: int
    params_per_filter: int
    macs: int
    macs_per_filter: int
    peaks: tuple[tuple[int, int], ...]

    def at(self, filters: int) -> Cost:
        """Return the cost of the student that mimics this many filters."""
        return Cost(
            params=self.params + self.params_per_filter * filters,
            macs=self.macs + self.macs_per_filter * filters,
            peak_elements=max(fixed + slope * filters for fixed, slope in self.peaks),
        )


def total(layers: Iterable[Layer]) -> Cost:
    """Add up a network's layers."""
    table = tuple(layers)
    return Cost(
        params=sum(layer.params for layer in table),
        macs=sum(layer.macs for layer in table),
        peak_elements=max(layer.live_elements for layer in table),
    )


@cache
def teacher_cost(spec: NetworkSpec, image: Image, classes: int) -> Cost:
    """Cost of a whole classifier."""
    return total(teacher_layers(spec, image, classes))


def student_cost(spec: NetworkSpec, image: Image, filters: int) -> Cost:
    """Cost of the student that mimics `filters` filters, its copy of G0 included."""
    return total(student_layers(spec, image, filters))


def group0_cost(spec: NetworkSpec, image: Image) -> Cost:
    """Cost of G0, the stem and first group, which students share in training."""
    return total(_row("group0", spec.blueprint(image.channels).group0, _maps(image)))


def group0_maps(spec: NetworkSpec, image: Image) -> Maps:
    """Shape of the maps that G0 passes on."""
    return after_all(spec.blueprint(image.channels).group0, _maps(image))


def ops_cost(ops: Ops, maps: Maps) -> Cost:
    """Cost of operations in a row that read maps of this shape."""
    return total(_row("ops", ops, maps))


def classifier_params(features: int, classes: int) -> int:
    """Parameters of the FC layer that the host applies to all students' features."""
    return features * classes + classes


def student_cost_line(spec: NetworkSpec, image: Image, own_group0: bool = True) -> StudentCostLine:
    """Cost of a student of this shape for any number of filters.

    Without `own_group0` it is the cost of what follows G0, where G0 runs on a board of its own.
    """
    blueprint = spec.blueprint(image.channels)
    body = total(_body_layers(blueprint, image, own_group0))
    last = _last_maps(blueprint, image)
    # The 1x1 convolution reads these maps and writes one per filter, which is normalised and
    # pooled to one value.
    return StudentCostLine(
        params=body.params,
        params_per_filter=last.channels + 2,
        macs=body.macs,
        macs_per_filter=(last.channels + 3) * last.area,
        peaks=((body.peak_elements, 0), (last.elements, last.area), (0, last.area + 1)),
    )


def teacher_layers(spec: NetworkSpec, image: Image, classes: int) -> Iterator[Layer]:
    """Yield the layers of a classifier: its stages, average pool, FC layer."""
    blueprint = spec.blueprint(image.channels)
    yield from _body_layers(blueprint, image, own_group0=True)
    last = _last_maps(blueprint, image)
    yield from _row("tail", blueprint.tail, last)
    pooled = after_all(blueprint.tail, last)
    features = blueprint.features
    yield Layer("pool", 0, pooled.elements, pooled.elements + features)
    yield Layer("fc", features * classes + classes, features * classes, features + classes)


def student_layers(spec: NetworkSpec, image: Image, filters: int) -> Iterator[Layer]:
    """Yield the layers of a student: its stages, 1x1 convolution to its filters, average pool."""
    blueprint = spec.blueprint(image.channels)
    yield from _body_layers(blueprint, image, own_group0=True)
    last = _last_maps(blueprint, image)
    yield from _row("fconv", activated(Conv(last.channels, filters, 1)), last)
    yield Layer("pool", 0, filters * last.area, filters * last.area + filters)


def _body_layers(blueprint: Blueprint, image: Image, own_group0: bool) -> Iterator[Layer]:
    """Yield everything up to the last stage's output."""
    maps = _maps(image)
    if own_group0:
        yield from _row("group0", blueprint.group0, maps)
    maps = after_all(blueprint.group0, maps)
    for number, stage in enumerate(blueprint.stages):
        yield from _row(f"stages.{number}", stage, maps)
        maps = after_all(stage, maps)


def _row(
    name: str, ops: Ops, maps: Maps, held: int = 0, input_stays: bool = False
) -> Iterator[Layer]:
    """Yield operations in a row; `held` elements, and the input if it stays, live beside them."""
    for number, op in enumerate(ops):
        needed_later = input_stays and number == 0
        yield from _layers(f"{name}.{number}", op, maps, held, needed_later)
        held += maps.elements if needed_later else 0
        maps = after(op, maps)


def _layers(name: str, op: Op, maps: Maps, held: int, input_stays: bool) -> Iterator[Layer]:
    out = after(op, maps)
    match op:
        case Residual():
            yield from _block(name, op, maps, held, input_stays)
        case Conv():
            live = maps.elements + out.elements + held
            yield Layer(name, op.weights, op.weights * out.area, live)
        case MaxPool():
            # Comparisons, which fvcore does not count.
            yield Layer(name, 0, 0, maps.elements + out.elements + held)
        case Norm():
            live = maps.elements * (1 + input_stays) + held
            yield Layer(name, 2 * op.channels, 2 * maps.elements, live)


def _block(name: str, op: Residual, maps: Maps, held: int, input_stays: bool) -> Iterator[Layer]:
    """Yield a residual block: `before`, the shortcut, the body.

    An identity shortcut keeps the block's input alive beside the body; a projection reads what
    `before` made, whose place is free after the body's first layer, and its own output stays.
    """
    block_stays = input_stays or not op.shortcut
    yield from _row(f"{name}.before", op.before, maps, held, block_stays)
    if op.before:
        held += maps.elements if block_stays else 0
        block_stays = False
    if op.shortcut:
        yield from _row(f"{name}.shortcut", op.shortcut, maps, held, input_stays=True)
        held += after_all(op.shortcut, maps).elements
    yield from _row(f"{name}.body", op.body, maps, held, block_stays)


def _maps(image: Image) -> Maps:
    return Maps(image.channels, image.height, image.width)


def _last_maps(blueprint: Blueprint, image: Image) -> Maps:
    maps = after_all(blueprint.group0, _maps(image))
    for stage in blueprint.stages:
        maps = after_all(stage, maps)
    return maps
