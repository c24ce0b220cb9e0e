"""Rounds: a model done layer by layer on several boards, with the host in the middle.

As MoDNN's map and reduce (Mao et al., DATE 2017): for each convolution the host sends each board
the part of the input that the board's part of the output needs, halo included; the board computes
its part, with the normalisations behind that convolution, and returns it; the host puts the parts
together and adds shortcuts up.  Every board holds all weights.  Poolings and the fully-connected
layer run on the host.  Values travel as fp32.  For one image, a round of boards b = 1..K takes::

    sent_b  = sent_(b-1) + message_ms + wire_ms(input part)
    done_b  = sent_b + compute + wire_ms(output part)
    round   = max_b done_b + join_fixed_ms

and the total is the sum over the rounds, plus the host's own layers.  A board's fixed part of the
compute time is paid in its first round.
"""

from collections.abc import Callable, Iterator, Sequence

from profiles.device import DeviceProfile
from profiles.fleet import Board
from profiles.layer import LayerTable, LayerWork
from profiles.link import BYTES_PER_FEATURE
from simulator.hops import JobBuilder
from simulator.job import Job
from simulator.pace import NO_EFFORT, Pace
from simulator.region import Region, needed, part
from simulator.splitting import check, on_host, receive_ms

Cut = Callable[[LayerWork], Sequence[Region | None]]
"""Says which region of a layer's output each board computes; None for no share."""


def job(table: LayerTable, boards: Sequence[Board], host: DeviceProfile, cut: Cut) -> Job:
    """Return what one image sets off; raises SimulationError without a layer or a board."""
    check(table, boards)
    build = JobBuilder(host)
    paces = [Pace(board.device, table) for board in boards]
    began: set[str] = set()
    host_pace, host_began = Pace(host, table), False
    done: tuple[int, ...] = ()
    for layers in _rounds(table):
        if layers[0].kind != "conv":
            effort = host_pace.layers(layers) + (NO_EFFORT if host_began else host_pace.begin)
            done, host_began = (on_host(build, effort, done),), True
            continue
        replies = []
        for board, pace, region in zip(boards, paces, cut(layers[0]), strict=True):
            if region is None:
                continue
            begin = NO_EFFORT if board.name in began else pace.begin
            began.add(board.name)
            effort = begin + pace.layers(part(layer, region) for layer in layers)
            reads = needed(layers[0], region).area * layers[0].in_channels
            sent = build.send(board, BYTES_PER_FEATURE * reads, done)
            computed = build.compute(board, after=(sent,), ms=effort.ms, mj=effort.mj)
            writes = region.area * layers[0].out_channels
            replies.append(build.reply(board, BYTES_PER_FEATURE * writes, (computed,)))
        done = (build.join(replies, ms=receive_ms(host)),)
    return build.job()


def speeds(table: LayerTable, boards: Sequence[Board]) -> tuple[float, ...]:
    """Return how many of these models each board would do per ms, its fixed part left out."""
    shortest_ms = 1e-9
    return tuple(
        1 / max(Pace(board.device, table).layers(table).ms, shortest_ms) for board in boards
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
