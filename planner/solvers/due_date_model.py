"""The due-date model: plans within a deadline, by patterns of boards, all limits kept.

Asked whether any plan is within a latency T, the host's sends are jobs with due dates, as in the
relaxation of `planner.solvers.latency`; but the choices are patterns: what a board runs, to the
last community and network.  So nothing is relaxed.  Limits that earlier levels leave are in the
same model; where there is no solution there is no plan, and a solution is a plan.

    sum_{e due by t} send(e) boards[e] <= t      for each t = T - around - tail(e) of a pattern e.

A date by which all boards with a pattern so long can be sent to holds always; it has no row.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from planner import solvers as cp_model
from planner.data.modes import Assignment
from planner.data.objective_function import OBJECTIVE_FUNCTIONS, ObjectiveBound, ObjectiveFunction
from planner.data.problem_data import ProblemData, community_classes
from planner.heuristics.board_load import Pattern, PatternCatalogue, PatternRow
from planner.heuristics.local_search import KICKS
from planner.solvers import SolverRuns, SolverTask
from planner.solvers.deadline_prices import SUMS, DeadlinePrices
from planner.solvers.latency import relaxes
from planner.solvers.level_solver import (
    FEW_CLASSES,
    Incumbent,
    LevelSolver,
    SearchOutcome,
    add_limit,
    within_balance,
)
from planner.solvers.pattern_model import PatternModel, pattern_rows
from planner.solvers.reliability_model import tighten_logarithms
from planner.solvers.variables import Expr, sum_of

MOST_PATTERNS = 20_000
"""With more patterns the model is not asked."""
NARROW_GAP = 0.1
"""A bracket narrower than this part of its upper end is put to the other models first."""
FIRST_SHARE = 0.2
"""Part of the time for these, after which the bracket is asked about."""
RELAXED_SHARE = 0.02
"""Part of the time for one question to the relaxation, one packing, or a first deadline."""
NARROW_SHARE = 0.005
"""The same, for a deadline near the bound: where due dates prove one, they do so at once."""
DESCENT_SHARE = 0.1
"""Part of the time for plans that are better and better, until a question has no answer."""
QUESTION_SHARE = 0.1
"""Part of the time for one question in between."""
QUESTIONS_SHARE = 0.6
"""Part of the time for all of these."""
DEADLINE_GAP = 0.001
"""A bracket narrower than this part of its upper end is not asked about any more."""

BOLD_STEPS = (0.04, 0.02, 0.01)
"""Parts of a latency by which a neighbour is to be better, one after the other."""
SMALL_STEPS = (0.004, 0.002, 0.001, 0.0005)
"""The same, where no model proves the best plan."""
STEP_TRIES = 3
"""Neighbourhoods without such a plan before the next step is tried."""
FREE_BOARDS = 12
"""Boards that a neighbourhood leaves free."""
NEIGHBOUR_LIMIT = 0.15
"""Deterministic time for one neighbourhood; a first deadline has as much at least."""

GUIDES = SUMS
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

    def keep_rows(self, rows: Mapping[PatternRow, int]) -> None:
        """Let so many boards of a kind run each of these patterns, at least."""
        for pattern, boards in zip(self._patterns, self._boards, strict=True):
            if number := rows.get((pattern.kind, pattern.key)):
                self.model.add(boards >= number)

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


Improvement = Callable[[Assignment | None, int], tuple[Incumbent | None, float]]
"""A local search from a plan with so many kicks: the best plan known then, and the time it took."""


def first_proofs(
    level_solver: LevelSolver,
    goal: ObjectiveFunction,
    incumbent: Incumbent,
    deterministic_limit: float,
    improved: Improvement,
) -> SolverRuns[SearchOutcome]:
    """Best plan and bound by the relaxation, due dates, and a model of all plans.

    Far from its bound a plan is soon improved within deadlines; near to it, and where there are too
    many patterns, the other models are often quicker, and a plan `improved` helps them most.  Of
    few choices the model of all plans comes before all that.
    """
    low, found, took = yield from level_solver.bound_by_relaxation(
        goal, incumbent, RELAXED_SHARE * deterministic_limit
    )
    if low >= found[1]:
        return _outcome(low, found, took)
    asked = _DeadlineSearch(level_solver, goal, improved, deterministic_limit, low, found, took)
    few = level_solver.data.few_choices
    if not few and not (found[1] - low > NARROW_GAP * found[1] and asked.patterns):
        asked.improve(KICKS)
    if not few and asked.best[1] - low > NARROW_GAP * asked.best[1]:
        yield from asked.look_nearby(BOLD_STEPS)
        yield from asked.descend()
    if asked.low >= asked.best[1]:
        return _outcome(asked.low, asked.best, asked.took)
    first = yield from level_solver.run(
        asked.best, FIRST_SHARE * deterministic_limit, low=asked.low
    )
    asked.took += first.deterministic_time
    if first.proven or first.assignment is None or first.value is None:
        return replace(first, deterministic_time=asked.took)
    asked.best, asked.low = (first.assignment, first.value), max(asked.low, first.bound or 0)
    asked.improve(KICKS)
    yield from asked.look_nearby(SMALL_STEPS)
    yield from asked.narrow()
    return _outcome(asked.low, asked.best, asked.took)


def _outcome(low: int, best: Incumbent, took: float) -> SearchOutcome:
    """Outcome of a bracket: proven where it is closed."""
    proven = low >= best[1]
    return SearchOutcome(*best, min(low, best[1]), proven, False, took)


@dataclass
class _DeadlineSearch:
    """Search for the earliest deadline that a plan keeps, from `low` to the best plan's."""

    level_solver: LevelSolver
    goal: ObjectiveFunction
    improved: Improvement
    deterministic_limit: float
    low: int
    best: Incumbent
    took: float

    def __post_init__(self) -> None:
        self._catalogue: PatternCatalogue | None = None
        self._listed_at = math.inf
        self._improved: tuple[Incumbent, int] | None = None
        self._prices: DeadlinePrices | None = None

    def improve(self, kicks: int) -> None:
        """Go on from the best plan with moves and kicks; not twice from the same."""
        if self._improved == (self.best, kicks):
            return
        found, took = self.improved(self.best[0], kicks)
        self.best = found or self.best
        self.took += took
        self._improved = self.best, kicks

    def descend(self) -> SolverRuns[None]:
        """Ask for less than the best plan until there is none, or no answer."""
        until, found = self.took + DESCENT_SHARE * self.deterministic_limit, bool(self.patterns)
        while found and self.low < self.best[1] and self.took < until:
            best = self.best
            near = best[1] - self.low <= NARROW_GAP * best[1]
            share = NARROW_SHARE if near else RELAXED_SHARE
            limit = max(NEIGHBOUR_LIMIT, share * self.deterministic_limit)
            yield from self._ask(best[1] - 1, limit)
            if found := self.best is not best:
                self.improve(0)

    def narrow(self) -> SolverRuns[None]:
        """Halve the bracket; where no answer comes, its lower part.  Once narrow, close it."""
        each, high = QUESTION_SHARE * self.deterministic_limit, self.best[1]
        until = min(
            self.took + QUESTIONS_SHARE * self.deterministic_limit, self.deterministic_limit
        )
        while self.patterns and high > self.low and self.took < until:
            near = high - self.low <= DEADLINE_GAP * high
            if near and high < self.best[1]:
                return
            middle = high - 1 if near else (self.low + high) // 2
            if not self._refuted(self.patterns, middle, min(each, until - self.took)):
                yield from self._ask(middle, min(each, until - self.took))
            high = min(self.best[1], high if self.low > middle else middle)

    @property
    def patterns(self) -> PatternCatalogue | None:
        """Patterns of better plans; None where they do not say all, or are too many.

        The few patterns of nearly alike communities are in the pattern model already.
        """
        if self._catalogue is None and self._listed_at > self.best[1]:
            self._listed_at, level = self.best[1], self.level_solver
            data, told_apart = level.data, any(one.measure.per_board for one in level.limits)
            if relaxes(data) and not told_apart and len(community_classes(data)) > FEW_CLASSES:
                within = within_balance(data.within_latency(self.best[1] - 1), level.limits)
                before = level.lists.spent
                share = level.listing_limit(self.deterministic_limit)
                self._catalogue = level.lists.of(within, MOST_PATTERNS, share)
                self.took += level.lists.spent - before
        return self._catalogue

    def look_nearby(self, steps: Sequence[float]) -> SolverRuns[None]:
        """Ask for plans better by these steps in which most boards keep what they run."""
        until = self.took + DESCENT_SHARE * self.deterministic_limit
        if self.patterns is None:
            return
        level, failed = self.level_solver, 0
        nearby = Neighbourhoods(level.data, self.patterns, np.random.default_rng(level.seed))
        left = list(steps)
        while left and self.took < until:
            best, latency = self.best, math.floor((1 - left[0]) * self.best[1])
            if latency >= self.low:
                around, kept = nearby.around(best[0], latency)
                yield from self._ask(latency, NEIGHBOUR_LIMIT, around, kept)
            failed += 1
            if self.best is not best:
                self.improve(0)
                failed = 0
            elif failed == STEP_TRIES or latency < self.low:
                del left[0]
                failed = 0

    def _ask(
        self,
        latency: int,
        deterministic_limit: float,
        nearby: PatternCatalogue | None = None,
        kept: Mapping[PatternRow, int] = MappingProxyType({}),
    ) -> SolverRuns[None]:
        """Ask for a plan within a latency, or for one `nearby`; note the answer."""
        level, took = self.level_solver, 0.0
        patterns = nearby or self.patterns
        assert patterns is not None  # noqa: S101  (asked only with patterns)
        model = DueDateModel(level.data, patterns, level.limits, latency)
        model.keep_rows(kept)
        while True:
            solver = cp_model.new_solver(
                level.seed, deterministic_limit - took, linearization_level=1
            )
            # The whole linear relaxation, solved to its end: most questions need no search.
            solver.parameters.add_lp_constraints_lazily = False
            solver.parameters.root_lp_iterations = 10**6
            solver.parameters.stop_after_first_solution = True
            status = yield SolverTask(model.model, solver, guided=True)
            took += solver.deterministic_time
            if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
                break
            if not tighten_logarithms(model, solver):
                self.best = level.better(self.goal, self.best, model.assignment(solver))
                break
            if took >= deterministic_limit:
                break
        self.took += took
        if status == cp_model.INFEASIBLE and nearby is None:
            self.low = latency + 1

    def _refuted(
        self, patterns: PatternCatalogue, latency: int, deterministic_limit: float
    ) -> bool:
        """Whether prices refute a latency, sooner than a model would; note the answer."""
        level = self.level_solver
        prices = self._prices = self._prices or DeadlinePrices(level.data, patterns, level.limits)
        before = prices.took
        refuted = prices.refutes(latency, deterministic_limit)
        self.took += prices.took - before
        self.low = latency + 1 if refuted else self.low
        return refuted


@dataclass
class Neighbourhoods:
    """Parts of a catalogue around plans, with few boards free.

    All others go on with what they run.  Free are boards that are late for a latency, those whose
    pattern the catalogue does not have, and others by lot; they may run any of their patterns of
    communities that are free with them.
    """

    data: ProblemData
    catalogue: PatternCatalogue
    draw: np.random.Generator

    def __post_init__(self) -> None:
        self._known = {(one.kind, one.key): one for one in self.catalogue.entries}
        self._classes = {row: _held(row) for row in self._known}

    def around(
        self, plan: Assignment, latency: int
    ) -> tuple[PatternCatalogue, Counter[PatternRow]]:
        """Patterns around a plan, and how many boards go on with which."""
        data, catalogue = self.data, self.catalogue
        rows = list(pattern_rows(data, catalogue.classes, plan))
        late = self._late(rows, latency)
        idle = [kinds[0] for kinds, boards in data.choices_of_kinds for _ in range(boards)]
        for kind, _ in rows:
            idle.remove(data.points_of[kind][0])
        others = [*(row for row in rows if row not in late), *((kind, ()) for kind in idle)]
        order = self.draw.permutation(len(others)).tolist()
        more = max(0, FREE_BOARDS - len(late))
        free = [*late, *(others[place] for place in order[:more])]
        kept = Counter(row for place in order[more:] if (row := others[place])[1])
        kinds = {point for kind, _ in free for point in data.points_of[kind]}
        left = set().union(*(_held(row) for row in free))
        left |= {
            c for c, ids in enumerate(catalogue.classes) if not set(ids).isdisjoint(plan.dropped)
        }
        entries = tuple(
            one
            for row, one in self._known.items()
            if (row[0] in kinds and self._classes[row] <= left) or row in kept
        )
        return PatternCatalogue(catalogue.classes, entries), kept

    def _late(self, rows: Sequence[PatternRow], latency: int) -> list[PatternRow]:
        """Rows that are done too late, and those that no better plan has."""
        late = [row for row in rows if row not in self._known]
        sent, until = 0, latency - self.data.fixed_latency
        known = [row for row in rows if row in self._known]
        for row in sorted(known, key=lambda row: -self._known[row].loading.tail):
            loading = self._known[row].loading
            sent += loading.send
            if sent + loading.tail > until:
                late.append(row)
        return late


def _held(row: PatternRow) -> set[int]:
    """Classes of the communities of a row."""
    return {c for each in row[1] for c, number in enumerate(each.communities) if number}
