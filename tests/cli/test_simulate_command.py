"""`simulate`: plans, models and students; scenarios, outputs, and every wrong value named."""

import json
import signal
import subprocess
import sys
from contextlib import nullcontext

import pytest
from made_hardware import on_air

from nonn_plan.cli.output import Output
from nonn_plan.reproduction import workload_of
from profiles.calibration_data import METRICS, published_facts
from simulator.engine.simulation import simulate
from simulator.results import statistics

STUDENTS = ("simulate", "--student", "wrn16:32,64,88", "--fleet", "rpi3x2")
MODEL = ("simulate", "--model", "wrn40-4", "--fleet")


def evaluation(path, accuracies):
    subsets = [
        {"students": list(names), "accuracy_pct": accuracy} for names, accuracy in accuracies
    ]
    document = {"data": "digits", "images": 100, "accuracy_pct": 90.0, "subsets": subsets}
    path.write_text(json.dumps(document))
    return path


def test_students_are_dealt_to_boards_in_turn(nonn_plan):
    said = nonn_plan(*STUDENTS, "--students", 5, "--json")
    rows = {row["board"]: row["students"] for row in said.document["simulation"]["boards"]}
    assert rows == {"rpi-3b-1": 3, "rpi-3b-2": 2}
    assert said.document["latency_model"] == {"rpi-3b": "flop-affine"}


def test_students_are_placed_where_people_say(nonn_plan):
    call = ["simulate", "--student", "wrn16:32,64,88", "--fleet", "rpi-3b*2,odroid-xu4s"]
    said = nonn_plan(*call, "--place", "rpi-3b-2=1,odroid-xu4s-1=3", "--json")
    rows = {row["board"]: row["students"] for row in said.document["simulation"]["boards"]}
    assert rows == {"rpi-3b-2": 1, "odroid-xu4s-1": 3}


def test_students_of_one_board_may_have_an_image_each(nonn_plan):
    call = ("simulate", "--student", "167M", "--students", 4, "--fleet", "rpi-3b", "--json")
    once, each = (
        nonn_plan(*call, "--sends", sends).document["simulation"]
        for sends in ("per-board", "per-student")
    )
    # The first student begins as before, the last image is there three sends later, and all
    # of them share the processor: the sum of their work is done at the same time.
    assert each["boards"][0]["busy_ms"] == once["boards"][0]["busy_ms"]
    assert each["boards"][0]["energy_mj"] == once["boards"][0]["energy_mj"]
    assert sum(each["utilisation"][f"rpi-3b-1.{name}"] for name in ("down",)) == pytest.approx(
        4 * once["utilisation"]["rpi-3b-1.down"], rel=0.01
    )
    said = nonn_plan(*MODEL, "rpi-3b", "--sends", "per-student")
    assert said.code == 2
    assert "--sends is not for --model" in said.err


def test_boards_may_draw_their_times(nonn_plan):
    call = ("simulate", "--student", "167M", "--students", 8, "--fleet", "rpi3x8")
    still = nonn_plan(*call, "--json").document
    said = nonn_plan(*call, "--spread", "--inferences", 2000, "--json").document
    known = still["join_spread"]
    assert still["simulation"]["total_ms"] < known["expected_ms"] < known["p95_ms"]
    assert said["simulation"]["total_ms"] == pytest.approx(known["expected_ms"], rel=2e-3)
    assert said["simulation"]["p95_ms"] == pytest.approx(known["p95_ms"], rel=5e-3)
    assert known["expected_ms"] == pytest.approx(150, rel=1e-3)  # as published, Table 6
    assert "--spread draws this" in " ".join(nonn_plan(*call).out.split())


def test_boards_of_which_no_spread_is_known_are_named(nonn_plan):
    call = ("simulate", "--student", "167M", "--fleet", "rpi-4b", "--spread", "--json")
    said = nonn_plan(*call)
    assert said.document["join_spread"] is None
    assert any("no spread is known of rpi-4b" in text for text in said.document["warnings"])


def test_students_may_differ(nonn_plan):
    said = nonn_plan(*STUDENTS, "--student", "wrn16:16,32,64", "--json")
    first, second = said.document["simulation"]["boards"]
    assert first["busy_ms"] != second["busy_ms"]


def test_students_of_the_published_size_take_what_reproduce_says(nonn_plan):
    """Eight students of 167 MFLOPs are the row nonn_8s of Table 6."""
    fleet = ("--student", "167M", "--students", 8, "--fleet", "rpi3x8")
    found = nonn_plan("simulate", *fleet, "--json").document
    facts = published_facts()
    (row,) = (row for row in facts.measured_on("rpi-3b") if row.row == "nonn_8s")
    reproduced = simulate(workload_of(row, facts))
    for quantity in METRICS:
        assert found["simulation"][quantity] == getattr(reproduced, quantity)
    assert found["simulation"]["total_ms"] == pytest.approx(149.47, abs=0.05)
    assert found["latency_model"] == {"rpi-3b": "flop-affine"}


def test_people_see_latency_energy_and_what_predicts_it(nonn_plan):
    said = nonn_plan(*STUDENTS, "--students", 2, "--inferences", 5)
    for word in ("rpi-3b-2", "communication", "queue", "p95", "per second", "idle", "radio"):
        assert word in said.out
    assert "affine in the FLOPs" in said.out


def test_a_model_alone_takes_what_was_published(nonn_plan):
    found = nonn_plan(*MODEL, "rpi-3b", "--json").document["simulation"]
    assert found["total_ms"] == pytest.approx(1405, rel=0.03)
    assert found["communication_ms"] == 0


@pytest.mark.parametrize("split", ["channels", "slices", "grid", "tiles", "cut", "pipeline"])
def test_a_model_is_split_over_boards(nonn_plan, split):
    said = nonn_plan(*MODEL, "rpi3x2", "--split", split, "--json")
    assert said.code == 0, said.err
    assert said.document["simulation"]["total_ms"] > 0
    assert split in said.document["workload"]


def test_a_device_with_measured_layers_says_so(nonn_plan, tmp_path):
    one = {"value": 2.0, "provenance": "assumed", "source": "this test"}
    from profiles.device import DEVICES

    device = DEVICES.get("rpi-3b").model_dump(mode="json") | {"name": "measured"}
    cost = {
        "kernels": ["pointwise", "spatial", "depthwise"],
        "layers": 9,
        "terms": {"fixed_ms": one},
    }
    kinds = [cost | {"kind": kind} for kind in ("conv", "norm", "pool", "fc")]
    device["layers"] = {
        "kinds": kinds, "layers": 9, "residual_pct": 1.0, "held_out_pct": None, "source": "a test",
    }  # fmt: skip
    fleet = {
        "name": "own", "title": "own", "devices": [device],
        "boards": [{"name": "b", "device": "measured"}],
    }  # fmt: skip
    path = tmp_path / "fleet.json"
    path.write_text(json.dumps(fleet))
    alone = nonn_plan(*MODEL, path, "--json").document
    assert alone["latency_model"] == {"measured": "per-layer"}
    students = nonn_plan("simulate", "--student", "wrn16:32,64,88", "--fleet", path, "--json")
    assert students.document["latency_model"] == {"measured": "per-layer"}
    busy_ms = students.document["simulation"]["boards"][0]["busy_ms"]
    assert busy_ms == pytest.approx(2.0 * round(busy_ms / 2.0))
    assert "layer by layer" in nonn_plan(*MODEL, path).out


def test_poisson_arrivals_queue(simulated):
    quiet = simulated("--inferences", 300)["simulation"]
    busy = simulated("--inferences", 300, "--arrivals", "poisson:8/s")["simulation"]
    assert quiet["queue_ms"] < busy["queue_ms"]
    assert busy["p50_ms"] < busy["p95_ms"] < busy["p99_ms"]


def test_a_queue_without_bound_is_a_warning(nonn_plan):
    """Two students of 99.745 ms each on boards of their own: 10.03 images a second."""
    call = ("simulate", "--student", "167M", "--students", 2, "--fleet", "rpi3x2")
    for rate, grows in ((20, True), (9, False)):
        arrivals = ("--arrivals", f"poisson:{rate}/s", "--inferences", 50)
        warnings = nonn_plan(*call, *arrivals, "--json").document.get("warnings", [])
        assert len(warnings) == grows
        told = "rpi-3b-1.cpu can take 10.03: its queue grows without bound"
        assert all(f"20 images come in a second, and {told}" in text for text in warnings)
        assert ("Warning: 20 images come" in nonn_plan(*call, *arrivals).out) == grows


def test_answers_that_lack_a_student_are_counted(nonn_plan, simulated):
    down = ("--fail", "rpi-3b-1@0ms..500ms", "--on-failure", "lose")
    late = (*down, "--inferences", 10, "--deadline", "200ms")
    found = simulated(*late)["simulation"]
    count = found["partial"]
    assert 0 < count < 10
    assert found["survivors"] == [
        {"students": ["student-2"], "images": count},
        {"students": ["student-1", "student-2"], "images": 10 - count},
    ]
    shown = nonn_plan(*STUDENTS, "--students", 2, *late).out
    assert f"answered by all students: {10 - count}, by some: {count}, by none: 0" in shown
    assert f"missing most often: student-1 at {count} images\n" in shown
    assert "by some" not in nonn_plan(*STUDENTS, "--students", 2).out


def test_people_see_where_the_time_of_a_pipeline_goes(nonn_plan):
    """Each board computes in its turn: the longest is one of eight."""
    said = nonn_plan(*MODEL, "rpi3x8", "--split", "pipeline")
    (line,) = [line.split() for line in said.out.splitlines() if line.split()[:1] == ["all"]]
    found = nonn_plan(*MODEL, "rpi3x8", "--split", "pipeline", "--json").document["simulation"]
    busy_ms = sum(row["busy_ms"] for row in found["boards"])
    assert busy_ms > 6 * found["compute_ms"]
    assert line[1] == f"{busy_ms:.2f}"
    assert line[-1] == f"{found['total_ms']:.2f}"
    path = found["critical_path"]
    assert sum(row["compute_ms"] for row in path) == pytest.approx(busy_ms)
    assert [row["actor"] for row in path] == ["host", *(row["board"] for row in found["boards"])]
    assert "longest board" in said.out


def test_seed_decides_about_chance(simulated):
    def latencies(seed):
        arguments = ("--arrivals", "poisson:8/s", "--inferences", 20, "--seed", seed)
        return [row["end_ms"] for row in simulated(*arguments)["simulation"]["inferences"]]

    assert latencies(1) == latencies(1) != latencies(2)


def test_arrivals_of_a_csv_file(simulated, tmp_path):
    path = tmp_path / "arrivals.csv"
    path.write_text("start_ms\n5\n300\n900\n")
    document = simulated("--arrivals", path)
    assert [row["start_ms"] for row in document["simulation"]["inferences"]] == [5, 300, 900]
    assert document["arrivals"] == f"{path} (delimiter: comma)"


def test_arrivals_of_a_sheet_name_its_delimiter(nonn_plan, tmp_path):
    path = tmp_path / "SHEET.CSV"
    path.write_bytes(b"\xef\xbb\xbfimage;start_ms\r\na;5\r\n;\r\nb;300\r\n")
    said = nonn_plan(*STUDENTS, "--arrivals", path)
    assert said.code == 0
    assert f"arrivals: 2 of {path} (delimiter: semicolon)" in said.out


def test_periodic_arrivals(simulated):
    rows = simulated("--arrivals", "every:250ms", "--inferences", 3)["simulation"]["inferences"]
    assert [row["start_ms"] for row in rows] == [0, 250, 500]


def test_accuracy_of_those_that_answer(simulated, tmp_path):
    """One of two students is dead: the accuracy is that of the other."""
    table = [(("student-1",), 61.0), (("student-2",), 72.0), (("student-1", "student-2"), 90.0)]
    path = evaluation(tmp_path / "evaluation.json", table)
    assert simulated("--accuracy", path)["accuracy_pct"] == 90
    dead = ("--fail", "rpi-3b-1@0ms", "--on-failure", "lose", "--deadline", "200ms")
    assert simulated("--accuracy", path, *dead)["accuracy_pct"] == 72


def test_many_images_show_how_far_they_are(nonn_plan, monkeypatch):
    monkeypatch.setattr(statistics, "BATCH_VALUES", 500)
    told = []
    shown = nullcontext(lambda *report: told.append(report))
    monkeypatch.setattr(Output, "progress", lambda *_: shown)
    assert nonn_plan(*STUDENTS, "--students", 2, "--inferences", 200).code == 0
    done = [count for _, count, _ in told]
    assert done == sorted(done) and done[-1] == 200 and len(done) > 2
    assert {(what, total) for what, _, total in told} == {("images", 200)}


# Announces that images are through, so that the test needs no clock.
SIMULATE_LONG = """
import sys
from simulator.results import statistics
statistics.BATCH_VALUES = 1
tell, told = statistics.Recorder.tell, []
def announced(self):
    tell(self)
    if not told:
        told.append(True)
        print("flushed", file=sys.stderr, flush=True)
statistics.Recorder.tell = announced
from nonn_plan.__main__ import run
run()
"""


def test_ctrl_c_ends_many_images_and_leaves_nothing(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", SIMULATE_LONG, *STUDENTS, "--inferences", "1000000",
         "--trace", tmp_path / "t.json"],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr.readline() == "flushed\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out) == (1, "")
    assert err == "nonn-plan: stopped by Ctrl-C; nothing was written\n"
    assert not list(tmp_path.iterdir())


def test_totals_keep_no_tables(simulated):
    found = simulated("--inferences", 50, "--keep", "totals")["simulation"]
    assert found["inferences"] == found["intervals"] == found["messages"] == []
    assert found["percentile_error_pct"] > 0
    assert found["total_ms"] == pytest.approx(simulated()["simulation"]["total_ms"])


def test_absurd_figures_fit_their_columns(nonn_plan, tmp_path):
    on_air(1e-200, ("rpi-3b", "air")).write(tmp_path / "fleet.yaml")
    said = nonn_plan("simulate", "--student", "wrn10-1", "--fleet", tmp_path / "fleet.yaml")
    assert said.code == 0, said.err
    assert "e+20" in said.out
    assert "00000000" not in said.out


def test_a_plan_keeps_its_keys_and_has_scenarios_too(nonn_plan, plan_file):
    said = nonn_plan("simulate", plan_file, "--throttle", "rpi-3b-1@0=0.5", "--json").document
    assert {"plan", "teacher_alone"} <= said.keys()
    usual = nonn_plan("simulate", plan_file, "--json").document
    assert said["plan"]["total_ms"] > usual["plan"]["total_ms"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--arrivals", "often"], "--arrivals often"),
        (["--arrivals", "poisson:lots"], "lots"),
        (["--arrivals", "poisson:0/s"], "--arrivals poisson:0/s"),
        (["--arrivals", "every:15"], "--arrivals every:15"),
        (["--arrivals", "missing.csv"], "missing.csv"),
        (["--fail", "rpi-3b-1"], "--fail rpi-3b-1"),
        (["--fail", "pi-9@5ms"], "pi-9"),
        (["--fail", "rpi-3b-1@9ms..5ms"], "--fail rpi-3b-1@9ms..5ms"),
        (["--fail", "rpi-3b-1@soon"], "soon"),
        (["--mttf", "10s"], "--mttr"),
        (["--mttr", "10s"], "--mttf"),
        (["--mttf", "10s", "--mttr", "rpi-3b-1=1s"], "--mttr rpi-3b-1"),
        (["--mttf", "10s", "--mttf", "20s", "--mttr", "1s"], "twice"),
        (["--throttle", "rpi-3b-1=0.5"], "--throttle rpi-3b-1=0.5"),
        (["--throttle", "rpi-3b-1@2s=-1"], "--throttle rpi-3b-1@2s=-1"),
        (["--throttle", "rpi-3b-1,rpi-3b-2@2s=0.5"], "one board"),
        (["--throttle", "pi-9@2s=0.5"], "pi-9"),
        (["--throttle", "rpi-3b-1@2s=60"], "no percentage, up to 10"),
        (["--throttle", "rpi-3b-1@2s=0.5", "--throttle", "rpi-3b-1@2000ms=0.6"], "given twice"),
        (["--arrivals", "poisson:20"], "poisson:20: not a quantity of this kind: it has no unit"),
        (["--seed", "1", "--seed", "2"], "--seed: given more than once"),
        (["--on-failure", "cry"], "cry"),
        (["--keep", "some"], "some"),
        (["--needs", "3"], "--needs 3"),
        (["--deadline", "soon"], "--deadline"),
        (["--place", "pi-9=2"], "pi-9"),
        (["--place", "rpi-3b-1=many"], "many"),
        (["--place", "rpi-3b-1=1"], "--students"),
        (["--split", "channels"], "--split"),
        (["--classes", "10"], "--classes"),
        (["--image", "32"], "32"),
        (["--student", "wrn16:16,32,64", "--student", "wrn16:32,64,64"], "one network"),
        (["--model", "wrn40-4"], "--model"),
        (["--keep", "totals", "--gantt", "g.png"], "--gantt"),
        (["--accuracy", "missing.json"], "missing.json"),
    ],
)
def test_a_wrong_value_is_one_sentence(nonn_plan, monkeypatch, tmp_path, arguments, told):
    monkeypatch.chdir(tmp_path)
    said = nonn_plan(*STUDENTS, "--students", 2, *arguments)
    assert said.code == 2
    assert told in said.err
    assert said.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["simulate"], "PLAN"),
        (["simulate", "--model", "wrn40-4"], "--fleet"),
        (["simulate", "--student", "wrn16:32,64,88"], "--fleet"),
        ([*MODEL, "rpi3x2"], "--split"),
        ([*MODEL, "rpi3x2", "--split", "halves"], "halves"),
        ([*MODEL, "rpi3x2", "--split", "channels", "--needs", "1"], "--needs"),
        ([*MODEL, "rpi3x2", "--split", "channels", "--students", "2"], "--students"),
        (["simulate", "--model", "lenet", "--fleet", "rpi-3b"], "lenet"),
        ([*MODEL, "rpi-9*2", "--split", "channels"], "rpi-9"),
    ],
)
def test_what_is_simulated_must_be_clear(nonn_plan, arguments, told):
    said = nonn_plan(*arguments)
    assert said.code == 2
    assert told in said.err
    assert said.err.count("\n") == 1


def test_options_of_fleets_are_not_for_plans(nonn_plan, plan_file):
    said = nonn_plan("simulate", plan_file, "--fleet", "rpi3x8")
    assert said.code == 2
    assert "--fleet" in said.err


def test_an_accuracy_table_must_know_who_answers(nonn_plan, tmp_path):
    path = evaluation(tmp_path / "evaluation.json", [(("student-1",), 61.0)])
    said = nonn_plan(*STUDENTS, "--students", 2, "--accuracy", path)
    assert said.code == 2
    assert "student-1, student-2" in said.err


def test_more_inferences_than_arrivals(nonn_plan, tmp_path):
    path = tmp_path / "arrivals.csv"
    path.write_text("start_ms\n5\n")
    said = nonn_plan(*STUDENTS, "--arrivals", path, "--inferences", 2)
    assert said.code == 2
    assert "1 in the CSV file" in said.err
