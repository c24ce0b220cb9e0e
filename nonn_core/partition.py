"""Partition of a teacher's filters: communities, and the filters of each student.

`Partition` is written by `nonn-plan partition` and read by the planner and by training.
Communities are merged into as many sets of filters as there are students, as
arXiv:1907.11804, section 4.2, does by hand; where there are more students, the filters are
reshuffled (section 5.1).  The planner does better than the merge: it decides merge, networks
and boards together and proves them.  Torch-free.
"""

from collections.abc import Iterable, Mapping
from itertools import accumulate, chain, pairwise
from typing import TYPE_CHECKING, Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from nonn_common.document import Document, Record
from nonn_common.errors import InputError
from nonn_core.networks.blueprint import Filters, ImageShapeText
from nonn_core.networks.family import NetworkName

if TYPE_CHECKING:
    import networkx as nx

TOP_FILTERS = 50
"""Filters of an image that get links, unless somebody says otherwise: the published figure."""
RESTARTS = 10
"""Community searches of which the best is kept, unless asked otherwise."""
EPSILON_PCT = 1.0
"""Bound on |delta_val| in percentage points, unless asked otherwise."""
CONFIDENCE_PCT = 95.0
"""One-sided confidence that a drop costs less than epsilon (`nonn_core.evidence`)."""

MOST_LINKS = 50_000
"""Links that a file holds; a network of more is left out of it."""

Rule = Literal["AH", "CA"]
SignedMaps = Literal["relu", "abs"]
"""Stand-in for a negative activation, as SiLU and GELU give: 0, or its size."""
Link = tuple[
    Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)], Annotated[float, Field(gt=0)]
]


_LOSS_BOUND = (
    "Upper bound on the loss of accuracy, in percentage points, with the partition's "
    "`confidence_pct`: the largest of this set of filters and of those tried before it; null where "
    "the measured delta_val alone decides."
)


class Community(Record):
    """A set of fconv filters that stays together."""

    id: int = Field(ge=0, description="Number of the community; 0 is the first in the file.")
    filters: Filters = Field(min_length=1, description="Filter ids in ascending order.")
    linked: bool = Field(
        description="False where none of the filters has a link in the filter network: g0 "
        "(arXiv:1907.11804, section 4.2), or what is left of it."
    )
    unneeded: bool = Field(
        default=False,
        description="True for single filters of P0 that the teacher does not miss, taken out of "
        "the communities in which they were found.",
    )


class DropStep(Record):
    """Effect on the teacher of removing some communities together."""

    communities: tuple[int, ...] = Field(description="Ids of all communities removed so far.")
    filters: int = Field(ge=0, description="How many filters that removes, |P0|.")
    accuracy_pct: float | None = Field(
        description="Teacher's validation accuracy without them, in percent; null if unmeasured."
    )
    delta_val_pct: float | None = Field(
        description="Change of validation accuracy in percentage points (delta_val, "
        "arXiv:1907.11804, Eq. 2); null if unmeasured."
    )
    loss_bound_pct: float | None = Field(
        default=None,
        description=_LOSS_BOUND,
    )

    @property
    def worst_pct(self) -> float | None:
        """Cost held against epsilon: |delta_val|, or the bound if larger; None if unknown."""
        if self.delta_val_pct is None:
            return None
        return max(abs(self.delta_val_pct), self.loss_bound_pct or 0.0)


class CurvePoint(Record):
    """One point of the delta_val curve: removed filters and their effect."""

    removed: Filters = Field(description="Filters removed here: g0, or a single filter.")
    filters: int = Field(ge=0, description="How many filters are removed so far.")
    accuracy_pct: float = Field(description="Teacher's validation accuracy now, in percent.")
    delta_val_pct: float = Field(
        description="Change against the whole teacher in percentage points, as in Eq. 2."
    )
    lost: int | None = Field(
        default=None,
        ge=0,
        description="Images that the whole teacher alone gets right; null if unknown.",
    )
    won: int | None = Field(
        default=None,
        ge=0,
        description="Images that only the teacher without these filters gets right; null if "
        "unknown.",
    )
    loss_bound_pct: float | None = Field(default=None, description=_LOSS_BOUND)

    @property
    def worst_pct(self) -> float:
        """Cost that is held against epsilon: |delta_val|, or the bound if larger."""
        return max(abs(self.delta_val_pct), self.loss_bound_pct or 0.0)


class TeacherReference(Record):
    """Teacher of a partition, as far as later steps need it."""

    path: str = Field(
        description="Teacher file (.safetensors, its card beside it; or .pt2), or "
        "package.module:callable."
    )
    network: NetworkName | None = Field(
        description="Network, e.g. wrn40-4; null for one that is of no family known here."
    )
    fingerprint: str | None = Field(
        default=None, description="Digest of its weights; null if unknown."
    )
    fconv: str = Field(description="Name of the layer whose output is fconv, after activation.")
    signed_maps: SignedMaps | None = Field(
        default=None,
        description="What stands for negative values of fconv: relu is 0, abs is their size; null "
        "where it has none.",
    )
    data: str = Field(description="Data set whose validation images were used.")
    image: ImageShapeText = Field(description="Image shape CHANNELSxHEIGHTxWIDTH.")
    classes: int = Field(gt=1, le=1_000_000, description="Number of classes.")
    params: int = Field(ge=0, description="Number of parameters.")
    macs: int | None = Field(
        ge=0, description="Multiply-accumulates per image; null where they cannot be counted."
    )
    peak_elements: int | None = Field(
        ge=0,
        description="Most activation elements alive at once for one image; null where the network "
        "cannot be traced.",
    )


class Partition(Document):
    """Communities of a teacher's fconv filters, and the nested unions that were tried as P0.

    The first drop step removes nothing; each further one removes one community more.  P0 is the
    largest one that costs less than epsilon (`DropStep.worst_pct`).
    """

    teacher: TeacherReference | None = Field(
        description="Teacher this was measured on; null when a ready network was given."
    )
    rule: Rule | None = Field(
        description="How links are weighted: activation hubs (AH) or co-activation (CA), "
        "arXiv:1907.11804, section 4.1; null when a ready network was given."
    )
    gamma: float = Field(gt=0, description="Gamma of Eq. 5, the reciprocal of `resolution`.")
    seed: int = Field(ge=0, description="Seed of the community search.")
    restarts: int | None = Field(
        default=None, ge=1, description="Searches of which the best was kept; null if unknown."
    )
    filters: int = Field(gt=0, le=1_000_000, description="Number of filters of fconv.")
    images: int | None = Field(description="Validation images behind the network; null if unknown.")
    modularity: float = Field(
        description="Modularity (Eq. 5) of the communities as found, before unneeded filters were "
        "taken out of them."
    )
    epsilon_pct: float | None = Field(
        default=None,
        ge=0,
        description="Bound on |delta_val| in percentage points under which P0 was sought, 0 for "
        "none; null if nothing was measured.",
    )
    confidence_pct: float | None = Field(
        default=None,
        gt=50,
        lt=100,
        description="One-sided confidence in percent that dropping P0 costs less than epsilon; "
        "null where the measured delta_val alone decides, as in arXiv:1907.11804.",
    )
    fewest_class_images: int | None = Field(
        default=None, ge=0, description="Validation images of the rarest class; null if unknown."
    )
    estimated_filters: int | None = Field(
        default=None,
        ge=0,
        description="Filters of the largest set of the curve whose measured |delta_val| is below "
        "epsilon; null if unknown.",
    )
    images_needed: int | None = Field(
        default=None,
        ge=1,
        description="Validation images that it would take at least to tell, with a confidence of "
        f"{CONFIDENCE_PCT:g} %, that dropping these filters costs less than epsilon; null if "
        "there are enough, or if unknown.",
    )
    communities: tuple[Community, ...] = Field(min_length=1, description="Disjoint, covering all.")
    drop_steps: tuple[DropStep, ...] = Field(min_length=1, description="Nested candidates for P0.")
    curve: tuple[CurvePoint, ...] = Field(
        default=(),
        description="The whole delta_val curve, beginning with nothing removed: g0 where it may go "
        "under epsilon, then one filter more at each point; empty if nothing was measured.",
    )
    links: tuple[Link, ...] = Field(
        default=(),
        description="Links of the filter network that were kept: two filters, the lower one first, "
        f"and the weight; empty if unknown or more than {MOST_LINKS}.",
    )

    @model_validator(mode="after")
    def _communities_are_a_partition(self) -> Self:
        if [community.id for community in self.communities] != list(range(len(self.communities))):
            raise ValueError("community ids must be 0, 1, 2, ... in order")
        if any(list(one.filters) != sorted(one.filters) for one in self.communities):
            raise ValueError("the filters of a community must be in ascending order")
        # Counted first, so that a wrong number of filters costs no memory.
        count = sum(len(one.filters) for one in self.communities)
        members = sorted(chain.from_iterable(one.filters for one in self.communities))
        if count != self.filters or members != list(range(self.filters)):
            raise ValueError(
                f"communities must hold each of the filters 0..{self.filters - 1} exactly once"
            )
        return self

    @model_validator(mode="after")
    def _drop_steps_are_nested(self) -> Self:
        if self.drop_steps[0].communities:
            raise ValueError("the first drop step must remove nothing")
        dropped: set[int] = set()
        for position, step in enumerate(self.drop_steps):
            if not dropped <= set(step.communities):
                raise ValueError("each drop step must contain the one before")
            dropped = set(step.communities)
            if not len(dropped) == len(step.communities) == position:
                raise ValueError("each drop step must remove exactly one community more")
            if not dropped <= set(range(len(self.communities))):
                raise ValueError("a drop step names a community that does not exist")
            if step.filters != sum(len(self.communities[c].filters) for c in dropped):
                raise ValueError("a drop step's `filters` must count what its communities hold")
        return self

    @model_validator(mode="after")
    def _the_curve_removes_each_filter_once(self) -> Self:
        removed: set[int] = set()
        for position, point in enumerate(self.curve):
            if bool(point.removed) != (position > 0):
                raise ValueError("the curve must begin with nothing removed, and go on from there")
            count = len(removed) + len(point.removed)
            removed.update(point.removed)
            if not len(removed) == count == point.filters:
                raise ValueError("the curve must remove each filter once and count what it removed")
        if removed and max(removed) >= self.filters:
            raise ValueError("the curve removes a filter that does not exist")
        return self

    @model_validator(mode="after")
    def _links_join_filters(self) -> Self:
        if any(not one < other < self.filters for one, other, _ in self.links):
            raise ValueError("a link must name two filters that exist, the lower one first")
        return self

    @property
    def for_planning(self) -> Self:
        """Copy without the curve and the links, for documents that need P0 and communities."""
        return self.model_copy(update={"curve": (), "links": ()})

    def graph(self, links: Iterable[Link] | None = None) -> "nx.Graph[int]":
        """Build the filter network: a node for each filter, its community, and weighted links.

        `links` are those of the file, unless others are given.
        """
        import networkx as nx

        graph: nx.Graph[int] = nx.Graph(gamma=self.gamma, modularity=self.modularity)
        for one in self.communities:
            graph.add_nodes_from(
                one.filters, community=one.id, linked=one.linked, unneeded=one.unneeded
            )
        graph.add_weighted_edges_from(self.links if links is None else links)
        return graph

    @property
    def bound_pct(self) -> float:
        """The bound on |delta_val| that P0 was sought under, or else the usual one."""
        return EPSILON_PCT if self.epsilon_pct is None else self.epsilon_pct

    def p0(self, epsilon_pct: float) -> DropStep | None:
        """Return the largest drop step that costs less than epsilon; None if unmeasured.

        Dropping nothing is always allowed.
        """
        below = [
            step
            for step in self.drop_steps
            if step.worst_pct is not None and (step.worst_pct < epsilon_pct or not step.communities)
        ]
        return below[-1] if below else None


def merge_communities(
    partition: Partition, students: int, epsilon_pct: float
) -> tuple[Filters, ...]:
    """Drop communities that the teacher does not miss, merge the rest.

    As in arXiv:1907.11804, section 4.2.  P0 is the largest step that costs less than `epsilon_pct`
    points of validation accuracy and leaves a community for each student.
    `largest_first` keeps |P1| ~ |P2| ~ ... ~ |Pk|.  Raises InputError when there are fewer
    communities than students.
    """
    communities = max(
        (
            _kept(partition, step)
            for step in partition.drop_steps
            if _harmless(step, epsilon_pct) and len(_kept(partition, step)) >= students
        ),
        key=lambda kept: -sum(len(one.filters) for one in kept),
        default=None,
    )
    if communities is None:
        raise InputError(
            "fewer communities than students",
            found=len(partition.communities),
            allowed=f"{students} or more",
            fix="partition the teacher with a smaller gamma or link percentile",
        )
    filters = {one.id: one.filters for one in communities}
    sizes = {number: len(each) for number, each in filters.items()}
    return tuple(
        tuple(sorted(chain.from_iterable(filters[number] for number in each)))
        for each in largest_first(sizes, students)
    )


def largest_first(sizes: Mapping[int, int], students: int) -> tuple[tuple[int, ...], ...]:
    """Merge communities, given as id and filters, into a partition per student.

    As in arXiv:1907.11804, section 4.2.  Largest first, each goes to the partition that is smallest
    so far, the first of equal ones: {12, 14, 25, 30} into two gives {30, 12} and {25, 14}.
    """
    partitions: list[list[int]] = [[] for _ in range(students)]
    for number in sorted(sizes, key=lambda one: (-sizes[one], one)):
        min(partitions, key=lambda each: sum(sizes[one] for one in each)).append(number)
    return tuple(tuple(each) for each in partitions)


def _kept(partition: Partition, step: DropStep) -> list[Community]:
    return [one for one in partition.communities if one.id not in step.communities]


def _harmless(step: DropStep, epsilon_pct: float) -> bool:
    """Say whether a step drops nothing, or was measured to change little."""
    return not step.communities or (step.worst_pct is not None and step.worst_pct < epsilon_pct)


def reshuffle_filters(
    partitions: tuple[Filters, ...], students: int, seed: int
) -> tuple[Filters, ...]:
    """Return the filters that each of `students` students mimics.

    The first ones mimic the partitions as they are.  Each further group of as many students gets
    the filters of all partitions together, shuffled and cut into the same sizes, so that it knows
    as much as the first group, differently divided; the last group may lack its last students.

    Raises InputError when a filter lies in two partitions or there are fewer students than these.
    """
    if students < len(partitions):
        raise InputError(
            "fewer students than there are partitions of the teacher's filters",
            found=students,
            allowed=f"{len(partitions)} or more",
        )
    known = list(chain.from_iterable(partitions))
    if len(set(known)) < len(known):
        raise InputError("filters can be reshuffled only where no two students share one")
    generator = np.random.default_rng(seed)
    cuts = [0, *accumulate(map(len, partitions))]
    found = list(partitions)
    while len(found) < students:
        order = generator.permutation(known).tolist()
        found += [tuple(sorted(order[start:end])) for start, end in pairwise(cuts)]
    return tuple(found[:students])
