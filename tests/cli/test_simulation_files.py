"""The files that `simulate` writes: trace, picture, tables."""

import json

import pyarrow.csv as arrow_csv
import pytest

STUDENTS = ("simulate", "--student", "wrn16:32,64,88", "--fleet", "rpi3x2")


def test_trace_picture_and_tables_are_written(simulated, tmp_path):
    trace, picture, folder = tmp_path / "t.json", tmp_path / "p.png", tmp_path / "tables"
    found = simulated("--trace", trace, "--gantt", picture, "--tables", folder)
    assert json.loads(trace.read_text())["traceEvents"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert arrow_csv.read_csv(folder / "boards.csv").num_rows == 2
    assert len(found["written"]) == 10


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("--trace", "mine"),
        ("--gantt", "mine.png"),
        ("--tables", "boards.csv"),
        ("--tables", "boards.parquet"),
    ],
)
def test_files_of_somebody_else_are_not_replaced(nonn_plan, tmp_path, option, name):
    call = ["simulate", "--student", "wrn16:32,64,88", "--fleet", "rpi3x2", option]
    place = tmp_path if option == "--tables" else tmp_path / name
    (tmp_path / name).write_text("mine")
    said = nonn_plan(*call, place)
    assert said.code == 2
    assert f"{name}: holds something else" in said.err
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"
    (tmp_path / name).unlink()
    assert nonn_plan(*call, place).code == 0
    assert nonn_plan(*call, place).code == 0  # its own it replaces


@pytest.mark.parametrize("name", ["g.jpg", "g", "g.PNG.txt"])
def test_a_picture_is_called_what_it_is(nonn_plan, tmp_path, name):
    said = nonn_plan(*STUDENTS, "--gantt", tmp_path / name)
    assert said.code == 2
    assert name in said.err
    assert ".png" in said.err
    assert list(tmp_path.iterdir()) == []


def test_two_outputs_need_two_names(nonn_plan, tmp_path):
    call = ["simulate", "--student", "wrn16:32,64,88", "--fleet", "rpi3x2"]
    said = nonn_plan(*call, "--trace", tmp_path / "x", "--gantt", tmp_path / "x")
    assert (said.code, list(tmp_path.iterdir())) == (2, [])
    assert "two outputs of one name" in said.err


def test_a_plan_is_not_replaced_by_its_trace(nonn_plan, plan_file):
    before = plan_file.read_bytes()
    assert nonn_plan("simulate", plan_file, "--trace", plan_file).code == 2
    assert plan_file.read_bytes() == before


def test_same_seed_same_trace(nonn_plan, tmp_path):
    for name in ("one", "two"):
        said = nonn_plan(
            *STUDENTS, "--students", 2, "--arrivals", "poisson:9/s", "--inferences", 20,
            "--mttf", "1s", "--mttr", "100ms", "--seed", 4, "--trace", tmp_path / name,
        )  # fmt: skip
        assert said.code == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
