"""A model split over boards: by channels, between two layers, or by name.

Channel split, the "split" rows of arXiv:1907.11804 (section 3: WRN40-4 on two x86 machines; Table
8: WRN40-2 on Raspberry Pis under PyTorch): each of K boards computes 1/K of every layer's output
channels.  Weights and multiply-accumulates (MACs) are shared out, but a convolution reads all
channels, so that after each convolution every board sends its share to every other one.  Boards
that are alike, on full-duplex links, take for one image::

    total = compute_fixed_ms + sum over layers of compute_ms_per_mmac * macs / K / 1e6
          + sum over convolutions of exchange_ms
                                   + (K - 1) * (peer_message_ms + wire_ms(output share))

An exchange begins when the last board has computed and holds all processors for `exchange_ms`, the
largest where boards differ; then messages go in K - 1 rounds, from each board b to b + r in round
r, each on its sender's and its receiver's link.  Values travel as fp32.

Layer cut (Kang et al., "Neurosurgeon: Collaborative intelligence between the cloud and mobile
edge", ASPLOS 2017): the board has the image, computes the layers before the cut and sends all that
is alive there, shortcuts included; the host computes the others.  Nothing follows::

    latency = [fixed + layers before the cut, on the board]
            + [wire_ms(alive bytes) + latency_ms of the link + join_fixed_ms
               + fixed + layers behind the cut, on the host]
    energy  = compute energy of the board + radio_w * wire_ms(alive bytes) of its own hop

A cut of 0 sends the image; a cut behind the last layer leaves all to the board and sends nothing.
The way back of the answer, a few bytes, is left out, as published.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import isqrt
from typing import Literal

from nonn_common.errors import SimulationError
from profiles.device import DeviceProfile, quantity_value
from profiles.fleet import Board
from profiles.layer import LayerTable, LayerWork
from profiles.link import BYTES_PER_FEATURE
from simulator.graph_builder import GraphBuilder, cpu, receive_ms
from simulator.results.recording import radio_part
from simulator.task_graph import Step, TaskGraph
from simulator.workloads import pipeline, spatial_split
from simulator.workloads.layer_parts import (
    NO_COST,
    LayerCostModel,
    alive_bytes,
    check_split,
    compute_on_host,
)

SplitName = Literal["channels", "slices", "grid", "tiles", "cut", "pipeline"]


@dataclass(frozen=True, slots=True)
class ModelSplit:
    """A model divided over boards: its task graph and a description."""

    graph: TaskGraph
    description: str


def split_model(
    split: SplitName, table: LayerTable, boards: Sequence[Board], host: DeviceProfile
) -> ModelSplit:
    """The model of `table` divided over `boards`, as `split` names it.

    Tiles fuse the early layers, one tile or more per board; a cut of least latency lies between
    the first board and the host; a pipeline has the cuts of highest throughput.  Raises
    SimulationError, or ProfileError where a profile lacks a quantity.
    """
    if split == "tiles":
        return _tiles_split(table, boards, host)
    if split == "cut":
        board = boards[0]
        cut = best_cut(table, board, host)
        description = (
            f"{board.name} computes the first {cut} of {len(table)} layers, the host the others"
        )
        return ModelSplit(layer_cut_graph(table, board, host, cut), description)
    if split == "pipeline":
        cuts = pipeline.best_cuts(table, boards, host)
        description = f"cuts behind layers {', '.join(map(str, cuts))} of {len(table)}"
        return ModelSplit(pipeline.pipeline_graph(table, boards, host, cuts), description)
    graphs = {
        "channels": channel_split_graph,
        "slices": spatial_split.slices_graph,
        "grid": spatial_split.grid_graph,
    }
    return ModelSplit(graphs[split](table, boards, host), "every layer on every board")


def _tiles_split(table: LayerTable, boards: Sequence[Board], host: DeviceProfile) -> ModelSplit:
    rows, columns = near_square(len(boards))
    fused = spatial_split.early_layers(table)
    description = (
        f"{rows} x {columns} tiles of the first {fused} of {len(table)} layers, then the host"
    )
    return ModelSplit(
        spatial_split.tiles_graph(table, boards, host, fused=fused, rows=rows, columns=columns),
        description,
    )


def single_board_graph(table: LayerTable, board: Board) -> TaskGraph:
    """Task graph of one board that has the image and computes all."""
    build = GraphBuilder()
    cost_model = LayerCostModel(board.device, table)
    cost = cost_model.begin + cost_model.layers(table)
    build.compute(board, ms=cost.ms, mj=cost.mj)
    return build.graph()


def near_square(tiles: int) -> tuple[int, int]:
    """Rows and columns of a near-square grid of at least `tiles`."""
    rows = isqrt(tiles)
    return rows, -(-tiles // rows)


def channel_split_graph(
    table: LayerTable, boards: Sequence[Board], host: DeviceProfile | None = None
) -> TaskGraph:
    """Task graph of a channel split.

    With a `host`, it sends the image to each board and joins their shares of the last layer's
    output; without, every board has the image, and the last one to compute ends it, as in the
    published measurements.  Raises SimulationError without a layer or a board, and ProfileError
    where a device lacks exchange_ms or peer_message_ms.
    """
    check_split(table, boards)
    build = GraphBuilder(host)
    count = len(boards)
    cost_models = [LayerCostModel(board.device, table) for board in boards]
    waits: list[tuple[int, ...]] = [
        (build.send(board, alive_bytes(table, 0)),) if host else () for board in boards
    ]
    for position, layers in enumerate(_stretches(table)):
        computed: list[int] = []
        for number, (board, cost_model) in enumerate(zip(boards, cost_models, strict=True)):
            begin = NO_COST if position else cost_model.begin
            shares = (channel_share(layer, number, count) for layer in layers)
            cost = begin + cost_model.layers(each for each in shares if each is not None)
            computed.append(build.compute(board, after=waits[number], ms=cost.ms, mj=cost.mj))
        if layers[-1].kind == "conv" and count > 1:
            waits = _exchange(build, boards, layers[-1], computed)
        else:
            waits = [(each,) for each in computed]
    return _end_image(build, table[-1], boards, host, waits)


def channel_share(layer: LayerWork, board: int, boards: int) -> LayerWork | None:
    """Part of a layer that a board computes, or None without output channels.

    Channels are shared out evenly; what does not divide goes to the first boards.  A layer whose
    channels do not mix, such as a normalisation, reads its own ones alone.
    """
    channels = channels_of(layer, board, boards)
    if not channels:
        return None
    apart = layer.kind in ("norm", "pool") or layer.groups == layer.in_channels > 1
    return replace(
        layer,
        macs=layer.macs * channels // layer.out_channels,
        weights=layer.weights * channels // layer.out_channels,
        in_channels=max(1, layer.in_channels * channels // layer.out_channels)
        if apart
        else layer.in_channels,
        out_channels=channels,
        groups=max(1, layer.groups * channels // layer.out_channels) if apart else layer.groups,
    )


def channels_of(layer: LayerWork, board: int, boards: int) -> int:
    """Number of a layer's output channels that a board computes."""
    each, over = divmod(layer.out_channels, boards)
    return each + (board < over)


def _stretches(table: LayerTable) -> Iterator[tuple[LayerWork, ...]]:
    """Yield the layers between two exchanges; each stretch but the last ends in a convolution."""
    layers: list[LayerWork] = []
    for layer in table:
        layers.append(layer)
        if layer.kind == "conv":
            yield tuple(layers)
            layers = []
    if layers:
        yield tuple(layers)


def _exchange(
    build: GraphBuilder, boards: Sequence[Board], layer: LayerWork, computed: Sequence[int]
) -> list[tuple[int, ...]]:
    """Add one all-to-all exchange of `layer`; return what each board then waits for."""
    count = len(boards)
    software_ms = max(quantity_value(board.device, "exchange_ms") for board in boards)
    processors = tuple(map(cpu, boards))
    meet = build.add(
        Step(boards[0].name, "exchange", processors, software_ms, after=tuple(computed))
    )
    waits: list[list[int]] = [[meet] for _ in boards]
    area = layer.out_height * layer.out_width
    for distance in range(1, count):
        for number, sender in enumerate(boards):
            size_bytes = BYTES_PER_FEATURE * area * channels_of(layer, number, count)
            other = (number + distance) % count
            if size_bytes:
                message_ms = quantity_value(sender.device, "peer_message_ms")
                message = build.exchange(
                    sender, boards[other], size_bytes, (meet,), message_ms=message_ms
                )
                waits[number].append(message)
                waits[other].append(message)
    return [tuple(each) for each in waits]


def _end_image(
    build: GraphBuilder,
    layer: LayerWork,
    boards: Sequence[Board],
    host: DeviceProfile | None,
    waits: Sequence[tuple[int, ...]],
) -> TaskGraph:
    """End the image where boards, or the host, have the last layer."""
    if host is None:
        build.join(sorted({index for each in waits for index in each}), ms=0.0)
        return build.graph()
    replies = []
    for number, (board, wait) in enumerate(zip(boards, waits, strict=True)):
        channels = channels_of(layer, number, len(boards))
        if channels:
            size_bytes = BYTES_PER_FEATURE * channels * layer.out_height * layer.out_width
            replies.append(build.reply(board, size_bytes, wait))
    build.join(replies, ms=receive_ms(host))
    return build.graph()


CutAim = Literal["latency", "energy"]


def layer_cut_graph(table: LayerTable, board: Board, host: DeviceProfile, cut: int) -> TaskGraph:
    """Task graph of a model whose first `cut` layers `board` computes."""
    check_split(table, (board,))
    if not 0 <= cut <= len(table):
        raise SimulationError(f"a cut lies at 0 to {len(table)} layers; found {cut}")
    build = GraphBuilder(host)
    done: tuple[int, ...] = ()
    if cut:
        cost_model = LayerCostModel(board.device, table)
        cost = cost_model.begin + cost_model.layers(table[:cut])
        done = (build.compute(board, ms=cost.ms, mj=cost.mj),)
    if cut < len(table):
        sent = build.reply(board, alive_bytes(table, cut), done)
        joined = build.join((sent,), ms=receive_ms(host))
        cost_model = LayerCostModel(host, table)
        compute_on_host(build, cost_model.begin + cost_model.layers(table[cut:]), (joined,))
    return build.graph()


def best_cut(table: LayerTable, board: Board, host: DeviceProfile, aim: CutAim = "latency") -> int:
    """Cut of least latency, or of least energy on the board.

    The first of equals.
    """
    measure = layer_cut_latency_ms if aim == "latency" else layer_cut_board_mj
    return min(range(len(table) + 1), key=lambda cut: measure(table, board, host, cut))


def layer_cut_latency_ms(table: LayerTable, board: Board, host: DeviceProfile, cut: int) -> float:
    """Latency of one image, in ms: one step follows the other."""
    return sum(
        step.duration_ms + step.transit.latency_ms
        for step in layer_cut_graph(table, board, host, cut).steps
    )


def layer_cut_board_mj(table: LayerTable, board: Board, host: DeviceProfile, cut: int) -> float:
    """Energy that one image costs the board, in mJ: computing and sending.

    Sending counts only where the device has a radio_w.
    """
    radio = board.device.radio_w
    radio_w = radio.value if radio else 0.0
    return sum(
        step.energy_mj + radio_w * radio_part(step, board.name) * step.duration_ms
        for step in layer_cut_graph(table, board, host, cut).steps
        if step.actor == board.name
    )
