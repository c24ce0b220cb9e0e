"""From a teacher to its partition: activities, network, communities, and what may be dropped.

The order of work of arXiv:1907.11804, section 4.2; images are validation images only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from nonn_core.data.dataset import Dataset, Images
from nonn_core.knowledge.communities import find_communities, modularity
from nonn_core.knowledge.filter_network import LinkOptions, Matrix, filter_network, strong_links
from nonn_core.modules import pooled
from nonn_core.partition import Community, DropStep, Partition, Rule
from nonn_core.progress import Progress, silent
from nonn_core.teacher import Teacher

_BATCH = 256


@dataclass(frozen=True, slots=True)
class Activities:
    """What the teacher's fconv does on validation images.

    `average` (images, filters) holds each filter's mean over height and width, >= 0; `labels`
    (images,) the right classes; `fc_weight` (classes, filters) and `fc_bias` (classes,) the
    teacher's last layer, which turns averages into logits.
    """

    average: Matrix
    labels: NDArray[np.int64]
    fc_weight: Matrix
    fc_bias: Matrix

    def accuracy_pct(self, dropped: Sequence[int] = ()) -> float:
        """Teacher's accuracy in percent when these filters are removed from fconv."""
        kept = np.ones(self.average.shape[1])
        kept[list(dropped)] = 0.0
        logits = (self.average * kept) @ self.fc_weight.T + self.fc_bias
        return float(100 * np.mean(logits.argmax(axis=1) == self.labels))


def average_activities(
    teacher: Teacher, dataset: Dataset, images: Images, progress: Progress = silent
) -> Activities:
    """Run the teacher over `images`; a_i is the mean of fconv's channel i (A, section 4.1)."""
    averages = []
    with torch.no_grad():
        for pixels, _ in dataset.batches(images, _BATCH):
            averages.append(pooled(teacher(pixels)[1]).double())
            done = min(len(averages) * _BATCH, len(images))
            progress("reading the teacher's activities", done, len(images))
    weight, bias = teacher.classifier()
    return Activities(
        average=torch.cat(averages).numpy(),
        labels=images.labels.numpy(),
        fc_weight=weight.double().numpy(),
        fc_bias=bias.double().numpy(),
    )


def partition_teacher(
    teacher: Teacher,
    dataset: Dataset,
    rule: Rule,
    gamma: float,
    seed: int,
    options: LinkOptions,
    progress: Progress = silent,
) -> Partition:
    """Partition a teacher's fconv filters on the validation images that it never saw.

    Raises PartitionError when the network has no link, and InputError for another data set's
    images or classes.
    """
    teacher.check_data(dataset)
    _, validation = dataset.split(teacher.card.seed)
    activities = average_activities(teacher, dataset, validation, progress)
    weights = filter_network(activities.average, rule, options, progress)
    communities = find_communities(weights, gamma, seed)
    return Partition(
        teacher=teacher.reference,
        rule=rule,
        gamma=gamma,
        seed=seed,
        filters=len(weights),
        images=len(validation),
        modularity=modularity(weights, communities, gamma),
        communities=communities,
        drop_steps=drop_steps(activities, communities),
    )


def partition_saved_network(
    weights: Matrix, gamma: float, seed: int, link_percentile: float
) -> Partition:
    """Partition a ready network (filters, filters).

    Without a teacher nothing can be measured: only g0, the filters without a link, may be dropped,
    as A does, and its delta_val is left open.
    """
    strong = strong_links(weights, link_percentile)
    communities = find_communities(strong, gamma, seed)
    steps = [DropStep(communities=(), filters=0, accuracy_pct=None, delta_val_pct=None)]
    steps += [
        DropStep(communities=(c.id,), filters=len(c.filters), accuracy_pct=None, delta_val_pct=None)
        for c in communities
        if not c.linked
    ]
    return Partition(
        teacher=None,
        rule=None,
        gamma=gamma,
        seed=seed,
        filters=len(weights),
        images=None,
        modularity=modularity(strong, communities, gamma),
        communities=communities,
        drop_steps=tuple(steps),
    )


def drop_steps(activities: Activities, communities: Sequence[Community]) -> tuple[DropStep, ...]:
    """Remove communities one after the other: first g0, then the one that is missed least.

    P0 is g0 or a larger union (A, section 4.2), so that g0 goes first where there is one.  Missed
    least: the smallest change of validation accuracy against the whole teacher; among equals the
    largest community.  At least one community stays.
    """
    whole = activities.accuracy_pct()
    steps = [DropStep(communities=(), filters=0, accuracy_pct=whole, delta_val_pct=0.0)]
    left = sorted(communities, key=lambda community: community.linked)
    gone: tuple[Community, ...] = ()
    while len(left) > 1:
        candidates = left[:1] if not left[0].linked else left
        tried = [_step(activities, (*gone, candidate), whole) for candidate in candidates]
        best = min(range(len(tried)), key=lambda k: (_loss(tried[k]), -tried[k].filters, k))
        gone = (*gone, left.pop(best))
        steps.append(tried[best])
    return tuple(steps)


def _step(activities: Activities, gone: tuple[Community, ...], whole: float) -> DropStep:
    filters = [i for community in gone for i in community.filters]
    accuracy = activities.accuracy_pct(filters)
    return DropStep(
        communities=tuple(community.id for community in gone),
        filters=len(filters),
        accuracy_pct=accuracy,
        delta_val_pct=accuracy - whole,
    )


def _loss(step: DropStep) -> float:
    """Return |delta_val|, rounded so that an equal gain and loss compare equal."""
    assert step.delta_val_pct is not None  # noqa: S101  (always measured by _step)
    return round(abs(step.delta_val_pct), 9)
