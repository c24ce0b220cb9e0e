"""Local search: a good plan in a fraction of a second, without a proof.

Moves and swaps until none helps.  What it finds bounds the proof from the start: whatever alone
would be worse need not be modelled.  The same instance and seed find the same plan, however fast
the machine.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, cycle, islice, product

import numpy as np

from planner.data.modes import Assignment
from planner.data.objective_function import ObjectiveBound, ObjectiveFunction
from planner.data.problem_data import ProblemData
from planner.heuristics import DROPPED, SearchEffort, Solution
from planner.heuristics.solution import CostEvaluator, EvaluatedSolution

Move = tuple[str, int, int]
"""Kind of a move, and the two numbers of its students, communities, boards or modes."""


def enumerate_moves(data: ProblemData, solution: Solution) -> list[Move]:
    """Return all moves; one may not be possible any more once others have been made."""
    students, communities = range(len(solution.modes)), range(len(data.sizes))
    boards = data.places_to_take({b for own in solution.replica_sets() for b in own})
    found: list[Move] = [("board", s, b) for s, b in product(students, boards)]
    found += [("option", s, o) for s, o in product(students, range(len(data.modes)))]
    found += [("exchange", s, t) for s, t in combinations(students, 2)]
    if data.spare_communities or len(data.drop_choices) > 1:
        found += [("give", c, s) for c, s in product(communities, students)]
        found += [("trade", c, d) for c, d in combinations(communities, 2)]
        found += [("part", c, b) for c, b in product(communities, boards)]
    if data.has_copies:
        found += [("copy", s, b) for s, b in product(students, boards)]
        found += [("alone", s, b) for s, b in product(students, data.boards)]
    elif data.rivals and data.counts_energy:
        used = dict.fromkeys(solution.boards)
        found += [("point", b, other) for b in used for other in data.free_points(b, used)]
    if data.extra_students:
        kept = (c for c, owner in enumerate(solution.owners) if owner != DROPPED)
        found += [("again", c, b) for c, b in product(kept, boards)]
        found += [("leave", s, 0) for s in students]
    return found


def apply_move(data: ProblemData, solution: Solution, move: Move) -> Solution | None:
    """Return the draft after a move; None where it changes nothing or is not possible."""
    kind, one, other = move
    after = solution.copy()
    if not _MOVES[kind](after, one, other):
        return None
    if kind == "copy" and len(after.copies[one]) >= data.max_copies:
        return None
    if kind == "option":
        _share_group0(data, after, other)
    return after


def _share_group0(data: ProblemData, solution: Solution, mode: int) -> None:
    """Give students of another G0 than this option's the option, too."""
    shape = data.modes[mode].group0
    solution.modes[:] = [
        each if data.modes[each].group0 == shape else mode for each in solution.modes
    ]


def _board(solution: Solution, student: int, board: int) -> bool:
    """Move a student to another board, or wait for another of its copies."""
    if student >= len(solution.boards) or solution.boards[student] == board:
        return False
    before, copies = solution.boards[student], solution.copies[student]
    solution.copies[student] = tuple(before if each == board else each for each in copies)
    solution.boards[student] = board
    return True


def _copy(solution: Solution, student: int, board: int) -> bool:
    """Put a copy of a student on a further board."""
    if student >= len(solution.boards) or board in solution.replica_sets()[student]:
        return False
    solution.copies[student] += (board,)
    return True


def _alone(solution: Solution, student: int, board: int) -> bool:
    """Remove a copy of a student from a board."""
    if student >= len(solution.boards) or board not in solution.copies[student]:
        return False
    solution.copies[student] = tuple(each for each in solution.copies[student] if each != board)
    return True


def _point(solution: Solution, place: int, other: int) -> bool:
    """Let a board work at another point: all its students move there."""
    if place not in solution.boards or other in solution.boards:
        return False
    solution.boards[:] = [other if b == place else b for b in solution.boards]
    return True


def _option(solution: Solution, student: int, mode: int) -> bool:
    """Make a student another network."""
    if student >= len(solution.modes) or solution.modes[student] == mode:
        return False
    solution.modes[student] = mode
    return True


def _exchange(solution: Solution, one: int, other: int) -> bool:
    """Exchange what two students know."""
    if max(one, other) not in solution.first_round:
        return False
    trade = {one: other, other: one}
    solution.owners[:] = [trade.get(owner, owner) for owner in solution.owners]
    return True


def _give(solution: Solution, community: int, student: int) -> bool:
    """Give a community to another student; a student that has none left goes."""
    owner = solution.owners[community]
    if owner in (DROPPED, student) or student not in solution.first_round:
        return False
    solution.owners[community] = student
    if owner not in solution.owners:
        del solution.modes[owner], solution.boards[owner], solution.copies[owner]
        solution.owners[:] = [each - (each > owner) for each in solution.owners]
    return True


def _trade(solution: Solution, one: int, other: int) -> bool:
    """Exchange the owners of two communities."""
    owners = solution.owners
    if DROPPED in (owners[one], owners[other]) or owners[one] == owners[other]:
        return False
    owners[one], owners[other] = owners[other], owners[one]
    return True


def _part(solution: Solution, community: int, board: int) -> bool:
    """Let a community leave for a new student, of the same network, on a board."""
    owner = solution.owners[community]
    if owner == DROPPED or solution.owners.count(owner) == 1:
        return False
    place = len(solution.first_round)
    solution.owners[community] = place
    solution.modes.insert(place, solution.modes[owner])
    solution.boards.insert(place, board)
    solution.copies.insert(place, ())
    return True


def _again(solution: Solution, community: int, board: int) -> bool:
    """Add a student of an extra round, like a community's owner, on a board."""
    solution.modes.append(solution.modes[solution.owners[community]])
    solution.boards.append(board)
    solution.copies.append(())
    solution.extra_communities.append(community)
    return True


def _leave(solution: Solution, student: int, _: int) -> bool:
    """Let a student of a further round go."""
    first = len(solution.first_round)
    if not first <= student < len(solution.modes):
        return False
    del solution.modes[student], solution.boards[student], solution.copies[student]
    del solution.extra_communities[student - first]
    return True


_MOVES: dict[str, Callable[[Solution, int, int], bool]] = {
    "board": _board,
    "point": _point,
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

UNITS_PER_SOLUTION, UNITS_PER_STUDENT = 1.5e-5, 1.3e-6
"""Deterministic time of a draft, and of each of its students, beside the solver's own."""


Score = tuple[float, int, int]
"""Violation of the rules; value of the goal, less being better; tie-breaker."""


def local_search(
    data: ProblemData,
    goal: ObjectiveFunction,
    limits: Sequence[ObjectiveBound],
    *,
    seed: int,
    incumbent: Assignment | None = None,
    most_solutions: int = MOST_SOLUTIONS,
    kicks: int = KICKS,
    effort: SearchEffort | None = None,
) -> tuple[Assignment, int] | None:
    """Good assignment and its value in solver units; None if none was found.

    `incumbent` is one that keeps all rules and limits, and where the search begins.  It ends at the
    limit of the `effort`, and after so many `kicks` in a row that lead to nothing better.
    """
    effort = effort or SearchEffort()
    return _LocalSearch(data, goal, limits, seed, most_solutions, effort).run(incumbent, kicks)


class _LocalSearch:
    def __init__(
        self,
        data: ProblemData,
        goal: ObjectiveFunction,
        limits: Sequence[ObjectiveBound],
        seed: int,
        most_solutions: int,
        effort: SearchEffort,
    ) -> None:
        self._effort = effort
        self._data, self._goal, self._limits = data, goal, limits
        self._sign = -1 if goal.maximise else 1
        self._appraiser = CostEvaluator(data)
        self._random = np.random.default_rng(seed)
        self._left = min(most_solutions, SOLUTIONS_PER_CHOICE * data.choices)

    def run(self, incumbent: Assignment | None, kicks: int) -> tuple[Assignment, int] | None:
        starts = [self._appraiser.solution_of(incumbent)] if incumbent else self._starts()
        found = [self._descend(solution) for solution in list(starts)]
        if not found:
            return None
        solution, score = min(found, key=lambda one: one[1])
        failed = 0
        while failed < kicks and self._goes_on:
            other, better = self._descend(self._kicked(solution))
            failed += 1
            if better < score:
                solution, score, failed = other, better, 0
        if score[0] > 0:
            return None
        return self._appraiser.assignment_of(solution), self._goal.read(
            self._appraiser.evaluate(solution)
        )

    def _value(
        self,
        solution: Solution,
        near: EvaluatedSolution | None = None,
        beaten: Score = (math.inf, 0, 0),
    ) -> tuple[Score, EvaluatedSolution]:
        """Score of a draft; where it breaks more rules than `beaten`, no more than that."""
        self._left -= 1
        self._effort.spent += UNITS_PER_SOLUTION + len(solution.modes) * UNITS_PER_STUDENT
        view = self._appraiser.evaluate(solution, near)
        over = view.violation()
        for limit in self._limits:
            if over > beaten[0]:
                return (over, 0, 0), view
            over += limit.violation(limit.measure.read(view))
        if over > beaten[0]:
            return (over, 0, 0), view
        value = self._sign * self._goal.read(view)
        return (over, value, 0 if (over, value) > beaten[:2] else view.tie_breaker()), view

    @property
    def _goes_on(self) -> bool:
        return self._left > 0 and not self._effort.over

    # Where it begins.

    def _starts(self) -> Iterator[Solution]:
        """Yield start solutions for each G0, drop step and a few student counts."""
        data = self._data
        shapes = sorted({mode.group0 for mode in data.modes})
        counts = {data.slots, data.most_students, max(1, data.min_students), (data.slots + 1) // 2}
        drops, begun = range(len(data.drop_choices)), False
        for shape, drop, count in product(shapes, drops, sorted(counts)):
            kept = len(data.sizes) - len(data.drop_choices[drop].communities)
            if self._effort.over and begun:
                return
            if count >= data.min_students and (count <= kept or data.reuse):
                begun = True
                yield self._dealt(shape, drop, count)

    def _dealt(self, shape: str, drop: int, students: int) -> Solution:
        """Deal the communities, larger ones first, to the smallest students; then place these.

        Where there are more students than communities, smaller ones come first in further rounds.
        """
        data = self._data
        kept = [c for c in data.communities if c not in data.drop_choices[drop].communities]
        count = min(students, len(kept))
        owners, sizes = [DROPPED] * len(data.sizes), [0] * count
        for community in kept:
            owner = min(range(count), key=lambda s: (sizes[s], s))
            owners[community] = owner
            sizes[owner] += data.sizes[community]
        again = list(islice(cycle(reversed(kept)), students - count))
        mode = self._least(shape)
        return self._placed(Solution(owners, [mode] * students, [0] * students, drop, again))

    def _least(self, shape: str) -> int:
        """Return the option of this G0 with the fewest MACs."""
        modes = self._data.modes
        return min((mode.line.macs, o) for o, mode in enumerate(modes) if mode.group0 == shape)[1]

    def _placed(self, solution: Solution) -> Solution:
        """Put each student where the score is best, one after the other.

        Of boards that are alike and hold the same, the first one is tried.  At the limit those that
        are left go to one board after the other.
        """
        data, boards_in_turn = self._data, cycle(self._data.boards)
        held: dict[int, object] = {}
        for s in range(len(solution.boards)):
            if self._effort.over:
                solution.boards[s] = next(boards_in_turn)
                continue
            owners = [owner if owner <= s else DROPPED for owner in solution.owners]
            again = solution.extra_communities[: max(0, s + 1 - len(solution.first_round))]
            modes, boards = solution.modes[: s + 1], solution.boards[: s + 1]
            first = Solution(owners, modes, boards, solution.drop, again)
            views: list[tuple[Score, int, EvaluatedSolution]] = []
            tried: dict[object, int] = {}
            for b in data.places_to_take(set(boards[:s])):
                tried.setdefault((data.board_class(b), held.get(b)), b)
            for b in tried.values():
                draft, near = first.copy(), views[-1][2] if views else None
                draft.boards[-1] = b
                self._appraiser.take_better_points(draft, near)
                score, view = self._value(draft, near)
                views.append((score, b, view))
            *_, view = min(views, key=lambda one: one[:2])
            solution.boards[: s + 1] = [row[0] for row in view.placed[: s + 1]]
            held |= {board: one.load.tasks for board, one in view.loads.items()}
        return solution

    # How it goes on.

    def _descend(self, solution: Solution) -> tuple[Solution, Score]:
        """Take each move that helps, until none does."""
        score, view = self._value(solution)
        helped = True
        while helped and self._goes_on:
            helped = False
            for move in self._moves(solution):
                other = apply_move(self._data, solution, move)
                if not self._goes_on:
                    break
                if other is None:
                    continue
                self._appraiser.take_better_points(other, view)
                better, there = self._value(other, view, score)
                if better < score:
                    solution, score, view, helped = other, better, there, True
        return solution, score

    def _kicked(self, solution: Solution) -> Solution:
        """Make a few moves whether they help or not."""
        after = solution.copy()
        for move in self._moves(solution)[:4]:
            after = apply_move(self._data, after, move) or after
        self._appraiser.take_better_points(after)
        return after

    def _moves(self, solution: Solution) -> list[Move]:
        """Return all moves in random order."""
        found = enumerate_moves(self._data, solution)
        return [found[place] for place in self._random.permutation(len(found))]
