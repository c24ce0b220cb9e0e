"""An instance: the question in numbers, with profiles resolved and costs in closed form."""

from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import chain

from nonn_core.costs import StudentCostLine, student_cost_line
from nonn_core.family import NetworkSpec
from nonn_core.partition import DropStep
from planner.question import Question
from planner.scaling import (
    UNITS_PER_MS,
    busy_units,
    delay_units,
    elements_within,
    reply_units,
    send_units,
    up,
)
from profiles.device import DeviceProfile
from profiles.fleet import Board, resolve
from profiles.link import LinkProfile
from simulator.workload import join_ms

Head = tuple[int, int]
"""Parameters and MACs that one more filter costs a student."""


@dataclass(frozen=True, slots=True)
class Option:
    """A network that a student may be; options of one `head` cost the same per filter."""

    name: str
    group0: str
    head: Head
    line: StudentCostLine

    @classmethod
    def of(cls, spec: NetworkSpec, line: StudentCostLine) -> "Option":
        """Describe a network whose student costs `line`."""
        head = (line.params_per_filter, line.macs_per_filter)
        return cls(str(spec), spec.group0, head, line)

    def elements(self, filters: int) -> int:
        """Return parameters plus peak activations, in elements."""
        cost = self.line.at(filters)
        return cost.params + cost.peak_elements


@dataclass(frozen=True, slots=True)
class Site:
    """A board with what one plan may put on it; None is no limit.

    `latest` bounds the time that computing and replying take, in solver units.
    """

    board: Board
    elements: int | None
    macs: int | None
    latest: int | None = None

    @property
    def kind(self) -> tuple[DeviceProfile, LinkProfile, int | None, int | None]:
        """What makes boards interchangeable: device, link and budgets."""
        return self.board.device, self.board.link, self.elements, self.macs

    def fits(self, option: Option, filters: int) -> bool:
        """Say whether a student of this network and size fits on this board, alone or not."""
        if self.elements is not None and option.elements(filters) > self.elements:
            return False
        if self.macs is not None and option.line.at(filters).macs > self.macs:
            return False
        return self.latest is None or self._tail(option, filters) <= self.latest

    def _tail(self, option: Option, filters: int) -> int:
        """Return the least time that computing and replying take, in solver units."""
        device = self.board.device
        busy = (busy_units(device, option.line, several).at(filters) for several in (False, True))
        return min(busy) + filters * reply_units(self.board)

    def most_filters(self, option: Option, at_most: int) -> int:
        """Return the most filters, up to `at_most`, that such a student may mimic here; -1: none.

        Costs grow with filters, so that bisection finds it.
        """
        low, high = -1, at_most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.fits(option, middle) else (low, middle - 1)
        return low


@dataclass(frozen=True, slots=True)
class DropOption:
    """A union of communities that may be dropped as P0."""

    communities: frozenset[int]
    filters: int
    delta_val_pct: float


@dataclass(frozen=True, slots=True)
class Instance:
    """Boards, networks, communities (by size) and drop steps; all that the model reads."""

    host: DeviceProfile
    sites: tuple[Site, ...]
    options: tuple[Option, ...]
    sizes: tuple[int, ...]
    drops: tuple[DropOption, ...]
    min_students: int
    max_students: int
    image_bytes: int

    @property
    def communities(self) -> tuple[int, ...]:
        """Ids of the communities, larger ones first."""
        return tuple(sorted(range(len(self.sizes)), key=lambda c: -self.sizes[c]))

    @property
    def slots(self) -> int:
        """Most students that can have a community each."""
        kept = len(self.sizes) - min(len(drop.communities) for drop in self.drops)
        return min(self.max_students, kept)

    @property
    def spare(self) -> int:
        """Communities that are left over where each student has one, at most."""
        kept = len(self.sizes) - min(len(drop.communities) for drop in self.drops)
        return kept - self.min_students

    def sizes_of_slot(self, slot: int) -> tuple[int, int]:
        """Return the fewest and the most filters of a student, students going by first community.

        Of the communities, larger ones first, those before a student's first one belong to earlier
        students, more than one to some of them, or are dropped.
        """
        sizes = sorted(self.sizes, reverse=True)
        last = min(slot + len(sizes) - self.min_students, len(sizes) - 1)
        return sizes[last], sum(sizes[slot : slot + 1 + max(0, self.spare)])

    @property
    def filters(self) -> int:
        """All filters of fconv."""
        return sum(self.sizes)

    @property
    def kinds(self) -> tuple[tuple[int, ...], ...]:
        """Places of the boards that matter, by kind, in the fleet's order.

        Of boards that are alike, no plan needs more than there can be students.
        """
        kinds: dict[object, list[int]] = defaultdict(list)
        for place, site in enumerate(self.sites):
            kinds[site.kind].append(place)
        return tuple(tuple(places[: self.slots]) for places in kinds.values())

    @property
    def boards(self) -> tuple[int, ...]:
        """Places of the boards that matter, in the fleet's order."""
        return tuple(sorted(chain.from_iterable(self.kinds)))

    def answered_by(self, latency: int) -> "Instance":
        """Return the instance in which no board takes longer than this latency allows."""
        after = latency - up(join_ms(self.host), UNITS_PER_MS)
        sites = tuple(
            replace(
                site,
                latest=after - send_units(site.board, self.image_bytes) - delay_units(site.board),
            )
            for site in self.sites
        )
        return replace(self, sites=sites)

    @property
    def media(self) -> dict[str, tuple[int, ...]]:
        """Places of the boards that matter, for each medium that several of them share."""
        media: dict[str, list[int]] = defaultdict(list)
        for place in self.boards:
            link = self.sites[place].board.link
            if link.shared:
                media[link.name].append(place)
        return {name: tuple(places) for name, places in media.items() if len(places) > 1}


def instance_of(question: Question) -> Instance:
    """Resolve profiles and costs; raises ProfileError for an unknown device or link."""
    host, boards = resolve(question.fleet)
    sites = tuple(
        Site(board, elements_within(budget.memory_bytes, question.precision), budget.macs)
        for board, budget in zip(boards, question.budgets, strict=True)
    )
    image = question.image_shape
    return Instance(
        host=host,
        sites=sites,
        options=tuple(Option.of(s, student_cost_line(s, image)) for s in question.specs),
        sizes=tuple(len(one.filters) for one in question.partition.communities),
        drops=tuple(drop_option(s) for s in question.partition.drop_steps if question.allows(s)),
        min_students=question.min_students,
        max_students=question.most_students,
        image_bytes=image.size_bytes,
    )


def drop_option(step: DropStep) -> DropOption:
    """Describe a drop step; what was not measured but is allowed (g0) counts as no change."""
    return DropOption(frozenset(step.communities), step.filters, abs(step.delta_val_pct or 0.0))
