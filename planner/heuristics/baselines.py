"""Baselines that the planner is compared with: plans without a solver."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy.optimize import linear_sum_assignment

from nonn_core.partition import largest_first
from planner.data.modes import Assignment, Mode
from planner.data.problem_data import (
    ProblemData,
    kept_communities,
    largest_drop,
    resolve_problem,
    student_counts,
)
from planner.plan_file.validation import best_assignment
from planner.problem.problem import Problem
from simulator.graph_builder import send_ms
from simulator.workloads.fan_out import busy_ms, reply_ms

BoardUse = tuple[int, int]
"""Bytes and MACs that the students of a board need together."""


@dataclass(frozen=True, slots=True)
class PlacedStudent:
    """One student of a draft: the ids of its communities, their filters, network, boards."""

    communities: tuple[int, ...]
    filters: int
    option: Mode
    boards: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PartialPlacement:
    """Students on boards of an instance; use, and time after the send, of each board in use."""

    instance: ProblemData
    placed: tuple[PlacedStudent, ...]
    use: dict[int, BoardUse]
    tails_ms: dict[int, float]

    @classmethod
    def empty(cls, instance: ProblemData) -> "PartialPlacement":
        """Begin with no student."""
        return cls(instance, (), {}, {})

    def boards_for(self, option: Mode, communities: Sequence[int]) -> tuple[int, ...]:
        """Return the boards with room for one student more, in the fleet's order."""
        more = _needs(option, self.filters(communities))
        return tuple(b for b in range(len(self.instance.sites)) if self._takes(b, more))

    def _takes(self, board: int, more: BoardUse) -> bool:
        site = self.instance.sites[board]
        size, macs = self._used(board, more)
        return (site.memory_bytes is None or size <= site.memory_bytes) and (
            site.macs is None or macs <= site.macs
        )

    def _used(self, board: int, more: BoardUse) -> BoardUse:
        size, macs = self.use.get(board, (0, 0))
        return size + more[0], macs + more[1]

    def filters(self, communities: Sequence[int]) -> int:
        """Return how many filters these communities hold."""
        return sum(self.instance.sizes[c] for c in communities)

    def plus(
        self, board: int, option: Mode, communities: Sequence[int], copies: Sequence[int] = ()
    ) -> "PartialPlacement":
        """Return this draft with one student more, and copies; the caller knows that all fit."""
        filters, boards = self.filters(communities), (board, *copies)
        placed = (*self.placed, PlacedStudent(tuple(communities), filters, option, boards))
        use = {b: self._used(b, _needs(option, filters)) for b in boards}
        tails_ms = {
            b: self._tail_ms(b, [each for each in placed if b in each.boards]) for b in boards
        }
        return replace(self, placed=placed, use=self.use | use, tails_ms=self.tails_ms | tails_ms)

    def _tail_ms(self, board: int, students: Sequence[PlacedStudent]) -> float:
        site = self.instance.sites[board].board
        computed_ms = busy_ms(
            site.device, [each.option.line.at(each.filters).macs for each in students]
        )
        replied_ms = reply_ms(site, sum(each.filters for each in students))
        return computed_ms + replied_ms + 2 * site.link.latency_ms.value

    def done_ms(self, board: int) -> float:
        """Return when the reply of a board with students is there (`simulator.workloads.closed_form`).

        The host sends first to boards that need longest once their image is there.
        """
        tail_ms = self.tails_ms[board]
        before = [b for b, other in self.tails_ms.items() if (-other, b) <= (-tail_ms, board)]
        sites = self.instance.sites
        sent_ms = sum(send_ms(sites[b].board, self.instance.image_bytes) for b in before)
        return sent_ms + tail_ms

    def alone_ms(self, board: int, option: Mode, communities: Sequence[int]) -> float:
        """Return how long one image takes where this is the only student anywhere."""
        return PartialPlacement.empty(self.instance).plus(board, option, communities).done_ms(board)

    def assignment(self, dropped: Sequence[int]) -> Assignment:
        """Return what has been decided."""
        students = tuple(each.option.student(each.communities, each.boards) for each in self.placed)
        return Assignment(students, tuple(sorted(dropped)))


def _needs(option: Mode, filters: int) -> BoardUse:
    return option.memory_bytes(filters), option.line.at(filters).macs


def mode_menus(instance: ProblemData) -> Iterator[tuple[Mode, ...]]:
    """Yield for each network, larger ones first, itself and all smaller ones that share its G0."""
    filters = instance.filters // instance.slots
    order = sorted(instance.options, key=lambda option: -option.line.at(filters).params)
    for place, largest in enumerate(order):
        yield tuple(option for option in order[place:] if option.group0 == largest.group0)


@dataclass(frozen=True, slots=True)
class CommunityMerge:
    """The communities of each student, most filters first, and those that are dropped."""

    shares: tuple[tuple[int, ...], ...]
    dropped: tuple[int, ...]


def community_merges(instance: ProblemData, most: int) -> Iterator[CommunityMerge]:
    """Merge as the paper does (A, section 4.2), for `most` students down to as few as allowed."""
    for students in student_counts(instance, most):
        drop = largest_drop(instance, students)
        kept = kept_communities(instance, drop)
        shares = largest_first({c: instance.sizes[c] for c in kept}, students)
        by_size = sorted(shares, key=lambda share: -sum(instance.sizes[c] for c in share))
        yield CommunityMerge(tuple(by_size), tuple(sorted(drop.communities)))


PlacementRule = Callable[[ProblemData, CommunityMerge, tuple[Mode, ...]], PartialPlacement | None]
"""Places each share of a merge in a network of a menu; None where the rule finds no room."""


def best_by_rule(
    question: Problem, instance: ProblemData, rule: PlacementRule, most: int
) -> Assignment | None:
    """Return the best that a rule finds with the most students, up to `most`, that it can place.

    One attempt for each menu: which networks serve the objective is found by trying.
    """
    for merge in community_merges(instance, most):
        drafts = [rule(instance, merge, menu) for menu in mode_menus(instance)]
        found = [draft.assignment(merge.dropped) for draft in drafts if draft is not None]
        best = best_assignment(question, found)
        if best is not None:
            return best
    return None


def greedy(question: Problem) -> Assignment | None:
    """Give each board one student, all in the best network that every one of them has room for.

    A (section 4.2) has as many students as boards and drops the largest P0; where budgets or
    communities forbid that, one student less is tried.  A's boards are alike and assigned by hand;
    here the largest partition goes to the board that would be done with it first, and so on.
    """
    instance = resolve_problem(question)
    return best_by_rule(question, instance, _one_per_board, len(instance.sites))


def _one_per_board(
    instance: ProblemData, merge: CommunityMerge, menu: tuple[Mode, ...]
) -> PartialPlacement | None:
    draft, option = PartialPlacement.empty(instance), menu[0]
    for share in merge.shares:
        taken = {board for student in draft.placed for board in student.boards}
        boards = [b for b in draft.boards_for(option, share) if b not in taken]
        if not boards:
            return None
        fastest = min(boards, key=lambda board: draft.alone_ms(board, option, share))
        draft = draft.plus(fastest, option, share)
    return draft


def longest_processing_time(question: Problem) -> Assignment | None:
    """Place students, those of most work first, each on the board that is done with it first.

    The end counts the turns of the host's sends, students that share the board, and the reply.
    Each student has the best network for which a board has room.  The partitions are those of
    the greedy merge, as many as the question allows.
    """
    instance = resolve_problem(question)
    return best_by_rule(question, instance, _earliest_end, instance.slots)


def _earliest_end(
    instance: ProblemData, merge: CommunityMerge, menu: tuple[Mode, ...]
) -> PartialPlacement | None:
    draft = PartialPlacement.empty(instance)
    for share in merge.shares:
        extended = _placed(draft, share, menu)
        if extended is None:
            return None
        draft = extended
    return draft


def _placed(
    draft: PartialPlacement, share: tuple[int, ...], menu: tuple[Mode, ...]
) -> PartialPlacement | None:
    """Return the draft with this share too, in the first network that some board takes."""
    for option in menu:
        boards = draft.boards_for(option, share)
        if boards:
            extended = [(board, draft.plus(board, option, share)) for board in boards]
            return min(extended, key=lambda one: one[1].done_ms(one[0]))[1]
    return None


def proportional_to_ram(question: Problem) -> Assignment | None:
    """Give each board one student, with filters in proportion to the board's memory budget.

    With fewer students than boards, the boards of most memory have them.
    """
    memory_bytes = [budget.memory_bytes for budget in question.budgets]

    def rule(
        instance: ProblemData, merge: CommunityMerge, menu: tuple[Mode, ...]
    ) -> PartialPlacement | None:
        return _by_memory(instance, merge, menu, memory_bytes)

    instance = resolve_problem(question)
    return best_by_rule(question, instance, rule, len(instance.sites))


def _by_memory(
    instance: ProblemData, merge: CommunityMerge, menu: tuple[Mode, ...], memory_bytes: list[int]
) -> PartialPlacement | None:
    order = sorted(range(len(memory_bytes)), key=lambda board: -memory_bytes[board])
    boards = order[: len(merge.shares)]
    shares = _shares_by_memory(instance, merge, [memory_bytes[board] for board in boards])
    draft = PartialPlacement.empty(instance)
    for board, share in zip(boards, shares, strict=True):
        option = next((each for each in menu if board in draft.boards_for(each, share)), None)
        if option is None:
            return None
        draft = draft.plus(board, option, share)
    return draft


def _shares_by_memory(
    instance: ProblemData, merge: CommunityMerge, weights: list[int]
) -> list[list[int]]:
    """Spread the communities that are kept, largest first, each to the board that lacks most.

    What a board lacks is its weight's part of all filters, less what it has.  The last
    communities go to boards that have none yet.
    """
    kept = [community for share in merge.shares for community in share]
    kept.sort(key=lambda community: (-instance.sizes[community], community))
    filters = sum(instance.sizes[community] for community in kept)
    lacking = [filters * weight / sum(weights) for weight in weights]
    shares: list[list[int]] = [[] for _ in weights]
    for place, community in enumerate(kept):
        empty = [board for board, share in enumerate(shares) if not share]
        boards = empty if len(empty) == len(kept) - place else range(len(shares))
        neediest = max(boards, key=lambda board: lacking[board])
        shares[neediest].append(community)
        lacking[neediest] -= instance.sizes[community]
    return shares


SAMPLES = 1000
"""Plans drawn, unless asked otherwise."""


def random_search(question: Problem, samples: int = SAMPLES) -> Assignment | None:
    """Draw `samples` plans with the question's seed, and return the best by its objective.

    What is dropped, the number of students and the G0 are drawn first, then the communities of
    each student, then, student by student, a network and a board among those that still have
    room.  A draw that leaves a student without room is lost.
    """
    instance = resolve_problem(question)
    draw = np.random.default_rng(question.seed)
    drawn = (_random_plan(instance, draw) for _ in range(samples))
    found = list(dict.fromkeys(plan for plan in drawn if plan is not None))
    return best_assignment(question, found)


def _random_plan(instance: ProblemData, draw: np.random.Generator) -> Assignment | None:
    if instance.slots < instance.min_students:
        return None
    students = int(draw.integers(instance.min_students, instance.slots, endpoint=True))
    drops = [d for d in instance.drops if len(kept_communities(instance, d)) >= students]
    drop = drops[draw.integers(len(drops))]
    shapes = sorted({option.group0 for option in instance.options})
    shape = shapes[draw.integers(len(shapes))]
    draft = PartialPlacement.empty(instance)
    for share in _random_shares(kept_communities(instance, drop), students, draw):
        room = [
            (board, option)
            for option in instance.options
            if option.group0 == shape
            for board in draft.boards_for(option, share)
        ]
        if not room:
            return None
        board, option = room[draw.integers(len(room))]
        draft = draft.plus(board, option, share)
    return draft.assignment(tuple(drop.communities))


def _random_shares(
    communities: Sequence[int], students: int, draw: np.random.Generator
) -> list[list[int]]:
    """Give each student one community, and each of the others to any student."""
    shuffled = draw.permutation(communities).tolist()
    shares = [[community] for community in shuffled[:students]]
    for community in shuffled[students:]:
        shares[draw.integers(students)].append(community)
    return shares


BoardGroup = tuple[int, ...]
"""Places of boards, the fastest first."""


def rocoin_style(question: Problem) -> Assignment | None:
    """Group boards of like capability, one student per group, and match students to groups.

    Boards without room for the smallest network are left out.  A group runs the largest network
    that each of its boards has room for.  Of all matchings, that one is taken where the slowest
    boards' times sum to the least.  A student is on its group's fastest board and, where the
    question allows copies, on as many further ones.
    """
    instance = resolve_problem(question)
    return best_by_rule(question, instance, _matched_to_groups, len(instance.sites))


def _matched_to_groups(
    instance: ProblemData, merge: CommunityMerge, menu: tuple[Mode, ...]
) -> PartialPlacement | None:
    empty = PartialPlacement.empty(instance)
    # Merges have the largest share first, menus the smallest network last: who has room for that
    # pair has room for any share.
    boards = empty.boards_for(menu[-1], merge.shares[0])
    if len(boards) < len(merge.shares):
        return None
    groups = _groups(empty, boards, merge, menu[-1])
    choices = [[_network(empty, group, share, menu) for group in groups] for share in merge.shares]
    times_ms = [
        [
            empty.alone_ms(group[-1], option, share)
            for group, option in zip(groups, row, strict=True)
        ]
        for share, row in zip(merge.shares, choices, strict=True)
    ]
    draft = empty
    for s, g in zip(*linear_sum_assignment(np.array(times_ms)), strict=True):
        first, *others = groups[g][: instance.max_copies]
        draft = draft.plus(first, choices[s][g], merge.shares[s], others)
    return draft


def _groups(
    empty: PartialPlacement, boards: tuple[int, ...], merge: CommunityMerge, option: Mode
) -> tuple[BoardGroup, ...]:
    """Cut the boards, sorted by their time for one student, into as many groups as students.

    The cuts are where the times differ most, as ratios: 2 ms and 4 ms are as unlike as 20 ms and
    40 ms.
    """
    times_ms = {board: empty.alone_ms(board, option, merge.shares[0]) for board in boards}
    order = sorted(boards, key=lambda board: times_ms[board])
    ratios = [times_ms[later] / times_ms[one] for one, later in pairwise(order)]
    widest = sorted(range(len(ratios)), key=lambda place: -ratios[place])
    cuts = sorted(place + 1 for place in widest[: len(merge.shares) - 1])
    return tuple(tuple(order[start:end]) for start, end in pairwise([0, *cuts, len(order)]))


def _network(
    empty: PartialPlacement, group: BoardGroup, share: tuple[int, ...], menu: tuple[Mode, ...]
) -> Mode:
    """Return the largest network that every board of the group has room for; the last one fits."""
    fitting = (each for each in menu if set(group) <= set(empty.boards_for(each, share)))
    return next(fitting, menu[-1])
