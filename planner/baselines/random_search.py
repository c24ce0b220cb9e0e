"""Random search: many plans drawn within the budgets, the best one kept."""

from collections.abc import Sequence

import numpy as np

from planner.assignment import Assignment
from planner.baselines.draft import Draft
from planner.baselines.merge import kept_communities
from planner.baselines.worth import best_of
from planner.instance import Instance, instance_of
from planner.question import Question

SAMPLES = 1000
"""Plans drawn, unless asked otherwise."""


def random_search(question: Question, samples: int = SAMPLES) -> Assignment | None:
    """Draw `samples` plans with the question's seed, and return the best by its objective.

    What is dropped, the number of students and the G0 are drawn first, then the communities of
    each student, then, student by student, a network and a board among those that still have
    room.  A draw that leaves a student without room is lost.
    """
    instance = instance_of(question)
    draw = np.random.default_rng(question.seed)
    drawn = (_plan(instance, draw) for _ in range(samples))
    found = list(dict.fromkeys(plan for plan in drawn if plan is not None))
    return best_of(question, found)


def _plan(instance: Instance, draw: np.random.Generator) -> Assignment | None:
    if instance.slots < instance.min_students:
        return None
    students = int(draw.integers(instance.min_students, instance.slots, endpoint=True))
    drops = [d for d in instance.drops if len(kept_communities(instance, d)) >= students]
    drop = drops[draw.integers(len(drops))]
    shapes = sorted({option.group0 for option in instance.options})
    shape = shapes[draw.integers(len(shapes))]
    draft = Draft.empty(instance)
    for share in _shares(kept_communities(instance, drop), students, draw):
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


def _shares(
    communities: Sequence[int], students: int, draw: np.random.Generator
) -> list[list[int]]:
    """Give each student one community, and each of the others to any student."""
    shuffled = draw.permutation(communities).tolist()
    shares = [[community] for community in shuffled[:students]]
    for community in shuffled[students:]:
        shares[draw.integers(students)].append(community)
    return shares
