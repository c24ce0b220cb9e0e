"""One-dimensional slices: each board computes some rows of every layer, by its speed (MoDNN).

Mao, Chen, Nixon, Krieger, Chen, "MoDNN: Local distributed mobile computing system for deep neural
network", DATE 2017: biased one-dimensional partition.  The longer side of each layer's maps is cut
in proportion to the boards' speeds, rounded to whole rows; see `simulator.rounds` for who sends
what when and what it costs.  Their sparse fully-connected layers have no counterpart here, where
a model has one, small enough for the host.
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
    """Cut a layer's output along its longer side, in proportion to `speeds`."""
    whole = output_of(layer)
    if layer.out_height >= layer.out_width:
        slices = [Region(span, whole.columns) for span in whole.rows.cut(speeds)]
    else:
        slices = [Region(whole.rows, span) for span in whole.columns.cut(speeds)]
    return tuple(each if each.area else None for each in slices)
