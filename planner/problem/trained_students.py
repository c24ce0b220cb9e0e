"""Trained students, of which a plan decides alone which of them run, and where.

Loads no solver.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from nonn_common.document import Record
from nonn_common.errors import InputError
from nonn_core.networks.blueprint import Filters
from nonn_core.networks.family import NetworkName
from nonn_core.networks.network_cost import Precision
from nonn_core.partition import Community, DropStep, Partition
from planner.problem.goals import Objective

if TYPE_CHECKING:
    from planner.problem.problem import Problem

SETTLED: frozenset[Objective] = frozenset(
    ("accuracy", "capacity", "imbalance", "dropped", "students", "precision")
)
"""Settled objectives: training decides them, and no placement of its students changes them."""


class TrainedStudent(Record):
    """A student as it was trained, without boards."""

    name: str = Field(min_length=1, description="Name of the student, as in the bundle.")
    network: NetworkName = Field(description="Its network.")
    precision: Precision = Field(description="Storage of its weights and activations.")
    communities: tuple[int, ...] = Field(min_length=1, description="Ids of its communities.")
    round: int = Field(default=1, ge=1, description="Round in which its filters were divided.")
    filters: Filters = Field(min_length=1, description="Ids of the fconv filters it mimics.")

    @classmethod
    def of(cls, planned: Mapping[str, Any]) -> Self:
        """Take from a planned student all but its boards and costs."""
        return cls.model_validate({field: planned[field] for field in cls.model_fields})


class TrainedStudents(Record):
    """Students of one training, whether they have a board or not."""

    students: tuple[TrainedStudent, ...] = Field(min_length=1, description="All of them, in order.")
    params: int = Field(gt=0, description="Parameters of all, as the plan counted that they have.")
    macs: int = Field(gt=0, description="MACs of one image of all, counted alike.")

    @model_validator(mode="after")
    def _have_names_of_their_own(self) -> Self:
        counts = Counter(one.name for one in self.students)
        if twice := [name for name, count in counts.items() if count > 1]:
            raise ValueError(f"each trained student is named once; repeated: {', '.join(twice)}")
        return self

    @property
    def communities(self) -> frozenset[int]:
        """Communities that any of them mimics."""
        return frozenset(c for one in self.students for c in one.communities)

    def changed(self, students: Iterable[Mapping[str, Any]]) -> Iterator[str]:
        """Sentences on planned students that are not as one of these was trained."""
        known = {one.name: one for one in self.students}
        for planned in students:
            student = TrainedStudent.of(planned)
            if student.name not in known:
                yield f"{student.name} is not among the trained students: {', '.join(known)}"
                continue
            for field in TrainedStudent.model_fields:
                if getattr(student, field) != getattr(known[student.name], field):
                    yield f"{student.name}: {field} is not what it was trained with"


def placement_question(problem: "Problem", names: Collection[str]) -> "Problem":
    """The question where these trained students run, each being a community.

    Communities have as many filters as the students, in their order; nothing is dropped, and each
    student is trained for its own community.  A question without trained students stays itself.
    """
    if problem.trained is None:
        return problem
    kept = [one for one in problem.trained.students if one.name in names]
    ends = [0, *accumulate(len(one.filters) for one in kept)]
    communities = tuple(
        Community(id=place, filters=tuple(range(*pair)), linked=True)
        for place, pair in enumerate(pairwise(ends))
    )
    own = tuple(
        one.model_copy(update={"communities": (place.id,), "round": 1, "filters": place.filters})
        for one, place in zip(kept, communities, strict=True)
    )
    nothing = DropStep(communities=(), filters=0, accuracy_pct=None, delta_val_pct=None)
    partition = Partition(
        teacher=None,
        rule=None,
        gamma=1.0,
        seed=0,
        filters=ends[-1],
        images=None,
        modularity=0.0,
        communities=communities,
        drop_steps=(nothing,),
    )
    return problem.model_copy(
        update={
            "partition": partition,
            "networks": tuple(dict.fromkeys(one.network for one in kept)),
            "precisions": tuple(dict.fromkeys(one.precision for one in kept)),
            "min_students": len(kept),
            "max_students": len(kept),
            "reuse": False,
            "trained": problem.trained.model_copy(update={"students": own}),
        }
    )


def refuse_trained(problem: "Problem") -> None:
    """Refuse to ask for other students than those that are trained; raises InputError."""
    if problem.trained is not None:
        raise InputError(
            "the students of this plan are trained, and only their boards can be asked for",
            found=", ".join(one.name for one in problem.trained.students),
            fix="use `nonn-plan replan`, or the plan that they were trained for",
        )
