"""A good plan in a fraction of a second, without proof: moves and swaps until none helps.

What it finds bounds the proof from the start: whatever alone would be worse need not be modelled.
The same instance and seed find the same plan, however fast the machine.
"""

from collections.abc import Iterator, Sequence
from itertools import cycle, islice, product

import numpy as np

from planner.assignment import Assignment
from planner.catalogue import classes_of
from planner.draft import DROPPED, Appraiser, Draft
from planner.instance import Instance
from planner.moves import Move, moved, moves
from planner.objective import Limit, Measure

MOST_DRAFTS = 40_000
"""Drafts that one search values; some 15 us each."""
DRAFTS_PER_CHOICE = 25
"""The same, for each network that a student may be on a board, alike students and boards counted
once: little to choose is soon proven."""
KICKS = 20
"""The search ends when this many kicks in a row lead to nothing better."""

Score = tuple[float, int, int]
"""What breaks a rule; the goal, less being better; how crowded the boards are."""


def local_search(
    instance: Instance,
    goal: Measure,
    limits: Sequence[Limit],
    *,
    seed: int,
    known: Assignment | None = None,
    most_drafts: int = MOST_DRAFTS,
) -> tuple[Assignment, int] | None:
    """Return a good assignment and its value in solver units, or None if none was found.

    `known` is one that keeps all rules and limits, and where the search begins.
    """
    return _LocalSearch(instance, goal, limits, seed, most_drafts).run(known)


class _LocalSearch:
    def __init__(
        self,
        instance: Instance,
        goal: Measure,
        limits: Sequence[Limit],
        seed: int,
        most_drafts: int,
    ) -> None:
        self._instance, self._goal, self._limits = instance, goal, limits
        self._appraiser = Appraiser(instance)
        self._random = np.random.default_rng(seed)
        students = min(instance.most, instance.rounds * len(classes_of(instance)))
        choices = students * len(instance.kinds) * len(instance.options)
        self._left = min(most_drafts, DRAFTS_PER_CHOICE * choices)

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

    def _score(self, draft: Draft) -> Score:
        self._left -= 1
        view = self._appraiser.view(draft)
        over = view.excess() + sum(limit.excess(limit.measure.read(view)) for limit in self._limits)
        sign = -1 if self._goal.maximise else 1
        return over, sign * self._goal.read(view), view.crowding()

    # Where it begins.

    def _starts(self) -> Iterator[Draft]:
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

    def _dealt(self, shape: str, drop: int, students: int) -> Draft:
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
        return self._placed(Draft(owners, [option] * students, [0] * students, drop, again))

    def _least(self, shape: str) -> int:
        """Return the option of this G0 with the fewest MACs."""
        options = self._instance.options
        return min(
            (o for o, option in enumerate(options) if option.group0 == shape),
            key=lambda o: (options[o].line.macs, o),
        )

    def _placed(self, draft: Draft) -> Draft:
        """Put each student where the score is best, as if those before it were the only ones."""
        for s in range(len(draft.boards)):
            owners = [owner if owner <= s else DROPPED for owner in draft.owners]
            again = draft.again[: max(0, s + 1 - len(draft.first_round))]
            options, boards = draft.options[: s + 1], draft.boards[: s + 1]
            first = Draft(owners, options, boards, draft.drop, again)
            scores = [(self._score(_put_last(first, b)), b) for b in self._instance.boards]
            draft.boards[s] = min(scores)[1]
        return draft

    # How it goes on.

    def _descend(self, draft: Draft, score: Score) -> tuple[Draft, Score]:
        """Take each move that helps, until none does."""
        helped = True
        while helped and self._left > 0:
            helped = False
            for move in self._moves(draft):
                other = moved(self._instance, draft, move)
                if other is None or self._left <= 0:
                    continue
                better = self._score(other)
                if better < score:
                    draft, score, helped = other, better, True
        return draft, score

    def _kicked(self, draft: Draft) -> Draft:
        """Make a few moves whether they help or not."""
        for move in self._moves(draft)[:4]:
            draft = moved(self._instance, draft, move) or draft
        return draft

    def _moves(self, draft: Draft) -> list[Move]:
        """Return all moves in random order."""
        found = moves(self._instance, draft)
        return [found[place] for place in self._random.permutation(len(found))]


def _put_last(draft: Draft, board: int) -> Draft:
    """Put the last student on a board."""
    draft.boards[-1] = board
    return draft
