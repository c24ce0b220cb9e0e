"""Labels of a search for cuts: how the first layers may be done, and which can be dropped."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.segments.costs import Figures

NOISE = 1e-12
"""Relative difference below which two sums of the same figures are taken for equal."""

Whole = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Stop:
    """A part of a route: layers `start` to `end` - 1 on a board of this kind."""

    kind: int
    start: int
    end: int


Route = tuple[Stop, ...]
"""The parts of a model in the order of its layers."""


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Labels: last kind of board, uses of critical kinds as one number, figures, and parents.

    `start` is where the last part begins; `parent` the branch that the parts before it are.  The
    last row of `figures` is how long the board's wire was held by what came, if that counts.
    """

    kind: Whole
    uses: Whole
    start: Whole
    parent: Whole
    figures: Figures

    def __len__(self) -> int:
        return len(self.kind)

    def take(self, which: NDArray[np.bool_] | Whole) -> "Labels":
        """Return some of them: a mask, or their places."""
        return Labels(
            self.kind[which],
            self.uses[which],
            self.start[which],
            self.parent[which],
            self.figures[:, which],
        )


def joined(labels: Sequence[Labels]) -> Labels:
    """Put labels one behind the other."""
    return Labels(
        np.concatenate([each.kind for each in labels]),
        np.concatenate([each.uses for each in labels]),
        np.concatenate([each.start for each in labels]),
        np.concatenate([each.parent for each in labels]),
        np.concatenate([each.figures for each in labels], axis=1),
    )


class Tree:
    """How labels came about: each branch is a part behind an earlier branch."""

    def __init__(self) -> None:
        self._rows: list[Labels] = []
        self._ends: list[int] = []
        self._firsts: list[int] = [0]

    def grow(self, done: Labels, cut: int) -> Labels:
        """Remember labels that are done at `cut`; return them as their own parents."""
        self._rows.append(done)
        self._ends.append(cut)
        first = self._firsts[-1]
        self._firsts.append(first + len(done))
        return replace(done, parent=np.arange(first, first + len(done)))

    def route(self, branch: int) -> Route:
        """Return the parts up to a branch."""
        stops: list[Stop] = []
        while branch >= 0:
            row = bisect_right(self._firsts, branch) - 1
            labels, place = self._rows[row], branch - self._firsts[row]
            start = int(labels.start[place])
            stops.append(Stop(int(labels.kind[place]), start, self._ends[row]))
            branch = int(labels.parent[place])
        return tuple(reversed(stops))


def undominated(groups: Whole, figures: Figures) -> Whole:
    """Return which columns of `figures` no other of their group is at most equal to in all rows.

    The first of each group, in order of its rows, is one of them; it goes, with all that it
    dominates, and the next comes first.
    """
    left = np.lexsort((*figures[::-1], groups))
    kept = []
    while len(left):
        first = np.concatenate(([True], groups[left[1:]] != groups[left[:-1]]))
        leaders = left[first]
        kept.append(leaders)
        leader = leaders[np.cumsum(first) - 1]
        better = (figures[:, left] < figures[:, leader] * (1 - NOISE)).any(axis=0)
        left = left[better]
    return np.concatenate(kept) if kept else left
