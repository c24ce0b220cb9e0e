"""`table` and `tune`, on real images small enough for a test."""

import json

import pytest

from nonn_common.errors import StoppedError
from nonn_core.distillation import loop
from nonn_core.experiments import row_training

ROWS = ("teacher", "kd", "atkd", "nonn-2s", "nonn-2s-xl")


def arguments(table, pictures, folder, *more):
    return [
        "table", table, "--data", f"imagefolder:{pictures}", "--teacher-network", "wrn16-2",
        "--epochs", 1, "--teacher-epochs", 1, "--batch-size", 30, "--subset", 20,
        "-o", folder, *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables") / "experiment"


@pytest.fixture
def call(nonn_plan, replaced, pictures, folder):
    def table(name, *more):
        return nonn_plan(*replaced(arguments(name, pictures, folder), *more))

    return table


@pytest.fixture
def table_2(call):
    said = call("2", "--rows", "kd,atkd,nonn-2s,nonn-2s-xl", "--seeds", 2, "--json")
    assert said.code == 0, said.err
    return said.document


def test_a_table_is_trained_seed_by_seed(table_2, folder):
    assert [row["row"] for row in table_2["rows"]] == list(ROWS)
    assert table_2["training_images"] == 54
    assert table_2["test_images"] == 30
    teacher = table_2["rows"][0]["accuracy_pct"]
    for row in table_2["rows"][1:]:
        first, second = (run["accuracy_pct"] for run in row["runs"])
        assert [run["seed"] for run in row["runs"]] == [0, 1]
        assert row["accuracy_pct"] == pytest.approx((first + second) / 2)
        assert row["std_pct"] == pytest.approx(abs(first - second) / 2**0.5)
        assert row["minus_teacher_pct"] == pytest.approx(row["accuracy_pct"] - teacher)
        for run in row["runs"]:
            place = folder / row["row"] / f"seed-{run['seed']}"
            found = json.loads((place / "evaluation.json").read_text())
            assert found["accuracy_pct"] == run["accuracy_pct"]
    assert table_2["rows"][3]["published_minus_teacher_pct"] == pytest.approx(94.32 - 95.49)
    # Two validation images of a class are too few, which the file need not hold.
    warnings = table_2.get("warnings", [])
    assert any(text.startswith("the rarest class has 2 validation images") for text in warnings)
    kept = {name: value for name, value in table_2.items() if name != "warnings"}
    assert json.loads((folder / "table-2.json").read_text()) == kept


def test_what_is_kept_says_how_it_was_made(table_2, folder):
    text = (folder / "table-2.md").read_text()
    for told in ("Table 2", "94.32 ± 0.17", "first seed 0", "torch", "54 training images"):
        assert told in text
    assert table_2["experiment"]["images_per_class"] == 20
    assert table_2["versions"]["torch"]
    assert table_2["machine"]["processor"]


def test_a_second_table_shares_teacher_and_runs(call, table_2, monkeypatch):
    monkeypatch.setattr(loop, "_train_epoch", None)
    said = call("4", "--rows", "nonn-2s", "--seeds", 2, "--json")
    assert said.code == 0, said.err
    assert said.document["rows"][1]["runs"] == table_2["rows"][3]["runs"]


def test_rows_of_earlier_calls_stay(call, table_2):
    said = call("2", "--rows", "atkd-large", "--seeds", 1, "--json")
    assert said.code == 0, said.err
    assert [row["row"] for row in said.document["rows"]] == [*ROWS, "atkd-large"]
    assert said.document["rows"][:5] == table_2["rows"]


def test_figure_8_has_every_subset(call, table_2, folder):
    said = call("fig8", "--seeds", 1, "--json")
    assert said.code == 0, said.err
    robustness, run = said.document["robustness"], said.document["rows"][1]["runs"][0]
    counts = [one["subsets"] for one in robustness["answering"]]
    assert counts == [8, 28, 56, 70, 56, 28, 8, 1]
    assert len(run["subsets"]) == 255
    assert robustness["answering"][-1]["mean_pct"] == pytest.approx(run["accuracy_pct"])
    assert "published 82.82" in (folder / "fig8.md").read_text()


def test_a_ready_teacher_is_taken(nonn_plan, replaced, table_2, folder, pictures, tmp_path):
    call = ["table", "2", "--teacher", folder / "teacher.safetensors", "--rows", "teacher",
            "--data", f"imagefolder:{pictures}", "--subset", 20, "-o", tmp_path]  # fmt: skip
    said = nonn_plan(*call, "--json")
    assert said.code == 0, said.err
    assert said.document["rows"] == table_2["rows"][:1]
    assert not (tmp_path / "teacher.safetensors").exists()
    said = nonn_plan(*replaced(call, "--teacher-network", "wrn40-4"))
    assert said.code == 2
    assert "wrn16" in said.err


def test_another_experiment_does_not_get_into_the_folder(call, table_2):
    said = call("2", "--subset", 10)
    assert said.code == 2
    assert "another experiment" in said.err


def test_a_stopped_table_keeps_its_rows_and_goes_on(nonn_plan, pictures, tmp_path, monkeypatch):
    call = arguments("2", pictures, tmp_path, "--rows", "kd,atkd", "--seeds", 1)
    whole = row_training.train_row

    def stopped_in_the_second_row(bench, row, *rest):
        if row.name == "atkd":
            raise StoppedError("stopped by Ctrl-C")
        return whole(bench, row, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(row_training, "train_row", stopped_in_the_second_row)
        said = nonn_plan(*call)
    assert said.code == 1
    assert "run the same command again" in said.err
    kept = json.loads((tmp_path / "table-2.json").read_text())
    assert [row["row"] for row in kept["rows"]] == ["teacher", "kd"]
    said = nonn_plan(*call, "--json")
    assert said.code == 0, said.err
    assert said.document["rows"][:2] == kept["rows"]
    assert [row["row"] for row in said.document["rows"]] == ["teacher", "kd", "atkd"]


def test_a_stale_evaluation_is_not_believed(nonn_plan, pictures, tmp_path):
    call = arguments("2", pictures, tmp_path, "--rows", "kd", "--seeds", 1)
    said = nonn_plan(*call, "--json")
    assert said.code == 0, said.err
    (file,) = tmp_path.glob("kd/seed-*/evaluation.json")
    told = json.loads(file.read_text())
    file.write_text(json.dumps({**told, "weights": "0" * 32, "accuracy_pct": 1.5}))
    again = nonn_plan(*call, "--json")
    assert again.document["rows"] == said.document["rows"]
    file.write_text(json.dumps({**told, "accuracy_pct": 1.5}))
    assert nonn_plan(*call, "--json").document["rows"][1]["accuracy_pct"] == 1.5  # as it says so


def test_rows_of_another_teacher_are_not_mixed(nonn_plan, pictures, tmp_path):
    call = arguments("2", pictures, tmp_path / "out", "--rows", "kd", "--seeds", 1)
    assert nonn_plan(*call).code == 0
    table = tmp_path / "out" / "table-2.json"
    kept = json.loads(table.read_text())
    table.write_text(json.dumps({**kept, "teacher_fingerprint": "0" * 32}))
    said = nonn_plan(*call)
    assert said.code == 2
    assert "rows of another teacher" in said.err


def test_a_call_that_cannot_work_leaves_the_folder_free(nonn_plan, pictures, tmp_path):
    call = arguments("2", pictures / "nowhere", tmp_path, "--rows", "kd", "--seeds", 1)
    said = nonn_plan(*call)
    assert said.code == 2, said.err
    assert not (tmp_path / "experiment.yaml").exists()


def test_a_grid_is_tuned_by_validation(call, table_2, folder):
    said = call("2", "--rows", "kd,nonn-2s", "--seeds", 1, "--set", "distillation.beta=1,100",
                "--json")  # fmt: skip
    assert said.code == 0, said.err
    rows = {row["row"]: row for row in said.document["rows"]}
    kd, nonn = rows["kd"], rows["nonn-2s"]
    assert kd["trials"] == []
    assert [trial["setting"] for trial in nonn["trials"]] == [
        {"distillation.beta": 1.0},
        {"distillation.beta": 100.0},
    ]
    best = max(trial["validation_accuracy_pct"] for trial in nonn["trials"])
    assert nonn["runs"][0]["validation_accuracy_pct"] == best
    assert (folder / "nonn-2s" / "beta=1" / "seed-0" / "model.safetensors").exists()


def test_costs_need_neither_data_nor_training(nonn_plan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = nonn_plan("table", "3", "--costs", "--json")
    assert said.code == 0, said.err
    assert list(said.document)[:2] == ["teacher", "kd"]
    assert said.document["teacher"]["total_params"] == 36_536_884
    assert "36.54 M (36.50 M)" in nonn_plan("table", "3", "--costs").out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["7"], "fig8"),
        (["5"], "--data"),
        (["2", "--rows", "kd,nonn-9s"], "nonn-9s"),
        (["2", "--against", "mnist"], "cub"),
        (["2", "--teacher-network", "vgg11"], "wrn16-2"),
        (["2", "--teacher", "a.module:net"], "--teacher-network"),
        (["2", "--teacher", "hub.safetensors"], "hub.json beside it"),
        (["2", "--set", "beta=1"], "distillation.beta"),
        (["2", "--data", "imagefolder:none"], "none"),
        (["2", "--precision", "fp8"], "precision"),
    ],
)
def test_bad_input_is_one_message(nonn_plan, wrong, told, tmp_path):
    said = nonn_plan("table", *wrong, "-o", tmp_path / "out")
    assert said.code == 2
    assert told in said.err
    assert said.err.strip().count("\n") == 0


@pytest.fixture
def recipe_file(table_2, folder):
    return folder / "nonn-2s" / "seed-0" / "train.yaml"


def test_tune_keeps_the_setting_that_validates_best(nonn_plan, recipe_file, tmp_path, pictures):
    call = ["tune", recipe_file, "--set", "distillation.beta=0,50", "--epochs", 2, "-o", tmp_path]
    said = nonn_plan(*call, "--json")
    assert said.code == 0, said.err
    found = {
        trial["setting"]["distillation.beta"]: trial["validation_accuracy_pct"]
        for trial in said.document
    }
    for beta, accuracy in found.items():
        lines = (tmp_path / f"beta={beta:g}" / "metrics.jsonl").read_text().splitlines()
        assert len(lines) == 2
        assert json.loads(lines[-1])["validation_accuracy_pct"] == accuracy
        assert not (tmp_path / f"beta={beta:g}" / "evaluation.json").exists()
    from nonn_core.recipe import TrainingRecipe

    kept, given = (TrainingRecipe.read(path) for path in (tmp_path / "best.yaml", recipe_file))
    assert kept.distillation.beta == max(found, key=found.get)
    assert kept.optimiser == given.optimiser
    assert "kept" in nonn_plan(*call).out


def test_tune_needs_something_to_choose_from(nonn_plan, recipe_file, tmp_path):
    said = nonn_plan("tune", recipe_file, "--set", "distillation.beta=5", "-o", tmp_path)
    assert said.code == 2
    assert "--set" in said.err


def test_config_writes_further_students(nonn_plan, plan_file, tmp_path):
    call = ["config", plan_file, "--data", "digits", "--teacher", "t.safetensors", "--json"]
    two = nonn_plan(*call, "-o", tmp_path / "two.yaml").document["model"]["students"]
    said = nonn_plan(*call, "--students", 5, "-o", tmp_path / "five.yaml")
    assert said.code == 0, said.err
    five = said.document["model"]["students"]
    assert five[:2] == two
    assert len({one["name"] for one in five}) == 5
    assert [one["network"] for one in five] == [two[k % 2]["network"] for k in range(5)]
    known = sorted(two[0]["filters"] + two[1]["filters"])
    assert sorted(five[2]["filters"] + five[3]["filters"]) == known
    fewer = nonn_plan(*call, "--students", 1, "-o", tmp_path / "one.yaml")
    assert fewer.code == 2
    assert not (tmp_path / "one.yaml").exists()
