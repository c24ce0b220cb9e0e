"""Arena: places of all maps in one piece of memory, by their lifetimes.

A map that a layer of single values (norm, sum) writes takes the place of one that it is the last to
read.  The largest buffers are placed first, each as low as those that live with it allow.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from nonn_core.firmware.int8_network import Int8Add, Int8Conv, Int8Layer, Int8Network

WORD_BYTES = 4
"""Columns are whole words; maps begin anywhere, as kernels read words from any address."""
ROUNDS = 100


@dataclass(frozen=True, slots=True)
class ArenaBuffer:
    """Bytes that are alive from layer `first` to layer `last`, both included."""

    size: int
    first: int
    last: int

    def meets(self, other: "ArenaBuffer") -> bool:
        """Whether both are alive at once."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True, slots=True)
class Arena:
    """Layers in their order, the offset of each map, and how many bytes it takes.

    `scratch` is the offset of each layer's columns; `columns_bytes` is what they take beyond the
    maps.
    """

    layers: tuple[Int8Layer, ...]
    offsets: dict[str, int]
    maps_bytes: int
    scratch: tuple[int, ...]
    columns_bytes: int


def lay_out(network: Int8Network) -> Arena:
    """Lay out a network's maps, in the order of layers with fewest bytes."""
    layers = _cheapest_order(network)
    places, buffers = buffers_of(network, layers)
    offsets = placed(buffers)
    size = arena_bytes(offsets, buffers)
    scratch = [
        _gap(column_bytes(network, layer), step, offsets, buffers)
        for step, layer in enumerate(layers)
    ]
    ends = [
        place + column_bytes(network, layer) for place, layer in zip(scratch, layers, strict=True)
    ]
    return Arena(
        layers,
        {name: offsets[place] for name, place in places.items()},
        size,
        tuple(scratch),
        max(0, max(ends) - size),
    )


def buffers_of(
    network: Int8Network, layers: Sequence[Int8Layer]
) -> tuple[dict[str, int], list[ArenaBuffer]]:
    """Buffers of layers in this order, and the buffer of each map."""
    last_read = {name: step for step, layer in enumerate(layers) for name in layer.reads}
    last_read[network.features] = len(layers)
    places = {network.image: 0}
    buffers = [ArenaBuffer(network.maps[network.image].elements, 0, last_read[network.image])]
    for step, layer in enumerate(layers):
        size = network.maps[layer.writes].elements
        over = [
            name
            for name in layer.reads
            if in_place(layer) and last_read[name] == step and buffers[places[name]].last == step
        ]
        if over:
            places[layer.writes] = places[over[0]]
            shared = buffers[places[over[0]]]
            buffers[places[over[0]]] = replace(shared, last=last_read[layer.writes])
        else:
            places[layer.writes] = len(buffers)
            buffers.append(ArenaBuffer(size, step, last_read[layer.writes]))
    return places, buffers


def in_place(layer: Int8Layer) -> bool:
    """Whether a layer may write each value where it read it."""
    return isinstance(layer, Int8Add) or (
        isinstance(layer, Int8Conv) and layer.depthwise and layer.kernel == layer.stride == 1
    )


def placed(buffers: Sequence[ArenaBuffer]) -> list[int]:
    """Offset of each buffer: the largest first, each in the lowest gap.

    While that takes more than what is alive at once, who stands highest goes first in a next round.
    """
    order = sorted(range(len(buffers)), key=lambda each: -buffers[each].size)
    best, least = list[int](), live_bytes(buffers)
    for _ in range(ROUNDS):
        offsets = _placed_in_order(buffers, order)
        if not best or arena_bytes(offsets, buffers) < arena_bytes(best, buffers):
            best = offsets
        if arena_bytes(best, buffers) == least:
            break
        highest = max(order, key=lambda each: offsets[each] + buffers[each].size)
        order.remove(highest)
        order.insert(0, highest)
    return best


def _placed_in_order(buffers: Sequence[ArenaBuffer], order: Sequence[int]) -> list[int]:
    offsets = [-1] * len(buffers)
    for number in order:
        taken = sorted(
            (offsets[other], offsets[other] + buffers[other].size)
            for other in range(len(buffers))
            if offsets[other] >= 0 and buffers[other].meets(buffers[number])
        )
        offsets[number] = _lowest(buffers[number].size, taken)
    return offsets


def arena_bytes(offsets: Sequence[int], buffers: Sequence[ArenaBuffer]) -> int:
    """Bytes up to the end of the highest buffer."""
    return max(offset + buffer.size for offset, buffer in zip(offsets, buffers, strict=True))


def live_bytes(buffers: Sequence[ArenaBuffer]) -> int:
    """Most bytes that are alive at once: no layout needs fewer."""
    return max(
        sum(each.size for each in buffers if each.first <= step <= each.last)
        for step in {buffer.first for buffer in buffers}
    )


def column_bytes(network: Int8Network, layer: Int8Layer) -> int:
    """Bytes of the two columns that a convolution copies what it reads to."""
    if not isinstance(layer, Int8Conv) or layer.depthwise:
        return 0
    channels = network.maps[layer.reads[0]].channels
    if layer.kernel == 1 and layer.pad == 0 and channels % WORD_BYTES == 0:
        return 0
    return 2 * -(-(layer.kernel**2 * channels) // WORD_BYTES) * WORD_BYTES


def _gap(size: int, step: int, offsets: Sequence[int], buffers: Sequence[ArenaBuffer]) -> int:
    """Lowest offset of `size` bytes beside all that is alive in this step."""
    taken = sorted(
        (offset, offset + buffer.size)
        for offset, buffer in zip(offsets, buffers, strict=True)
        if buffer.first <= step <= buffer.last
    )
    return _lowest(size, taken) if size else 0


def _lowest(size: int, taken: Sequence[tuple[int, int]]) -> int:
    end = 0
    for first, last in taken:
        if end + size <= first:
            break
        end = max(end, last)
    return end


def _cheapest_order(network: Int8Network) -> tuple[Int8Layer, ...]:
    """The order with the fewest live bytes among those that turn a sum's branches around."""
    sums = [layer.writes for layer in network.layers if isinstance(layer, Int8Add)]

    def needed(turned: frozenset[str]) -> int:
        return live_bytes(buffers_of(network, tuple(_order(network, turned)))[1])

    turned = frozenset[str]()
    for name in sums:
        turned = min(turned, turned | {name}, key=needed)
    return tuple(_order(network, turned))


def _order(network: Int8Network, turned: frozenset[str]) -> Iterator[Int8Layer]:
    """Layers, each after those whose maps it reads; of `turned` sums the second branch first."""
    makers = {layer.writes: layer for layer in network.layers}
    done = {network.image}

    def run(name: str) -> Iterator[Int8Layer]:
        if name in done:
            return
        done.add(name)
        layer = makers[name]
        for read in reversed(layer.reads) if name in turned else layer.reads:
            yield from run(read)
        yield layer

    return run(network.features)
