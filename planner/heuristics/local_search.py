"""Local search: a good plan in a fraction of a second, without a proof.

Moves and swaps until none helps.  What it finds bounds the proof from the start: whatever alone
would be worse need not be modelled.  The same instance and seed find the same plan, however fast
the machine.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, cycle, islice, product

import numpy as np

from planner.data.modes import Assignment
from planner.data.objective_function import ObjectiveBound, ObjectiveFunction
from planner.data.problem_data import ProblemData, community_classes
from planner.heuristics.solution import DROPPED, CostEvaluator, Solution

Move = tuple[str, int, int]
"""What is done, and to which two: students, communities, boards or options by their places."""


def enumerate_moves(instance: ProblemData, draft: Solution) -> list[Move]:
    """Return all moves; one may not be possible any more once others have been made."""
    students, communities = range(len(draft.options)), range(len(instance.sizes))
    found: list[Move] = [("board", s, b) for s, b in product(students, instance.boards)]
    found += [("option", s, o) for s, o in product(students, range(len(instance.options)))]
    found += [("exchange", s, t) for s, t in combinations(students, 2)]
    if instance.spare or len(instance.drops) > 1:
        found += [("give", c, s) for c, s in product(communities, students)]
        found += [("trade", c, d) for c, d in combinations(communities, 2)]
        found += [("part", c, b) for c, b in product(communities, instance.boards)]
    if instance.replicated:
        found += [("copy", s, b) for s, b in product(students, instance.boards)]
        found += [("alone", s, b) for s, b in product(students, instance.boards)]
    if instance.further:
        kept = (c for c, owner in enumerate(draft.owners) if owner != DROPPED)
        found += [("again", c, b) for c, b in product(kept, instance.boards)]
        found += [("leave", s, 0) for s in students]
    return found


def apply_move(instance: ProblemData, draft: Solution, move: Move) -> Solution | None:
    """Return the draft after a move; None where it changes nothing or is not possible."""
    kind, one, other = move
    after = draft.copy()
    if not _MOVES[kind](after, one, other):
        return None
    if kind == "copy" and len(after.copies[one]) >= instance.max_copies:
        return None
    if kind == "option":
        _share_group0(instance, after, other)
    return after


def _share_group0(instance: ProblemData, draft: Solution, option: int) -> None:
    """Give students of another G0 than this option's the option, too."""
    shape = instance.options[option].group0
    draft.options[:] = [
        each if instance.options[each].group0 == shape else option for each in draft.options
    ]


def _board(draft: Solution, student: int, board: int) -> bool:
    """Put a student on another board, or let the host wait for another one of its copies."""
    if student >= len(draft.boards) or draft.boards[student] == board:
        return False
    before, copies = draft.boards[student], draft.copies[student]
    draft.copies[student] = tuple(before if each == board else each for each in copies)
    draft.boards[student] = board
    return True


def _copy(draft: Solution, student: int, board: int) -> bool:
    """Put a copy of a student on a further board."""
    if student >= len(draft.boards) or board in draft.homes()[student]:
        return False
    draft.copies[student] += (board,)
    return True


def _alone(draft: Solution, student: int, board: int) -> bool:
    """Remove a copy of a student from a board."""
    if student >= len(draft.boards) or board not in draft.copies[student]:
        return False
    draft.copies[student] = tuple(each for each in draft.copies[student] if each != board)
    return True


def _option(draft: Solution, student: int, option: int) -> bool:
    """Make a student another network."""
    if student >= len(draft.options) or draft.options[student] == option:
        return False
    draft.options[student] = option
    return True


def _exchange(draft: Solution, one: int, other: int) -> bool:
    """Exchange what two students know."""
    if max(one, other) not in draft.first_round:
        return False
    trade = {one: other, other: one}
    draft.owners[:] = [trade.get(owner, owner) for owner in draft.owners]
    return True


def _give(draft: Solution, community: int, student: int) -> bool:
    """Give a community to another student; a student that has none left goes."""
    owner = draft.owners[community]
    if owner in (DROPPED, student) or student not in draft.first_round:
        return False
    draft.owners[community] = student
    if owner not in draft.owners:
        del draft.options[owner], draft.boards[owner], draft.copies[owner]
        draft.owners[:] = [each - (each > owner) for each in draft.owners]
    return True


def _trade(draft: Solution, one: int, other: int) -> bool:
    """Exchange the owners of two communities."""
    owners = draft.owners
    if DROPPED in (owners[one], owners[other]) or owners[one] == owners[other]:
        return False
    owners[one], owners[other] = owners[other], owners[one]
    return True


def _part(draft: Solution, community: int, board: int) -> bool:
    """Let a community leave for a new student, of the same network, on a board."""
    owner = draft.owners[community]
    if owner == DROPPED or draft.owners.count(owner) == 1:
        return False
    place = len(draft.first_round)
    draft.owners[community] = place
    draft.options.insert(place, draft.options[owner])
    draft.boards.insert(place, board)
    draft.copies.insert(place, ())
    return True


def _again(draft: Solution, community: int, board: int) -> bool:
    """Add a student of a further round, like the one that owns a community, on a board."""
    draft.options.append(draft.options[draft.owners[community]])
    draft.boards.append(board)
    draft.copies.append(())
    draft.again.append(community)
    return True


def _leave(draft: Solution, student: int, _: int) -> bool:
    """Let a student of a further round go."""
    first = len(draft.first_round)
    if not first <= student < len(draft.options):
        return False
    del draft.options[student], draft.boards[student], draft.copies[student]
    del draft.again[student - first]
    return True


_MOVES: dict[str, Callable[[Solution, int, int], bool]] = {
    "board": _board,
    "option": _option,
    "exchange": _exchange,
    "give": _give,
    "trade": _trade,
    "part": _part,
    "again": _again,
    "leave": _leave,
    "copy": _copy,
    "alone": _alone,
}

MOST_SOLUTIONS = 40_000
"""Drafts that one search values; some 15 us each."""
SOLUTIONS_PER_CHOICE = 25
"""The same, for each network that a student may be on a board, alike students and boards counted
once: little to choose is soon proven."""
KICKS = 20
"""The search ends when this many kicks in a row lead to nothing better."""

Score = tuple[float, int, int]
"""What breaks a rule; the goal, less being better; how crowded the boards are."""


def local_search(
    instance: ProblemData,
    goal: ObjectiveFunction,
    limits: Sequence[ObjectiveBound],
    *,
    seed: int,
    known: Assignment | None = None,
    most_drafts: int = MOST_SOLUTIONS,
) -> tuple[Assignment, int] | None:
    """Return a good assignment and its value in solver units, or None if none was found.

    `known` is one that keeps all rules and limits, and where the search begins.
    """
    return _LocalSearch(instance, goal, limits, seed, most_drafts).run(known)


class _LocalSearch:
    def __init__(
        self,
        instance: ProblemData,
        goal: ObjectiveFunction,
        limits: Sequence[ObjectiveBound],
        seed: int,
        most_drafts: int,
    ) -> None:
        self._instance, self._goal, self._limits = instance, goal, limits
        self._appraiser = CostEvaluator(instance)
        self._random = np.random.default_rng(seed)
        students = min(instance.most, instance.rounds * len(community_classes(instance)))
        choices = students * len(instance.kinds) * len(instance.options)
        self._left = min(most_drafts, SOLUTIONS_PER_CHOICE * choices)

    def run(self, known: Assignment | None) -> tuple[Assignment, int] | None:
        starts = [self._appraiser.draft(known)] if known else list(self._starts())
        found = [self._descend(draft, self._score(draft)) for draft in starts]
        if not found:
            return None
        draft, score = min(found, key=lambda one: one[1])
        failed = 0
        while failed < KICKS and self._left > 0:
            kicked = self._kicked(draft)
            other, better = self._descend(kicked, self._score(kicked))
            failed += 1
            if better < score:
                draft, score, failed = other, better, 0
        if score[0] > 0:
            return None
        return self._appraiser.assignment(draft), self._goal.read(self._appraiser.view(draft))

    def _score(self, draft: Solution) -> Score:
        self._left -= 1
        view = self._appraiser.view(draft)
        over = view.excess() + sum(limit.excess(limit.measure.read(view)) for limit in self._limits)
        sign = -1 if self._goal.maximise else 1
        return over, sign * self._goal.read(view), view.crowding()

    # Where it begins.

    def _starts(self) -> Iterator[Solution]:
        """Yield a draft for each shape of G0, each drop step and a few numbers of students."""
        instance = self._instance
        shapes = sorted({option.group0 for option in instance.options})
        counts = {instance.slots, max(1, instance.min_students), (instance.slots + 1) // 2}
        counts.add(instance.most)
        drops = range(len(instance.drops))
        for shape, drop, count in product(shapes, drops, sorted(counts)):
            kept = len(instance.sizes) - len(instance.drops[drop].communities)
            if count >= instance.min_students and (count <= kept or instance.reuse):
                yield self._dealt(shape, drop, count)

    def _dealt(self, shape: str, drop: int, students: int) -> Solution:
        """Deal the communities, larger ones first, to the smallest students; then place these.

        Where there are more students than communities, smaller ones come first in further rounds.
        """
        instance = self._instance
        kept = [c for c in instance.communities if c not in instance.drops[drop].communities]
        count = min(students, len(kept))
        owners, sizes = [DROPPED] * len(instance.sizes), [0] * count
        for community in kept:
            owner = min(range(count), key=lambda s: (sizes[s], s))
            owners[community] = owner
            sizes[owner] += instance.sizes[community]
        again = list(islice(cycle(reversed(kept)), students - count))
        option = self._least(shape)
        return self._placed(Solution(owners, [option] * students, [0] * students, drop, again))

    def _least(self, shape: str) -> int:
        """Return the option of this G0 with the fewest MACs."""
        options = self._instance.options
        return min(
            (o for o, option in enumerate(options) if option.group0 == shape),
            key=lambda o: (options[o].line.macs, o),
        )

    def _placed(self, draft: Solution) -> Solution:
        """Put each student where the score is best, as if those before it were the only ones."""
        for s in range(len(draft.boards)):
            owners = [owner if owner <= s else DROPPED for owner in draft.owners]
            again = draft.again[: max(0, s + 1 - len(draft.first_round))]
            options, boards = draft.options[: s + 1], draft.boards[: s + 1]
            first = Solution(owners, options, boards, draft.drop, again)
            scores = [(self._score(_put_last(first, b)), b) for b in self._instance.boards]
            draft.boards[s] = min(scores)[1]
        return draft

    # How it goes on.

    def _descend(self, draft: Solution, score: Score) -> tuple[Solution, Score]:
        """Take each move that helps, until none does."""
        helped = True
        while helped and self._left > 0:
            helped = False
            for move in self._moves(draft):
                other = apply_move(self._instance, draft, move)
                if other is None or self._left <= 0:
                    continue
                better = self._score(other)
                if better < score:
                    draft, score, helped = other, better, True
        return draft, score

    def _kicked(self, draft: Solution) -> Solution:
        """Make a few moves whether they help or not."""
        for move in self._moves(draft)[:4]:
            draft = apply_move(self._instance, draft, move) or draft
        return draft

    def _moves(self, draft: Solution) -> list[Move]:
        """Return all moves in random order."""
        found = enumerate_moves(self._instance, draft)
        return [found[place] for place in self._random.permutation(len(found))]


def _put_last(draft: Solution, board: int) -> Solution:
    """Put the last student on a board."""
    draft.boards[-1] = board
    return draft
