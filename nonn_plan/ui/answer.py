"""The answer that the page draws: a plan, or conflict and repairs.

The process that solves runs this module: `python -m nonn_plan.ui.answer` reads a question a line
and writes messages a line, until its standard input ends.  What people are told are the sentences
and warnings of `nonn-plan plan` itself.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, TextIO

from nonn_common.errors import NonnError
from nonn_common.units import format_bytes, format_count, format_flops
from nonn_core.evidence import partition_warnings
from nonn_plan.cli.output import Output
from nonn_plan.cli.views.board_report import duty_text
from nonn_plan.cli.views.plan_report import alternative_name, show_plan
from nonn_plan.ui.question import Question, budget_fields, requirement_text
from nonn_plan.ui.source import Source, open_source
from planner.data.relaxable_constraint import RelaxableConstraint, with_limit
from planner.diagnosis.explanation import Explanation, explain_refusal
from planner.diagnosis.repair import Repair
from planner.plan_file.alternatives import with_alternatives
from planner.plan_file.plan_document import PlanDocument
from planner.problem.budgets import BUDGETS, memory_notes
from planner.problem.goals import MAXIMISED, OBJECTIVES
from planner.problem.problem import Problem
from planner.solve import solve
from planner.solvers.certificate_search import with_certificates
from planner.solvers.search import SolverSession, TimeBudget

Message = dict[str, Any]
Send = Callable[[Message], None]

NO_INTERVAL = "no interval: times by FLOPs alone"
"""Beside a latency of boards whose layers nobody measured."""
BETWEEN_S = 0.1
"""Least time between two messages on the progress of a search."""


@dataclass(frozen=True)
class SaidOutput(Output):
    """Sentences of a command, kept and not printed; the page draws the tables."""

    said: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Keep a sentence."""
        self.said.append(text)

    def warn(self, *texts: str) -> None:
        """Keep warnings."""
        self.warnings.extend(texts)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Leave a table to the page."""


def answer_question(source: Source, question: Question, send: Send) -> PlanDocument:
    """Solve a question; send its plan, or its conflict and repairs; gives the plan.

    Raises NonnError.
    """
    problem = source.problem(question)
    command, fleet_file = source.command(question), source.fleet_file(question)
    send({"kind": "asked", "command": command, "fleet_file": fleet_file})
    began = time.perf_counter()
    refused: list[Explanation] = []

    def conflict(without_plan: Problem) -> tuple[str, ...]:
        budget = TimeBudget(without_plan.deterministic_limit)
        session = SolverSession(without_plan, budget, most_solutions=0)
        refused.append(explain_refusal(session))
        return refused[-1].conflict

    plan = solve(problem, _progress(send), _watch(send), conflict=conflict)
    shown = _refusal_message(question, plan, *refused) if refused else _plan_message(plan)
    seconds = time.perf_counter() - began
    send({"kind": "answer", "status": plan.status, "seconds": seconds, **shown})
    return plan


def send_rest(plan: PlanDocument, send: Send) -> None:
    """Send what takes longer: the trade-off table, and the plan as the command writes it."""
    plan = with_alternatives(with_certificates(plan))
    document = plan.model_dump(mode="json")
    send({"kind": "rest", "alternatives": _alternative_rows(plan), "plan": document})


def _progress(send: Send) -> Callable[[str, int, int], None]:
    def tell(what: str, done: int, total: int) -> None:
        send({"kind": "progress", "what": what, "done": done, "total": total})

    return tell


def _watch(send: Send) -> Callable[[str, float | None, float], None]:
    """Watch of a search that sends the best value and the bound, not too often."""
    known: dict[str, float | None] = {}
    sent_s = 0.0

    def tell(objective: str, value: float | None, bound: float) -> None:
        nonlocal sent_s
        first = known.get(objective) is None and value is not None
        known[objective] = value = known.get(objective) if value is None else value
        if first or time.monotonic() - sent_s >= BETWEEN_S:
            sent_s = time.monotonic()
            facts = OBJECTIVES[objective]
            row = {"objective": objective, "unit": facts.phrase, "value": value, "bound": bound}
            send({"kind": "bound", **row})

    return tell


def _plan_message(plan: PlanDocument) -> Message:
    """Plan as the page draws it."""
    output = SaidOutput(as_json=False)
    problem = plan.question
    output.warn(*partition_warnings(problem.partition, problem.epsilon_pct))
    output.warn(*memory_notes(problem.budgets))
    show_plan(output, plan)
    return {
        "sentences": output.said,
        "warnings": output.warnings,
        "boards": list(_board_rows(plan)),
        "joint": [one.model_dump(mode="json") for one in plan.joint_models],
        "stages": list(_stage_rows(plan)),
        "figures": list(_figures(plan)),
        "timeline": _timeline(plan),
    }


def _board_rows(plan: PlanDocument) -> Iterator[Message]:
    """Boards with their students and bars of their budgets."""
    duties = {one.board: one for one in plan.duty.boards} if plan.duty else {}
    for one in plan.question.fleet.boards:
        students = [
            {
                "name": student.name,
                "network": student.network,
                "precision": student.precision,
                "filters": len(student.filters),
                "text": f"{format_count(student.params)} parameters, {format_flops(student.macs)}, "
                f"{format_bytes(student.memory_bytes)}",
                "copy": student.board != one.name,
            }
            for student in plan.students
            if one.name in student.boards
        ]
        alone = plan.group0 is not None and plan.group0.board == one.name
        yield {
            "name": one.name,
            "device": one.device,
            "link": one.link,
            "students": students,
            "group0": alone,
            "bars": [_bar(row) for row in plan.budgets if row.board == one.name and row.limit],
            "duty": duty_text(duties[one.name]) if one.name in duties else "",
        }


def _bar(row: Any) -> Message:
    shown = BUDGETS[row.budget]
    return {
        "noun": shown.noun,
        "share": row.used / row.limit,
        "used": shown.text(row.used),
        "limit": shown.text(row.limit),
        "slack": shown.text(row.slack),
    }


def _stage_rows(plan: PlanDocument) -> Iterator[Message]:
    """Proof of each level: value, bound, gap, unit and direction."""
    for level in plan.stages:
        facts = OBJECTIVES[level.objective]
        yield {
            **level.model_dump(mode="json", exclude={"certificate"}),
            "unit": facts.phrase,
            "wanted": "most" if facts.maximise else "least",
        }


def _figures(plan: PlanDocument) -> Iterator[Message]:
    """Figures of a plan that stand first: name, value, and what lies beside it."""
    told = _told_figures(plan) if plan.predicted else ()
    return ({"name": name, "value": value, "beside": beside} for name, value, beside in told)


def _told_figures(plan: PlanDocument) -> Iterator[tuple[str, str, str]]:
    cost, accuracy, duty = plan.predicted, plan.accuracy, plan.duty
    assert cost is not None  # noqa: S101  (asked of plans alone)
    known = cost.low_ms is not None and cost.high_ms is not None
    beside = f"{cost.low_ms:.1f} to {cost.high_ms:.1f} ms" if known else NO_INTERVAL
    yield "latency", f"{cost.total_ms:.1f} ms", beside
    energy, per_node = cost.energy_fleet_mj, cost.energy_per_node_mj
    beside = "" if per_node is None else f"{per_node:.1f} mJ a board that works"
    yield "energy", "not known" if energy is None else f"{energy:.1f} mJ", beside
    if accuracy is None:
        yield "expected accuracy", "not known", "teacher not known"
    elif accuracy.value_pct is None:
        yield "expected accuracy", f"-{accuracy.drop_pct:.1f} points", "below the teacher"
    else:
        low, high = accuracy.low_pct, accuracy.high_pct
        beside = "" if low is None or high is None else f"95 %: {low:.1f} to {high:.1f}"
        yield "expected accuracy", f"{accuracy.value_pct:.1f} %", beside
    yield "throughput", f"{cost.throughput_per_s:.3g}/s", f"host {plan.host}"
    if duty is not None:
        power = "not known" if duty.average_w is None else f"{duty.average_w:.4g} W"
        yield "average power", power, f"at {duty.rate_per_s:.4g}/s, computing and idle"
    if duty is not None and duty.battery_h is not None:
        yield "battery life", f"{duty.battery_h:.4g} h", "until the first one is empty"


def _timeline(plan: PlanDocument) -> Message:
    """Activities of one image, for a Gantt chart."""
    from nonn_plan.api import simulate

    found = simulate(plan)
    rows = [
        {"actor": one.actor, "activity": one.activity, "start": one.start_ms, "end": one.end_ms}
        for one in found.intervals
    ]
    return {"total_ms": found.total_ms, "rows": rows}


def _alternative_rows(plan: PlanDocument) -> list[Message]:
    """Trade-off table: students, one network, the teacher."""
    fits = {"feasible": "yes", "infeasible": "no", "undecided": "not known"}
    return [
        {
            "way": alternative_name(plan, one),
            "latency": one.total_ms,
            "accuracy": one.accuracy_pct,
            "energy": one.energy_fleet_mj,
            "boards": one.boards,
            "fits": fits[one.status],
            # Why there is no plan stands above, as the conflict.
            "reason": "" if one.kind == "nonn" else one.reason or "",
        }
        for one in plan.alternatives
        if one.kind != "segmented" or one.boards != 1
    ]


def _refusal_message(question: Question, plan: PlanDocument, found: Explanation) -> Message:
    """Conflict of a question without a plan, and repairs as questions that have one."""
    return {
        "conflict": found.conflict,
        "irreducible": found.irreducible,
        "repairs": [
            {
                "text": one.text,
                "least": one.least,
                "question": _repaired(question, plan.question, one).model_dump(mode="json"),
            }
            for one in found.repairs
        ],
    }


def _repaired(question: Question, problem: Problem, repair: Repair) -> Question:
    """The question with a repair, on the first of boards that would do."""
    for part in repair.parts:
        question = _repaired(question, problem, part)
    if repair.kind == "board":
        return _with_board(question, str(repair.value))
    budget = next((one for one in budget_fields() if one.field == repair.kind), None)
    if budget is not None and not isinstance(repair.value, str) and repair.value is not None:
        places = repair.boards if repair.each else repair.boards[:1]
        return _with_budget(question, places, budget.option, budget.text(repair.value))
    return question.model_copy(
        update={"options": {**question.options, **_repaired_option(problem, repair)}}
    )


def _with_budget(question: Question, places: Sequence[str], option: str, text: str) -> Question:
    boards = tuple(
        one.model_copy(update={"budgets": {**one.budgets, option: text}})
        if one.name in places
        else one
        for one in question.boards
    )
    return question.model_copy(update={"boards": boards})


def _with_board(question: Question, like: str) -> Question:
    """One board more, behind the last one of that device and link."""
    model = next(one for one in question.boards if one.name == like)
    taken = {one.name for one in question.boards}
    numbers = (f"{model.device}-{n}" for n in range(1, len(taken) + 2))
    more = model.model_copy(update={"name": next(name for name in numbers if name not in taken)})
    alike = [
        place
        for place, one in enumerate(question.boards)
        if (one.device, one.link) == (model.device, model.link)
    ]
    behind = alike[-1] + 1
    boards = (*question.boards[:behind], more, *question.boards[behind:])
    return question.model_copy(update={"boards": boards})


def _repaired_option(problem: Problem, repair: Repair) -> Mapping[str, Any]:
    """Options that a repair of the whole question changes, as typed."""
    value = repair.value
    if repair.kind == "precision":
        return {"precision": ",".join((*problem.precisions, str(value)))}
    if repair.kind in ("min_students", "max_students"):
        lower = repair.kind == "min_students"
        fewest = value if lower else problem.min_students
        most = problem.most_students if lower else value
        return {"students": f"{fewest}:{most}"}
    if repair.kind == "epsilon" and isinstance(value, float | int):
        allowed = with_limit(problem, RelaxableConstraint("epsilon"), value)
        return {"epsilon": repr(allowed.epsilon_pct)}
    if repair.kind == "balance":
        return {"balance": f"{value}%"}
    if repair.kind == "requirement" and isinstance(value, float | int):
        bounds = {one.objective: one.bound for one in problem.requirements}
        bounds[repair.objective or "latency"] = value
        texts = {name: requirement_text(name, bound) for name, bound in bounds.items()}
        return {
            "at_least": tuple(text for name, text in texts.items() if name in MAXIMISED),
            "at_most": tuple(text for name, text in texts.items() if name not in MAXIMISED),
        }
    return {}


class Answers:
    """Answers to one question after the other, from stream to stream."""

    def __init__(self, lines: TextIO, answers: TextIO) -> None:
        self._lines, self._answers = lines, answers
        self._lock = Lock()
        self._sources: dict[str, Source] = {}
        self._last: tuple[Question, PlanDocument] | None = None

    def run(self) -> None:
        """Answer until the stream of questions ends, which ends the process at once.

        Whoever asked is gone then, and a search that goes on would be for nobody.
        """
        asked: SimpleQueue[str] = SimpleQueue()

        def read() -> None:
            for line in self._lines:
                asked.put(line)
            os._exit(0)

        Thread(target=read, daemon=True).start()
        self._send({"kind": "ready"})
        while True:
            self._answer(json.loads(asked.get()))
            self._send({"kind": "end"})

    def _send(self, message: Message) -> None:
        text = json.dumps(message, ensure_ascii=True)
        with self._lock:
            self._answers.write(text + "\n")
            self._answers.flush()

    def _answer(self, request: Message) -> None:
        try:
            opened = request["source"]
            if opened["id"] not in self._sources:
                source = open_source(opened["content"], opened["name"], opened["id"])
                self._sources[opened["id"]] = source
            question = Question.check(request["question"], where="the page's question")
            self._solve(self._sources[opened["id"]], question, rest=request["rest"])
        except NonnError as error:
            self._send({"kind": "error", "message": str(error)})

    def _solve(self, source: Source, question: Question, *, rest: bool) -> None:
        """Answer a question; what was solved last is not solved again for its rest."""
        if not rest or self._last is None or self._last[0] != question:
            self._last = question, answer_question(source, question, self._send)
        if rest:
            send_rest(self._last[1], self._send)


def main() -> None:
    """Answer questions on the process's own streams; what else is printed goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    Answers(sys.stdin, answers).run()


if __name__ == "__main__":
    main()
