"""The placement model: on which boards students run that are trained, each as it is.

Every trained student is one community and one slot of the assignment model, with its own mode, so
that only boards, operating points and the order of sends are left to decide; all rules, budgets and
objectives are those of any plan.  Boards are told apart, as moves are counted on each by itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from nonn_core.networks.network_cost import Precision
from planner.data.mode_costs import percentile_cases
from planner.data.modes import Assignment, DedicatedStem
from planner.data.objective_function import (
    OBJECTIVE_FUNCTIONS,
    ObjectiveBound,
    ObjectiveFunction,
)
from planner.data.problem_data import ProblemData
from planner.heuristics.solution import evaluate_assignment
from planner.problem.problem import Problem
from planner.solvers import UNITS_PER_TERM, is_modelled, term_count
from planner.solvers import constraints as rules
from planner.solvers.assignment_model import AssignmentModel
from planner.solvers.level_solver import LevelSolver, SearchOutcome, add_limit
from planner.solvers.search import TimeBudget, best_outcome, finished
from planner.solvers.variables import Expr, choice_count, sum_of

MOVES = ObjectiveFunction(lambda view: view.moves())
"""Models on boards that did not have them, fewer being better; no objective of plans."""
ANSWERING = ObjectiveFunction(lambda view: view.students(), maximise=True)
"""Trained students that have a board."""
ANSWERED = ObjectiveFunction(lambda view: view.own_params(), maximise=True)
"""Parameters of these, each counted with a G0 of its own."""


@dataclass(frozen=True)
class PlacementData(ProblemData):
    """Problem data of trained students, where no board stands for another one.

    Of each community, `own_modes` is its student's place in `modes` and `homes` are the boards in
    the fleet that had it; `stem_home` had G0, where it is alone, at `stem_precision`.
    """

    own_modes: tuple[int, ...] = ()
    homes: tuple[frozenset[int], ...] = ()
    stem_home: int | None = None
    stem_precision: Precision = "fp32"

    @classmethod
    def of(
        cls,
        data: ProblemData,
        question: Problem,
        homes: Sequence[frozenset[int]],
        stem: tuple[int | None, Precision] | None,
    ) -> "PlacementData":
        """Data of a placement question (`trained_students.placement_question`)."""
        assert question.trained is not None  # noqa: S101  (asked of trained students only)
        places = {(mode.name, mode.precision): o for o, mode in enumerate(data.modes)}
        home, precision = stem or (None, "fp32")
        return cls(
            **{name: getattr(data, name) for name in ProblemData.__dataclass_fields__},
            own_modes=tuple(
                places[one.network, one.precision] for one in question.trained.students
            ),
            homes=tuple(homes),
            stem_home=home,
            stem_precision=precision,
        )

    @cached_property
    def _numbers(self) -> tuple[int, ...]:
        """A kind of its own for each place."""
        return tuple(range(len(self.capacities)))

    def moves_of(self, plan: Assignment) -> int:
        """Models of a plan on boards that did not have them."""
        return self.stem_moves + sum(
            self.site(b) not in self.homes[one.communities[0]]
            for one in plan.students
            for b in one.boards
        )

    @property
    def stem_moves(self) -> int:
        """1 where G0, being alone, goes to another board, else 0."""
        return int(self.stem is not None and self.site(self.stem.board) != self.stem_home)

    def cases(self, measures: Sequence[ObjectiveFunction]) -> Iterator[tuple[ProblemData, int]]:
        """Cases by the board of G0 alone, and the number of boards at work."""
        for placed in map(self.with_stem, self._stems()) if self.stems else (self,):
            for case, most in percentile_cases(placed, measures):
                yield case, most or 0

    def _stems(self) -> Iterator[DedicatedStem]:
        for place, capacity in enumerate(self.capacities):
            (shape,) = self.stems
            stem = shape.on(
                place, capacity.board, self.stem_precision, self.image_bytes, capacity.battery
            )
            limits = capacity.limits
            if all(limit is None or stem.of(figure) <= limit for figure, limit in limits):
                yield stem


class PlacementModel(AssignmentModel):
    """CP-SAT model of all placements of trained students."""

    _data: PlacementData

    def _add_rules(self, timed: bool) -> None:
        """Add the rules of placements: slot s is community c_s in its own mode.

        member[c_s,s] = active[s], all others are 0; runs[s,b,o] = 0 for all other modes o.
        """
        del timed  # no board is alike another one, whose order would be free
        model, v, data = self.model, self._v, self._data
        rules.one_drop_step(model, v)
        for (c, s), member in v.member.items():
            model.add(member == (v.active[s] if c == data.communities[s] else 0))
        for (s, _, o), runs in v.runs.items():
            if o != data.own_modes[data.communities[s]]:
                model.add(runs == 0)
        rules.number_of_students(model, v, data)
        self._place_students()

    def moves(self) -> Expr:
        """Return how many models boards get that did not have them."""
        data = self._data
        homes = [data.homes[c] for c in data.communities]
        new = (on for (s, b, _), on in self._v.runs.items() if data.site(b) not in homes[s])
        return sum_of([*new, data.stem_moves])

    def own_params(self) -> Expr:
        """Return the parameters of students with a board, each with a G0 of its own."""
        data = self._data
        lines = (data.modes[data.own_modes[c]].line.at(data.sizes[c]) for c in data.communities)
        return sum_of(
            cost.params * active for cost, active in zip(lines, self._v.active, strict=True)
        )

    def hint(self, known: Assignment) -> None:
        """Tell the solver nothing: with a hint some placements of copies took it for ever."""


class PlacementSolver(LevelSolver):
    """Solver of one objective level over all placements."""

    def _model(
        self, bounds: Sequence[ObjectiveBound], deterministic_limit: float
    ) -> tuple[PlacementModel | None, float]:
        """Model of all placements within the bounds, and the time that making it took."""
        data, timed = self.data, self._timed
        latencies = [one.bound for one in bounds if one.measure.timed]
        if latencies and not data.order_matters:
            data = data.within_latency(min(latencies))
        terms = term_count(data, choice_count(data), timed=timed)
        if not is_modelled(terms, deterministic_limit):
            return None, 0.0
        model = PlacementModel(data, timed=timed)
        for bound in bounds:
            add_limit(model, bound)
        return model, terms * UNITS_PER_TERM


@dataclass
class PlacementSearch:
    """A search for the best placement; `proven` tells the goals of which it is."""

    data: PlacementData
    seed: int
    time_budget: TimeBudget
    proven: dict[int, bool] = field(default_factory=dict)

    def __call__(
        self,
        goal: ObjectiveFunction,
        limits: Sequence[ObjectiveBound],
        incumbent: Assignment | None,
        /,
    ) -> SearchOutcome:
        """Search each case for the best placement for a goal within limits."""
        measures = [*(limit.measure for limit in limits), goal]
        stem = incumbent.stem if incumbent else None
        used = incumbent.boards_at_work if incumbent else 0
        found: list[SearchOutcome] = []
        took = 0.0
        for case, most in self.data.cases(measures):
            few = (ObjectiveBound(OBJECTIVE_FUNCTIONS["boards"], most),) if most else ()
            known = None
            if incumbent is not None and case.stem == stem and most in (0, used):
                known = incumbent, self._value(case, goal, incumbent)
            left = self.time_budget.remaining - took
            level = PlacementSolver(case, goal, (*limits, *few), self.seed)
            outcome = finished(level.run(known, left))
            took += outcome.deterministic_time
            if outcome.assignment is not None:
                placed = replace(outcome.assignment, stem=case.stem)
                outcome = replace(outcome, assignment=placed)
            found.append(outcome)
        best = replace(best_outcome(goal, found), deterministic_time=took)
        self.proven[id(goal)] = best.proven
        self.time_budget.spend(took, settled=best.proven or best.infeasible)
        return best

    @staticmethod
    def _value(case: Any, goal: ObjectiveFunction, plan: Assignment) -> int:
        """Value of a plan in solver units."""
        if goal is MOVES:
            moves: int = case.moves_of(plan)
            return moves
        value: int = goal.read(evaluate_assignment(case, plan))
        return value
