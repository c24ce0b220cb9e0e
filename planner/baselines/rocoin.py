"""A heuristic in the style of RoCoIn (Wang et al. 2024, arXiv:2406.14185).

RoCoIn groups boards, gives each group one student, and lets every board of the group hold it, so
that one of them may fail.  Neither its code nor its instances are published, so that this is its
idea and not its figures.
"""

from itertools import pairwise

import numpy as np
from scipy.optimize import linear_sum_assignment

from planner.assignment import Assignment
from planner.baselines.attempt import best_attempt
from planner.baselines.draft import Draft
from planner.baselines.merge import Merge
from planner.instance import Instance, instance_of
from planner.option import Option
from planner.question import Question

Group = tuple[int, ...]
"""Places of boards, the fastest first."""


def rocoin_style(question: Question) -> Assignment | None:
    """Group boards of like capability, one student per group, and match students to groups.

    Boards without room for the smallest network are left out.  A group runs the largest network
    that each of its boards has room for.  Of all matchings, that one is taken where the slowest
    boards' times sum to the least.  A student is on its group's fastest board and, where the
    question allows copies, on as many further ones.
    """
    instance = instance_of(question)
    return best_attempt(question, instance, _matched_to_groups, len(instance.sites))


def _matched_to_groups(instance: Instance, merge: Merge, menu: tuple[Option, ...]) -> Draft | None:
    empty = Draft.empty(instance)
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
    empty: Draft, boards: tuple[int, ...], merge: Merge, option: Option
) -> tuple[Group, ...]:
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
    empty: Draft, group: Group, share: tuple[int, ...], menu: tuple[Option, ...]
) -> Option:
    """Return the largest network that every board of the group has room for; the last one fits."""
    fitting = (each for each in menu if set(group) <= set(empty.boards_for(each, share)))
    return next(fitting, menu[-1])
