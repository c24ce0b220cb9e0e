"""A terminal of a given width, and what may not happen in it: a name or a number in two parts."""

import io
import re

from rich.console import Console

from nonn_plan.cli.output import Output
from profiles.device import DEVICES

WIDTHS = (80, 120)
LONGEST_NAME = max((*DEVICES.names(), *DEVICES.further_names()), key=len)
NUMBER_AND_UNIT = re.compile(r"\d+(?:\.\d+)? (?:[KMG]?B|[KMG]?FLOP|ms|mJ|%|GHz)(?=[\s,;)]|$)")
NAME = re.compile(r"\b(?:rpi|odroid|x86|student|wrn)[\w.:,-]*\w")


def shown_in_terminal(width, show, *arguments):
    """Text that `show(output, *arguments)` writes in a terminal of this width."""
    stream = io.StringIO()
    console = Console(
        file=stream, width=width, force_terminal=True, no_color=True, highlight=False, emoji=False
    )
    output = Output(as_json=False)
    output.__dict__["console"] = console
    show(output, *arguments)
    return re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())


def check_lines(text, width):
    """No line is wider than the terminal, but one word that is."""
    for line in text.splitlines():
        assert len(line.rstrip()) <= width or " " not in line.strip(), line


def check_table(width, title, columns, rows):
    """Show a table; each word, and each number with its unit, is there in one part."""
    text = shown_in_terminal(width, Output.table, title, columns, rows)
    check_lines(text, width)
    flat = re.sub(r"\s+", " ", text)
    words = {form for word in text.split() for form in (word, word.rstrip(":,"))}
    for cell in (title, *columns, *(cell for row in rows for cell in row)):
        assert {word.rstrip(":,") for word in cell.split()} <= words, (cell, text)
        for whole in NUMBER_AND_UNIT.findall(cell):
            assert whole in flat, (whole, text)


def with_longest_names(rows):
    """The same rows with the library's longest name where a board or student is named."""
    return [tuple(NAME.sub(f"{LONGEST_NAME}-12", cell) for cell in row) for row in rows]
