"""How many bounds get a certificate that closes, how long it takes, and how long to check it.

Drawn: questions of 4 to 8 unlike boards, 3 to 6 students and 6 to 12 communities that merge.  Even:
as many students and communities as boards, from 4 to 32.  A question counts where every stage's
bound, or that there is no plan, is certified.  Seconds of processor time, all questions of a row
together.  With `--kind default` boards share G0 and partitions are balanced, as `plan` asks where
nothing else is typed; `precisions` and `copies` are that with int8 and fp32, and with two copies.

    python benchmarks/certificates.py [--questions 300] [--most 32] [--seeds 3]
        [--objective capacity] [--kind own] [--json]
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from drawn_problems import unlike_question

from nonn_common.errors import NonnError
from nonn_plan import PlanDocument, solve, with_certificates
from planner.certificates.verification import KNOWN, verify_plan
from planner.problem.goals import OBJECTIVES, ObjectiveLevel
from planner.problem.problem import BALANCED, Problem

ASKED = (*(name for name in OBJECTIVES if name in KNOWN), "dropped,capacity:5%,imbalance,latency")
"""Objectives that certificates know, and the default one."""
_DEFAULT = {"group0_copies": "per-board", **BALANCED}
KINDS: dict[str, dict[str, Any]] = {
    "own": {},
    "default": _DEFAULT,
    "precisions": _DEFAULT | {"precisions": ("int8", "fp32")},
    "copies": _DEFAULT | {"max_copies": 2},
}
COLUMNS = (
    "questions",
    "kind",
    "objective",
    "certified",
    "of",
    "solve s",
    "certify s",
    "check s",
    "bytes",
)
LIMIT = 60.0
"""Deterministic time for a question, about seconds."""


def asked(question: Problem, kind: str, objective: str) -> Problem:
    """Return the question with an objective, as this kind asks it."""
    stages = tuple(map(ObjectiveLevel.parse, objective.split(",")))
    fields = {"objective": stages, "deterministic_limit": LIMIT}
    return question.model_copy(update=fields | KINDS[kind])


def drawn(questions: int) -> Iterator[Problem]:
    """Yield questions whose communities merge."""
    yield from map(unlike_question, range(questions))


def even(most: int, seeds: int) -> Iterator[Problem]:
    """Yield questions of as many students and communities as boards."""
    for count in range(4, most + 1, 4):
        for seed in range(seeds):
            same = (count, count)
            yield unlike_question(seed, boards=same, students=same, communities=same)


def size(plan: PlanDocument) -> int:
    """Return the bytes of a plan's certificates."""
    found = [stage.certificate for stage in plan.stages] + [plan.refutation]
    return sum(len(one.model_dump_json()) for one in found if one is not None)


def measured(questions: Iterator[Problem], kind: str, objective: str) -> tuple[str, ...]:
    """Return how many are certified, seconds, and bytes of the largest certificates."""
    certified = number = most_bytes = 0
    spent = [0.0, 0.0, 0.0]
    for question in questions:
        times = [time.process_time()]
        try:
            plan = solve(asked(question, kind, objective))
        except NonnError:
            continue
        times.append(time.process_time())
        plan = with_certificates(plan)
        times.append(time.process_time())
        found = verify_plan(plan.question, plan.model_dump(mode="json"))
        times.append(time.process_time())
        spent = [a + times[n + 1] - times[n] for n, a in enumerate(spent)]
        number += 1
        most_bytes = max(most_bytes, size(plan))
        certified += all(one.standing == "certified" for one in found.stages)
    return (str(certified), str(number), *(f"{one:.1f}" for one in spent), str(most_bytes))


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--most", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--objective", action="append")
    parser.add_argument("--kind", choices=KINDS, default="own")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    progress = Console(stderr=True)
    rows = []
    for objective in given.objective or ASKED:
        for name, questions in (
            ("drawn", drawn(given.questions)),
            ("even", even(given.most, given.seeds)),
        ):
            rows.append((name, given.kind, objective, *measured(questions, given.kind, objective)))
            progress.print(" ".join(rows[-1]), style="dim")
    if given.json:
        print(json.dumps([dict(zip(COLUMNS, row, strict=True)) for row in rows], indent=2))
        return
    table = Table(*COLUMNS, title=f"Certificates, one core ({platform.machine()})")
    for row in rows:
        table.add_row(*row)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
