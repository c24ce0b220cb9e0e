"""Help pages: commands in the order of the work, and types as people type them."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

from typer.core import TyperCommand, TyperGroup
from typer.models import OptionInfo

PANELS = {
    "quickstart": "Start here",
    **dict.fromkeys(("devices", "fleets", "calibrate", "predict"), "Boards and fleets"),
    **dict.fromkeys(("download", "train-teacher", "partition"), "Teacher and communities"),
    **dict.fromkeys(("plan", "replan", "verify", "explain", "explore", "ui"), "Plan"),
    **dict.fromkeys(("simulate", "sweep"), "Simulate"),
    **dict.fromkeys(("config", "train", "tune", "evaluate"), "Train students"),
    **dict.fromkeys(("quantise", "export"), "Train students"),
    **dict.fromkeys(("keys", "deploy", "worker", "host", "emulate"), "On the boards"),
    **dict.fromkeys(("profile", "validate"), "On the boards"),
    "draw": "Pictures",
    **dict.fromkeys(("reproduce", "table"), "Published results"),
}
"""Heading of the help under which a command stands."""

TYPED = {
    **dict.fromkeys(("--memory", "--runtime", "--largest-message"), "500KB"),
    **dict.fromkeys(("--time", "--deadline", "--own-message"), "40ms"),
    **dict.fromkeys(("--mttf", "--mttr"), "60s"),
    **dict.fromkeys(("--data", "--images"), "SOURCE"),
    **dict.fromkeys(("--network", "--teacher-network", "--model"), "wrn40-4"),
    **dict.fromkeys(("--from", "--to", "--host", "--like"), "DEVICE"),
    **dict.fromkeys(("--listen", "--metrics"), "HOST:PORT"),
    **dict.fromkeys(("--name", "--title"), "NAME"),
    **dict.fromkeys(("--failure", "--target", "--teacher-accuracy"), "95%"),
    "--accuracy": "FILE",
    "--against": "cifar-100",
    "--arrivals": "poisson:20/s",
    "--at-least": "accuracy=94.5%",
    "--at-most": "latency=50ms",
    "--balance": "10%",
    "--breakpoints": "memory",
    "--clock": "1.5GHz",
    "--dask": "tcp://HOST:PORT",
    "--device": "cuda",
    "--energy": "250mJ",
    "--fail": "BOARD@500ms..900ms",
    "--fconv": "LAYER",
    "--fleet": "rpi-3b*3",
    "--flops": "200M",
    "--front-step": "2%",
    "--gamma": "0.5:1.5:0.25",
    "--group0": "replicated",
    "--group0-copies": "per-board",
    "--image": "3x32x32",
    "--keep": "totals",
    "--link": "LINK",
    "--method": "lpt",
    "--minimise": "latency",
    "--objective": "latency,boards",
    "--on-failure": "lose",
    "--outage": "BOARD,BOARD=0.5%",
    "--paper": "white",
    "--pareto": "accuracy,latency",
    "--place": "BOARD=2",
    "--precision": "fp32",
    "--rows": "kd,nonn-2s",
    "--rule": "AH",
    "--sends": "per-student",
    "--signed-maps": "abs",
    "--split": "tiles",
    "--student": "wrn16:32,64,88",
    "--students": "2:8",
    "--teacher": "TEACHER",
    "--throttle": "BOARD@2s=0.6",
}
"""Examples of values of options, as people type them; they stand in the help."""

_KINDS = {int: "N", float: "NUMBER", Path: "PATH"}
"""Stand-ins for values of other options, by their type."""


def show_what_is_typed(command: Callable[..., Any]) -> None:
    """Give each option of a command an example in place of Python's type."""
    for hint in get_type_hints(command, include_extras=True).values():
        for option in getattr(hint, "__metadata__", ()):
            if isinstance(option, OptionInfo) and option.metavar is None:
                # Typer keeps the first name where a default would be.
                names = [str(option.default), *(option.param_decls or ())]
                option.metavar = _example(names, set(_kinds(hint)))


def _example(names: Sequence[str], kinds: set[object]) -> str | None:
    """Example of a value of an option; None for flags and choices."""
    if str in kinds:
        return next((TYPED[name] for name in names if name in TYPED), "TEXT")
    return next((shown for kind, shown in _KINDS.items() if kind in kinds), None)


def _kinds(hint: object) -> Iterator[object]:
    """Types of which a hint consists."""
    parts = get_args(hint)
    yield hint
    for part in parts[:1] if hasattr(hint, "__metadata__") else parts:
        yield from _kinds(part)


class HelpfulCommand(TyperCommand):
    """A command whose help names its arguments alone, not their Python types."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a section of arguments and one of options."""
        sections: dict[str, list[tuple[str, str]]] = {"argument": [], "option": []}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                kind, (name, said) = parameter.param_type_name, record
                sections[kind].append((name.split(" <")[0] if kind == "argument" else name, said))
        for kind, rows in sections.items():
            if rows:
                with formatter.section(f"{kind.capitalize()}s"):
                    formatter.write_dl(rows)


class HelpfulGroup(TyperGroup):
    """All commands, under headings, each with its whole first sentence."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each heading."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for name in sorted(self.list_commands(ctx), key=list(PANELS).index):
            rows = panels.setdefault(PANELS[name], [])
            rows.append((name, _summary(self.commands[name])))
        widest = max(map(len, self.commands))
        for heading, rows in panels.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(widest), said) for name, said in rows])


def _summary(command: Any) -> str:
    """The first paragraph of a command's help, in one line."""
    return " ".join((command.help or "").split("\n\n")[0].split())
