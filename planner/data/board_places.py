"""Places of boards, one for each operating point, by kind; which may work together."""

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import cached_property
from itertools import chain

from planner.data.board_capacity import BoardCapacity
from planner.data.modes import DedicatedStem
from planner.reliability.robustness import FailureScenarios


class BoardPlaces(ABC):
    """Boards as a solver takes them: places of unlike kinds, of which boards have several.

    A place is a board at one operating point; of the places of a board one at most works.  Alike
    boards are counted: of all their places at most so many work as there are boards.
    """

    capacities: tuple[BoardCapacity, ...]
    max_copies: int
    outages: tuple[frozenset[int], ...]
    scenarios: FailureScenarios | None
    stem: DedicatedStem | None
    sites: tuple[int, ...]

    @property
    @abstractmethod
    def most_students(self) -> int:
        """Most students, those of further rounds included."""

    @cached_property
    def board_classes(self) -> tuple[tuple[int, ...], ...]:
        """Places of the boards that matter to students, by kind, in the fleet's order.

        Of boards that are alike, no plan needs more than there can be students; and none needs a
        point at which a power limit lets nothing run, where the board has another one.
        """
        board_classes: dict[object, list[int]] = defaultdict(list)
        for place in range(len(self.capacities)):
            if self._is_shut(place):
                continue
            if self.stem is None or self.site(place) != self.site(self.stem.board):
                board_classes[self.board_class(place)].append(place)
        return tuple(
            tuple(places[: self.most_students * self.max_copies])
            for places in board_classes.values()
        )

    def _is_shut(self, place: int) -> bool:
        """Whether nothing may run at a place, and something at another one of its board."""
        others = self.places_of[self.site(place)] if self.sites else ()
        limits = [self.capacities[other].power_macs for other in others]
        return self.capacities[place].power_macs == 0 and any(limit != 0 for limit in limits)

    def board_class(self, place: int) -> int:
        """Return the number of a board's kind; boards of one kind are interchangeable."""
        return self._numbers[place]

    def site(self, place: int) -> int:
        """Return the board in the fleet that a place is a point of."""
        return self.sites[place] if self.sites else place

    @cached_property
    def places_of(self) -> tuple[tuple[int, ...], ...]:
        """Places of each board in the fleet, one for each of its operating points."""
        found: dict[int, list[int]] = defaultdict(list)
        for place in range(len(self.capacities)):
            found[self.site(place)].append(place)
        return tuple(tuple(found[site]) for site in sorted(found))

    def site_class(self, site: int) -> int:
        """Return the number of the kind that the board's first point is of."""
        return self.board_class(self.places_of[site][0])

    @cached_property
    def rivals(self) -> tuple[tuple[tuple[int, ...], int], ...]:
        """Kinds that are points of the same boards; how many of these may work.

        Kinds are places in `board_classes`; boards of one point have none.
        """
        kinds = {self.board_class(places[0]): k for k, places in enumerate(self.board_classes)}
        alone = None if self.stem is None else self.site(self.stem.board)
        boards: Counter[tuple[int, ...]] = Counter()
        for site, places in enumerate(self.places_of):
            open_places = [place for place in places if not self._is_shut(place)]
            if len(open_places) > 1 and site != alone:
                boards[tuple(kinds[self.board_class(place)] for place in open_places)] += 1
        return tuple(boards.items())

    @property
    def together(self) -> tuple[tuple[tuple[int, ...], int], ...]:
        """Kinds of which so many boards may work together: each by itself, and rivals."""
        alone = (((kind,), len(places)) for kind, places in enumerate(self.board_classes))
        return (*alone, *self.rivals)

    def points_too_many(self, used: Iterable[int]) -> int:
        """Return how many of these places work beyond one for each board."""
        if not self.rivals:
            return 0
        counted = Counter(self.board_class(place) for place in used)
        kinds = [self.board_class(places[0]) for places in self.board_classes]
        return sum(max(0, sum(counted[kinds[k]] for k in own) - most) for own, most in self.rivals)

    @property
    def most_boards(self) -> int:
        """Most boards that can have students at once."""
        spare = sum(
            max(0, sum(len(self.board_classes[kind]) for kind in kinds) - boards)
            for kinds, boards in self.rivals
        )
        return len(self.boards) - spare

    @cached_property
    def _numbers(self) -> tuple[int, ...]:
        """The kind of each board, by what it can do and what takes it down."""
        numbers: dict[object, int] = {}
        found = []
        for place, capacity in enumerate(self.capacities):
            taking = frozenset(n for n, taken in enumerate(self.outages) if place in taken)
            alone = self.scenarios.probability_alone(place) if self.scenarios else 0.0
            points = self.places_of[self.site(place)] if self.sites else (place,)
            others = tuple(self.capacities[b].class_key for b in points) if points[1:] else ()
            key = (capacity.class_key, others, taking, alone)
            found.append(numbers.setdefault(key, len(numbers)))
        return tuple(found)

    @cached_property
    def boards(self) -> tuple[int, ...]:
        """Places of the boards that matter, in the fleet's order."""
        return tuple(sorted(chain.from_iterable(self.board_classes)))

    @cached_property
    def shared_media(self) -> dict[str, tuple[int, ...]]:
        """Places of the boards that matter, for each medium that several of them share."""
        media: dict[str, list[int]] = defaultdict(list)
        for place in self.boards:
            link = self.capacities[place].board.link
            if link.shared:
                media[link.name].append(place)
        return {name: tuple(places) for name, places in media.items() if len(places) > 1}
