"""Questions for the planner's tests: small ones, and the published one."""

from nonn_core.partition import Partition
from planner.problem.budgets import BudgetLimits, board_budgets
from planner.problem.problem import Problem
from profiles.fleet import parse_fleet

SMALL = ("wrn10:4,8,8", "wrn10:4,8,16", "wrn10:8,8,16")
PUBLISHED_SIZES = (12, 14, 25, 30)
WRN16 = tuple(
    f"wrn16:{first},{second},{third}"
    for first in (16, 32)
    for second in (32, 48, 64)
    for third in (64, 80, 88, 96, 112)
)


def partition(sizes, steps=(), unlinked=()):
    """Communities of these sizes; `steps` are (communities, delta_val_pct) beyond the empty one."""
    starts = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
    measured = [((), 0.0), *steps]
    return Partition(
        teacher=None,
        rule=None,
        gamma=1.0,
        seed=0,
        filters=sum(sizes),
        images=None,
        modularity=0.0,
        communities=[
            {
                "id": i,
                "filters": range(starts[i], starts[i + 1]),
                "linked": i not in unlinked,
            }
            for i in range(len(sizes))
        ],
        drop_steps=[
            {
                "communities": dropped,
                "filters": sum(sizes[c] for c in dropped),
                "accuracy_pct": None,
                "delta_val_pct": delta,
            }
            for dropped, delta in measured
        ],
    )


def bounded(made, *bounds_pct):
    """A partition whose drop steps, the empty one apart, may cost so much at the worst."""
    steps = zip(made.drop_steps, (0.0, *bounds_pct), strict=True)
    return made.model_copy(
        update={
            "confidence_pct": 95.0,
            "drop_steps": tuple(s.model_copy(update={"loss_bound_pct": b}) for s, b in steps),
        }
    )


def question(fleet="rpi3x2", sizes=(3, 4, 5), *, memory=None, macs=None, own=None, **fields):
    """A question on the small networks; `memory`, `macs` and `own` go to `budgets`."""
    boards = parse_fleet(fleet) if isinstance(fleet, str) else fleet
    return Problem.check(
        {
            "fleet": boards,
            "budgets": board_budgets(
                boards,
                BudgetLimits(memory, macs=macs),
                {name: BudgetLimits(size, macs=most) for name, (size, most) in (own or {}).items()},
            ),
            "image": "1x8x8",
            "classes": 10,
            "networks": SMALL,
            "epsilon_pct": 1.0,
            "partition": fields.pop("partition", None) or partition(sizes),
        }
        | fields,
        where="test",
    )


def published(**fields):
    """500 KB at int8 and 200 MFLOP per board, two Raspberry Pi 3B (A, section 5)."""
    return question(
        sizes=PUBLISHED_SIZES,
        memory=500_000,
        macs=100_000_000,
        **{"precisions": ("int8",), "image": "3x32x32", "networks": WRN16} | fields,
    )


def stages(*texts):
    from planner.problem.goals import ObjectiveLevel

    return tuple(ObjectiveLevel.parse(text) for text in texts)
