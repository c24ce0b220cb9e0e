"""Tables of measurements as people give them."""

import pytest

from nonn_common.errors import InputError, ProfileError
from profiles.calibration_data import Measurement, read_measurements, sources

CSV = """\
row,device,macs,boards,image_bytes,reply_bytes,compute_ms,communication_ms,total_ms
alone,my-pi,1000000,,,,,,12.5
two,my-pi,1000000,2,3072,40,12.4,3.5,
"""


def test_csv_and_yaml_say_the_same(tmp_path):
    (tmp_path / "m.csv").write_text(CSV)
    (tmp_path / "m.yaml").write_text(
        "measurements:\n"
        "- {row: alone, device: my-pi, macs: 1000000, total_ms: 12.5}\n"
        "- {row: two, device: my-pi, macs: 1000000, boards: 2, image_bytes: 3072,\n"
        "   reply_bytes: 40, compute_ms: 12.4, communication_ms: 3.5}\n"
    )
    rows = read_measurements(tmp_path / "m.csv")
    assert rows == read_measurements(tmp_path / "m.yaml")
    assert (rows[1].boards, rows[1].communication_ms, rows[1].total_ms) == (2, 3.5, None)
    assert sources(rows) == "measured: my-pi alone, my-pi two"


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("12.5", "fast", "row 1 (Measurement): field total_ms"),
        ("12.5", "-1", "field total_ms"),
        ("1000000,2", "0,2", "row 2 (Measurement): field macs"),
        ("total_ms", "total_s", "field total_s: is not a field"),
        ("3072,40", ",40", "needs image_bytes and reply_bytes"),
        ("alone,my-pi", "alone,", "field device: is required and missing"),
    ],
)
def test_a_wrong_cell_is_one_sentence(tmp_path, old, new, part):
    path = tmp_path / "m.csv"
    path.write_text(CSV.replace(old, new))
    with pytest.raises(ProfileError) as caught:
        read_measurements(path)
    assert part in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        (",3.5,", ",3.5,,9", "line 3: more cells than columns; found 'two,my-pi,1000000,2,"),
        ("total_ms", "macs", "a column is there twice; found 'macs'"),
    ],
)
def test_a_cell_that_would_be_lost_is_refused(tmp_path, old, new, part):
    path = tmp_path / "m.csv"
    path.write_text(CSV.replace(old, new))
    with pytest.raises(InputError) as caught:
        read_measurements(path)
    assert part in str(caught.value)
    assert str(caught.value).startswith(f"{path} (delimiter: comma)")


def test_a_table_in_a_sheets_own_form_says_the_same(tmp_path):
    (tmp_path / "m.csv").write_text(CSV)
    sheet = CSV.replace(",", ";").replace("\ntwo", "\n;;;;;;;;\ntwo") + ";;;;;;;;\n"
    (tmp_path / "SHEET.CSV").write_bytes(b"\xef\xbb\xbf" + sheet.encode())
    assert read_measurements(tmp_path / "SHEET.CSV") == read_measurements(tmp_path / "m.csv")


def test_a_table_without_rows_or_file_is_refused(tmp_path):
    (tmp_path / "m.csv").write_text("row,device,macs\n")
    with pytest.raises(ProfileError, match="no measurements"):
        read_measurements(tmp_path / "m.csv")
    with pytest.raises(InputError, match="no such file"):
        read_measurements(tmp_path / "nowhere.csv")
    (tmp_path / "m.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        read_measurements(tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"communication_ms": 1.0}, "for rows with boards"),
        ({"exchanges": 3}, "at least 2 boards"),
        ({"withheld": ("total_ms",)}, "needs a note"),
        ({"withheld": ("total_ms",), "note": "why", "total_ms": 1.0}, "has no value here"),
    ],
)
def test_a_row_is_of_one_kind(fields, part):
    with pytest.raises(ProfileError, match=part):
        Measurement.check({"row": "r", "device": "d", "macs": 1, **fields}, where="here")


def test_what_is_left_out_is_kept_but_not_fitted():
    row = Measurement(
        row="r", device="d", macs=1, total_ms=2.0, left_out=("total_ms",), note="noisy"
    )
    assert (row.value("total_ms"), row.fitted_to("total_ms")) == (2.0, None)
