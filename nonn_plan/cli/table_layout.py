"""Layout of tables and sentences in a terminal, without broken names and numbers."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

_GAP = 3
"""Blanks between two columns."""
_EDGE = 2
"""Blanks at both ends of a line."""
_READABLE = 16
"""Narrower than this no column of words becomes for the sake of others."""
_MOST_KEYS = 3
_UNITS = "B|FLOPs?|Hz|u?s|min|h|m?J|m?W|bits?/s|bps|images/s|params|points?|filters?"
_GLUED = re.compile(
    rf"(?<=[\d.]) (?=(?:[KMGTkm]i?)?(?:{_UNITS})?(?:[\s,;:.)]|$))|(?<=\d) (?=%)|(?<=[\d%]) (?=±)"
    r"|(?<=±) (?=\d)"
)
"""Blanks between a number and its unit, or its deviation."""
_QUOTED = re.compile(r"`[^`]*`")
_HARD = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True, slots=True)
class TablePart:
    """Columns of a table that stand side by side, as they are shown."""

    widths: tuple[int, ...]
    heads: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]


def is_number(cell: str) -> bool:
    """Whether a cell is a number, with or without a unit."""
    return cell.lstrip("+-<>~ ")[:1].isdigit()


def is_numeric(cells: Sequence[str]) -> bool:
    """Whether a column is of numbers: set to the right and never folded."""
    return any(map(is_number, cells))


def lay_out(
    columns: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> tuple[tuple[TablePart, ...], tuple[str, ...]]:
    """Parts of a table within `width`, and lines of columns that fit in none.

    The columns that tell rows apart stand in each part, and before each line.
    """
    folds = [_Column.of(head, [row[place] for row in rows]) for place, head in enumerate(columns)]
    keys = _keys(rows, len(columns))
    while len(keys) > 1 and _width([folds[key].least for key in keys]) > width // 2:
        keys = keys[:-1]

    def fit(places: Sequence[int]) -> bool:
        return _width([folds[each].least for each in places]) <= width

    keys = keys if fit(keys) else []
    parts, left = [keys], []
    for place in range(len(keys), len(columns)):
        if fit([*parts[-1], place]):
            parts[-1] = [*parts[-1], place]
        elif fit([*keys, place]):
            parts.append([*keys, place])
        else:
            left.append(place)
    return (
        tuple(_part(places, folds, columns, rows, width) for places in parts if places),
        tuple(_lines(keys, left, columns, rows, width)),
    )


def _lines(
    keys: Sequence[int],
    left: Sequence[int],
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int,
) -> Iterator[str]:
    """Lines of too wide columns: names of the row, and a line a cell."""
    for row in rows if left else ():
        if keys:
            yield from wrapped(", ".join(row[key] for key in keys), width)
        for place in left:
            if row[place]:
                yield from wrapped(f"  {columns[place]}: {row[place]}", width)


def wrapped(text: str, width: int) -> list[str]:
    """Lines of a text, broken at blanks, but not between a number and its unit.

    What is quoted, such as a command, stays together where a line can hold it.
    """
    return [part for line in text.split("\n") for part in _wrapped_line(line, width)]


def _wrapped_line(line: str, width: int) -> Iterator[str]:
    body = line.lstrip(" -")
    indent = " " * (len(line) - len(body))
    held = _QUOTED.sub(lambda match: _held(match[0], width - len(indent)), body)
    first, *words = _GLUED.sub(_HARD, held).split(" ")
    shown = line[: len(indent)] + first
    for word in words:
        if cell_len(shown) + 1 + cell_len(word) <= width:
            shown += f" {word}"
        else:
            yield shown.replace(_HARD, " ").rstrip()
            shown = indent + word
    yield shown.replace(_HARD, " ").rstrip()


def _held(quoted: str, room: int) -> str:
    return quoted.replace(" ", _HARD) if len(quoted) <= room else quoted


@dataclass(frozen=True, slots=True)
class _Column:
    """A column: how wide it wants to be, and how narrow it may become."""

    natural: int
    least: int

    @classmethod
    def of(cls, head: str, cells: Sequence[str]) -> "_Column":
        lines = [line for cell in cells for line in cell.split("\n")]
        natural = max(map(cell_len, (head, *lines)))
        words = max(map(cell_len, wrapped(head, 1)))
        if is_numeric(cells):
            return cls(natural, max(words, *map(cell_len, lines)))
        longest = max((cell_len(word) for cell in cells for word in wrapped(cell, 1)), default=0)
        return cls(natural, max(words, longest, min(natural, _READABLE)))


def _keys(rows: Sequence[Sequence[str]], columns: int) -> list[int]:
    """The first columns that tell the rows apart; the very first where none do."""
    for count in range(1, min(_MOST_KEYS, columns) + 1):
        if len({tuple(row[:count]) for row in rows}) == len(rows):
            return list(range(count))
    return [0]


def _width(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1) + _EDGE


def _part(
    places: Sequence[int],
    folds: Sequence[_Column],
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int,
) -> TablePart:
    """A part of a table whose widest columns give way until it fits."""
    widths = {place: folds[place].natural for place in places}
    while _width(list(widths.values())) > width:
        yielding = [place for place in places if widths[place] > folds[place].least]
        widths[max(yielding, key=lambda place: widths[place])] -= 1
    return TablePart(
        tuple(widths.values()),
        tuple(_folded(columns[place], widths[place]) for place in places),
        tuple(is_numeric([row[place] for row in rows]) for place in places),
        tuple(tuple(_folded(row[place], widths[place]) for place in places) for row in rows),
    )


def _folded(text: str, width: int) -> str:
    return "\n".join(wrapped(text, width)) if cell_len(text) > width else text
