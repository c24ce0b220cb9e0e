"""Exact cost of a network, in closed form: parameters, MACs, peak activations, layer table.

MACs are what fvcore counts: the multiply-accumulates of convolutions and linear layers, two
per element that is normalised (scale, shift), one per element that is pooled.  Published
FLOPs are `FLOPS_PER_MAC` times these (WRN40-4: 1301.4 M MACs, 2.6 GFLOPs).  Peak activations
are the most elements that are alive at once when element-wise operations work in place and a
tensor is freed after its last use, which is what static memory planners of board runtimes do;
`nonn_core.teacher.inspection` finds the same figures by walking the graph of a built module.

One walk of a blueprint yields its layers, from which costs and layer tables both follow.  A layer
table is what a device, a cut or a tiling needs to know: the shapes that each layer reads and
writes, and what else is alive behind it.  Torch-free.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

from nonn_core.networks.blueprint import (
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
from profiles.layer import BYTES_PER_VALUE as BYTES_PER_VALUE
from profiles.layer import LayerKind, LayerTable, LayerWork

Precision = Literal["fp32", "int8"]
"""Number format of students and exported models."""


class LayerCost(NamedTuple):
    """One layer for one image: cost, shapes, and elements alive.

    `live_elements` are alive while it runs; `held_elements` are those of other branches that are
    alive after it, beside its own output.  `side` marks a layer on a shortcut beside the main path.
    """

    name: str
    kind: LayerKind
    params: int
    macs: int
    inputs: MapShape
    outputs: MapShape
    live_elements: int
    held_elements: int = 0
    side: bool = False
    kernel: int = 1
    stride: int = 1
    groups: int = 1

    def work(self) -> LayerWork:
        """Row of a layer table."""
        return LayerWork(
            name=self.name,
            kind=self.kind,
            macs=self.macs,
            weights=self.params,
            in_channels=self.inputs.channels,
            in_height=self.inputs.height,
            in_width=self.inputs.width,
            out_channels=self.outputs.channels,
            out_height=self.outputs.height,
            out_width=self.outputs.width,
            kernel=self.kernel,
            stride=self.stride,
            groups=self.groups,
            side=self.side,
            held_elements=self.held_elements,
        )


@dataclass(frozen=True, slots=True)
class Cost:
    """Needs of a network: parameters, MACs per image, peak activations in elements."""

    params: int
    macs: int
    peak_elements: int

    def memory_bytes(self, precision: Precision) -> int:
        """Bytes of weights and peak activations, both stored at `precision`."""
        return (self.params + self.peak_elements) * BYTES_PER_VALUE[precision]

    def flash_bytes(self, precision: Precision) -> int:
        """Bytes of weights alone."""
        return self.params * BYTES_PER_VALUE[precision]

    def ram_bytes(self, precision: Precision) -> int:
        """Bytes of peak activations alone."""
        return self.peak_elements * BYTES_PER_VALUE[precision]


@dataclass(frozen=True, slots=True)
class StudentOutline:
    """Layers of a student for any number of filters, with or without those of G0."""

    spec: NetworkSpec
    image: ImageShape
    own_group0: bool = True

    def body(self) -> LayerTable:
        """Layers up to the last stage's output, which all numbers of filters have."""
        return tuple(layer.work() for layer in self._stages)

    def head(self, filters: int) -> LayerTable:
        """Layers behind them: the 1x1 convolution to `filters` filters, and the average pool."""
        return tuple(layer.work() for layer in _head_layers(self._stages[-1].outputs, filters))

    @property
    def _stages(self) -> tuple[LayerCost, ...]:
        return _body_layers(self.spec, self.image, own_group0=self.own_group0)


@dataclass(frozen=True, slots=True)
class StudentCostLine:
    """Cost of a student as a linear function of its number of filters; exact.

    params = `params` + `params_per_filter` x filters; MACs likewise; peak elements are the
    largest of `peaks`, each a pair (constant, per filter).  `outline` has the layers that this is
    the cost of.
    """

    params: int
    params_per_filter: int
    macs: int
    macs_per_filter: int
    peaks: tuple[tuple[int, int], ...]
    outline: StudentOutline

    @property
    def growth(self) -> tuple[int, int]:
        """Parameters and MACs of one filter more."""
        return self.params_per_filter, self.macs_per_filter

    def at(self, filters: int) -> Cost:
        """Cost of the student with this number of filters."""
        return Cost(
            params=self.params + self.params_per_filter * filters,
            macs=self.macs + self.macs_per_filter * filters,
            peak_elements=max(fixed + slope * filters for fixed, slope in self.peaks),
        )


def total_cost(layers: Iterable[LayerCost]) -> Cost:
    """Sum of a network's layers."""
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
    """Cost of the student of `filters` filters, its copy of G0 included."""
    return total_cost(student_layers(spec, image, filters))


@cache
def group0_cost(spec: NetworkSpec, image: ImageShape) -> Cost:
    """Cost of G0, the stem and first group, which students share in training."""
    return total_cost(_row("group0", spec.blueprint(image.channels).group0, _image_maps(image)))


@cache
def group0_maps(spec: NetworkSpec, image: ImageShape) -> MapShape:
    """Shape of the maps that G0 passes on."""
    return shape_after_all(spec.blueprint(image.channels).group0, _image_maps(image))


def joint_cost(students: Sequence[tuple[StudentCostLine, int]]) -> Cost:
    """Cost of one model with one G0 and a head for each student.

    A student is given by its cost line and its number of filters.

    The heads run one after the other.  While they do, G0's maps and the vector of all students'
    features stay alive, in whatever order they run; one student's maps go as soon as they are read.
    """
    costs = [line.at(filters) for line, filters in students]
    if len(students) == 1:
        return costs[0]
    first = students[0][0].outline
    group0 = group0_cost(first.spec, first.image)
    repeated = len(students) - 1
    behind = max(
        fixed + slope * filters
        for line, filters in students
        for fixed, slope in head_peaks(line.outline)
    )
    return Cost(
        params=sum(cost.params for cost in costs) - repeated * group0.params,
        macs=sum(cost.macs for cost in costs) - repeated * group0.macs,
        peak_elements=max(group0.peak_elements, behind + sum(n for _, n in students)),
    )


@cache
def head_peaks(outline: StudentOutline) -> tuple[tuple[int, int], ...]:
    """Peak elements of what follows G0 while its maps stay alive, as (constant, per filter).

    The largest of them counts; the student's own features come on top, wherever they are.
    """
    blueprint = outline.spec.blueprint(outline.image.channels)
    maps = group0_maps(outline.spec, outline.image)
    held, last, rows = maps.elements, maps, list[LayerCost]()
    for number, stage in enumerate(blueprint.stages):
        beside = 0 if number == 0 else held
        rows += _row(f"stages.{number}", stage, last, beside, input_stays=number == 0)
        last = rows[-1].outputs
    return (max(row.live_elements for row in rows), 0), (held + last.elements, last.area)


def ops_cost(ops: Ops, maps: MapShape) -> Cost:
    """Cost of operations in a row that read maps of this shape."""
    return total_cost(_row("ops", ops, maps))


def classifier_params(features: int, classes: int) -> int:
    """Parameters of the FC layer that the host applies to all students' features."""
    return features * classes + classes


@cache
def student_cost_line(
    spec: NetworkSpec, image: ImageShape, own_group0: bool = True
) -> StudentCostLine:
    """Cost of a student of this shape for any number of filters.

    Without `own_group0` it is the cost of what follows G0, where G0 runs on a board of its own.
    """
    layers = _body_layers(spec, image, own_group0=own_group0)
    body, last = total_cost(layers), layers[-1].outputs
    # The 1x1 convolution reads these maps and writes one per filter, which is normalised and
    # pooled to one value.
    return StudentCostLine(
        params=body.params,
        params_per_filter=last.channels + 2,
        macs=body.macs,
        macs_per_filter=(last.channels + 3) * last.area,
        peaks=((body.peak_elements, 0), (last.elements, last.area), (0, last.area + 1)),
        outline=StudentOutline(spec, image, own_group0),
    )


def teacher_table(spec: NetworkSpec, image: ImageShape, classes: int) -> LayerTable:
    """Layer table of a whole classifier; MACs and weights are those of `teacher_cost`."""
    return tuple(layer.work() for layer in teacher_layers(spec, image, classes))


@cache
def group0_table(spec: NetworkSpec, image: ImageShape) -> LayerTable:
    """Layer table of G0, where it runs on a board of its own."""
    rows = _row("group0", spec.blueprint(image.channels).group0, _image_maps(image))
    return tuple(layer.work() for layer in rows)


def student_table(spec: NetworkSpec, image: ImageShape, filters: int) -> LayerTable:
    """Layer table of the student of `filters` filters; the sums are `student_cost`'s."""
    return tuple(layer.work() for layer in student_layers(spec, image, filters))


def teacher_layers(spec: NetworkSpec, image: ImageShape, classes: int) -> Iterator[LayerCost]:
    """Layers of a classifier: its stages, average pool, FC layer."""
    body = _body_layers(spec, image, own_group0=True)
    tail = tuple(_row("tail", spec.blueprint(image.channels).tail, body[-1].outputs))
    pool = _average_pool((*body, *tail)[-1].outputs)
    features = pool.outputs.channels
    params, live = classifier_params(features, classes), features + classes
    yield from (*body, *tail, pool)
    yield LayerCost(
        "fc", "fc", params, features * classes, pool.outputs, MapShape(classes, 1, 1), live
    )


def student_layers(spec: NetworkSpec, image: ImageShape, filters: int) -> Iterator[LayerCost]:
    """Layers of a student: its stages, 1x1 convolution to its filters, average pool."""
    body = _body_layers(spec, image, own_group0=True)
    yield from body
    yield from _head_layers(body[-1].outputs, filters)


def _head_layers(last: MapShape, filters: int) -> Iterator[LayerCost]:
    """Layers of a student behind the maps `last` of its stages."""
    yield from _row("fconv", conv_norm_relu(Conv(last.channels, filters, 1)), last)
    yield _average_pool(MapShape(filters, last.height, last.width))


@cache
def _body_layers(
    spec: NetworkSpec, image: ImageShape, *, own_group0: bool
) -> tuple[LayerCost, ...]:
    """Layers up to the last stage's output, with or without those of G0."""
    blueprint = spec.blueprint(image.channels)
    found = tuple(_row("group0", blueprint.group0, _image_maps(image)))
    maps = found[-1].outputs
    if not own_group0:
        found = ()
    for number, stage in enumerate(blueprint.stages):
        found += tuple(_row(f"stages.{number}", stage, maps))
        maps = found[-1].outputs
    return found


def _row(
    name: str,
    ops: Ops,
    maps: MapShape,
    held: int = 0,
    *,
    input_stays: bool = False,
    side: bool = False,
) -> Iterator[LayerCost]:
    """Layers of operations in a row.

    `held` elements, and the input if it stays, live beside.
    """
    for number, op in enumerate(ops):
        stays = maps.elements if input_stays and number == 0 else 0
        out = shape_after(op, maps)
        yield from _layers(f"{name}.{number}", op, maps, out, held, stays, side)
        held += stays
        maps = out


def _layers(
    name: str, op: Op, maps: MapShape, out: MapShape, held: int, stays: int, side: bool
) -> Iterator[LayerCost]:
    """Layers of one operation; `stays` are the elements of its input that are needed later."""
    behind, both = held + stays, maps.elements + out.elements
    match op:
        case Residual():
            yield from _block(name, op, maps, held, stays, side)
        case Conv(_, _, kernel, stride, groups):
            weights = op.weights
            sizes = (kernel, stride, groups)
            macs, live = weights * out.area, both + held
            yield LayerCost(name, "conv", weights, macs, maps, out, live, behind, side, *sizes)
        case MaxPool(kernel):
            # Comparisons, which fvcore does not count.
            yield LayerCost(name, "pool", 0, 0, maps, out, both + held, behind, side, kernel, 2)
        case Norm(channels):
            live = maps.elements + behind
            yield LayerCost(
                name, "norm", 2 * channels, 2 * maps.elements, maps, out, live, behind, side
            )


def _block(
    name: str, op: Residual, maps: MapShape, held: int, stays: int, side: bool
) -> Iterator[LayerCost]:
    """Layers of a residual block: `before`, the shortcut, the body.

    An identity shortcut keeps the block's input alive beside the body; a projection reads what
    `before` made, whose place is free after the body's first layer, and its own output stays.  The
    sum, made with the body's last output, frees both.
    """
    behind = held + stays
    input_stays = stays > 0 or not op.shortcut
    yield from _row(f"{name}.before", op.before, maps, held, input_stays=input_stays, side=side)
    if op.before:
        held += maps.elements if input_stays else 0
        input_stays = False
    if op.shortcut:
        active = shape_after_all(op.before, maps)
        yield from _row(f"{name}.shortcut", op.shortcut, active, held, input_stays=True, side=True)
        held += shape_after_all(op.shortcut, active).elements
    *body, last = _row(f"{name}.body", op.body, maps, held, input_stays=input_stays, side=side)
    yield from body
    yield last._replace(held_elements=behind)


def _average_pool(maps: MapShape) -> LayerCost:
    """Global average pooling of these maps."""
    pooled, longer = MapShape(maps.channels, 1, 1), max(maps.height, maps.width)
    live = maps.elements + maps.channels
    return LayerCost(
        "pool", "pool", 0, maps.elements, maps, pooled, live, kernel=longer, stride=longer
    )


def _image_maps(image: ImageShape) -> MapShape:
    return MapShape(image.channels, image.height, image.width)
