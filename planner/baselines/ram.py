"""Placement in proportion to memory, as exo spreads the layers of a model over devices."""

from planner.assignment import Assignment
from planner.baselines.attempt import best_attempt
from planner.baselines.draft import Draft
from planner.baselines.merge import Merge
from planner.instance import Instance, instance_of
from planner.option import Option
from planner.question import Question


def proportional_to_ram(question: Question) -> Assignment | None:
    """Give each board one student, with filters in proportion to the board's memory budget.

    With fewer students than boards, the boards of most memory have them.
    """
    memory_bytes = [budget.memory_bytes for budget in question.budgets]

    def rule(instance: Instance, merge: Merge, menu: tuple[Option, ...]) -> Draft | None:
        return _by_memory(instance, merge, menu, memory_bytes)

    instance = instance_of(question)
    return best_attempt(question, instance, rule, len(instance.sites))


def _by_memory(
    instance: Instance, merge: Merge, menu: tuple[Option, ...], memory_bytes: list[int]
) -> Draft | None:
    order = sorted(range(len(memory_bytes)), key=lambda board: -memory_bytes[board])
    boards = order[: len(merge.shares)]
    shares = _shares(instance, merge, [memory_bytes[board] for board in boards])
    draft = Draft.empty(instance)
    for board, share in zip(boards, shares, strict=True):
        option = next((each for each in menu if board in draft.boards_for(each, share)), None)
        if option is None:
            return None
        draft = draft.plus(board, option, share)
    return draft


def _shares(instance: Instance, merge: Merge, weights: list[int]) -> list[list[int]]:
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
