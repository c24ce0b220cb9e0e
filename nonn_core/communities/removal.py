"""Removal of filters that a teacher does not miss: curve, drop steps, P0.

P0 is the largest set of filters whose removal the teacher hardly feels (arXiv:1907.11804, Eq. 2),
as far as the validation images are evidence of that (`nonn_core.evidence`).  fconv is averaged and
one linear layer follows, so that a teacher without some filters needs no new run: their share is
taken from the logits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nonn_common import Progress, silent
from nonn_common.errors import InputError
from nonn_core.communities.filter_network import Activities, Matrix
from nonn_core.evidence import PairedAnswers
from nonn_core.partition import CONFIDENCE_PCT, Community, CurvePoint, DropStep


@dataclass(frozen=True, slots=True)
class DropResult:
    """Measured curve, and communities and drop steps of which one is P0.

    `estimated_filters` would go by the measured delta_val alone; `images_needed` would tell whether
    they may, where there are fewer.
    """

    communities: tuple[Community, ...]
    steps: tuple[DropStep, ...]
    curve: tuple[CurvePoint, ...] = ()
    estimated_filters: int | None = None
    images_needed: int | None = None


def unmeasured_drop(communities: Sequence[Community]) -> DropResult:
    """Drop steps without a teacher.

    Only g0, the filters without a link, may be dropped, as in arXiv:1907.11804.
    """
    steps = [DropStep(communities=(), filters=0, accuracy_pct=None, delta_val_pct=None)]
    steps += [
        DropStep(communities=(c.id,), filters=len(c.filters), accuracy_pct=None, delta_val_pct=None)
        for c in communities
        if not c.linked
    ]
    return DropResult(tuple(communities), tuple(steps))


_RANKINGS = 256
"""At most so often are the filters that are left ranked anew."""
_FILTERS_AT_ONCE = 64
"""Filters ranked at a time, so that what they need stays in the cache."""


def find_p0(
    activities: Activities,
    communities: Sequence[Community],
    epsilon_pct: float,
    progress: Progress = silent,
    confidence_pct: float | None = CONFIDENCE_PCT,
) -> DropResult:
    """Find the largest of nested sets of filters whose removal costs less than epsilon.

    The chain removes g0 as a whole, if that costs less than epsilon, and then one filter after the
    other, of all communities, the one that is missed least first, until one is left.  What a set
    costs is `worst_pct`: |delta_val|, or the bound on the loss if larger.  The bound is the largest
    of all sets so far, so that a set may go only after all before it: in a fixed order many tests
    are as sure as one (Maurer, Hothorn and Lehmacher 1995).  Without a confidence, as in
    arXiv:1907.11804, the measured |delta_val| alone is the cost.

    The single filters of P0 become a community of their own.  Drop steps beyond P0 remove whole
    communities; at least one stays.  With epsilon 0 nothing is P0, and the communities stay whole.
    Raises InputError for a negative epsilon.
    """
    if not 0 <= epsilon_pct < math.inf:
        raise InputError("epsilon", found=epsilon_pct, allowed="a finite number, 0 or more")
    chain = _RemovalChain(activities, confidence_pct)
    whole = _drop_g0(chain, communities, epsilon_pct)
    _drop_filters(chain, progress)
    curve = tuple(chain.points)
    measured = (k for k, point in enumerate(curve) if abs(point.delta_val_pct) < epsilon_pct)
    estimated = max(measured, default=0)
    size = max((k for k, point in enumerate(curve) if point.worst_pct < epsilon_pct), default=0)
    single = {point.removed[0] for point in curve[len(whole) + 1 : size + 1]}
    split, order = _split(communities, whole, single)
    answers = _answers(activities, curve[estimated])
    needed = answers.images_needed(epsilon_pct) if estimated else 0
    return DropResult(
        split,
        _steps(chain, split, order),
        curve,
        curve[estimated].filters,
        needed if needed > answers.images else None,
    )


def _answers(activities: Activities, point: CurvePoint) -> PairedAnswers:
    """Pair the answers of the whole teacher with those at a point of the curve."""
    return PairedAnswers(len(activities.labels), point.lost or 0, point.won or 0)


class _RemovalChain:
    """Nested sets of removed filters, and what each has done to the teacher's accuracy."""

    def __init__(
        self, activities: Activities, confidence_pct: float | None, least_bound_pct: float = 0.0
    ) -> None:
        self.activities = activities
        self.confidence_pct = confidence_pct
        self.logits = activities.logits()
        self.right = activities.right(self.logits)
        self.points = [
            CurvePoint(
                removed=(),
                filters=0,
                accuracy_pct=activities.accuracy_pct(self.logits),
                delta_val_pct=0.0,
                lost=0,
                won=0,
                loss_bound_pct=None if confidence_pct is None else least_bound_pct,
            )
        ]

    @property
    def left(self) -> list[int]:
        """Filters that were not removed, in ascending order."""
        gone = {i for point in self.points for i in point.removed}
        return [i for i in range(self.activities.average.shape[1]) if i not in gone]

    def without(self, filters: Sequence[int]) -> tuple[CurvePoint, Matrix]:
        """Return the point that follows when these filters go too, and its logits."""
        logits = self.logits - self.activities.share(filters)
        accuracy = self.activities.accuracy_pct(logits)
        right = self.activities.right(logits)
        last = self.points[-1]
        point = CurvePoint(
            removed=tuple(filters),
            filters=last.filters + len(filters),
            accuracy_pct=accuracy,
            delta_val_pct=accuracy - self.points[0].accuracy_pct,
            lost=int(np.sum(self.right & ~right)),
            won=int(np.sum(right & ~self.right)),
            loss_bound_pct=last.loss_bound_pct,
        )
        if self.confidence_pct is not None and filters:
            bound = _answers(self.activities, point).loss_bound_pct(self.confidence_pct)
            update = {"loss_bound_pct": max(bound, last.loss_bound_pct or 0.0)}
            point = point.model_copy(update=update)
        return point, logits

    def remove(self, filters: Sequence[int]) -> None:
        """Remove these filters too."""
        point, self.logits = self.without(filters)
        self.points.append(point)


def _drop_g0(
    chain: _RemovalChain, communities: Sequence[Community], epsilon_pct: float
) -> list[Community]:
    """Remove g0 if there is one, it costs less than epsilon and something is left."""
    g0 = [one for one in communities if not one.linked]
    if not g0 or len(communities) == 1:
        return []
    if chain.without(g0[0].filters)[0].worst_pct >= epsilon_pct:
        return []
    chain.remove(g0[0].filters)
    return g0


def _drop_filters(chain: _RemovalChain, progress: Progress) -> None:
    """Remove one filter after the other, the least missed first, until one is left."""
    filters = chain.activities.average.shape[1]
    left = chain.left
    at_once = -(-len(left) // _RANKINGS)
    while len(left) > 1:
        rises = cross_entropy_rises(chain.activities, chain.logits, left)
        order = np.argsort(rises, kind="stable")[: min(at_once, len(left) - 1)]
        for i in order:
            chain.remove((left[i],))
        left = chain.left
        progress("measuring what may be dropped", filters - len(left), filters)


def cross_entropy_rises(activities: Activities, logits: Matrix, filters: Sequence[int]) -> Matrix:
    """Estimate how much the mean cross-entropy rises when each of these filters alone goes.

    To second order in the filter's share of the logits (images, classes), as in optimal brain
    damage (LeCun, Denker and Solla 1990): with p the softmax, y the one-hot label and
    d_c = a_i w_ci, the mean over images of (y - p).d + (p.d^2 - (p.d)^2) / 2.
    """
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances = (powers / powers.sum(axis=1, keepdims=True)).T
    rises = np.empty(len(filters))
    for start in range(0, len(filters), _FILTERS_AT_ONCE):
        block = list(filters[start : start + _FILTERS_AT_ONCE])
        own, weight = activities.read[:, block].T, activities.fc_weight[:, block].T
        expected = weight @ chances
        slope = expected - weight[:, activities.labels]
        spread = (weight**2) @ chances - expected**2
        rises[start : start + _FILTERS_AT_ONCE] = (own * (own * spread / 2 - slope)).mean(axis=1)
    return rises


def _split(
    communities: Sequence[Community], whole: Sequence[Community], single: set[int]
) -> tuple[tuple[Community, ...], list[int]]:
    """Take single filters out of their communities.

    Returns all communities anew, and the ids of P0 in order.  What is left of the communities comes
    linked before g0 and largest first, as they were found.
    """
    rest = [
        (one, tuple(i for i in one.filters if one in whole or i not in single))
        for one in communities
    ]
    rest = [(one, filters) for one, filters in rest if filters]
    rest.sort(key=lambda each: (not each[0].linked, -len(each[1]), each[1]))
    split = [
        Community(id=k, filters=filters, linked=one.linked) for k, (one, filters) in enumerate(rest)
    ]
    order = [next(k for k, (each, _) in enumerate(rest) if each is one) for one in whole]
    if single:
        linked = any(one.linked for one in communities if single & set(one.filters))
        order.append(len(split))
        split.append(
            Community(id=len(split), filters=tuple(sorted(single)), linked=linked, unneeded=True)
        )
    return tuple(split), order


def _steps(
    measured: _RemovalChain, communities: Sequence[Community], first: Sequence[int]
) -> tuple[DropStep, ...]:
    """Drop steps: the communities of P0, then always the least missed."""
    # Of what the curve holds, the curve's figures; two ways to one figure would differ in rounding.
    known = {point.filters: point for point in measured.points}
    steps = [_step((), known[0])]
    for k in range(len(first)):
        gone = first[: k + 1]
        steps.append(_step(gone, known[sum(len(communities[c].filters) for c in gone)]))
    gone = list(first)
    least_bound_pct = steps[-1].loss_bound_pct or 0.0
    chain = _RemovalChain(measured.activities, measured.confidence_pct, least_bound_pct)
    chain.remove([i for c in gone for i in communities[c].filters])
    while len(gone) < len(communities) - 1:
        left = [one for one in communities if one.id not in gone]
        tried = [(one, chain.without(one.filters)[0]) for one in left]
        best, _ = min(
            tried, key=lambda each: (_missed(each[1].delta_val_pct), -len(each[0].filters))
        )
        chain.remove(best.filters)
        gone.append(best.id)
        steps.append(_step(gone, chain.points[-1]))
    return tuple(steps)


def _step(gone: Sequence[int], point: CurvePoint) -> DropStep:
    return DropStep(
        communities=tuple(gone),
        filters=point.filters,
        accuracy_pct=point.accuracy_pct,
        delta_val_pct=point.delta_val_pct,
        loss_bound_pct=point.loss_bound_pct,
    )


def _missed(delta_val_pct: float) -> float:
    """Return |delta_val|, rounded so that an equal gain and loss compare equal."""
    return round(abs(delta_val_pct), 9)
