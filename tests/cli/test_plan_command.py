import json

import pytest
from drawn_instances import made_rates
from made_hardware import on_air

from profiles.device import DEVICES
from profiles.layer_rates import WORKS


def test_the_published_example_of_a_merge(nonn_plan, plan_arguments):
    """A, section 4.2: communities of 12, 14, 25 and 30 filters merge into 39 and 42."""
    said = nonn_plan(*plan_arguments, "--objective", "imbalance", "--json")
    assert said.code == 0
    assert sorted(len(one["filters"]) for one in said.document["students"]) == [39, 42]
    assert said.document["status"] == "optimal"
    assert said.document["stages"][0]["bound"] == said.document["stages"][0]["value"] == 3


def test_the_file_is_what_json_prints(nonn_plan, plan_arguments, tmp_path):
    said = nonn_plan(*plan_arguments, "--json")
    assert json.loads((tmp_path / "plan.json").read_text()) == said.document


def test_people_see_students_budgets_and_proof(nonn_plan, plan_arguments):
    said = nonn_plan(*plan_arguments)
    for word in ("student-1", "rpi-3b-2", "500.0 KB", "200.0 MFLOP", "bound", "latency"):
        assert word in said.out


@pytest.mark.parametrize("copies", [(), ("--group0-copies", "per-student")])
def test_students_of_one_board_share_its_g0_unless_asked_otherwise(nonn_plan, changed, copies):
    options = ["--fleet", "rpi-3b", "--students", "2", "--memory", "1MB", "--flops", "400M"]
    said = nonn_plan(*changed(*options), *copies, "--objective", "memory")
    assert said.code == 0
    assert ("student-1, student-2 share one G0 on rpi-3b-1" in said.out) == (not copies)
    plan = nonn_plan(*changed(*options), *copies, "--objective", "memory", "--json").document
    assert plan["question"]["group0_copies"] == ("per-student" if copies else "per-board")
    assert [one["students"] for one in plan["joint_models"]] == (
        [] if copies else [["student-1", "student-2"]]
    )


def test_boards_on_one_medium_are_predicted_as_they_are_simulated(nonn_plan, changed, tmp_path):
    """Four boards on one medium of 200 kbit/s, where replies wait for each other."""
    fleet = on_air(2e5, *[("odroid-xu4s", "air")] * 4)
    fleet.write(tmp_path / "fleet.yaml")
    options = ["--fleet", tmp_path / "fleet.yaml", "--students", "4", "--image", "1x8x8"]
    memory = ["--memory", "190KB", "--objective", "latency"]
    said = nonn_plan(*changed(*options, *memory), "--json")
    assert said.code == 0, said.err
    assert len(said.document["send_order"]) == 4
    simulated = nonn_plan("simulate", tmp_path / "plan.json", "--json").document["plan"]
    predicted = said.document["predicted"]
    assert predicted["total_ms"] == pytest.approx(simulated["total_ms"], rel=1e-9)
    reply_ms = {one["board"]: 32 * len(one["filters"]) / 200 for one in said.document["students"]}
    waited_ms = [
        row["done_ms"] - row["send_done_ms"] - row["busy_ms"] - reply_ms[row["board"]]
        for row in simulated["boards"]
    ]
    assert max(waited_ms) > 1


@pytest.mark.parametrize(
    ("figures", "told"),
    [({}, False), ({"loss_pct": 1, "retransmit_ms": 5}, True), ({"jitter_ms": 0.5}, True)],
)
def test_people_see_what_a_prediction_leaves_out(nonn_plan, changed, tmp_path, figures, told):
    on_air(4e7, *[("rpi-3b", "air")] * 2, **figures).write(tmp_path / "fleet.yaml")
    said = nonn_plan(*changed("--fleet", tmp_path / "fleet.yaml"))
    assert ("predicted without loss and jitter of air: `nonn-plan simulate`" in said.out) == told


def test_same_question_same_plan(nonn_plan, plan_arguments):
    assert nonn_plan(*plan_arguments, "--json").out == nonn_plan(*plan_arguments, "--json").out


def test_budgets_of_single_boards(nonn_plan, plan_arguments):
    said = nonn_plan(*plan_arguments, "--memory", "rpi-3b-2=700KB", "--json")
    limits = [budget["memory_bytes"] for budget in said.document["question"]["budgets"]]
    assert limits == [500_000, 700_000]


def test_an_infeasible_question_names_the_budget(nonn_plan, changed, tmp_path):
    said = nonn_plan(*changed("--memory", "50KB"), "--json")
    assert said.code == 3
    assert said.document["status"] == "infeasible"
    assert any(
        "memory budget of rpi-3b-1" in sentence and "50.0 KB" in sentence
        for sentence in said.document["conflict"]
    )
    assert said.err.count("memory budget of rpi-3b-1") == 1
    assert "rpi-3b-1" in nonn_plan("explain", tmp_path / "plan.json").out
    refused = nonn_plan("config", tmp_path / "plan.json", "--data", "digits", "--teacher", "t")
    assert refused.code == 2
    assert "infeasible" in refused.err


def test_why_there_is_no_plan_comes_before_where_the_proof_is(nonn_plan, changed, tmp_path):
    said = nonn_plan(*changed("--memory", "50KB"), "--group0-copies", "per-student")
    assert said.code == 3
    assert said.out == ""
    first, *reasons, standing, last = said.err.splitlines()
    assert first == "nonn-plan: proven infeasible; these cannot hold together:"
    assert standing.startswith("certified: ")
    assert [line[:30] for line in reasons] == [f"  - memory budget of rpi-3b-{n}:" for n in (1, 2)]
    place = tmp_path / "plan.json"
    assert last == f"written to {place}; next: nonn-plan explain {place}"


def test_no_proof_in_time_is_exit_code_4(nonn_plan, plan_arguments, tmp_path):
    said = nonn_plan(*plan_arguments, "--limit", "1e-9")
    assert said.code == 4
    assert json.loads((tmp_path / "plan.json").read_text())["status"] == "feasible"


def test_a_plan_without_its_proof_is_written_and_is_exit_code_4(
    nonn_plan, changed, tmp_path, monkeypatch
):
    """Eight unlike boards, and a limit under which a plan is found and not proven."""
    limited = nonn_plan(
        *changed("--fleet", "rpi-3b*5,odroid-xu4s*3", "--students", "2:4"),
        "--objective", "capacity,latency", "--limit", "0.0002", "--json",
    )  # fmt: skip
    assert limited.code == 4
    assert limited.document["status"] == "feasible"
    assert json.loads((tmp_path / "plan.json").read_text()) == limited.document
    assert "raise --limit" in limited.err
    assert "written to" not in limited.err
    assert f"{tmp_path / 'plan.json'} holds a plan" in limited.err
    assert nonn_plan("simulate", tmp_path / "plan.json").code == 0


def test_an_output_never_replaces_a_file_of_another_kind(nonn_plan, changed, partition_file):
    before = partition_file.read_bytes()
    said = nonn_plan(*changed("-o", partition_file))
    assert said.code == 2
    assert "is not replaced" in said.err
    assert partition_file.read_bytes() == before


def test_an_output_that_is_a_folder_is_refused_before_the_work(nonn_plan, changed, tmp_path):
    said = nonn_plan(*changed("-o", tmp_path))
    assert said.code == 2
    assert "is a folder" in said.err


@pytest.mark.parametrize(
    ("option", "value"),
    [("--image", "3x16x16"), ("--classes", "11"), ("--teacher-network", "wrn16-2")],
)
def test_options_do_not_contradict_the_teacher(
    nonn_plan, plan_arguments, partition_document, partition_file, option, value
):
    teacher = {"path": "t.safetensors", "network": "wrn40-4", "data": "d"}
    teacher |= {"image": "3x32x32", "classes": 10, "fconv": "trunk"}
    teacher |= {"params": 8_949_210, "macs": 1_301_423_616, "peak_elements": None}
    partition_file.write_text(json.dumps({**partition_document, "teacher": teacher}))
    kept = [a for a in plan_arguments if a != "--student" and not str(a).startswith("wrn")]
    assert nonn_plan(*kept, "--teacher-network", "wrn40-4").code == 0
    said = nonn_plan(*kept, option, value)
    assert said.code == 2
    assert option in said.err


def test_simulate_returns_the_milliseconds_of_the_plan(nonn_plan, plan_file):
    predicted = json.loads(plan_file.read_text())["predicted"]
    said = nonn_plan("simulate", plan_file, "--inferences", 3, "--json")
    found = said.document["plan"]
    for name in ("total_ms", "compute_ms", "communication_ms", "energy_per_node_mj"):
        assert found[name] == pytest.approx(predicted[name], abs=1e-9)
    assert len(found["inferences"]) == 3


def test_simulate_shows_boards(nonn_plan, plan_file):
    assert "rpi-3b-2" in nonn_plan("simulate", plan_file).out


def test_config_writes_what_training_needs(nonn_plan, plan_file, tmp_path):
    recipe = tmp_path / "train.yaml"
    said = nonn_plan(
        "config", plan_file, "--data", "digits", "--teacher", "t.safetensors",
        "--epochs", 3, "--beta", 7, "-o", recipe, "--json",
    )  # fmt: skip
    assert said.code == 0
    planned = json.loads(plan_file.read_text())["students"]
    assert [s["filters"] for s in said.document["model"]["students"]] == [
        s["filters"] for s in planned
    ]
    assert said.document["optimiser"]["epochs"] == 3
    assert said.document["distillation"]["beta"] == 7
    assert recipe.exists()


def test_config_does_not_overwrite_what_a_person_may_have_edited(nonn_plan, plan_file, tmp_path):
    recipe = tmp_path / "train.yaml"
    call = ("config", plan_file, "--data", "digits", "--teacher", "t.safetensors", "-o", recipe)
    assert nonn_plan(*call).code == 0
    assert nonn_plan(*call).code == 0
    edited = recipe.read_text().replace("temperature: 4.0", "temperature: 5.0")
    recipe.write_text(edited)
    said = nonn_plan(*call)
    assert said.code == 2
    assert "another recipe" in said.err
    assert recipe.read_text() == edited


def test_config_says_what_the_plan_does_not(nonn_plan, plan_file):
    said = nonn_plan("config", plan_file)
    assert said.code == 2
    assert "--data" in said.err


@pytest.mark.parametrize("command", ["simulate", "config", "explain"])
def test_a_plan_edited_to_break_a_budget_is_refused(nonn_plan, plan_file, command):
    plan = json.loads(plan_file.read_text())
    plan["question"]["budgets"][0]["memory_bytes"] = 100_000
    plan_file.write_text(json.dumps(plan))
    said = nonn_plan(command, plan_file)
    assert said.code == 2
    assert "memory budget of rpi-3b-1" in said.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--memory", "-5KB"], "--memory -5KB"),
        (["--memory", "lots"], "--memory lots"),
        (["--flops", "200MB"], "--flops 200MB"),
        (["--flops", "pi-9=200M"], "pi-9"),
        (["--fleet", "rpi-9*2"], "rpi-9"),
        (["--students", "2:1"], "min_students"),
        (["--students", "two"], "--students"),
        (["--student", "lenet"], "lenet"),
        (["--objective", "beauty"], "beauty"),
        (["--precision", "int3"], "int3"),
        (["--image", "32"], "32"),
        (["--epsilon", "-1"], "epsilon_pct"),
        (["--classes", "1"], "classes"),
        (["--classes", "9" * 30], "classes"),
        (["--memory", "1e30"], "--memory 1e30"),
        (["--flops", "1e20"], "--flops 1e20"),
        (["--student", "wrn9999994-1"], "9999994"),
        (["--student", "wrn16-99999999999"], "1 to 16384"),
        (["--students", "9999"], "min_students"),
    ],
)
def test_a_wrong_value_is_named(nonn_plan, changed, tmp_path, arguments, told):
    said = nonn_plan(*changed(*arguments))
    assert said.code == 2
    assert told in said.err
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err
    assert not (tmp_path / "plan.json").exists()


@pytest.mark.parametrize("missing", ["--image", "--classes"])
def test_what_only_a_teacher_would_say_must_be_given(nonn_plan, plan_arguments, missing):
    at = plan_arguments.index(missing)
    said = nonn_plan(*plan_arguments[:at], *plan_arguments[at + 2 :])
    assert said.code == 2
    assert missing in said.err


def test_all_that_a_saved_network_does_not_say_is_named_at_once(
    nonn_plan, partition_file, plan_file, tmp_path
):
    said = nonn_plan("plan", partition_file, "--fleet", "rpi3x2", "-o", tmp_path / "other.json")
    assert said.code == 2
    assert "needed: --image, --classes, --teacher-network or --student" in said.err
    said = nonn_plan("config", plan_file, "-o", tmp_path / "train.yaml")
    assert said.code == 2
    assert "which data and teacher to train with; give --data and --teacher" in said.err


def test_students_of_a_saved_network_need_a_teacher_network(nonn_plan, plan_arguments):
    kept = [a for a in plan_arguments if a != "--student" and not str(a).startswith("wrn")]
    assert "--teacher-network" in nonn_plan(*kept).err
    said = nonn_plan(*kept, "--teacher-network", "wrn40-4", "--json")
    assert said.code == 0
    assert all(name.startswith("wrn16:") for name in said.document["question"]["networks"])


@pytest.mark.parametrize("accuracy", [95.48, 96])
def test_an_accuracy_out_of_reach_is_infeasible_and_says_what_would_do(
    nonn_plan, plan_arguments, tmp_path, accuracy
):
    asked = ["--teacher-network", "wrn40-4", "--at-least", f"accuracy={accuracy}"]
    said = nonn_plan(*plan_arguments, *asked)
    assert said.code == 3
    assert f"accuracy >= {accuracy}; accuracy >= 9" in said.err
    written = json.loads((tmp_path / "plan.json").read_text())
    assert written["verdict"] is None
    assert written["alternatives"][-1]["kind"] == "teacher"


def test_people_see_a_trade_off_with_the_teacher_alone_in_eighty_columns(
    nonn_plan, plan_arguments, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "80")
    said = nonn_plan(*plan_arguments, "--teacher-network", "wrn40-4")
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("Trade-off"))
    table = lines[start : start + 9]
    assert max(map(len, table)) <= 80
    (row,) = [line for line in table if " teacher on rpi-3b-1 " in line]
    assert row.split()[-1] == "no"
    assert [word for word in row.split() if word == "-"] == []
    assert "teacher on rpi-3b-1 does not fit: it needs " in said.out
    assert "Best is" not in said.out


def test_points_of_delta_val_less_filters_are_below_0(nonn_plan, plan_arguments):
    said = nonn_plan(*plan_arguments, "--at-most", "dropped=-4", "--json")
    assert said.code == 3
    assert "dropped <= -4" in said.err
    refused = nonn_plan(*plan_arguments, "--at-most", "students=-4")
    assert refused.code == 2


def test_sentences_are_short(nonn_plan, plan_arguments):
    said = nonn_plan(*plan_arguments, "--teacher-network", "wrn40-4")
    assert said.code == 0, said.err
    sentences = [line for line in said.out.splitlines() if "  " not in line]
    assert "accuracy rests on" in said.out
    assert [line for line in sentences if len(line.split()) > 30 or line.count(";") > 2] == []


def test_a_percentile_may_be_asked_for(nonn_plan, plan_arguments):
    said = nonn_plan(*plan_arguments, "--objective", "latency-p95", "--json")
    assert said.code == 0, said.err
    predicted, (level,) = said.document["predicted"], said.document["stages"]
    assert predicted["expected_ms"] < predicted["p95_ms"] <= level["value"]
    limit = ("--at-most", f"latency-p95={0.99 * level['best']:.6f}ms")
    assert nonn_plan(*plan_arguments, "--objective", "boards", *limit).code == 3
    both = nonn_plan(*plan_arguments, "--objective", "latency", "--at-most", "latency-p95=1s")
    assert both.code == 2
    assert "ask for one of them" in both.err


def test_a_percentile_without_a_known_spread_is_said_to_be_none(nonn_plan, plan_arguments):
    arguments = list(plan_arguments)
    arguments[arguments.index("--fleet") + 1] = "rpi-4b*2"
    said = nonn_plan(*arguments, "--objective", "latency-p95", "--json")
    assert said.code == 0, said.err
    assert said.document["predicted"]["p95_ms"] is None
    assert any("no spread is known of rpi-4b" in text for text in said.document["warnings"])


def test_people_see_how_times_are_predicted_and_their_intervals(
    nonn_plan, replaced, plan_arguments, tmp_path
):
    """Two devices by rates, one of them without power, and one by FLOPs."""
    rates = made_rates({name: 20 * work.ms for name, work in WORKS.items()})
    base = DEVICES.get("rpi-3b")
    dark = {"power_fixed_w": None, "power_busy_w": None}
    base.model_copy(update={"name": "lit", "layer_rates": rates}).write(tmp_path / "lit.yaml")
    base.model_copy(update={"name": "dark", "layer_rates": rates} | dark).write(
        tmp_path / "dark.yaml"
    )
    boards = [{"name": name, "device": name} for name in ("lit", "dark", "rpi-3b")]
    made = {"name": "made", "title": "Made", "devices": ["lit.yaml", "dark.yaml"]}
    (tmp_path / "fleet.yaml").write_text(json.dumps(made | {"boards": boards}))
    asked = replaced(plan_arguments, "--fleet", tmp_path / "fleet.yaml", "--students", "3")
    asked += ["--group0-copies", "per-student"]  # so that every board has a student
    said = nonn_plan(*asked, "--minimise", "latency")
    assert said.code == 0, said.err
    assert "layer by layer" in said.out
    assert "times are predicted by FLOPs alone (FLOP-affine) on rpi-3b" in said.out
    assert "at the ends of their intervals" in said.out
    assert "energy is not known: no power is known of dark" in said.err + said.out
    robust = nonn_plan(*asked, "--minimise", "latency", "--robust", "--json").document
    assert robust["question"]["timing"] == "upper-end"
    predicted = robust["predicted"]
    assert predicted["total_ms"] == predicted["high_ms"] > predicted["middle_ms"]
    assert predicted["energy_fleet_mj"] is None
    assert any("no power is known of dark" in one for one in robust["warnings"])
    explained = nonn_plan("explain", tmp_path / "plan.json")
    assert "all boards at the low end of their intervals" in explained.out
    simulated = nonn_plan("simulate", tmp_path / "plan.json", "--json").document
    (told,) = (one for one in simulated.values() if "energy_total_mj" in str(one)[: 10**6])
    assert told["energy_total_mj"] is None
    assert any("no power is known of dark" in one for one in simulated["warnings"])
    refused = nonn_plan(*asked, "--minimise", "energy")
    assert refused.code == 2
    assert "board dark" in refused.err


def test_robust_without_any_interval_says_that_it_changes_nothing(nonn_plan, plan_arguments):
    said = nonn_plan(*plan_arguments, "--robust", "--json")
    assert any("--robust changes nothing" in one for one in said.document["warnings"])


def test_a_rate_tells_power_and_battery_life_and_refuses_what_cannot_keep_up(
    nonn_plan, changed, tmp_path
):
    asked = changed("--fleet", "rpi-3b,stm32l4r5zi", "--objective", "latency")
    said = nonn_plan(*asked, "--rate", "30/min", "--battery", "10Wh")
    assert said.code == 0, said.err
    assert "At 0.5 images per second" in said.out
    assert "first empty battery after" in said.out
    read = nonn_plan("simulate", tmp_path / "plan.json", "--arrivals", "every:2s", "--json")
    duty = read.document["duty"]
    assert duty["rate_per_s"] == 0.5
    drawn = {row["board"]: row["average_w"] for row in read.document["plan"]["boards"]}
    for row in duty["boards"]:
        assert row["average_w"] == pytest.approx(drawn[row["board"]], rel=0.01)
        assert row["battery_h"] == pytest.approx(10 / row["average_w"])
    slow = changed("--fleet", "stm32l4r5zi", "--objective", "latency")
    told = nonn_plan(*slow, "--rate", "2/h", "--json").document
    assert told["question"]["requirements"] == [{"objective": "throughput", "bound": 2 / 3600}]
    assert any("no idle power is known of stm32l4r5zi" in one for one in told["warnings"])
    refused = nonn_plan(*slow, "--rate", "5000/s")
    assert refused.code == 3
    assert "stm32l4r5zi-1.wire is busy" in refused.err
    alone = changed("--objective", "battery")
    assert "needs the rate of images" in nonn_plan(*alone).err
