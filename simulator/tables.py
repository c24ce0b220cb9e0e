"""Tidy tables of a result: inferences, intervals, messages and boards, as CSV and as Parquet.

Columns are the fields of the rows of `trace` and `result`, their units the suffixes.  What never
came, such as the end of a lost image, and what is not known, is null: an empty cell in CSV.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as arrow_csv
from pyarrow import parquet

from profiles.document import write_atomic
from simulator.result import BoardRow, SimulationResult
from simulator.trace import InferenceRow, IntervalRow, MessageRow

_TYPES = {"int": pa.int64(), "float": pa.float64(), "str": pa.string(), "bool": pa.bool_()}


def tables(result: SimulationResult) -> dict[str, pa.Table]:
    """Return the tables of `result` by name; only boards have rows where totals were kept."""
    inferences = table_of(InferenceRow, result.inferences)
    latencies = [row.latency_ms for row in result.inferences]
    return {
        "inferences": inferences.append_column("latency_ms", _column(latencies, pa.float64())),
        "intervals": table_of(IntervalRow, result.intervals),
        "messages": table_of(MessageRow, result.messages),
        "boards": table_of(BoardRow, result.boards),
    }


def write_tables(result: SimulationResult, folder: Path) -> tuple[Path, ...]:
    """Write each table as NAME.csv and NAME.parquet into `folder`; return what was written."""
    written = []
    for name, table in tables(result).items():
        for suffix, content in (("csv", as_csv(table)), ("parquet", as_parquet(table))):
            path = folder / f"{name}.{suffix}"
            write_atomic(path, content)
            written.append(path)
    return tuple(written)


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
