"""Merges: what each student mimics and what nobody does, before anything has a board."""

from collections.abc import Iterator
from dataclasses import dataclass

from nonn_core.merge import largest_first
from planner.instance import Instance
from planner.option import DropOption


@dataclass(frozen=True, slots=True)
class Merge:
    """The communities of each student, most filters first, and those that are dropped."""

    shares: tuple[tuple[int, ...], ...]
    dropped: tuple[int, ...]


def merges(instance: Instance, most: int) -> Iterator[Merge]:
    """Merge as the paper does (A, section 4.2), for `most` students down to as few as allowed."""
    for students in student_counts(instance, most):
        drop = largest_drop(instance, students)
        kept = kept_communities(instance, drop)
        shares = largest_first({c: instance.sizes[c] for c in kept}, students)
        by_size = sorted(shares, key=lambda share: -sum(instance.sizes[c] for c in share))
        yield Merge(tuple(by_size), tuple(sorted(drop.communities)))


def student_counts(instance: Instance, most: int) -> range:
    """Return how many students there may be, up to `most`, more first; empty if none may."""
    return range(min(instance.slots, most), instance.min_students - 1, -1)


def largest_drop(instance: Instance, students: int) -> DropOption:
    """Return the largest P0 that leaves each student a community; dropping nothing always does."""
    return max(
        (drop for drop in instance.drops if len(kept_communities(instance, drop)) >= students),
        key=lambda drop: drop.filters,
    )


def kept_communities(instance: Instance, drop: DropOption) -> tuple[int, ...]:
    """Return the ids of the communities that are not dropped."""
    return tuple(c for c in range(len(instance.sizes)) if c not in drop.communities)
