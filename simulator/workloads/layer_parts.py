"""Layers and parts of layers on a device: cost, regions read, data alive.

A layer table says what is to be done; the host holds the image, and what passes between devices
are feature maps of fp32 values.  A layer costs what the device's profile says, layer by layer
where it knows all of this model's layers, measured or by rates, and affine in the
multiply-accumulates (MACs) otherwise::

    per-layer    ms = sum over the layers                         mj = power_busy_w * ms
    flop-affine  ms = [compute_fixed_ms] + compute_ms_per_mmac * macs / 1e6
                 mj = [power_fixed_w * compute_fixed_ms] + power_busy_w * the rest

What stands in brackets is paid once per image by each device that computes for it.

The time of a student is linear in its filters n: only its last layers, its *head*, depend on n::

    ms(n) = body_ms + head_ms(n),      head_ms(n) = constant_ms + n * ms_per_filter

The layer model of a measured device is exactly so.  Fitted rates know a surcharge of convolutions
whose output channels are no multiple of four: three numbers of filters in four.  The line goes
through two of these, so that it is exact there, and above the prediction by that surcharge, on
the head alone, at multiples of four.

Regions: rows and columns count from 0 and `end` is not part of a span.  Output rows [a, b) of a
layer with kernel k, stride s and padding p are computed from the input rows
[a s - p, (b - 1) s - p + k), as far as the maps go; p is half of a convolution's kernel, and of a
pooling's if that is odd.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

from nonn_common.errors import SimulationError
from profiles.device import (
    DeviceProfile,
    LayerPredictor,
    PredictedTime,
    compute_mj,
    compute_ms,
    layer_predictors,
    quantity_value,
)
from profiles.fleet import Board
from profiles.layer import LayerTable, LayerWork
from profiles.link import BYTES_PER_FEATURE
from simulator.graph_builder import HOST_CPU, GraphBuilder
from simulator.task_graph import HOST, Step


@dataclass(frozen=True, slots=True)
class ComputeCost:
    """Cost of computing: time in ms, energy in mJ."""

    ms: float
    mj: float

    def __add__(self, other: "ComputeCost") -> "ComputeCost":
        return ComputeCost(self.ms + other.ms, self.mj + other.mj)


NO_COST = ComputeCost(0.0, 0.0)


class LayerCostModel:
    """How fast `device` does layers of the model with this layer table.

    Energy is 0 where the profile has no power, as an x86 host's.  Raises ProfileError where it
    lacks the quantities of time.
    """

    def __init__(self, device: DeviceProfile, table: LayerTable) -> None:
        self._device = device
        able = (one for one in layer_predictors(device) if one.total_ms(table) is not None)
        self._predictor = next(able, None) if table else None
        self._busy_w = device.power_busy_w.value if device.power_busy_w else 0.0

    @property
    def begin(self) -> ComputeCost:
        """Cost of an image before its first layer."""
        if self._predictor is not None:
            return NO_COST
        fixed_ms = quantity_value(self._device, "compute_fixed_ms")
        power = self._device.power_fixed_w
        return ComputeCost(fixed_ms, power.value * fixed_ms if power else 0.0)

    def layers(self, layers: Iterable[LayerWork]) -> ComputeCost:
        """Cost of layers, one after the other."""
        ms = sum(map(self._layer_ms, layers), 0.0)
        return ComputeCost(ms, self._busy_w * ms)

    def _layer_ms(self, layer: LayerWork) -> float:
        if self._predictor is not None:
            known_ms = self._predictor.predict(layer)
            if known_ms is not None:
                return known_ms
        return quantity_value(self._device, "compute_ms_per_mmac") * layer.macs / 1e6


Work = int | PredictedTime
"""A model for one image: its MACs, or its time on its device where layers predict it."""

FEW, MANY = 1, 65
"""Numbers of filters, neither a multiple of four, whose predictions make the line."""


class StudentLayers(Hashable, Protocol):
    """Layers of a student for any number of filters."""

    def body(self) -> LayerTable:
        """Layers that all such students have."""

    def head(self, filters: int) -> LayerTable:
        """Layers behind them, which depend on the number of filters."""


@dataclass(frozen=True, slots=True)
class TimeLine:
    """Time of a student alone on a device, linear in its filters."""

    fixed_ms: float
    ms_per_filter: float
    predictor: LayerPredictor

    def at(self, filters: int) -> PredictedTime:
        """Time of the student with so many filters, with its interval where one is known."""
        return self.predictor.predicted(self.fixed_ms + self.ms_per_filter * filters)


def time_line(device: DeviceProfile, layers: StudentLayers) -> TimeLine | None:
    """Line of a student's time on a device; None where its layers are unknown."""
    if not device.knows_layers:
        return None
    return _line(device, layers)


@lru_cache(maxsize=65_536)
def _line(device: DeviceProfile, layers: StudentLayers) -> TimeLine | None:
    for predictor in layer_predictors(device):
        parts = (layers.body(), layers.head(FEW), layers.head(MANY))
        body_ms, few_ms, many_ms = (predictor.total_ms(part) for part in parts)
        if body_ms is not None and few_ms is not None and many_ms is not None:
            slope_ms = max(0.0, (many_ms - few_ms) / (MANY - FEW))
            return TimeLine(body_ms + few_ms - FEW * slope_ms, slope_ms, predictor)
    return None


def joint_time(models: Sequence[tuple[PredictedTime, PredictedTime]]) -> PredictedTime:
    """Time of models joined by a part that they share.

    Each comes with the time of its part, which is computed once, in the longest of these times.
    """
    longest = max((part for _, part in models), key=lambda part: part.ms)

    def once(figure: Callable[[PredictedTime], float | None]) -> float | None:
        told = [figure(longest), *(figure(time) for pair in models for time in pair)]
        first, *known = [0.0 if each is None else each for each in told]
        return None if None in told else first + sum(known[::2]) - sum(known[1::2])

    ends = once(lambda time: time.low_ms), once(lambda time: time.high_ms)
    return PredictedTime(once(lambda time: time.ms) or 0.0, longest.how, *ends)


def work_ms(device: DeviceProfile, work: Work) -> float:
    """Time of a model alone on `device`, in ms.

    Raises ProfileError where a quantity is missing.
    """
    return compute_ms(device, work) if isinstance(work, int) else work.ms


def work_mj(device: DeviceProfile, work: Work) -> float:
    """Energy of a model alone on `device`, in mJ; NaN where power is unknown.

    Raises ProfileError where a quantity of its time is missing.
    """
    if not device.power_known:
        return math.nan
    if isinstance(work, int):
        return compute_mj(device, work)
    busy_w = device.power_busy_w
    return math.nan if busy_w is None else busy_w.value * work.ms


def check_split(table: LayerTable, boards: Sequence[Board]) -> None:
    """Raise SimulationError unless there are layers, and boards with names of their own."""
    if not table or not boards:
        raise SimulationError(
            "a model is split over at least one board and has at least one layer; "
            f"found {len(boards)} boards and {len(table)} layers"
        )
    names = [board.name for board in boards]
    if len({HOST, *names}) <= len(names):
        raise SimulationError(
            f"board names must be unique, and none may be host; found: {', '.join(sorted(names))}"
        )


def alive_bytes(table: LayerTable, layers: int) -> int:
    """Size of all that is alive behind the first `layers` layers.

    It is the image before the first layer, and later a layer's output with what shortcuts hold.
    """
    if not layers:
        return BYTES_PER_FEATURE * table[0].in_elements
    last = table[layers - 1]
    return BYTES_PER_FEATURE * (last.out_elements + last.held_elements)


def compute_on_host(build: GraphBuilder, cost: ComputeCost, after: tuple[int, ...]) -> int:
    """Add a step in which the host computes; return its index."""
    return build.add(Step(HOST, "compute", (HOST_CPU,), cost.ms, after, energy_mj=cost.mj))


@dataclass(frozen=True, slots=True)
class Span:
    """Rows or columns from `start` up to, but not including, `end`."""

    start: int
    end: int

    @property
    def length(self) -> int:
        """How many."""
        return self.end - self.start

    def cut(self, weights: Sequence[float]) -> "Iterator[Span]":
        """Yield consecutive spans in proportion to `weights`, rounded to whole rows."""
        total, seen, start = sum(weights), 0.0, self.start
        for weight in weights:
            seen += weight
            end = self.start + min(self.length, int(self.length * seen / total + 0.5))
            yield Span(start, end)
            start = end


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of a layer's maps, the same in each channel."""

    rows: Span
    columns: Span

    @property
    def area(self) -> int:
        """Places of one channel."""
        return self.rows.length * self.columns.length

    def __or__(self, other: "Region") -> "Region":
        """The smallest region that contains both."""
        return Region(_hull(self.rows, other.rows), _hull(self.columns, other.columns))


def output_region(layer: LayerWork) -> Region:
    """The whole output of a layer."""
    return Region(Span(0, layer.out_height), Span(0, layer.out_width))


def input_region(layer: LayerWork, region: Region) -> Region:
    """Region of its input that a layer needs for `region` of its output."""
    return Region(
        _needed(layer, region.rows, layer.in_height, layer.out_height),
        _needed(layer, region.columns, layer.in_width, layer.out_width),
    )


def part_of_layer(layer: LayerWork, region: Region) -> LayerWork:
    """Work of computing `region`, not empty, of a layer's output; weights stay."""
    reads = input_region(layer, region)
    return replace(
        layer,
        macs=layer.macs * region.area // (layer.out_height * layer.out_width),
        in_height=reads.rows.length,
        in_width=reads.columns.length,
        out_height=region.rows.length,
        out_width=region.columns.length,
    )


def walk_back(table: LayerTable, region: Region) -> tuple[Region, tuple[LayerWork, ...]]:
    """Walk a region of the last layer's output back through the layers.

    Returns the region of the first layer's input that it needs, and what is to be computed of each
    layer.  `table` must begin and end where no block is open.  A shortcut's layers stand before
    the body beside them and are computed where the body's end is.  An identity needs no room: what
    convolutions with half their kernel as padding read contains what they write.
    """
    wanted: list[Region] = [region] * len(table)
    for index in reversed(range(len(table))):
        layer = table[index]
        if layer.side:
            last = index + 1 == len(table) or not table[index + 1].side
            if last:
                body = region
                region = wanted[_block_end(table, index)]
            wanted[index] = region
            region = input_region(layer, region)
            if index == 0 or not table[index - 1].side:
                region |= body
        else:
            wanted[index] = region
            region = input_region(layer, region)
    return region, tuple(map(part_of_layer, table, wanted))


def _block_end(table: LayerTable, last_side: int) -> int:
    """The layer whose output is added to what a shortcut's last layer makes.

    It is the first one of the main path behind which the block's own values are gone.
    """
    first = last_side
    while first and table[first - 1].side:
        first -= 1
    outside = table[first].held_elements - table[first].in_elements
    return next(
        index for index in range(last_side + 1, len(table)) if table[index].held_elements == outside
    )


def _needed(layer: LayerWork, span: Span, size: int, out_size: int) -> Span:
    if layer.kind == "pool" and out_size == 1 and layer.kernel >= size:
        return Span(0, size)
    padding = layer.kernel // 2 if layer.kind == "conv" or layer.kernel % 2 else 0
    start = span.start * layer.stride - padding
    end = (span.end - 1) * layer.stride - padding + layer.kernel
    return Span(max(0, start), min(size, end))


def _hull(one: Span, other: Span) -> Span:
    return Span(min(one.start, other.start), max(one.end, other.end))
