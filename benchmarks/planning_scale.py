"""How long the proof takes as questions grow: unlike students on unlike boards, and alike ones.

Unlike: as many students and communities as boards, no two of them alike, three widths, budgets that
bind on some boards.  Alike: one community of one size for each student.  Each row is one question,
solved to optimality for one objective; seconds of one core, start of the interpreter not counted.

    python benchmarks/planning_scale.py [--seeds 5] [--json]

With a baseline, a revision of this repository, both builds answer the same questions through the
command line, in turns, and the ratio of their processor times is shown (user and system time of the
child, imports included; 1 is the baseline).  The dependencies are those installed here; the code of
both is compiled beforehand, as that of an installed program is.  What a killed run left of its
baseline is removed by the next one.
Options that the baseline does not know are given to the other build alone, so that both are asked
for the same: a copy of G0 for each student, and no bound on how unlike partitions are.  Fields of
drawn devices that the baseline does not know are left out for both.

    python benchmarks/planning_scale.py --baseline 8f2e3c0 [--parts proof,size,front,shell] [--json]
"""

import argparse
import json
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "planner"))
from drawn_problems import alike_question, unlike_question
from planner_questions import PUBLISHED_SIZES, partition

from nonn_common.document import Document
from nonn_common.errors import NonnError
from nonn_common.units import FLOPS_PER_MAC
from planner.plan_file.plan_document import PlanDocument
from planner.problem.goals import ObjectiveLevel
from planner.problem.problem import Problem
from planner.solve import solve

HERE = Path(__file__).parent.parent
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


def asked_for(question: Problem, objective: str) -> Problem:
    """Return a question with an objective, and the limit."""
    stages = tuple(ObjectiveLevel.parse(part) for part in objective.split(","))
    return question.model_copy(update={"objective": stages, "deterministic_limit": LIMIT})


def solved(question: Problem, objective: str) -> tuple[str, float]:
    """Return how a question was answered, and the seconds that took."""
    begun = time.perf_counter()
    try:
        plan = solve(asked_for(question, objective))
    except NonnError as error:
        return type(error).__name__, time.perf_counter() - begun
    return answer_of(plan), time.perf_counter() - begun


def answer_of(plan: PlanDocument) -> str:
    """Return a plan's status, or its gap where it is not proven."""
    gaps = [stage.gap_pct for stage in plan.stages if not stage.proven]
    return f"gap {max(gap or 0.0 for gap in gaps):.3f} %" if gaps else plan.status


def run(
    command: Sequence[str | Path], folder: Path = HERE, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with so much beside the environment."""
    return subprocess.run(  # noqa: S603  (this program, and git)
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True
    )


@dataclass(frozen=True)
class Build:
    """A build of the program, by where its code is."""

    name: str
    root: Path
    compiled: Path

    def compile(self) -> None:
        """Compile its code to a folder of its own."""
        rooms = (
            one.parent for one in self.root.glob("*/__init__.py") if one.parent.name != "tests"
        )
        self._python(["-m", "compileall", "-q", *map(str, rooms)], self.root)

    def run(self, arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
        """Run a command of the program on one core."""
        return self._python(["-m", "nonn_plan", *arguments], folder)

    def _python(self, arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
        own = {"PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        compiled = {"PYTHONPYCACHEPREFIX": str(self.compiled), "PYTHONDONTWRITEBYTECODE": ""}
        return run([sys.executable, *arguments], folder, **own, **compiled)

    def timed(self, arguments: Sequence[str], folder: Path) -> tuple[float, float]:
        """Run a command; its processor time and user time, in seconds."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = self.run(arguments, folder)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode not in (0, 4):
            raise SystemExit(f"{self.name}: {' '.join(arguments)}\n{done.stderr}")
        user = after.ru_utime - before.ru_utime
        return user + after.ru_stime - before.ru_stime, user

    def own_options(self, folder: Path) -> list[str]:
        """Options with which it means what builds meant before there were these options."""
        said = self.run(["plan", "--help"], folder).stdout
        return [part for option in AS_BEFORE if option[0] in said for part in option]


AS_BEFORE = (("--group0-copies", "per-student"), ("--balance", "off"))
"""Options of builds that would ask for something else without them."""
PARTS = ("proof", "size", "front", "shell")
QUICKSTART_SIZES = (35, 27, 25, 20, 19, 2)
"""Communities that `quickstart` finds with seed 0."""


@dataclass(frozen=True)
class Case:
    """A command, its files, how often it is run, and which deterministic limit it has."""

    part: str
    name: str
    arguments: tuple[str, ...]
    files: dict[str, Document]
    runs: int = 1

    def measured(
        self, builds: Sequence[tuple[Build, Sequence[str]]], schemas: Path
    ) -> list["Measurement"]:
        """Run it so often with each build and its own options, in turns.

        Each run has a folder of its own; its files have what `schemas` know.
        """
        answers, seconds = [""] * len(builds), [[] for _ in builds]
        for _ in range(self.runs):
            for place, (build, own) in enumerate(builds):
                with tempfile.TemporaryDirectory() as made:
                    self._write(Path(made), schemas)
                    seconds[place].append(build.timed([*self.arguments, *own], Path(made)))
                    answers[place] = answered(Path(made))
        medians = [[median(column) for column in zip(*rows, strict=True)] for rows in seconds]
        return [Measurement(one, *row) for one, row in zip(answers, medians, strict=True)]

    def _write(self, folder: Path, schemas: Path) -> None:
        for name, content in self.files.items():
            schema = json.loads((schemas / name.replace(".", ".schema.")).read_text())
            written = content.model_dump(mode="json", exclude_defaults=True)
            (folder / name).write_text(json.dumps(known_fields(written, schema, schema)))


@dataclass(frozen=True)
class Measurement:
    """An answer, and processor and user time in seconds."""

    answer: str
    seconds: float
    user: float


def known_fields(content: Any, schema: dict[str, Any], root: dict[str, Any]) -> Any:
    """Leave out fields that a schema does not know, such as rates of layers of a device."""
    for one in (schema, *schema.get("anyOf", ())):
        while "$ref" in one:
            one = root["$defs"][one["$ref"].split("/")[-1]]
        if isinstance(content, dict) and "properties" in one:
            return {
                name: known_fields(value, one["properties"][name], root)
                for name, value in content.items()
                if name in one["properties"]
            }
        if isinstance(content, list) and isinstance(one.get("items"), dict):
            return [known_fields(value, one["items"], root) for value in content]
    return content


def answered(folder: Path) -> str:
    """Read from what a command wrote how it answered."""
    if (folder / "plan.json").exists():
        plan = json.loads((folder / "plan.json").read_text())
        gaps = [stage["gap_pct"] for stage in plan["stages"] if not stage["proven"]]
        return f"gap {max(gap or 0.0 for gap in gaps):.2f} %" if gaps else str(plan["status"])
    if (folder / "explore" / "explore.json").exists():
        found = json.loads((folder / "explore" / "explore.json").read_text())["cells"][-1]["found"]
        return f"{found['status']}, {len(found['points'])} points"
    return "no plan"


def typed(question: Problem, objective: str, limit: float, students: str) -> tuple[str, ...]:
    """Return a question as people type it, but for its files."""
    budgets = question.budgets
    return (
        *("plan", "partition.json", "--fleet", "fleet.json", "--objective", objective),
        *("--students", students, "--limit", f"{limit:g}", "--epsilon", "1"),
        *("--precision", ",".join(question.precisions)),
        *("--image", question.image, "--classes", str(question.classes)),
        *(part for name in question.networks for part in ("--student", name)),
        *(part for one in budgets for part in ("--memory", f"{one.board}={one.memory_bytes}B")),
        *(
            part
            for one in budgets
            for part in ("--flops", f"{one.board}={FLOPS_PER_MAC * (one.macs or 0) / 1e6:f}M")
        ),
    )


def cases() -> Iterator[Case]:
    """Yield the questions that both builds are asked."""
    staged = "dropped,capacity:5%,imbalance,latency"

    def unlike(part: str, count: int, objective: str, limit: float = LIMIT, seed: int = 0) -> Case:
        same = (count, count)
        asked = unlike_question(seed, boards=same, students=same, communities=same)
        files = {"partition.json": asked.partition, "fleet.json": asked.fleet}
        name = f"{count}x{count}, seed {seed}, limit {limit:g}: {objective}"
        return Case(part, name, typed(asked, objective, limit, str(count)), files)

    yield unlike("proof", 16, staged, 3)
    yield unlike("proof", 16, staged, 3, seed=1)
    yield unlike("proof", 24, staged)
    yield unlike("proof", 32, staged)
    yield unlike("size", 48, "capacity")
    yield unlike("size", 64, "capacity")
    many = unlike_question(0, boards=(8, 8), students=(8, 8), communities=(20, 20))
    files = {"partition.json": many.partition, "fleet.json": many.fleet}
    for students in ("8", "1:8"):
        arguments = typed(many, "latency", LIMIT, students)
        yield Case("size", f"{students} students, 20 communities: latency", arguments, files)
    widths = [f"wrn10:{a},{b},{c}" for a in (8, 16) for b in (16, 24, 32) for c in (16, 32, 48, 64)]
    yield Case(
        "front",
        "the quickstart's front: capacity,latency,students",
        (
            *("explore", "partition.json", "--fleet", "mixed", "--objective", "latency"),
            *("--memory", "250KB", "--memory", "odroid-xu4s-1=400KB", "--jobs", "1"),
            *("--flops", "5M", "--flops", "odroid-xu4s-1=8M", "--limit", "1000"),
            *("--image", "1x16x16", "--classes", "10", "--epsilon", "1"),
            *("--pareto", "capacity,latency,students"),
            *(part for name in widths for part in ("--student", name)),
        ),
        {"partition.json": partition(QUICKSTART_SIZES)},
    )
    yield Case(
        "shell",
        "the published case, from the shell",
        (
            *("plan", "partition.json", "--fleet", "rpi3x2", "--teacher-network", "wrn40-4"),
            *("--image", "3x32x32", "--classes", "10", "--memory", "500KB", "--flops", "200M"),
            *("--precision", "int8"),
        ),
        {"partition.json": partition(PUBLISHED_SIZES)},
        runs=15,
    )


BESIDE = ("case", "baseline", "now", "baseline, s", "now, s", "ratio", "ratio of user time")


MADE = "planning-scale-"
"""Beginning of the names of folders that runs make; the number of the process follows."""


def remove_leftovers() -> None:
    """Remove the baselines of runs that were killed."""
    listed = run(["git", "worktree", "list", "--porcelain"]).stdout
    for name, number in re.findall(rf"^worktree (.*/{MADE}(\d+)-[^/]*)/baseline$", listed, re.M):
        if not Path(f"/proc/{number}").exists():
            run(["git", "worktree", "remove", "--force", Path(name) / "baseline"])
            shutil.rmtree(name, ignore_errors=True)
    run(["git", "worktree", "prune"])


def compared(revision: str, parts: Sequence[str], progress: Console) -> list[tuple[str, ...]]:
    """Measure both builds on each case; the baseline is checked out, and removed afterwards."""
    rows = []
    remove_leftovers()
    # Else a run that is ended does not come to what follows `finally`.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    with tempfile.TemporaryDirectory(prefix=f"{MADE}{os.getpid()}-") as made:
        root = Path(made) / "baseline"
        done = run(["git", "worktree", "add", "--detach", root, revision])
        if done.returncode:
            raise SystemExit(done.stderr)
        try:
            old = Build(revision, root, Path(made) / "compiled-baseline")
            new = Build("now", HERE, Path(made) / "compiled-now")
            schemas = root / "docs" / "schemas"
            builds = []
            for build in (old, new):
                build.compile()
                builds.append((build, build.own_options(Path(made))))
            for case in cases():
                if case.part not in parts:
                    continue
                before, now = case.measured(builds, schemas)
                times = (f"{before.seconds:.2f}", f"{now.seconds:.2f}")
                ratios = (f"{now.seconds / before.seconds:.3f}", f"{now.user / before.user:.3f}")
                rows.append((case.name, before.answer, now.answer, *times, *ratios))
                progress.print(": ".join(rows[-1][:1]), " | ".join(rows[-1][1:]), style="dim")
        finally:
            run(["git", "worktree", "remove", "--force", root])
    return rows


def shown(
    columns: Sequence[str], rows: Sequence[tuple[str, ...]], title: str, as_json: bool
) -> None:
    """Print rows as a table, or as JSON."""
    if as_json:
        print(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], indent=2))
        return
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*row)
    Console(width=140).print(table)


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--baseline", metavar="REV", help="a revision to compare with")
    parser.add_argument("--parts", default=",".join(PARTS), help="of the comparison")
    given = parser.parse_args()
    progress = Console(stderr=True)
    if given.baseline:
        parts = given.parts.split(",")
        if unknown := set(parts) - set(PARTS):
            parser.error(f"--parts: {min(unknown)}; allowed: {', '.join(PARTS)}")
        title = f"Processor time beside {given.baseline} ({platform.machine()})"
        shown(BESIDE, compared(given.baseline, parts, progress), title, given.json)
        return
    rows = []
    for name, question in questions(given.seeds):
        for objective in OBJECTIVES[:1] if name.startswith("32 ") else OBJECTIVES:
            answer, seconds = solved(question, objective)
            progress.print(f"{name}: {objective}: {answer}, {seconds:.2f} s", style="dim")
            rows.append((name, objective, answer, f"{seconds:.2f}"))
    shown(COLUMNS, rows, f"Seconds to the proof, one core ({platform.machine()})", given.json)


if __name__ == "__main__":
    main()
