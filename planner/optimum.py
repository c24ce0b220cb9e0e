"""The optimum of a question in solver units: each stage's best value under those before it."""

from collections.abc import Sequence
from dataclasses import dataclass

from planner.assignment import Assignment
from planner.demand import required
from planner.instance import instance_of
from planner.objective import MEASURES, Limit, Measure, hidden_units, relaxed
from planner.prover import Prover
from planner.stage import Stage
from profiles.errors import UnprovenError


@dataclass(frozen=True, slots=True)
class Reached:
    """A stage, its best value, and the limits that the stages before it leave to it.

    `noise` is by how much the arithmetic of a logarithm can be wrong; 0 of all other measures.
    """

    stage: Stage
    best: int
    earlier: tuple[Limit, ...]
    noise: int
    proven: bool

    @property
    def measure(self) -> Measure:
        """What the stage is measured by."""
        return MEASURES[self.stage.objective]

    @property
    def as_good(self) -> tuple[Limit, ...]:
        """What a plan must keep to be as good as this stage's best."""
        return (*self.earlier, Limit(self.measure, self._moved(-self.noise)))

    @property
    def better(self) -> tuple[Limit, ...]:
        """What a plan must keep to be better than this stage's best, by one unit at least."""
        return (*self.earlier, Limit(self.measure, self._moved(self.noise + 1)))

    def _moved(self, units: int) -> int:
        return self.best + (units if self.measure.maximise else -units)


@dataclass(frozen=True, slots=True)
class Optimum:
    """All stages, and a plan that is the best in all of them, up to their tolerances."""

    stages: tuple[Reached, ...]
    assignment: Assignment

    @property
    def proven(self) -> bool:
        """Say whether each stage's best value is proven."""
        return all(one.proven for one in self.stages)

    @property
    def kept(self) -> tuple[Reached, ...]:
        """Stages whose best values no later stage's optimum has by itself."""
        return tuple(one for one in self.stages[:-1] if one.stage.tolerance_pct) + self.stages[-1:]


def optimum(prover: Prover) -> Optimum:
    """Find the optimum.

    Raises UnprovenError where the limit stops the solver before it found a plan.
    """
    question = prover.question
    instance = instance_of(question)
    reached: list[Reached] = []
    found: list[Assignment] = []
    earlier: Sequence[Limit] = ()
    for stage in question.objective:
        measure = MEASURES[stage.objective]
        outcome = prover.search(instance, measure, [*required(question), *earlier], *found[-1:])
        if outcome.value is None or outcome.assignment is None:
            raise UnprovenError(
                f"the limit stopped the solver before it found the best {stage.objective}; raise "
                "--limit"
            )
        noise = hidden_units(question, measure) if measure.curved else 0
        one = Reached(stage, outcome.value, tuple(earlier), noise, outcome.proven)
        reached.append(one)
        found.append(outcome.assignment)
        worst = one.as_good[-1].bound
        earlier = (*earlier, relaxed(question, stage.objective, worst, stage.tolerance_pct))
    return Optimum(tuple(reached), found[-1])
