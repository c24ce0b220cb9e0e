"""Attempts: a rule that places students is tried with every menu, and with fewer students."""

from collections.abc import Callable

from planner.assignment import Assignment
from planner.baselines.draft import Draft
from planner.baselines.menu import menus
from planner.baselines.merge import Merge, merges
from planner.baselines.worth import best_of
from planner.instance import Instance
from planner.option import Option
from planner.question import Question

Rule = Callable[[Instance, Merge, tuple[Option, ...]], Draft | None]
"""Places each share of a merge in a network of a menu; None where the rule finds no room."""


def best_attempt(
    question: Question, instance: Instance, rule: Rule, most: int
) -> Assignment | None:
    """Return the best that a rule finds with the most students, up to `most`, that it can place.

    One attempt for each menu: which networks serve the objective is found by trying.
    """
    for merge in merges(instance, most):
        drafts = [rule(instance, merge, menu) for menu in menus(instance)]
        found = [draft.assignment(merge.dropped) for draft in drafts if draft is not None]
        best = best_of(question, found)
        if best is not None:
            return best
    return None
