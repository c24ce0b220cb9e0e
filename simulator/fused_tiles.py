"""Fused tiles: boards compute tiles through many layers at once, a gateway does the rest.

Zhao, Barijough, Gerstlauer, "DeepThings: Distributed adaptive deep learning inference on
resource-constrained IoT edge clusters", TCAD 2018: fused tile partition.  The output of the last
fused layer is cut into N x M tiles.  Each tile is walked back layer by layer to the part of the
image it needs, so that boards never talk to each other; tiles overlap in the layers before the
last, and what several boards compute twice is the price (`redundancy`).  The gateway, here the
host, sends each tile its part of the image, gathers the outputs and runs the other layers.  Every
board holds all weights of the fused layers.  For one image, tiles t in order, board b(t)::

    sent_t  = sent_(t-1) + message_ms + wire_ms(input tile)
    done_t  = max(sent_t, done of the tile before on b(t)) + compute of the tile
    reply_t = max(done_t, reply of the tile before from b(t)) + wire_ms(output tile)
    total   = max_t reply_t + join_fixed_ms + the host's layers

Tiles are dealt to boards in turn.  The published system also lets idle boards steal tiles, and
reuses what neighbouring tiles have in common; neither is modelled.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from profiles.device import DeviceProfile
from profiles.errors import SimulationError
from profiles.fleet import Board
from profiles.layer import LayerTable, LayerWork
from profiles.link import BYTES_PER_FEATURE
from simulator.engine import simulate
from simulator.hops import JobBuilder
from simulator.job import Job
from simulator.pace import NO_EFFORT, Pace
from simulator.region import Region, output_of, walk_back
from simulator.splitting import check, on_host, receive_ms


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile: what it writes, what part of the image it reads, and its share of each layer."""

    writes: Region
    reads: Region
    layers: tuple[LayerWork, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates, those that other tiles repeat included."""
        return sum(layer.macs for layer in self.layers)


def job(
    table: LayerTable,
    boards: Sequence[Board],
    host: DeviceProfile,
    *,
    fused: int,
    rows: int,
    columns: int,
) -> Job:
    """Return what one image sets off when the first `fused` layers run as `rows` x `columns` tiles.

    Raises SimulationError where `fused` is not one of `fusable(table)`.
    """
    check(table, boards)
    build = JobBuilder(host)
    paces = [Pace(board.device, table) for board in boards]
    replies = []
    for number, tile in enumerate(tiles(table, fused, rows, columns)):
        board, pace = boards[number % len(boards)], paces[number % len(boards)]
        effort = pace.layers(tile.layers) + (pace.begin if number < len(boards) else NO_EFFORT)
        reads = tile.reads.area * table[0].in_channels
        sent = build.send(board, BYTES_PER_FEATURE * reads)
        computed = build.compute(board, after=(sent,), ms=effort.ms, mj=effort.mj)
        writes = tile.writes.area * table[fused - 1].out_channels
        replies.append(build.reply(board, BYTES_PER_FEATURE * writes, (computed,)))
    joined = build.join(replies, ms=receive_ms(host))
    if fused < len(table):
        pace = Pace(host, table)
        on_host(build, pace.begin + pace.layers(table[fused:]), (joined,))
    return build.job()


def tiles(table: LayerTable, fused: int, rows: int, columns: int) -> tuple[Tile, ...]:
    """Cut the output of layer `fused` into `rows` x `columns` tiles, as equal as they can be.

    There are fewer tiles where the maps have fewer rows or columns.
    """
    if fused not in fusable(table) or min(rows, columns) < 1:
        raise SimulationError(
            "the fused layers must end where no shortcut is open, and be cut into at least one "
            f"tile; found {fused} layers in {rows} x {columns} tiles; "
            f"layers may be: {', '.join(map(str, fusable(table)))}"
        )
    whole = output_of(table[fused - 1])
    made = []
    for across in whole.rows.cut([1.0] * min(rows, whole.rows.length)):
        for along in whole.columns.cut([1.0] * min(columns, whole.columns.length)):
            writes = Region(across, along)
            reads, layers = walk_back(table[:fused], writes)
            made.append(Tile(writes, reads, layers))
    return tuple(made)


def fusable(table: LayerTable) -> tuple[int, ...]:
    """Return the numbers of first layers behind which nothing but their output is alive."""
    return tuple(
        number
        for number, layer in enumerate(table, start=1)
        if not layer.held_elements and not layer.side
    )


def early(table: LayerTable) -> int:
    """Return how many layers the published system would fuse: the early ones.

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


def redundancy(table: LayerTable, fused: int, rows: int, columns: int) -> float:
    """Return the tiles' multiply-accumulates over those of the layers undivided.

    It is below 1 where tiles repeat nothing and a pooling passes over a last row that they leave
    out.
    """
    whole = sum(layer.macs for layer in table[:fused])
    return sum(tile.macs for tile in tiles(table, fused, rows, columns)) / whole


def best_fused(
    table: LayerTable, boards: Sequence[Board], host: DeviceProfile, *, rows: int, columns: int
) -> int:
    """Return how many fused layers give the least latency; the fewest of equals."""

    def latency_ms(fused: int) -> float:
        split = job(table, boards, host, fused=fused, rows=rows, columns=columns)
        return simulate(split).total_ms

    return min(fusable(table), key=latency_ms)
