"""Board states one by one, beside the evaluator that only counts answers."""

from dataclasses import dataclass

import numpy as np

from planner.reliability.robustness import failure_causes, state_probabilities


@dataclass(frozen=True, slots=True)
class BoardState:
    """Which boards are up, and how likely exactly these are, from 0 to 1."""

    up: frozenset[str]
    probability: float


def board_states(failures, boards):
    """Possible states of `boards`, most likely first; no state twice, none impossible.

    Of equally likely states the one comes first in which later boards are up.
    """
    found = state_probabilities(failure_causes(failures, boards), len(boards))
    likely_first = sorted(np.flatnonzero(found).tolist(), key=lambda up: (-found[up], -up))
    return tuple(
        BoardState(
            frozenset(b for place, b in enumerate(boards) if up >> place & 1), float(found[up])
        )
        for up in likely_first
    )
