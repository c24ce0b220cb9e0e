"""Tables of an exploration, as CSV and as Parquet."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from planner.exploration.exploration import Cell, breakpoint_rows, front_rows, rows
from profiles.document import check_own_place, write_atomic
from simulator.tables import as_csv, as_parquet

_KINDS: dict[str, Callable[[Sequence[Cell]], list[dict[str, Any]]]] = {
    "cells": rows,
    "front": front_rows,
    "breakpoints": breakpoint_rows,
}
_WHOLE = ("memory_bytes", "flops", "point", "least_bytes", "least_flops")
_TEXT = ("fleet", "objective", "status", "networks", "axis")


def check_tables(folder: Path) -> None:
    """Make sure that the tables can be written, over nothing but such tables."""
    for name in _KINDS:
        check_own_place(folder / f"{name}.csv", b'"fleet","memory_bytes","flops"')
        check_own_place(folder / f"{name}.parquet", b"PAR1")


def write_tables(cells: Sequence[Cell], folder: Path) -> None:
    """Write a table of each kind that has rows, and always that of the cells."""
    for name, rows_of in _KINDS.items():
        found = rows_of(cells)
        if found or name == "cells":
            table = _table(found)
            write_atomic(folder / f"{name}.csv", as_csv(table))
            write_atomic(folder / f"{name}.parquet", as_parquet(table))


def _table(found: Sequence[dict[str, Any]]) -> pa.Table:
    """Return a column for every name that any row has; what a row has not is null."""
    names = dict.fromkeys(name for row in found for name in row)
    return pa.table(
        {name: pa.array([row.get(name) for row in found], type=_type(name)) for name in names}
    )


def _type(name: str) -> pa.DataType:
    if name in _WHOLE:
        return pa.int64()
    if name == "starts_below_range":
        return pa.bool_()
    return pa.string() if name in _TEXT else pa.float64()
