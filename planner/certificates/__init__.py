"""Certificates: integer prices by which anyone checks, without a solver, that no plan is better.

A certificate is of demands: requirements, what earlier stages leave, and a goal.  Its leaves
together hold all plans, case by case; `planner.certificates.verification` says what follows from
the prices of one.

Knows no solver and nothing of the planner's models.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from pydantic import Field

from nonn_common.document import Record
from planner.problem.goals import MAXIMISED
from planner.problem.least_spread import PCT_UNITS, most_spread
from planner.problem.problem import Problem
from profiles.device import DeviceProfile
from profiles.operating_point import most_macs_within, replaces

UNITS = 10**6
"""Whole numbers count millionths of a ms, of a mJ and of a point."""
NOISE = 1e-3
"""Part of a unit that is taken for noise of binary fractions."""

SUMS = {
    "capacity": "params",
    "precision": "value_bytes",
    "students": "students",
    "memory": "memory_bytes",
    "flops": "macs",
    "energy": "energy",
    "boards": "boards",
}
"""Objectives that are added up over boards, and what is added up."""

PRODUCT = ("params", "macs")
"""Measures whose product accuracy grows with."""


NOTHING = -(10**30)
"""A bound that nothing keeps: there is no plan."""


class BranchStep(Record):
    """A choice on the way to a leaf, of a board or of sizes."""

    board: int | None = Field(default=None, ge=0, description="Place of a board in the fleet.")
    community: int | None = Field(
        default=None, ge=0, description="Id of a community, or place of a student in a division."
    )
    mode: int | None = Field(
        default=None,
        ge=0,
        description="Number of a network at a precision, in the question's order.",
    )
    filters: int | None = Field(
        default=None, ge=1, description="Filters of the smallest student, where no board is named."
    )
    holds: bool = Field(
        description="Whether the board has a student that knows the community, or is in the mode; "
        "or whether each student has so many filters."
    )

    @property
    def choice(self) -> tuple[int | None, ...]:
        """The choice, whichever way it goes."""
        return self.board, self.community, self.mode, self.filters

    @property
    def known(self) -> bool:
        """Whether it is one kind of choice."""
        of_board = self.community is not None, self.mode is not None
        return sum((*of_board, self.filters is not None)) == 1 and (
            any(of_board) is (self.board is not None)
        )


class PriceLeaf(Record):
    """Prices that bound all plans of one case; every number is whole."""

    drop: int = Field(ge=0, description="Place of the drop step in the partition.")
    rounds: int = Field(ge=1, description="How often all kept communities are handed out.")
    group0: str = Field(description="Shape of the G0 that all students share.")
    division: tuple[int, ...] = Field(
        default=(),
        max_length=1000,
        description="Filters of each student, the most first, where it holds for these alone.",
    )
    listed: bool = Field(
        default=False,
        description="Whether it has no prices: the case is small, and its plans are listed.",
    )
    path: tuple[BranchStep, ...] = Field(
        default=(), max_length=64, description="Choices that lead to this leaf, one by one."
    )
    weights: dict[str, int] = Field(
        default={},
        description="Weight, 0 or more, of each demand that is added up over boards, by its "
        "objective; `params` and `macs` for accuracy.",
    )
    prices: tuple[int, ...] = Field(
        default=(),
        description="Price of each community, by its id; of a division, of each of its students.",
    )
    student_price: int = Field(default=0, description="Price of each student.")
    due: tuple[tuple[int, int], ...] = Field(
        default=(),
        max_length=64,
        description="Due dates in millionths of a ms, and the price, 0 or more, of each unit of "
        "the sender's time that is due by then.",
    )

    def implied(self, total: int | None, goal: str | None) -> int | None:
        """Most that the goal's measure can be, its sign turned where less is better.

        `total` bounds the weighted measures; None where the leaf has no plan.  Of accuracy it is
        the product of parameters and MACs; NOTHING where there is no plan, None where nothing is
        proven.
        """
        if total is None or (total < 0 and goal not in SUMS):
            return NOTHING
        if goal == "accuracy":
            a, b = (self.weights.get(name, 0) for name in PRODUCT)
            return total * total // (4 * a * b) if a and b else None
        weight = self.weights.get(goal, 0) if goal is not None else 0
        if weight:
            return total // weight
        return NOTHING if total < 0 else None


class Certificate(Record):
    """Proof that no plan is better: prices for each leaf of each case."""

    leaves: tuple[PriceLeaf, ...] = Field(
        default=(), max_length=2000, description="Leaves; none where no case is left."
    )


def complete(leaves: Sequence[PriceLeaf], depth: int = 0) -> bool:
    """Whether paths of leaves make a tree in which each choice goes both ways."""
    if len(leaves) == 1 and len(leaves[0].path) == depth:
        return True
    if not leaves or any(len(one.path) <= depth for one in leaves):
        return False
    steps = {one.path[depth].choice for one in leaves}
    ways = [[one for one in leaves if one.path[depth].holds is way] for way in (True, False)]
    return len(steps) == 1 and all(complete(way, depth + 1) for way in ways)


@dataclass(frozen=True)
class Demands:
    """Demands that a plan is to keep, in whole units; unknown ones are left out.

    `sums` are least values, with the sign turned where less is better.  `product` is of parameters
    and MACs, `latest` a latency, `period` the time from image to image, `node_energy` that of each
    board, `worth` the most that a drop may cost, `spread` the most between two students.
    """

    hidden: int
    sums: dict[str, int] = field(default_factory=dict)
    product: int | None = None
    latest: int | None = None
    period: int | None = None
    node_energy: int | None = None
    worth: Fraction | None = None
    spread: int | None = None

    @classmethod
    def of(cls, problem: Problem) -> "Demands":
        """Demands of a problem's requirements.

        Each send, student and G0 of a joint model, each filter's compute and reply, and the join
        are rounded once, by less than a unit; what that may hide is allowed.
        """
        models = len(problem.boards) * len(problem.precisions)
        figures = 2 * len(problem.boards) + problem.most_students + 2 * problem.most_filters + 2
        figures += models if problem.group0_copies == "per-board" else 0
        demands = cls(problem.max_copies * figures)
        for one in problem.requirements:
            demands = demands.also(problem, one.objective, one.bound)
        return demands

    def after(self, problem: Problem, stages: Sequence[tuple[str, float, float]]) -> "Demands":
        """These demands and stages: objective, best value, and tolerance in percent."""
        demands = self
        for objective, best, tolerance_pct in stages:
            sign = -1 if objective in MAXIMISED else 1
            kept = Fraction(best) + sign * abs(Fraction(best)) * Fraction(tolerance_pct) / 100
            demands = demands.also(problem, objective, float(kept + sign * Fraction(1, UNITS)))
        return demands

    def also(
        self, problem: Problem, objective: str, value: float, *, beyond: bool = False
    ) -> "Demands":
        """One more: at least as good as a value, or better by more than rounding."""
        if objective in SUMS:
            least = self._least(objective, value, beyond)
            least = max(least, self.sums.get(objective, least))
            return replace(self, sums=self.sums | {objective: least})
        slack = -self.hidden - 1 if beyond else self.hidden
        if objective == "accuracy" and not beyond:
            index = min(2 * problem.accuracy_model.index_for(value), 80.0)
            return replace(
                self, product=max(math.floor(math.exp(index) * (1 - 1e-9)), self.product or 0)
            )
        if objective == "latency":
            return self._at_most("latest", math.floor(value * UNITS) + slack)
        if objective == "throughput" and value > 0:
            return self._at_most("period", math.floor(1000 * UNITS / value) + slack)
        if objective == "energy-node":
            return self._at_most("node_energy", math.floor(value * UNITS) + slack)
        if objective == "imbalance":
            return self._at_most("spread", math.floor(value + 1e-6) - beyond)
        if objective == "dropped":
            worth = Fraction(value).limit_denominator(UNITS)
            return replace(self, worth=worth - Fraction(beyond, UNITS))
        return self

    def _at_most(self, name: str, most: int) -> "Demands":
        known: int | None = getattr(self, name)
        changes: dict[str, Any] = {name: most if known is None else min(most, known)}
        return replace(self, **changes)

    def _least(self, objective: str, value: float, beyond: bool) -> int:
        if objective == "energy":
            return -math.floor(value * UNITS) - (-self.hidden - 1 if beyond else self.hidden)
        exact = Fraction(value).limit_denominator(UNITS) / (2 if objective == "flops" else 1)
        signed = exact if objective in MAXIMISED else -exact
        return math.floor(signed) + 1 if beyond else math.ceil(signed)


@dataclass(frozen=True)
class Case:
    """Plans of one drop step, number of rounds and shape of G0.

    `sizes` are filters of communities by their ids.  `spread` is the most between two students of
    one round, by demands and by balance.  Of a `division` each student's filters are known: these
    are the sizes then, and nothing merges.
    """

    drop: int
    rounds: int
    group0: str
    kept: tuple[int, ...]
    sizes: tuple[int, ...]
    fewest: int
    most: int
    spread: int | None = None
    division: tuple[int, ...] = ()

    @property
    def kept_sizes(self) -> tuple[int, ...]:
        """Filters of each community that is kept."""
        return tuple(self.sizes[c] for c in self.kept)

    def divided(self, division: tuple[int, ...]) -> "Case":
        """Its plans whose students have these filters, the most first."""
        count = len(division)
        return replace(
            self,
            kept=tuple(range(count)),
            sizes=division,
            fewest=count,
            most=count,
            spread=None,
            division=division,
        )

    @property
    def merges(self) -> bool:
        """Whether a student may have several communities."""
        return self.rounds == 1 and self.fewest < len(self.kept)

    def has(self, leaf: PriceLeaf) -> bool:
        """Whether a leaf is of this case."""
        own = self.drop, self.rounds, self.group0, self.division
        return (leaf.drop, leaf.rounds, leaf.group0, leaf.division) == own

    @property
    def leaf(self) -> PriceLeaf:
        """A leaf of it without prices."""
        return PriceLeaf(
            drop=self.drop, rounds=self.rounds, group0=self.group0, division=self.division
        )


def uncovered(problem: Problem) -> str | None:
    """Kind of plans that certificates do not know, in words; None where they know all.

    Boards with a student have a copy of G0, and run at the operating point that their fleet names,
    or that makes the others needless (`at_sole_points`).
    """
    if problem.group0 != "replicated":
        return "G0 on a board of its own"
    if any(row.points == "any" for row in problem.fleet.boards):
        return "open operating points"
    return None


def at_sole_points(problem: Problem) -> Problem:
    """The question with each board at the one point that it needs, if so.

    The question itself where a board needs more.  A point is needless where nothing may run at it,
    or all that may runs as well at another one.
    """
    rows = []
    for site, (row, points) in enumerate(zip(problem.fleet.boards, problem.points, strict=True)):
        if row.points == "any":
            needed = [one.device for one in points if _runs_anything(problem, site, one.device)]
            sole = (
                one for one in needed if all(_serves(problem, site, one, two) for two in needed)
            )
            if (device := next(sole, None)) is None:
                return problem
            row = row.model_copy(update={"device": device.name, "points": "named"})
        rows.append(row)
    fleet = problem.fleet.model_copy(update={"boards": tuple(rows)})
    return problem.model_copy(update={"fleet": fleet})


def _runs_anything(problem: Problem, site: int, device: DeviceProfile) -> bool:
    """Whether power is known of a point where it counts, and lets anything run."""
    counts = problem.counts_energy(site) or problem.budgets[site].power_w is not None
    return device.power_known and _power_room(problem, site, device) > 0 if counts else True


def _serves(problem: Problem, site: int, one: DeviceProfile, other: DeviceProfile) -> bool:
    """Whether a point runs as well what another one may run."""
    counted = {
        "counts_energy": problem.counts_energy(site),
        "counts_power": "fleet-power" in problem.goals,
    }
    roomy = _power_room(problem, site, one) >= _power_room(problem, site, other)
    return one == other or (roomy and replaces(one, other, **counted))


def _power_room(problem: Problem, site: int, device: DeviceProfile) -> float:
    """Most MACs that keep a board's power limit and its FLOP budget."""
    budget = problem.budgets[site]
    most = None if budget.power_w is None else most_macs_within(device, budget.power_w)
    return min(math.inf if limit is None else limit for limit in (most, budget.macs))


def is_covered(problem: Problem) -> bool:
    """Whether certificates know all plans."""
    return uncovered(problem) is None


def remaining_cases(problem: Problem, demands: Demands) -> Iterator[Case]:
    """Cases that hold all plans within the demands."""
    shapes = sorted({spec.group0 for spec in problem.specs})
    sizes = [len(one.filters) for one in problem.partition.communities]
    least, most = problem.min_students, problem.most_students
    for place, step in enumerate(problem.partition.drop_steps):
        worth = Fraction(abs(step.delta_val_pct or 0.0)) - step.filters
        too_much = demands.worth is not None and worth > demands.worth + Fraction(1, 2 * UNITS)
        if too_much or not problem.allows(step):
            continue
        dropped = set(step.communities)
        kept = tuple(c.id for c in problem.partition.communities if c.id not in dropped)
        for rounds in range(1, (-(-most // len(kept)) if problem.reuse else 1) + 1):
            fewest = max(least, len(kept) * (rounds - 1) + 1)
            highest = min(most, len(kept) * rounds)
            one_each = [sizes[c] for c in kept] if rounds > 1 or fewest == len(kept) else [0]
            uneven = demands.spread is not None and max(one_each) - min(one_each) > demands.spread
            if fewest <= highest and not uneven:
                spread = demands.spread
                if rounds == 1:
                    spread = _balanced(problem, [sizes[c] for c in kept], (fewest, highest), spread)
                for shape in shapes:
                    yield Case(place, rounds, shape, kept, tuple(sizes), fewest, highest, spread)


def balance_spread(problem: Problem, kept: Sequence[int], students: int) -> int:
    """Most filters between two of so many students, by balance alone.

    `kept` are sizes of communities.  Without balance it is the most there can be.
    """
    if problem.balance_pct is None:
        return sum(kept)
    units = math.floor(problem.balance_pct * PCT_UNITS + NOISE)
    return most_spread(units, tuple(kept), students)


def _balanced(
    problem: Problem, kept: Sequence[int], students: tuple[int, int], spread: int | None
) -> int | None:
    """Most between two students, by this and by balance, whichever number of students there is."""
    if problem.balance_pct is None:
        return spread
    most = max(balance_spread(problem, kept, n) for n in range(students[0], students[1] + 1))
    return most if spread is None else min(most, spread)
