"""`sweep`: Figure 7 as one command."""

import csv

import pytest

from nonn_core.networks.blueprint import ImageShape
from nonn_plan.reproduction import move_of
from planner.plan_file.decision_workload import student_time
from profiles.calibration_data import published_facts
from profiles.device import DEVICES

FIGURE_7 = ("sweep", "--from", "rpi-3b", "--to", "odroid-xu4s", "--student", "wrn16:32,64,88")


def test_the_least_latency_of_figure_7_is_at_four(nonn_plan, tmp_path):
    table, picture = tmp_path / "sweep.csv", tmp_path / "sweep.png"
    said = nonn_plan(*FIGURE_7, "--students", 8, "-o", table, "--plot", picture, "--json")
    assert said.code == 0, said.err
    assert said.document["least_total_ms_at"] == 4
    totals = [row["total_ms"] for row in said.document["rows"]]
    assert min(totals) == totals[4]
    assert len(totals) == 9
    with table.open(newline="") as stream:
        assert [float(row["total_ms"]) for row in csv.DictReader(stream)] == totals
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_an_image_for_each_student_costs_the_fast_board_more_sends(nonn_plan):
    once, each = (
        nonn_plan(*FIGURE_7, "--sends", sends, "--json").document
        for sends in ("per-board", "per-student")
    )
    assert (once["sends"], each["sends"]) == ("per-board", "per-student")
    assert [row["total_ms"] for row in once["rows"][:2]] == [
        row["total_ms"] for row in each["rows"][:2]
    ]
    later = zip(once["rows"][2:], each["rows"][2:], strict=True)
    assert all(row["fast_done_ms"] != other["fast_done_ms"] for row, other in later)
    said = nonn_plan(*FIGURE_7, "--sends", "per-wrapper")
    assert said.code == 2
    assert "per-board or per-student" in said.err


@pytest.mark.parametrize(
    ("option", "name", "allowed"),
    [("-o", "f7.xyz", ".csv or .parquet"), ("--plot", "f7.txt", ".png"), ("--plot", "f7", ".png")],
)
def test_a_file_is_called_what_it_is(nonn_plan, tmp_path, option, name, allowed):
    said = nonn_plan(*FIGURE_7, option, tmp_path / name)
    assert said.code == 2
    assert name in said.err
    assert allowed in said.err
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("option", "name"), [("-o", "mine.csv"), ("--plot", "mine.png")])
def test_files_of_somebody_else_are_not_replaced(nonn_plan, tmp_path, option, name):
    file = tmp_path / name
    file.write_text("mine")
    said = nonn_plan(
        "sweep", "--from", "rpi-3b", "--to", "odroid-xu4s", "--student", "wrn10-1", option, file
    )
    assert said.code == 2
    assert f"{name}: holds something else" in said.err
    assert file.read_text() == "mine"


def test_people_see_where_it_is(nonn_plan):
    said = nonn_plan(*FIGURE_7)
    (line,) = [line for line in said.out.splitlines() if "least latency" in line]
    assert line.split()[0] == "4"


@pytest.mark.parametrize(
    ("option", "value"),
    [("--from", "rpi-9"), ("--to", "x86-host"), ("--link", "string"), ("--host", "rpi-3b"),
     ("--student", "lenet"), ("--image", "32")],
)  # fmt: skip
def test_a_wrong_value_is_named(nonn_plan, replaced, option, value):
    said = nonn_plan(*replaced(FIGURE_7, option, value))
    assert said.code == 2
    assert value in said.err
    assert said.err.count("\n") == 1


def test_sweep_and_reproduce_say_the_same_of_figure_7(nonn_plan):
    """The published student has 167 MFLOPs, 83.5 M MACs (Table 2)."""
    typed = (*FIGURE_7[:-1], "167M", "--sends", "per-student")
    swept = nonn_plan(*typed, "--json").document
    facts = published_facts()
    reproduced = [point.to_dict() for point in move_of(facts.sweep, facts).points()]
    assert swept["rows"] == reproduced
    assert swept["rows"][0]["energy_per_fleet_mj"] == pytest.approx(1871.3, abs=0.5)
    assert swept["student_flops"] == 167_000_000


def test_a_sweep_names_the_size_of_its_student(nonn_plan):
    """wrn16:32,64,88 has 171 MFLOPs, as decision 0015 says, and not the published 167."""
    assert "8 students of 170.6 MFLOP, each on a rpi-3b" in nonn_plan(*FIGURE_7).out


@pytest.mark.parametrize("flops", ["167MB", "-5M", "0"])
def test_what_is_no_size_of_a_student_is_named(nonn_plan, flops):
    said = nonn_plan(*FIGURE_7[:-1], flops)
    assert said.code == 2
    assert f"--student {flops}" in said.err


def test_the_link_of_a_sweep_is_the_devices_own(nonn_plan):
    asked = ("sweep", "--student", "wrn16:32,64,88", "--students", 2, "--json", "--from")
    own = nonn_plan(*asked, "rpi-3b", "--to", "odroid-xu4s")
    assert own.code == 0, own.err
    wired = ("--link", "wired-100mbit")
    assert nonn_plan(*asked, "rpi-3b", "--to", "odroid-xu4s", *wired).out == own.out
    refused = nonn_plan(*asked, "rpi-zero-2w", "--to", "odroid-xu4s")
    assert refused.code == 2
    assert "found 'rpi-zero-2w on wifi, odroid-xu4s on wired-100mbit'" in refused.err
    assert nonn_plan(*asked, "rpi-zero-2w", "--to", "odroid-xu4s", "--link", "wifi").code == 0


def test_a_sweep_says_what_predicts_its_times_and_knows_layers(nonn_plan):
    """A Raspberry Pi 4 knows the layers of wrn10:4,8,8; of 167 MFLOPs there are none."""
    call = ("sweep", "--from", "rpi-4b", "--to", "odroid-xu4s", "--students", 2, "--filters", 9)
    layers = nonn_plan(*call, "--student", "wrn10:4,8,8", "--json").document
    assert layers["timing"] == {"rpi-4b": "per-layer", "odroid-xu4s": "flop-affine"}
    planned = student_time(DEVICES.get("rpi-4b"), "wrn10:4,8,8", ImageShape(3, 32, 32), 9)
    assert layers["rows"][0]["compute_ms"] == pytest.approx(planned.ms, rel=1e-12)
    numbers = nonn_plan(*call, "--student", "167M")
    assert "compute time of rpi-4b: affine in the FLOPs\n" in numbers.out
