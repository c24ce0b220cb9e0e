"""Tidy tables of a result: inferences, intervals, messages and boards, as CSV and Parquet.

Columns are the fields of the rows of `breakdown`, their units the suffixes.  What never came, such
as the end of a lost image, and what is not known, is null: an empty cell in CSV.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as arrow_csv
from pyarrow import parquet

from nonn_common.document import check_own_place, check_suffix, write_atomic
from simulator.results.breakdown import BoardRow, InferenceRow, IntervalRow, MessageRow
from simulator.results.simulation_result import SimulationResult

_KINDS: dict[str, type[Any]] = {
    "inferences": InferenceRow,
    "intervals": IntervalRow,
    "messages": MessageRow,
    "boards": BoardRow,
}
_TYPES = {"int": pa.int64(), "float": pa.float64(), "str": pa.string(), "bool": pa.bool_()}


def tables(result: SimulationResult) -> dict[str, pa.Table]:
    """Return the tables of `result` by name; only boards have rows where totals were kept."""
    found = {name: table_of(kind, getattr(result, name)) for name, kind in _KINDS.items()}
    latencies = _column((row.latency_ms for row in result.inferences), pa.float64())
    found["inferences"] = found["inferences"].append_column("latency_ms", latencies)
    return found


def write_tables(result: SimulationResult, folder: Path) -> tuple[Path, ...]:
    """Write each table as NAME.csv and NAME.parquet into `folder`; return what was written."""
    written = []
    for name, table in tables(result).items():
        for suffix, content in (("csv", as_csv(table)), ("parquet", as_parquet(table))):
            path = folder / f"{name}.{suffix}"
            write_atomic(path, content)
            written.append(path)
    return tuple(written)


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


def table_of(kind: type[Any], rows: Sequence[object]) -> pa.Table:
    """Return a column per field of the dataclass `kind` and a row per object."""
    return pa.table(
        {
            field.name: _column((getattr(row, field.name) for row in rows), _type(field.type))
            for field in fields(kind)
        }
    )


def _column(values: Iterable[object], of: pa.DataType) -> pa.Array:
    return pa.array(list(values), type=of, from_pandas=True)  # NaN becomes null


def _type(annotation: object) -> pa.DataType:
    """Return the column type of a field; one that is neither number nor truth is a name."""
    name = getattr(annotation, "__name__", None) or str(annotation).split(" ")[0]
    return _TYPES.get(name, pa.string())


def as_csv(table: pa.Table) -> bytes:
    """Return the table as CSV with a header."""
    stream = io.BytesIO()
    arrow_csv.write_csv(table, stream)
    return stream.getvalue()


def as_parquet(table: pa.Table) -> bytes:
    """Return the table as a Parquet file."""
    stream = io.BytesIO()
    parquet.write_table(table, stream)
    return stream.getvalue()
