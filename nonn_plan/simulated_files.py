"""What `simulate` writes beside its words: a trace, a picture, tables."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from profiles.document import check_own_place, check_picture
from profiles.errors import InputError

if TYPE_CHECKING:
    from simulator.recorder import Keep
    from simulator.result import SimulationResult


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where to write what was recorded."""

    trace: Path | None
    gantt: Path | None
    tables: Path | None

    def check(self, keep: "Keep") -> None:
        """Refuse places that cannot be written, and pictures of what is not kept."""
        if self.trace is self.gantt is self.tables is None:
            return
        from simulator.perfetto import START
        from simulator.tables import check_folder

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

    def write(self, found: "SimulationResult") -> tuple[Path, ...]:
        """Write what was asked for; return the files."""
        if self.trace is self.gantt is self.tables is None:
            return ()
        from simulator.gantt import write_gantt
        from simulator.perfetto import write_trace
        from simulator.tables import write_tables

        written: list[Path] = []
        for path, write in ((self.trace, write_trace), (self.gantt, write_gantt)):
            if path is not None:
                write(found, path)
                written.append(path)
        return (*written, *(write_tables(found, self.tables) if self.tables else ()))
