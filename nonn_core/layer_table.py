"""Layer tables of networks: what a device, a cut or a tiling needs to know of each layer.

`nonn_core.costs` says what each layer costs; this adds the shapes it reads and writes, and what
else is alive behind it.  Torch-free.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

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
from nonn_core.costs import Layer, student_layers, teacher_layers
from nonn_core.family import NetworkSpec
from nonn_core.image import Image
from profiles.layer import LayerKind, LayerTable, LayerWork


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a layer stands: what it reads and writes, and what is alive beside its output."""

    kind: LayerKind
    inputs: Maps
    outputs: Maps
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    side: bool = False
    held: int = 0


def teacher_table(spec: NetworkSpec, image: Image, classes: int) -> LayerTable:
    """Return the layers of a whole classifier; MACs and weights are those of `teacher_cost`."""
    blueprint = spec.blueprint(image.channels)
    ops = (*_body(blueprint), *blueprint.tail)
    last = after_all(ops, _maps(image))
    pooled = Maps(blueprint.features, 1, 1)
    ending = (_average(last), _Place("fc", pooled, Maps(classes, 1, 1)))
    return _table(teacher_layers(spec, image, classes), (*_row(ops, _maps(image)), *ending))


def student_table(spec: NetworkSpec, image: Image, filters: int) -> LayerTable:
    """Return the layers of the student of `filters` filters; the sums are `student_cost`'s."""
    blueprint = spec.blueprint(image.channels)
    ops = (*_body(blueprint), *activated(Conv(blueprint.channels, filters, 1)))
    last = after_all(ops, _maps(image))
    places = (*_row(ops, _maps(image)), _average(last))
    return _table(student_layers(spec, image, filters), places)


def _table(layers: Iterable[Layer], places: Iterable[_Place]) -> LayerTable:
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


def _maps(image: Image) -> Maps:
    return Maps(image.channels, image.height, image.width)


def _row(ops: Ops, maps: Maps, held: int = 0, side: bool = False) -> Iterator[_Place]:
    """Yield operations in a row, in the order of `costs`, with `held` elements alive beside."""
    for op in ops:
        yield from _places(op, maps, held, side)
        maps = after(op, maps)


def _places(op: Op, maps: Maps, held: int, side: bool) -> Iterator[_Place]:
    out = after(op, maps)
    match op:
        case Residual():
            yield from _block(op, maps, held, side)
        case Conv(_, _, kernel, stride, groups):
            yield _Place("conv", maps, out, kernel, stride, groups, side, held)
        case MaxPool(kernel):
            yield _Place("pool", maps, out, kernel, 2, side=side, held=held)
        case Norm():
            yield _Place("norm", maps, out, side=side, held=held)


def _block(op: Residual, maps: Maps, held: int, side: bool) -> Iterator[_Place]:
    """Yield a residual block: `before`, the shortcut, the body.

    An identity shortcut keeps the block's input alive; a projection reads what the body will read
    too, and then its own output stays.  The sum, made with the body's last output, frees it.
    """
    identity = 0 if op.shortcut else maps.elements
    yield from _row(op.before, maps, held + identity, side)
    active = after_all(op.before, maps)
    yield from _row(op.shortcut, active, held + active.elements, side=True)
    projected = after_all(op.shortcut, active).elements if op.shortcut else 0
    *body, last = _row(op.body, active, held + identity + projected, side)
    yield from body
    yield replace(last, held=held)


def _average(maps: Maps) -> _Place:
    """Return the global average pooling of these maps."""
    longer = max(maps.height, maps.width)
    return _Place("pool", maps, Maps(maps.channels, 1, 1), longer, longer)
