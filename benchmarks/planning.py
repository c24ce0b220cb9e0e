"""Baselines beside the proven optimum, on seeded unlike fleets; writes docs/planner-benchmark.md.

    python benchmarks/planning.py                  100 questions per objective
    python benchmarks/planning.py --samples 64     the same file on every machine

Random search has as many samples as fit into the solver's seconds, measured in the same run and
rounded down to a power of two, unless `--samples` says how many.
"""

import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from drawn_problems import unlike_question

from nonn_common.document import write_atomic
from planner.data.modes import Assignment
from planner.heuristics.baselines import BASELINES, random_search
from planner.plan_file.plan_document import PlanDocument
from planner.plan_file.validation import level_values
from planner.problem.goals import MAXIMISED, Objective, ObjectiveLevel
from planner.problem.problem import Problem
from planner.solve import solve

OBJECTIVES: tuple[Objective, ...] = ("latency", "energy", "capacity", "imbalance")
UNITS = {"imbalance": "filters"}
"""Gaps are in per cent of the optimum, but for an optimum that may be 0."""
DETERMINISTIC_LIMIT = 20.0
TRIAL_SAMPLES = 32
OPTIMAL_GAP = 1e-4
"""Gaps that the solver's rounding can hide count as none."""

DESCRIPTIONS = {
    "greedy": "the paper's: greedy merge, one network for all students, one student per board",
    "lpt": "longest processing time first, each student where it ends first",
    "rocoin-style": "like RoCoIn (arXiv:2406.14185): a student per group of like boards",
    "ram": "filters in proportion to memory, one student per board, as exo spreads layers",
    "random": "the best of {samples} plans drawn at random, as many as the solver's time allows",
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Solved:
    """A question with its answer; `best` is the optimum, or the bound where it is not proven."""

    question: Problem
    answer: PlanDocument
    seconds: float

    @property
    def best(self) -> float:
        """The optimum, or a bound on it."""
        stage = self.answer.stages[0]
        return stage.value if stage.proven or stage.bound is None else stage.bound

    def gap(self, assignment: Assignment) -> float:
        """Return how far an assignment is from the best, in per cent or in filters."""
        objective = self.question.objective[0].objective
        value = level_values(self.question, assignment)[0]
        worse = self.best - value if objective in MAXIMISED else value - self.best
        return worse if objective in UNITS else 100 * worse / self.best


@dataclass(frozen=True, slots=True)
class Row:
    """One baseline on all questions of one objective that have a plan."""

    baseline: str
    none: int
    optimal: int
    mean: float
    median: float
    worst: float
    seconds: float

    @classmethod
    def of(cls, name: str, gaps: Sequence[float | None], seconds: float) -> "Row":
        """Sum up the gaps of one baseline; None where it found no plan."""
        found = [gap for gap in gaps if gap is not None]
        return cls(
            baseline=name,
            none=len(gaps) - len(found),
            optimal=sum(gap <= OPTIMAL_GAP for gap in found),
            mean=statistics.fmean(found),
            median=statistics.median(found),
            worst=max(found),
            seconds=seconds,
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """All baselines on one objective."""

    objective: Objective
    questions: int
    feasible: int
    proven: int
    seconds: float
    samples: int
    rows: tuple[Row, ...]


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return the result of `work`, and its seconds."""
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def solved(objective: Objective, seed: int) -> Solved:
    """Draw a question and prove its answer."""
    question = unlike_question(seed, objective=(ObjectiveLevel(objective=objective),)).model_copy(
        update={"deterministic_limit": DETERMINISTIC_LIMIT}
    )
    return Solved(question, *timed(lambda: solve(question)))


def affordable_samples(feasible: Sequence[Solved]) -> int:
    """Return how many random samples take as long as the solver: a power of two, rounded down."""
    _, seconds = timed(lambda: [random_search(one.question, TRIAL_SAMPLES) for one in feasible])
    fitting = TRIAL_SAMPLES * sum(one.seconds for one in feasible) / seconds
    return 2 ** max(0, math.floor(math.log2(fitting)))


def compare(objective: Objective, instances: int, samples: int | None) -> Comparison:
    """Solve all questions of an objective, and give them to each baseline."""
    answers = [solved(objective, seed) for seed in range(instances)]
    feasible = [one for one in answers if one.answer.status != "infeasible"]
    drawn = samples or affordable_samples(feasible)
    rows = []
    for name, baseline in BASELINES.items():
        answer = baseline if name != "random" else lambda one: random_search(one, drawn)
        found, seconds = timed(lambda answer=answer: [answer(one.question) for one in feasible])
        pairs = zip(feasible, found, strict=True)
        gaps = [None if plan is None else one.gap(plan) for one, plan in pairs]
        rows.append(Row.of(name, gaps, seconds))
    return Comparison(
        objective=objective,
        questions=instances,
        feasible=len(feasible),
        proven=sum(one.answer.status == "optimal" for one in feasible),
        seconds=sum(one.seconds for one in feasible),
        samples=drawn,
        rows=tuple(rows),
    )


def page(comparisons: Sequence[Comparison], solver: str) -> str:
    """Return the Markdown page."""
    questions = comparisons[0].questions
    samples = "/".join(str(one.samples) for one in comparisons)
    lines = [
        "# Baselines beside the proven optimum",
        "",
        f"Written by `make bench` (`benchmarks/planning.py`); {solver}, one worker.",
        "",
        f"Seeds 0 to {questions - 1} of `unlike_question` in `tests/drawn_problems.py`: 4 to 8 "
        "boards, each with a device, a link and budgets of its own, 3 to 6 students as asked, 6 to "
        "12 communities of 6 to 39 filters, three widths. Each question has one objective. The gap "
        "is the distance of a baseline's plan from the proven optimum, in per cent of it "
        "(imbalance: in filters), over the questions for which the baseline finds a plan; "
        "`no plan` counts the others that have one.",
        "",
        "| baseline | what it does |",
        "|---|---|",
        *(f"| {name} | {text.format(samples=samples)} |" for name, text in DESCRIPTIONS.items()),
        "",
        "All but `random` merge communities as the paper does (`ram`: by memory) and drop the "
        "largest allowed P0. Each is tried with every choice of largest network, and the best of "
        "these by the objective counts.",
    ]
    for one in comparisons:
        lines += ["", *_section(one)]
    return "\n".join(lines) + "\n"


def _section(one: Comparison) -> list[str]:
    unit = UNITS.get(one.objective, "%")
    return [
        f"## {one.objective}",
        "",
        f"{one.feasible} of {one.questions} questions have a plan; {one.proven} optima are proven.",
        "",
        f"| baseline | no plan | optimal | mean gap, {unit} | median, {unit} | worst, {unit} |",
        "|---|---:|---:|---:|---:|---:|",
        *(
            f"| {row.baseline} | {row.none} | {row.optimal} | {_shown(row.mean)} | "
            f"{_shown(row.median)} | {_shown(row.worst)} |"
            for row in one.rows
        ),
    ]


def _shown(gap: float) -> str:
    # Rounding may leave the optimum a millionth above what a baseline finds: no -0.0.
    return f"{max(0.0, gap):.1f}"


def main(
    instances: Annotated[int, typer.Option(min=1, help="Questions per objective.")] = 100,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Samples of random search, instead of measured.")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Page to write.")] = Path(
        "docs/planner-benchmark.md"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print figures and seconds.")] = False,
) -> None:
    """Measure the gap of every baseline, and write the page."""
    console = Console()
    comparisons = [compare(objective, instances, samples) for objective in OBJECTIVES]
    run = solve(unlike_question(0)).solver
    write_atomic(output, page(comparisons, f"{run.name} {run.version}").encode())
    if as_json:
        console.print_json(json.dumps([asdict(one) for one in comparisons]))
        return
    console.print(f"{platform.machine()}, Python {platform.python_version()}; {run.version}")
    for one in comparisons:
        ratios = ", ".join(f"{row.baseline} {row.seconds / one.seconds:.2f}" for row in one.rows)
        console.print(f"{one.objective}: {one.seconds:.1f} s; time beside the solver's: {ratios}")
    console.print(f"written to {output}")


if __name__ == "__main__":
    typer.run(main)
