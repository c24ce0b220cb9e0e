"""Break-points of a budget: the least budgets at which a better optimum starts, each found exactly.

From the top of a range downwards: what is the optimum here?  How little of the budget does a plan
need that is as good?  Just below that, what is the optimum?  So on, until there is no plan or the
range ends.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field

from planner.answer import value_of
from planner.budget import BudgetName
from planner.demand import FREE, figure_of, required, wants
from planner.draft import Appraisal
from planner.instance import Instance, instance_of
from planner.objective import Limit, Measure
from planner.optimum import Reached, optimum
from planner.prover import Prover
from planner.question import Question
from planner.scaling import LATEST
from planner.view import Figure
from profiles.document import Record
from profiles.errors import UnprovenError
from profiles.units import FLOPS_PER_MAC


@dataclass(frozen=True, slots=True)
class Range:
    """A budget that is the same on `boards` (their places), from `least` to `most`."""

    budget: BudgetName
    boards: tuple[int, ...]
    least: int
    most: int

    def question(self, question: Question, amount: int) -> Question:
        """Return the question in which the budget is this much."""
        rows = list(question.budgets)
        for board in self.boards:
            rows[board] = rows[board].model_copy(update={self.budget: amount})
        return question.model_copy(update={"budgets": tuple(rows)})

    def need(self, question: Question) -> tuple[Instance, Measure]:
        """Return the measure of how large this budget must be, the runtime's part included.

        And the instance that it is a measure of, in which boards are alike only where it does not
        matter which of them needs how much.
        """
        instance = instance_of(question)
        figure, wanted = figure_of(self.budget), wants(self.budget)
        extra = {board: self._runtime(question, board) for board in self.boards}
        if len(extra) == len(instance.sites) and not any(extra.values()):
            return instance, Measure(lambda view: view.highest(figure), wants=wanted)
        sites = list(instance.sites)
        for board, more in extra.items():
            limit = FREE + more
            sites[board] = (
                replace(sites[board], memory_bytes=limit)
                if self.budget == "memory_bytes"
                else replace(sites[board], macs=limit)
            )
        return replace(instance, sites=tuple(sites)), Measure(
            lambda view: _highest(view, figure, extra), wants=wanted, of_board=True
        )

    def _runtime(self, question: Question, board: int) -> int:
        return question.budgets[board].runtime_bytes if self.budget == "memory_bytes" else 0


class Breakpoint(Record):
    """An optimum, and the least budget from which on there is one as good."""

    least: int = Field(
        gt=0, description="Bytes of memory, or FLOPs of one image, on every board at once."
    )
    below_range: bool = Field(
        description="The optimum starts below the range, of which `least` is the lower end."
    )
    values: dict[str, float] = Field(description="The optimum: each stage's value, in its unit.")


@dataclass(frozen=True, slots=True)
class Steps:
    """Break-points, the highest first, and whether they are proven to be all in the range."""

    breakpoints: tuple[Breakpoint, ...]
    proven: bool


def breakpoints(prover: Prover, over: Range) -> Steps:
    """Return the break-points of a budget; none where nothing is feasible even at its most."""
    found: list[Breakpoint] = []
    amount = over.most
    try:
        while amount >= over.least:
            least, values = _step(
                prover.about(over.question(prover.question, amount)), over, amount
            )
            if values is None:
                break
            unit = FLOPS_PER_MAC if over.budget == "macs" else 1
            found.append(
                Breakpoint(
                    least=unit * max(least, over.least),
                    below_range=least < over.least,
                    values=values,
                )
            )
            amount = least - 1
    except UnprovenError:
        return Steps(tuple(found), proven=False)
    return Steps(tuple(found), proven=True)


def _step(prover: Prover, over: Range, amount: int) -> tuple[int, dict[str, float] | None]:
    """Return the least budget that is as good as this one, and the optimum, None without a plan.

    Raises UnprovenError where the limit stops a proof.
    """
    any_plan = prover.plan()
    if any_plan.infeasible:
        return 0, None
    best = optimum(prover)
    if not best.proven:
        raise UnprovenError("the limit stopped a search of the break-points")
    least = max(_least_need(prover, over, one, amount) for one in best.kept)
    values: dict[str, float] = {
        one.stage.objective: value_of(prover.question, one.stage.objective, best.assignment)
        for one in best.stages
    }
    return least, values


def _least_need(prover: Prover, over: Range, stage: Reached, amount: int) -> int:
    """Return the least budget under which a plan is as good as a stage's best."""
    question = prover.question
    instance, measure = over.need(question)
    limits: Sequence[Limit] = [*required(question), *stage.as_good, Limit(measure, amount)]
    outcome = prover.search(instance, measure, limits)
    if not outcome.proven or outcome.value is None:
        raise UnprovenError("the limit stopped a search of the break-points")
    return max(1, outcome.value)


def _highest(view: Any, figure: Figure, extra: Mapping[int, int]) -> Any:
    """Return what the board needs that needs most, its runtime only where it has a student.

    Of a model, the least of a bound on it.
    """
    uses = [(view.on(board, figure), more) for board, more in extra.items()]
    if isinstance(view, Appraisal):
        return max(use + (more if use else 0) for use, more in uses)
    highest = view.model.new_int_var(0, LATEST, "highest need")
    for use, more in uses:
        if more:
            busy = view.model.new_bool_var("needs its runtime")
            view.model.add(use <= 0).only_enforce_if(~busy)
            view.model.add(highest >= use + more * busy)
        else:
            view.model.add(highest >= use)
    return highest
