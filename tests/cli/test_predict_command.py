"""`predict`: tables of boards and of cells, what it learns from, and what it says."""

import csv

import pytest

BOARD = "Raspberry Pi 4 Model B Broadcom BCM2711B0, Cortex-A72 (ARMv8) (1.8GHz x 4)"


def read(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def few_rows(monkeypatch):
    """One thread alone: a fit of a second."""
    from profiles import measured_latency

    chosen = tuple(row for row in measured_latency.measured_rows() if row.setting.threads == 1)
    monkeypatch.setattr(measured_latency, "measured_rows", lambda: chosen)


@pytest.mark.usefixtures("few_rows")
def test_rows_of_a_board_get_a_latency_and_its_interval(nonn_plan, tmp_path):
    asked, out = tmp_path / "asked.csv", tmp_path / "out.csv"
    asked.write_text(f'note,board,threads,powersave,network\nhere,"{BOARD}",1,0,resnet18\n')
    assert nonn_plan("predict", asked, "-o", out).code == 0
    (row,) = read(out)
    assert (row["note"], row["network"]) == ("here", "resnet18")
    low, middle, high = (float(row[name]) for name in ("low_ms", "predicted_ms", "high_ms"))
    assert low < middle < high
    assert middle == pytest.approx(190.8, rel=0.1)
    assert row["rests_on"] == "network measured elsewhere, 32 rows of the board"


@pytest.mark.usefixtures("few_rows")
def test_known_rows_and_layers_of_a_user_are_learnt_from(nonn_plan, tmp_path):
    asked, known, layers = (tmp_path / f"{name}.csv" for name in ("asked", "known", "layers"))
    asked.write_text("board,threads,network\nmine (Cortex-A53),1,tiny\n")
    known.write_text(
        "board,threads,network,min_ms\n"
        + "".join(
            f"mine (Cortex-A53),1,{name},{ms}\n"
            for name, ms in (("squeezenet", 250), ("mobilenet", 430), ("mnasnet", 300))
        )
    )
    layers.write_text(
        "network,kind,inputs,in_w,in_h,in_c,out_w,out_h,out_c,kernel_w,kernel_h,stride_w,groups,"
        "weights\ntiny,Convolution,1,56,56,64,56,56,64,1,1,1,1,4096\n"
    )
    out = tmp_path / "out.csv"
    said = nonn_plan("predict", asked, "--known", known, "--layers", layers, "-o", out, "--json")
    assert said.document == {"predictions": 1, "written": str(out)}
    (row,) = read(out)
    assert row["rests_on"] == "its layers, 3 rows of the board"
    # 12.8 million MACs, of which mobilenet has 569 million in 430 ms.
    assert float(row["predicted_ms"]) == pytest.approx(430 * 12.8 / 569, rel=0.35)


@pytest.mark.usefixtures("few_rows")
def test_a_latency_in_the_file_is_not_read_and_a_board_without_rows_is_a_guess(nonn_plan, tmp_path):
    asked, out = tmp_path / "asked.csv", tmp_path / "out.csv"
    asked.write_text("board,threads,network,min_ms\nmine (Cortex-A53),1,vgg16,1\n")
    said = nonn_plan("predict", asked, "-o", out, "--json")
    not_read, guess = said.document["warnings"]
    assert not_read == f"min_ms of {asked} is not read; known rows are given with --known"
    assert guess.startswith("1 of 1 settings have no known row: guesses by")
    assert float(read(out)[0]["predicted_ms"]) > 100


def test_cells_get_a_latency_and_degenerate_ones_are_said(nonn_plan, tmp_path):
    asked, out = tmp_path / "asked.csv", tmp_path / "out.csv"
    asked.write_text("operations\n333333\n000100\n000000\n")
    said = nonn_plan("predict", asked, "-o", out)
    assert "1 networks are degenerate: their output does not depend on the input" in said.out
    most, least, degenerate = read(out)
    assert [row["operations"] for row in (most, least, degenerate)] == [
        *("333333", "000100", "000000")
    ]
    assert float(most["predicted_ms"]) == pytest.approx(100, rel=0.1)
    assert float(least["predicted_ms"]) == pytest.approx(2.8, rel=0.1)
    assert (degenerate["low_ms"], degenerate["rests_on"]) == ("", "degenerate networks")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("board,network\nx,vgg16\n", "columns are missing"),
        ("board,threads,network\nx,1,nobody-knows\n", "layers of a network are not known"),
        ("operations\n12\n", "not the operations of a cell"),
    ],
)
def test_wrong_tables_are_refused_and_nothing_is_written(nonn_plan, tmp_path, text, words):
    asked, out = tmp_path / "asked.csv", tmp_path / "out.csv"
    asked.write_text(text)
    said = nonn_plan("predict", asked, "-o", out)
    assert said.code == 2
    assert words in said.err
    assert not out.exists()


def test_an_output_is_a_csv(nonn_plan, tmp_path):
    asked = tmp_path / "asked.csv"
    asked.write_text("operations\n333333\n")
    assert nonn_plan("predict", asked, "-o", tmp_path / "out.txt").code == 2


def test_reproduce_has_a_picture_of_latencies_alone(nonn_plan, tmp_path):
    said = nonn_plan("reproduce", "--plot", tmp_path / "a.png")
    assert (said.code, "only with --latencies" in said.err) == (2, True)
    said = nonn_plan("reproduce", "--latencies", "-o", tmp_path / "a.md")
    assert (said.code, "not with --latencies" in said.err) == (2, True)
