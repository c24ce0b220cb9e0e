"""Splits by name: one model over the boards of a fleet, each way with its usual settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Literal

from profiles.device import DeviceProfile
from profiles.fleet import Board
from profiles.layer import LayerTable
from simulator import channel_split, fused_tiles, grid, layer_cut, pipeline, slices
from simulator.hops import JobBuilder
from simulator.job import Job
from simulator.pace import Pace

Split = Literal["channels", "slices", "grid", "tiles", "cut", "pipeline"]


@dataclass(frozen=True, slots=True)
class Divided:
    """A model divided over boards: what one image sets off, and how it is divided, in words."""

    job: Job
    told: str


def divided(
    split: Split, table: LayerTable, boards: Sequence[Board], host: DeviceProfile
) -> Divided:
    """Return a model divided over `boards`.

    Tiles fuse the early layers, one tile or more per board; a cut of least latency lies between
    the first board and the host; a pipeline has the cuts of highest throughput.  Raises
    SimulationError, or ProfileError where a profile lacks a figure.
    """
    if split == "tiles":
        return _tiles(table, boards, host)
    if split == "cut":
        board = boards[0]
        cut = layer_cut.best_cut(table, board, host)
        told = f"{board.name} computes the first {cut} of {len(table)} layers, the host the others"
        return Divided(layer_cut.job(table, board, host, cut), told)
    if split == "pipeline":
        cuts = pipeline.best_cuts(table, boards, host)
        told = f"cuts behind layers {', '.join(map(str, cuts))} of {len(table)}"
        return Divided(pipeline.job(table, boards, host, cuts), told)
    jobs = {"channels": channel_split.job, "slices": slices.job, "grid": grid.job}
    return Divided(jobs[split](table, boards, host), "every layer on every board")


def _tiles(table: LayerTable, boards: Sequence[Board], host: DeviceProfile) -> Divided:
    rows, columns = near_square(len(boards))
    fused = fused_tiles.early(table)
    told = f"{rows} x {columns} tiles of the first {fused} of {len(table)} layers, then the host"
    return Divided(
        fused_tiles.job(table, boards, host, fused=fused, rows=rows, columns=columns), told
    )


def alone(table: LayerTable, board: Board) -> Job:
    """Return what one image sets off where `board` has it, computes all, and tells nobody."""
    build = JobBuilder()
    pace = Pace(board.device, table)
    effort = pace.begin + pace.layers(table)
    build.compute(board, ms=effort.ms, mj=effort.mj)
    return build.job()


def near_square(tiles: int) -> tuple[int, int]:
    """Return rows and columns of a grid of at least `tiles`, as square as few spare ones allow."""
    rows = isqrt(tiles)
    return rows, -(-tiles // rows)
