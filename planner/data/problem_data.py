"""Problem data: the problem in numbers, profiles resolved and costs in closed form."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import combinations
from typing import Literal

from planner.data.balance import balanced_range, divisions, width_ranks
from planner.data.board_capacity import BoardCapacity
from planner.data.board_places import BoardPlaces
from planner.data.modes import (
    UNITS_PER_MS,
    Affine,
    DedicatedStem,
    DropChoice,
    Mode,
    Stem,
    UnitCost,
    busy_units,
    delay_units,
    drop_choice,
    round_up,
    send_units,
)
from planner.data.point_choice import places
from planner.problem.budgets import BUDGETS, Resource
from planner.problem.duty import battery_drain, cycle_drain
from planner.problem.problem import Problem
from planner.reliability.robustness import FailureScenarios
from profiles.device import DEVICES, DeviceProfile, spread_cv
from profiles.fleet import Board
from profiles.time_spread import quantile_factor
from simulator.graph_builder import exchange_ms, join_ms

FEW_CHOICES = 200
"""Of so few choices a model of all plans is solved sooner than kicks are tried."""


@dataclass(frozen=True)
class ProblemData(BoardPlaces):
    """Boards, networks, communities (by size) and drop steps; all that the model reads.

    `stem` is G0 on a board of its own, `stems` may be; with `shares_stem` students of one board and
    precision share theirs (`planner.data.mode_costs`).  `most_uneven` bounds unevenness.  `sites`
    are boards of the fleet, of each place of `capacities` one; where there are none, each place is
    a board's only operating point (`planner.data.point_choice`).  `counts_energy` says whether less
    energy or power makes a point worth its time, `counts_power` whether loads tell what they draw.
    """

    host: DeviceProfile
    capacities: tuple[BoardCapacity, ...]
    modes: tuple[Mode, ...]
    sizes: tuple[int, ...]
    drop_choices: tuple[DropChoice, ...]
    min_students: int
    max_students: int
    image_bytes: int
    reuse: bool = False
    max_copies: int = 1
    outages: tuple[frozenset[int], ...] = ()
    scenarios: FailureScenarios | None = None
    copies_stem: bool = True
    stems: tuple[Stem, ...] = ()
    stem: DedicatedStem | None = None
    shares_stem: bool = False
    most_uneven: int | None = None
    sites: tuple[int, ...] = ()
    counts_energy: bool = True
    counts_power: bool = True

    @cached_property
    def communities(self) -> tuple[int, ...]:
        """Ids of the communities, larger ones first."""
        return tuple(sorted(range(len(self.sizes)), key=lambda c: -self.sizes[c]))

    @property
    def slots(self) -> int:
        """Most students that can have a community each."""
        return min(self.max_students, max(self._kept))

    @cached_property
    def least_macs(self) -> int:
        """MACs of the smallest student."""
        return min(mode.line.at(min(self.sizes)).macs for mode in self.modes)

    @property
    def fewest_students(self) -> int:
        """Fewest students of the first round, whose partitions are communities."""
        return min(self.min_students, *self._kept) if self.reuse else self.min_students

    @property
    def spare_communities(self) -> int:
        """Communities that are left over where each student has one, at most."""
        return max(self._kept) - self.fewest_students

    @property
    def most_students(self) -> int:
        """Most students, those of further rounds included."""
        return self.max_students if self.reuse else self.slots

    @property
    def rounds(self) -> int:
        """How often all kept communities may be handed out."""
        return -(-self.max_students // min(self._kept)) if self.reuse else 1

    @property
    def choices(self) -> int:
        """Networks that a student may be on a board, alike students and boards counted once."""
        students = min(self.most_students, self.rounds * len(community_classes(self)))
        return students * len(self.board_classes) * len(self.modes)

    @property
    def few_choices(self) -> bool:
        """Whether a model of all plans is solved sooner than kicks are tried."""
        return self.choices <= FEW_CHOICES

    @cached_property
    def extra_students(self) -> tuple[tuple[int, int], ...]:
        """Students of further rounds that there may be: the round, from 2, and the community.

        Each mimics as many filters as its community has, of all kept ones reshuffled
        (arXiv:1907.11804, section 5.1).
        Rounds before the last are full, so that a late one needs few communities.
        """
        return tuple(
            (number, c)
            for number in range(2, self.rounds + 1)
            for c in self.communities
            if (number - 1) * self._kept_beside(c) < self.max_students
        )

    def _kept_beside(self, community: int) -> int:
        """Return the fewest communities that are kept where this one is."""
        kept = (
            count
            for drop, count in zip(self.drop_choices, self._kept, strict=True)
            if community not in drop.communities
        )
        return min(kept, default=self.max_students)

    @cached_property
    def _kept(self) -> list[int]:
        """How many communities each drop step leaves."""
        return [len(self.sizes) - len(drop.communities) for drop in self.drop_choices]

    def filter_range_of_slot(self, slot: int) -> tuple[int, int]:
        """Return the fewest and the most filters of a student, students going by first community.

        Of the communities, larger ones first, those before a student's first one belong to earlier
        students, more than one to some of them, or are dropped.
        """
        sizes = sorted(self.sizes, reverse=True)
        last = min(slot + len(sizes) - self.fewest_students, len(sizes) - 1)
        most = sum(sizes[slot : slot + 1 + max(0, self.spare_communities)])
        fewest_filters, most_filters = self.partition_range
        return max(sizes[last], fewest_filters), min(most, most_filters)

    @cached_property
    def width_ranks(self) -> tuple[int, ...]:
        """Rank of each mode by its width."""
        return width_ranks(self)

    @cached_property
    def partition_range(self) -> tuple[int, int]:
        """Fewest and most filters that a partition may have by balance."""
        return balanced_range(divisions(self), self.most_uneven, self.filters)

    @property
    def filters(self) -> int:
        """All filters of fconv."""
        return sum(self.sizes)

    def usage_range(self, figure: Literal["params", "macs"]) -> tuple[int, int]:
        """Return the least and the most that all students together can have."""
        costs = ((mode.line.at(min(self.sizes)), mode.line.at(self.filters)) for mode in self.modes)
        ends = [(getattr(least, figure), getattr(most, figure)) for least, most in costs]
        least, most = min(one for one, _ in ends), self.most_students * max(one for _, one in ends)
        return max(1, least) + self.stem_usage(figure), most + self.stem_usage(figure)

    def within_latency(self, latency: int) -> "ProblemData":
        """Return the problem data in which no board takes longer than this latency allows."""
        after = latency - self.fixed_latency
        capacities = tuple(
            replace(capacity, latest=after - self.send(place) - delay_units(capacity.board))
            for place, capacity in enumerate(self.capacities)
        )
        return replace(self, capacities=capacities)

    def at_percentile(self, share: float, boards: int) -> "ProblemData":
        """Problem data whose latencies a `share` of images keep, on so many boards.

        Each board then takes the time that it keeps in share^(1/boards) of its images: all of
        these are kept together in a share of them, as boards draw their times independently.
        """
        each = share ** (1 / boards)
        capacities = tuple(
            replace(one, slow=quantile_factor(spread_cv(one.board.device), each))
            for one in self.capacities
        )
        return replace(self, capacities=capacities)

    def with_late_stem(self) -> "ProblemData":
        """Problem data whose G0, where it is alone, is as slow as its board."""
        if self.stem is None:
            return self
        later = round_up((self.capacities[self.stem.board].slow - 1) * self.stem.busy, 1)
        return replace(self, stem=replace(self.stem, lead=self.stem.lead + later))

    @property
    def spreads(self) -> bool:
        """Whether a spread of computing times is known of any board."""
        return any(spread_cv(capacity.board.device) for capacity in self.capacities)

    def send(self, place: int) -> int:
        """Send time of a board's input, the image or G0's maps, in solver units."""
        board = self.capacities[place].board
        if self.stem is None:
            return send_units(board, self.image_bytes)
        source = self.capacities[self.stem.board].board
        return round_up(exchange_ms(source, board, self.stem.maps_bytes), UNITS_PER_MS)

    @cached_property
    def fixed_latency(self) -> int:
        """Latency beside inputs and boards: the join, and G0's part where it is alone."""
        return self._join + (self.stem.lead if self.stem else 0)

    @cached_property
    def fixed_period(self) -> int:
        """For how long an image at least keeps something busy that runs no student."""
        return max(self._join, self.stem.sent, self.stem.busy) if self.stem else self._join

    @cached_property
    def _join(self) -> int:
        return round_up(join_ms(self.host), UNITS_PER_MS)

    def stem_usage(self, figure: Resource) -> int:
        """Use of a resource by G0 on a board of its own, else 0."""
        return self.stem.of(figure) if self.stem else 0

    def stem_usage_on(self, board: int, figure: Resource) -> int:
        """Use of a resource of this board by G0, where it is alone there."""
        return self.stem_usage(figure) if self.stem and self.stem.board == board else 0

    def with_stem(self, stem: DedicatedStem) -> "ProblemData":
        """Return the problem data whose students stand on this G0."""
        modes = tuple(
            replace(mode, line=mode.line_without_stem)
            for mode in self.modes
            if mode.group0 == stem.shape
        )
        return replace(self, modes=modes, stem=stem, stems=(), shares_stem=False)

    @property
    def has_copies(self) -> bool:
        """Whether a student may be on several boards."""
        return self.max_copies > 1

    @property
    def order_matters(self) -> bool:
        """Whether another order than longest first may be the best, and late replies harmless.

        On shared media replies wait for each other; of a student's copies only the first one's
        reply is waited for.
        """
        return self.has_copies or bool(self.shared_media)

    @cached_property
    def outage_sets(self) -> tuple[tuple[frozenset[int], int], ...]:
        """Boards that some outages take together, and how many outages; first of all, none.

        More outages at once than a student has copies threaten it no further.
        """
        return tuple(
            (frozenset[int]().union(*taken), number)
            for number in range(self.max_copies)
            for taken in combinations(self.outages, number)
        )


def late_units(capacity: BoardCapacity) -> UnitCost:
    """Time of one student as latencies count it."""
    return lambda device, line, several: late_cost(capacity, busy_units(device, line, several))


def late_cost(capacity: BoardCapacity, busy: Affine) -> Affine:
    """Time of computing as latencies count it."""
    if capacity.slow == 1.0:
        return busy
    return Affine(*(round_up(capacity.slow * part, 1) for part in (busy.constant, busy.per_filter)))


@lru_cache(maxsize=16)
def resolve_problem(problem: Problem) -> ProblemData:
    """Resolve profiles and costs; raises ProfileError for an unknown device or link."""
    image, known = problem.image_shape, places(problem)
    devices = tuple(dict.fromkeys(place.board.device for place in known))
    sites = tuple(place.site for place in known)
    return ProblemData(
        host=host_device(problem),
        capacities=_capacities(problem, ((place.site, place.board) for place in known)),
        sites=sites if len(sites) > len(problem.fleet.boards) else (),
        modes=tuple(
            Mode.of(spec, precision, image, devices)
            for spec in problem.specs
            for precision in problem.precisions
        ),
        sizes=tuple(len(one.filters) for one in problem.partition.communities),
        drop_choices=tuple(
            drop_choice(s) for s in problem.partition.drop_steps if problem.allows(s)
        ),
        min_students=problem.min_students,
        max_students=problem.most_students,
        image_bytes=image.size_bytes,
        reuse=problem.reuse,
        max_copies=problem.max_copies,
        outages=_common_causes(problem),
        scenarios=_failure_scenarios(problem),
        copies_stem=problem.group0 != "own-board",
        stems=_stems(problem),
        shares_stem=problem.group0_copies == "per-board",
        counts_energy=any(map(problem.counts_energy, range(len(problem.fleet.boards)))),
        counts_power="fleet-power" in problem.goals,
    )


def _stems(problem: Problem) -> tuple[Stem, ...]:
    """Return each shape of G0 that may have a board of its own."""
    if problem.group0 == "replicated":
        return ()
    shapes = {spec.group0: spec for spec in problem.specs}
    return tuple(Stem.of(spec, problem.image_shape) for spec in shapes.values())


def _common_causes(problem: Problem) -> tuple[frozenset[int], ...]:
    names = [problem.fleet.boards[place.site].name for place in places(problem)]
    outages = problem.failures.outages if problem.failures else ()
    return tuple(
        frozenset(place for place, name in enumerate(names) if name in each.boards)
        for each in outages
    )


def _failure_scenarios(problem: Problem) -> FailureScenarios | None:
    """Failure scenarios, if the problem has failures and a known accuracy."""
    if problem.failures is None or problem.accuracy is None or not problem.accuracy.known:
        return None
    names = tuple(problem.fleet.boards[place.site].name for place in places(problem))
    return FailureScenarios(problem.failures, names, problem.accuracy_model)


def host_device(problem: Problem) -> DeviceProfile:
    """Return the host: of those that may be it, the one that joins replies soonest.

    Whatever is asked for, a quicker join is never worse.
    """
    return min(
        (DEVICES.get(name) for name in problem.hosts), key=join_ms, default=problem.fleet_host
    )


def community_classes(data: ProblemData) -> tuple[tuple[int, ...], ...]:
    """Return the communities by class."""
    classes: dict[object, list[int]] = defaultdict(list)
    for community in data.communities:
        taken = tuple(community in drop.communities for drop in data.drop_choices)
        classes[data.sizes[community], taken].append(community)
    return tuple(map(tuple, classes.values()))


def kept_communities(data: ProblemData, drop: DropChoice) -> tuple[int, ...]:
    """Return the ids of the communities that are not dropped."""
    return tuple(c for c in range(len(data.sizes)) if c not in drop.communities)


def board_capacities(problem: Problem, boards: Sequence[Board]) -> tuple[BoardCapacity, ...]:
    """Boards of the problem, with their budgets."""
    return _capacities(problem, enumerate(boards))


def _capacities(problem: Problem, boards: Iterable[tuple[int, Board]]) -> tuple[BoardCapacity, ...]:
    """Boards, each with its place in the fleet, with their budgets."""
    rate = problem.rate_per_s
    return tuple(
        BoardCapacity(
            board,
            battery=battery_drain(rate, problem.budgets, site, board.device),
            idling=cycle_drain(rate, board.device) if problem.averages_power(site) else None,
        ).limited(
            {n: row.limit_at(board.device, budget.room(n), rate) for n, row in BUDGETS.items()}
        )
        for site, board, budget in ((site, board, problem.budgets[site]) for site, board in boards)
    )
