"""Terminals: no name and no number is broken inside, and no line is wider than the terminal."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonn_plan.cli.output import Output
from nonn_plan.cli.table_layout import lay_out, wrapped
from nonn_plan.cli.views.board_report import show_devices, show_figures
from profiles.device import DEVICES
from tests.terminal import LONGEST_NAME, WIDTHS, check_lines, check_table, shown_in_terminal

WORDS = st.text("abcdefghij-", min_size=1, max_size=24)
NUMBERS = st.from_regex(r"[1-9][0-9]{0,5}\.[0-9] (KB|MFLOP|ms|%)", fullmatch=True)
SENTENCES = st.lists(WORDS | NUMBERS, max_size=8).map(" ".join)


@given(st.data(), st.sampled_from(WIDTHS))
def test_a_table_of_any_words_keeps_them_whole(data, width):
    columns = data.draw(st.lists(WORDS, min_size=1, max_size=14, unique=True))
    cells = [data.draw(st.sampled_from([WORDS, NUMBERS, SENTENCES])) for _ in columns]
    rows = data.draw(st.lists(st.tuples(*cells), min_size=1, max_size=4))
    check_table(width, "A table", columns, rows)


@given(SENTENCES, st.integers(40, 120))
def test_a_sentence_is_broken_between_words_alone(text, width):
    lines = wrapped(text, width)
    assert " ".join(" ".join(lines).split()) == " ".join(text.split())
    assert all(len(line) <= width for line in lines)


def test_a_number_stays_with_its_unit_and_a_command_with_its_words():
    text = "the board has 500.0 KB and 99.70 ± 0.13 % of it; ask `nonn-plan devices show rpi-3b`"
    for width in range(31, 90):
        flat = "\n".join(wrapped(text, width))
        assert all(
            each in flat
            for each in ("500.0 KB", "99.70 ± 0.13 %", "`nonn-plan devices show rpi-3b`")
        )


def test_what_does_not_fit_is_a_second_table_with_the_same_names():
    names = [f"{LONGEST_NAME}-{number}" for number in range(3)]
    columns = ("board", *(f"figure {number}" for number in range(9)))
    rows = [(name, *(f"{place}00.5 KB" for place in range(9))) for name in names]
    parts, lines = lay_out(columns, rows, 80)
    assert len(parts) > 1
    assert lines == ()
    assert all(tuple(row[0] for row in part.rows) == tuple(names) for part in parts)
    assert [head for part in parts for head in part.heads[1:]] == list(columns[1:])


def test_rows_of_one_board_are_told_apart_in_the_second_table():
    columns = ("board", "budget", *(f"figure {number}" for number in range(9)))
    rows = [("rpi-3b-1", noun, *["100.0 KB"] * 9) for noun in ("memory", "FLOP")]
    parts, _ = lay_out(columns, rows, 80)
    assert [part.heads[:2] for part in parts] == [("board", "budget")] * len(parts)
    assert len(parts) > 1


def test_a_cell_wider_than_the_terminal_is_said_below_and_nothing_is_lost():
    print_ = ":".join(["AB"] * 32)
    text = shown_in_terminal(80, Output.table, "Keys", ("name", "SHA-256"), [("host", print_)])
    assert print_ in text
    assert "host\n  SHA-256:\n" in text


@pytest.mark.parametrize("width", WIDTHS)
def test_all_devices_are_shown_with_all_their_words(width):
    devices = [DEVICES.get(name) for name in (*DEVICES.names(), *DEVICES.further_names())]
    text = shown_in_terminal(width, show_devices, devices)
    check_lines(text, width)
    assert "..." not in text
    words = set(text.split())
    for device in devices:
        assert {device.name, *device.title.split()} <= words


@pytest.mark.parametrize("width", WIDTHS)
def test_figures_of_a_device_keep_their_sources(width):
    device = DEVICES.get("rpi-3b")
    text = shown_in_terminal(width, show_figures, device)
    check_lines(text, width)
    assert "arXiv:1907.11804" in text
    assert re.search(r"\bcompute_ms_per_mmac\b", text)
