"""`nonn-plan profile`, on the machine that runs the tests, and what its profile is good for."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from made_measurement import made_measured

from boards.profiling.benchmark_run import BenchmarkBudget
from boards.profiling.layer_benchmark import LayerTimes, benchmark_layers
from boards.profiling.power_meter import measure_power
from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import student_table
from profiles.device import DeviceProfile, model_ms
from profiles.fleet import parse_fleet, resolve
from profiles.link import LinkProfile

REPOSITORY = Path(__file__).resolve().parents[2]

WATCHED = """
import sys
from nonn_plan.__main__ import run
try:
    run()
finally:
    heavy = {"torch", "ortools"} & set(sys.modules)
    print("loaded:", sorted(heavy), file=sys.stderr)
"""


@pytest.fixture(scope="session")
def profiled(tmp_path_factory):
    """Profile this machine once, in a process of its own."""
    folder = tmp_path_factory.mktemp("profile")
    done = subprocess.run(
        [
            *(sys.executable, "-c", WATCHED, "profile", "--quick", "--json"),
            *("--name", "here", "--teacher", "wrn16-2", "--image", "1x8x8"),
            *("--idle-w", "2.5", "--busy-w", "4"),
            *("-o", folder / "here.yaml", "--link-output", folder / "loopback.yaml"),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout), done.stderr


def test_the_profile_is_a_board_and_a_host_measured_here(profiled):
    folder, document, _ = profiled
    device = DeviceProfile.read(folder / "here.yaml")
    assert device.missing_as_board == ()
    assert document["device"] == device.model_dump(mode="json")
    for figure in (
        device.compute_fixed_ms,
        device.compute_ms_per_mmac,
        device.message_ms,
        device.sharing_slowdown,
        device.hosting.join_fixed_ms,
    ):
        assert figure.provenance == "measured"
        assert figure.residual_pct is not None
    assert device.compute_ms_per_mmac.value > 0
    assert (device.runtime, device.precision) == ("onnxruntime", "fp32")
    assert (device.idle_w.value, device.power_busy_w.value) == (2.5, 4)


def test_three_students_and_other_boards_tell_a_quick_profile_its_rates(profiled):
    folder, document, said = profiled
    students = document["students"]
    assert len(students) == 3 and not any(row["held_out"] for row in students)
    assert students[0]["macs"] < students[1]["macs"] < students[2]["macs"]
    device = DeviceProfile.read(folder / "here.yaml")
    assert device.layers is None and document["held_out_mean_pct"] is None
    assert (device.layer_rates.rows, device.layer_rates.threads) == (3, 1)
    for part in ("3 students measured with onnxruntime", "3341 public rows"):
        assert part in device.layer_rates.source and part in said
    for row in students:
        table = student_table(
            parse_network(row["network"]), ImageShape.parse(row["image"]), row["filters"]
        )
        predicted = model_ms(device, table)
        assert predicted.how == "per-layer"
        assert predicted.low_ms < predicted.ms < predicted.high_ms


def test_neither_torch_nor_a_solver_is_loaded(profiled):
    _, _, said = profiled
    assert "loaded: []" in said


def test_threads_sharing_and_messages_are_told(profiled):
    _, document, _ = profiled
    assert document["thread_times"][0] == {"threads": 1, "ratio": 1.0}
    assert [row["students"] for row in document["sharing"]] == [2, 3]
    assert [row["size_bytes"] for row in document["messages"]] == [256, 12288, 49152, 110592]


def test_a_plan_can_use_it_at_once(profiled, nonn_plan, partition_file, tmp_path):
    folder, document, _ = profiled
    fleet = folder / "home.yaml"
    link = LinkProfile.read(folder / "loopback.yaml").name
    fleet.write_text(
        yaml.safe_dump(
            {
                "name": "home",
                "title": "Two of these",
                "host": "here",
                "devices": ["here.yaml"],
                "links": ["loopback.yaml"],
                "boards": [{"name": f"b{k}", "device": "here", "link": link} for k in (1, 2)],
            }
        )
    )
    host, boards = resolve(parse_fleet(str(fleet)))
    assert host.name == boards[0].device.name == "here"
    said = nonn_plan(
        *("plan", partition_file, "--fleet", fleet, "--image", "1x8x8", "--classes", "10"),
        *("--student", "wrn10:8,16,32", "--student", "wrn10:16,32,64", "--students", "2"),
        *("--memory", "2MB", "-o", tmp_path / "plan.json", "--json"),
    )
    assert said.code == 0, said.err
    plan = json.loads((tmp_path / "plan.json").read_text())
    computed_ms = plan["predicted"]["compute_ms"]
    assert computed_ms > document["device"]["compute_fixed_ms"]["value"]


@pytest.fixture
def asked(monkeypatch):
    """Let the command measure nothing; return what it wants to be measured."""
    wanted = []

    def measure(what, progress):
        wanted.append(what)
        progress("students", 1, 2)
        layers = LayerTimes(
            tuple((layer, 0.001 + layer.macs / 1e7) for layer in benchmark_layers())
        )
        measured = made_measured(layers)
        power = measure_power(None, what.power, lambda: None, what.threads, 0.0)
        return replace(measured, power=power)

    monkeypatch.setattr("boards.profiling.benchmark_run.run_benchmarks", measure)
    return wanted


def test_people_are_told_figures_errors_and_what_is_doubtful(nonn_plan, tmp_path, asked):
    out = tmp_path / "board.yaml"
    said = nonn_plan("profile", "-o", out, "--name", "mine", "--title", "My board")
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert lines[0].startswith("My board: ")

    rows = [line.split() for line in lines]
    assert ["compute_fixed_ms", "2", "measured", "0.0"] in rows
    assert ["power_busy_w", "5", "assumed"] in rows
    assert ["wrn", "3x32x32", "9", "yes", "0.0", "0.0"] in rows
    assert ["wrn", "3x32x32", "7", "no", "0.0", "0.0"] in rows
    assert "On 4 threads a student takes 0.40 of the time on one." in lines
    assert "2 students at once take 0.60 of the sum of each alone." in lines
    assert any("convolutions measured alone" in line for line in lines)
    assert any(line.startswith("Warning: no power can be measured") for line in lines)
    assert lines[-1] == f"Wrote {out}"
    assert DeviceProfile.read(out).title == "My board"


def test_what_is_typed_is_what_is_measured(nonn_plan, tmp_path, asked):
    said = nonn_plan(
        *("profile", "-o", tmp_path / "b.yaml", "--precision", "int8", "--threads", "3"),
        *("--teacher", "vgg19", "--teacher", "wrn40-4", "--image", "3x64x64"),
        *("--clock", "1.2GHz", "--busy-w", "7", "--engine", "onnxruntime"),
    )
    assert said.code == 0, said.err
    (wanted,) = asked
    assert (wanted.precision, wanted.threads, wanted.engine) == ("int8", 3, "onnxruntime")
    assert list(wanted.teachers) == ["vgg19", "wrn40-4"]
    assert list(wanted.images) == ["3x64x64"]
    assert wanted.machine.clock_hz == 1_200_000_000
    assert wanted.budget == BenchmarkBudget()
    assert nonn_plan("profile", "--full", "-o", tmp_path / "c.yaml").code == 0
    assert asked[1].budget == wanted.budget
    assert DeviceProfile.read(tmp_path / "b.yaml").power_busy_w.value == 7


def test_a_name_of_the_library_is_refused_before_anything_is_measured(nonn_plan, tmp_path):
    said = nonn_plan("profile", "--name", "rpi-3b", "-o", tmp_path / "x.yaml")
    assert said.code == 2
    assert "--name rpi-3b-measured" in said.err


def test_without_onnx_it_is_told_what_to_install(nonn_plan, tmp_path, monkeypatch):
    monkeypatch.setattr("nonn_plan.cli.commands.devices.find_spec", lambda _: None)
    said = nonn_plan("profile", "-o", tmp_path / "x.yaml")
    assert said.code == 2
    assert "pip install onnx safetensors scipy" in said.err


def test_another_file_is_not_replaced(nonn_plan, tmp_path):
    target = tmp_path / "notes.yaml"
    target.write_text("shopping: milk\n")
    said = nonn_plan("profile", "-o", target)
    assert said.code == 2
    assert target.read_text() == "shopping: milk\n"


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (("--engine", "ncnn"), "--bundle"),
        (("--bundle", "nowhere", "--teacher", "wrn16-2"), "leave out"),
        (("--bundle", "nowhere"), "no such file"),
        (("--teacher", "lenet"), "not the name of a network"),
        (("--clock", "fast"), "--clock"),
    ],
)
def test_what_cannot_be_measured_is_bad_input(nonn_plan, tmp_path, options, found):
    said = nonn_plan("profile", "-o", tmp_path / "x.yaml", *options)
    assert said.code == 2
    assert found in said.err
    assert not (tmp_path / "x.yaml").exists()
