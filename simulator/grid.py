"""Greedy two-dimensional cuts: each board computes a rectangle of every layer (MeDNN).

Mao et al., "MeDNN: A distributed mobile system with enhanced partition and deployment for
large-scale DNNs", ICCAD 2017: greedy two-dimensional partition.  Boards take their part one after
the other, the fastest first: each cuts from what is left, across its longer side, a share in
proportion to its speed among the boards still to be served, rounded to whole rows.  The pieces stay
near squares, so that less halo is sent than with slices.  See `simulator.rounds` for who sends
what when and what it costs.  Their pruning is left out: the model stays what it is.
"""

from collections.abc import Sequence
from functools import partial

from profiles.device import DeviceProfile
from profiles.fleet import Board
from profiles.layer import LayerTable, LayerWork
from simulator import rounds
from simulator.job import Job
from simulator.region import Region, output_of


def job(table: LayerTable, boards: Sequence[Board], host: DeviceProfile) -> Job:
    """Return what one image sets off; raises SimulationError, or ProfileError for a figure.

    A board whose share of a layer is less than half a row sits that layer out.
    """
    return rounds.job(table, boards, host, partial(cut, speeds=rounds.speeds(table, boards)))


def cut(layer: LayerWork, speeds: Sequence[float]) -> tuple[Region | None, ...]:
    """Cut a layer's output into a rectangle for each board, by `speeds`."""
    left = output_of(layer)
    fastest_first = sorted(range(len(speeds)), key=lambda board: -speeds[board])
    pieces: list[Region | None] = [None] * len(speeds)
    for position, board in enumerate(fastest_first):
        others = sum(speeds[other] for other in fastest_first[position + 1 :])
        piece, left = _split(left, speeds[board], others)
        pieces[board] = piece if piece.area else None
    return tuple(pieces)


def _split(region: Region, weight: float, others: float) -> tuple[Region, Region]:
    """Cut `region` in two across its longer side, in the proportion `weight` to `others`."""
    if region.rows.length >= region.columns.length:
        near, far = region.rows.cut((weight, others))
        return Region(near, region.columns), Region(far, region.columns)
    near, far = region.columns.cut((weight, others))
    return Region(region.rows, near), Region(region.rows, far)
