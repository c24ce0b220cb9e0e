"""The paper's way: greedy merge, one network for all students, one student per board."""

from planner.assignment import Assignment
from planner.baselines.attempt import best_attempt
from planner.baselines.draft import Draft
from planner.baselines.merge import Merge
from planner.instance import Instance, instance_of
from planner.option import Option
from planner.question import Question


def greedy(question: Question) -> Assignment | None:
    """Give each board one student, all in the best network that every one of them has room for.

    A (section 4.2) has as many students as boards and drops the largest P0; where budgets or
    communities forbid that, one student less is tried.  A's boards are alike and assigned by hand;
    here the largest partition goes to the board that would be done with it first, and so on.
    """
    instance = instance_of(question)
    return best_attempt(question, instance, _one_per_board, len(instance.sites))


def _one_per_board(instance: Instance, merge: Merge, menu: tuple[Option, ...]) -> Draft | None:
    draft, option = Draft.empty(instance), menu[0]
    for share in merge.shares:
        taken = {board for student in draft.placed for board in student.boards}
        boards = [b for b in draft.boards_for(option, share) if b not in taken]
        if not boards:
            return None
        fastest = min(boards, key=lambda board: draft.alone_ms(board, option, share))
        draft = draft.plus(fastest, option, share)
    return draft
