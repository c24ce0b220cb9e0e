"""Search for certificates: prices are the duals of a linear program over sets of students.

The program chooses one set for each board, sets being found when their worth exceeds their prices
(column generation); its duals, scaled and rounded, are the prices of a leaf.  Where those do not
close, a board and a community are chosen that are together in part, and the leaf is split in two.
What a certificate proves is checked in whole numbers (`planner.certificates.verification`), so that
nothing here has to be exact.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from planner.certificates import (
    PRODUCT,
    SUMS,
    UNITS,
    BranchStep,
    Case,
    Certificate,
    Demands,
    PriceLeaf,
    at_sole_points,
    is_covered,
    remaining_cases,
)
from planner.certificates.board_pricing import PricedSet
from planner.certificates.figures import GAINS, CostTables, signed_measure
from planner.certificates.listing import case_divisions
from planner.certificates.pricing import WorkExceededError, WorkLimit
from planner.certificates.verification import (
    ACCURACY_NOISE,
    REFUTED,
    LeafBound,
    accuracy_of,
    leaf_bound,
)
from planner.plan_file.plan_document import LevelResult, PlanDocument
from planner.problem.trained_students import placement_question

SCALE = 10**3
"""Prices are duals times this, rounded."""
FINE_SCALE = 10**15
"""The same, where demands are weighed or sends are due."""
MOST_WORK = 1_000_000
"""Labels and columns that one stage's search may look at, for each ten boards, up to forty."""
FEW_LISTED, MOST_LISTED = 10_000, 200_000
"""Sets and plans of a case that is listed, before and after prices are looked for."""
MOST_DATES = 24
"""Due dates that have a price."""
LEAST_PART = 1e-7
"""Shares nearer to a whole number are taken for one."""
MOST_ROUNDS = 200
"""Linear programs for one leaf."""
PENALTY = 10.0
"""Part of the goal's value that a plan loses for a community that nobody knows."""
MOST_LEAVES = 60
"""Leaves of one case."""

Closes = Callable[[int | None], bool]
"""Whether a bound that a leaf implies is all that is asked for."""


class _Program:
    """Linear program of one leaf, whose duals are prices."""

    def __init__(self, question: "PriceSearch", case: Case, path: tuple[BranchStep, ...]) -> None:
        self._question, self._case = question, case
        prices = (0,) * len(case.sizes)
        self.empty = case.leaf.model_copy(
            update={"path": path, "weights": question.weights, "prices": prices}
        )
        self.view = LeafBound(question.tables, case, question.demands, self.empty, question.work)
        boards = range(len(question.tables.boards))
        keys = [(question.tables.alike(b), self.view.choices(b)) for b in boards]
        self.boards = Counter(keys)
        self.places = {key: keys.index(key) for key in self.boards}
        self.columns: list[tuple[PricedSet, Any]] = []
        self.duals: dict[int, float] = {}
        self._shares: list[float] = []
        self._seen: set[PricedSet] = set()
        from ortools.linear_solver import pywraplp

        self._solver = pywraplp.Solver.CreateSolver("GLOP")
        self._optimal = pywraplp.Solver.OPTIMAL
        if self.view.students[0] <= self.view.students[1]:
            self._build()

    def _build(self) -> None:
        solver, case, question = self._solver, self._case, self._question
        infinity, rounds = solver.infinity(), case.rounds
        penalty = 1.0 if question.goal is None else PENALTY
        self._goal = solver.Objective()
        self._goal.SetMaximization()
        fewest = max(1, rounds - 1)
        self._held = {c: solver.Constraint(fewest, rounds, "") for c in case.kept}
        self._students = solver.Constraint(*self.view.students, "")
        self._demands = {
            name: solver.Constraint(least / max(1, abs(least)), infinity, "")
            for name, least in question.demands.sums.items()
            if name != question.goal
        }
        self._due: dict[int, Any] = {}
        self._of_boards = {
            place: solver.Constraint(-infinity, self.boards[key], "")
            for key, place in self.places.items()
        }
        for row in (*self._held.values(), self._students, *self._demands.values()):
            slack = solver.NumVar(0, infinity, "")
            row.SetCoefficient(slack, 1)
            self._goal.SetCoefficient(slack, -penalty)

    def add(self, found: PricedSet) -> bool:
        """Add a set; say whether it is new."""
        if found in self._seen:
            return False
        self._seen.add(found)
        question = self._question
        column = self._solver.NumVar(0, self._solver.infinity(), "")
        for community, times in Counter(found.communities).items():
            self._held[community].SetCoefficient(column, times)
        self._students.SetCoefficient(column, found.gains[GAINS.index("students")])
        for name, row in self._demands.items():
            least = question.demands.sums[name]
            row.SetCoefficient(column, signed_measure(name, found.gains) / max(1, abs(least)))
        self._of_boards[found.place].SetCoefficient(column, 1)
        self._goal.SetCoefficient(column, question.worth(found))
        for date, row in self._due.items():
            if self.view.due(found) <= date:
                row.SetCoefficient(column, question.tables.sends[found.place] / UNITS)
        self.columns.append((found, column))
        return True

    def add_dates(self) -> bool:
        """Add rows of due dates that the solution breaks; say whether there were any."""
        question = self._question
        if question.demands.latest is None and question.demands.period is None:
            return False
        shares = zip(self.columns, self._shares, strict=True)
        used = [(self.view.due(one), share, one) for (one, _), share in shares if share > 1e-9]
        used.sort(key=lambda row: row[0])
        sent = 0.0
        broken: dict[int, float] = {}
        for due, share, one in used:
            sent += share * question.tables.sends[one.place]
            if sent > due + 1 and due not in self._due:
                broken[due] = sent - due
        worst = sorted(broken, key=lambda due: -broken[due])[:4]
        for date in worst[: MOST_DATES - len(self._due)]:
            row = self._solver.Constraint(-self._solver.infinity(), max(0, date) / UNITS, "")
            self._due[date] = row
            for one, column in self.columns:
                if self.view.due(one) <= date:
                    row.SetCoefficient(column, question.tables.sends[one.place] / UNITS)
        return bool(worst)

    def solve(self) -> PriceLeaf | None:
        """Prices of the optimum; None where the program is not solved."""
        self._question.work.spend(len(self.columns))
        if self._solver.Solve() != self._optimal:
            return None
        # What a solution holds is lost with the next change of the program.
        self.duals = {place: row.dual_value() for place, row in self._of_boards.items()}
        self._shares = [column.solution_value() for _, column in self.columns]
        question, scale = self._question, self._question.scale
        prices = list(self.empty.prices)
        for community, row in self._held.items():
            prices[community] = round(scale * row.dual_value())
        weights = dict(question.weights)
        for name, row in self._demands.items():
            norm = max(1, abs(question.demands.sums[name]))
            weights[name] = max(0, round(-scale * row.dual_value() / norm))
        due = ((d, max(0, round(scale * row.dual_value() / UNITS))) for d, row in self._due.items())
        return self.empty.model_copy(
            update={
                "prices": tuple(prices),
                "student_price": round(scale * self._students.dual_value()),
                "weights": {name: weight for name, weight in weights.items() if weight},
                "due": tuple(sorted((max(0, d), price) for d, price in due if price)),
            }
        )

    def _smallest(self) -> tuple[BranchStep, BranchStep] | None:
        """Two ways to go on: how large the smallest student is."""
        window, spread = self.view.window, self._case.spread or 0
        if window is not None and window[0] < window[1] - spread:
            middle = (window[0] + window[1] - spread + 1) // 2
            return BranchStep(filters=middle, holds=False), BranchStep(filters=middle, holds=True)
        return None

    def split(self) -> tuple[BranchStep, BranchStep] | None:
        """Two ways to go on, by something that the solution does in part.

        Of boards and communities, or else modes, those that are together most in part.
        """
        shares: dict[BranchStep, float] = defaultdict(float)
        alike = {place: self.boards[key] for key, place in self.places.items()}
        for (one, _), share in zip(self.columns, self._shares, strict=False):
            part = share / alike[one.place]
            for c in set(one.communities) if self._case.rounds == 1 else ():
                shares[BranchStep(board=one.place, community=c, holds=True)] += part
            for mode in set(one.modes):
                shares[BranchStep(board=one.place, mode=mode, holds=True)] += part
        taken = {step.choice for step in self.empty.path}
        open_parts = {
            step: (step.mode is not None, min(share, 1 - share))
            for step, share in shares.items()
            if step.choice not in taken and LEAST_PART < share < 1 - LEAST_PART
        }
        if not open_parts:
            return self._smallest()
        step = max(open_parts, key=lambda one: (*open_parts[one], one.choice[0] or 0))
        return step.model_copy(update={"holds": False}), step


class PriceSearch:
    """Search for leaves whose prices prove that the goal's measure is not above a bound.

    Without a goal they refute that there is any plan within the demands.  `sizes` are the goal's
    value, or, of accuracy, parameters and MACs of the best plan.
    """

    def __init__(
        self,
        tables: CostTables,
        demands: Demands,
        goal: str | None,
        closes: Closes,
        sizes: Sequence[float],
        work: WorkLimit,
    ) -> None:
        self.tables, self.demands, self.goal, self.work = tables, demands, goal, work
        self._closes = closes
        weighed = demands.sums.keys() - {goal} or demands.latest or demands.period
        self.scale = FINE_SCALE if weighed or goal == "accuracy" else SCALE
        self.weights: dict[str, int] = {}
        if goal == "accuracy":
            self.scale *= SCALE
            self.weights = {
                name: round(self.scale / size) for name, size in zip(PRODUCT, sizes, strict=True)
            }
        elif goal is not None:
            self.weights = {goal: self.scale}
            self.scale *= max(1, round(abs(sizes[0])))

    def worth(self, found: PricedSet) -> float:
        """Part of a set in the linear program's objective."""
        return (
            sum(w * signed_measure(name, found.gains) for name, w in self.weights.items())
            / self.scale
        )

    def certificate(self) -> Certificate | None:
        """Certificate of all cases; None where one does not close within the limits."""
        try:
            leaves = self._together(remaining_cases(self.tables.problem, self.demands))
        except WorkExceededError:
            return None
        return None if leaves is None else Certificate(leaves=tuple(leaves))

    def _together(self, cases: Iterable[Case]) -> list[PriceLeaf] | None:
        """Leaves of all these cases; None where one does not close."""
        leaves: list[PriceLeaf] = []
        for case in cases:
            found = self._leaves(case)
            if found is None:
                return None
            leaves += found
        return leaves

    def _leaves(self, case: Case) -> list[PriceLeaf] | None:
        """Leaves of a case; None where they do not close.

        Few plans are listed; else prices are sought, of each division or the case; or more listed.
        """
        if few := self._listed(case, FEW_LISTED):
            return few
        parts = case_divisions(self.tables.problem, case, self.work)
        if parts is not None:
            return self._together(parts)
        return self._priced(case) or self._listed(case, MOST_LISTED)

    def _priced(self, case: Case) -> list[PriceLeaf] | None:
        """Leaves of a case that have prices, depth first."""
        closed: list[PriceLeaf] = []
        paths: list[tuple[BranchStep, ...]] = [()]
        while paths:
            if len(closed) + len(paths) > MOST_LEAVES:
                return None
            path = paths.pop()
            program = _Program(self, case, path)
            leaf = self._closed(case, program)
            if leaf is not None:
                closed.append(leaf)
                continue
            ways = program.split()
            if ways is None:
                return None
            paths += [(*path, way) for way in ways]
        return closed

    def _listed(self, case: Case, most: int) -> list[PriceLeaf] | None:
        """Leaf of a case whose plans are listed; None for many."""
        leaf = case.leaf.model_copy(update={"listed": True})
        work = WorkLimit(most)
        try:
            bound = leaf_bound(self.tables, case, self.demands, self.goal, leaf, work)
        except WorkExceededError:
            bound = None
        self.work.spend(most - max(0, work.left))
        return [leaf] if self._closes(bound) else None

    def _closed(self, case: Case, program: _Program) -> PriceLeaf | None:
        """Prices that close, found by column generation; None where the optimum does not."""
        if program.view.students[0] > program.view.students[1]:
            return program.empty
        for one in program.view.singles(program.places.values()):
            program.add(one)
        for _ in range(MOST_ROUNDS):
            leaf = program.solve()
            if leaf is None:
                return None
            bound = LeafBound(self.tables, case, self.demands, leaf, self.work)
            total: int | None = bound.fixed(self.goal)
            grew = program.add_dates()
            for key, times in program.boards.items():
                place = program.places[key]
                dual = max(0, math.ceil(self.scale * program.duals[place]))
                best = bound.best(place)
                if best is None or total is None:
                    total = None
                    break
                total += times * best[0]
                if best[1] and best[0] > dual + self.scale // 10**6:
                    grew |= program.add(PricedSet.of(place, best[1]))
            if self._closes(leaf.implied(total, self.goal)):
                return leaf
            if not grew:
                return None
        return None


def _below(above: int) -> Closes:
    return lambda bound: bound is not None and bound < above


def find_certificate(
    tables: CostTables,
    demands: Demands,
    goal: str,
    value: float,
    sizes: tuple[int, int],
    work: WorkLimit,
) -> Certificate | None:
    """Certificate that no plan within the demands is better than `value`, up to rounding.

    `sizes` are parameters and MACs of the best plan.  None where none closes within the work.
    """
    problem = tables.problem
    if goal in SUMS:
        above = demands.also(problem, goal, value, beyond=True).sums[goal]
        closes, sizes = _below(above), (above, 1)
    elif goal == "accuracy":
        most_pct = value + ACCURACY_NOISE

        def closes(bound: int | None) -> bool:
            return bound is not None and accuracy_of(problem, bound) <= most_pct

    elif goal in REFUTED:
        return refutation(tables, demands.also(problem, goal, value, beyond=True), work)
    else:
        return None
    return PriceSearch(tables, demands, goal, closes, sizes, work).certificate()


def refutation(tables: CostTables, demands: Demands, work: WorkLimit) -> Certificate | None:
    """Certificate that there is no plan within the demands; None where none closes."""
    return PriceSearch(tables, demands, None, _below(0), [], work).certificate()


def with_certificates(plan: PlanDocument) -> PlanDocument:
    """The plan with a certificate of each stage, and of its infeasibility, where one closes."""
    placed = placement_question(plan.question, [one.name for one in plan.students])
    if not is_covered(problem := at_sole_points(placed)):
        return plan
    tables, demands = CostTables(problem), Demands.of(problem)
    most = MOST_WORK * min(4, max(1, len(problem.boards) // 10))
    if plan.status == "infeasible":
        return plan.model_copy(update={"refutation": refutation(tables, demands, WorkLimit(most))})
    sizes = plan.decision.params, plan.decision.macs
    stages: list[LevelResult] = []
    for stage in plan.stages:
        if (bound := stage.bound) is not None:
            earlier = [(one.objective, one.best, one.tolerance_pct) for one in stages]
            kept = demands.after(problem, earlier)
            found = find_certificate(tables, kept, stage.objective, bound, sizes, WorkLimit(most))
            stage = stage.model_copy(update={"certificate": found})
        stages.append(stage)
    return plan.model_copy(update={"stages": tuple(stages)})
