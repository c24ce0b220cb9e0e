"""Regions of feature maps: which part of its input a part of a layer's output is computed from.

Rows and columns count from 0 and `end` is not part of a span.  Output rows [a, b) of a layer with
kernel k, stride s and padding p are computed from the input rows [a s - p, (b - 1) s - p + k),
as far as the maps go; p is half of a convolution's kernel, and of a pooling's if that is odd.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from profiles.layer import LayerTable, LayerWork


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
        """Return the smallest region that contains both."""
        return Region(_hull(self.rows, other.rows), _hull(self.columns, other.columns))


def output_of(layer: LayerWork) -> Region:
    """Return the whole output of a layer."""
    return Region(Span(0, layer.out_height), Span(0, layer.out_width))


def needed(layer: LayerWork, region: Region) -> Region:
    """Return what part of its input a layer needs for a `region`, not empty, of its output."""
    return Region(
        _needed(layer, region.rows, layer.in_height, layer.out_height),
        _needed(layer, region.columns, layer.in_width, layer.out_width),
    )


def part(layer: LayerWork, region: Region) -> LayerWork:
    """Return the work of computing this region, not empty, of a layer's output; weights stay."""
    reads = needed(layer, region)
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
            region = needed(layer, region)
            if index == 0 or not table[index - 1].side:
                region |= body
        else:
            wanted[index] = region
            region = needed(layer, region)
    return region, tuple(map(part, table, wanted))


def _block_end(table: LayerTable, last_side: int) -> int:
    """Return the layer whose output is added to what a shortcut's last layer makes.

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
