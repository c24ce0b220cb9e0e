"""Baselines by name."""

from collections.abc import Callable

from planner.assignment import Assignment
from planner.baselines.greedy import greedy
from planner.baselines.lpt import longest_processing_time
from planner.baselines.ram import proportional_to_ram
from planner.baselines.random_search import random_search
from planner.baselines.rocoin import rocoin_style
from planner.question import Question
from profiles.errors import InputError

Baseline = Callable[[Question], Assignment | None]
"""Answers a question; None where it finds nothing within the budgets, which proves nothing."""

BASELINES: dict[str, Baseline] = {
    "greedy": greedy,
    "lpt": longest_processing_time,
    "rocoin-style": rocoin_style,
    "ram": proportional_to_ram,
    "random": random_search,
}


def baseline(name: str) -> Baseline:
    """Return the baseline of this name; raises InputError."""
    if name not in BASELINES:
        raise InputError("no such baseline", found=name, allowed=", ".join(BASELINES))
    return BASELINES[name]
