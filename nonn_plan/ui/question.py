"""The question that the page asks: boards and options as people type them.

Everything is text that the command's own parsers read, so that the page asks what the command it
shows asks.  A budget is whichever field of `BoardBudget` has an option of `plan`: further ones
appear on the page by themselves.  Loads no solver.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Any, get_args, get_type_hints

from pydantic import Field

from nonn_common.document import Record
from nonn_common.errors import InputError
from nonn_common.units import FLOPS_PER_MAC
from nonn_plan.cli.parsers.problem_options import ProblemOptions
from nonn_plan.cli.views.board_report import searched_text
from planner.problem.budgets import BoardBudget
from planner.problem.goals import OBJECTIVES
from profiles.device import DEVICES, DeviceProfile
from profiles.fleet import FLEETS, FleetBoard
from profiles.link import LINKS

_FILES = ("rows", "subsets")
"""Options that name files: the page may read none but the one it was opened with."""
_OWN_OPTIONS = {"macs": "flops", "busy_ms": "time", "average_w": "average_power"}
"""Options of budgets that are not called as their field is without its unit."""
_SCALES: Mapping[str, tuple[float, float]] = {
    "bytes": (1e4, 1e9),
    "macs": (5e5, 1e10),
    "ms": (1.0, 1e5),
    "mj": (1.0, 1e5),
    "w": (0.1, 1e2),
    "wh": (0.1, 1e3),
}
"""Least and most of a slider, by the unit of its budget."""


@dataclass(frozen=True, slots=True)
class BudgetField:
    """A budget of a board on the page: its option of `plan`, field and unit."""

    option: str
    field: str
    unit: str

    @property
    def help(self) -> str:
        """Sentence on the option."""
        return _helps()[self.option]

    def text(self, value: float) -> str:
        """Write a value as people type it, to the last digit."""
        if self.unit == "bytes":
            return _scaled(value, (("GB", 10**9), ("MB", 10**6), ("KB", 1000)), "B")
        if self.unit == "macs":
            return _scaled(value * FLOPS_PER_MAC, (("G", 10**9), ("M", 10**6), ("K", 1000)), "")
        return f"{value:g}" + _suffix(self.unit) if _is_short(value) else f"{value!r}{self.unit}"

    def plain(self) -> dict[str, Any]:
        """The field as the page draws it."""
        low, high = _SCALES.get(self.unit, (1.0, 1e9))
        scale = FLOPS_PER_MAC if self.unit == "macs" else 1
        return {
            "option": self.option,
            "unit": _suffix(self.unit),
            "help": self.help,
            "low": low * scale,
            "high": high * scale,
        }


def budget_fields() -> tuple[BudgetField, ...]:
    """Budgets that `plan` has an option for, in the order of its options."""
    options = [one.name for one in fields(ProblemOptions)]
    found = []
    for field in BoardBudget.model_fields:
        stem, _, unit = field.rpartition("_")
        option = _OWN_OPTIONS.get(field, stem)
        if option in options:
            found.append(BudgetField(option, field, unit if stem else field))
    return tuple(sorted(found, key=lambda one: options.index(one.option)))


def _suffix(unit: str) -> str:
    return {"bytes": "B", "macs": "", "mj": "mJ", "w": "W", "mw": "mW", "wh": "Wh"}.get(unit, unit)


def _is_short(value: float) -> bool:
    return float(f"{value:g}") == value


def _scaled(value: float, scales: Sequence[tuple[str, int]], smallest: str) -> str:
    """Write a whole number with the largest prefix that leaves at most three decimals."""
    whole = round(value)
    for prefix, scale in scales:
        if whole >= scale and whole * 1000 % scale == 0:
            return f"{whole / scale:.10g}{prefix}"
    return f"{whole}{smallest}"


def _helps() -> dict[str, str]:
    """Help of each option of a problem."""
    hints = get_type_hints(ProblemOptions, include_extras=True)
    return {name: get_args(hint)[1].help or "" for name, hint in hints.items()}


MOST_MATCHES = 40
"""Devices that a search of the library names, at most."""


def library() -> dict[str, Any]:
    """Library that the page offers: budgets, options, links, hosts, fleets, objectives."""
    defaults, options = ProblemOptions(), page_options()
    return {
        "budgets": [one.plain() for one in budget_fields()],
        "options": {name: _helps()[name] for name in options},
        "defaults": {name: getattr(defaults, name) for name in options},
        "links": LINKS.names(),
        "objectives": list(OBJECTIVES),
        "hosts": [name for name in DEVICES.names() if DEVICES.get(name).hosting],
        "fleets": {
            name: [one.model_dump() for one in FLEETS.get(name).boards] for name in FLEETS.names()
        },
    }


def matching_devices(search: str) -> dict[str, Any]:
    """Devices that can run students and have all of these words, as `devices --search` has."""
    words = search.lower().split()
    named = [one for one in able_devices() if all(word in searched_text(one) for word in words)]
    rows = [
        {"name": one.name, "title": one.title, "link": one.default_link}
        for one in named[:MOST_MATCHES]
    ]
    return {"found": len(named), "devices": rows}


@cache
def able_devices() -> tuple[DeviceProfile, ...]:
    """Devices of the library that can run students."""
    every = map(DEVICES.get, (*DEVICES.names(), *DEVICES.further_names()))
    return tuple(one for one in every if not one.missing_as_board)


class AskedBoard(FleetBoard):
    """A board of the page: its place in the fleet, budgets and failure as typed."""

    budgets: dict[str, str] = Field(default={}, description="Budgets as typed, by option.")
    failure: str = Field(default="", description="Chance that it is down, as typed.")


class Question(Record):
    """A question of the page: everything as typed, empty where nothing is said."""

    source: str = Field(description="Id of the file it is about, as the server gave it.")
    host: str = Field(description="Name of the device that hosts.")
    boards: tuple[AskedBoard, ...] = Field(min_length=1, description="Boards, in order.")
    options: dict[str, str | float | bool | tuple[str, ...]] = Field(
        default={}, description="Other options of `plan`, by name, where not the default."
    )

    def problem_options(self) -> ProblemOptions:
        """Options of `nonn-plan plan`; raises InputError for one that it does not have."""
        typed: dict[str, Any] = {}
        known = page_options()
        for name, value in self.options.items():
            if name not in known:
                allowed = ", ".join(known)
                raise InputError("no option of the page", found=name, allowed=allowed)
            texts = [text for text in value if text.strip()] if isinstance(value, tuple) else value
            typed[name] = _as_asked(name, texts, known[name])
        for field in budget_fields():
            typed[field.option] = list(_texts_of_boards(self._typed(field.option)))
        typed["failure"] = list(_texts_of_boards({b.name: b.failure for b in self.boards}))
        return ProblemOptions(**{name: value for name, value in typed.items() if value != []})

    def without_defaults(self) -> "Question":
        """The question without options that say what is the default anyway."""
        known = page_options()
        kept = {
            name: value
            for name, value in self.options.items()
            if _as_asked(name, value, known[name]) != known[name]
        }
        return self.model_copy(update={"options": kept})

    def _typed(self, option: str) -> dict[str, str]:
        return {board.name: board.budgets.get(option, "").strip() for board in self.boards}


def _as_asked(name: str, value: object, default: object) -> object:
    """Value of an option as the command would read it; raises InputError."""
    if value == "" and name not in ("objective", "precision"):
        return default
    try:
        if name in ("classes", "copies", "survive", "seed"):
            return int(str(value))
        if name in ("epsilon", "limit"):
            return float(str(value))
    except ValueError:
        allowed = "a number" if name in ("epsilon", "limit") else "a whole number"
        raise InputError(f"--{name}", found=value, allowed=allowed) from None
    return value


def page_options() -> dict[str, Any]:
    """Defaults of the options that the page has for the whole question, by name."""
    own = {"failure", *_FILES, *(one.option for one in budget_fields())}
    return {
        one.name: None if one.default is MISSING else one.default
        for one in fields(ProblemOptions)
        if one.name not in own
    }


def _texts_of_boards(typed: Mapping[str, str]) -> Iterator[str]:
    """Texts of an option: one of all boards, if each has one, and others."""
    said = {board: text.strip() for board, text in typed.items() if text.strip()}
    common = None
    if len(said) == len(typed):
        common = Counter(said.values()).most_common(1)[0][0]
        yield common
    yield from (f"{board}={text}" for board, text in said.items() if text != common)


_UNITS = {"latency": "ms", "latency-p95": "ms", "energy": "mJ", "energy-node": "mJ", "memory": "B"}
_UNITS |= {"throughput": "/s", "battery": "h", "fleet-power": "W", "fleet-average-power": "W"}
_PERCENTAGES = ("accuracy", "robustness", "reliability")


def requirement_text(objective: str, bound: float) -> str:
    """Write a requirement as --at-least and --at-most take it."""
    unit = "%" if objective in _PERCENTAGES else _UNITS.get(objective, "")
    whole = objective in ("memory", "flops", "boards", "students", "capacity", "imbalance")
    return f"{objective}={round(bound) if whole else repr(float(bound))}{unit}"
