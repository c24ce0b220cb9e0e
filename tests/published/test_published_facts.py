"""The project's own file of published figures, and how close the profiles come to them."""

import pytest
from published_figures import BOARD_MEASUREMENTS, PAPER

from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import teacher_table
from profiles.calibration_data import METRICS, published_facts
from profiles.device import DEVICES
from profiles.leave_one_out import fitted_rows
from profiles.link import LINKS


def test_the_project_copied_the_deployment_rows_right():
    table = PAPER["table_6_7_deployment"]
    facts = published_facts()
    for ours, theirs in (("rpi-3b", "raspberry_pi"), ("odroid-xu4s", "odroid_xu4s")):
        copied = {row.row: row for row in facts.measured_on(ours)}
        assert set(copied) == set(table[theirs])
        for name, row in table[theirs].items():
            if row == "withheld":
                assert copied[name].withheld == METRICS
                continue
            assert copied[name].total_ms == row["latency_ms"]
            assert copied[name].energy_per_node_mj == row["energy_per_node_mj"]
            assert copied[name].compute_ms == row.get("compute_ms")
            assert copied[name].communication_ms == row.get("communication_ms")
            flops = row["flops"] if name == "teacher" else row["flops_per_student"]
            assert 2 * copied[name].macs == pytest.approx(flops, rel=0.002)
            assert copied[name].boards == (0 if name == "teacher" else int(name[5]))


def test_the_project_copied_the_split_rows_right():
    paper, facts = PAPER, published_facts()
    whole, split = facts.measured_on("x86-host")
    section = paper["section_3_split_teacher_x86"]
    assert whole.total_ms == section["one_machine_ms"]
    assert split.total_ms == section["two_machines_horizontal_split_ms"]
    assert split.communication_ms == section["communication_ms"]
    table = paper["table_8_split_atkd"]
    for row in facts.measured_on("rpi-3b-pytorch"):
        assert row.total_ms == 1000 * table[row.row]["total_s"]
        shares = row.boards if row.exchanges else 1
        assert 2 * row.macs / shares == pytest.approx(table[row.row]["flops_per_device"], rel=0.02)


@pytest.mark.parametrize("model", ["wrn40-2", "wrn40-4"])
def test_the_facts_of_split_models_are_what_their_layers_say(model):
    layers = teacher_table(parse_network(model), ImageShape(3, 32, 32), 10)
    convolutions = [layer for layer in layers if layer.kind == "conv"]
    rows = [r for r in published_facts().measurements if r.exchanges and r.model == model]
    assert rows
    for row in rows:
        assert row.macs == sum(layer.macs for layer in layers)
        assert row.exchanges == len(convolutions)
        assert row.exchanged_elements == sum(layer.out_elements for layer in convolutions)


def test_the_project_copied_the_other_facts_right():
    paper, boards = PAPER, BOARD_MEASUREMENTS
    facts = published_facts()
    assert facts.host.fc_ms.value == paper["setup"]["server"]["fc_ms"]
    features = paper["table_2_cifar10"]["partition"]["student_1"]
    assert {r.reply_bytes for r in facts.measurements if r.fans_out} == {4 * features}
    for name, chip in boards["cortex_m"].items():
        if f"stm32{name}" in DEVICES.names():
            (row,) = facts.measured_on(f"stm32{name}")
            assert 1000 / row.total_ms == pytest.approx(chip["inferences_per_s"]["st"], rel=1e-6)
            assert 1000 * row.energy_per_node_mj == chip["energy_per_inference_uj"]["st"]
    for ours, theirs in (("rpi-3b", "raspberry_pi"), ("odroid-xu4s", "odroid_xu4s")):
        assert facts.device(ours).ram_bytes == paper["setup"][theirs]["ram_bytes"]
    assert facts.device("rpi-3b").clock_hz == 1e6 * paper["setup"]["raspberry_pi"]["used_mhz"]
    full = paper["setup"]["raspberry_pi"]["nominal_mhz"]
    assert facts.device("rpi-3b-1200mhz").clock_hz == 1e6 * full
    assert facts.device("odroid-xu4s").clock_hz == 1e6 * paper["setup"]["odroid_xu4s"]["big_mhz"]
    target = paper["setup"]["microcontroller_target"]["memory_bytes"]
    assert facts.device("mcu-500kb").memory_budget_bytes == target


def test_the_project_copied_the_benchmarks_of_other_boards_right():
    names = {
        "rpi-3b-plus": "pi_3b_plus",
        "rpi-4b": "pi_4b_1800",
        "rpi-5": "pi_5",
        "rpi-zero-2w": "pi_zero_2w",
        "jetson-nano": "jetson_nano_cpu",
    }
    boards = BOARD_MEASUREMENTS
    for ours, theirs in names.items():
        for row in published_facts().measured_on(ours):
            assert row.total_ms == boards["ncnn"][theirs][row.row][0]
    power = boards["power"]
    assert DEVICES.get("rpi-3b").idle_w.value == power["pi_3b"]["idle_w"]
    assert DEVICES.get("rpi-3b-1200mhz").power_busy_w.value == power["pi_3b"]["max_w"]
    assert DEVICES.get("rpi-3b-plus").idle_w.value == power["pi_3b_plus"]["idle_w"]
    assert DEVICES.get("rpi-3b-plus").power_busy_w.value == power["pi_3b_plus"]["max_w"]
    assert DEVICES.get("rpi-zero-2w").idle_w.value == power["pi_zero_2w"]["idle_w"]
    assert DEVICES.get("odroid-xu4s").idle_w.value == power["exynos_5422"]["idle_w"]
    hpl = power["hpl_gflops_and_w"]
    for ours, theirs in (("rpi-5", "pi_5_8gb"), ("rpi-4b", "pi_4"), ("rpi-zero-2w", "pi_zero_2w")):
        assert DEVICES.get(ours).power_busy_w.value == hpl[theirs][1]
    rates = boards["network_mbit_per_s"]
    assert LINKS.get("wired-100mbit").bits_per_s.value == 1e6 * rates["pi_3b"]
    assert LINKS.get("wired-1gbit").bits_per_s.value == 1e6 * rates["pi_4b"]


@pytest.mark.parametrize(
    "row",
    [row for row in fitted_rows() if row.used_for_fit and "arXiv" in row.table],
    ids=lambda row: f"{row.device}-{row.row}-{row.quantity}",
)
def test_every_fitted_row_of_the_paper_is_close(row):
    assert abs(row.error_pct) <= (3 if "Tables 6 and 7" in row.table else 5)


def test_the_blind_test_holds_no_value_here():
    facts = published_facts()
    withheld = [row for row in facts.measurements if row.withheld]
    assert [(row.device, row.row) for row in withheld] == [("odroid-xu4s", "nonn_8s")]
    assert set(facts.sweep.withheld) == {"energy_per_fleet_mj", "communication_ms"}
