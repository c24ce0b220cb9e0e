"""Spatial splits: boards compute regions of feature maps, the host between them.

Layer by layer, in rounds, as MoDNN's map and reduce (Mao, Chen, Nixon, Krieger, Chen, "MoDNN: Local
distributed mobile computing system for deep neural network", DATE 2017): for each convolution the
host sends each board the part of the input that the board's part of the output needs, halo
included; the board computes its part, with the normalisations behind that convolution, and returns
it; the host puts the parts together and adds shortcuts up.  Every board holds all weights.
Poolings and the fully-connected layer run on the host.  Values travel as fp32.  For one image, a
round of boards b = 1..K takes::

    sent_b  = sent_(b-1) + message_ms + wire_ms(input part)
    done_b  = sent_b + compute + wire_ms(output part)
    round   = max_b done_b + join_fixed_ms

and the total is the sum over the rounds, plus the host's own layers.  A board's fixed part of the
compute time is paid in its first round.

Slices (MoDNN's biased one-dimensional partition): the longer side of each layer's maps is cut in
proportion to the boards' speeds, rounded to whole rows.  Their sparse fully-connected layers have
no counterpart here, where a model has one, small enough for the host.

Grids (Mao et al., "MeDNN: A distributed mobile system with enhanced partition and deployment for
large-scale DNNs", ICCAD 2017: greedy two-dimensional partition): boards take their part one after
the other, the fastest first: each cuts from what is left, across its longer side, a share in
proportion to its speed among the boards still to be served, rounded to whole rows.  The pieces
stay near squares, so that less halo is sent than with slices.  Their pruning is left out.

Fused tiles (Zhao, Barijough, Gerstlauer, "DeepThings: Distributed adaptive deep learning inference
on resource-constrained IoT edge clusters", TCAD 2018): the output of the last fused layer is cut
into N x M tiles.  Each tile is walked back layer by layer to the part of the image it needs, so
that boards never talk to each other; tiles overlap in the layers before the last, and what several
boards compute twice is the price.  The gateway, here the host, sends each tile its
part of the image, gathers the outputs and runs the other layers.  Every board holds all weights of
the fused layers.  For one image, tiles t in order, board b(t)::

    sent_t  = sent_(t-1) + message_ms + wire_ms(input tile)
    done_t  = max(sent_t, done of the tile before on b(t)) + compute of the tile
    reply_t = max(done_t, reply of the tile before from b(t)) + wire_ms(output tile)
    total   = max_t reply_t + join_fixed_ms + the host's layers

Tiles are dealt to boards in turn.  The published system also lets idle boards steal tiles, and
reuses what neighbouring tiles have in common; neither is modelled.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from nonn_common.errors import SimulationError
from profiles.device import DeviceProfile
from profiles.fleet import Board
from profiles.layer import LayerTable, LayerWork
from profiles.link import BYTES_PER_FEATURE
from simulator.graph_builder import GraphBuilder, receive_ms
from simulator.task_graph import TaskGraph
from simulator.workloads.layer_parts import (
    NO_COST,
    LayerCostModel,
    Region,
    check_split,
    compute_on_host,
    input_region,
    output_region,
    part_of_layer,
    walk_back,
)

Cut = Callable[[LayerWork], Sequence[Region | None]]
"""Says which region of a layer's output each board computes; None for no share."""


def rounds_graph(
    table: LayerTable, boards: Sequence[Board], host: DeviceProfile, cut: Cut
) -> TaskGraph:
    """Task graph of rounds; raises SimulationError without a layer or a board."""
    check_split(table, boards)
    build = GraphBuilder(host)
    cost_models = [LayerCostModel(board.device, table) for board in boards]
    began: set[str] = set()
    host_cost_model, host_began = LayerCostModel(host, table), False
    done: tuple[int, ...] = ()
    for layers in _rounds(table):
        if layers[0].kind != "conv":
            cost = host_cost_model.layers(layers) + (
                NO_COST if host_began else host_cost_model.begin
            )
            done, host_began = (compute_on_host(build, cost, done),), True
            continue
        replies = []
        for board, cost_model, region in zip(boards, cost_models, cut(layers[0]), strict=True):
            if region is None:
                continue
            begin = NO_COST if board.name in began else cost_model.begin
            began.add(board.name)
            cost = begin + cost_model.layers(part_of_layer(layer, region) for layer in layers)
            reads = input_region(layers[0], region).area * layers[0].in_channels
            sent = build.send(board, BYTES_PER_FEATURE * reads, done)
            computed = build.compute(board, after=(sent,), ms=cost.ms, mj=cost.mj)
            writes = region.area * layers[0].out_channels
            replies.append(build.reply(board, BYTES_PER_FEATURE * writes, (computed,)))
        done = (build.join(replies, ms=receive_ms(host)),)
    return build.graph()


def board_speeds(table: LayerTable, boards: Sequence[Board]) -> tuple[float, ...]:
    """Speed of each board: models per ms, its fixed part left out."""
    shortest_ms = 1e-9
    return tuple(
        1 / max(LayerCostModel(board.device, table).layers(table).ms, shortest_ms)
        for board in boards
    )


def _rounds(table: LayerTable) -> Iterator[tuple[LayerWork, ...]]:
    """Yield each convolution with the normalisations behind it, and the layers between these."""
    layers: list[LayerWork] = []
    for layer in table:
        at_host = bool(layers) and layers[0].kind != "conv"
        joins = layer.kind == "norm" or (at_host and layer.kind != "conv")
        if layers and not joins:
            yield tuple(layers)
            layers = []
        layers.append(layer)
    yield tuple(layers)


def slices_graph(table: LayerTable, boards: Sequence[Board], host: DeviceProfile) -> TaskGraph:
    """Task graph of slices; raises SimulationError, or ProfileError for a missing quantity.

    A board whose share of a layer is less than half a row sits that layer out.
    """
    return rounds_graph(
        table, boards, host, partial(cut_slices, speeds=board_speeds(table, boards))
    )


def cut_slices(layer: LayerWork, speeds: Sequence[float]) -> tuple[Region | None, ...]:
    """Cut a layer's output along its longer side, in proportion to `speeds`."""
    whole = output_region(layer)
    if layer.out_height >= layer.out_width:
        slices = [Region(span, whole.columns) for span in whole.rows.cut(speeds)]
    else:
        slices = [Region(whole.rows, span) for span in whole.columns.cut(speeds)]
    return tuple(each if each.area else None for each in slices)


def grid_graph(table: LayerTable, boards: Sequence[Board], host: DeviceProfile) -> TaskGraph:
    """Task graph of a grid; raises SimulationError, or ProfileError for a missing quantity.

    A board whose share of a layer is less than half a row sits that layer out.
    """
    return rounds_graph(table, boards, host, partial(cut_grid, speeds=board_speeds(table, boards)))


def cut_grid(layer: LayerWork, speeds: Sequence[float]) -> tuple[Region | None, ...]:
    """Cut a layer's output into a rectangle for each board, by `speeds`."""
    left = output_region(layer)
    fastest_first = sorted(range(len(speeds)), key=lambda board: -speeds[board])
    pieces: list[Region | None] = [None] * len(speeds)
    for position, board in enumerate(fastest_first):
        others = sum(speeds[other] for other in fastest_first[position + 1 :])
        piece, left = _cut_in_two(left, speeds[board], others)
        pieces[board] = piece if piece.area else None
    return tuple(pieces)


def _cut_in_two(region: Region, weight: float, others: float) -> tuple[Region, Region]:
    """Cut `region` in two across its longer side, in the proportion `weight` to `others`."""
    if region.rows.length >= region.columns.length:
        near, far = region.rows.cut((weight, others))
        return Region(near, region.columns), Region(far, region.columns)
    near, far = region.columns.cut((weight, others))
    return Region(region.rows, near), Region(region.rows, far)


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile: regions written and read, and its share of each layer."""

    writes: Region
    reads: Region
    layers: tuple[LayerWork, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates, those that other tiles repeat included."""
        return sum(layer.macs for layer in self.layers)


def tiles_graph(
    table: LayerTable,
    boards: Sequence[Board],
    host: DeviceProfile,
    *,
    fused: int,
    rows: int,
    columns: int,
) -> TaskGraph:
    """Task graph of fused tiles: `rows` x `columns` of the first `fused` layers.

    Raises SimulationError where `fused` is not one of `fusable(table)`.
    """
    check_split(table, boards)
    build = GraphBuilder(host)
    cost_models = [LayerCostModel(board.device, table) for board in boards]
    replies = []
    for number, tile in enumerate(cut_tiles(table, fused, rows, columns)):
        board, cost_model = boards[number % len(boards)], cost_models[number % len(boards)]
        cost = cost_model.layers(tile.layers) + (
            cost_model.begin if number < len(boards) else NO_COST
        )
        reads = tile.reads.area * table[0].in_channels
        sent = build.send(board, BYTES_PER_FEATURE * reads)
        computed = build.compute(board, after=(sent,), ms=cost.ms, mj=cost.mj)
        writes = tile.writes.area * table[fused - 1].out_channels
        replies.append(build.reply(board, BYTES_PER_FEATURE * writes, (computed,)))
    joined = build.join(replies, ms=receive_ms(host))
    if fused < len(table):
        cost_model = LayerCostModel(host, table)
        compute_on_host(build, cost_model.begin + cost_model.layers(table[fused:]), (joined,))
    return build.graph()


def cut_tiles(table: LayerTable, fused: int, rows: int, columns: int) -> tuple[Tile, ...]:
    """Cut the output of layer `fused` into nearly equal tiles.

    They make `rows` x `columns`.

    There are fewer tiles where the maps have fewer rows or columns.
    """
    if fused not in fusable(table) or min(rows, columns) < 1:
        raise SimulationError(
            "the fused layers must end where no shortcut is open, and be cut into at least one "
            f"tile; found {fused} layers in {rows} x {columns} tiles; "
            f"layers may be: {', '.join(map(str, fusable(table)))}"
        )
    whole = output_region(table[fused - 1])
    made = []
    for across in whole.rows.cut([1.0] * min(rows, whole.rows.length)):
        for along in whole.columns.cut([1.0] * min(columns, whole.columns.length)):
            writes = Region(across, along)
            reads, layers = walk_back(table[:fused], writes)
            made.append(Tile(writes, reads, layers))
    return tuple(made)


def fusable(table: LayerTable) -> tuple[int, ...]:
    """Numbers of first layers behind which nothing but their output is alive."""
    return tuple(
        number
        for number, layer in enumerate(table, start=1)
        if not layer.held_elements and not layer.side
    )


def early_layers(table: LayerTable) -> int:
    """Number of early layers, which the published system would fuse.

    These are the layers whose maps outweigh their weights, as far as they can be fused; at least
    the first that can.
    """
    outweighed = next(
        (number for number, layer in enumerate(table) if layer.weights > layer.out_elements),
        len(table),
    )
    return max(
        (fused for fused in fusable(table) if fused <= outweighed), default=fusable(table)[0]
    )
