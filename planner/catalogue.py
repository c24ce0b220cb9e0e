"""The catalogue: every loading that a kind of boards can run, students told apart by class only.

Communities of one size that are dropped together or not at all are of one class.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product

from planner.instance import Instance
from planner.loading import Loading, Task, loader
from planner.site import Site
from profiles.device import slowdown

MOST_TYPES = 100
"""Of more types of students than this there are too many loadings to list them."""


@dataclass(frozen=True, order=True, slots=True)
class StudentType:
    """How many communities of each class a student has, and its task."""

    communities: tuple[int, ...]
    task: Task


Row = tuple[StudentType, ...]
"""The students of one board, by type."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One loading of the boards of one kind, with the types of its students."""

    kind: int
    types: Row
    loading: Loading
    group0: str

    @property
    def key(self) -> tuple[StudentType, ...]:
        """The types, in an order of their own."""
        return tuple(sorted(self.types))

    @property
    def merges(self) -> bool:
        """Say whether a student has several communities."""
        return any(sum(each.communities) > 1 for each in self.types)

    def communities(self, place: int) -> int:
        """Return how many communities of a class the students have together."""
        return sum(each.communities[place] for each in self.types)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Classes of communities (ids, larger ones first), and all entries."""

    classes: tuple[tuple[int, ...], ...]
    entries: tuple[Entry, ...]


def classes_of(instance: Instance) -> tuple[tuple[int, ...], ...]:
    """Return the communities by class."""
    classes: dict[object, list[int]] = defaultdict(list)
    for community in instance.communities:
        taken = tuple(community in drop.communities for drop in instance.drops)
        classes[instance.sizes[community], taken].append(community)
    return tuple(map(tuple, classes.values()))


def catalogue(instance: Instance, most: int) -> Catalogue | None:
    """Return all loadings within the budgets; None where there are more than `most`."""
    classes = classes_of(instance)
    types = _types(instance, classes)
    if types is None:
        return None
    entries = tuple(islice(_entries(instance, classes, types), most + 1))
    return Catalogue(classes, entries) if len(entries) <= most else None


def _types(
    instance: Instance, classes: Sequence[Sequence[int]]
) -> dict[str, list[StudentType]] | None:
    """Return the types of students by the shape of their G0; None where there are too many."""
    sizes = [instance.sizes[ids[0]] for ids in classes]
    together = instance.spare + 1
    shares: list[tuple[int, ...]] = [()]
    for ids in classes:
        room = range(min(len(ids), together) + 1)
        shares = [(*share, n) for share, n in product(shares, room) if sum(share) + n <= together]
        if len(shares) > MOST_TYPES:
            return None
    types: dict[str, list[StudentType]] = defaultdict(list)
    for share in shares:
        filters = sum(n * size for n, size in zip(share, sizes, strict=True))
        for o, option in enumerate(instance.options if filters else ()):
            types[option.group0].append(StudentType(share, (o, filters)))
    return types if sum(map(len, types.values())) <= MOST_TYPES else None


def _entries(
    instance: Instance, classes: Sequence[Sequence[int]], types: Mapping[str, Sequence[StudentType]]
) -> Iterator[Entry]:
    """Yield every entry that keeps the budgets."""
    load = loader(instance)
    limits = [instance.rounds * len(ids) for ids in classes]
    for kind, (board, *_) in enumerate(instance.kinds):
        site = instance.sites[board]

        def loading(row: Row, board: int = board) -> Loading:
            return load(board, tuple(sorted(each.task for each in row)))

        # Where several are quicker than one, one that takes too long may not do so in company.
        hurries = slowdown(site.board.device, 2) < 1
        room = replace(site, latest=None, busy=None, energy=None) if hurries else site

        def keeps(row: Row, room: Site = room) -> bool:
            shares = zip(*(each.communities for each in row), strict=True)
            within = all(sum(share) <= limit for share, limit in zip(shares, limits, strict=True))
            return within and loading(row).excess(room) <= 0

        for group0, all_types in types.items():
            for row in _rows(all_types, keeps):
                if loading(row).excess(site) <= 0:
                    yield Entry(kind, row, loading(row), group0)


def _rows(
    types: Sequence[StudentType], keeps: Callable[[Row], bool], row: Row = (), start: int = 0
) -> Iterator[Row]:
    """Yield all rows of types that never go back, and that `keeps` lets grow."""
    for place in range(start, len(types)):
        longer = (*row, types[place])
        if keeps(longer):
            yield longer
            yield from _rows(types, keeps, longer, place)
