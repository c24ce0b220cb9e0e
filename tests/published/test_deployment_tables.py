"""Tables 6 and 7 of arXiv:1907.11804, simulated; and the project's own file of those figures."""

from pathlib import Path

import pytest
import yaml

from profiles.device import DEVICES
from profiles.fleet import parse_fleet, resolve
from profiles.published import published_facts
from simulator.engine import simulate
from simulator.workload import Alone, FanOut, StudentWork

SHARED = Path(__file__).parents[2].parent / "shared"
TEACHER_MACS = 1_301_400_000
STUDENT_MACS = 83_500_000
WITHIN = 0.05

ROWS = {  # students: latency, compute, communication in ms, energy per node in mJ
    "rpi-3b": {2: (115, 101.91, 13.10, 238.98), 8: (150, 106.24, 43.76, 249.15)},
    "odroid-xu4s": {2: (25, 19.01, 6.00, 219.07)},
}
TEACHERS = {"rpi-3b": (1405, 3430.67), "odroid-xu4s": (224, 3084.08)}


def nonn(device, students):
    host, boards = resolve(parse_fleet(f"{device}*{students}"))
    work = tuple(StudentWork(f"on {b.name}", b.name, STUDENT_MACS, features=46) for b in boards)
    return FanOut(host, boards, work, tuple(b.name for b in boards), image_bytes=12_288)


@pytest.mark.parametrize(
    ("device", "students"), [(device, k) for device, rows in ROWS.items() for k in rows]
)
def test_a_nonn_takes_what_was_published(device, students):
    result = simulate(nonn(device, students))
    found = (
        result.total_ms,
        result.compute_ms,
        result.communication_ms,
        result.energy_per_node_mj,
    )
    assert found == pytest.approx(ROWS[device][students], rel=WITHIN)


@pytest.mark.parametrize("device", TEACHERS)
def test_a_teacher_takes_what_was_published(device):
    result = simulate(Alone(DEVICES.get(device), TEACHER_MACS))
    assert (result.total_ms, result.energy_per_node_mj) == pytest.approx(
        TEACHERS[device], rel=WITHIN
    )
    assert result.communication_ms == 0


def test_the_library_fleets_are_those_of_the_tables():
    for name, device, count in (("rpi3x2", "rpi-3b", 2), ("rpi3x8", "rpi-3b", 8)):
        assert resolve(parse_fleet(name)) == resolve(parse_fleet(f"{device}*{count}"))


def shared(name):
    path = SHARED / "published" / name
    if not path.exists():
        pytest.skip("the published figures beside the project are not here")
    return yaml.safe_load(path.read_text())


def test_the_project_copied_the_deployment_rows_right():
    table = shared("nonn-paper.yaml")["table_6_7_deployment"]
    facts = published_facts()
    for ours, theirs in (("rpi-3b", "raspberry_pi"), ("odroid-xu4s", "odroid_xu4s")):
        given = {name: row for name, row in table[theirs].items() if row != "withheld"}
        copied = {row.row: row for row in facts.deployments_on(ours)}
        assert set(copied) == set(given)
        for name, row in given.items():
            assert copied[name].total_ms == row["latency_ms"]
            assert copied[name].energy_per_node_mj == row["energy_per_node_mj"]
            assert copied[name].compute_ms == row.get("compute_ms")
            assert copied[name].communication_ms == row.get("communication_ms")
            flops = row["flops"] if name == "teacher" else row["flops_per_student"]
            assert 2 * copied[name].macs == pytest.approx(flops, rel=0.002)
            assert copied[name].students == (0 if name == "teacher" else int(name[5]))


def test_the_project_copied_the_other_facts_right():
    paper, boards = shared("nonn-paper.yaml"), shared("board-measurements.yaml")
    facts = published_facts()
    assert facts.host.fc_ms == paper["setup"]["server"]["fc_ms"]
    assert facts.host.model_ms == paper["section_3_split_teacher_x86"]["one_machine_ms"]
    assert facts.traffic.features == paper["table_2_cifar10"]["partition"]["student_1"]
    chip = boards["cortex_m"]["l4r5zi"]
    assert facts.microcontroller.inferences_per_s == chip["inferences_per_s"]["st"]
    assert 1000 * facts.microcontroller.energy_per_inference_mj == pytest.approx(
        chip["energy_per_inference_uj"]["st"]
    )
    for ours, theirs in (("rpi-3b", "raspberry_pi"), ("odroid-xu4s", "odroid_xu4s")):
        assert facts.device(ours).ram_bytes == paper["setup"][theirs]["ram_bytes"]
    assert facts.device("rpi-3b").clock_hz == 1e6 * paper["setup"]["raspberry_pi"]["used_mhz"]
    assert facts.device("odroid-xu4s").clock_hz == 1e6 * paper["setup"]["odroid_xu4s"]["big_mhz"]
    target = paper["setup"]["microcontroller_target"]["memory_bytes"]
    assert facts.device("mcu-500kb").memory_budget_bytes == target
