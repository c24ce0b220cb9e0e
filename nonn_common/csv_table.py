"""CSV tables as sheets and programs write them: one reader for all commands.

The first line that is not blank names the columns.  Between cells stands a comma, a semicolon or a
tab: whichever gives the header most columns.  A byte-order mark, blank rows, blanks around cells
and columns without a name or a cell come with sheets and mean nothing.  All else that would be
lost is refused: a second column of one name, and a row with more cells than the header.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

from nonn_common.document import Record
from nonn_common.errors import InputError

DELIMITERS: Mapping[str, str] = {"comma": ",", "semicolon": ";", "tab": "\t"}
"""Signs between cells, by the names that messages give them."""

_BLANK = "\"' ,;\t\r\n"
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")

RowRecord = TypeVar("RowRecord", bound=Record)


class _Sheet(csv.excel):
    """Form of a sheet, in which quotes must close.

    An open quote would be a cell that holds the rest of the file.
    """

    skipinitialspace = True
    strict = True


@dataclass(frozen=True, slots=True)
class CsvRow:
    """A row that is not blank: its line in the file, its cells by column.

    Blank cells are left out.
    """

    line: int
    cells: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CsvTable:
    """A CSV file whose header has been read; `delimiter` is a name of DELIMITERS."""

    path: Path
    delimiter: str
    columns: tuple[str, ...]
    text: str = field(repr=False)

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read `path`; an empty file has no columns.

        Raises InputError for a file that is not UTF-8 and for a column that is there twice.
        """
        text = _text(Path(path))
        lines = io.StringIO(text, newline=None)
        head = next((line for line in lines if line.strip(_BLANK)), "")
        columns, delimiter = max(
            ((_header(head, name), name) for name in DELIMITERS), key=lambda found: _named(found[0])
        )
        table = cls(Path(path), delimiter, columns, text)
        repeated = [name for name in dict.fromkeys(columns) if name and columns.count(name) > 1]
        if repeated:
            raise InputError(
                "a column is there twice", where=table.place, found=", ".join(repeated)
            )
        return table

    @property
    def place(self) -> str:
        """The file and its delimiter, for messages."""
        return f"{self.path} (delimiter: {self.delimiter})"

    def rows(self) -> Iterator[CsvRow]:
        """Yield the rows below the header.

        Raises InputError for a quote that does not close and for a cell beside all columns.
        """
        records = self._records()
        next(records, None)
        for line, cells in records:
            surplus = [cell for name, cell in zip(self.columns, cells, strict=False) if not name]
            if any([*surplus, *cells[len(self.columns) :]]):
                raise InputError(
                    "more cells than columns",
                    where=f"{self.place} line {line}",
                    found=DELIMITERS[self.delimiter].join(cells),
                    allowed=f"at most {_named(self.columns)}, as the header names",
                    fix="quote a cell that holds the delimiter; write numbers with a point, 12.5",
                )
            pairs = zip(self.columns, cells, strict=False)
            yield CsvRow(line, {name: cell for name, cell in pairs if cell})

    def records(
        self,
        kind: type[RowRecord],
        content: Callable[[Mapping[str, str]], object] = dict,
    ) -> tuple[RowRecord, ...]:
        """Validate the `content` of each row's cells as a record of `kind`.

        Raises the error of that kind, with row and line.
        """
        return tuple(
            _checked(kind, content(row.cells), f"{self.place} line {row.line}, row {number}")
            for number, row in enumerate(self.rows(), start=1)
        )

    def _records(self) -> Iterator[tuple[int, Sequence[str]]]:
        """Cells of each line that is not blank, and its number."""
        text = io.StringIO(self.text, newline="")
        lines = csv.reader(text, _Sheet, delimiter=DELIMITERS[self.delimiter])
        try:
            for cells in lines:
                stripped = [cell.strip() for cell in cells]
                if any(stripped):
                    yield lines.line_num, stripped
        except csv.Error as error:
            where = f"{self.place} line {lines.line_num}"
            raise InputError(f"is not CSV: {error}", where=where) from None


def is_csv(path: Path | str) -> bool:
    """Whether a file of this name is a CSV table."""
    return Path(path).suffix.lower() in (".csv", ".tsv")


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError("no such file", where=str(path)) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"cannot be read: {error}", where=str(path), fix="save it as CSV in UTF-8"
        ) from None


def _header(line: str, delimiter: str) -> tuple[str, ...]:
    """Columns of the line with this delimiter; none where its quotes do not close."""
    try:
        cells = next(csv.reader([line], _Sheet, delimiter=DELIMITERS[delimiter]), ())
        return tuple(cell.strip() for cell in cells)
    except csv.Error:
        return ()


def _named(columns: Sequence[str]) -> int:
    return sum(map(bool, columns))


def _checked(kind: type[RowRecord], content: object, where: str) -> RowRecord:
    try:
        return kind.check(content, where)
    except InputError as error:
        if isinstance(error.found, str) and _DECIMAL_COMMA.fullmatch(error.found):
            raise type(error)(
                error.what,
                where=error.where,
                found=error.found,
                allowed=error.allowed,
                fix="write numbers with a point, 12.5",
            ) from None
        raise
