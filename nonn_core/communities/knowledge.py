"""Knowledge of a teacher: measured, divided into communities, and what may be dropped.

The order of work of arXiv:1907.11804, section 4.2; images are validation images only.
"""

from dataclasses import dataclass

import numpy as np

from nonn_common import Progress, silent
from nonn_core.communities.detection import find_communities, modularity
from nonn_core.communities.filter_network import (
    Activities,
    LinkOptions,
    Matrix,
    average_activities,
    filter_network,
    strong_links,
)
from nonn_core.communities.removal import find_p0, unmeasured_drop
from nonn_core.data.dataset import Dataset
from nonn_core.distillation.accelerator import on_fastest_device
from nonn_core.partition import (
    CONFIDENCE_PCT,
    EPSILON_PCT,
    MOST_LINKS,
    RESTARTS,
    Link,
    Partition,
    Rule,
    TeacherReference,
)
from nonn_core.teacher.teacher import Teacher


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
            _, validation = teacher.split(data)
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
    confidence_pct: float | None = CONFIDENCE_PCT,
) -> tuple[Partition, GammaRow]:
    """Split the filters into communities, and find P0 under epsilon where it can be measured.

    As `find_p0` does it.
    """
    weights, activities = knowledge.weights, knowledge.activities
    found = find_communities(weights, gamma, seed, restarts)
    value = modularity(weights, found, gamma)
    if activities is None:
        dropping = unmeasured_drop(found)
    else:
        dropping = find_p0(activities, found, epsilon_pct, progress, confidence_pct)
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
        confidence_pct=None if activities is None else confidence_pct,
        fewest_class_images=None if activities is None else activities.fewest_class_images,
        estimated_filters=dropping.estimated_filters,
        images_needed=dropping.images_needed,
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
    confidence_pct: float | None = CONFIDENCE_PCT,
) -> Partition:
    """Partition a teacher's fconv filters; raises what `Knowledge.of_teacher` raises."""
    knowledge = Knowledge.of_teacher(teacher, dataset, rule, options, progress)
    return partition(
        knowledge,
        gamma,
        seed,
        epsilon_pct=epsilon_pct,
        progress=progress,
        confidence_pct=confidence_pct,
    )[0]


def signed_maps_warning(teacher: TeacherReference, negative_pct: float | None = None) -> str:
    """Sentence on the stand-in for negative values of fconv."""
    share = "" if negative_pct is None else f", {negative_pct:.2g} % of its activity"
    done = "their size" if teacher.signed_maps == "abs" else "0"
    option = "" if negative_pct is None else " (--signed-maps)"
    return f"fconv {teacher.fconv} has negative values{share}: {done} stands for them{option}"
