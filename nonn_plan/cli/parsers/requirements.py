"""Parsers of budgets, requirements, objectives, failures and the basis of accuracy."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from nonn_common.errors import InputError
from nonn_common.units import (
    parse_bytes,
    parse_hours,
    parse_macs,
    parse_mj,
    parse_ms,
    parse_pct,
    parse_per_s,
    parse_w,
    parse_wh,
)
from planner.problem.budgets import NO_LIMITS, BoardBudget, BudgetLimits, board_budgets
from planner.problem.goals import MAXIMISED, OBJECTIVES, Objective, ObjectiveLevel, Requirement
from planner.problem.problem import BALANCED
from profiles.fleet import Fleet

if TYPE_CHECKING:
    from planner.reliability.failures import Failures


_RANGE = re.compile(r"(\d{1,4})(?::(\d{1,4}))?")
_NUMBER = re.compile(r"[0-9]*\.?[0-9]+")
_PERCENT = re.compile(r"([0-9]{1,6}|[0-9]{0,5}\.[0-9]+) ?%")


def parse_budgets(
    fleet: Fleet,
    memory: Sequence[str],
    flops: Sequence[str],
    runtime: Sequence[str] = (),
    time: Sequence[str] = (),
    energy: Sequence[str] = (),
    power: Sequence[str] = (),
    flash: Sequence[str] = (),
    ram: Sequence[str] = (),
    battery: Sequence[str] = (),
    average_power: Sequence[str] = (),
) -> tuple[BoardBudget, ...]:
    """Read budgets as people type them: `500KB` for all boards, `BOARD=500KB` for one.

    What the runtime takes may be `60KB+16KB`, of flash and of RAM.  Raises InputError, also where a
    budget is given twice.
    """
    everywhere, own = NO_LIMITS, dict[str, BudgetLimits]()
    typed: tuple[tuple[str, str, Sequence[str], Callable[[str, str], Any]], ...] = (
        ("memory_bytes", "--memory", memory, parse_bytes),
        ("flash_bytes", "--flash", flash, parse_bytes),
        ("ram_bytes", "--ram", ram, parse_bytes),
        ("macs", "--flops", flops, parse_macs),
        ("", "--runtime", runtime, _parse_runtime),
        ("busy_ms", "--time", time, parse_ms),
        ("energy_mj", "--energy", energy, parse_mj),
        ("power_w", "--power", power, parse_w),
        ("average_w", "--average-power", average_power, parse_w),
        ("battery_wh", "--battery", battery, parse_wh),
    )
    names = [one.name for one in fleet.boards]
    for field, option, texts, parse in typed:
        for board, text in _texts_of_boards(option, texts).items():
            if board and board not in names:
                raise InputError(
                    "no such board in the fleet",
                    where=option,
                    found=board,
                    allowed=", ".join(names),
                )
            value = parse(text, f"{option} {board}={text}" if board else f"{option} {text}")
            limits = {field: value} if field else value
            if board:
                own[board] = replace(own.get(board, NO_LIMITS), **limits)
            else:
                everywhere = replace(everywhere, **limits)
    return board_budgets(fleet, everywhere, own)


def _parse_runtime(text: str, where: str) -> dict[str, int]:
    """Read `40KB`, of each memory, or `60KB+16KB` of flash and of RAM; raises InputError."""
    try:
        sizes = [parse_bytes(part, where) for part in text.split("+", 1)]
    except InputError as error:
        allowed = f"{error.allowed}, or 60KB+16KB, of flash and of RAM"
        raise InputError(error.what, where=where, found=text, allowed=allowed) from None
    if len(sizes) == 1:
        return {"runtime_bytes": sizes[0]}
    flash, ram = sizes
    return {
        "runtime_bytes": flash + ram,
        "runtime_flash_bytes": flash,
        "runtime_ram_bytes": ram,
    }


def _texts_of_boards(option: str, texts: Sequence[str]) -> dict[str, str]:
    """Texts by board; what is said of all boards is under nothing.  Raises InputError."""
    found: dict[str, str] = {}
    for text in texts:
        board, equals, value = text.rpartition("=")
        if equals and not board.strip():
            raise InputError("of which board?", where=option, found=text, allowed=f"BOARD={value}")
        if board.strip() in found:
            raise InputError(
                f"given twice for {board.strip() or 'all boards'}",
                where=option,
                found=" and ".join((found[board.strip()], value)),
                allowed="one of them",
            )
        found[board.strip()] = value
    return found


def parse_student_range(text: str | None) -> tuple[int, int | None]:
    """Read `4` or `2:8`; nothing means one student or more, at most one per board."""
    if text is None:
        return 1, None
    match = _RANGE.fullmatch(text.strip())
    if match is None:
        raise InputError("--students", found=text, allowed="a number, 4, or a range, 2:8")
    fewest, most = match.groups()
    return int(fewest), int(most or fewest)


def parse_balance(text: str) -> dict[str, float | None]:
    """Read `10%` or `off` of --balance, as fields of a problem; raises InputError."""
    if text.strip().lower() == "off":
        return dict.fromkeys(BALANCED)
    match = _PERCENT.fullmatch(text.strip())
    if match is None:
        allowed = "off, or a percentage of the mean partition, such as 10%"
        raise InputError("--balance", found=text, allowed=allowed)
    return {**BALANCED, "balance_pct": float(match[1])}


def parse_requirements(at_least: Sequence[str], at_most: Sequence[str]) -> tuple[Requirement, ...]:
    """Read `accuracy=94.5%` of --at-least and `latency=50ms` of --at-most; raises InputError."""
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
            f"{'accuracy=94.5%' if more else 'latency=50ms'}",
        )
    return Requirement.check({"objective": name, "bound": _bound(name, quantity, text)}, option)


def _bound(name: str, quantity: str, where: str) -> float:
    if name in ("latency", "latency-p95"):
        return parse_ms(quantity, where)
    if name in ("energy", "energy-node"):
        return parse_mj(quantity, where)
    if name == "memory":
        return parse_bytes(quantity, where)
    if name == "flops":
        return 2 * parse_macs(quantity, where)
    if name == "throughput":
        return parse_per_s(quantity, where)
    if name in ("fleet-power", "fleet-average-power"):
        return parse_w(quantity, where)
    if name == "battery":
        return parse_hours(quantity, where)
    if OBJECTIVES[cast(Objective, name)].unit == "%":
        return parse_pct(quantity, where, small=False)
    # Points of delta_val minus filters: below 0 as soon as filters are dropped.
    negative = name == "dropped" and quantity.strip().startswith("-")
    match = _NUMBER.fullmatch(quantity.strip().removeprefix("-" if negative else ""))
    if match is None:
        raise InputError("not a number", where=where, found=quantity, allowed="such as 4")
    return -float(match[0]) if negative else float(match[0])


def parse_objective(
    objective: str, minimise: Sequence[str], precisions: Sequence[str]
) -> tuple[ObjectiveLevel, ...]:
    """Read the stages; with several precisions the last one prefers more bytes where they fit."""
    texts = [part for text in minimise for part in text.split(",")] or objective.split(",")
    option = "--minimise" if minimise else "--objective"
    stages = tuple(ObjectiveLevel.parse(text, option) for text in texts)
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
    for board, chance in _texts_of_boards("--failure", failure).items():
        probability = parse_pct(chance, f"--failure {chance}") / 100
        if board:
            own[board] = probability
        else:
            chances = dict.fromkeys((one.name for one in fleet.boards), probability)
    outages = []
    for number, text in enumerate(outage, start=1):
        boards, equals, chance = text.rpartition("=")
        names = [name.strip() for name in boards.split(",")] if equals else []
        probability = parse_pct(chance, f"--outage {text}") / 100
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
            "target_pct": None if target is None else parse_pct(target, "--target", small=False),
            "retained": () if subsets is None else read_retained_shares(subsets),
        },
        where="nonn-plan --failure, --outage, --target",
    )
