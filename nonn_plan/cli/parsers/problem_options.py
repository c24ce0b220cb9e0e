"""Options that state a problem, for every command that solves one.

A new option is a field of `ProblemOptions` and a line in its `problem`; every command that
`with_problem_options` decorates has it then.  Loads no solver.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, get_args, get_type_hints

import typer

from nonn_common.errors import InputError
from nonn_common.units import parse_pct, parse_rate
from nonn_core.networks.family import parse_network
from nonn_core.partition import Partition, TeacherReference
from nonn_plan.api import state_problem
from nonn_plan.cli.parsers.options import Seed
from nonn_plan.cli.parsers.requirements import (
    parse_balance,
    parse_budgets,
    parse_failure_chances,
    parse_objective,
    parse_requirements,
    parse_student_range,
)
from planner.problem.goals import Objective
from planner.problem.problem import BALANCED, DEFAULT_OBJECTIVE, Problem
from profiles.fleet import Fleet

T = TypeVar("T")

PartitionFile = Annotated[
    Path, typer.Argument(metavar="PARTITION", help="partition.json, as `partition` writes it.")
]
PROPOSED = (
    "networks for students are proposed, scaled to the budgets; name others with --student or "
    "--teacher-network"
)
OBJECTIVE_HELP = (
    f"Stages, most important first, of {', '.join(get_args(Objective))}; NAME:5% lets later ones "
    "give up 5 %."
)


@dataclass(frozen=True, slots=True)
class ProblemOptions:
    """Options of a problem, beside the fleet."""

    memory: Annotated[
        list[str] | None,
        typer.Option(
            "--memory", help="Memory budget, 500KB; of one board: BOARD=500KB. Repeatable."
        ),
    ] = None
    flash: Annotated[
        list[str] | None,
        typer.Option(
            "--flash", help="Flash for weights, where boards have it apart, 1MB; BOARD=1MB."
        ),
    ] = None
    ram: Annotated[
        list[str] | None,
        typer.Option("--ram", help="RAM for activations, where it is apart, 320KB; BOARD=320KB."),
    ] = None
    flops: Annotated[
        list[str] | None,
        typer.Option("--flops", help="FLOP budget per image, 200M; of one board: BOARD=200M."),
    ] = None
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            "--runtime",
            help="What the runtime takes of each memory, 40KB; BOARD=40KB; of flash and of RAM, "
            "60KB+16KB.",
        ),
    ] = None
    time: Annotated[
        list[str] | None,
        typer.Option("--time", help="How long a board may compute per image, 100ms; BOARD=100ms."),
    ] = None
    energy: Annotated[
        list[str] | None,
        typer.Option("--energy", help="Energy of a board per image, 250mJ; BOARD=250mJ."),
    ] = None
    power: Annotated[
        list[str] | None,
        typer.Option(
            "--power",
            help="Power of each board while it computes, 2W; of one: BOARD=2W; of all together: "
            "--at-most fleet-power=6W. A fleet such as rpi3x2:any leaves clocks open.",
        ),
    ] = None
    average_power: Annotated[
        list[str] | None,
        typer.Option(
            "--average-power",
            help="Power of each board on average at --rate, computing and idle, 1W; BOARD=1W; of "
            "all together: --at-most fleet-average-power=4W.",
        ),
    ] = None
    rate: Annotated[
        str | None,
        typer.Option(
            "--rate",
            help="Images that the plan is to answer, 5/s, 30/min or 12/h: required, and average "
            "power is told.",
        ),
    ] = None
    battery: Annotated[
        list[str] | None,
        typer.Option(
            "--battery", help="What a board's battery holds, 10Wh; BOARD=10Wh: its life at --rate."
        ),
    ] = None
    precision: Annotated[
        str,
        typer.Option(
            "--precision", help="Weights and activations, of fp32 and int8: int8 or fp32,int8."
        ),
    ] = "fp32"
    students: Annotated[
        str | None, typer.Option("--students", help="Number, 4, or range, 2:8; default 1:BOARDS.")
    ] = None
    student: Annotated[
        list[str] | None,
        typer.Option("--student", help="A network students may be, wrn16:32,64,88. Repeatable."),
    ] = None
    teacher_network: Annotated[
        str | None,
        typer.Option(
            "--teacher-network",
            help="Whose students to choose from, e.g. wrn40-4, where PARTITION does not say it; "
            "default for a network of your own: students that fit the budgets are proposed.",
        ),
    ] = None
    image: Annotated[
        str | None, typer.Option("--image", help="e.g. 3x32x32, where PARTITION names no teacher.")
    ] = None
    classes: Annotated[
        int | None, typer.Option("--classes", help="Where PARTITION names no teacher.")
    ] = None
    epsilon: Annotated[
        float | None,
        typer.Option(
            "--epsilon",
            help="Points of validation accuracy P0 may cost; 0 drops nothing; default: what "
            "PARTITION was made with.",
        ),
    ] = None
    objective: Annotated[str, typer.Option("--objective", help=OBJECTIVE_HELP)] = ",".join(
        map(str, DEFAULT_OBJECTIVE)
    )
    minimise: Annotated[
        list[str] | None,
        typer.Option("--minimise", help="In place of --objective: latency. Repeatable."),
    ] = None
    at_least: Annotated[
        list[str] | None,
        typer.Option("--at-least", help="Require: accuracy=94.5%, throughput=20/s. Repeatable."),
    ] = None
    at_most: Annotated[
        list[str] | None,
        typer.Option("--at-most", help="Require: latency=50ms, energy=900mJ. Repeatable."),
    ] = None
    balance: Annotated[
        str,
        typer.Option(
            "--balance",
            help="How unlike partitions may be: largest less smallest at most the least that whole "
            "communities allow, and this part of the mean; off: any, whoever is wider.",
        ),
    ] = f"{BALANCED['balance_pct']:g}%"
    host: Annotated[
        list[str] | None,
        typer.Option("--host", help="A device that may be the host; default: the fleet's."),
    ] = None
    teacher_accuracy: Annotated[
        str | None,
        typer.Option("--teacher-accuracy", help="The teacher's test accuracy, 95.6%."),
    ] = None
    rows: Annotated[
        list[Path] | None,
        typer.Option("--rows", help="A finished run or a table, to predict accuracy from."),
    ] = None
    copies: Annotated[
        int | None,
        typer.Option("--copies", min=1, help="Most boards that may hold the same student."),
    ] = None
    group0: Annotated[
        str,
        typer.Option(
            "--group0",
            help="The students' shared first group: replicated (a copy on each board), own-board, "
            "or either.",
        ),
    ] = "replicated"
    group0_copies: Annotated[
        str,
        typer.Option(
            "--group0-copies",
            help="Copies of it: per-board (students of one board and precision share one), or "
            "per-student, as published.",
        ),
    ] = "per-board"
    survive: Annotated[
        int | None,
        typer.Option(
            "--survive", min=0, help="Failures, whichever they are, that lose no student."
        ),
    ] = None
    failure: Annotated[
        list[str] | None,
        typer.Option("--failure", help="Chance that a board is down, 1%; of one: BOARD=2%."),
    ] = None
    outage: Annotated[
        list[str] | None,
        typer.Option(
            "--outage", help="Boards that one cause takes at once: BOARD,BOARD=0.5%. Repeatable."
        ),
    ] = None
    target: Annotated[
        str | None,
        typer.Option("--target", help="Accuracy that answers should have, 93%, for reliability."),
    ] = None
    subsets: Annotated[
        Path | None,
        typer.Option(
            "--subsets", help="evaluation.json: what the answers of some students are worth."
        ),
    ] = None
    robust: Annotated[
        bool,
        typer.Option(
            "--robust", help="Plan for the upper end of the 90 % interval of each board's times."
        ),
    ] = False
    limit: Annotated[
        float, typer.Option("--limit", help="Deterministic time limit, about seconds of one core.")
    ] = 120.0
    seed: Seed = 0

    @property
    def limits_flash(self) -> bool:
        """Whether flash or RAM of every board is limited."""
        return any("=" not in text for text in (*(self.flash or ()), *(self.ram or ())))

    def problem(self, partition: Partition, fleet: Fleet, *, where: str) -> Problem:
        """State the problem; raises InputError that names `where`."""
        fewest, most = parse_student_range(self.students)
        survived = [f"survival={self.survive}"] if self.survive else []
        teacher = partition.teacher
        self._require_what_no_teacher_says(partition)
        precisions = tuple(part.strip() for part in self.precision.split(","))
        shape = str(_given("--image", self.image, teacher and teacher.image))
        count = _given("--classes", self.classes, teacher.classes if teacher else None)
        return state_problem(
            partition,
            fleet,
            teacher_network=self.teacher_network,
            teacher_accuracy_pct=None
            if self.teacher_accuracy is None
            else parse_pct(self.teacher_accuracy, "--teacher-accuracy", small=False),
            run_files=self.rows or (),
            where=where,
            budgets=parse_budgets(
                fleet,
                self.memory or [],
                self.flops or [],
                self.runtime or [],
                self.time or [],
                self.energy or [],
                self.power or [],
                self.flash or [],
                self.ram or [],
                self.battery or [],
                self.average_power or [],
            ),
            rate_per_s=None if self.rate is None else parse_rate(self.rate, "--rate"),
            precisions=precisions,
            hosts=self.host or (),
            image=shape,
            classes=count,
            **self._networks(teacher),
            group0=self.group0,
            group0_copies=self.group0_copies,
            max_copies=self.copies or (self.survive or 0) + 1,
            failures=parse_failure_chances(
                fleet, self.failure or [], self.outage or [], self.target, self.subsets
            ),
            min_students=fewest,
            max_students=most,
            epsilon_pct=partition.bound_pct if self.epsilon is None else self.epsilon,
            objective=parse_objective(self.objective, self.minimise or [], precisions),
            requirements=parse_requirements(
                [*(self.at_least or []), *survived], self.at_most or []
            ),
            **parse_balance(self.balance),
            timing="upper-end" if self.robust else "per-layer",
            deterministic_limit=self.limit,
            seed=self.seed,
        )

    def proposes_students(self, partition: Partition) -> bool:
        """Whether networks for students are proposed, as nothing says whose they are."""
        known = partition.teacher is None or partition.teacher.network or self.teacher_network
        return not (known or self.student)

    def _require_what_no_teacher_says(self, partition: Partition) -> None:
        """Raise InputError that names every option that is missing."""
        if partition.teacher is not None:
            return
        typed = {
            "--image": self.image,
            "--classes": self.classes,
            "--teacher-network or --student": self.teacher_network or self.student,
        }
        if missing := [option for option, value in typed.items() if not value]:
            raise InputError(
                f"needed: {', '.join(missing)}",
                fix="PARTITION was made from a saved filter network and names no teacher, which "
                "would say it",
            )

    def _networks(self, teacher: TeacherReference | None) -> dict[str, Any]:
        """Networks that were named; of a teacher they follow from its own."""
        if self.student:
            return {"networks": tuple(str(parse_network(name)) for name in self.student)}
        network = teacher.network if teacher else None
        if self.teacher_network is not None and network is not None:
            known = parse_network(network)
            _given("--teacher-network", parse_network(self.teacher_network), known)
        return {}


def with_problem_options(command: Callable[..., None]) -> Callable[..., None]:
    """Spread a command's parameter `options` into an option for each field.

    A parameter of its own that is called as a field takes that field's place, and reads it.
    """
    own, fields = _parameters(command), _parameters(ProblemOptions)
    shared = [name for name in fields if name not in own]

    @wraps(command)
    def spread(**typed: Any) -> None:
        options = ProblemOptions(**{name: typed.pop(name) for name in shared})
        command(options=options, **typed)

    every: list[inspect.Parameter] = []
    for name, one in own.items():
        if name == "options":
            every += [own.get(field, shown) for field, shown in fields.items()]
        elif name not in fields:
            every.append(one)
    spread.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
    spread.__annotations__ = {one.name: one.annotation for one in every}
    return spread


def _parameters(of: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Parameters by keyword, with typer's annotations."""
    hints = get_type_hints(of, include_extras=True)
    return {
        name: one.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, one in inspect.signature(of).parameters.items()
    }


def _given(option: str, typed: T | None, known: T | None) -> T:
    """Value of the partition's teacher, or else of the option.

    Raises InputError where both say it and differ.
    """
    if known is None or typed is None:
        return cast(T, typed if known is None else known)
    if typed != known:
        raise InputError(
            f"{option} is not what the partition's teacher says",
            found=typed,
            allowed=f"{known}, or nothing",
        )
    return known
