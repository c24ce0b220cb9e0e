"""A scenario as people type it: arrivals, failures, throttling; every mistake is one InputError."""

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from profiles.errors import InputError, SimulationError
from profiles.units import parse_ms

if TYPE_CHECKING:
    from simulator.arrivals import Arrivals
    from simulator.failures import Failure
    from simulator.throttling import Throttle

ARRIVALS = "closed, poisson:20/s, every:15ms, or a CSV file with a column start_ms"
_NOW = re.compile(r"\s*0+(\.0*)?\s*(us|ms|s|min|h)?\s*")
_RATE = re.compile(r"([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)(?:/s)?")


@contextmanager
def typed_as(where: str) -> Iterator[None]:
    """Turn what the simulator refuses into an InputError that names the option."""
    try:
        yield
    except SimulationError as error:
        raise InputError(str(error), where=where) from None


def arrivals(text: str) -> "Arrivals":
    """Read `closed`, `poisson:20/s`, `every:15ms` or the name of a CSV file."""
    from simulator.arrivals import ClosedLoop, Periodic, Poisson, Times

    where = f"--arrivals {text}"
    kind, colon, value = text.partition(":")
    with typed_as(where):
        if text == "closed":
            return ClosedLoop()
        if kind == "poisson" and colon:
            return Poisson(_per_s(value, where))
        if kind == "every" and colon:
            return Periodic(parse_ms(value, where))
        if Path(text).suffix == ".csv":
            return Times.from_csv(Path(text))
    raise InputError("not a way in which images come", where=where, allowed=ARRIVALS)


def failures(
    fails: Sequence[str], mttf: Sequence[str], mttr: Sequence[str], boards: Collection[str]
) -> "tuple[Failure, ...]":
    """Read --fail, --mttf and --mttr; `boards` are those that can fail."""
    return (
        *(_outage(text, boards) for text in fails),
        *_renewals(mttf, mttr, boards),
    )


def throttling(texts: Sequence[str], boards: Collection[str]) -> "tuple[Throttle, ...]":
    """Read `BOARD@2s=0.6`: from 2 s on, 0.6 of the clock."""
    return tuple(_throttle(text, boards) for text in texts)


def time_ms(text: str, where: str) -> float:
    """Read a moment such as `500ms`, `2s` or `0`."""
    return 0.0 if _NOW.fullmatch(text) else parse_ms(text, where)


def _per_s(text: str, where: str) -> float:
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise InputError("not a rate", where=where, found=text, allowed="images per second: 20/s")
    return float(match[1])


def _outage(text: str, known: Collection[str]) -> "Failure":
    from simulator.failures import Outage

    where = f"--fail {text}"
    names, at, span = text.rpartition("@")
    if not at:
        raise InputError(
            "when does it fail?", where=where, allowed="BOARD@500ms or BOARD,BOARD@500ms..900ms"
        )
    start, dots, end = span.partition("..")
    with typed_as(where):
        return Outage(
            _boards(names, where, known),
            time_ms(start, where),
            time_ms(end, where) if dots else None,
        )


def _renewals(
    mttf: Sequence[str], mttr: Sequence[str], known: Collection[str]
) -> "Iterator[Failure]":
    """Yield one failure per group; a time without boards is that of each board by itself."""
    from simulator.failures import Renewal

    to_failure = _times("--mttf", mttf, known)
    to_repair = _times("--mttr", mttr, known)
    for group in to_repair.keys() - to_failure.keys() - {()}:
        raise InputError("no --mttf for these boards", where=f"--mttr {','.join(group)}=...")
    if to_repair and not to_failure:
        raise InputError("--mttr needs --mttf, the mean time to failure", allowed="--mttf 10s")
    every = to_failure.pop((), None)
    if every is not None:
        own = {board for group in to_failure for board in group}
        to_failure |= {(board,): every for board in sorted(known) if board not in own}
    for group, mttf_ms in to_failure.items():
        mttr_ms = to_repair.get(group, to_repair.get(()))
        if mttr_ms is None:
            raise InputError(
                "--mttr is needed beside --mttf: the mean time to repair",
                where=f"--mttf of {', '.join(group)}",
                allowed="--mttr 500ms",
            )
        yield Renewal(group, mttf_ms, mttr_ms)


def _times(
    option: str, texts: Sequence[str], known: Collection[str]
) -> dict[tuple[str, ...], float]:
    """Read `10s`, or `BOARD,BOARD=10s`; the key of the former is ()."""
    times = {}
    for text in texts:
        where = f"{option} {text}"
        names, equals, value = text.rpartition("=")
        group = _boards(names, where, known) if equals else ()
        if group in times:
            raise InputError("given twice for the same boards", where=where)
        times[group] = parse_ms(value, where)
    return times


def _throttle(text: str, known: Collection[str]) -> "Throttle":
    from simulator.throttling import Throttle

    where = f"--throttle {text}"
    names, at, rest = text.rpartition("@")
    moment, equals, factor = rest.partition("=")
    try:
        share = float(factor)
    except ValueError:
        share = float("nan")
    if not (at and equals and share > 0):
        raise InputError(
            "not a change of a board's clock",
            where=where,
            allowed="BOARD@2s=0.6: from 2 s on, 0.6 of its clock",
        )
    (board,) = _boards(names, where, known, most=1)
    with typed_as(where):
        return Throttle(board, time_ms(moment, where), share)


def _boards(
    text: str, where: str, known: Collection[str], most: int | None = None
) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    unknown = [name for name in names if name not in known]
    if unknown or len(names) > (most or len(names)):
        raise InputError(
            "no such board has a part in this" if unknown else "one board at a time",
            where=where,
            found=", ".join(unknown) or text,
            allowed=", ".join(sorted(known)),
        )
    return tuple(sorted(set(names)))  # however they were put, the same boards
