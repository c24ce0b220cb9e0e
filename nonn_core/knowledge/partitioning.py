"""From a teacher to its partition: activities, network, communities, and what may be dropped.

The order of work of arXiv:1907.11804, section 4.2; images are validation images only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from nonn_core.data.dataset import Dataset
from nonn_core.knowledge.activities import Activities, average_activities
from nonn_core.knowledge.communities import find_communities, modularity
from nonn_core.knowledge.dropping import Dropping, find_p0
from nonn_core.knowledge.filter_network import LinkOptions, filter_network, strong_links
from nonn_core.knowledge.link_kernel import Matrix
from nonn_core.learning.device import on_the_fastest_device
from nonn_core.partition import (
    EPSILON_PCT,
    RESTARTS,
    Community,
    DropStep,
    Partition,
    Rule,
    TeacherReference,
)
from nonn_core.progress import Progress, silent
from nonn_core.teacher import Teacher


@dataclass(frozen=True, slots=True)
class Knowledge:
    """A filter network (filters, filters), and the teacher it was measured on, if there is one."""

    weights: Matrix
    activities: Activities | None = None
    rule: Rule | None = None
    teacher: TeacherReference | None = None

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
        with on_the_fastest_device(teacher.network, dataset) as data:
            _, validation = data.split(teacher.seed)
            activities = average_activities(teacher, data, validation, progress)
        weights = filter_network(activities.average, rule, options, progress)
        measured = teacher.reference.model_copy(update={"fingerprint": teacher.fingerprint})
        return cls(weights, activities, rule, measured)

    @classmethod
    def of_network(cls, weights: Matrix, link_percentile: float) -> "Knowledge":
        """Take a ready network; raises PartitionError when no link is left."""
        return cls(strong_links(weights, link_percentile))


@dataclass(frozen=True, slots=True)
class GammaRow:
    """What one gamma finds; sizes in filters, modularity at this gamma and at 1.

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
        dropping = _unmeasured(found)
    else:
        dropping = find_p0(activities, found, epsilon_pct, progress)
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


def _unmeasured(communities: Sequence[Community]) -> Dropping:
    """Without a teacher only g0, the filters without a link, may be dropped, as A does."""
    steps = [DropStep(communities=(), filters=0, accuracy_pct=None, delta_val_pct=None)]
    steps += [
        DropStep(communities=(c.id,), filters=len(c.filters), accuracy_pct=None, delta_val_pct=None)
        for c in communities
        if not c.linked
    ]
    return Dropping(tuple(communities), tuple(steps), ())
