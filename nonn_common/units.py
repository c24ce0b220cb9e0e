"""Quantities as people type them, and the canonical units used inside.

Canonical: bytes and multiply-accumulates (MACs) as int; milliseconds, millijoules, watts and
bits per second as float.  W x ms = mJ.  Budgets that people type are FLOPs, as in the published
tables, where one MAC counts as two (arXiv:1907.11804: WRN40-4 has 1301.4 M MACs, 2.6 GFLOPs).
"""

import math
import re
from collections.abc import Mapping

from nonn_common.errors import InputError

FLOPS_PER_MAC = 2
LARGEST = 10**18
"""The largest quantity in its canonical unit; sums of these still fit a solver's integers."""

_NUMBER = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([^\s]*)\s*")
_DECIMAL = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"ki": 2**10, "mi": 2**20, "gi": 2**30}

_BYTES = {f"{prefix}b": scale for prefix, scale in {**_DECIMAL, **_BINARY}.items()}
_FLOPS = dict(_DECIMAL) | {f"{prefix}flop": scale for prefix, scale in _DECIMAL.items()}
_FLOPS |= {f"{prefix}flops": scale for prefix, scale in _DECIMAL.items()}
_HERTZ = {f"{prefix}hz": scale for prefix, scale in _DECIMAL.items()}
_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "min": 60e3, "h": 3600e3}
_MJ = {"mj": 1.0, "j": 1e3}
_W = {"mw": 1e-3, "w": 1.0}
_WH = {"mwh": 1e-3, "wh": 1.0}
_PER_S = {"/s": 1.0}
_PER_TIME = {**_PER_S, "/min": 1 / 60, "/h": 1 / 3600}
_PCT = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*(%?)\s*")


def parse_bytes(text: str | int, where: str | None = None) -> int:
    """Read a size such as `500KB`, `512KiB` or `2000B`; a number is bytes; raises InputError."""
    typed = f"{text}B" if isinstance(text, int) else text
    return _whole(typed, _BYTES, "a size such as 500KB, 512KiB or 1.5MB", where)


def parse_macs(text: str | int, where: str | None = None) -> int:
    """Read a FLOP budget such as `200M` or `2.6GFLOPs`, in MACs, rounded down."""
    allowed = "FLOPs per image such as 200M or 2.6G"
    flops = _whole(text, _FLOPS, allowed, where, least=FLOPS_PER_MAC)
    return flops // FLOPS_PER_MAC


def parse_hertz(text: str | int, where: str | None = None) -> int:
    """Read a clock such as `400MHz` or `1.2GHz`; raises InputError."""
    return _whole(text, _HERTZ, "a clock such as 400MHz or 1.2GHz", where)


def parse_ms(text: str | int, where: str | None = None) -> float:
    """Read a duration in us, ms, s, min or h and return milliseconds; raises InputError."""
    return _scaled(text, _MS, "a duration such as 250us, 15ms, 1.5s, 10min or 2h", where)


def parse_mj(text: str, where: str | None = None) -> float:
    """Read an energy such as `250mJ` or `0.3J` and return millijoules; raises InputError."""
    return _scaled(text, _MJ, "an energy such as 250mJ or 0.3J", where)


def parse_w(text: str, where: str | None = None) -> float:
    """Read a power such as `2W` or `250mW` and return watts; raises InputError."""
    return _scaled(text, _W, "a power such as 2W or 250mW", where)


def parse_per_s(text: str, where: str | None = None) -> float:
    """Read a rate such as `20/s`, per second; raises InputError."""
    return _scaled(text, _PER_S, "a rate per second such as 20/s", where)


def parse_rate(text: str, where: str | None = None) -> float:
    """Read a rate such as `5/s`, `30/min` or `12/h`, per second; raises InputError."""
    return _scaled(text, _PER_TIME, "a rate such as 5/s, 30/min or 12/h", where)


def parse_wh(text: str, where: str | None = None) -> float:
    """Read what a battery holds, such as `10Wh` or `500mWh`, in Wh; raises InputError."""
    return _scaled(text, _WH, "what a battery holds, such as 10Wh or 500mWh", where)


def parse_hours(text: str, where: str | None = None) -> float:
    """Read a long duration such as `48h` or `90min` and return hours; raises InputError."""
    return parse_ms(text, where) / _MS["h"]


def parse_pct(text: str, where: str | None = None, *, small: bool = True) -> float:
    """Read a percentage such as `93%` or `94.5`; raises InputError.

    Up to 1 it needs its sign: 0.97 may be 0.97 %, or a fraction that means 97 %.  Where no `small`
    one makes sense, as for accuracies, it is refused with its sign, too.
    """
    match = _PCT.fullmatch(text)
    value = float(match[1]) if match else math.nan
    if match is None or not 0 <= value <= 100:
        raise InputError(
            "not a percentage", where=where, found=text, allowed="0% to 100%, such as 94.5%"
        )
    if not small:
        check_no_fraction(value, where)
    if not match[2] and 0 < value <= 1:
        raise InputError(
            "may be a fraction, or a percentage without its sign",
            where=where,
            found=text,
            allowed=f"{100 * value:g}% or {value:g}%",
        )
    return value


def check_no_fraction(value_pct: float, where: str | None) -> None:
    """Refuse a percentage up to 1, which is a fraction that was meant; raises InputError.

    For accuracies and the like, of which nobody asks for 1 % or less.
    """
    if 0 < value_pct <= 1:
        raise InputError(
            "is a fraction where a percentage is meant",
            where=where,
            found=value_pct,
            allowed=f"more than 1, up to 100, in percent, such as {100 * value_pct:g}",
        )


def _whole(
    text: str | int, scales: Mapping[str, float], allowed: str, where: str | None, least: int = 1
) -> int:
    value = int(_scaled(text, scales, allowed, where) + 1e-6)
    if value < least:
        raise InputError(f"must be at least {least}", where=where, found=text, allowed=allowed)
    return value


def _scaled(text: str | int, scales: Mapping[str, float], allowed: str, where: str | None) -> float:
    match = _NUMBER.fullmatch(str(text))
    scale = scales.get(match.group(2).lower()) if match else None
    value = float(match.group(1)) * scale if match and scale else math.nan
    if not math.isfinite(value):
        bare = match is not None and not match.group(2)
        raise InputError(
            f"not a quantity of this kind{': it has no unit' if bare else ''}",
            where=where,
            found=text,
            allowed=f"{allowed}, positive",
        )
    if value <= 0:
        raise InputError("must be positive", where=where, found=text, allowed=allowed)
    if value > LARGEST:
        raise InputError("is too large", where=where, found=text, allowed=f"up to {LARGEST:g}")
    return value


def format_bytes(size_bytes: float) -> str:
    """Write a size in decimal units: 430000 -> `430.0 KB`."""
    return _formatted(size_bytes, "B")


def format_flops(macs: float) -> str:
    """Write MACs as FLOPs: 83500000 -> `167.0 MFLOP`."""
    return _formatted(macs * FLOPS_PER_MAC, "FLOP")


def format_count(count: float) -> str:
    """Write a plain count: 8950000 -> `8.95 M`."""
    return _formatted(count, "", digits=2)


def format_duration(time_s: float) -> str:
    """Write a duration in the unit that suits it: 150 -> `2.5 min`."""
    for scale, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if time_s >= scale:
            return f"{time_s / scale:.{0 if time_s >= 10 * scale else 1}f} {unit}"
    return f"{time_s:.0f} s"


def _formatted(value: float, unit: str, digits: int = 1) -> str:
    for scale, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "K")):
        if abs(value) >= scale:
            return f"{value / scale:.{digits}f} {prefix}{unit}".rstrip()
    return f"{value:g} {unit}".rstrip()
