"""A second opinion where no certificate closes: HiGHS, on a model of its own.

No proof: HiGHS counts in binary fractions.  Its bound is cut to whole numbers only after what these
may hide is added.  A feasibility question is asked as a maximum, of communities that are placed.

Symbols: s student, b board, m mode, c community; runs[s,b,m] it runs there; knows[c,s,b,m] and
knows the community.  Costs are affine in filters, peaks those of no filters.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from planner.certificates import NOTHING, SUMS, Case, Demands, is_covered, remaining_cases
from planner.certificates.figures import BUSY, CostTables, signed_measure
from planner.certificates.verification import Claim
from planner.plan_file.plan_document import PlanDocument

MOST_VARIABLES = 20_000
MOST_NODES = 2_000
"""Limits of one case, the same on every machine."""
INFEASIBLE = 2
"""Status of `milp` where nothing is feasible."""
FRACTION = 1e-9
"""Part of a bound that binary fractions may hide."""

Column = tuple[int | None, int, int, int]
"""A community, or none, and student, board, mode."""


@dataclass
class _Rows:
    """Rows of a linear program, one after the other."""

    entries: list[tuple[int, int, float]] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)

    def add(self, low: float, high: float, row: Iterable[tuple[int, float]]) -> None:
        """Add low <= sum of amounts times columns <= high."""
        number = len(self.low)
        self.entries += [(number, column, amount) for column, amount in row]
        self.low.append(low)
        self.high.append(high)


def second_opinion(tables: CostTables, claim: Claim | Demands) -> bool | None:
    """Whether HiGHS agrees with a claim, or that there is no plan.

    None where it does not, or has no answer.
    It is asked of sums over boards and of whether there is a plan, without times.
    """
    demands = claim.demands if isinstance(claim, Claim) else claim
    goal = claim.goal if isinstance(claim, Claim) else None
    timed = demands.latest, demands.period, demands.node_energy, demands.spread, demands.product
    if (
        not is_covered(tables.problem)
        or tables.shares_group0
        or any(one is not None for one in timed)
    ):
        return None
    if "energy" in {goal, *demands.sums} or (goal is not None and goal not in SUMS):
        return None
    agreed = True
    for case in remaining_cases(tables.problem, demands):
        if case.rounds > 1:
            return None
        bound = _bound(tables, case, demands, goal)
        if bound is None:
            return None
        if isinstance(claim, Claim):
            one = Demands(demands.hidden)
            above = one.also(tables.problem, claim.goal, claim.bound, beyond=True).sums[claim.goal]
            agreed &= bound < above
        else:
            agreed &= bound < len(case.kept)
    return agreed or None


def refusal_standing(plan: PlanDocument) -> str:
    """Standing of a refusal, for people; its certificate was checked as it was made."""
    if plan.refutation is not None:
        return "certified: prices in whole numbers prove it, which `nonn-plan verify` checks"
    if second_opinion(CostTables(plan.question), Demands.of(plan.question)):
        return "second opinion, not a proof: HiGHS agrees, on a model of its own"
    return "not confirmed: OR-Tools CP-SAT alone says so"


def _bound(tables: CostTables, case: Case, demands: Demands, goal: str | None) -> int | None:
    """Most of the goal, or of communities that are placed; None for no answer."""
    students = range(min(case.most, len(case.kept)))
    modes = [one.mode for one in tables.first(0, 0, case.group0, "any", False)]
    runs: list[Column] = [
        (None, *key) for key in product(students, range(len(tables.boards)), modes)
    ]
    # Students stand in the order of their first communities.
    knows: list[Column] = [
        (c, *run[1:]) for n, c in enumerate(case.kept) for run in runs if run[1] <= n
    ]
    columns = [*runs, *knows]
    if len(columns) > MOST_VARIABLES or goal == "boards" or "boards" in demands.sums:
        return None
    parts = [_part(tables, case, one) for one in columns]
    rows = _Rows()
    _place(rows, case, columns, whole=goal is not None)
    _keep_budgets(rows, tables, columns, [needs for needs, _ in parts])
    for name, least in demands.sums.items():
        if name != goal:
            amounts = enumerate(float(signed_measure(name, gains)) for _, gains in parts)
            rows.add(least, math.inf, amounts)
    if goal is None:
        return _most(rows, [float(one[0] is not None) for one in columns])
    return _most(rows, [float(signed_measure(goal, gains)) for _, gains in parts])


def _place(rows: _Rows, case: Case, columns: Sequence[Column], *, whole: bool) -> None:
    """Place each community, all of them where `whole`, and each student, once.

    knows[c,s,b,m] <= runs[s,b,m] <= sum_c knows[c,s,b,m].
    """
    by_community: dict[int | None, list[int]] = defaultdict(list)
    by_student: dict[int, list[int]] = defaultdict(list)
    by_run: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    for n, (community, *run) in enumerate(columns):
        by_community[community].append(n)
        if community is None:
            by_student[run[0]].append(n)
        by_run[run[0], run[1], run[2]].append(n)
    for community, own in by_community.items():
        few, many = (int(whole), 1) if community is not None else (case.fewest * whole, case.most)
        rows.add(few, many, ((n, 1.0) for n in own))
    for own in by_student.values():
        rows.add(0, 1, ((n, 1.0) for n in own))
    for first, *knows in by_run.values():
        rows.add(0, math.inf if case.merges else 0, [(first, -1.0), *((n, 1.0) for n in knows)])
        for n in knows:
            rows.add(-math.inf, 0, [(n, 1.0), (first, -1.0)])


def _keep_budgets(
    rows: _Rows, tables: CostTables, columns: Sequence[Column], needs: Sequence[Sequence[int]]
) -> None:
    """Memory and MACs of each board's students within its budgets."""
    for board in range(len(tables.boards)):
        for need, limit in enumerate(tables.limits(board)[:BUSY]):
            if limit is not None:
                here = (n for n, one in enumerate(columns) if one[2] == board)
                rows.add(-math.inf, limit, ((n, float(needs[n][need])) for n in here))


def _part(
    tables: CostTables, case: Case, column: Column
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Needs and gains of a student without filters, or of a community that it knows."""
    community, _, board, mode = column
    first = tables.first(board, 0, case.group0, "any", False)
    (student,) = (one for one in first if one.mode == mode)
    if community is None:
        return student.needs, student.gains
    joining = tables.joining(board, tables.sizes[community], case.group0, "any", False)
    (part,) = (one for one in joining if one.slope == student.slope)
    return part.needs, part.gains


def _most(rows: _Rows, worth: Sequence[float]) -> int | None:
    """Whole bound of a maximum, NOTHING where there is nothing; None for no answer."""
    numbers, columns, amounts = zip(*rows.entries, strict=True)
    matrix = coo_array((amounts, (numbers, columns)), shape=(len(rows.low), len(worth)))
    found = milp(
        [-one for one in worth],
        integrality=np.ones(len(worth), dtype=np.int64),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(matrix.tocsr(), np.array(rows.low), np.array(rows.high)),
        options={"node_limit": MOST_NODES, "mip_rel_gap": 0.0},
    )
    if found.status == INFEASIBLE:
        return NOTHING
    bound = found.mip_dual_bound
    if bound is None or not math.isfinite(bound):
        return None
    return math.floor(-bound + FRACTION * max(1.0, abs(bound)))
