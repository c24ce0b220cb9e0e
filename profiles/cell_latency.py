"""Latency of NAS-Bench-201 networks on one board, from the operations of their cell.

A network is named by six digits: the operations on the edges 0>1, 0>2, 1>2, 0>3, 1>3 and 2>3 of
its cell (0 none, 1 skip, 2 convolution 1x1, 3 convolution 3x3, 4 average pooling; Dong and Yang,
ICLR 2020).  An operation costs its time where its result reaches the output, also on an edge that
the input does not reach: it computes on zeros.  So the time is a constant and three costs::

    ms = fixed + n2 * conv1x1 + n3 * conv3x3 + n4 * pooling

fitted by least absolute relative errors, since the measurements have a second, slower mode.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nonn_common.errors import InputError

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
NONE, SKIP, CONV_1X1, CONV_3X3, POOL = range(5)
_COSTLY = (CONV_1X1, CONV_3X3, POOL)
_OUTPUT = 3

Matrix = NDArray[np.float64]

SQUARED_BELOW = 0.05
"""Relative error up to which the fit counts squares, beyond that sizes."""
_ROUNDS = 8
TOWARDS_MEAN = 0.05
"""Share of the way from a typical to a mean network of those with, or without, a 3x3 convolution.

The slower mode is above the typical network; a little towards it, the worst tenth falls.
"""
_DOUBTED = 3.0
_ENDS = (0.05, 0.95)
_LEAST_MS = 0.3


@dataclass(frozen=True, slots=True)
class CellLatencyModel:
    """Costs of a board in ms.

    `factors` are of cells without, and of cells with a live 3x3 convolution.
    `interval` holds what nine of ten fitted networks lie between, as multiples of the prediction.
    """

    fixed_ms: float
    ms_per_operation: tuple[float, float, float]
    factors: tuple[float, float]
    interval: tuple[float, float]

    def predict(self, cells: Sequence[str]) -> Matrix:
        """Latency of each cell's network, in ms."""
        counts = np.array([computed_operations(cell) for cell in cells], dtype=float)
        counts = counts.reshape(-1, len(_COSTLY))
        ms = np.maximum(self.fixed_ms + counts @ np.array(self.ms_per_operation), _LEAST_MS)
        found: Matrix = ms * np.array(self.factors)[_class(counts)]
        return found


def fit_cells(measured: Mapping[str, float]) -> CellLatencyModel:
    """Costs that fit the `measured` ms of networks by the operations of their cell.

    Degenerate networks take no part.  Raises InputError for fewer than four others.
    """
    rows = {cell: ms for cell, ms in measured.items() if not is_degenerate(cell)}
    if len(rows) <= len(_COSTLY):
        raise InputError("too few networks to fit", found=len(rows), allowed="at least 4")
    counts = np.array([computed_operations(cell) for cell in rows], dtype=float)
    design, ms = np.column_stack([np.ones(len(rows)), counts]), np.array(list(rows.values()))
    weights: Matrix = 1 / ms
    costs: Matrix = np.zeros(design.shape[1])
    for _ in range(_ROUNDS):
        found = np.linalg.lstsq(design * weights[:, None], ms * weights, rcond=None)[0]
        costs = np.asarray(found, dtype=np.float64)
        errors = np.abs(design @ costs / ms - 1)
        weights = 1 / ms / np.sqrt(np.maximum(1.0, errors / SQUARED_BELOW))
    left = np.clip(np.log(ms / np.maximum(design @ costs, _LEAST_MS)), -0.6, 0.6)
    kind = _class(counts)
    means = [left[kind == k].sum() / (np.count_nonzero(kind == k) + _DOUBTED) for k in (0, 1)]
    without, having = (float(np.exp(TOWARDS_MEAN * mean)) for mean in means)
    first, second, third = (float(cost) for cost in costs[1:])
    model = CellLatencyModel(float(costs[0]), (first, second, third), (without, having), (1.0, 1.0))
    low, high = (float(end) for end in np.quantile(ms / model.predict(list(rows)), _ENDS))
    return replace(model, interval=(low, high))


def computed_operations(cell: str) -> tuple[int, int, int]:
    """Numbers of 1x1 and 3x3 convolutions and of poolings whose results reach the output."""
    edges = _edges(cell)
    useful = _reached(edges, backwards=True)
    live = [operation for _, end, operation in edges if end in useful]
    first, second, third = (live.count(kind) for kind in _COSTLY)
    return first, second, third


def is_degenerate(cell: str) -> bool:
    """Whether the output of the network does not depend on its input."""
    return _OUTPUT not in _reached(_edges(cell), backwards=False)


def swapped(cell: str) -> str | None:
    """The same network with its inner nodes swapped; None where the edge between them forbids."""
    if cell[2] != str(NONE):
        return None
    return cell[1] + cell[0] + cell[2] + cell[3] + cell[5] + cell[4]


def _edges(cell: str) -> list[tuple[int, int, int]]:
    """Edges as (from, to, operation), without those of none.

    Raises InputError.
    """
    if len(cell) != len(EDGES) or not set(cell) <= set("01234"):
        raise InputError("not the operations of a cell", found=cell, allowed="six digits 0 to 4")
    found = zip(EDGES, map(int, cell), strict=True)
    return [(start, end, operation) for (start, end), operation in found if operation != NONE]


def _reached(edges: Sequence[tuple[int, int, int]], backwards: bool) -> set[int]:
    """Nodes that the input reaches, or, backwards, from which the output is reached."""
    found = {_OUTPUT if backwards else 0}
    for _ in EDGES:
        for start, end, _operation in edges:
            if backwards and end in found:
                found.add(start)
            if not backwards and start in found:
                found.add(end)
    return found


def _class(counts: Matrix) -> NDArray[np.intp]:
    """Whether a cell has a live 3x3 convolution."""
    return (counts[:, 1] > 0).astype(np.intp)
