"""Questions drawn by a seed: unlike boards, links, budgets and communities; and alike ones.

What the planner is tested and measured on.  The devices are those of the library, sped up or
slowed down at random; nothing here is the figure of a real board.
"""

from collections.abc import Sequence

import numpy as np

from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import Precision, student_cost
from nonn_core.partition import Community, DropStep, Partition
from planner.accuracy.rows import TeacherFacts
from planner.problem.budgets import BoardBudget, BudgetLimits, board_budgets
from planner.problem.goals import AccuracyBasis, ObjectiveLevel
from planner.problem.problem import Problem
from profiles import Quantity
from profiles.device import DEVICES, DeviceProfile
from profiles.fleet import Fleet, FleetBoard, parse_fleet
from profiles.link import LinkProfile
from profiles.operating_point import computing_w

Range = tuple[int, int]
"""Least and most, both included."""

NETWORKS = ("wrn16:16,32,64", "wrn16:16,48,80", "wrn16:16,64,96")
"""Three widths with one first width, so that students of all three can share G0."""

LATENCY = (ObjectiveLevel(objective="latency"),)

_KINDS = (
    "jetson-nano",
    "odroid-xu4s",
    "rpi-3b",
    "rpi-3b-1200mhz",
    "rpi-3b-plus",
    "rpi-4b",
    "rpi-zero-2w",
)
"""Named, so that a device added to the library changes no question."""
_BITS_PER_S = (2e7, 1e8, 1e9)
_LATENCY_MS = (0.0, 1.0, 3.0)
_COMMUNITY_FILTERS = (6, 39)
_IMAGE = "3x32x32"
_PRECISION: Precision = "int8"
_ACCURACY = AccuracyBasis(teacher=TeacherFacts.of_network("wrn40-4", ImageShape.parse(_IMAGE), 10))
_EPSILON_PCT = 1.0
_MOST_DROPPED = 2

_POINTS = ((1.0, 1.0), (0.8, 0.97), (0.6, 0.93))
"""Part of a board's clock, and of its power."""

Generator = np.random.Generator


def unlike_question(
    seed: int,
    *,
    boards: Range = (4, 8),
    students: Range = (3, 6),
    communities: Range = (6, 12),
    networks: Sequence[str] = NETWORKS,
    objective: Sequence[ObjectiveLevel] = LATENCY,
) -> Problem:
    """Draw a question: each board has a device, a link and budgets of its own.

    It asks for a number of students drawn from `students`, in networks of choice, for at least as
    many communities, one or two of which may be dropped.  Budgets hold from somewhat less than the
    smallest student to two of the largest: they bind on some boards, and most questions have a
    plan.  The same arguments give the same question on any machine.  Raises InputError where
    `networks` names none.
    """
    draw = np.random.default_rng(seed)
    fleet = _unlike_fleet(draw, seed, _number(draw, boards))
    asked = _number(draw, students)
    partition = _partition(draw, seed, max(asked, _number(draw, communities)), asked)
    return Problem(
        fleet=fleet,
        budgets=_unlike_budgets(
            draw, fleet, networks, partition.filters // asked, max(1.0, asked / len(fleet.boards))
        ),
        precisions=(_PRECISION,),
        image=_IMAGE,
        accuracy=_ACCURACY,
        classes=10,
        networks=tuple(networks),
        min_students=asked,
        max_students=asked,
        epsilon_pct=_EPSILON_PCT,
        partition=partition,
        objective=tuple(objective),
    )


def with_open_points(question: Problem, seed: int, *, limited: bool = True) -> Problem:
    """Let each board run at any of three points, with a power limit of its own that binds.

    The points are its own clock, 0.8 and 0.6 of it, at 1, 0.97 and 0.93 of its power.  The limit is
    what it draws at its own clock while it computes 0.3 to 0.9 of its MAC budget.
    """
    draw = np.random.default_rng((7, seed))
    rows, devices, budgets = [], [], []
    for row, device, budget in zip(
        question.fleet.boards, question.fleet.devices, question.budgets, strict=True
    ):
        points = [_at_point(device, *point) for point in _POINTS]
        power_w = computing_w(device, round((budget.macs or 0) * _factor(draw, 0.3, 0.9)))
        limit = {"power_w": round(power_w, 4) if limited else None}
        rows.append(row.model_copy(update={"device": points[0].name, "points": "any"}))
        devices += points
        budgets.append(budget.model_copy(update=limit))
    fleet = question.fleet.model_copy(update={"boards": tuple(rows), "devices": tuple(devices)})
    return question.model_copy(update={"fleet": fleet, "budgets": tuple(budgets)})


def _at_point(device: DeviceProfile, clock: float, power: float) -> DeviceProfile:
    """Change a device's clock and power to these parts."""
    factors = {
        **dict.fromkeys(("compute_fixed_ms", "compute_ms_per_mmac", "message_ms"), 1 / clock),
        **dict.fromkeys(("power_busy_w", "power_fixed_w"), power),
    }
    return device.model_copy(
        update={
            "name": f"{device.name}-{100 * clock:g}",
            "board": device.name,
            "clock_hz": round(1e9 * clock),
            **{name: _scaled(getattr(device, name), factor) for name, factor in factors.items()},
        }
    )


def alike_question(
    students: int,
    boards: int,
    *,
    networks: Sequence[str] = NETWORKS,
    objective: Sequence[ObjectiveLevel] = LATENCY,
) -> Problem:
    """Ask for `students` on Raspberry Pi 3B that are alike, one community of 16 filters each.

    The budgets are three times what the largest student needs.
    """
    fleet = parse_fleet(f"rpi-3b*{boards}")
    sizes = (16,) * students
    needs = [_needs(name, 16) for name in networks]
    memory, macs = (3 * max(need) for need in zip(*needs, strict=True))
    return Problem(
        fleet=fleet,
        budgets=board_budgets(fleet, BudgetLimits(memory, macs=macs)),
        precisions=(_PRECISION,),
        image=_IMAGE,
        accuracy=_ACCURACY,
        classes=10,
        networks=tuple(networks),
        min_students=students,
        max_students=students,
        epsilon_pct=0.0,
        partition=_made(sizes, (), 0),
        objective=tuple(objective),
    )


def _number(draw: Generator, limits: Range) -> int:
    return int(draw.integers(*limits, endpoint=True))


def _factor(draw: Generator, low: float, high: float) -> float:
    return round(float(draw.uniform(low, high)), 3)


def _unlike_fleet(draw: Generator, seed: int, boards: int) -> Fleet:
    numbers = range(1, boards + 1)
    return Fleet(
        name=f"unlike-{seed}",
        title=f"{boards} unlike boards drawn by seed {seed}",
        boards=tuple(
            FleetBoard(name=f"board-{n}", device=f"device-{n}", link=f"link-{n}") for n in numbers
        ),
        devices=tuple(_device(draw, n) for n in numbers),
        links=tuple(_link(draw, n) for n in numbers),
    )


def _device(draw: Generator, number: int) -> DeviceProfile:
    """Draw a device of the library with another speed, power and cost per message."""
    kind = DEVICES.get(_KINDS[draw.integers(len(_KINDS))])
    speed, power = _factor(draw, 0.6, 1.6), _factor(draw, 0.7, 1.4)
    factors = {
        "compute_fixed_ms": speed,
        "compute_ms_per_mmac": speed,
        "power_busy_w": power,
        "power_fixed_w": power,
        "message_ms": _factor(draw, 0.5, 1.5),
    }
    return kind.model_copy(
        update={
            "name": f"device-{number}",
            "title": f"{kind.title}, changed at random",
            "board": None,
            "layers": None,
            **{name: _scaled(getattr(kind, name), factor) for name, factor in factors.items()},
        }
    )


def _scaled(figure: Quantity, factor: float) -> Quantity:
    return _drawn(figure.value * factor)


def _drawn(value: float) -> Quantity:
    return Quantity(value=value, provenance="assumed", source="drawn at random")


def _link(draw: Generator, number: int) -> LinkProfile:
    return LinkProfile(
        name=f"link-{number}",
        title="a link drawn at random",
        bits_per_s=_drawn(_BITS_PER_S[draw.integers(len(_BITS_PER_S))]),
        latency_ms=_drawn(_LATENCY_MS[draw.integers(len(_LATENCY_MS))]),
    )


def _partition(draw: Generator, seed: int, communities: int, students: int) -> Partition:
    """Draw sizes, and up to two communities that may go while each student keeps one."""
    low, high = _COMMUNITY_FILTERS
    sizes = tuple(map(int, draw.integers(low, high, communities, endpoint=True)))
    spare = min(_MOST_DROPPED, communities - students)
    deltas = np.cumsum(draw.uniform(0.1, 0.9, _MOST_DROPPED))[:spare]
    return _made(sizes, tuple(round(float(delta), 2) for delta in deltas), seed)


def _made(sizes: Sequence[int], deltas_pct: Sequence[float], seed: int) -> Partition:
    """Make a partition whose first communities may be dropped, one more for each delta_val."""
    starts = np.cumsum((0, *sizes)).tolist()
    return Partition(
        teacher=None,
        rule=None,
        gamma=1.0,
        seed=seed,
        filters=sum(sizes),
        images=None,
        modularity=0.0,
        communities=tuple(
            Community(id=c, filters=tuple(range(starts[c], starts[c + 1])), linked=True)
            for c in range(len(sizes))
        ),
        drop_steps=tuple(
            DropStep(
                communities=tuple(range(count)),
                filters=starts[count],
                accuracy_pct=None,
                delta_val_pct=delta_pct,
            )
            for count, delta_pct in enumerate((0.0, *deltas_pct))
        ),
    )


def _unlike_budgets(
    draw: Generator, fleet: Fleet, networks: Sequence[str], filters: int, per_board: float
) -> tuple[BoardBudget, ...]:
    """Draw budgets around what a board's part of the students needs, `filters` filters each."""
    needs = [_needs(name, filters) for name in networks]
    limits = [
        (0.9 * per_board * min(need), 1.8 * per_board * max(need))
        for need in zip(*needs, strict=True)
    ]
    own = {
        board.name: tuple(int(draw.uniform(*limit)) for limit in limits) for board in fleet.boards
    }
    return board_budgets(
        fleet, own={name: BudgetLimits(memory, macs=macs) for name, (memory, macs) in own.items()}
    )


def _needs(network: str, filters: int) -> tuple[int, int]:
    """Return memory in bytes and MACs of a student."""
    cost = student_cost(parse_network(network), ImageShape.parse(_IMAGE), filters)
    return cost.memory_bytes(_PRECISION), cost.macs
