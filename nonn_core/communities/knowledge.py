"""Knowledge of a teacher: measured, divided into communities, and what may be dropped.

The order of work of arXiv:1907.11804, section 4.2; images are validation images only.

P0 is the largest set of filters whose removal the teacher hardly feels (Eq. 2).  fconv is
averaged and one linear layer follows, so that a teacher without some filters needs no new
run: their share is taken from the logits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nonn_common.errors import InputError
from nonn_common.progress import Progress, silent
from nonn_core.communities.detection import find_communities, modularity
from nonn_core.communities.filter_network import (
    Activities,
    LinkOptions,
    Matrix,
    average_activities,
    filter_network,
    strong_links,
)
from nonn_core.data.dataset import Dataset
from nonn_core.distillation.accelerator import on_fastest_device
from nonn_core.partition import (
    EPSILON_PCT,
    MOST_LINKS,
    RESTARTS,
    Community,
    CurvePoint,
    DropStep,
    Link,
    Partition,
    Rule,
    TeacherReference,
)
from nonn_core.teacher.teacher import Teacher


@dataclass(frozen=True, slots=True)
class DropResult:
    """Measured curve, and communities and drop steps of which one is P0."""

    communities: tuple[Community, ...]
    steps: tuple[DropStep, ...]
    curve: tuple[CurvePoint, ...]


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Filter network (filters, filters), and its teacher, if there is one."""

    weights: Matrix
    activities: Activities | None = None
    rule: Rule | None = None
    teacher: TeacherReference | None = None
    warnings: tuple[str, ...] = ()

    @classmethod
    def of_teacher(
        cls,
        teacher: Teacher,
        dataset: Dataset,
        rule: Rule,
        options: LinkOptions,
        progress: Progress = silent,
    ) -> "Knowledge":
        """Measure a teacher on the validation images that it never saw.

        Raises PartitionError when the network has no link, and InputError for another data set's
        images or classes.
        """
        teacher.check_data(dataset)
        with on_fastest_device(teacher.network, dataset) as data:
            _, validation = data.split(teacher.seed)
            activities = average_activities(teacher, data, validation, progress)
        weights = filter_network(activities.average, rule, options, progress)
        negative = activities.negative_pct > 0
        update = {
            "fingerprint": teacher.fingerprint,
            "signed_maps": teacher.signed_maps if negative else None,
        }
        measured = teacher.reference.model_copy(update=update)
        warnings = teacher.warnings
        if negative:
            warnings += (signed_maps_warning(measured, activities.negative_pct),)
        return cls(weights, activities, rule, measured, warnings)

    @classmethod
    def of_network(cls, weights: Matrix, link_percentile: float) -> "Knowledge":
        """Take a ready network; raises PartitionError when no link is left."""
        return cls(strong_links(weights, link_percentile))

    def links(self) -> tuple[Link, ...]:
        """List the links of the network: two filters, the lower one first, and the weight."""
        first, second = np.nonzero(np.triu(self.weights, k=1))
        weights = self.weights[first, second]
        return tuple(zip(first.tolist(), second.tolist(), weights.tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class GammaRow:
    """Result of one gamma: sizes in filters, modularity at it and at 1.

    `p0_filters` is null where nothing was measured.
    """

    gamma: float
    communities: int
    largest: int
    smallest: int
    modularity: float
    plain_modularity: float
    g0_filters: int
    p0_filters: int | None


def partition(
    knowledge: Knowledge,
    gamma: float,
    seed: int,
    restarts: int = RESTARTS,
    epsilon_pct: float = EPSILON_PCT,
    progress: Progress = silent,
) -> tuple[Partition, GammaRow]:
    """Split the filters into communities, and find P0 under epsilon where it can be measured."""
    weights, activities = knowledge.weights, knowledge.activities
    found = find_communities(weights, gamma, seed, restarts)
    value = modularity(weights, found, gamma)
    if activities is None:
        dropping = _unmeasured_drop(found)
    else:
        dropping = find_p0(activities, found, epsilon_pct, progress)
    links = knowledge.links()
    made = Partition(
        teacher=knowledge.teacher,
        rule=knowledge.rule,
        gamma=gamma,
        seed=seed,
        restarts=restarts,
        filters=len(weights),
        images=None if activities is None else len(activities.labels),
        modularity=value,
        epsilon_pct=None if activities is None else epsilon_pct,
        communities=dropping.communities,
        drop_steps=dropping.steps,
        curve=dropping.curve,
        links=links if len(links) <= MOST_LINKS else (),
    )
    linked = [len(one.filters) for one in found if one.linked]
    p0 = made.p0(epsilon_pct)
    return made, GammaRow(
        gamma=gamma,
        communities=len(linked),
        largest=max(linked),
        smallest=min(linked),
        modularity=value,
        plain_modularity=modularity(weights, found, 1.0),
        g0_filters=len(weights) - sum(linked),
        p0_filters=None if p0 is None else p0.filters,
    )


def partition_teacher(
    teacher: Teacher,
    dataset: Dataset,
    rule: Rule,
    gamma: float,
    seed: int,
    options: LinkOptions,
    progress: Progress = silent,
    epsilon_pct: float = EPSILON_PCT,
) -> Partition:
    """Partition a teacher's fconv filters; raises what `Knowledge.of_teacher` raises."""
    knowledge = Knowledge.of_teacher(teacher, dataset, rule, options, progress)
    return partition(knowledge, gamma, seed, epsilon_pct=epsilon_pct, progress=progress)[0]


def signed_maps_warning(teacher: TeacherReference, negative_pct: float | None = None) -> str:
    """Sentence on the stand-in for negative values of fconv."""
    share = "" if negative_pct is None else f", {negative_pct:.2g} % of its activity"
    done = "their size" if teacher.signed_maps == "abs" else "0"
    option = "" if negative_pct is None else " (--signed-maps)"
    return f"fconv {teacher.fconv} has negative values{share}: {done} stands for them{option}"


def _unmeasured_drop(communities: Sequence[Community]) -> DropResult:
    """Drop steps without a teacher.

    Only g0, the filters without a link, may be dropped, as in arXiv:1907.11804.
    """
    steps = [DropStep(communities=(), filters=0, accuracy_pct=None, delta_val_pct=None)]
    steps += [
        DropStep(communities=(c.id,), filters=len(c.filters), accuracy_pct=None, delta_val_pct=None)
        for c in communities
        if not c.linked
    ]
    return DropResult(tuple(communities), tuple(steps), ())


_RANKINGS = 256
"""At most so often are the filters that are left ranked anew."""
_FILTERS_AT_ONCE = 64
"""Filters ranked at a time, so that what they need stays in the cache."""


def find_p0(
    activities: Activities,
    communities: Sequence[Community],
    epsilon_pct: float,
    progress: Progress = silent,
) -> DropResult:
    """Find the largest of nested sets of filters with |delta_val| < epsilon.

    The chain removes g0 as a whole, if that keeps |delta_val| below epsilon, and then one filter
    after the other, of all communities, the one that is missed least first, until one is left.
    The single filters of P0 become a community of their own.  Drop steps beyond P0 remove whole
    communities; at least one stays.  With epsilon 0 nothing is P0, and the communities stay whole.
    Raises InputError for a negative epsilon.
    """
    if not 0 <= epsilon_pct < math.inf:
        raise InputError("epsilon", found=epsilon_pct, allowed="a finite number, 0 or more")
    chain = _RemovalChain(activities)
    whole = _drop_g0(chain, communities, epsilon_pct)
    _drop_filters(chain, progress)
    curve = tuple(chain.points)
    below = (k for k, point in enumerate(curve) if abs(point.delta_val_pct) < epsilon_pct)
    size = max(below, default=0)
    single = {point.removed[0] for point in curve[len(whole) + 1 : size + 1]}
    split, order = _split(communities, whole, single)
    return DropResult(split, _steps(activities, split, order, curve), curve)


class _RemovalChain:
    """Nested sets of removed filters, and what each has done to the teacher's accuracy."""

    def __init__(self, activities: Activities) -> None:
        self.activities = activities
        self.logits = activities.logits()
        accuracy = activities.accuracy_pct(self.logits)
        self.points = [CurvePoint(removed=(), filters=0, accuracy_pct=accuracy, delta_val_pct=0.0)]

    @property
    def left(self) -> list[int]:
        """Filters that were not removed, in ascending order."""
        gone = {i for point in self.points for i in point.removed}
        return [i for i in range(self.activities.average.shape[1]) if i not in gone]

    def without(self, filters: Sequence[int]) -> tuple[CurvePoint, Matrix]:
        """Return the point that follows when these filters go too, and its logits."""
        logits = self.logits - self.activities.share(filters)
        accuracy = self.activities.accuracy_pct(logits)
        point = CurvePoint(
            removed=tuple(filters),
            filters=self.points[-1].filters + len(filters),
            accuracy_pct=accuracy,
            delta_val_pct=accuracy - self.points[0].accuracy_pct,
        )
        return point, logits

    def remove(self, filters: Sequence[int]) -> None:
        """Remove these filters too."""
        point, self.logits = self.without(filters)
        self.points.append(point)


def _drop_g0(
    chain: _RemovalChain, communities: Sequence[Community], epsilon_pct: float
) -> list[Community]:
    """Remove g0 if there is one, |delta_val| stays below epsilon and something is left."""
    g0 = [one for one in communities if not one.linked]
    if not g0 or len(communities) == 1:
        return []
    if abs(chain.without(g0[0].filters)[0].delta_val_pct) >= epsilon_pct:
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
    activities: Activities,
    communities: Sequence[Community],
    first: Sequence[int],
    curve: Sequence[CurvePoint],
) -> tuple[DropStep, ...]:
    """Drop steps: the communities of P0, then always the least missed."""
    # Of what the curve holds, the curve's figures; two ways to one figure would differ in rounding.
    known = {point.filters: point for point in curve}
    steps = [_step((), known[0])]
    for k in range(len(first)):
        gone = first[: k + 1]
        steps.append(_step(gone, known[sum(len(communities[c].filters) for c in gone)]))
    gone = list(first)
    chain = _RemovalChain(activities)
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
    )


def _missed(delta_val_pct: float) -> float:
    """Return |delta_val|, rounded so that an equal gain and loss compare equal."""
    return round(abs(delta_val_pct), 9)
