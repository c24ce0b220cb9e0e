"""Verification of certificates: what follows from prices, case by case, in plain integers.

For any prices p of communities and u of students, and any weights w of demands and prices y of due
dates that are not negative, a plan with r rounds that keeps its demands m_j >= G_j has

    0 <= sum_j w_j (m_j - G_j) + sum_t y_t (t - sends due by t)
      <= sum_c max(r p_c, (r-1) p_c) + max(u fewest, u most) - sum_j w_j G_j + sum_t y_t t
         + sum_b best[b],

with sum_c p_c for r = 1; best[b] is the most that a set of students which board b can run is worth:
its weighted measures, less the prices of its communities, its students and its send.  Where the
right side is negative there is no such plan; without the demand on the goal it bounds the goal.
What is due by t on one sender is sent by t (Jackson 1955).  Copies and shared media make nothing
better; they are left out.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from nonn_common.document import Record
from planner.certificates import (
    NOTHING,
    PRODUCT,
    SUMS,
    Case,
    Certificate,
    Demands,
    PriceLeaf,
    at_sole_points,
    complete,
    is_covered,
    remaining_cases,
    uncovered,
)
from planner.certificates.board_pricing import BoardPricing
from planner.certificates.figures import CostTables
from planner.certificates.listing import PlanListing, case_divisions
from planner.certificates.pricing import Trace, WorkExceededError, WorkLimit
from planner.certificates.replay import PlanReplay
from planner.problem.problem import Problem
from planner.problem.trained_students import placement_question

REFUTED = ("latency", "throughput", "energy-node", "imbalance", "dropped")
"""Objectives of which it is refuted that there is more, as they are no sums."""

KNOWN = frozenset({*SUMS, *REFUTED, "accuracy"})
"""Objectives that certificates bound, and whose demands they keep."""

MOST_WORK = 4_000_000
"""Labels that one certificate may take to check."""


class LeafBound(BoardPricing):
    """Right side of the inequality for one leaf."""

    @property
    def sound(self) -> bool:
        """Whether weights are known and not negative, and each community has a price."""
        leaf = self.leaf
        return (
            set(leaf.weights) <= {*SUMS, *PRODUCT}
            and min(leaf.weights.values(), default=0) >= 0
            and all(min(row) >= 0 for row in leaf.due)
            and len(leaf.prices) == len(self.case.sizes)
            and not (leaf.path and self.case.rounds > 1)
            and all(one.known for one in leaf.path)
        )

    def total(self, goal: str | None = None) -> int | None:
        """The right side, without the goal's own demand; None where a forced choice is impossible.

        Raises WorkExceededError.
        """
        fewest, most = self.students
        if fewest > most:
            return None
        fixed, worth = self.fixed(goal), 0
        known: dict[object, tuple[int, Trace] | None] = {}
        for place in range(len(self.tables.boards)):
            key = self.tables.alike(place), self.choices(place)
            if key not in known:
                known[key] = self.best(place)
            found = known[key]
            if found is None:
                return None
            worth += found[0]
        return fixed + worth

    def fixed(self, goal: str | None) -> int:
        """All of the right side but what boards are worth."""
        leaf, case, demands = self.leaf, self.case, self.demands
        fewest = max(1, case.rounds - 1)
        total = sum(max(case.rounds * leaf.prices[c], fewest * leaf.prices[c]) for c in case.kept)
        total += max(leaf.student_price * n for n in self.students)
        total += sum(date * price for date, price in leaf.due)
        for name, least in demands.sums.items():
            total -= leaf.weights.get(name, 0) * least if name != goal else 0
        if demands.product and goal != "accuracy":
            a, b = (leaf.weights.get(name, 0) for name in PRODUCT)
            total -= math.isqrt(4 * a * b * demands.product)
        return total

    @property
    def students(self) -> tuple[int, int]:
        """Fewest and most students; more than the most where there are none."""
        case, window = self.case, self.window
        if window is None:
            return case.fewest, case.most
        return max(case.fewest, -(-self.filters // max(1, window[1]))), min(
            case.most, self.filters // window[0]
        )


def leaf_bound(
    tables: CostTables,
    case: Case,
    demands: Demands,
    goal: str | None,
    leaf: PriceLeaf,
    work: WorkLimit,
) -> int | None:
    """Bound of a leaf, as `PriceLeaf.implied` has it; None for none.

    Raises WorkExceededError.
    """
    bound = LeafBound(tables, case, demands, leaf, work)
    if leaf.listed:
        return PlanListing(bound, goal).bound() if case.rounds == 1 and not leaf.path else None
    return leaf.implied(bound.total(goal), goal) if bound.sound else None


def certified_bound(
    tables: CostTables, demands: Demands, goal: str | None, certificate: Certificate
) -> int | None:
    """Bound of all cases, or of their divisions; None where a leaf is missing.

    Raises WorkExceededError.
    """
    if not is_covered(tables.problem):
        return None
    work, found = WorkLimit(MOST_WORK), NOTHING
    for whole in remaining_cases(tables.problem, demands):
        parts: tuple[Case, ...] | None = (whole,)
        if not any(map(whole.has, certificate.leaves)):
            parts = case_divisions(tables.problem, whole, work)
        if parts is None:
            return None
        for case in parts:
            leaves = [leaf for leaf in certificate.leaves if case.has(leaf)]
            if not complete(leaves):
                return None
            for leaf in leaves:
                bound = leaf_bound(tables, case, demands, goal, leaf, work)
                if bound is None:
                    return None
                found = max(found, bound)
    return found


ACCURACY_NOISE = 1e-6
"""Points that are taken for noise of logarithms."""


def accuracy_of(problem: Problem, product: int) -> float:
    """Accuracy of a plan by the product of its parameters and MACs."""
    return problem.accuracy_model.accuracy_pct(math.log(max(1, product)) / 2)


@dataclass(frozen=True, slots=True)
class Claim:
    """A stage's claim: no plan within the demands is better than `bound`; `best` was found."""

    demands: Demands
    goal: str
    bound: float
    best: float

    def holds(self, tables: CostTables, certificate: Certificate) -> bool:
        """Whether a certificate proves it, up to rounding.

        Raises ValueError where the certificate proves that `best` cannot be.
        """
        problem, goal = tables.problem, self.goal
        if goal not in SUMS and goal != "accuracy":
            beyond = self.demands.also(problem, goal, self.bound, beyond=True)
            refuted = certified_bound(tables, beyond, None, certificate) == NOTHING
            return goal in REFUTED and refuted
        bound = certified_bound(tables, self.demands, goal, certificate)
        if bound is None:
            return False
        if goal == "accuracy":
            most = accuracy_of(problem, bound)
            too_good = most < self.best - ACCURACY_NOISE
            holds = most <= self.bound + ACCURACY_NOISE
        else:
            one = Demands(self.demands.hidden)
            holds = bound < one.also(problem, goal, self.bound, beyond=True).sums[goal]
            too_good = bound < one.also(problem, goal, self.best).sums[goal]
        if too_good:
            raise ValueError(f"{goal}: its prices prove that no plan reaches {self.best:g}")
        return holds


NONE_THERE = "the file has none: none closed within the work of its search, or none was sought"
"""Why a claim of a kind that certificates know has none."""

Standing = Literal["certified", "seconded", "claimed"]
"""Prices that were checked, a second engine's opinion, or one solver's word."""

SecondOpinion = Callable[[CostTables, Claim | Demands], bool | None]
"""Another engine's answer to a claim, or to whether demands leave no plan; None for none."""


class StageStanding(Record):
    """Standing of the claim of one stage."""

    objective: str = Field(description="What was optimised; `no plan` of an infeasible question.")
    standing: Standing = Field(
        description="certified: its prices were checked in whole numbers; seconded: another "
        "engine agrees, which is no proof; claimed: one solver's word."
    )
    reason: str | None = Field(
        default=None, description="Why no certificate proves it; null where one does."
    )


class Verification(Record):
    """All that is untrue in a plan file, and the standing of the rest."""

    untrue: tuple[str, ...] = Field(description="Sentences; empty where all holds.")
    stages: tuple[StageStanding, ...] = Field(description="One row per stage with a bound.")


def verify_plan(
    problem: Problem, plan: Mapping[str, Any], second: SecondOpinion = lambda *_: None
) -> Verification:
    """Verify a plan file's plain content: its figures, and each claim by its certificate."""
    placed = placement_question(problem, [one["name"] for one in plan["students"]])
    asked = at_sole_points(placed)
    tables, rows = CostTables(asked), []
    untrue: list[str] = []
    if plan["status"] == "infeasible":
        claims: list[tuple[str, Claim | Demands, Any]] = [
            ("no plan", Demands.of(asked), plan.get("refutation"))
        ]
    else:
        untrue += PlanReplay(problem, plan).false_claims()
        untrue += _wrong_gaps(plan["stages"])
        claims = list(_claims(asked, plan["stages"]))
    kept: list[str] = [one.objective for one in problem.requirements]
    for name, claim, content in claims:
        standing: Standing = "claimed"
        try:
            if (reason := _unproven(tables, claim, content, kept)) is None:
                standing = "certified"
            elif second(tables, claim):
                standing = "seconded"
        except ValueError as error:
            untrue.append(str(error))
            reason = "its certificate proves the opposite"
        rows.append(StageStanding(objective=name, standing=standing, reason=reason))
        kept.append(name)
    return Verification(untrue=tuple(untrue), stages=tuple(rows))


def _wrong_gaps(stages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Gaps that are not the distance from best to bound."""
    for one in stages:
        best, bound, gap_pct = one["best"], one["bound"], one["gap_pct"]
        right = None if bound is None else 100 * abs(best - bound) / max(abs(best), 1e-9)
        if (gap_pct is None) is not (right is None) or (
            right is not None and not math.isclose(gap_pct, right, rel_tol=1e-9, abs_tol=1e-12)
        ):
            yield f"{one['objective']}: the gap is {right} %, not {gap_pct}"


def _claims(
    problem: Problem, stages: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, Claim, Any]]:
    """Claim of each stage that has a bound, and its certificate's content."""
    base = Demands.of(problem)
    for place, one in enumerate(stages):
        if one["bound"] is not None:
            earlier = [(s["objective"], s["best"], s["tolerance_pct"]) for s in stages[:place]]
            claim = Claim(base.after(problem, earlier), one["objective"], one["bound"], one["best"])
            yield one["objective"], claim, one.get("certificate")


def _unproven(
    tables: CostTables, claim: Claim | Demands, content: Any, kept: Sequence[str]
) -> str | None:
    """Reason that a claim is not proven by its certificate, or an empty one.

    None where it is proven.  `kept` are the objectives of its demands.
    """
    certificate = Certificate.model_validate(content or {})
    try:
        if isinstance(claim, Demands):
            proven = certified_bound(tables, claim, None, certificate) == NOTHING
        else:
            proven = claim.holds(tables, certificate)
    except WorkExceededError:
        return f"its certificate takes more than {MOST_WORK:,} steps to check"
    if proven:
        return None
    if kind := uncovered(tables.problem):
        return f"certificates do not know {kind}"
    if isinstance(claim, Claim) and claim.goal not in KNOWN:
        return f"certificates do not know {claim.goal}"
    reason = "its certificate does not prove it" if content else NONE_THERE
    left_out = _left_out(tables.problem, kept)
    return f"{reason}; certificates leave out {left_out}" if left_out else reason


def _left_out(problem: Problem, kept: Sequence[str]) -> str:
    """Demands that certificates ignore: such bounds hold, but may be too weak."""
    found = [name for name in dict.fromkeys(kept) if name not in KNOWN]
    if problem.max_copies > 1:
        found.append("copies of students")
    if any(one.link.shared for one in problem.boards):
        found.append("shared media")
    return ", ".join(found)
