"""The trained side of the command, on real images small enough for a test."""

import json

import pytest
from forked_python import TRAINING, run_forked, template

from nonn_common.errors import TrainingError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("way")


@pytest.fixture
def teacher(nonn_plan, pictures, folder):
    path = folder / "teacher.safetensors"
    said = nonn_plan(
        "train-teacher", "--network", "wrn10:8,12,16", "--data", f"imagefolder:{pictures}",
        "--epochs", 4, "--batch-size", 16, "-o", path, "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert said.document["network"] == "wrn10:8,12,16"
    return path


@pytest.fixture
def partition(nonn_plan, teacher, folder):
    path = folder / "partition.json"
    said = nonn_plan("partition", teacher, "--link-percentile", 50, "-o", path, "--json")
    assert said.code == 0, said.err
    assert said.document["filters"] == 16
    assert said.document["teacher"]["image"] == "3x9x9"
    return path


@pytest.fixture
def way(nonn_plan, partition, folder):
    """Outputs of the commands from a partition to an evaluated run."""
    plan, recipe, run = folder / "plan.json", folder / "train.yaml", folder / "run"
    said = {}
    for each in (
        ["plan", partition, "--fleet", "rpi3x2", "--students", 2, "-o", plan, "--json"],
        ["config", plan, "--epochs", 3, "--batch-size", 16, "-o", recipe],
        ["train", recipe, "-o", run, "--json"],
        ["evaluate", run, "--plan", plan, "--json"],
    ):
        said[each[0]] = nonn_plan(*each)
        assert said[each[0]].code == 0, said[each[0]].err
    return said


def test_the_whole_way(nonn_plan, way, folder):
    """partition.json -> plan.json -> train.yaml -> run/ -> evaluation, each fed to the next."""
    plan, recipe, run = folder / "plan.json", folder / "train.yaml", folder / "run"
    assert "teacher alone on rpi-3b" in nonn_plan("simulate", plan).out
    assert [row["epoch"] for row in way["train"].document] == [1, 2, 3]
    assert (run / "metrics.jsonl").read_text().count("\n") == 3
    evaluated = way["evaluate"].document
    assert [len(s["students"]) for s in evaluated["subsets"]] == [1, 1, 2]
    assert evaluated["accuracy_pct"] == evaluated["subsets"][-1]["accuracy_pct"]
    assert {fit["board"] for fit in evaluated["boards"]} == {"rpi-3b-1", "rpi-3b-2"}
    assert json.loads((run / "evaluation.json").read_text())["images"] == 30
    for again in (["train", recipe, "-o", run], ["evaluate", run, "--plan", plan]):
        shown = nonn_plan(*again)
        assert shown.code == 0
        assert "%" in shown.out
    other = nonn_plan("train", recipe, "-o", run, "--seed", 9)
    assert other.code == 2
    assert "another recipe" in other.err


@pytest.fixture
def short_recipe(partition, teacher, pictures, folder):
    """One epoch of a NoNN with cached views and dropout."""
    path = folder / "short.yaml"
    students = [
        {"name": name, "network": "wrn10:4,5,6", "filters": filters}
        for name, filters in (("a", [0, 1, 2]), ("b", [3, 5]))
    ]
    recipe = {
        "data": f"imagefolder:{pictures}",
        "image": "3x9x9",
        "teacher": str(teacher),
        "model": {"kind": "nonn", "students": students},
        "optimiser": {"epochs": 1, "batch_size": 16},
        "distillation": {"student_dropout": 0.2},
        "compute": {"cached_views": 1, "device": "cpu"},
        "seed": 3,
    }
    path.write_text(json.dumps(recipe))
    return path


def test_several_seeds_have_a_mean_and_a_deviation(nonn_plan, short_recipe, folder):
    out = folder / "seeds"
    said = nonn_plan("train", short_recipe, "-o", out, "--seeds", 2, "--json")
    assert said.code == 0, said.err
    assert list(said.document) == ["3", "4"]
    assert "of seed 4" in nonn_plan("train", short_recipe, "-o", out, "--seeds", 2).out
    said = nonn_plan("evaluate", out, "--json")
    assert said.code == 0, said.err
    found = [one["accuracy_pct"] for one in said.document["seeds"]]
    assert said.document["accuracy_pct"] == pytest.approx(sum(found) / 2)
    assert said.document["deviation_pct"] == pytest.approx(abs(found[0] - found[1]) / 2**0.5)
    # One epoch names one class for all; the warning is not part of the file.
    (warning,) = said.document["warnings"]
    assert "none of the test images of all seeds is right" in warning
    written = json.loads((out / "evaluation.json").read_text())
    assert {**written, "warnings": [warning]} == said.document
    shown = nonn_plan("evaluate", out)
    assert "+-" in shown.out
    assert "a, b" in shown.out
    refused = nonn_plan("export", out, "-o", folder / "bundle")
    assert refused.code == 2
    assert f"folder of several runs; name one of them, such as {out / 'seed-3'}" in refused.err
    # A run beside the seeds' runs is what the folder is.
    said = nonn_plan("train", short_recipe, "-o", out, "--json")
    assert said.code == 0, said.err
    (out / "evaluation.json").unlink()
    assert "seeds" not in nonn_plan("evaluate", out, "--json").document


def test_two_processes_write_and_say_one_result(nonn_plan, short_recipe, folder):
    out = folder / "together"
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "nonn_plan", "train", short_recipe, "-o", out, "--json"]
    done = run_forked(template(*TRAINING), *command)
    assert done.returncode == 0, done.stderr
    (only,) = json.loads(done.stdout)
    assert only == json.loads((out / "metrics.jsonl").read_text())
    assert done.stderr.count("Last epochs") == 1
    assert not list(out.glob("lessons*"))
    assert nonn_plan("evaluate", out, "--json").code == 0


def test_what_stops_all_processes_the_first_one_says(nonn_plan, short_recipe, folder, monkeypatch):
    from nonn_core.distillation import accelerator, run

    def diverges(*_, **__):
        raise TrainingError("training diverged")

    monkeypatch.setattr(run, "train", diverges)
    said = nonn_plan("train", short_recipe, "-o", folder / "diverged")
    assert (said.code, said.err) == (1, "nonn-plan: training diverged\n")
    monkeypatch.setattr(accelerator, "rank", lambda: 1)
    said = nonn_plan("train", short_recipe, "-o", folder / "diverged")
    assert (said.code, said.out, said.err) == (1, "", "")


def test_a_teacher_is_evaluated_too(nonn_plan, teacher):
    said = nonn_plan("evaluate", teacher, "--json")
    assert said.document["images"] == 30
    assert said.document["subsets"] == []


def test_what_is_not_ours_is_found_before_the_work(
    nonn_plan, short_recipe, folder, pictures, monkeypatch
):
    notes = folder / "mine.metrics.jsonl"
    notes.write_text("my own notes")
    said = nonn_plan(
        "train-teacher", "--network", "wrn10-1", "--data", f"imagefolder:{pictures}",
        "-o", folder / "mine.safetensors",
    )  # fmt: skip
    assert said.code == 2
    assert "is not replaced" in said.err
    assert notes.read_text() == "my own notes"
    run = folder / "noted"
    assert nonn_plan("train", short_recipe, "-o", run).code == 0
    (run / "evaluation.json").write_text("mine")
    monkeypatch.setattr("nonn_plan.cli.commands.train._evaluate", None)
    said = nonn_plan("evaluate", run)
    assert said.code == 2
    assert "is not replaced" in said.err


def test_a_plan_does_not_go_with_a_teacher(nonn_plan, teacher, plan_file):
    said = nonn_plan("evaluate", teacher, "--plan", plan_file)
    assert said.code == 2
    assert "--plan" in said.err


def test_a_finished_teacher_is_not_trained_again_nor_lost(nonn_plan, teacher, pictures):
    before = teacher.read_bytes()
    said = nonn_plan(
        "train-teacher", "--network", "wrn10-1", "--data", f"imagefolder:{pictures}", "-o", teacher
    )
    assert said.code == 2
    assert "another teacher" in said.err
    assert teacher.read_bytes() == before


def test_a_wrong_fconv_lists_the_candidates(nonn_plan, teacher, tmp_path):
    said = nonn_plan("partition", teacher, "--fconv", "layer4", "-o", tmp_path / "p.json")
    assert said.code == 2
    assert "layer4" in said.err
    assert "trunk" in said.err
    assert not list(tmp_path.iterdir())


def test_a_partition_does_not_replace_its_teacher(nonn_plan, teacher):
    for target in (teacher, teacher.with_suffix(".json")):
        before = target.read_bytes()
        said = nonn_plan("partition", teacher, "--link-percentile", 50, "-o", target)
        assert said.code == 2
        assert target.read_bytes() == before


@pytest.mark.usefixtures("way")
def test_a_run_is_measured_against_its_own_plan_only(nonn_plan, folder, plan_file):
    """Another plan is refused before anything is evaluated."""
    run = folder / "run"
    before = (run / "evaluation.json").stat().st_mtime_ns
    said = nonn_plan("evaluate", run, "--plan", plan_file)
    assert said.code == 2
    assert "was not trained for this plan" in said.err
    assert (run / "evaluation.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("option", ["--rule", "--fconv", "--data"])
def test_a_saved_network_has_no_use_for_a_teachers_options(nonn_plan, tmp_path, option):
    said = nonn_plan("partition", tmp_path / "net.npz", option, "x")
    assert said.code == 2
    assert option in said.err


def test_one_unreadable_image_is_named(nonn_plan, pictures, tmp_path):
    import shutil

    broken = shutil.copytree(pictures, tmp_path / "broken")
    (broken / "train" / "left" / "3.png").write_bytes(b"\x89PNG not really")
    said = nonn_plan(
        "train-teacher", "--network", "wrn10-1", "--data", f"imagefolder:{broken}",
        "-o", tmp_path / "t.safetensors",
    )  # fmt: skip
    assert said.code == 2
    assert "train/left/3.png" in said.err
    assert said.err.strip().count("\n") == 0
    assert not list(tmp_path.glob("*.safetensors*"))


def test_a_saved_network_is_partitioned_without_a_teacher(nonn_plan, tmp_path):
    import numpy as np

    weights = np.zeros((9, 9))
    for group in (range(4), range(4, 8)):
        for i in group:
            for j in group:
                weights[i, j] = float(i != j)
    np.savez(tmp_path / "net.npz", filter_network=weights)
    out = tmp_path / "partition.json"
    call = ("partition", tmp_path / "net.npz", "--link-percentile", 0, "-o", out)
    said = nonn_plan(*call, "--json")
    assert said.code == 0, said.err
    assert [c["filters"] for c in said.document["communities"]] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8],
    ]
    assert said.document["communities"][-1]["linked"] is False
    assert "not measured" in nonn_plan(*call).out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["partition", "none.safetensors"], "none.safetensors: no such teacher"),
        (["partition", "none.npz"], "none.npz"),
        (["train", "none.yaml"], "none.yaml"),
        (["evaluate", "none"], "none"),
        (["train-teacher", "--network", "vgg"], "vgg"),
        (["train-teacher", "--network", "wrn10-1", "--data", "mnist"], "mnist"),
        (["train-teacher", "--network", "wrn10-1", "--data", "imagefolder:none"], "none"),
        (["train-teacher", "--network", "wrn10-1", "-o", "teacher.pt"], "teacher.pt"),
        (["train-teacher", "--network", "wrn10-1", "--learning-rate", "-1"], "learning_rate"),
        (["train-teacher", "--network", "wrn10-1", "--device", "cuda:99"], "no such device here"),
        (["train-teacher", "--network", "wrn10-1", "--precision", "fp8"], "precision"),
    ],
)
def test_bad_input_is_one_message(nonn_plan, arguments, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = nonn_plan(*arguments)
    assert said.code == 2
    assert told in said.err
    assert "Traceback" not in said.err
    assert not list(tmp_path.iterdir())


def test_a_wrong_rule(nonn_plan, teacher):
    said = nonn_plan("partition", teacher, "--rule", "XY")
    assert said.code == 2
    assert "AH or CA" in said.err
