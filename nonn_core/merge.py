"""Communities merged into as many partitions as there are students, as A does by hand.  Torch-free.

The planner does better: it decides merge, networks and boards together and proves them.
"""

from collections.abc import Mapping
from itertools import chain

from nonn_core.partition import Community, DropStep, Filters, Partition
from profiles.errors import InputError


def merged(partition: Partition, students: int, epsilon_pct: float) -> tuple[Filters, ...]:
    """Drop what costs the teacher less than `epsilon_pct` points, merge the rest (A, section 4.2).

    P0 is the largest step that was measured to change validation accuracy by less than epsilon and
    leaves a community for each student.  `largest_first` keeps |P1| ~ |P2| ~ ... ~ |Pk|.  Raises
    InputError when there are fewer communities than students.
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
    """Merge communities, given as id and filters, into a partition per student (A, section 4.2).

    Largest first, each goes to the partition that is smallest so far, the first of equal ones:
    {12, 14, 25, 30} into two gives {30, 12} and {25, 14}.
    """
    partitions: list[list[int]] = [[] for _ in range(students)]
    for number in sorted(sizes, key=lambda one: (-sizes[one], one)):
        min(partitions, key=lambda each: sum(sizes[one] for one in each)).append(number)
    return tuple(tuple(each) for each in partitions)


def _kept(partition: Partition, step: DropStep) -> list[Community]:
    return [one for one in partition.communities if one.id not in step.communities]


def _harmless(step: DropStep, epsilon_pct: float) -> bool:
    """Say whether a step drops nothing, or was measured to change little."""
    if not step.communities:
        return True
    return step.delta_val_pct is not None and abs(step.delta_val_pct) < epsilon_pct
