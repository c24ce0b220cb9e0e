"""A prover: searches, one after the other, under one limit on deterministic time for all."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from planner.assignment import Assignment
from planner.demand import Demand, required, without
from planner.instance import Instance
from planner.local_search import MOST_DRAFTS
from planner.objective import Limit, Measure
from planner.question import Question
from planner.search import search
from planner.solving import Outcome

_STOPPED = Outcome(None, None, None, proven=False, infeasible=False, deterministic_time=0.0)


@dataclass(slots=True)
class Meter:
    """The deterministic time that is left."""

    left: float


@dataclass(frozen=True, slots=True)
class Prover:
    """Asks what would be if a question were another one; stops, unproven, at its limit."""

    question: Question
    meter: Meter
    most_drafts: int = MOST_DRAFTS

    def about(self, question: Question) -> "Prover":
        """Return a prover for another question, under the same limit."""
        return Prover(question, self.meter, self.most_drafts)

    def search(
        self,
        instance: Instance,
        goal: Measure | None,
        limits: Sequence[Limit],
        known: Assignment | None = None,
    ) -> Outcome:
        """Search as long as the limit allows; nothing is found or proven after that."""
        if self.meter.left <= 0:
            return _STOPPED
        outcome = search(
            instance,
            goal,
            limits,
            seed=self.question.seed,
            deterministic_limit=self.meter.left,
            known=known,
            most_drafts=self.most_drafts,
        )
        self.meter.left -= outcome.deterministic_time
        return outcome

    def plan(self) -> Outcome:
        """Look for any plan."""
        return self.plan_without(())

    def plan_without(self, lifted: Collection[Demand]) -> Outcome:
        """Look for any plan where these demands are lifted."""
        return self.search(without(self.question, lifted), None, required(self.question, lifted))

    def tightest(
        self,
        demand: Demand,
        limits: Sequence[Limit] = (),
        lifted: Collection[Demand] = (),
        known: Assignment | None = None,
    ) -> Outcome:
        """Find the tightest that a demand can be under limits, others being lifted."""
        return self.search(
            without(self.question, lifted, {demand}),
            demand.relaxation,
            [*required(self.question, {demand, *lifted}), *limits],
            known,
        )
