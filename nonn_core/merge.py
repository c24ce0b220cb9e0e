"""Communities merged into as many partitions as there are students, as A does by hand.  Torch-free.

The planner does better: it decides merge, networks and boards together and proves them.
"""

from itertools import chain

from nonn_core.partition import Community, DropStep, Filters, Partition
from profiles.errors import InputError


def merged(partition: Partition, students: int, epsilon_pct: float) -> tuple[Filters, ...]:
    """Drop what costs the teacher less than `epsilon_pct` points, merge the rest (A, section 4.2).

    P0 is the largest step that was measured to change validation accuracy by less than epsilon and
    leaves a community for each student.  Communities go, largest first, each to the partition that
    is smallest so far, which keeps |P1| ~ |P2| ~ ... ~ |Pk|.  Raises InputError when there are
    fewer communities than students.
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
    partitions: list[list[Community]] = [[] for _ in range(students)]
    for community in sorted(communities, key=lambda one: (-len(one.filters), one.id)):
        min(partitions, key=_size).append(community)
    return tuple(tuple(sorted(chain.from_iterable(_filters(p)))) for p in partitions)


def _kept(partition: Partition, step: DropStep) -> list[Community]:
    return [one for one in partition.communities if one.id not in step.communities]


def _harmless(step: DropStep, epsilon_pct: float) -> bool:
    """Say whether a step drops nothing, or was measured to change little."""
    if not step.communities:
        return True
    return step.delta_val_pct is not None and abs(step.delta_val_pct) < epsilon_pct


def _size(partition: list[Community]) -> int:
    return sum(len(one.filters) for one in partition)


def _filters(partition: list[Community]) -> list[Filters]:
    return [one.filters for one in partition]
