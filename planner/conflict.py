"""Why a question has no answer: an irreducible set of requirements that cannot hold together.

Found by deletion: a requirement without which the rest is still, provably, infeasible is left out;
what remains is needed, each one proven by solving without it.  The solver's own core is not asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from planner.amounts import shown, students
from planner.budget import BUDGETS, BudgetName
from planner.demand import Demand, amount, demands, grows, requirement_of
from planner.instance import Instance, instance_of
from planner.prover import Meter, Prover
from planner.question import Question
from planner.solving import Outcome


@dataclass(frozen=True, slots=True)
class Conflict:
    """Demands that cannot hold together; proven: without any one of them the others can."""

    demands: tuple[Demand, ...]
    proven: bool


def conflict(question: Question) -> tuple[str, ...]:
    """Return one sentence for each requirement of an irreducible conflict.

    Each sentence says what was found and what would do if all else stays.  The question must be
    infeasible.
    """
    prover = Prover(question, Meter(question.deterministic_limit), most_drafts=0)
    return sentences(prover, irreducible(prover))


def irreducible(prover: Prover) -> Conflict:
    """Return demands that conflict, such that any one fewer do not.

    Where the limit stops a proof, the demand is kept; where ever more students could be of use, it
    is not proven that their number is not in the way.  What holds of one board's budget holds of
    those of boards that are alike.
    """
    instance = instance_of(prover.question)
    every = tuple(demands(prover.question))
    needed, settled, proven = list(every), set[Demand](), True
    for one in every:
        if one not in needed or one in settled:
            continue
        twins = _twins(instance, needed, one)
        if len(twins) > 1 and _still(prover, needed, twins).infeasible:
            needed = [other for other in needed if other not in twins]
            continue
        outcome = _still(prover, needed, [one])
        if outcome.infeasible:
            needed.remove(one)
            proven = proven and not (one.kind == "max_students" and _endless(prover.question))
            continue
        settled.update(twins)
        proven = proven and outcome.assignment is not None
    return Conflict(tuple(needed), proven)


def _endless(question: Question) -> bool:
    return grows(question, (one.objective for one in question.requirements))


def _still(prover: Prover, needed: Sequence[Demand], out: Sequence[Demand]) -> Outcome:
    """Look for a plan where nothing is asked but what is needed less what is out."""
    kept = set(needed) - set(out)
    return prover.plan_without([one for one in demands(prover.question) if one not in kept])


def _twins(instance: Instance, needed: Sequence[Demand], one: Demand) -> list[Demand]:
    """Return the demands on boards that are alike, going by what is still asked of them."""
    if one.board < 0:
        return [one]

    def asked(board: int) -> set[str]:
        return {d.kind for d in needed if d.board == board}

    mine = asked(one.board)
    return [
        d
        for d in needed
        if d.kind == one.kind
        and instance.kind_of(d.board) == instance.kind_of(one.board)
        and asked(d.board) == mine
    ]


def sentences(prover: Prover, found: Conflict) -> tuple[str, ...]:
    """Say of each demand of a conflict what it is and what would do if all else stays."""
    question = prover.question
    instance = instance_of(question)
    least: dict[object, int | None] = {}
    said = []
    for one in found.demands:
        like = (one.kind, instance.kind_of(one.board)) if one.board >= 0 else one
        if like not in least:
            least[like] = prover.tightest(one).value
        value = least[like]
        head = "".join(_found(question, one))
        would = "" if value is None else f"; {_would(question, one, value)} would do"
        said.append(head + would + (" if all else stays" if would else ""))
    return tuple(said)


def _would(question: Question, one: Demand, value: int) -> str:
    to = shown(one, amount(question, one, value))
    if one.objective is not None:
        return f"{requirement_of(question, one).relation} {to}"
    return f"more than {to}" if one.kind == "epsilon" else to


def _found(question: Question, one: Demand) -> tuple[str, str]:
    """Return the demand as it stands, and the plain reason against it where there is one."""
    if one.budget is not None:
        return _budget(question, one.budget, one.board)
    if one.kind == "min_students":
        communities = len(question.partition.communities)
        short = question.min_students > communities and not question.reuse
        cause = f"; each needs a community and there are {communities}" if short else ""
        return f"at least {students(question.min_students)}", cause
    if one.kind == "max_students":
        return f"at most {students(question.most_students)}", ""
    if one.kind == "epsilon":
        return f"|delta_val| below epsilon, {question.epsilon_pct:g} percentage points", ""
    return str(requirement_of(question, one)), ""


def _budget(question: Question, kind: BudgetName, board: int) -> tuple[str, str]:
    budget, noun = question.budgets[board], BUDGETS[kind].noun
    limit = getattr(budget, kind)
    cause = ""
    if kind in ("memory_bytes", "macs"):
        least = _smallest_student(question, kind)
        room = budget.room_bytes if kind == "memory_bytes" else limit
        cause = f"; the smallest student needs {BUDGETS[kind].text(least)}" if least > room else ""
    return f"{noun} budget of {budget.board}: {BUDGETS[kind].text(limit)}", cause


def _smallest_student(question: Question, kind: BudgetName) -> int:
    """Return the least MACs or bytes of a student with the smallest community.

    Without G0 where that may be on a board of its own.
    """
    instance = instance_of(question)
    filters = min(instance.sizes)
    options = instance.options
    if question.group0 != "replicated":
        options = tuple(replace(option, line=option.behind) for option in options)
    if kind == "macs":
        return min(option.line.at(filters).macs for option in options)
    return min(option.memory_bytes(filters) for option in options)
