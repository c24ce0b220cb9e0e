"""One reader of CSV for all commands: what sheets add means nothing, what would be lost is said."""

import pytest
from pydantic import Field

from nonn_common.csv_table import CsvTable, is_csv
from nonn_common.document import Record
from nonn_common.errors import InputError, ProfileError

TEXT = "row,ms,note\na,12.5,\nb,8,quiet\n"


@pytest.fixture
def table(tmp_path):
    """Write bytes or text to a file and read it."""

    def read(content):
        path = tmp_path / "t.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return CsvTable.read(path)

    return read


def cells(found):
    return [(row.line, dict(row.cells)) for row in found.rows()]


def test_cells_stand_under_their_columns_and_blank_ones_are_left_out(table):
    found = table(TEXT)
    assert (found.columns, found.delimiter) == (("row", "ms", "note"), "comma")
    assert cells(found) == [
        (2, {"row": "a", "ms": "12.5"}),
        (3, {"row": "b", "ms": "8", "note": "quiet"}),
    ]


@pytest.mark.parametrize(("sign", "name"), [(",", "comma"), (";", "semicolon"), ("\t", "tab")])
def test_the_sign_between_cells_is_found_and_named(table, sign, name):
    found = table(TEXT.replace(",", sign))
    assert found.delimiter == name
    assert cells(found) == cells(table(TEXT))
    assert found.place.endswith(f"t.csv (delimiter: {name})")


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + TEXT.encode(),
        TEXT.replace("\n", "\r\n"),
        TEXT.replace("\n", "\r"),
        TEXT.replace(",", " , "),
        TEXT.replace("note", '"note"').replace("quiet", '"quiet"'),
        TEXT.replace("\n", ",,\n"),
        TEXT.replace(",\n", "\n"),
    ],
)
def test_what_sheets_and_editors_add_means_nothing(table, content):
    assert cells(table(content)) == cells(table(TEXT))


def test_blank_rows_are_passed_over_and_lines_are_those_of_the_file(table):
    found = table("\n,,\n" + TEXT.replace("b,", ' , ,\n"","",\n\nb,') + ",,\n")
    assert [line for line, _ in cells(found)] == [4, 8]
    assert [row for _, row in cells(found)] == [row for _, row in cells(table(TEXT))]


def test_a_quoted_cell_may_hold_signs_and_lines(table):
    found = table('a;b\n"1;2,3";"x\ny"\nz;\n')
    assert cells(found) == [(3, {"a": "1;2,3", "b": "x\ny"}), (4, {"a": "z"})]


def test_an_empty_file_has_no_columns(table):
    assert table("").columns == table("\n ,\n").columns == ()
    assert cells(table("")) == []


@pytest.mark.parametrize(
    ("content", "told"),
    [
        # The decimal comma of half of Europe: the column holds 12, and 5 would be lost.
        (
            "start_ms\n12,5\n",
            "t.csv (delimiter: comma) line 2: more cells than columns; found '12,5'; allowed: at "
            "most 1, as the header names; quote a cell that holds the delimiter; write numbers "
            "with a point, 12.5",
        ),
        ("a,b\n1,2,3\n", "line 2: more cells than columns; found '1,2,3'; allowed: at most 2"),
        ("a,,b\n1,2,3\n", "line 2: more cells than columns; found '1,2,3'; allowed: at most 2"),
        ("a;ms;ms\n1;2;3\n", "(delimiter: semicolon): a column is there twice; found 'ms'"),
        ('a,b\n"1,2\n3,4\n', "t.csv (delimiter: comma) line 3: is not CSV: unexpected end of data"),
    ],
)
def test_what_would_be_lost_is_refused_with_its_line(table, content, told):
    with pytest.raises(InputError) as caught:
        cells(table(content))
    assert told in str(caught.value)


@pytest.mark.parametrize("content", [b"a\xe4,b\n", "row,ms\n".encode("utf-16")])
def test_another_encoding_is_refused_and_the_right_one_named(table, content):
    with pytest.raises(InputError, match=r"cannot be read.*save it as CSV in UTF-8"):
        table(content)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv: no such file"):
        CsvTable.read(tmp_path / "none.csv")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        CsvTable.read(tmp_path)


class Timed(Record):
    error_class = ProfileError

    row: str = Field(description="Name.")
    ms: float = Field(gt=0, description="Time in ms.")


def test_rows_become_records(table):
    found = table("row;ms\na;12.5\n;;\nb;8\n").records(Timed)
    assert found == (Timed(row="a", ms=12.5), Timed(row="b", ms=8.0))


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        (
            "12,5",
            "t.csv (delimiter: semicolon) line 4, row 2 (Timed): field ms: input should be a valid "
            "number, unable to parse string as a number; found '12,5'; write numbers with a point",
        ),
        ("-1", "(delimiter: semicolon) line 4, row 2 (Timed): field ms: input should be greater"),
    ],
)
def test_a_wrong_cell_is_named_with_its_line(table, cell, told):
    with pytest.raises(ProfileError) as caught:
        table(f"row;ms\na;12.5\n\nb;{cell}\n").records(Timed)
    assert told in str(caught.value)


@pytest.mark.parametrize("name", ["t.csv", "T.CSV", "a/b.Csv", "t.tsv"])
def test_a_table_is_known_by_its_suffix_in_any_letters(name):
    assert is_csv(name)
    assert not is_csv(f"{name}.yaml")
