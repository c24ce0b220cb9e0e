"""Amounts of demands as people read them: rounded, where at all, to the side that is easier kept.

A limit that is read off and typed in again is then never tighter than the one that was meant.
"""

from decimal import ROUND_CEILING, ROUND_FLOOR, Context

from planner.budget import BUDGETS, BudgetName
from planner.demand import Demand
from planner.stage import MORE_IS_BETTER
from profiles.units import FLOPS_PER_MAC

_DIGITS = 6


def shown(demand: Demand, value: float) -> str:
    """Write what a demand would be."""
    if demand.budget is not None:
        return budget_text(demand.budget, value)
    return f"{rounded(value, down=demand.objective in MORE_IS_BETTER):g}"


def plain(demand: Demand, value: float) -> str:
    """Write what a demand is, or what a plan has of it, to the nearest digit."""
    return f"{value:g}" if demand.budget is None else BUDGETS[demand.budget].text(value)


def budget_text(budget: BudgetName, value: float) -> str:
    """Write a budget, rounded up to the digits that people read."""
    if budget == "memory_bytes":
        return BUDGETS[budget].text(_to_tenths(round(value)))
    if budget == "macs":
        return BUDGETS[budget].text(_to_tenths(FLOPS_PER_MAC * round(value)) // FLOPS_PER_MAC)
    return BUDGETS[budget].text(rounded(value))


def rounded(value: float, *, down: bool = False) -> float:
    """Round up, or down, to six digits; what is written with fewer stays."""
    near = float(f"{value:.12g}")
    context = Context(prec=_DIGITS, rounding=ROUND_FLOOR if down else ROUND_CEILING)
    return float(context.create_decimal(repr(near)))


def students(count: float) -> str:
    """Write a number of students."""
    return f"{count:g} student{'s' * (count != 1)}"


def _to_tenths(quantity: int) -> int:
    """Round up to a tenth of the thousand, million ... that a quantity is written in."""
    step = 10 ** (3 * ((len(str(quantity)) - 1) // 3) - 1) if quantity >= 1000 else 1
    return -(-quantity // step) * step
