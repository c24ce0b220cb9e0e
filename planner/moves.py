"""Moves: the small changes by which one draft becomes another."""

from collections.abc import Callable
from itertools import combinations, product

from planner.draft import DROPPED, Draft
from planner.instance import Instance

Move = tuple[str, int, int]
"""What is done, and to which two: students, communities, boards or options by their places."""


def moves(instance: Instance, draft: Draft) -> list[Move]:
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


def moved(instance: Instance, draft: Draft, move: Move) -> Draft | None:
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


def _share_group0(instance: Instance, draft: Draft, option: int) -> None:
    """Give students of another G0 than this option's the option, too."""
    shape = instance.options[option].group0
    draft.options[:] = [
        each if instance.options[each].group0 == shape else option for each in draft.options
    ]


def _board(draft: Draft, student: int, board: int) -> bool:
    """Put a student on another board, or let the host wait for another one of its copies."""
    if student >= len(draft.boards) or draft.boards[student] == board:
        return False
    before, copies = draft.boards[student], draft.copies[student]
    draft.copies[student] = tuple(before if each == board else each for each in copies)
    draft.boards[student] = board
    return True


def _copy(draft: Draft, student: int, board: int) -> bool:
    """Put a copy of a student on a further board."""
    if student >= len(draft.boards) or board in draft.homes()[student]:
        return False
    draft.copies[student] += (board,)
    return True


def _alone(draft: Draft, student: int, board: int) -> bool:
    """Remove a copy of a student from a board."""
    if student >= len(draft.boards) or board not in draft.copies[student]:
        return False
    draft.copies[student] = tuple(each for each in draft.copies[student] if each != board)
    return True


def _option(draft: Draft, student: int, option: int) -> bool:
    """Make a student another network."""
    if student >= len(draft.options) or draft.options[student] == option:
        return False
    draft.options[student] = option
    return True


def _exchange(draft: Draft, one: int, other: int) -> bool:
    """Exchange what two students know."""
    if max(one, other) not in draft.first_round:
        return False
    trade = {one: other, other: one}
    draft.owners[:] = [trade.get(owner, owner) for owner in draft.owners]
    return True


def _give(draft: Draft, community: int, student: int) -> bool:
    """Give a community to another student; a student that has none left goes."""
    owner = draft.owners[community]
    if owner in (DROPPED, student) or student not in draft.first_round:
        return False
    draft.owners[community] = student
    if owner not in draft.owners:
        del draft.options[owner], draft.boards[owner], draft.copies[owner]
        draft.owners[:] = [each - (each > owner) for each in draft.owners]
    return True


def _trade(draft: Draft, one: int, other: int) -> bool:
    """Exchange the owners of two communities."""
    owners = draft.owners
    if DROPPED in (owners[one], owners[other]) or owners[one] == owners[other]:
        return False
    owners[one], owners[other] = owners[other], owners[one]
    return True


def _part(draft: Draft, community: int, board: int) -> bool:
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


def _again(draft: Draft, community: int, board: int) -> bool:
    """Add a student of a further round, like the one that owns a community, on a board."""
    draft.options.append(draft.options[draft.owners[community]])
    draft.boards.append(board)
    draft.copies.append(())
    draft.again.append(community)
    return True


def _leave(draft: Draft, student: int, _: int) -> bool:
    """Let a student of a further round go."""
    first = len(draft.first_round)
    if not first <= student < len(draft.options):
        return False
    del draft.options[student], draft.boards[student], draft.copies[student]
    del draft.again[student - first]
    return True


_MOVES: dict[str, Callable[[Draft, int, int], bool]] = {
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
