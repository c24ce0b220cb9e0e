"""Places of boards, one for each operating point, by kind; which may work together."""

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from functools import cached_property
from itertools import chain
from math import inf

from planner.data.board_capacity import BoardCapacity
from planner.data.modes import DedicatedStem
from planner.reliability.robustness import FailureScenarios
from profiles.operating_point import replaces


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
    counts_energy: bool
    counts_power: bool

    @property
    @abstractmethod
    def most_students(self) -> int:
        """Most students, those of further rounds included."""

    @cached_property
    @abstractmethod
    def least_macs(self) -> int:
        """MACs of the smallest student."""

    @cached_property
    def board_classes(self) -> tuple[tuple[int, ...], ...]:
        """Places of the boards that matter to students, by kind, in the fleet's order.

        Of boards that are alike, no plan needs more than there can be students; and none needs a
        point at which budgets let nothing run, or nothing that another point of the board does not
        run as well.
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
        """Whether nothing needs to run at a place, as its board has another one.

        Of places that are as good as each other, one has most room under its power limit: the same
        one is kept where other limits are lifted.
        """
        others = self.places_of[self.site(place)] if self.sites else ()
        return any(
            self._is_as_good(other, place)
            and (self._rank(other) < self._rank(place) or not self._is_as_good(place, other))
            for other in others
            if other != place
        )

    def _rank(self, place: int) -> tuple[float, int]:
        room = self.capacities[place].power_macs
        return (-inf if room is None else -room), place

    def _is_as_good(self, one: int, other: int) -> bool:
        """Whether what runs at another place may run at this one instead."""
        mine, theirs = self.capacities[one], self.capacities[other]
        if theirs.most_macs < self.least_macs:
            return True
        devices = mine.board.device, theirs.board.device
        counts_energy = self.counts_energy or mine.energy is not None or mine.cycle is not None
        return (
            mine.board.link == theirs.board.link
            and mine.has_room_of(theirs)
            and replaces(*devices, counts_energy=counts_energy, counts_power=self.counts_power)
        )

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

    @cached_property
    def choices_of_kinds(self) -> tuple[tuple[tuple[int, ...], int], ...]:
        """Kinds that boards choose a point from, in order; how many boards do."""
        told = {kind for kinds, _ in self.rivals for kind in kinds}
        alone = (((k,), len(own)) for k, own in enumerate(self.board_classes) if k not in told)
        return tuple(sorted((*alone, *self.rivals)))

    @cached_property
    def points_of(self) -> tuple[tuple[int, ...], ...]:
        """Kinds that boards of each kind choose from, this one among them."""
        of = {kind: kinds for kinds, _ in self.choices_of_kinds for kind in kinds}
        return tuple(of[kind] for kind in range(len(self.board_classes)))

    @cached_property
    def kind_of(self) -> dict[int, int]:
        """Kind of each place that matters."""
        return {b: k for k, places in enumerate(self.board_classes) for b in places}

    def places_to_take(self, used: Collection[int]) -> tuple[int, ...]:
        """Places that a student may go to where these work: no board works at two.

        Where energy does not count, the first free point stands for the others.
        """
        if not self.rivals:
            return self.boards
        counted, most = Counter(map(self.kind_of.get, used)), dict(self.choices_of_kinds)
        found: list[int] = []
        told: set[tuple[int, ...]] = set()
        for place in self.boards:
            kinds = self.points_of[self.kind_of[place]]
            if len(kinds) > 1 and place not in used:
                if sum(counted[k] for k in kinds) >= most[kinds] or kinds in told:
                    continue
                if not self.counts_energy:
                    told.add(kinds)
            found.append(place)
        return tuple(found)

    def free_points(self, place: int, used: Collection[int]) -> list[int]:
        """A free place at each other point of the board of a place."""
        kind = self.kind_of.get(place)
        kinds = () if kind is None else (k for k in self.points_of[kind] if k != kind)
        free = (next((b for b in self.board_classes[k] if b not in used), None) for k in kinds)
        return [b for b in free if b is not None]

    @property
    def together(self) -> tuple[tuple[tuple[int, ...], int], ...]:
        """Kinds of which so many boards may work together: each by itself, and rivals."""
        alone = (((kind,), len(places)) for kind, places in enumerate(self.board_classes))
        return (*alone, *self.rivals)

    def points_too_many(self, used: Iterable[int]) -> int:
        """Return how many of these places work beyond one for each board."""
        if not self.rivals:
            return 0
        counted = Counter(map(self._rivals_of.get, used))
        return sum(max(0, counted[own] - most) for own, (_, most) in enumerate(self.rivals))

    @cached_property
    def _rivals_of(self) -> dict[int, int]:
        """Number in `rivals` of each place that has any."""
        numbers = {kind: own for own, (kinds, _) in enumerate(self.rivals) for kind in kinds}
        return {b: numbers[kind] for b, kind in self.kind_of.items() if kind in numbers}

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
