"""Cells of an exploration: one problem and its result each, solved on cores or workers.

A cell is a file, whose name is the digest of all that the answer depends on, so that the same
problem is never solved twice, and another one never mistaken for it.
"""

import hashlib
import json
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any, Literal

from pydantic import Field

from nonn_common.document import Document, Record
from nonn_common.errors import InputError, NonnError, UnprovenError
from planner.data.modes import Assignment
from planner.data.point_choice import settle
from planner.exploration.budget_grid import BudgetGrid, cell_plans
from planner.exploration.trade_offs import Breakpoint, BudgetRange, find_breakpoints
from planner.exploration.trade_offs import find_pareto_front as front_of
from planner.plan_file.evaluation import PlanEvaluation
from planner.plan_file.plan_document import LevelResult, PlanDocument
from planner.problem.goals import Objective
from planner.problem.problem import Problem
from planner.solve import solve
from planner.solvers.lexicographic import with_least_inversion
from planner.solvers.search import SolverSession, TimeBudget
from profiles.fleet import resolve

CellKind = Literal["plan", "front", "breakpoints"]
CellStatus = Literal["optimal", "infeasible", "unproven"]
PLAN_VALUES: tuple[Objective, ...] = (
    "capacity",
    "imbalance",
    "latency",
    "energy",
    "memory",
    "flops",
    "boards",
    "students",
)
"""Figures of each plan, beside the objectives that were asked for."""


class FrontPoint(Record):
    """A plan of a front: its values, and what it consists of."""

    values: dict[str, float] = Field(description="Value of each measure, in its unit.")
    networks: tuple[str, ...] = Field(description="Networks of the students.")
    boards: tuple[str, ...] = Field(description="Boards of the students, in the same order.")
    points: tuple[str, ...] = Field(
        default=(),
        description="Operating points of these boards, devices by name; empty where all are named.",
    )
    figures: dict[str, float] = Field(
        default={}, description="Further figures of the plan, in their units."
    )
    filters: tuple[int, ...] = Field(default=(), description="Filters of the students, likewise.")


class CellResult(Document):
    """Result of one problem, kept in a file and found again by its digest."""

    digest: str = Field(description="Digest of the question, of what was asked, and of versions.")
    kind: CellKind = Field(description="One plan, a Pareto front, or the break-points of a budget.")
    status: CellStatus = Field(
        description="optimal: proven, whole. infeasible: proven that there is no plan. unproven: "
        "the limit stopped the solver; what is here holds, and there may be better or more."
    )
    values: dict[str, float] = Field(
        default={},
        description="Of a plan: value of each stage and further figures, in their units.",
    )
    networks: tuple[str, ...] = Field(default=(), description="Of a plan: the students' networks.")
    boards: tuple[str, ...] = Field(
        default=(), description="Of a plan: each student's board, or boards with commas between."
    )
    filters: tuple[int, ...] = Field(default=(), description="Of a plan: the students' filters.")
    stages: tuple[LevelResult, ...] = Field(default=(), description="Of a plan: the proof.")
    conflict: tuple[str, ...] = Field(
        default=(), description="What cannot hold together, where there is no plan."
    )
    refusal: Literal["enumerated", "certified", "seconded", "unconfirmed"] | None = Field(
        default=None,
        description="What infeasible rests on: enumerated, all plans; certified, prices in whole "
        "numbers; seconded, a second engine's agreement, no proof; unconfirmed, one solver's word.",
    )
    points: tuple[FrontPoint, ...] = Field(default=(), description="Of a front: its plans.")
    enumerated_plans: int | None = Field(
        default=None,
        ge=0,
        description="Of a front: how many plans were enumerated, which is the proof; null: the "
        "solver proved it.",
    )
    breakpoints: tuple[Breakpoint, ...] = Field(
        default=(), description="Of a budget: its break-points, the highest first."
    )
    deterministic_time: float = Field(ge=0, description="Time it took, in the solver's unit.")


@dataclass(frozen=True, slots=True)
class CellRequest:
    """A question, and what is to be found of it."""

    kind: CellKind
    problem: Problem
    over: BudgetRange | None = None
    grid: BudgetGrid | None = None
    """Grid that enumerates its plans once; no answer depends on it."""

    @property
    def digest(self) -> str:
        """Digest of all that the answer depends on, versions and hardware included."""
        content = {
            "kind": self.kind,
            "question": self.problem.model_dump(mode="json"),
            "over": repr(self.over),
            "hardware": repr(resolve(self.problem.fleet)),
            "versions": versions(),
        }
        text = json.dumps(content, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def find(self) -> CellResult:
        """Solve it."""
        finding = {"plan": _plan, "front": _front, "breakpoints": _breakpoints}
        return finding[self.kind](self)


@cache
def versions() -> dict[str, str]:
    """Return the versions that an answer depends on."""
    return {name: version(name) for name in ("nonn-plan", "ortools")}


def read_cell_result(path: Path, digest: str) -> CellResult | None:
    """Result of an earlier run; None where its file is missing or damaged."""
    try:
        found = CellResult.read(path)
    except InputError:
        return None
    return found if found.digest == digest else None


def _plan(asked: CellRequest) -> CellResult:
    problem = asked.problem
    plans = cell_plans(problem, asked.grid)
    try:
        plan = solve(problem, find=None if plans is None else lambda _: plans.search)
    except UnprovenError:
        return CellResult(
            digest=asked.digest,
            kind="plan",
            status="unproven",
            deterministic_time=problem.deterministic_limit,
        )
    return CellResult(
        digest=asked.digest,
        kind="plan",
        status="unproven" if plan.status == "feasible" else plan.status,
        values=_values_of_plan(plan),
        networks=tuple(student.network for student in plan.students),
        boards=tuple(", ".join(student.boards) for student in plan.students),
        filters=tuple(len(student.filters) for student in plan.students),
        stages=plan.stages,
        conflict=plan.conflict,
        deterministic_time=plan.solver.deterministic_time,
    )


def _values_of_plan(plan: PlanDocument) -> dict[str, float]:
    if plan.predicted is None:
        return {}
    names: dict[Objective, None] = dict.fromkeys(
        [*(level.objective for level in plan.stages), *PLAN_VALUES]
    )
    return _figures(PlanEvaluation.of_plan(plan), names)


def _figures(evaluation: PlanEvaluation, names: Iterable[Objective]) -> dict[str, float]:
    """Figures of a plan, and its accuracy where that is known."""
    values: dict[str, float] = {name: evaluation.value(name) for name in names}
    accuracy = evaluation.accuracy
    if accuracy is not None and accuracy.value_pct is not None:
        values["accuracy"] = accuracy.value_pct
    return values


def _front(asked: CellRequest) -> CellResult:
    problem = asked.problem
    meter = TimeBudget(problem.deterministic_limit)
    session = SolverSession(problem, meter, most_solutions=0)
    front = front_of(session, grid=asked.grid)
    if front.complete and not front.found and problem.inversion is not None:
        # Limits force that some wider student knows less.
        front = front_of(session.for_problem(with_least_inversion(session)))
    members = zip(front.found, front.evaluations, strict=True)
    points = [_point(problem, one.assignment, evaluation) for one, evaluation in members]
    status: CellStatus = "optimal" if points else "infeasible"
    return CellResult(
        digest=asked.digest,
        kind="front",
        status=status if front.complete else "unproven",
        points=tuple(points),
        enumerated_plans=front.enumerated,
        deterministic_time=round(problem.deterministic_limit - meter.remaining, 6),
    )


def _point(problem: Problem, assignment: Assignment, evaluation: PlanEvaluation) -> FrontPoint:
    values: dict[str, float] = {
        level.objective: evaluation.value(level.objective) for level in problem.objective
    }
    figures = _figures(evaluation, PLAN_VALUES)
    settled, placed = settle(problem, assignment)
    rows = [settled.fleet.boards[one.board] for one in placed.students]
    return FrontPoint(
        values=values,
        figures={name: value for name, value in figures.items() if name not in values},
        filters=tuple(
            sum(len(problem.partition.communities[c].filters) for c in one.communities)
            for one in assignment.students
        ),
        networks=tuple(student.network for student in assignment.students),
        boards=tuple(row.name for row in rows),
        points=tuple(row.device for row in rows) if settled is not problem else (),
    )


def _breakpoints(asked: CellRequest) -> CellResult:
    if asked.over is None:
        raise ValueError("break-points are of a budget")
    problem = asked.problem
    meter = TimeBudget(problem.deterministic_limit)
    steps = find_breakpoints(SolverSession(problem, meter, most_solutions=0), asked.over)
    status: CellStatus = "optimal" if steps.breakpoints else "infeasible"
    return CellResult(
        digest=asked.digest,
        kind="breakpoints",
        status=status if steps.proven else "unproven",
        breakpoints=steps.breakpoints,
        deterministic_time=round(problem.deterministic_limit - meter.remaining, 6),
    )


_CONNECT_S = 10
_WORKERS_S = 30


@dataclass(frozen=True, slots=True)
class TimedResult:
    """A result and the seconds that it took where it was found."""

    found: CellResult
    took_s: float

    @classmethod
    def of(cls, cell: CellRequest) -> "TimedResult":
        """Solve a cell."""
        start_s = monotonic()
        return cls(cell.find(), monotonic() - start_s)


def solve_cells_locally(cells: Sequence[CellRequest], jobs: int) -> Iterator[TimedResult]:
    """Yield results, as they come, from this machine's cores; -1 uses all."""
    from joblib import Parallel, delayed

    if jobs == 1 or len(cells) < 2:
        yield from map(TimedResult.of, cells)
        return
    workers = Parallel(n_jobs=min(jobs, len(cells)) or 1, return_as="generator_unordered")
    home = os.getpid()
    yield from workers(delayed(_find_away)(cell, home) for cell in cells)


def solve_cells_on_cluster(cells: Sequence[CellRequest], address: str) -> Iterator[TimedResult]:
    """Yield results, as they come, from the Dask scheduler's workers at `address`.

    Raises InputError where there is no such scheduler or dask is not installed, and NonnError
    where its workers are not as this machine is.
    """
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise InputError(
            "--dask needs packages that are not installed", fix="pip install 'nonn-plan[dask]'"
        ) from None
    try:
        client = Client(address, timeout=_CONNECT_S)
    except (OSError, ValueError) as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"no Dask scheduler answers: {detail}", where="--dask", found=address
        ) from None
    with client:
        _check_workers(client)
        futures = client.map(TimedResult.of, cells, pure=False)
        for future in as_completed(futures):
            yield future.result()


def _check_workers(client: Any) -> None:
    """Refuse workers that would answer otherwise than this machine."""
    try:
        client.wait_for_workers(1, timeout=_WORKERS_S)
    except TimeoutError:
        raise NonnError(
            "--dask: the scheduler has no workers; start some and run this again"
        ) from None
    try:
        there = client.run(versions)
    except Exception as error:  # whatever a machine of somebody else lacks, or raises
        raise NonnError(f"--dask: a worker cannot run nonn-plan: {error!r}") from None
    for worker, found in there.items():
        if found != versions():
            raise NonnError(f"--dask: worker {worker} has {found}, and this machine {versions()}")


def _find_away(cell: CellRequest, home: int) -> TimedResult:
    """Solve in a worker process, which leaves Ctrl-C to the one that started it."""
    if os.getpid() != home:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return TimedResult.of(cell)
