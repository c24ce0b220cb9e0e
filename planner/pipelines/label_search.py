"""Label search: the best cut of a model over boards, exactly.

A label says how the first layers may be done: behind which cut, on which board last, and what that
has cost.  Of labels that may go on in the same way, one that is no better in any figure is dropped;
so is one that cannot end within the limits, by the least that each figure alone grows to the end.

That each board holds one part is relaxed first and then enforced where it is broken: a label counts
the uses only of *critical* kinds of boards: all of them where these are few, else those that an
earlier round used too often (decremental state space relaxation; Righini and Salani 2008,
Networks 51(3)).  The best relaxed route that uses no board twice is the optimum.  Boards that are
alike are counted, not told apart.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from math import inf, prod

import numpy as np
from numpy.typing import NDArray

from nonn_common.errors import UnprovenError
from planner.pipelines.segment_costs import CostTable, CutCost, CutObjective, SegmentCosts

COST_NOISE = 1e-12
"""Relative difference below which two sums of the same figures are taken for equal."""

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RoutePart:
    """Layers `start` to `end` - 1 on a board of this class."""

    kind: int
    start: int
    end: int


Route = tuple[RoutePart, ...]
"""The parts of a model in the order of its layers."""


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Labels: last kind of board, uses of critical kinds as one number, figures, and parents.

    `start` is where the last part begins; `parent` the branch that the parts before it are.  The
    last row of `figures` is how long the board's wire was held by what came, if that counts.
    """

    kind: IntArray
    uses: IntArray
    start: IntArray
    parent: IntArray
    figures: CostTable

    def __len__(self) -> int:
        return len(self.kind)

    def take(self, which: NDArray[np.bool_] | IntArray) -> "Labels":
        """Return some of them: a mask, or their places."""
        return Labels(
            self.kind[which],
            self.uses[which],
            self.start[which],
            self.parent[which],
            self.figures[:, which],
        )


def concatenate_labels(labels: Sequence[Labels]) -> Labels:
    """Put labels one behind the other."""
    return Labels(
        np.concatenate([each.kind for each in labels]),
        np.concatenate([each.uses for each in labels]),
        np.concatenate([each.start for each in labels]),
        np.concatenate([each.parent for each in labels]),
        np.concatenate([each.figures for each in labels], axis=1),
    )


class LabelTree:
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
        stops: list[RoutePart] = []
        while branch >= 0:
            row = bisect_right(self._firsts, branch) - 1
            labels, place = self._rows[row], branch - self._firsts[row]
            start = int(labels.start[place])
            stops.append(RoutePart(int(labels.kind[place]), start, self._ends[row]))
            branch = int(labels.parent[place])
        return tuple(reversed(stops))


def undominated(groups: IntArray, figures: CostTable) -> IntArray:
    """Columns of `figures` that none of their group dominates in all rows.

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
        better = (figures[:, left] < figures[:, leader] * (1 - COST_NOISE)).any(axis=0)
        left = left[better]
    return np.concatenate(kept) if kept else left


MOST_LABELS = 2_000_000
"""Labels that are open at once in one round; more would need gigabytes."""
MOST_CELLS = 1_000_000
"""Figures in a table of bounds, by cut, state of use and kind."""
SLACKS = (1e-9, 0.01, 0.1, 1.0)
"""How far above its bound an optimum is looked for, one try after the other."""
MOST_NUMBERS = 2**62
"""Numbers that still fit 64 bits."""


class CutSearch:
    """Searches on the same costs; each knows which kinds were critical in those before it."""

    def __init__(self, costs: SegmentCosts) -> None:
        self._costs = costs
        few = prod(len(places) + 1 for places in costs.board_classes) <= _most_states(costs)
        self._critical: tuple[int, ...] = tuple(range(len(costs.board_classes))) if few else ()

    def optimum(self, aim: CutObjective, limits: Mapping[CutObjective, float]) -> Route | None:
        """Return a route of least `aim` within the limits, or None where none fits.

        Raises UnprovenError where the proof would need more than MOST_LABELS labels.
        """
        board_classes = self._costs.board_classes
        while (route := _Round(self._costs, aim, limits, self._critical).best()) is not None:
            uses = Counter(stop.kind for stop in route)
            overused = [kind for kind, used in uses.items() if used > len(board_classes[kind])]
            if not overused:
                return route
            self._critical = (*self._critical, *sorted(overused))
        return None

    def bound(self, aim: CutObjective) -> float:
        """Lower bound of `aim` over all routes; infinite where none fits."""
        free = _Uses(self._costs, ())
        return max(
            _RemainingCost(self._costs, each, free).least for each in self._costs.columns(aim)
        )


def _most_states(costs: SegmentCosts) -> int:
    """Return how many states of use bounds tell apart."""
    return max(1, MOST_CELLS // ((costs.layers + 1) * len(costs.board_classes)))


class _Uses:
    """Uses of critical board classes: one number, with a digit for each.

    Bounds look at the lowest digits only, `states` numbers in all.
    """

    def __init__(self, costs: SegmentCosts, critical: Sequence[int]) -> None:
        self.step = np.zeros(len(costs.board_classes), dtype=np.int64)
        self._most = [len(places) for places in costs.board_classes]
        self.states = numbers = 1
        for kind in critical:
            self.step[kind] = numbers
            numbers *= self._most[kind] + 1
            self.states = numbers if numbers <= _most_states(costs) else self.states
        if numbers * len(costs.board_classes) > MOST_NUMBERS:
            raise _too_large(costs)

    def left(self, uses: IntArray, kind: int) -> NDArray[np.bool_]:
        """States in which a board of this class is left; all for uncritical ones."""
        if not self.step[kind]:
            return np.ones(len(uses), dtype=np.bool_)
        most = self._most[kind]
        left: NDArray[np.bool_] = uses // self.step[kind] % (most + 1) < most
        return left

    def onward(self, kind: int) -> tuple[IntArray, IntArray]:
        """States with a board of this class left, and those after its use."""
        before = np.arange(self.states)
        if not 0 < self.step[kind] < self.states:
            return before, before
        before = before[self.left(before, kind)]
        return before, before + self.step[kind]


class _RemainingCost:
    """Least growth of a cost from a cut to the end, by use and class.

    come[cut] holds it for a board that has got what is alive at the cut, done[cut] for one that
    has computed up to it; exact for this figure alone where all kinds are critical.
    """

    def __init__(self, costs: SegmentCosts, column: CutCost, uses: _Uses) -> None:
        cuts, board_classes, states = costs.layers + 1, len(costs.board_classes), uses.states
        self._states = states
        self.done = np.full((cuts, states, board_classes), inf)
        self.come = np.full((cuts, states, board_classes), inf)
        self.done[-1] = column.end
        onward, follows = [uses.onward(kind) for kind in range(board_classes)], _may_follow(costs)
        for cut in range(costs.layers - 1, -1, -1):
            fits = costs.fits[:, cut, :].any(axis=0)
            part = np.where(costs.fits[:, cut, fits], column.part[:, cut, fits], inf)
            ends = column.grown(self.done[fits], part.T[:, None, :])
            self.come[cut] = ends.min(axis=0, initial=inf)
            for kind, (before, after) in enumerate(onward):
                hop = np.where(follows[:, kind], column.hop[:-1, kind, cut], inf)
                passed = column.grown(self.come[cut, after, kind][:, None], hop)
                self.done[cut, before] = np.minimum(self.done[cut, before], passed)
        first = [self.come[0, after[0], kind] for kind, (_, after) in enumerate(onward)]
        self.least = float(column.grown(np.array(first), column.hop[-1, :, 0]).min())

    def of(self, labels: "Labels", cut: int, *, come: bool) -> CostTable:
        """Return it for each label."""
        least = (self.come if come else self.done)[cut]
        figures: CostTable = least[labels.uses % self._states, labels.kind]
        return figures


def _may_follow(costs: SegmentCosts) -> NDArray[np.bool_]:
    """Say which kind may follow which: itself only where there are two boards of it."""
    several = np.array([len(places) > 1 for places in costs.board_classes])
    may: NDArray[np.bool_] = ~np.eye(len(several), dtype=np.bool_) | several
    return may


class _Round:
    """One search, with the uses of critical kinds counted and those of the others free."""

    def __init__(
        self,
        costs: SegmentCosts,
        aim: CutObjective,
        limits: Mapping[CutObjective, float],
        critical: Sequence[int],
    ) -> None:
        self._costs = costs
        self._aim = aim
        self._uses = _Uses(costs, critical)
        aims: tuple[CutObjective, ...] = tuple(dict.fromkeys((aim, *limits)))
        self._columns = tuple(column for each in aims for column in costs.columns(each))
        self._limits = [limits.get(column.aim, inf) for column in self._columns]
        self._rests = tuple(_RemainingCost(costs, column, self._uses) for column in self._columns)
        self._follows = _may_follow(costs)

    def best(self) -> Route | None:
        """Return the best route that uses no more boards of critical kinds than there are.

        Few labels end near the bound, so that routes are first looked for close to it.
        """
        sought = [column.aim == self._aim for column in self._columns]
        limit = max(compress(self._limits, sought))
        least = max(rest.least for rest in compress(self._rests, sought))
        if least == inf:
            return None
        for slack in SLACKS:
            near = least * (1 + slack)
            if near < limit and (route := self._best_within(near)) is not None:
                return route
        return self._best_within(limit)

    def _best_within(self, limit: float) -> Route | None:
        """Return the best route whose aim is at most `limit`; None if there is none."""
        self._limits = [
            limit if column.aim == self._aim else most
            for column, most in zip(self._columns, self._limits, strict=True)
        ]
        tree, cuts = LabelTree(), self._costs.layers
        come = self._sent()
        for cut in range(1, cuts):
            done = tree.grow(self._computed(come, cut), cut)
            come = concatenate_labels((come, self._passed(done, cut)))
            if len(come) > MOST_LABELS:
                raise _too_large(self._costs)
        return self._best_end(tree.grow(self._computed(come, cuts), cuts), tree)

    def _sent(self) -> Labels:
        """Labels, one for each class of board to which the host may send."""
        board_classes = np.arange(len(self._costs.board_classes))
        figures = np.zeros((len(self._columns) + 1, len(board_classes)))
        nothing = Labels(
            np.full_like(board_classes, len(board_classes)),
            0 * board_classes,
            0 * board_classes,
            -1 + 0 * board_classes,
            figures,
        )
        return self._undominated(self._hopped(nothing, board_classes, 0), 0, come=True)

    def _computed(self, come: Labels, cut: int) -> Labels:
        """Return the labels of boards that have done their part up to `cut`."""
        labels = come.take(np.flatnonzero(self._costs.fits[come.kind, come.start, cut]))
        figures = labels.figures.copy()
        for row, column in enumerate(self._columns):
            figures[row] = column.grown(figures[row], column.part[labels.kind, labels.start, cut])
        return self._undominated(replace(labels, figures=figures), cut, come=False)

    def _passed(self, done: Labels, cut: int) -> Labels:
        """Return the labels of boards to which others have passed what is alive at `cut`."""
        onward = []
        for kind in range(len(self._costs.board_classes)):
            may = self._follows[done.kind, kind] & self._uses.left(done.uses, kind)
            labels = done.take(np.flatnonzero(may))
            onward.append(self._hopped(labels, np.full(len(labels), kind), cut))
        return self._undominated(concatenate_labels(onward), cut, come=True)

    def _hopped(self, labels: Labels, receiver: IntArray, cut: int) -> Labels:
        figures = labels.figures.copy()
        for row, column in enumerate(self._columns):
            held = column.hop[labels.kind, receiver, cut]
            figures[row] = column.grown(figures[row], held)
            if column.wire:
                figures[row] = np.maximum(figures[row], labels.figures[-1] + held)
                figures[-1] = held * self._costs.half[receiver]
        start = np.full_like(receiver, cut)
        return Labels(
            receiver, labels.uses + self._uses.step[receiver], start, labels.parent, figures
        )

    def _undominated(self, labels: Labels, cut: int, *, come: bool) -> Labels:
        """Drop the labels that cannot end within the limits, and those that others dominate."""
        hopeful = np.ones(len(labels), dtype=np.bool_)
        for row, (column, rest) in enumerate(zip(self._columns, self._rests, strict=True)):
            ends = column.grown(labels.figures[row], rest.of(labels, cut, come=come))
            hopeful &= (ends <= self._limits[row]) & (ends < inf)
            if not column.adds and column.aim != self._aim:
                # Within its limit, what does not add up is as good as anything.
                labels.figures[row] = 0.0
        hopes = labels.take(np.flatnonzero(hopeful))
        groups = hopes.uses * len(self._costs.board_classes) + hopes.kind
        return hopes.take(undominated(groups, hopes.figures))

    def _best_end(self, done: Labels, tree: "LabelTree") -> Route | None:
        value = np.zeros(len(done))
        within = np.ones(len(done), dtype=np.bool_)
        for row, column in enumerate(self._columns):
            end = column.end[done.kind]
            figures = column.grown(done.figures[row], end)
            if column.wire:
                replied = done.figures[-1] + self._costs.reply_ms[done.kind]
                figures = np.maximum(figures, np.where(self._costs.half[done.kind], replied, 0.0))
            within &= figures <= self._limits[row]
            if column.aim == self._aim:
                value = np.maximum(value, figures)
        ends = np.flatnonzero(within)
        return tree.route(int(done.parent[ends[value[ends].argmin()]])) if len(ends) else None


def _too_large(costs: SegmentCosts) -> UnprovenError:
    return UnprovenError(
        f"the best cut of {costs.model.name} over {len(costs.board_classes)} kinds of boards is "
        "too large a search; name fewer boards that are unlike, or budgets that leave more room"
    )
