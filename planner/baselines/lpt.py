"""Longest processing time first (Graham 1969), for boards of unlike speed."""

from planner.assignment import Assignment
from planner.baselines.attempt import best_attempt
from planner.baselines.draft import Draft
from planner.baselines.merge import Merge
from planner.instance import Instance, instance_of
from planner.option import Option
from planner.question import Question


def longest_processing_time(question: Question) -> Assignment | None:
    """Place students, those of most work first, each on the board that is done with it first.

    The end counts the turns of the host's sends, students that share the board, and the reply.
    Each student has the best network for which a board has room.  The partitions are those of
    the greedy merge, as many as the question allows.
    """
    instance = instance_of(question)
    return best_attempt(question, instance, _earliest_end, instance.slots)


def _earliest_end(instance: Instance, merge: Merge, menu: tuple[Option, ...]) -> Draft | None:
    draft = Draft.empty(instance)
    for share in merge.shares:
        extended = _placed(draft, share, menu)
        if extended is None:
            return None
        draft = extended
    return draft


def _placed(draft: Draft, share: tuple[int, ...], menu: tuple[Option, ...]) -> Draft | None:
    """Return the draft with this share too, in the first network that some board takes."""
    for option in menu:
        boards = draft.boards_for(option, share)
        if boards:
            extended = [(board, draft.plus(board, option, share)) for board in boards]
            return min(extended, key=lambda one: one[1].done_ms(one[0]))[1]
    return None
