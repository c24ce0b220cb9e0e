"""Exact cost of a network, in closed form: parameters, MACs, peak activations, layer table.

MACs are what fvcore counts: the multiply-accumulates of convolutions and linear layers, two
per element that is normalised (scale, shift), one per element that is pooled.  Published
FLOPs are `FLOPS_PER_MAC` times these (WRN40-4: 1301.4 M MACs, 2.6 GFLOPs).  Peak activations
are the most elements that are alive at once when element-wise operations work in place and a
tensor is freed after its last use, which is what static memory planners of board runtimes do;
`nonn_core.teacher.inspection` finds the same figures by walking the graph of a built module.
A layer table adds to each layer the shapes it reads and writes, and what else is alive behind
it: what a device, a cut or a tiling needs to know.  Torch-free.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from nonn_core.networks.blueprint import (
    Blueprint,
    Conv,
    ImageShape,
    MapShape,
    MaxPool,
    NetworkSpec,
    Norm,
    Op,
    Ops,
    Residual,
    conv_norm_relu,
    shape_after,
    shape_after_all,
)
from profiles.layer import LayerKind, LayerTable, LayerWork

Precision = Literal["fp32", "fp16", "int8"]
BYTES_PER_VALUE: dict[Precision, int] = {"fp32": 4, "fp16": 2, "int8": 1}


@dataclass(frozen=True, slots=True)
class LayerCost:
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


def total_cost(layers: Iterable[LayerCost]) -> Cost:
    """Add up a network's layers."""
    table = tuple(layers)
    return Cost(
        params=sum(layer.params for layer in table),
        macs=sum(layer.macs for layer in table),
        peak_elements=max(layer.live_elements for layer in table),
    )


@cache
def teacher_cost(spec: NetworkSpec, image: ImageShape, classes: int) -> Cost:
    """Cost of a whole classifier."""
    return total_cost(teacher_layers(spec, image, classes))


def student_cost(spec: NetworkSpec, image: ImageShape, filters: int) -> Cost:
    """Cost of the student that mimics `filters` filters, its copy of G0 included."""
    return total_cost(student_layers(spec, image, filters))


def group0_cost(spec: NetworkSpec, image: ImageShape) -> Cost:
    """Cost of G0, the stem and first group, which students share in training."""
    return total_cost(_row("group0", spec.blueprint(image.channels).group0, _image_maps(image)))


def group0_maps(spec: NetworkSpec, image: ImageShape) -> MapShape:
    """Shape of the maps that G0 passes on."""
    return shape_after_all(spec.blueprint(image.channels).group0, _image_maps(image))


def ops_cost(ops: Ops, maps: MapShape) -> Cost:
    """Cost of operations in a row that read maps of this shape."""
    return total_cost(_row("ops", ops, maps))


def classifier_params(features: int, classes: int) -> int:
    """Parameters of the FC layer that the host applies to all students' features."""
    return features * classes + classes


def student_cost_line(
    spec: NetworkSpec, image: ImageShape, own_group0: bool = True
) -> StudentCostLine:
    """Cost of a student of this shape for any number of filters.

    Without `own_group0` it is the cost of what follows G0, where G0 runs on a board of its own.
    """
    blueprint = spec.blueprint(image.channels)
    body = total_cost(_body_layers(blueprint, image, own_group0))
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


def teacher_layers(spec: NetworkSpec, image: ImageShape, classes: int) -> Iterator[LayerCost]:
    """Yield the layers of a classifier: its stages, average pool, FC layer."""
    blueprint = spec.blueprint(image.channels)
    yield from _body_layers(blueprint, image, own_group0=True)
    last = _last_maps(blueprint, image)
    yield from _row("tail", blueprint.tail, last)
    pooled = shape_after_all(blueprint.tail, last)
    features = blueprint.features
    yield LayerCost("pool", 0, pooled.elements, pooled.elements + features)
    yield LayerCost("fc", features * classes + classes, features * classes, features + classes)


def student_layers(spec: NetworkSpec, image: ImageShape, filters: int) -> Iterator[LayerCost]:
    """Yield the layers of a student: its stages, 1x1 convolution to its filters, average pool."""
    blueprint = spec.blueprint(image.channels)
    yield from _body_layers(blueprint, image, own_group0=True)
    last = _last_maps(blueprint, image)
    yield from _row("fconv", conv_norm_relu(Conv(last.channels, filters, 1)), last)
    yield LayerCost("pool", 0, filters * last.area, filters * last.area + filters)


def _body_layers(blueprint: Blueprint, image: ImageShape, own_group0: bool) -> Iterator[LayerCost]:
    """Yield everything up to the last stage's output."""
    maps = _image_maps(image)
    if own_group0:
        yield from _row("group0", blueprint.group0, maps)
    maps = shape_after_all(blueprint.group0, maps)
    for number, stage in enumerate(blueprint.stages):
        yield from _row(f"stages.{number}", stage, maps)
        maps = shape_after_all(stage, maps)


def _row(
    name: str, ops: Ops, maps: MapShape, held: int = 0, input_stays: bool = False
) -> Iterator[LayerCost]:
    """Yield operations in a row; `held` elements, and the input if it stays, live beside them."""
    for number, op in enumerate(ops):
        needed_later = input_stays and number == 0
        yield from _layers(f"{name}.{number}", op, maps, held, needed_later)
        held += maps.elements if needed_later else 0
        maps = shape_after(op, maps)


def _layers(name: str, op: Op, maps: MapShape, held: int, input_stays: bool) -> Iterator[LayerCost]:
    out = shape_after(op, maps)
    match op:
        case Residual():
            yield from _block(name, op, maps, held, input_stays)
        case Conv():
            live = maps.elements + out.elements + held
            yield LayerCost(name, op.weights, op.weights * out.area, live)
        case MaxPool():
            # Comparisons, which fvcore does not count.
            yield LayerCost(name, 0, 0, maps.elements + out.elements + held)
        case Norm():
            live = maps.elements * (1 + input_stays) + held
            yield LayerCost(name, 2 * op.channels, 2 * maps.elements, live)


def _block(
    name: str, op: Residual, maps: MapShape, held: int, input_stays: bool
) -> Iterator[LayerCost]:
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
        held += shape_after_all(op.shortcut, maps).elements
    yield from _row(f"{name}.body", op.body, maps, held, block_stays)


def _image_maps(image: ImageShape) -> MapShape:
    return MapShape(image.channels, image.height, image.width)


def _last_maps(blueprint: Blueprint, image: ImageShape) -> MapShape:
    maps = shape_after_all(blueprint.group0, _image_maps(image))
    for stage in blueprint.stages:
        maps = shape_after_all(stage, maps)
    return maps


@dataclass(frozen=True, slots=True)
class _LayerShapes:
    """Where a layer stands: what it reads and writes, and what is alive beside its output."""

    kind: LayerKind
    inputs: MapShape
    outputs: MapShape
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    side: bool = False
    held: int = 0


def teacher_table(spec: NetworkSpec, image: ImageShape, classes: int) -> LayerTable:
    """Return the layers of a whole classifier; MACs and weights are those of `teacher_cost`."""
    blueprint = spec.blueprint(image.channels)
    ops = (*_body(blueprint), *blueprint.tail)
    last = shape_after_all(ops, _image_map_shape(image))
    pooled = MapShape(blueprint.features, 1, 1)
    ending = (_average(last), _LayerShapes("fc", pooled, MapShape(classes, 1, 1)))
    return _table(
        teacher_layers(spec, image, classes), (*_placed_row(ops, _image_map_shape(image)), *ending)
    )


def student_table(spec: NetworkSpec, image: ImageShape, filters: int) -> LayerTable:
    """Return the layers of the student of `filters` filters; the sums are `student_cost`'s."""
    blueprint = spec.blueprint(image.channels)
    ops = (*_body(blueprint), *conv_norm_relu(Conv(blueprint.channels, filters, 1)))
    last = shape_after_all(ops, _image_map_shape(image))
    places = (*_placed_row(ops, _image_map_shape(image)), _average(last))
    return _table(student_layers(spec, image, filters), places)


def _table(layers: Iterable[LayerCost], places: Iterable[_LayerShapes]) -> LayerTable:
    """Put the cost of each layer and its place together."""
    return tuple(
        LayerWork(
            name=layer.name,
            kind=place.kind,
            macs=layer.macs,
            weights=layer.params,
            in_channels=place.inputs.channels,
            in_height=place.inputs.height,
            in_width=place.inputs.width,
            out_channels=place.outputs.channels,
            out_height=place.outputs.height,
            out_width=place.outputs.width,
            kernel=place.kernel,
            stride=place.stride,
            groups=place.groups,
            side=place.side,
            held_elements=place.held,
        )
        for layer, place in zip(layers, places, strict=True)
    )


def _body(blueprint: Blueprint) -> Ops:
    return (*blueprint.group0, *(op for stage in blueprint.stages for op in stage))


def _image_map_shape(image: ImageShape) -> MapShape:
    return MapShape(image.channels, image.height, image.width)


def _placed_row(
    ops: Ops, maps: MapShape, held: int = 0, side: bool = False
) -> Iterator[_LayerShapes]:
    """Yield operations in a row, in the order of `costs`, with `held` elements alive beside."""
    for op in ops:
        yield from _places(op, maps, held, side)
        maps = shape_after(op, maps)


def _places(op: Op, maps: MapShape, held: int, side: bool) -> Iterator[_LayerShapes]:
    out = shape_after(op, maps)
    match op:
        case Residual():
            yield from _placed_block(op, maps, held, side)
        case Conv(_, _, kernel, stride, groups):
            yield _LayerShapes("conv", maps, out, kernel, stride, groups, side, held)
        case MaxPool(kernel):
            yield _LayerShapes("pool", maps, out, kernel, 2, side=side, held=held)
        case Norm():
            yield _LayerShapes("norm", maps, out, side=side, held=held)


def _placed_block(op: Residual, maps: MapShape, held: int, side: bool) -> Iterator[_LayerShapes]:
    """Yield a residual block: `before`, the shortcut, the body.

    An identity shortcut keeps the block's input alive; a projection reads what the body will read
    too, and then its own output stays.  The sum, made with the body's last output, frees it.
    """
    identity = 0 if op.shortcut else maps.elements
    yield from _placed_row(op.before, maps, held + identity, side)
    active = shape_after_all(op.before, maps)
    yield from _placed_row(op.shortcut, active, held + active.elements, side=True)
    projected = shape_after_all(op.shortcut, active).elements if op.shortcut else 0
    *body, last = _placed_row(op.body, active, held + identity + projected, side)
    yield from body
    yield replace(last, held=held)


def _average(maps: MapShape) -> _LayerShapes:
    """Return the global average pooling of these maps."""
    longer = max(maps.height, maps.width)
    return _LayerShapes("pool", maps, MapShape(maps.channels, 1, 1), longer, longer)
