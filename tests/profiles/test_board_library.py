"""Measured boards as devices: their names, what is told of them, and their times."""

import json
from statistics import median

import numpy as np
import pytest

import profiles
from nonn_common.errors import InputError
from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import student_table
from planner.problem.budgets import BudgetLimits, board_budgets
from profiles import Quantity
from profiles.board_library import clock_hz, network_macs
from profiles.calibration import DEVICES_FOLDER, board_library
from profiles.device import DEVICES, DeviceProfile, compute_ms, model_ms
from profiles.fleet import Fleet, FleetBoard, parse_fleet
from profiles.latency_predictor import LatencyPredictor
from profiles.layer_rates import WORKS, network_work
from profiles.measured_latency import INT8, BoardSetting, measured_networks, measured_rows

RPI_4B = "Raspberry Pi 4 Model B Broadcom BCM2711B0, Cortex-A72 (ARMv8) (1.8GHz x 4)"
RK3588 = "Rockchip RK3588 (Cortex-A76 2.4GHz x 4 + Cortex-A55 1.8GHz x 4)"
NCNN = [name for name in DEVICES.names() if DEVICES.get(name).layer_rates is not None]


@pytest.fixture(scope="module")
def library():
    return board_library()


@pytest.fixture(scope="module")
def predictor():
    return LatencyPredictor.fit(measured_rows(), measured_networks())


def test_every_measured_board_is_a_device(library):
    boards = {row.setting.board for row in measured_rows()}
    assert set(library.boards) == boards and len(boards) == 59
    assert all(DEVICES.has(name) for name in library.boards.values())
    assert len(set(library.boards.values())) == len(boards)


def test_the_shipped_table_is_the_output_of_the_fit(library, tmp_path):
    # Named alike, and alike in all but the last digits, which depend on the processor.
    written = library.write(tmp_path).read_text().splitlines()
    shipped = (DEVICES_FOLDER.parent / "measured-devices.jsonl").read_text().splitlines()
    for line, ours in zip(written, shipped, strict=True):
        new, old = json.loads(line), json.loads(ours)
        rates = new.pop("layer_rates"), old.pop("layer_rates")
        assert new == old
        assert rates[0].pop("ms_per_unit") == pytest.approx(rates[1].pop("ms_per_unit"), rel=0.02)
        assert rates[0] == rates[1]


def test_every_device_of_the_table_runs_students_layer_by_layer():
    table = student_table(parse_network("wrn16-2"), ImageShape(3, 32, 32), 32)
    for name in DEVICES.further_names():
        device = DEVICES.get(name)
        found = model_ms(device, table)
        assert (device.name, found.how) == (name, "per-layer")
        assert found.low_ms < found.ms < found.high_ms
        assert device.compute_ms_per_mmac.value > 0


@pytest.mark.parametrize(
    ("name", "setting", "network"),
    [
        ("rpi-4b", BoardSetting(RPI_4B, 4, 0), "resnet18"),
        ("rpi-4b-1t", BoardSetting(RPI_4B, 1, 0), "mobilenet_v2"),
        ("rk3588-little-4t", BoardSetting(RK3588, 4, 1), "squeezenet"),
        ("rk3588-int8", BoardSetting(RK3588, 4, 2), "resnet18_int8"),
    ],
)
def test_a_device_s_time_is_the_predictor_s_without_what_it_knows_of_the_network(
    predictor, name, setting, network
):
    # Under another name the predictor knows the layers alone.
    stranger = f"stranger{INT8 if network.endswith(INT8) else ''}"
    layers = measured_networks()[network]
    ms, low, high = (
        float(each[0, 0]) for each in predictor.predict_table([setting], {stranger: layers})
    )
    rates = DEVICES.get(name).layer_rates
    known = np.array([rates.ms_per_unit.get(kind, np.nan) for kind in WORKS])
    work = network_work([layers])[0]
    ours = float(work[work > 0] @ known[work > 0])
    assert ours == pytest.approx(ms, rel=0.02)
    assert (rates.low, rates.high) == pytest.approx((low / ms, high / ms), rel=1e-3)
    assert (rates.threads, rates.rows) == (
        setting.threads,
        predictor.rows[predictor.settings[setting]],
    )


@pytest.mark.parametrize("network", ["wrn16-1", "wrn16-2", "wrn40-2"])
def test_a_student_is_quicker_on_a_pi_4_than_on_a_pi_3_at_a_quarter_of_its_clock(network):
    # By FLOPs alone the Pi 4, fitted to large images, took several times as long.
    table = student_table(parse_network(network), ImageShape(3, 32, 32), 32)
    quick, slow = DEVICES.get("rpi-4b"), DEVICES.get("rpi-3b")
    assert model_ms(quick, table).ms < model_ms(slow, table).ms


@pytest.mark.parametrize("name", NCNN)
def test_rates_are_nearer_than_the_published_fit_on_the_board_s_rows(library, name):
    device, networks = DEVICES.get(name), measured_networks()
    setting = library.setting_of(name)
    rates = np.array([device.layer_rates.ms_per_unit.get(kind, 0.0) for kind in WORKS])
    errors = {"rates": [], "affine": []}
    for row in library.rows:
        if row.setting == setting and not row.network.endswith(INT8):
            layers = networks[row.network]
            errors["rates"].append(abs(network_work([layers])[0] @ rates / row.ms - 1))
            macs = round(1e6 * network_macs(layers))
            errors["affine"].append(abs(compute_ms(device, macs) / row.ms - 1))
    assert median(errors["rates"]) < median(errors["affine"])


def test_devices_of_the_paper_keep_their_published_fit():
    assert NCNN == ["jetson-nano", "rpi-3b-plus", "rpi-4b", "rpi-5", "rpi-zero-2w"]
    assert DEVICES.get("rpi-3b").layer_rates is None
    assert "ncnn benchmark" in DEVICES.get("rpi-4b").layer_rates.source


def test_what_nobody_published_is_untold():
    device = DEVICES.get("rk3588")
    assert (device.ram_bytes, device.usable_bytes, device.power_busy_w) == (None, None, None)
    assert {device.message_ms.provenance, device.sharing_slowdown.provenance} == {"assumed"}
    assert DEVICES.get("celeron-n5105").clock_hz is None
    # Memory is the board's, power that of all cores at work.
    one, four = DEVICES.get("rpi-4b-1t"), DEVICES.get("rpi-4b-int8")
    assert one.ram_bytes == four.ram_bytes == 4294967296
    assert (one.power_busy_w, four.power_busy_w.value) == (None, 7.2)


@pytest.mark.parametrize(
    ("board", "powersave", "hertz"),
    [
        (RK3588, 2, 2_400_000_000),
        (RK3588, 1, 1_800_000_000),
        ("Kirin 970 (Cortex-A73 2.4GHz x 4 + Cortex-A53 1.8GHz x 4)", 0, 2_400_000_000),
        ("CVITEK SG2000 (C906, 1 GHz x 1 + 700MHz x 1)", 1, 700_000_000),
        ("Orin (Cortex-A78AE 2.2 GHz x 12 + Ampere@1.3 GHz Tensor Cores 64)", 1, 2_200_000_000),
        ("Intel Celeron N5105", 0, None),
    ],
)
def test_the_clock_is_that_of_the_cores_which_compute(board, powersave, hertz):
    assert clock_hz(BoardSetting(board, 1, powersave)) == hertz


def test_a_board_of_untold_memory_needs_a_budget():
    power = Quantity(value=5.0, provenance="measured", source="a meter")
    own = DEVICES.get("rk3588").model_copy(update={"power_fixed_w": power, "power_busy_w": power})
    fleet = Fleet(
        name="two",
        title="Two",
        boards=tuple(FleetBoard(name=name, device="own") for name in "ab"),
        devices=(own.model_copy(update={"name": "own"}),),
    )
    with pytest.raises(InputError) as caught:
        board_budgets(fleet)
    told = str(caught.value)
    assert "the memory of this board is not known" in told
    assert "no ram_bytes in device own" in told and "--memory 500KB" in told
    given = board_budgets(fleet, BudgetLimits(memory_bytes=500_000))
    assert [each.memory_bytes for each in given] == [500_000, 500_000]


def test_a_device_with_a_file_of_its_own_opens_no_table(monkeypatch):
    def refuse(table):
        raise AssertionError(table)

    monkeypatch.setattr(profiles, "_shipped_lines", refuse)
    assert parse_fleet("rpi-4b*2").boards[0].device == "rpi-4b"
    with pytest.raises(AssertionError, match="measured-devices"):
        parse_fleet("rk3588*2")


def test_an_old_file_with_a_clock_and_memory_reads_as_before(tmp_path):
    text = (DEVICES_FOLDER / "rpi-3b.yaml").read_text()
    old = [line for line in text.splitlines() if not line.startswith(("core:", "layer_rates:"))]
    (tmp_path / "old.yaml").write_text("\n".join(old))
    assert DeviceProfile.read(tmp_path / "old.yaml") == DEVICES.get("rpi-3b")
