"""A question with its best-known answer: a file of `benchmarks/instances`.

A question is what `nonn-plan plan` takes: a partition, a fleet, and options.  The answer is a
decision, from which all figures follow anew, and each stage's value, bound and certificate.
"""

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from nonn_common.document import Document, Record, write_atomic
from nonn_core.networks.network_cost import Precision
from nonn_core.partition import Partition
from nonn_plan.cli.parsers.problem_options import ProblemOptions
from planner.certificates import Certificate
from planner.data.modes import AssignedStudent
from planner.plan_file.decision_workload import evaluate_decision
from planner.plan_file.evaluation import PlanEvaluation, build_plan
from planner.plan_file.plan_document import LevelResult, PlanDocument, SolverRun
from planner.problem.problem import Problem
from profiles.fleet import Fleet

FOLDER = Path(__file__).parent / "instances"
PROOFS = ("best known", "proven", "certified")
"""Grounds of a best-known value, the weakest first."""

Proof = Literal["best known", "proven", "certified"]


class KnownStudent(Record):
    """One student of the best-known plan."""

    communities: tuple[int, ...] = Field(description="Ids of its communities.")
    network: str = Field(description="Its network.")
    precision: Precision = Field(default="int8", description="Its storage.")
    boards: tuple[str, ...] = Field(description="Boards that hold it, the first one first.")
    round: int = Field(default=1, description="Above 1: its filters are reshuffled.")


class Known(Record):
    """The best answer that is known, and what it stands on."""

    proof: Proof = Field(description="The weakest of all stages.")
    by: str = Field(description="What found it, and within which deterministic limit.")
    stages: tuple[LevelResult, ...] = Field(description="Value and bound by stage; none: no plan.")
    students: tuple[KnownStudent, ...] = Field(default=(), description="Students; none: no plan.")
    dropped: tuple[int, ...] = Field(default=(), description="Communities that nobody mimics.")
    group0: tuple[str, Precision] | None = Field(default=None, description="Board of G0 alone.")
    send_order: tuple[str, ...] = Field(default=(), description="Boards, as they are sent to.")
    inversion: int | None = Field(default=None, description="That of the plan's question.")
    conflict: tuple[str, ...] = Field(default=(), description="Of no plan: why.")
    refutation: Certificate | None = Field(default=None, description="Of no plan: its proof.")


class Instance(Document):
    """A question as the command line takes it, and its best-known answer."""

    name: str = Field(description="Name of the file, without its ending.")
    options: dict[str, int | str | tuple[str, ...]] = Field(
        description="Options of `nonn-plan plan`, by name, beside the two files."
    )
    partition: Partition = Field(description="What is in partition.json.")
    fleet: Fleet = Field(description="What is in fleet.json.")
    known: Known | None = Field(default=None, description="Best known; null: not asked yet.")

    @property
    def problem(self) -> Problem:
        """The question, read as the command reads it."""
        options: dict[str, Any] = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in self.options.items()
        }
        return ProblemOptions(**options).problem(self.partition, self.fleet, where=self.name)

    @property
    def command(self) -> str:
        """The question as people type it."""
        words = ["nonn-plan", "plan", "partition.json", "--fleet", "fleet.json"]
        for name, value in self.options.items():
            for text in value if isinstance(value, tuple) else (value,):
                words += [f"--{name.replace('_', '-')}", str(text)]
        return shlex.join(words)

    @property
    def plan(self) -> PlanDocument:
        """The best-known plan, evaluated anew from its decision."""
        known, problem = self.known, self.problem
        if known is None:
            raise SystemExit(f"{self.name} has no best-known value: run with --take-over")
        problem = problem.model_copy(update={"inversion": known.inversion})
        run = SolverRun(name=known.by, version="see by", seed=problem.seed, deterministic_time=0)
        if not known.students:
            return PlanDocument(
                question=problem, status="infeasible", students=(), dropped=(), dropped_filters=0,
                delta_val_pct=None, send_order=(), budgets=(), predicted=None, stages=(),
                solver=run, conflict=known.conflict, refutation=known.refutation,
            )  # fmt: skip
        places = {board.name: place for place, board in enumerate(problem.fleet.boards)}
        students = {
            f"student-{number}": AssignedStudent(
                one.communities, one.network, one.precision, places[one.boards[0]], one.round,
                tuple(places[name] for name in one.boards[1:]),
            )
            for number, one in enumerate(known.students, start=1)
        }  # fmt: skip
        decision = evaluate_decision(problem, students, known.dropped, known.group0)
        return build_plan(
            PlanEvaluation(problem, decision, known.send_order),
            status="optimal" if all(one.proven for one in known.stages) else "feasible",
            stages=known.stages,
            solver=run,
        )

    def save(self) -> None:
        """Write it, each field on a line of its own."""
        content = self.model_dump(mode="json", exclude_defaults=True)
        rows = ",\n".join(
            f"{json.dumps(name)}:{json.dumps(value, separators=(',', ':'))}"
            for name, value in content.items()
        )
        write_atomic(FOLDER / f"{self.name}.json", f"{{{rows}}}\n".encode())


def instances(names: Sequence[str]) -> Iterator[Instance]:
    """Read the files whose names begin so; all for none."""
    for path in sorted(FOLDER.glob("*.json")):
        if not names or any(path.stem.startswith(name) for name in names):
            yield Instance.read(path)
