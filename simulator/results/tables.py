"""Tidy tables of a result: inferences, intervals, messages and boards, as CSV and Parquet.

Columns are the fields of the rows of `breakdown`, their units the suffixes.  An unknown value, such
as the end of a lost image, is null: an empty cell in CSV.  Parquet is written where pyarrow is
installed (`nonn-plan[parquet]`); CSV is the same, to the last byte, with it and without it.
"""

import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nonn_common.document import check_own_place, check_suffix, write_atomic
from simulator.results.breakdown import BoardRow, InferenceRow, IntervalRow, MessageRow
from simulator.results.simulation_result import SimulationResult

if TYPE_CHECKING:
    import pyarrow as pa

HAS_PARQUET = find_spec("pyarrow") is not None
GET_PARQUET = "for Parquet: pip install 'nonn-plan[parquet]'"

_KINDS: dict[str, type[Any]] = {
    "inferences": InferenceRow,
    "intervals": IntervalRow,
    "messages": MessageRow,
    "boards": BoardRow,
}
_TYPES: dict[str, type[Any]] = {"int": int, "float": float, "str": str, "bool": bool}


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of equal length; a value that is unknown, NaN among them, is None."""

    columns: Mapping[str, Sequence[Any]]
    types: Mapping[str, type[Any]]

    @classmethod
    def of(cls, columns: Mapping[str, Iterable[Any]], types: Mapping[str, type[Any]]) -> "Table":
        """Make a table; NaN becomes None."""
        found = {
            name: [
                None if value is None or value != value else types[name](value) for value in column
            ]
            for name, column in columns.items()
        }
        return cls(found, types)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows, each a value by column."""
        for values in zip(*self.columns.values(), strict=True):
            yield dict(zip(self.columns, values, strict=True))

    def arrow(self) -> "pa.Table":
        """Arrow table with the same columns; raises ModuleNotFoundError without pyarrow."""
        import pyarrow as pa

        of = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}
        return pa.table(
            {
                name: pa.array(column, type=of[self.types[name]])
                for name, column in self.columns.items()
            }
        )


def tables(result: SimulationResult) -> dict[str, Table]:
    """Tables of `result` by name; only boards have rows where totals were kept."""
    found = {name: table_of(kind, getattr(result, name)) for name, kind in _KINDS.items()}
    whole = found["inferences"]
    latencies = [row.latency_ms for row in result.inferences]
    found["inferences"] = Table.of(
        {**whole.columns, "latency_ms": latencies}, {**whole.types, "latency_ms": float}
    )
    return found


def write_tables(result: SimulationResult, folder: Path) -> tuple[Path, ...]:
    """Write each table as NAME.csv and NAME.parquet into `folder`; gives the files."""
    return tuple(
        path for name, table in tables(result).items() for path in write_table(table, folder, name)
    )


def write_table(table: Table, folder: Path, name: str) -> tuple[Path, ...]:
    """Write NAME.csv and, where pyarrow is installed, NAME.parquet; gives the files."""
    path = folder / f"{name}.csv"
    write_atomic(path, as_csv(table))
    if not HAS_PARQUET:
        return (path,)
    write_atomic(path.with_suffix(".parquet"), as_parquet(table))
    return path, path.with_suffix(".parquet")


def check_folder(folder: Path) -> None:
    """Make sure that the tables can be written into `folder`, over nothing but such tables."""
    for name, kind in _KINDS.items():
        check_table(kind, folder / f"{name}.csv")
        check_table(kind, folder / f"{name}.parquet")


def check_table(kind: type[Any], path: Path) -> None:
    """Make sure that a table of the dataclass `kind` can be written, over nothing else.

    Raises InputError where the name ends in neither .csv nor .parquet and where the file holds
    another table, or none, and NonnError where it cannot be written.
    """
    check_suffix(path, ".csv", ".parquet")
    column = fields(kind)[0].name
    check_own_place(path, b"PAR1" if path.suffix == ".parquet" else f'"{column}"'.encode())


def table_of(kind: type[Any], rows: Sequence[object]) -> Table:
    """Table with a column per field of the dataclass `kind` and a row per object."""
    return Table.of(
        {one.name: [getattr(row, one.name) for row in rows] for one in fields(kind)},
        {one.name: _type(one.type) for one in fields(kind)},
    )


def _type(annotation: object) -> type[Any]:
    """Type of a field's column; one that is neither number nor truth is a name."""
    name = getattr(annotation, "__name__", None) or str(annotation).split(" ")[0]
    return _TYPES.get(name, str)


def as_csv(table: Table) -> bytes:
    """CSV with a header: names in quotes, as Arrow writes it."""
    if not HAS_PARQUET:
        return plain_csv(table)
    from pyarrow import csv

    stream = io.BytesIO()
    csv.write_csv(table.arrow(), stream)
    return stream.getvalue()


def plain_csv(table: Table) -> bytes:
    """CSV as Arrow writes it, without Arrow; slower."""
    lines = [",".join(map(_quoted, table.columns))]
    lines += [",".join(map(_cell, row.values())) for row in table.rows()]
    return "".join(f"{line}\n" for line in lines).encode()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return _decimal(value)
    return str(value) if isinstance(value, int) else _quoted(str(value))


def _quoted(text: str) -> str:
    return '"{}"'.format(text.replace('"', '""'))


def _decimal(value: float) -> str:
    """Shortest digits that give the same float; an exponent below 1e-6 and from 1e10 on."""
    if not math.isfinite(value):
        return str(value)
    negative, digits, exponent = Decimal(repr(value)).as_tuple()
    figures = "".join(map(str, digits)).rstrip("0") or "0"
    sign = "-" if negative else ""
    first = len(digits) + int(exponent) - 1 if value else 0
    if not -6 <= first < 10:
        tail = f".{figures[1:]}" if figures[1:] else ""
        return f"{sign}{figures[0]}{tail}e{first:+d}"
    if first < 0:
        return f"{sign}0.{'0' * (-first - 1)}{figures}"
    whole, part = figures[: first + 1].ljust(first + 1, "0"), figures[first + 1 :]
    return f"{sign}{whole}{f'.{part}' if part else ''}"


def as_parquet(table: Table) -> bytes:
    """Parquet file of the table; raises ModuleNotFoundError without pyarrow."""
    from pyarrow import parquet

    stream = io.BytesIO()
    parquet.write_table(table.arrow(), stream)
    return stream.getvalue()
