"""The due-date model: plans within a deadline, by patterns of boards, all limits kept.

Asked whether any plan is within a latency T, the host's sends are jobs with due dates, as in the
relaxation of `planner.solvers.latency`; but the choices are patterns: what a board runs, to the
last community and network.  So nothing is relaxed.  Limits that earlier levels leave are in the
same model; where there is no solution there is no plan, and a solution is a plan.

    sum_{e due by t} send(e) boards[e] <= t      for each t = T - around - tail(e) of a pattern e.

A date by which all boards with a pattern so long can be sent to holds always; it has no row.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from planner import solvers as cp_model
from planner.data.objective_function import OBJECTIVE_FUNCTIONS, ObjectiveBound, ObjectiveFunction
from planner.data.problem_data import ProblemData, community_classes
from planner.problem.goals import Objective
from planner.solvers.latency import relaxes
from planner.solvers.level_solver import (
    FEW_CLASSES,
    Incumbent,
    LevelSolver,
    SearchOutcome,
    SolverRuns,
    SolverTask,
    add_limit,
    new_solver,
    tighten_logarithms,
)
from planner.solvers.pattern_model import (
    Pattern,
    PatternCatalogue,
    PatternModel,
    enumerate_patterns,
)
from planner.solvers.variables import Expr, sum_of

MOST_PATTERNS = 20_000
"""With more patterns the model is not asked."""
NARROW_GAP = 0.1
"""A bracket narrower than this part of its upper end is put to the other models first."""
FIRST_SHARE = 0.2
"""Part of the time for these, after which the bracket is asked about."""
RELAXED_SHARE = 0.02
"""Part of the time for one question to the relaxation, one packing, or a first deadline."""
DESCENT_SHARE = 0.1
"""Part of the time for plans that are better and better, until a question has no answer."""
QUESTION_SHARE = 0.1
"""Part of the time for one question in between."""
QUESTIONS_SHARE = 0.6
"""Part of the time for all of these."""
DEADLINE_GAP = 0.001
"""A bracket narrower than this part of its upper end is not asked about any more."""

GUIDES: tuple[Objective, ...] = ("capacity", "energy", "memory", "flops")
"""Sums over patterns.  The first of them that is limited is made as good as can be: its linear
bound proves that the limit cannot be kept long before the limit itself as a rule does."""


class DueDateModel(PatternModel):
    """CP-SAT model of the plans within a latency, in solver units."""

    def __init__(
        self,
        data: ProblemData,
        patterns: PatternCatalogue,
        limits: Sequence[ObjectiveBound],
        latency: int,
    ) -> None:
        until = latency - data.fixed_latency
        early = tuple(_within(patterns.entries, until))
        super().__init__(data, PatternCatalogue(patterns.classes, early))
        for limit in limits:
            # A latency is kept by the due dates.
            if not limit.measure.timed and not self._always_keeps(limit):
                add_limit(self, limit)
        self._keep_due_dates(until)
        self._follow_a_guide(limits)

    def _always_keeps(self, limit: ObjectiveBound) -> bool:
        """Whether students of any two patterns are as alike in size as a limit asks."""
        sizes = [filters for one in self._patterns for _, filters in one.loading.tasks]
        even = OBJECTIVE_FUNCTIONS["imbalance"]
        return limit.measure is even and max(sizes, default=0) - min(sizes, default=0) <= (
            limit.bound
        )

    def _keep_due_dates(self, until: int) -> None:
        """Add a row for each date that can be missed, as a chain of sums."""
        due: dict[int, list[int]] = defaultdict(list)
        for e, pattern in enumerate(self._patterns):
            due[until - pattern.loading.tail].append(e)
        sent: Expr | int = 0
        kinds: set[int] = set()
        most, further = 0, list[Expr]()
        for date in sorted(due):
            for e in due[date]:
                kind, send = self._patterns[e].kind, self._patterns[e].loading.send
                if kind not in kinds:
                    kinds.add(kind)
                    most += send * len(self._data.board_classes[kind])
                further.append(send * self._boards[e])
            if most > date:
                done = self.model.new_int_var(0, date, f"sent by {date}")
                self.model.add(done == sum_of([sent, *further]))
                sent, further = done, []

    def _follow_a_guide(self, limits: Sequence[ObjectiveBound]) -> None:
        """Improve a limited sum, if there is one; any solution ends the search."""
        measures = [limit.measure for limit in limits]
        for name in GUIDES:
            if (guide := OBJECTIVE_FUNCTIONS[name]) in measures:
                value = guide.read(self)
                if guide.maximise:
                    self.model.maximize(value)
                else:
                    self.model.minimize(value)
                return


def _within(patterns: Sequence[Pattern], until: int) -> Iterator[Pattern]:
    """Yield the patterns that, sent to first, are done in time."""
    for pattern in patterns:
        if pattern.loading.send + pattern.loading.tail <= until:
            yield pattern


def first_proofs(
    level_solver: LevelSolver,
    goal: ObjectiveFunction,
    incumbent: Incumbent,
    deterministic_limit: float,
) -> SolverRuns[SearchOutcome]:
    """Best plan and bound by the relaxation, due dates, and a model of all plans.

    Far from its bound a plan is soon improved within deadlines; near to it, the other models are
    often quicker, so that these come first.
    """
    low, found, took = yield from level_solver.bound_by_relaxation(
        goal, incumbent, RELAXED_SHARE * deterministic_limit
    )
    if low >= found[1]:
        return _outcome(low, found, took)
    asked = _DeadlineSearch(level_solver, goal, low, found, took)
    if found[1] - low > NARROW_GAP * found[1]:
        yield from asked.descend(deterministic_limit)
    if asked.low >= asked.best[1]:
        return _outcome(asked.low, asked.best, asked.took)
    first = yield from level_solver.run(
        asked.best, FIRST_SHARE * deterministic_limit, low=asked.low
    )
    asked.took += first.deterministic_time
    if first.proven or first.assignment is None or first.value is None:
        return replace(first, deterministic_time=asked.took)
    asked.best, asked.low = (first.assignment, first.value), max(asked.low, first.bound or 0)
    yield from asked.narrow(deterministic_limit)
    return _outcome(asked.low, asked.best, asked.took)


def _outcome(low: int, best: Incumbent, took: float) -> SearchOutcome:
    """Outcome of a bracket: proven where it is closed."""
    proven = low >= best[1]
    return SearchOutcome(*best, min(low, best[1]), proven, False, took)


@dataclass(slots=True)
class _DeadlineSearch:
    """Search for the earliest deadline that a plan keeps, from `low` to the best plan's."""

    level_solver: LevelSolver
    goal: ObjectiveFunction
    low: int
    best: Incumbent
    took: float

    def descend(self, deterministic_limit: float) -> SolverRuns[None]:
        """Ask for less than the best plan until there is none, or no answer."""
        each, until = RELAXED_SHARE * deterministic_limit, DESCENT_SHARE * deterministic_limit
        patterns, found = self._patterns(), True
        until += self.took
        while patterns and found and self.low < self.best[1] and self.took < until:
            best = self.best
            yield from self._ask(patterns, best[1] - 1, each)
            found = self.best is not best

    def narrow(self, deterministic_limit: float) -> SolverRuns[None]:
        """Halve the bracket; where no answer comes, its lower part.  Once narrow, close it."""
        each = QUESTION_SHARE * deterministic_limit
        patterns, high = self._patterns(), self.best[1]
        until = min(self.took + QUESTIONS_SHARE * deterministic_limit, deterministic_limit)
        while patterns and high > self.low and self.took < until:
            near = high - self.low <= DEADLINE_GAP * high
            if near and high < self.best[1]:
                return
            middle = high - 1 if near else (self.low + high) // 2
            yield from self._ask(patterns, middle, min(each, until - self.took))
            high = min(self.best[1], high if self.low > middle else middle)

    def _patterns(self) -> PatternCatalogue | None:
        """Patterns of better plans; None where they do not say all, or are too many.

        The few patterns of nearly alike communities are in the pattern model already.
        """
        level, data = self.level_solver, self.level_solver.data
        told_apart = any(limit.measure.per_board for limit in level.limits)
        if told_apart or not relaxes(data) or len(community_classes(data)) <= FEW_CLASSES:
            return None
        return enumerate_patterns(data.within_latency(self.best[1] - 1), MOST_PATTERNS)

    def _ask(
        self, patterns: PatternCatalogue, latency: int, deterministic_limit: float
    ) -> SolverRuns[None]:
        """Ask for a plan within a latency, and take note of the answer."""
        level, took = self.level_solver, 0.0
        model = DueDateModel(level.data, patterns, level.limits, latency)
        while True:
            solver = new_solver(level.seed, deterministic_limit - took, linearization_level=1)
            # The whole linear relaxation, solved to its end: most questions need no search.
            solver.parameters.add_lp_constraints_lazily = False
            solver.parameters.root_lp_iterations = 10**6
            solver.parameters.stop_after_first_solution = True
            status = yield SolverTask(model.model, solver)
            took += solver.deterministic_time
            if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
                break
            if not tighten_logarithms(model, solver):
                self.best = level.better(self.goal, self.best, model.assignment(solver))
                break
            if took >= deterministic_limit:
                break
        self.took += took
        if status == cp_model.INFEASIBLE:
            self.low = latency + 1
