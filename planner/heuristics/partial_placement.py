"""Partial placements: students that a baseline has placed so far, and who may share them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from nonn_core.networks.network_cost import Cost, Precision
from nonn_core.partition import largest_first
from planner.data.mode_costs import copied_group, joint_models
from planner.data.modes import Assignment, DropChoice, Mode, student_work
from planner.data.problem_data import ProblemData, kept_communities
from planner.plan_file.validation import best_assignment
from planner.problem.budgets import IN_TURN, Resource
from planner.problem.problem import Problem
from simulator.graph_builder import send_ms
from simulator.workloads.fan_out import StudentWork, busy_ms, model_works, reply_ms

COUNTED: tuple[Resource, ...] = ("memory_bytes", "flash_bytes", "ram_bytes", "macs")
BoardUse = tuple[int, ...]
"""Amount of each that the students of a board need together."""


def _use(cost: Cost, precision: Precision) -> BoardUse:
    sizes = (cost.memory_bytes, cost.flash_bytes, cost.ram_bytes)
    return (*(size(precision) for size in sizes), cost.macs)


def _together(uses: Sequence[BoardUse]) -> BoardUse:
    """Use of models that run one after the other."""
    every = zip(COUNTED, zip(*uses, strict=True), strict=True)
    return tuple(max(each) if name in IN_TURN else sum(each) for name, each in every)


@dataclass(frozen=True, slots=True)
class PlacedStudent:
    """One student of a solution: the ids of its communities, their filters, network, boards."""

    communities: tuple[int, ...]
    filters: int
    option: Mode
    boards: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PartialPlacement:
    """Students placed so far; use, and time after the send, of each board."""

    data: ProblemData
    placed: tuple[PlacedStudent, ...]
    use: dict[int, BoardUse]
    tails_ms: dict[int, float]

    @classmethod
    def empty(cls, data: ProblemData) -> "PartialPlacement":
        """Begin with no student."""
        return cls(data, (), {}, {})

    def boards_for(self, mode: Mode, communities: Sequence[int]) -> tuple[int, ...]:
        """Return the boards with room for one student more, in the fleet's order."""
        filters = self.filters(communities)
        return tuple(b for b in range(len(self.data.capacities)) if self._takes(b, mode, filters))

    def _takes(self, board: int, mode: Mode, filters: int) -> bool:
        capacity = self.data.capacities[board]
        limits = (getattr(capacity, name) for name in COUNTED)
        uses = self._used(board, mode, filters)
        return all(limit is None or used <= limit for used, limit in zip(uses, limits, strict=True))

    def _used(self, board: int, mode: Mode, filters: int) -> BoardUse:
        """Use of a board by its students and one more."""
        if self.data.shares_stem and board in self.use:
            here = [(one.option, one.filters) for one in self.placed if board in one.boards]
            models = joint_models([*here, (mode, filters)])
            return _together([_use(cost, precision) for precision, cost in models])
        own = _use(mode.line.at(filters), mode.precision)
        return _together([self.use[board], own]) if board in self.use else own

    def filters(self, communities: Sequence[int]) -> int:
        """Return how many filters these communities hold."""
        return sum(self.data.sizes[c] for c in communities)

    def plus(
        self, board: int, mode: Mode, communities: Sequence[int], copies: Sequence[int] = ()
    ) -> "PartialPlacement":
        """Return this draft with one student more, and copies; the caller knows that all fit."""
        filters, boards = self.filters(communities), (board, *copies)
        placed = (*self.placed, PlacedStudent(tuple(communities), filters, mode, boards))
        use = {b: self._used(b, mode, filters) for b in boards}
        tails_ms = {
            b: self._tail_ms(b, [each for each in placed if b in each.boards]) for b in boards
        }
        return replace(self, placed=placed, use=self.use | use, tails_ms=self.tails_ms | tails_ms)

    def _tail_ms(self, board: int, students: Sequence[PlacedStudent]) -> float:
        capacity = self.data.capacities[board].board
        device = capacity.device
        computed_ms = busy_ms(device, model_works([self._work(board, each) for each in students]))
        replied_ms = reply_ms(capacity, sum(each.filters for each in students))
        return computed_ms + replied_ms + 2 * capacity.link.latency_ms.value

    def _work(self, board: int, student: PlacedStudent) -> StudentWork:
        capacity, mode = self.data.capacities[board].board, student.option
        device, outline = capacity.device, mode.line.outline
        work = student_work(device, mode.line, student.filters)
        return StudentWork(
            name=str(student.communities),
            board=capacity.name,
            macs=mode.line.at(student.filters).macs,
            features=student.filters,
            time=None if isinstance(work, int) else work,
            copied=copied_group(device, outline, mode.precision) if self.data.shares_stem else None,
        )

    def done_ms(self, board: int) -> float:
        """Return when a board's reply is there (`simulator.workloads.closed_form`).

        The host sends first to boards that need longest once their image is there.
        """
        tail_ms = self.tails_ms[board]
        before = [b for b, other in self.tails_ms.items() if (-other, b) <= (-tail_ms, board)]
        capacities = self.data.capacities
        sent_ms = sum(send_ms(capacities[b].board, self.data.image_bytes) for b in before)
        return sent_ms + tail_ms

    def alone_ms(self, board: int, mode: Mode, communities: Sequence[int]) -> float:
        """Return how long one image takes where this is the only student anywhere."""
        return PartialPlacement.empty(self.data).plus(board, mode, communities).done_ms(board)

    def assignment(self, dropped: Sequence[int]) -> Assignment:
        """The assignment of what has been placed."""
        students = tuple(each.option.student(each.communities, each.boards) for each in self.placed)
        return Assignment(students, tuple(sorted(dropped)))


def mode_menus(data: ProblemData) -> Iterator[tuple[Mode, ...]]:
    """Yield for each mode, larger first, itself and smaller ones of its G0."""
    filters = data.filters // data.slots
    order = sorted(data.modes, key=lambda mode: -mode.line.at(filters).params)
    for place, largest in enumerate(order):
        yield tuple(mode for mode in order[place:] if mode.group0 == largest.group0)


@dataclass(frozen=True, slots=True)
class CommunityMerge:
    """The communities of each student, most filters first, and those that are dropped."""

    shares: tuple[tuple[int, ...], ...]
    dropped: tuple[int, ...]


def student_counts(data: ProblemData, most: int) -> range:
    """Possible numbers of students, up to `most`, larger ones first."""
    return range(min(data.slots, most), data.min_students - 1, -1)


def largest_drop(data: ProblemData, students: int) -> DropChoice:
    """Return the largest P0 that leaves each student a community; dropping nothing always does."""
    return max(
        (drop for drop in data.drop_choices if len(kept_communities(data, drop)) >= students),
        key=lambda drop: drop.filters,
    )


def community_merges(data: ProblemData, most: int) -> Iterator[CommunityMerge]:
    """Merge greedily for `most` students down to the fewest (arXiv:1907.11804, section 4.2)."""
    for students in student_counts(data, most):
        drop = largest_drop(data, students)
        kept = kept_communities(data, drop)
        shares = largest_first({c: data.sizes[c] for c in kept}, students)
        by_size = sorted(shares, key=lambda share: -sum(data.sizes[c] for c in share))
        yield CommunityMerge(tuple(by_size), tuple(sorted(drop.communities)))


PlacementRule = Callable[[ProblemData, CommunityMerge, tuple[Mode, ...]], PartialPlacement | None]
"""Places each share of a merge in a network of a menu; None where the rule finds no room."""


def best_by_rule(
    problem: Problem, data: ProblemData, rule: PlacementRule, most: int
) -> Assignment | None:
    """Best assignment of a rule with the most students that it can place.

    One attempt for each menu: which networks serve the objective is found by trying.
    """
    for merge in community_merges(data, most):
        drafts = [rule(data, merge, menu) for menu in mode_menus(data)]
        found = [
            placement.assignment(merge.dropped) for placement in drafts if placement is not None
        ]
        best = best_assignment(problem, found)
        if best is not None:
            return best
    return None
