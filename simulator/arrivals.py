"""Arrivals: when the host takes up the next image."""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path
from typing import Self

import numpy as np

from profiles.errors import InputError, SimulationError

COLUMN = "start_ms"
"""Column of a CSV trace that holds the arrivals."""

_BATCH = 1024


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """One image at a time: the next when the last is answered or lost."""


@dataclass(frozen=True, slots=True)
class Poisson:
    """Images at random, `per_s` a second on average."""

    per_s: float

    def __post_init__(self) -> None:
        _require_positive("a Poisson stream needs a rate", self.per_s, "1/s")

    def times(self, generator: np.random.Generator) -> Iterator[float]:
        """Yield the arrivals, in ms."""
        now_ms = 0.0
        while True:
            for gap_ms in generator.exponential(1000 / self.per_s, _BATCH).tolist():
                now_ms += gap_ms
                yield now_ms


@dataclass(frozen=True, slots=True)
class Periodic:
    """An image every `every_ms`, the first at once."""

    every_ms: float

    def __post_init__(self) -> None:
        _require_positive("a periodic stream needs a period", self.every_ms, "ms")

    def times(self, generator: np.random.Generator) -> Iterator[float]:  # noqa: ARG002
        """Yield the arrivals, in ms."""
        return (number * self.every_ms for number in count())


@dataclass(frozen=True, slots=True)
class Times:
    """Images at these times, in ms, which do not fall."""

    ms: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.ms or not all(0 <= each < math.inf for each in self.ms):
            raise SimulationError("arrivals must be at least one time of at least 0 ms")
        for index, (earlier, later) in enumerate(pairwise(self.ms), start=1):
            if later < earlier:
                raise SimulationError(
                    f"arrivals must not fall; found {later:g} ms after {earlier:g} ms "
                    f"at position {index}"
                )

    @classmethod
    def from_csv(cls, path: Path) -> Self:
        """Read the column `start_ms` of a CSV file with a header; raises InputError."""
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                return cls(tuple(_column(path, csv.DictReader(file))))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"cannot read this trace: {error}", where=str(path)) from error
        except SimulationError as error:
            raise InputError(str(error), where=f"{path}: column {COLUMN}") from error

    def times(self, generator: np.random.Generator) -> Iterator[float]:  # noqa: ARG002
        """Yield the arrivals, in ms."""
        return iter(self.ms)


OpenArrivals = Poisson | Periodic | Times
Arrivals = ClosedLoop | OpenArrivals


def _column(path: Path, reader: "csv.DictReader[str]") -> Iterator[float]:
    if COLUMN not in (reader.fieldnames or ()):
        raise InputError(
            "this trace has no column of arrivals",
            where=str(path),
            found=", ".join(reader.fieldnames or ()) or "an empty file",
            allowed=f"a header line with a column {COLUMN}, in ms",
        )
    for row in reader:
        text = row[COLUMN]
        try:
            value = float(text or "")
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise InputError(
                "not a time",
                where=f"{path}: line {reader.line_num}, column {COLUMN}",
                found=text,
                allowed="a number of ms, at least 0",
            )
        yield value


def _require_positive(what: str, value: float, unit: str) -> None:
    if not 0 < value < math.inf:
        raise SimulationError(f"{what} above 0 {unit}; found {value:g}")
