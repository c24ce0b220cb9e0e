"""Price of open operating points: processor time of a proof, beside one named point a board.

16 unlike boards run at one named operating point each, at any of three, at any of three under
power limits that bind, and at those that were found best, named, with these limits.  The processor
time is shown beside that of the first.

    python benchmarks/open_points.py [--seeds 5] [--json]
"""

import argparse
import platform
import time
from collections.abc import Iterator
from itertools import product

from planning_scale import OBJECTIVES, answer_of, asked_for, shown
from rich.console import Console

from drawn_problems import unlike_question, with_open_points  # isort: skip  (its path is set there)

from planner.plan_file.plan_document import PlanDocument
from planner.problem.problem import Problem
from planner.solve import solve

COLUMNS = ("question", "objective", "answers", "one, s", "three", "limits", "named, limits")
BOARDS = 16


def rows(seeds: int, progress: Console) -> Iterator[tuple[str, ...]]:
    """Yield a row for each drawn question and each of two objectives."""
    same = (BOARDS, BOARDS)
    for seed, objective in product(range(seeds), (OBJECTIVES[-1], OBJECTIVES[0])):
        named = unlike_question(seed, boards=same, students=same, communities=same)
        free, limited = (with_open_points(named, seed, limited=each) for each in (False, True))
        plans: list[PlanDocument] = []
        took: list[float] = []
        for one in (named, free, limited, None):
            begun = time.process_time()
            plans.append(solve(asked_for(one or at_points_of(plans[-1]), objective)))
            took.append(time.process_time() - begun)
        ratios = (f"{each / took[0]:.2f}" for each in took[1:])
        row = (f"seed {seed}", objective, ", ".join(map(answer_of, plans)), f"{took[0]:.2f}")
        yield (*row, *ratios)
        progress.print(" | ".join(row), style="dim")


def at_points_of(plan: PlanDocument) -> Problem:
    """Return a plan's question with the operating points that it chose, named."""
    fleet = plan.question.fleet
    boards = tuple(row.model_copy(update={"points": "named"}) for row in fleet.boards)
    named = fleet.model_copy(update={"boards": boards})
    return plan.question.model_copy(update={"fleet": named})


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    title = f"Processor time with three points a board, beside one (1; {platform.machine()})"
    shown(COLUMNS, [*rows(given.seeds, Console(stderr=True))], title, given.json)


if __name__ == "__main__":
    main()
