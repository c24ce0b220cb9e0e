"""The file that the page was opened with: its partition and its question.

A plan states its problem; here that becomes the options that people type, and the command that
asks the same.  Loads no solver.
"""

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from nonn_common.errors import InputError
from nonn_core.networks.family import parse_network, student_candidates
from nonn_core.partition import Partition
from nonn_plan.cli.parsers.problem_options import ProblemOptions
from nonn_plan.ui.question import (
    AskedBoard,
    Question,
    able_devices,
    budget_fields,
    requirement_text,
)
from planner.plan_file.plan_document import PlanDocument
from planner.problem.budgets import BoardBudget, board_budgets
from planner.problem.goals import MAXIMISED
from planner.problem.problem import Problem
from profiles.device import DeviceProfile
from profiles.fleet import ANY_POINT, FLEETS, Fleet, FleetBoard, parse_fleet
from profiles.link import LinkProfile

COMMAND = "nonn-plan plan"
FIRST_FLEET = "rpi-3b*2"
FLEET_FILE = "fleet.json"
PAGE = "page"
"""Name of a fleet that has no shorter text."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file that was opened: its partition, its fleet's own profiles, and what it asked.

    `file` is what the command calls the partition; `notes` say what cannot be carried over.
    """

    id: str
    name: str
    file: str
    partition: Partition
    question: Question
    devices: tuple[DeviceProfile, ...] = ()
    links: tuple[LinkProfile, ...] = ()
    notes: tuple[str, ...] = ()

    def shown(self) -> dict[str, Any]:
        """The file as the page is told of it."""
        return {
            "kind": "opened",
            "id": self.id,
            "file": self.file,
            "notes": self.notes,
            "filters": self.partition.filters,
            "communities": [len(one.filters) for one in self.partition.communities],
            "teacher": self.partition.teacher is not None,
            "apart": [one.name for one in (*able_devices(), *self.devices) if one.flash_bytes],
            "question": self.question.model_dump(mode="json"),
        }

    def fleet(self, question: Question) -> Fleet:
        """Fleet of a question, called as the command can call it; raises InputError."""
        asked = Fleet.check(
            {
                "name": PAGE,
                "title": "Boards of the page",
                "host": question.host,
                "boards": [
                    one.model_dump(include={*FleetBoard.model_fields}) for one in question.boards
                ],
                "devices": [one.model_dump() for one in self.devices],
                "links": [one.model_dump() for one in self.links],
            },
            where="the page's fleet",
        )
        return next((one for one in self._called(asked) if _alike(one, asked)), asked)

    def _called(self, asked: Fleet) -> Iterator[Fleet]:
        """Fleets that a short text stands for."""
        for name in FLEETS.names():
            yield FLEETS.get(name)
        if not asked.devices and not asked.links:
            yield parse_fleet(_listed(asked.boards))

    def problem(self, question: Question) -> Problem:
        """The problem that `nonn-plan plan` would state; raises InputError."""
        fleet = self.fleet(question)
        return question.problem_options().problem(self.partition, fleet, where=COMMAND)

    def command(self, question: Question) -> str:
        """The command that asks the same."""
        fleet = self.fleet(question)
        words = ["nonn-plan", "plan", self.file, "--fleet", _fleet_text(fleet)]
        options, defaults = question.problem_options(), ProblemOptions()
        for one in fields(ProblemOptions):
            value, flag = getattr(options, one.name), f"--{one.name.replace('_', '-')}"
            if value in (getattr(defaults, one.name), None):
                continue
            if isinstance(value, bool):
                words.append(flag)
                continue
            for text in value if isinstance(value, list) else [value]:
                words += [flag, str(text).removesuffix(".0")]
        return shlex.join(words)

    def fleet_file(self, question: Question) -> str | None:
        """Content of the fleet file that the command needs; None where it needs none."""
        fleet = self.fleet(question)
        if _fleet_text(fleet) != FLEET_FILE:
            return None
        return json.dumps(fleet.model_dump(mode="json", exclude_none=True), indent=2) + "\n"


def _fleet_text(fleet: Fleet) -> str:
    return FLEET_FILE if fleet.name == PAGE else fleet.name


def _alike(one: Fleet, other: Fleet) -> bool:
    return (one.host, one.boards, one.devices, one.links) == (
        other.host,
        other.boards,
        other.devices,
        other.links,
    )


def _listed(boards: Sequence[FleetBoard]) -> str:
    """List of devices, as `plan --fleet` takes it."""
    groups = Counter((board.device, board.points, board.link) for board in boards)
    default = {board.device: _default_link(board.device) for board in boards}
    return ",".join(
        device
        + (ANY_POINT if points == "any" else "")
        + (f"@{link}" if link != default[device] else "")
        + (f"*{n}" if n > 1 else "")
        for (device, points, link), n in groups.items()
    )


def _default_link(device: str) -> str | None:
    return parse_fleet(device).boards[0].link


def first_question(source: str) -> Question:
    """First question about a partition: the command's defaults on two boards."""
    fleet = parse_fleet(FIRST_FLEET)
    boards = [AskedBoard(**one.model_dump()) for one in fleet.boards]
    return Question(source=source, host=fleet.host, boards=tuple(boards))


def question_of(problem: Problem, source: str) -> tuple[Question, tuple[str, ...]]:
    """Question of the page that states a problem, and sentences on what it leaves out."""
    rows = dict(_budget_texts(problem))
    failing = problem.failures
    chances = {one.board: one.probability for one in failing.boards} if failing else {}
    boards = tuple(
        AskedBoard(
            **one.model_dump(),
            budgets=rows[one.name],
            failure=_percent(chances[one.name]) if one.name in chances else "",
        )
        for one in problem.fleet.boards
    )
    options = {name: value for name, value in _option_texts(problem) if value not in ("", ())}
    question = Question(source=source, host=problem.fleet.host, boards=boards, options=options)
    return question.without_defaults(), tuple(_left_out(problem))


def _percent(chance: float) -> str:
    return f"{float(f'{100 * chance:.12g}')!r}%"


def _runtimes_differ(row: BoardBudget) -> bool:
    """Whether the runtime takes unlike amounts of flash and of RAM."""
    return row.runtime_flash_bytes != row.runtime_ram_bytes


def _budget_texts(problem: Problem) -> Iterator[tuple[str, dict[str, str]]]:
    """Budgets of each board as typed; nothing where the device's own is meant."""
    try:
        own = {row.board: row for row in board_budgets(problem.fleet)}
    except InputError:  # no memory is known of some device: all are said
        own = {}
    for row in problem.budgets:
        texts = {}
        for field in budget_fields():
            value = getattr(row, field.field)
            asked = {
                "memory_bytes": row.asked_bytes,
                "flash_bytes": row.asked_flash_bytes,
                "ram_bytes": row.asked_ram_bytes,
                "runtime_bytes": None if _runtimes_differ(row) else row.runtime_ram_bytes or None,
            }.get(field.field)
            value = value if asked is None else asked
            usual = getattr(own.get(row.board), field.field, None)
            if value is not None and value != usual and value != 0:
                texts[field.option] = field.text(value)
        yield row.board, texts


def _option_texts(problem: Problem) -> Iterator[tuple[str, Any]]:
    """Options of the whole question, as typed."""
    yield from _model_texts(problem)
    most, fewest = problem.max_students, problem.min_students
    if most is not None or fewest > 1:
        yield "students", f"{fewest}:{most or len(problem.fleet.boards)}"
    yield "precision", ",".join(problem.precisions)
    # With several precisions the command adds the last level by itself.
    yield "objective", ",".join(map(str, problem.objective))
    for name, more in (("at_least", True), ("at_most", False)):
        yield (
            name,
            tuple(
                requirement_text(one.objective, one.bound)
                for one in problem.requirements
                if (one.objective in MAXIMISED) == more
                and (one.objective, one.bound) != ("throughput", problem.rate_per_s)
            ),
        )
    yield "rate", "" if problem.rate_per_s is None else f"{problem.rate_per_s!r}/s"
    yield "balance", "off" if problem.balance_pct is None else f"{problem.balance_pct:g}%"
    yield "host", tuple(problem.hosts)
    if problem.epsilon_pct != problem.partition.bound_pct:
        yield "epsilon", repr(problem.epsilon_pct)
    yield "copies", str(problem.max_copies) if problem.max_copies > 1 else ""
    yield "group0", problem.group0
    yield "group0_copies", problem.group0_copies
    yield "robust", problem.timing == "upper-end"
    yield "limit", f"{problem.deterministic_limit:g}"
    yield "seed", str(problem.seed)
    if (failing := problem.failures) is not None:
        yield (
            "outage",
            tuple(f"{','.join(one.boards)}={_percent(one.probability)}" for one in failing.outages),
        )
        yield "target", "" if failing.target_pct is None else f"{failing.target_pct!r}%"


def _model_texts(problem: Problem) -> Iterator[tuple[str, Any]]:
    """Options on teacher, images and networks, where the partition does not say them."""
    known, basis = problem.partition.teacher, problem.accuracy
    if known is None:
        yield "image", problem.image
        yield "classes", str(problem.classes)
    named = known.network if known else None
    if named is None and basis is not None:
        named = basis.teacher.network
        yield "teacher_network", named or ""
    usual = tuple(map(str, student_candidates(parse_network(named)))) if named else ()
    yield "student", () if problem.networks == usual else problem.networks
    told = problem.partition.drop_steps[0].accuracy_pct if known else None
    if basis is not None and basis.teacher_accuracy_pct not in (None, told):
        yield "teacher_accuracy", f"{basis.teacher_accuracy_pct!r}%"


def _left_out(problem: Problem) -> Iterator[str]:
    """Sentences on what of a problem no option of the page says."""
    if problem.accuracy is not None and problem.accuracy.own_rows:
        yield "the finished runs that this plan predicted from (--rows) are not carried over"
    if problem.failures is not None and problem.failures.retained:
        yield "what the answers of some students are worth (--subsets) is not carried over"
    if problem.timing == "flop-affine":
        yield "this plan took times by FLOPs alone; here they are taken layer by layer"
    if any(map(_runtimes_differ, problem.budgets)):
        yield "what the runtime takes of flash and of RAM (--runtime A+B) is not carried over"
    if problem.trained is not None:
        yield "this plan's students are trained; here other students are asked for"
    if not problem.reuse:
        yield "this plan had at most a student for each community; here there may be more"


def open_source(plain: object, name: str, source: str) -> Source:
    """Open the content of plan.json or partition.json; raises InputError."""
    if isinstance(plain, dict) and "question" in plain:
        plain.pop("warnings", None)
        problem = PlanDocument.check(plain, where=name).question
        question, notes = question_of(problem, source)
        file = re.sub(r"(\.json)?$", "-partition.json", name, count=1)
        fleet = problem.fleet
        notes = (*notes, f"the command reads {file}: save it from this page")
        own = fleet.devices, fleet.links, notes
        return Source(source, name, file, problem.partition, question, *own)
    if not isinstance(plain, dict) or "communities" not in plain:
        raise InputError(
            "is neither a plan nor a partition",
            where=name,
            found=", ".join(list(plain)[:5]) if isinstance(plain, dict) else plain,
            allowed="plan.json or partition.json",
        )
    partition = Partition.check(plain, where=name)
    return Source(source, name, name, partition, first_question(source))
