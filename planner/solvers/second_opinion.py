"""A second opinion where no certificate closes: HiGHS, on a model of its own.

No proof: HiGHS counts in binary fractions.  Its bound is cut to whole numbers only after what these
may hide is added.  A feasibility question is asked as a maximum, of communities that are placed.

Symbols: s student, b board, m mode, c community, v precision; runs[s,b,m] it runs there;
knows[c,s,b,m] and knows the community; used[b] the board runs any.  Costs are affine in filters,
peaks those of no filters.  Where students share G0: copy[b,v] the board has one at this precision,
joint[b,v] of several students, peak[b,v] the elements alive.  With balance: least and most filters.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from planner.certificates import (
    NOTHING,
    SUMS,
    Case,
    Certificate,
    Demands,
    is_covered,
    remaining_cases,
)
from planner.certificates.figures import BUSY, GAINS, MACS, MEASURES, MEMORY, CostTables, Role
from planner.certificates.pricing import WorkLimit
from planner.certificates.verification import Claim, certified_bound
from planner.plan_file.plan_document import PlanDocument
from planner.problem.goals import MAXIMISED
from planner.problem.problem import Problem
from planner.solvers.certificate_search import refutation

MOST_VARIABLES = 20_000
MOST_NODES = 2_000
"""Limits of one case, the same on every machine."""
INFEASIBLE = 2
"""Status of `milp` where nothing is feasible."""
FRACTION = 1e-9
"""Part of a bound that binary fractions may hide."""

ALONE = Role("any")
"""A student that is a model of its own."""
HEAD = Role("any", "further", counted=False)
"""A head of a joint model; G0 and what is alive at once come on top."""


@dataclass(frozen=True, slots=True)
class _ModelColumn:
    """Variable, with what it adds to measures, and needs of its board."""

    gains: dict[str, int] = field(default_factory=dict)
    board: int = 0
    needs: tuple[int, ...] = (0, 0, 0)
    whole: bool = True


Run = tuple[int, int, int]
"""Student, board, mode."""


@dataclass
class _OpinionModel:
    """Variables and rows of one case, one after the other."""

    tables: CostTables
    case: Case
    columns: list[_ModelColumn] = field(default_factory=list)
    entries: list[tuple[int, int, float]] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    runs: dict[Run, int] = field(default_factory=dict)
    knows: dict[tuple[int, Run], int] = field(default_factory=dict)

    def column(self, column: _ModelColumn) -> int:
        """Number of a new variable."""
        self.columns.append(column)
        return len(self.columns) - 1

    def add(self, low: float, high: float, row: Iterable[tuple[int, float]]) -> None:
        """Add low <= sum of amounts times columns <= high."""
        number = len(self.low)
        self.entries += [(number, column, amount) for column, amount in row]
        self.low.append(low)
        self.high.append(high)

    @property
    def filters(self) -> int:
        """Filters of all communities that are kept."""
        return sum(self.tables.sizes[c] for c in self.case.kept)

    def build(self, *, whole: bool) -> None:
        """Add all variables and rows but those of demands; place all communities if `whole`."""
        tables, case = self.tables, self.case
        students = range(min(case.most, len(case.kept)))
        modes = tables.numbers(case.group0)
        role = HEAD if tables.shares_group0 else ALONE
        for run in product(students, range(len(tables.boards)), modes):
            self.runs[run] = self.column(self._part(run, 0, role))
        # Students stand in the order of their first communities.
        for place, c in enumerate(case.kept):
            for run in self.runs:
                if run[0] <= place:
                    column = self._part(run, tables.sizes[c], role, grown=True)
                    self.knows[c, run] = self.column(column)
        self._place(whole=whole)
        for board in range(len(tables.boards)):
            self._use(board)
            for precision in tables.problem.precisions if tables.shares_group0 else ():
                own = [m for m in modes if tables.modes[m].precision == precision]
                self._share(board, own)
            self._keep_budgets(board)
        if case.spread is not None and case.merges:
            self._balance(case.spread)

    def _part(self, run: Run, filters: int, role: Role, *, grown: bool = False) -> _ModelColumn:
        """A student without filters, or so many more of it."""
        part = (self.tables.growth if grown else self.tables.student)(
            run[1], run[2], filters, role, False
        )
        gains = dict(zip(GAINS, part.gains, strict=True))
        return _ModelColumn(gains | {"placed": int(grown)}, run[1], part.needs[:BUSY])

    def _place(self, *, whole: bool) -> None:
        """Place each community, all of them where `whole`, and each student, once.

        knows[c,s,b,m] <= runs[s,b,m] <= sum_c knows[c,s,b,m].
        """
        case = self.case
        self.add(case.fewest * whole, case.most, ((n, 1.0) for n in self.runs.values()))
        by_run: dict[Run, list[int]] = defaultdict(list)
        by_community: dict[int, list[int]] = defaultdict(list)
        by_student: dict[int, list[int]] = defaultdict(list)
        for (c, run), n in self.knows.items():
            by_run[run].append(n)
            by_community[c].append(n)
        for run, n in self.runs.items():
            by_student[run[0]].append(n)
            least = math.inf if case.merges else 0
            self.add(0, least, [(n, -1.0), *((one, 1.0) for one in by_run[run])])
            for one in by_run[run]:
                self.add(-math.inf, 0, [(one, 1.0), (n, -1.0)])
        for own in by_community.values():
            self.add(int(whole), 1, ((n, 1.0) for n in own))
        for own in by_student.values():
            self.add(0, 1, ((n, 1.0) for n in own))

    def _use(self, board: int) -> None:
        """Whether a board runs any student; what it knows counts G0 once."""
        here = [n for run, n in self.runs.items() if run[1] == board]
        stem = self.tables.modes[self.tables.numbers(self.case.group0)[0]].stem
        known = stem.params if self.tables.shares_group0 else 0
        used = self.column(_ModelColumn({"boards": 1, "params": known}))
        self.add(-math.inf, 0, [(used, 1.0), *((n, -1.0) for n in here)])
        for n in here:
            self.add(-math.inf, 0, [(n, 1.0), (used, -1.0)])

    def _share(self, board: int, modes: Sequence[int]) -> None:
        """One G0 for the students of a board in these modes, of one precision.

        Of several the features of all are alive, and G0's maps; one lets these go.
        """
        tables, most = self.tables, min(self.case.most, len(self.case.kept))
        stem, size = tables.modes[modes[0]].stem, tables.modes[modes[0]].value_bytes
        needs = size * stem.params, size * stem.params, stem.macs
        gains = {"memory_bytes": needs[MEMORY], "macs": needs[MACS]}
        copy = self.column(_ModelColumn(gains, board, needs))
        joint = self.column(_ModelColumn())
        peak = self.column(_ModelColumn({"memory_bytes": size}, board, (size, 0, 0), whole=False))
        here = {run: n for run, n in self.runs.items() if run[1] == board and run[2] in modes}
        features = [
            (n, float(tables.sizes[c])) for (c, run), n in self.knows.items() if run in here
        ]
        self.add(0, math.inf, [(peak, 1.0), (copy, -float(stem.peak_elements))])
        several = (copy, 1.0), (joint, float(most - 1))
        self.add(0, math.inf, [*several, *((n, -1.0) for n in here.values())])
        for run, n in here.items():
            mode = tables.modes[run[2]]
            alone, behind = mode.line.at(0).peak_elements, mode.behind(0)
            self.add(-math.inf, 0, [(n, 1.0), (copy, -1.0)])
            self.add(0, math.inf, [(peak, 1.0), (n, -float(alone))])
            large = behind + self.filters
            row = [(peak, 1.0), (n, -float(behind)), (joint, -float(large))]
            self.add(-large, math.inf, [*row, *((c, -amount) for c, amount in features)])

    def _keep_budgets(self, board: int) -> None:
        """Memory and MACs of a board's models within its budgets."""
        for need, limit in enumerate(self.tables.limits(board)[:BUSY]):
            if limit is not None:
                own = ((n, float(one.needs[need])) for n, one in self._on(board))
                self.add(-math.inf, limit, own)

    def _on(self, board: int) -> Iterable[tuple[int, _ModelColumn]]:
        return ((n, one) for n, one in enumerate(self.columns) if one.board == board)

    def _balance(self, spread: int) -> None:
        """No student has more filters than another by more than this."""
        least, most = (self.column(_ModelColumn(whole=False)) for _ in range(2))
        self.add(-math.inf, spread, [(most, 1.0), (least, -1.0)])
        for s in {run[0] for run in self.runs}:
            sizes = [
                (n, -float(self.tables.sizes[c]))
                for (c, run), n in self.knows.items()
                if run[0] == s
            ]
            self.add(0, math.inf, [(most, 1.0), *sizes])
            here = [(n, float(self.filters)) for run, n in self.runs.items() if run[0] == s]
            self.add(-math.inf, self.filters, [(least, 1.0), *sizes, *here])

    def worth(self, name: str) -> list[float]:
        """Amount of each variable in an objective, negative where less is better."""
        measure = MEASURES.get(name, name)
        sign = 1 if name in MAXIMISED or name == "placed" else -1
        return [float(sign * one.gains.get(measure, 0)) for one in self.columns]


def second_opinion(tables: CostTables, claim: Claim | Demands) -> bool | None:
    """Whether HiGHS agrees with a claim, or that there is no plan.

    None where it does not, or has no answer.
    It is asked of sums over boards and of whether there is a plan, without times.
    """
    demands = claim.demands if isinstance(claim, Claim) else claim
    goal = claim.goal if isinstance(claim, Claim) else None
    timed = demands.latest, demands.period, demands.node_energy, demands.product
    if (
        not is_covered(tables.problem)
        or tables.problem.max_copies > 1
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


RefusalStanding = Literal["enumerated", "certified", "seconded", "unconfirmed"]
"""Reason that a refusal is believed: all plans were looked at, prices, a second engine, or none."""
REFUSAL_WORK = 3_000_000
"""Labels that certificates of one exploration's refusals may take."""
MOST_OPINIONS = 8
"""Questions that HiGHS is asked for one exploration."""


@dataclass
class RefusalCheck:
    """Standing of refusals of questions that differ in budgets, the roomiest asked first.

    Prices that refute one are tried on the next, in that one's own figures.
    """

    work: WorkLimit = field(default_factory=lambda: WorkLimit(REFUSAL_WORK))
    opinions: int = MOST_OPINIONS
    _known: dict[str, list[Certificate]] = field(default_factory=lambda: defaultdict(list))

    def standing(self, problem: Problem) -> RefusalStanding:
        """Standing of the answer that a question has no plan, however little wide students know."""
        problem = problem.model_copy(update={"inversion": None})
        if not is_covered(problem):
            return "unconfirmed"
        tables, demands = CostTables(problem), Demands.of(problem)
        known = self._known[problem.model_dump_json(exclude={"budgets", "objective"})]
        for one in known:
            if certified_bound(tables, demands, None, one) == NOTHING:
                return "certified"
        found = refutation(tables, demands, self.work) if self.work.left > 0 else None
        if found is not None:
            known.append(found)
            return "certified"
        self.opinions -= 1
        return (
            "seconded" if self.opinions >= 0 and second_opinion(tables, demands) else "unconfirmed"
        )


def _bound(tables: CostTables, case: Case, demands: Demands, goal: str | None) -> int | None:
    """Most of the goal, or of communities that are placed; None for no answer."""
    students = min(case.most, len(case.kept))
    runs = students * len(tables.boards) * len(tables.numbers(case.group0))
    if runs * (1 + len(case.kept)) > MOST_VARIABLES:
        return None
    program = _OpinionModel(tables, case)
    program.build(whole=goal is not None)
    for name, least in demands.sums.items():
        if name != goal:
            program.add(least, math.inf, enumerate(program.worth(name)))
    return _most(program, program.worth(goal or "placed"))


def _most(program: _OpinionModel, worth: Sequence[float]) -> int | None:
    """Whole bound of a maximum, NOTHING where there is nothing; None for no answer."""
    numbers, columns, amounts = zip(*program.entries, strict=True)
    matrix = coo_array((amounts, (numbers, columns)), shape=(len(program.low), len(worth)))
    whole = np.array([one.whole for one in program.columns])
    found = milp(
        [-one for one in worth],
        integrality=whole.astype(np.int64),
        bounds=Bounds(0, np.where(whole, 1, np.inf)),
        constraints=LinearConstraint(matrix.tocsr(), np.array(program.low), np.array(program.high)),
        options={"node_limit": MOST_NODES, "mip_rel_gap": 0.0},
    )
    if found.status == INFEASIBLE:
        return NOTHING
    bound = found.mip_dual_bound
    if bound is None or not math.isfinite(bound):
        return None
    return math.floor(-bound + FRACTION * max(1.0, abs(bound)))
