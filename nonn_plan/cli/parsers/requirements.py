"""Parsers of budgets, requirements, objectives, failures and the basis of accuracy."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from nonn_common.errors import InputError
from nonn_common.units import parse_bytes, parse_macs, parse_ms
from planner.problem.goals import (
    MAXIMISED,
    NO_LIMITS,
    BoardBudget,
    BudgetLimits,
    Objective,
    ObjectiveLevel,
    Requirement,
    board_budgets,
)
from profiles.fleet import Fleet

if TYPE_CHECKING:
    from planner.reliability.failures import Failures


_RANGE = re.compile(r"(\d{1,4})(?::(\d{1,4}))?")
_NUMBER = re.compile(r"([0-9]*\.?[0-9]+)\s*(mJ|J|%|/s|)", re.IGNORECASE)


def parse_budgets(
    fleet: Fleet,
    memory: Sequence[str],
    flops: Sequence[str],
    runtime: Sequence[str] = (),
    time: Sequence[str] = (),
    energy: Sequence[str] = (),
) -> tuple[BoardBudget, ...]:
    """Read budgets as people type them: `500KB` for all boards, `BOARD=500KB` for one."""
    everywhere, own = NO_LIMITS, dict[str, BudgetLimits]()
    typed: tuple[tuple[str, str, Sequence[str], Callable[[str, str], Any]], ...] = (
        ("memory_bytes", "--memory", memory, parse_bytes),
        ("macs", "--flops", flops, parse_macs),
        ("runtime_bytes", "--runtime", runtime, parse_bytes),
        ("busy_ms", "--time", time, parse_ms),
        ("energy_mj", "--energy", energy, parse_mj),
    )
    for field, option, texts, parse in typed:
        for text in texts:
            board, equals, quantity = text.rpartition("=")
            value = parse(quantity, f"{option} {text}")
            if equals:
                own[board] = replace(own.get(board, NO_LIMITS), **{field: value})
            else:
                everywhere = replace(everywhere, **{field: value})
    return board_budgets(fleet, everywhere, own)


def parse_mj(text: str, where: str) -> float:
    """Read an energy such as `250mJ` or `0.3J` and return millijoules; raises InputError."""
    match = _NUMBER.fullmatch(text.strip())
    unit = match[2].lower() if match else None
    if match is None or unit not in ("", "mj", "j") or float(match[1]) <= 0:
        raise InputError(
            "not an energy", where=where, found=text, allowed="such as 250mJ or 0.3J, above 0"
        )
    return float(match[1]) * (1000 if unit == "j" else 1)


def parse_student_range(text: str | None) -> tuple[int, int | None]:
    """Read `4` or `2:8`; nothing means one student or more, at most one per board."""
    if text is None:
        return 1, None
    match = _RANGE.fullmatch(text.strip())
    if match is None:
        raise InputError("--students", found=text, allowed="a number, 4, or a range, 2:8")
    fewest, most = match.groups()
    return int(fewest), int(most or fewest)


def parse_requirements(at_least: Sequence[str], at_most: Sequence[str]) -> tuple[Requirement, ...]:
    """Read `accuracy=94.5` of --at-least and `latency=50ms` of --at-most; raises InputError."""
    return tuple(
        _requirement(text, more)
        for texts, more in ((at_least, True), (at_most, False))
        for text in texts
    )


def _requirement(text: str, more: bool) -> Requirement:
    option = "--at-least" if more else "--at-most"
    named, _, quantity = text.partition("=")
    name = named.strip().lower()
    possible = [each for each in get_args(Objective) if (each in MAXIMISED) == more]
    if name not in possible:
        raise InputError(
            f"{option}: not something that is better the {'more' if more else 'less'} there is",
            found=text,
            allowed=f"one of {', '.join(possible)} with a value, such as "
            f"{'accuracy=94.5' if more else 'latency=50ms'}",
        )
    return Requirement.check({"objective": name, "bound": _bound(name, quantity, text)}, option)


def _bound(name: str, quantity: str, where: str) -> float:
    if name == "latency":
        return parse_ms(quantity, where)
    if name in ("energy", "energy-node"):
        return parse_mj(quantity, where)
    if name == "memory":
        return parse_bytes(quantity, where)
    if name == "flops":
        return 2 * parse_macs(quantity, where)
    # Points of delta_val minus filters: below 0 as soon as filters are dropped.
    negative = name == "dropped" and quantity.strip().startswith("-")
    match = _NUMBER.fullmatch(quantity.strip().removeprefix("-" if negative else ""))
    if match is None or match[2].lower() not in ("", "%", "/s"):
        raise InputError("not a number", where=where, found=quantity, allowed="such as 94.5")
    return -float(match[1]) if negative else float(match[1])


def parse_objective(
    objective: str, minimise: Sequence[str], precisions: Sequence[str]
) -> tuple[ObjectiveLevel, ...]:
    """Read the stages; with several precisions the last one prefers more bytes where they fit."""
    texts = [part for text in minimise for part in text.split(",")] or objective.split(",")
    stages = tuple(ObjectiveLevel.parse(text) for text in texts)
    if minimise:
        for stage in stages:
            if stage.objective in MAXIMISED:
                raise InputError(
                    f"more {stage.objective} is better",
                    found=f"--minimise {stage.objective}",
                    fix=f"ask for --objective {stage.objective}",
                )
    named = {stage.objective for stage in stages}
    further = len(precisions) > 1 and "precision" not in named
    return (*stages, ObjectiveLevel(objective="precision")) if further else stages


def parse_failure_chances(
    fleet: Fleet,
    failure: Sequence[str],
    outage: Sequence[str],
    target: str | None,
    subsets: Path | None,
) -> "Failures | None":
    """Read `1%` or `BOARD=2%` of --failure, `BOARD,BOARD=0.5%` of --outage; raises InputError."""
    from planner.reliability.failures import Failures, read_retained_shares

    if not (failure or outage or target or subsets):
        return None
    chances: dict[str, float] = {}
    own: dict[str, float] = {}
    for text in failure:
        board, equals, chance = text.rpartition("=")
        if equals:
            own[board] = _probability(chance, f"--failure {text}")
        else:
            chances = dict.fromkeys(
                (one.name for one in fleet.boards), _probability(chance, f"--failure {text}")
            )
    outages = []
    for number, text in enumerate(outage, start=1):
        boards, equals, chance = text.rpartition("=")
        names = [name.strip() for name in boards.split(",")] if equals else []
        probability = _probability(chance, f"--outage {text}")
        if not names:
            raise InputError(
                "--outage names no boards", found=text, allowed="such as BOARD,BOARD=0.5%"
            )
        outages.append({"name": f"outage-{number}", "boards": names, "probability": probability})
    return Failures.check(
        {
            "boards": [
                {"board": board, "probability": chance} for board, chance in (chances | own).items()
            ],
            "outages": outages,
            "target_pct": None if target is None else 100 * _probability(target, "--target"),
            "retained": () if subsets is None else read_retained_shares(subsets),
        },
        where="nonn-plan --failure, --outage, --target",
    )


def _probability(text: str, where: str) -> float:
    """Read a percentage, 1% or 0.5%, as a fraction; raises InputError."""
    match = _NUMBER.fullmatch(text.strip())
    if match is None or match[2] != "%" or not 0 <= float(match[1]) <= 100:
        raise InputError("not a percentage", where=where, found=text, allowed="0% to 100%")
    return float(match[1]) / 100
