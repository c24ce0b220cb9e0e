"""Output of a command: one JSON document, or tables, words and progress bars for people."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, Literal

from nonn_common import LEFT
from nonn_common.document import check_own_place, check_picture
from nonn_common.errors import InputError, StoppedError, TrainingError
from nonn_common.units import format_duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Task

    from nonn_common import Progress
    from simulator.results.simulation_result import SimulationResult
    from simulator.results.statistics import Keep


TO_RESUME = "finished epochs are kept; run the same command again to go on"
UNCHANGED = "nothing was written"

RANK_FAILED = 1
LOG_INTERVAL_S = 60.0
_PIPE_WIDTH = 120


@dataclass(frozen=True)
class Output:
    """Words of a command on stdout, or on stderr when JSON takes stdout."""

    as_json: bool
    warnings: list[str] = field(default_factory=list)

    @cached_property
    def console(self) -> "Console":
        """The console for people."""
        from rich.console import Console

        # A pipe has no width of its own.
        asked = (sys.stderr if self.as_json else sys.stdout).isatty() or "COLUMNS" in os.environ
        width = None if asked else _PIPE_WIDTH
        return Console(stderr=self.as_json, highlight=False, emoji=False, width=width)

    def say(self, text: str) -> None:
        """Say a sentence to a person; in a terminal its lines end between words."""
        if self.console.is_terminal:
            from nonn_plan.cli.table_layout import wrapped

            text = "\n".join(wrapped(text, self.console.width))
        self.console.print(text, markup=False, soft_wrap=True)

    def warn(self, *texts: str) -> None:
        """Say what makes the result doubtful; JSON has the same under `warnings`."""
        for text in texts:
            self.say(f"Warning: {text}")
            self.warnings.append(text)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show a table to a person; columns of numbers are set to the right.

        Columns that do not fit stand in a second table, below, with the same names of its rows.
        """
        from rich import box
        from rich.table import Table
        from rich.text import Text

        from nonn_plan.cli.table_layout import lay_out

        self.say(title)
        parts, lines = lay_out(columns, rows, self.console.width)
        for part in parts:
            grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
            for head, width, numeric in zip(part.heads, part.widths, part.numeric, strict=True):
                justify: Literal["left", "right"] = "right" if numeric else "left"
                grid.add_column(Text(head), justify=justify, width=width, no_wrap=True)
            for row in part.rows:
                grid.add_row(*map(Text, row))
            self.console.print(grid)
        for line in lines:
            self.console.print(line, markup=False, soft_wrap=True)

    def result(self, document: object) -> None:
        """Print the command's result as one JSON document, if that was asked for.

        Warnings join a mapping under `warnings`; where there was none, the key is left out.
        """
        if self.as_json:
            if self.warnings and isinstance(document, dict):
                document = {**document, "warnings": [*document.get("warnings", ()), *self.warnings]}
            print(json.dumps(document, indent=2, ensure_ascii=False))  # noqa: T201

    @contextmanager
    def progress(self, kept: str) -> Iterator["Progress"]:
        """Show progress bars, or a line a minute in a log.

        `kept` says what an interruption leaves behind.

        Raises StoppedError when the program is stopped.
        """
        from rich.console import Console

        # On a terminal, words and bars share one console, so that words go above the bar; a
        # redirected stdout gets words alone.
        shared = self.as_json or sys.stdout.isatty()
        console = self.console if shared else Console(stderr=True)
        shown = _bars(console) if console.is_terminal else _minute_lines(console)
        try:
            with shown as progress:
                yield progress
        except StoppedError as stopped:
            raise StoppedError(f"{stopped}; {kept}") from None


def format_number(value: float, decimals: int) -> str:
    """Show a figure; from a thousand million on only its first digits and its magnitude."""
    return f"{value:.{decimals}f}" if abs(value) < 1e9 else f"{value:g}"


def format_pct(value: float | None) -> str:
    """Show a percentage, or that there is none."""
    return "not measured" if value is None else f"{value:.2f} %"


def format_estimate(value: float, low: float, high: float) -> tuple[str, str]:
    """Show an estimate and its interval, with the digits that its width bears.

    To the second significant digit of the width, as JCGM 100:2008 (GUM), 7.2.6, asks of an
    uncertainty; two decimals at most.
    """
    width = high - low
    decimals = 0 if width >= 10 else 1 if width >= 1 else 2
    return f"{value:.{decimals}f}", f"{low:.{decimals}f} to {high:.{decimals}f}"


@contextmanager
def _bars(console: "Console") -> Iterator["Progress"]:
    """A bar for what was reported last."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    class TimeLeft(TimeRemainingColumn):
        """Time left, where the work does not tell it itself."""

        def render(self, task: "Task") -> Text:
            return Text() if task.description.endswith(LEFT) else super().render(task)

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeLeft())
    with Bars(*columns, console=console, transient=True, redirect_stdout=False) as bars:
        bar = bars.add_task("starting", total=None)

        def show(what: str, done: int, total: int) -> None:
            bars.update(bar, description=what, completed=done, total=total or None)

        yield show


@contextmanager
def _minute_lines(console: "Console") -> Iterator["Progress"]:
    """A line a minute on what is done, and what is left."""
    log, ended = WorkLog(monotonic()), Event()

    def write() -> None:
        while not ended.wait(LOG_INTERVAL_S):
            console.print(log.line(monotonic()), markup=False, soft_wrap=True)

    # A thread, as a long step reports nothing before its end.
    writer = Thread(target=write, daemon=True)
    writer.start()
    try:
        yield lambda what, done, total: log.note(what, done, total, monotonic())
    finally:
        ended.set()
        writer.join()


@dataclass(slots=True)
class WorkLog:
    """Last report of work, and since when such work goes on; times in s."""

    since_s: float
    what: str = "starting"
    first: int = 0
    done: int = 0
    total: int = 0

    def note(self, what: str, done: int, total: int, now_s: float) -> None:
        """Keep a report."""
        known = what.partition(", about ")[0]
        if known != self.what.partition(", about ")[0] or done < self.done:
            self.since_s, self.first = now_s, done
        self.what, self.done, self.total = what, done, total

    def line(self, now_s: float) -> str:
        """Line on how far the work is; the pace so far tells what is left."""
        spent_s, made = now_s - self.since_s, self.done - self.first
        count = f": {self.done} of {self.total}" if self.total else ""
        if self.what.endswith(LEFT):
            return self.what.replace(", about", f"{count}, about", 1)
        if not made or not self.total:
            return f"{self.what}{count}, for {format_duration(spent_s)}"
        left_s = spent_s / made * (self.total - self.done)
        return f"{self.what}{count}, about {format_duration(left_s)}{LEFT}"


@contextmanager
def output_of_rank_zero() -> Iterator[None]:
    """Join the processes that `torchrun` started; what stops all of them the first one says."""
    from nonn_core.distillation import accelerator

    with accelerator.process_group():
        if accelerator.rank() == 0:
            yield
            return
        with Path(os.devnull).open("w") as nowhere:
            try:
                with redirect_stdout(nowhere), redirect_stderr(nowhere):
                    yield
            except (StoppedError, TrainingError):
                sys.exit(RANK_FAILED)


@dataclass(frozen=True, slots=True)
class SimulationFiles:
    """Files of a simulation: trace, picture, tables."""

    trace: Path | None
    gantt: Path | None
    tables: Path | None

    def check(self, keep: "Keep") -> None:
        """Refuse places that cannot be written, and pictures of what is not kept."""
        if self.trace is self.gantt is self.tables is None:
            return
        from simulator.results.perfetto import START
        from simulator.results.tables import check_folder

        checks: tuple[tuple[str, Path | None, Callable[[Path], None]], ...] = (
            ("--trace", self.trace, lambda path: check_own_place(path, START)),
            ("--gantt", self.gantt, check_picture),
            ("--tables", self.tables, check_folder),
        )
        places = [path.absolute() for _, path, _ in checks if path is not None]
        if len(set(places)) < len(places):
            raise InputError("two outputs of one name", found=str(places[0]))
        for option, path, check in checks:
            if path is None:
                continue
            if keep == "totals":
                raise InputError(f"{option} needs what --keep totals does not keep")
            check(path)

    def left_out(self) -> tuple[str, ...]:
        """Sentence on Parquet tables that are left out."""
        if self.tables is None:
            return ()
        from simulator.results.tables import GET_PARQUET, HAS_PARQUET

        return () if HAS_PARQUET else (f"Parquet is left out; {GET_PARQUET}",)

    def write(self, found: "SimulationResult") -> tuple[Path, ...]:
        """Write the files that were named; gives their paths."""
        if self.trace is self.gantt is self.tables is None:
            return ()
        from simulator.results.perfetto import write_trace
        from simulator.results.tables import write_tables
        from simulator.results.timeline import write_gantt

        written: list[Path] = []
        for path, write in ((self.trace, write_trace), (self.gantt, write_gantt)):
            if path is not None:
                write(found, path)
                written.append(path)
        return (*written, *(write_tables(found, self.tables) if self.tables else ()))
