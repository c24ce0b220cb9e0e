"""`reproduce --latencies`: its measures in closed form, and a small run of all of it."""

import numpy as np
import pytest

from nonn_plan import latency_reproduction
from nonn_plan.cli.commands.latencies import show_latency_errors
from nonn_plan.cli.output import Output
from nonn_plan.latency_reproduction import errors_of, network_macs, repeated_cells
from profiles.cell_latency import computed_operations
from profiles.measured_latency import measured_cells, measured_networks, measured_rows

BOARDS = 6
NETWORKS = ("mobilenet", "mobilenet_int8", "mobilenet_v2", "resnet18", "squeezenet", "googlenet")


@pytest.fixture
def small(monkeypatch):
    """Few boards, few networks, few cells."""
    rows = [row for row in measured_rows() if row.setting.threads == 1 and row.network in NETWORKS]
    boards = sorted({row.setting.board for row in rows})[:BOARDS]
    rows = [row for row in rows if row.setting.board in boards]
    cells = dict(list(measured_cells().items())[::4])
    monkeypatch.setattr(latency_reproduction, "measured_rows", lambda: rows)
    monkeypatch.setattr(latency_reproduction, "measured_cells", lambda: cells)
    monkeypatch.setattr(latency_reproduction, "FOLDS", 2)
    monkeypatch.setattr(latency_reproduction, "CELL_DRAWS", 1)


def test_errors_are_relative_to_what_was_measured():
    measured = np.arange(1.0, 12.0)
    found = errors_of("q", "fp32", "predictor", measured * 1.1, measured, 90.0)
    assert (found.median_pct, found.p90_pct) == pytest.approx((10, 10))
    assert (found.rows, found.spearman, found.covered_pct) == (11, pytest.approx(1), 90)


def test_macs_of_vgg16_are_those_of_its_paper():
    # Simonyan and Zisserman 2015, configuration D: 13 convolutions, 3 fully connected layers.
    assert network_macs(measured_networks()["vgg16"]) == pytest.approx(15470.264320)


def test_noise_is_that_of_one_network_under_two_names():
    cells = {"200100": 10.0, "020100": 11.0, "000000": 0.1, "300100": 9.0}
    cells |= {f"00{n}1{n}{n}": 3 + 5.0 * n for n in (2, 3, 4)}
    noise = repeated_cells(cells)
    assert (noise.pairs, noise.degenerate) == (1, 1)
    assert noise.median_pct == pytest.approx(10)


def test_the_published_noise_of_the_shipped_cells():
    noise = repeated_cells(measured_cells())
    assert noise.median_pct == pytest.approx(4.6, abs=0.2)
    assert noise.p90_pct == pytest.approx(33, abs=2)
    # Networks of cheap operations alone have the slower mode.
    assert noise.slow_pct > 5 * noise.slow_others_pct
    assert sum(computed_operations(cell)[1] == 0 for cell in measured_cells()) > 1000


@pytest.mark.usefixtures("small")
def test_all_questions_are_answered_beside_simpler_models_and_drawn(tmp_path, capsys):
    picture = tmp_path / "errors.png"
    show_latency_errors(Output(as_json=False), picture)
    said = " ".join(capsys.readouterr().out.split())
    for words in (
        "network unseen on every board",
        "network measured on other boards",
        "new board with 3 known networks",
        "NAS-Bench-201, trained on 50",
        "NAS-Bench-201, trained on 2000",
        "least squares",
        "FLOP-affine",
        "The second mode",
        "degenerate",
    ):
        assert words in said
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("small")
def test_the_twin_of_a_network_left_out_is_left_out_too_and_runs_agree():
    first, second = (latency_reproduction.latency_reproduction() for _ in range(2))
    assert first == second
    unseen = [one for one in first.errors if one.question.startswith("network unseen")]
    assert {one.rows_of for one in unseen} == {"fp32", "int8", "plain fp32"}
    assert {row.network for row in first.rows} == set(NETWORKS)
