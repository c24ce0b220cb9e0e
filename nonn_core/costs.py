"""Exact cost of a network, in closed form and without torch: parameters, MACs, peak activations.

MACs are what fvcore counts: the multiply-accumulates of convolutions and linear layers, two per
element that is normalised (scale, shift), one per element that is pooled.  Published FLOPs are
`FLOPS_PER_MAC` times these (WRN40-4: 1301.4 M MACs, 2.6 GFLOPs).  Peak activations are the most
elements that are alive at once when element-wise operations work in place and a tensor is freed
after its last use, which is what static memory planners of board runtimes do; `nonn_core.measure`
finds the same figures by walking the graph of a built module.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from nonn_core.family import STEM_CHANNELS, Image, WrnSpec

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


def total(layers: Iterator[Layer]) -> Cost:
    """Add up a network's layers."""
    table = tuple(layers)
    return Cost(
        params=sum(layer.params for layer in table),
        macs=sum(layer.macs for layer in table),
        peak_elements=max(layer.live_elements for layer in table),
    )


def teacher_cost(spec: WrnSpec, image: Image, classes: int) -> Cost:
    """Cost of a whole classifier."""
    return total(teacher_layers(spec, image, classes))


def student_cost(spec: WrnSpec, image: Image, filters: int) -> Cost:
    """Cost of the student that mimics `filters` filters, its copy of G0 included."""
    return total(student_layers(spec, image, filters))


def group0_cost(spec: WrnSpec, image: Image) -> Cost:
    """Cost of G0, the stem and first group, which students share in training."""
    return total(_group0_layers(spec, image))


def classifier_params(features: int, classes: int) -> int:
    """Parameters of the FC layer that the host applies to all students' features."""
    return features * classes + classes


def student_cost_line(spec: WrnSpec, image: Image) -> StudentCostLine:
    """Cost of a student of this shape for any number of filters."""
    body = total(_body_layers(spec, image))
    area = _area(_final_size(image))
    channels = spec.widths[2]
    # The 1x1 convolution reads `channels` maps and writes one per filter, which is normalised and
    # pooled to one value.
    return StudentCostLine(
        params=body.params,
        params_per_filter=channels + 2,
        macs=body.macs,
        macs_per_filter=(channels + 3) * area,
        peaks=((body.peak_elements, 0), (channels * area, area), (0, area + 1)),
    )


def teacher_layers(spec: WrnSpec, image: Image, classes: int) -> Iterator[Layer]:
    """Yield the layers of a classifier: body, average pool, FC layer."""
    yield from _body_layers(spec, image)
    area = _area(_final_size(image))
    channels = spec.widths[2]
    yield Layer("pool", 0, channels * area, channels * area + channels)
    yield Layer("fc", channels * classes + classes, channels * classes, channels + classes)


def student_layers(spec: WrnSpec, image: Image, filters: int) -> Iterator[Layer]:
    """Yield the layers of a student: body, 1x1 convolution to its filters, average pool."""
    yield from _body_layers(spec, image)
    size = _final_size(image)
    area = _area(size)
    yield _convolution("fconv", spec.widths[2], filters, 1, size, size, held=0)
    yield _norm("fconv.norm", filters, filters * area, held=0)
    yield Layer("pool", 0, filters * area, filters * area + filters)


def _body_layers(spec: WrnSpec, image: Image) -> Iterator[Layer]:
    """Yield everything up to and including the last normalisation and activation."""
    yield from _group0_layers(spec, image)
    size = (image.height, image.width)
    for group in (1, 2):
        yield from _group_layers(spec, group, size)
        size = _halved(size)
    channels = spec.widths[2]
    yield _norm("norm", channels, channels * _area(size), held=0)


def _group0_layers(spec: WrnSpec, image: Image) -> Iterator[Layer]:
    size = (image.height, image.width)
    yield _convolution("stem", image.channels, STEM_CHANNELS, 3, size, size, held=0)
    yield from _group_layers(spec, 0, size)


def _group_layers(spec: WrnSpec, group: int, size: tuple[int, int]) -> Iterator[Layer]:
    channels = STEM_CHANNELS if group == 0 else spec.widths[group - 1]
    for block in range(spec.blocks_per_group):
        stride = 2 if group > 0 and block == 0 else 1
        name = f"groups.{group}.{block}"
        yield from _block_layers(name, channels, spec.widths[group], stride, size)
        channels = spec.widths[group]
        size = _halved(size) if stride == 2 else size


def _block_layers(
    name: str, inputs: int, outputs: int, stride: int, size: tuple[int, int]
) -> Iterator[Layer]:
    """Yield a pre-activation residual block: norm, conv, norm, conv, and the shortcut.

    An identity shortcut keeps the block's input alive beside its activation; a projection reads
    the activation, so that the input may be overwritten, and its own output stays alive instead.
    """
    small = _halved(size) if stride == 2 else size
    projects = inputs != outputs or stride != 1
    before, after = inputs * _area(size), outputs * _area(small)
    yield _norm(f"{name}.norm1", inputs, before, held=0 if projects else before)
    if projects:
        yield _convolution(f"{name}.shortcut", inputs, outputs, 1, size, small, held=0)
    yield _convolution(f"{name}.conv1", inputs, outputs, 3, size, small, held=after)
    yield _norm(f"{name}.norm2", outputs, after, held=after)
    yield _convolution(f"{name}.conv2", outputs, outputs, 3, small, small, held=after)


def _convolution(
    name: str,
    inputs: int,
    outputs: int,
    kernel: int,
    size: tuple[int, int],
    out_size: tuple[int, int],
    held: int,
) -> Layer:
    """Make a convolution without bias; `held` elements stay alive beside its input and output."""
    weights = inputs * outputs * kernel * kernel
    live = inputs * _area(size) + outputs * _area(out_size) + held
    return Layer(name, weights, weights * _area(out_size), live)


def _norm(name: str, channels: int, elements: int, held: int) -> Layer:
    """Make a batch normalisation, which works in place on its `elements`."""
    return Layer(name, 2 * channels, 2 * elements, elements + held)


def _final_size(image: Image) -> tuple[int, int]:
    return _halved(_halved((image.height, image.width)))


def _halved(size: tuple[int, int]) -> tuple[int, int]:
    """Return height and width after a 3x3 convolution of stride 2 and padding 1."""
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]
