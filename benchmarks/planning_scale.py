"""How long the proof takes as questions grow: unlike students on unlike boards, and alike ones.

Unlike: as many students and communities as boards, no two of them alike, three widths, budgets that
bind on some boards.  Alike: one community of one size for each student.  Each row is one question,
solved to optimality for one objective; seconds of one core, start of the interpreter not counted.

    python benchmarks/planning_scale.py [--seeds 5] [--json]
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from drawn_problems import alike_question, unlike_question

from nonn_common.errors import NonnError
from planner.problem.goals import ObjectiveLevel
from planner.problem.problem import Problem
from planner.solve import solve

OBJECTIVES = (
    "latency",
    "capacity",
    "accuracy",
    "energy",
    "throughput",
    "dropped,capacity:5%,imbalance,latency",
)
COLUMNS = ("question", "objective", "answer", "seconds")
LIMIT = 60.0
"""Deterministic time, about seconds."""


def questions(seeds: int) -> Iterator[tuple[str, Problem]]:
    """Yield name and question, without an objective of their own."""
    for count in (8, 16, 32):
        for seed in range(seeds):
            same = (count, count)
            yield (
                f"{count} unlike students x {count} unlike boards, seed {seed}",
                unlike_question(seed, boards=same, students=same, communities=same),
            )
    yield "64 alike students x 64 alike boards", alike_question(64, 64)
    unlike = unlike_question(0, boards=(64, 64), students=(64, 64), communities=(64, 64))
    alike = alike_question(64, 64).partition
    yield "64 alike students x 64 unlike boards", unlike.model_copy(update={"partition": alike})


def solved(question: Problem, objective: str) -> tuple[str, float]:
    """Return how a question was answered, and the seconds that took."""
    stages = tuple(ObjectiveLevel.parse(part) for part in objective.split(","))
    asked = question.model_copy(update={"objective": stages, "deterministic_limit": LIMIT})
    begun = time.perf_counter()
    try:
        plan = solve(asked)
    except NonnError as error:
        return type(error).__name__, time.perf_counter() - begun
    gaps = [stage.gap_pct for stage in plan.stages if not stage.proven]
    found = f"gap {max(gap or 0.0 for gap in gaps):.3f} %" if gaps else plan.status
    return found, time.perf_counter() - begun


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = []
    progress = Console(stderr=True)
    for name, question in questions(given.seeds):
        for objective in OBJECTIVES[:1] if name.startswith("32 ") else OBJECTIVES:
            answer, seconds = solved(question, objective)
            progress.print(f"{name}: {objective}: {answer}, {seconds:.2f} s", style="dim")
            rows.append((name, objective, answer, f"{seconds:.2f}"))
    if given.json:
        print(json.dumps([dict(zip(COLUMNS, row, strict=True)) for row in rows], indent=2))
        return
    table = Table(*COLUMNS, title=f"Seconds to the proof, one core ({platform.machine()})")
    for row in rows:
        table.add_row(*row)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
