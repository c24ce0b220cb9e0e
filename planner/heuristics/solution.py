"""A solution in numbers, which a search changes and evaluates thousands of times.

All costs are in solver units (`planner.scaling`), the same that the models use.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, cached_property
from itertools import zip_longest
from typing import NamedTuple

from planner.data.balance import kept_sizes
from planner.data.mode_costs import (
    StudentLoad,
    counted_copies,
    stem_cost,
)
from planner.data.modes import (
    Assignment,
    DropChoice,
    log_units,
    one_way_units,
)
from planner.data.objective_function import SENDER, StudentQuantity
from planner.data.problem_data import ProblemData
from planner.heuristics import DROPPED, Solution
from planner.heuristics.board_load import BoardLoad, cached_loads
from planner.problem.budgets import Resource
from planner.problem.least_spread import most_inversion, uneven_units
from planner.reliability.robustness import (
    UNITS_PER_ACCURACY_POINT,
    UNITS_PER_CERTAINTY,
    RobustnessEstimate,
)
from profiles.operating_point import computing_w
from simulator.graph_builder import downlink, uplink


class ValuedLoad(NamedTuple):
    """Load of a board, the part by which it exceeds budgets, and its tail."""

    load: BoardLoad
    over: float
    tail: int


class CostEvaluator:
    """Values solutions of one instance; remembers every loading it has seen."""

    def __init__(self, data: ProblemData) -> None:
        self.data = data
        load, limits = cached_loads(data), data.capacities
        self._valued = cache(
            lambda b, tasks: ValuedLoad(one := load(b, tasks), one.violation(limits[b]), one.tail)
        )
        self._places = {(one.name, one.precision): o for o, one in enumerate(data.modes)}

    def evaluate(
        self, solution: Solution, near: "EvaluatedSolution | None" = None
    ) -> "EvaluatedSolution":
        """Evaluate a solution, each of whose students must have a community.

        Of one that differs little from another, `near`, only the boards are valued that changed.
        """
        sizes = (near and near.sizes_of(solution)) or self._sizes(solution)
        placed = list(zip(solution.boards, solution.modes, sizes, strict=True))
        if self.data.has_copies:
            copies = zip(solution.copies, placed, strict=True)
            placed += [(b, mode, size) for boards, (_, mode, size) in copies for b in boards]
        changed = near.boards_unlike(placed) if near else {row[0] for row in placed}
        loads = {b: one for b, one in near.loads.items() if b not in changed} if near else {}
        tasks: dict[int, list[StudentLoad]] = defaultdict(list)
        for board, mode, size in placed:
            if board in changed:
                tasks[board].append((mode, size))
        for board, here in tasks.items():
            loads[board] = self._valued(board, tuple(sorted(here)))
        return EvaluatedSolution(self.data, solution, sizes, placed, loads)

    def take_better_points(
        self, solution: Solution, near: "EvaluatedSolution | None" = None
    ) -> None:
        """Move students, in place, to points that run them sooner, or can run them.

        All of a board move together.  Of a solution that differs from another, `near`, only the
        boards that changed are moved; where energy counts, only those that budgets stop.  Copies
        stay where they are.
        """
        data = self.data
        if not data.rivals or data.has_copies:
            return
        sizes = (near and near.sizes_of(solution)) or self._sizes(solution)
        placed = list(zip(solution.boards, solution.modes, sizes, strict=True))
        changed = near.boards_unlike(placed) if near else {row[0] for row in placed}
        for place in sorted(changed.intersection(solution.boards)):
            if not (others := data.free_points(place, solution.boards)):
                continue
            tasks = tuple(sorted((mode, size) for b, mode, size in placed if b == place))
            if not data.counts_energy or self._valued(place, tasks).over:
                best = min([place, *others], key=lambda b: self._cost_at(b, tasks))
                solution.boards[:] = [best if b == place else b for b in solution.boards]

    def _cost_at(self, place: int, tasks: tuple[StudentLoad, ...]) -> tuple[float, int, int]:
        """Excess over budgets at a place, time until its reply, and computing."""
        one = self._valued(place, tasks)
        return one.over, one.load.send + one.tail, one.load.busy

    def _sizes(self, solution: Solution) -> list[int]:
        """Filters of each student."""
        sizes = [0] * len(solution.first_round)
        for filters, owner in zip(self.data.sizes, solution.owners, strict=True):
            if owner != DROPPED:
                sizes[owner] += filters
        return sizes + [self.data.sizes[community] for community in solution.extra_communities]

    def solution_of(self, found: Assignment) -> Solution:
        """Return an assignment as a solution."""
        owners = [DROPPED] * len(self.data.sizes)
        students = sorted(found.students, key=lambda one: one.round)
        for s, student in enumerate(students):
            for community in student.communities if student.round == 1 else ():
                owners[community] = s
        taken = set(found.dropped)
        return Solution(
            owners,
            [self._places[one.network, one.precision] for one in students],
            [student.board for student in students],
            next(
                d for d, one in enumerate(self.data.drop_choices) if set(one.communities) == taken
            ),
            [student.communities[0] for student in students if student.round > 1],
            [student.copies for student in students],
        )

    def assignment_of(self, solution: Solution) -> Assignment:
        """Return a solution as an assignment."""
        owned: list[list[int]] = [[] for _ in solution.first_round]
        for community, owner in enumerate(solution.owners):
            if owner != DROPPED:
                owned[owner].append(community)
        rounds = [1] * len(owned)
        for place, community in enumerate(solution.extra_communities):
            owned.append([community])
            rounds.append(2 + solution.extra_communities[:place].count(community))
        students = zip(owned, solution.modes, solution.replica_sets(), rounds, strict=True)
        return Assignment(
            tuple(
                self.data.modes[mode].student(mine, replica_sets, number)
                for mine, mode, replica_sets, number in students
            ),
            tuple(sorted(self.data.drop_choices[solution.drop].communities)),
        )


class EvaluatedSolution:
    """A draft as a view: all amounts are whole numbers of solver units."""

    def __init__(
        self,
        data: ProblemData,
        solution: Solution,
        sizes: list[int],
        placed: list[tuple[int, int, int]],
        loads: dict[int, ValuedLoad],
    ) -> None:
        self._data, self._solution, self._sizes = data, solution, sizes
        self.placed, self.loads = placed, loads

    def sizes_of(self, other: Solution) -> list[int] | None:
        """Filters of each student of another draft, if its students own what these do."""
        own, extra = self._solution.owners, self._solution.extra_communities
        return self._sizes if (other.owners, other.extra_communities) == (own, extra) else None

    def boards_unlike(self, placed: Sequence[tuple[int, int, int]]) -> set[int]:
        """Boards whose students another draft places otherwise."""
        pairs = zip_longest(placed, self.placed)
        return {row[0] for one, other in pairs if one != other for row in (one, other) if row}

    @cached_property
    def _loads(self) -> dict[int, BoardLoad]:
        return {board: one.load for board, one in self.loads.items()}

    def violation(self) -> float:
        """Violation of budgets, shared G0 and number of students; 0 if none."""
        data = self._data
        over = sum([one.over for one in self.loads.values()])
        over += len({data.modes[o].group0 for o in set(self._solution.modes)}) - 1
        over += self._unfilled() + data.points_too_many(self.loads)
        count = len(self._sizes)
        return over + max(0, count - data.max_students, data.min_students - count)

    def _unfilled(self) -> int:
        """Return how many students are missing in rounds before the last, or have too much."""
        solution = self._solution
        if not solution.extra_communities:
            return 0
        kept = [c for c, owner in enumerate(solution.owners) if owner != DROPPED]
        times = Counter(solution.extra_communities)
        full = max(times.values()) - 1
        missing = sum(max(0, full - times[c]) for c in kept)
        return missing + len(kept) - len(solution.first_round)

    def tie_breaker(self) -> int:
        """Tie-breaker among plans of one latency: lower where work is spread."""
        return sum([one.tail * one.tail for one in self.loads.values()])

    def total(self, figure: Resource) -> int:
        """Return a figure, added up over all boards."""
        students: int = sum([getattr(one, figure) for one in self._loads.values()])
        return students + self._data.stem_usage(figure)

    def knowledge(self, figure: StudentQuantity) -> int:
        """Return a figure, added up over all students, copies not counted."""
        if not self._data.has_copies:
            if figure == "macs" and self._data.shares_stem:
                return sum(one.known_macs for one in self._loads.values())
            return self.total(figure)
        modes = [self._data.modes[o] for o in self._solution.modes]
        if figure == "value_bytes":
            return sum(mode.value_bytes for mode in modes)
        costs = (o.line.at(size) for o, size in zip(modes, self._sizes, strict=True))
        every = sum(int(getattr(cost, figure)) for cost in costs)
        if not self._data.shares_stem:
            return every
        repeated = len(modes) - counted_copies(self._solution.replica_sets())
        return every - repeated * int(getattr(stem_cost(modes[0]), figure))

    def robustness(self) -> int:
        """Return the expected accuracy when boards fail."""
        return math.floor(
            UNITS_PER_ACCURACY_POINT * UNITS_PER_CERTAINTY * self._worth().expected_accuracy_pct
        )

    def reliability(self) -> int:
        """Return the chance that an answer has the target accuracy."""
        return math.floor(UNITS_PER_CERTAINTY * (self._worth().reliability_pct or 0.0) / 100)

    def _worth(self) -> RobustnessEstimate:
        assert self._data.scenarios is not None  # noqa: S101  (a question needs them for it)
        replica_sets = [frozenset(each) for each in self._solution.replica_sets()]
        return self._data.scenarios.evaluate(self.size(), replica_sets)

    def survival(self) -> int:
        """Return how many failures, whichever they are, leave each student a board."""
        return min(
            len(set(replica_sets) - out) + number - 1
            for replica_sets in self._solution.replica_sets()
            for out, number in self._data.outage_sets
        )

    def on(self, board: int, figure: Resource) -> int:
        """Return a figure of one board, at whichever of its operating points."""
        places = self._data.places_of[board]
        loads = [self._loads[place] for place in places if place in self._loads]
        alone = sum(self._data.stem_usage_on(place, figure) for place in places)
        return alone + sum(int(getattr(load, figure)) for load in loads)

    def highest(self, figure: Resource) -> int:
        """Return a figure of the board where it is highest."""
        students = max(int(getattr(one, figure)) for one in self._loads.values())
        return max(students, self._data.stem_usage(figure))

    def size(self) -> int:
        """Return ln(parameters) + ln(MACs) of all students."""
        return log_units(self.knowledge("params")) + log_units(self.knowledge("macs"))

    def period(self) -> int:
        """Return the longest time that anything is busy with one image."""
        held: Counter[str] = Counter()
        for board, one in self._loads.items():
            capacity = self._data.capacities[board].board
            held[SENDER] += one.send
            held[downlink(capacity)] += one.send
            held[uplink(capacity)] += one.reply
            held[f"{capacity.name}.cpu"] += one.busy
        return max(self._data.fixed_period, *held.values())

    def boards(self) -> int:
        """Return how many boards have a student, or G0 alone."""
        return len(self._loads) + (self._data.stem is not None)

    def students(self) -> int:
        """Return how many students there are."""
        return len(self._sizes)

    def latency(self) -> int:
        """Return the latency of one image, each student's first board being waited for.

        Sent to longest first, which on a shared medium need not be the best order.
        """
        clock = longest = 0
        sent: dict[int, int] = {}
        waited = {board: self.loads[board] for board in set(self._solution.boards)}
        for board, one in sorted(waited.items(), key=lambda pair: -pair[1].tail):
            clock += one.load.send
            sent[board] = clock
            longest = max(longest, clock + one.tail)
        for sharing in self._data.shared_media.values():
            if used := [board for board in sharing if board in sent]:
                longest = max(longest, self._cleared(used, sent))
        return longest + self._data.fixed_latency

    def _cleared(self, boards: Sequence[int], sent: Mapping[int, int]) -> int:
        """Return when a medium is clear again, as `planner.solvers.latency` bounds it."""
        way = {b: one_way_units(self._data.capacities[b].board) for b in boards}
        ready = {b: sent[b] + self._loads[b].late + way[b] for b in boards}
        clear = 0
        for board in sorted(boards, key=lambda b: ready[b]):
            clear = max(clear, ready[board]) + self._loads[board].reply
        replies = sum(self._loads[b].reply for b in boards)
        return max(clear, max(sent[b] for b in boards) + replies) + max(way.values())

    def spread(self) -> int:
        """Return the largest partition less the smallest."""
        return max(self._sizes) - min(self._sizes)

    def unevenness(self) -> int:
        """Return how much less alike partitions are than they can be."""
        students = len(self._solution.first_round)
        kept = kept_sizes(self._data, self._solution.drop)
        return uneven_units(self.spread(), kept, students)

    def inversion(self) -> int:
        """Return most filters that a wider student has fewer than a narrower one."""
        ranks = (self._data.width_ranks[o] for o in self._solution.modes)
        return most_inversion(zip(ranks, self._sizes, strict=True))

    def dropped(self, worth: Callable[[DropChoice], int]) -> int:
        """Return the worth of the chosen drop."""
        return worth(self._data.drop_choices[self._solution.drop])


def evaluate_assignment(data: ProblemData, plan: Assignment) -> EvaluatedSolution:
    """Return an assignment as a view."""
    appraiser = CostEvaluator(data)
    return appraiser.evaluate(appraiser.solution_of(plan))


def highest_draw_w(data: ProblemData, found: Assignment, boards: Collection[int]) -> float:
    """Power, in W, of the one of these boards that draws most while computing.

    It is 0 where none works.  Boards are counted as in the fleet.
    """
    appraiser = CostEvaluator(data)
    loads = appraiser.evaluate(appraiser.solution_of(found)).loads
    drawn = [
        computing_w(data.capacities[place].board.device, one.load.macs)
        for place, one in loads.items()
        if data.site(place) in boards
    ]
    return max(drawn, default=0.0)
