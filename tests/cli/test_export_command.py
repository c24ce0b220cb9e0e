"""From a run to a bundle with the real command."""

import json
import shutil

import onnx
import onnxruntime
import pytest
from converted_once import conversions_kept

from boards.board_fit import bundle_fits
from boards.worker.model_runtime import load_models
from nonn_core.export.bundle import read_bundle
from planner.plan_file.plan_document import PlanDocument
from planner.problem.budgets import BoardBudget


@pytest.fixture(scope="module", autouse=True)
def _conversions_kept():
    with conversions_kept():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("exporting")


@pytest.fixture
def planned_run(nonn_plan, pictures, folder):
    """A run and its plan, made by the commands once."""
    teacher, partition = folder / "teacher.safetensors", folder / "partition.json"
    plan, recipe, run = folder / "plan.json", folder / "train.yaml", folder / "run"
    if not run.exists():
        for call in (
            ["train-teacher", "--network", "wrn10:8,12,16", "--data", f"imagefolder:{pictures}",
             "--epochs", 3, "--batch-size", 16, "-o", teacher],
            ["partition", teacher, "--link-percentile", 50, "-o", partition],
            ["plan", partition, "--fleet", "rpi3x2", "--students", 2, "--memory", "200KB",
             "--precision", "int8", "-o", plan],
            ["config", plan, "--epochs", 3, "--batch-size", 16, "-o", recipe],
            ["train", recipe, "-o", run],
        ):  # fmt: skip
            said = nonn_plan(*call)
            assert said.code == 0, said.err
    return run, plan


def test_a_run_becomes_a_bundle(nonn_plan, planned_run, folder):
    run, plan = planned_run
    bundle = folder / "bundle"
    said = nonn_plan("export", run, "-o", bundle, "--plan", plan, "--json")
    assert said.code == 0, said.err
    manifest = read_bundle(bundle)
    document = said.document
    boards = document.pop("boards")
    assert document == manifest.model_dump(mode="json")
    assert {model.name: model.planned for model in manifest.models} == {
        student.name: student.precision for student in PlanDocument.read(plan).students
    }
    assert [row.precision for row in manifest.agreement] == ["fp32", "int8"]
    assert manifest.agreement[0].label_agreement_pct == 100
    assert all(row.images == 30 for row in manifest.agreement)
    for one in manifest.models:
        for file in one.files:
            session = onnxruntime.InferenceSession(bundle / file.file)
            assert [port.name for port in session.get_inputs()] == ["image"]
    students = {student["name"]: student for student in json.loads(plan.read_text())["students"]}
    assert len(boards) == 4
    for fit in boards:
        (name,) = fit["students"]
        student = students[name]
        value = 4 if fit["precision"] == "fp32" else 1
        (model,) = (model for model in manifest.models if model.name == name)
        (file,) = (file for file in model.files if file.precision == fit["precision"])
        assert fit["board"] == student["board"]
        assert fit["file_bytes"] == file.size_bytes
        assert fit["activation_bytes"] == value * student["peak_elements"]
        assert fit["planned_bytes"] == value * (student["params"] + student["peak_elements"])
        assert fit["limit_bytes"] == 200_000
        assert fit["fits"] == (fit["file_bytes"] + fit["activation_bytes"] <= 200_000)


def test_what_the_runtime_takes_of_a_budget_is_not_for_models(nonn_plan, planned_run, tmp_path):
    run, plan_file = planned_run
    assert nonn_plan("export", run, "-o", tmp_path / "bundle", "--precision", "int8").code == 0
    plan, bundle = PlanDocument.read(plan_file), read_bundle(tmp_path / "bundle")
    (fit, *_) = bundle_fits(plan, bundle)
    needed = fit.file_bytes + fit.activation_bytes
    for runtime_bytes in (0, 1):
        rows = [
            {**row.model_dump(), "memory_bytes": needed, "runtime_bytes": runtime_bytes}
            for row in plan.question.budgets
        ]
        question = plan.question.model_copy(
            update={"budgets": tuple(map(BoardBudget.model_validate, rows))}
        )
        (again, *_) = bundle_fits(plan.model_copy(update={"question": question}), bundle)
        assert again.limit_bytes == needed - runtime_bytes
        assert again.fits == (not runtime_bytes)


def test_people_see_sizes_and_agreement(nonn_plan, planned_run, folder):
    run, plan = planned_run
    said = nonn_plan("export", run, "-o", folder / "shown", "--plan", plan, "--precision", "int8")
    assert said.code == 0, said.err
    for told in (".int8.onnx", "fc.safetensors", "same label", "%", "200", "written to"):
        assert told in said.out
    assert "Traceback" not in said.err
    assert {file.precision for model in read_bundle(folder / "shown").models
            for file in model.files} == {"int8"}  # fmt: skip


def test_models_for_ncnn_on_request(nonn_plan, planned_run, folder):
    pytest.importorskip("ncnn", reason="ncnn is not installed")
    pytest.importorskip("pnnx", reason="pnnx is not installed")
    run, _ = planned_run
    said = nonn_plan("export", run, "-o", folder / "ncnn", "--precision", "int8", "--ncnn")
    assert said.code == 0, said.err
    models = read_bundle(folder / "ncnn").models
    assert len(models) == 2
    assert all(model.ncnn is not None for model in models)
    assert "fp32, ncnn" in said.out
    assert {path.suffix for path in (folder / "ncnn").iterdir()} >= {".param", ".bin"}


def test_c_libraries_on_request(nonn_plan, planned_run, folder, monkeypatch):
    run, _ = planned_run
    call = ("export", run, "-o", folder / "c", "--precision", "int8", "--c")
    said = nonn_plan(*call)
    assert said.code == 0, said.err
    manifest = read_bundle(folder / "c")
    assert {one.file for one in manifest.c_files} == {
        "nonn_kernels.c", "nonn_kernels.h",
        *(name for model in manifest.models for name in model.c.files),
    }  # fmt: skip
    assert {path.name for path in (folder / "c").iterdir() if path.suffix in (".c", ".h")} == {
        one.file for one in manifest.c_files
    }
    assert manifest.c_agreement.images == manifest.agreement[0].images
    for told in ("int8, in C", "one step off", "kernels", manifest.models[0].c.source):
        assert told in said.out
    compiled = shutil.which("cc") is not None
    for model in manifest.models:
        assert model.c.values == (len(model.filters) * model.c.images if compiled else None)
    monkeypatch.setattr("nonn_core.firmware.checked_library.COMPILER", "no-such-compiler")
    said = nonn_plan(*call, "--json")
    assert said.code == 0, said.err
    assert "no C compiler (cc) is here" in said.err
    assert said.document["models"][0]["c"]["values_off"] is None


def test_a_bundle_for_other_servers(nonn_plan, planned_run, folder):
    """Plain convolutions between QuantizeLinear and DequantizeLinear, and the manifest says so."""
    run, _ = planned_run
    said = nonn_plan("export", run, "-o", folder / "qdq", "--precision", "int8", "--qdq")
    assert said.code == 0, said.err
    assert "int8, QDQ" in said.out
    manifest = read_bundle(folder / "qdq")
    assert manifest.int8_form == "QDQ"
    for model in manifest.models:
        (file,) = model.files
        kinds = {node.op_type for node in onnx.load(folder / "qdq" / file.file).graph.node}
        assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= kinds
        assert not any(kind.startswith("QLinear") for kind in kinds)
    # Our worker runs them, too.
    models = load_models(folder / "qdq", [model.name for model in manifest.models])
    assert [model.precision for model in models] == ["int8", "int8"]


def test_fine_tuning_for_int8(nonn_plan, planned_run, folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    run, plan = planned_run
    tuned = folder / "run-int8"
    call = ("quantise", run, "--epochs", 2, "-o", tuned)
    said = nonn_plan(*call, "--json")
    assert said.code == 0, said.err
    assert [row["epoch"] for row in said.document["history"]] == [1, 2]
    for row in ("before", "after"):
        assert said.document[row]["precision"] == "int8"
        assert said.document[row]["images"] == 30
    after = said.document["after"]
    shown = nonn_plan(*call)
    assert "int8 after fine-tuning" in shown.out
    assert nonn_plan("evaluate", tuned, "--plan", plan).code == 0
    said = nonn_plan("export", tuned, "-o", folder / "tuned", "--precision", "int8", "--json")
    assert said.document["agreement"] == [after]


def test_another_plan_is_refused(nonn_plan, planned_run, plan_file, tmp_path):
    run, _ = planned_run
    said = nonn_plan("export", run, "--plan", plan_file, "-o", tmp_path / "bundle")
    assert said.code == 2
    assert "was not trained for this plan" in said.err
    assert not (tmp_path / "bundle").exists()


def test_a_folder_of_something_else_is_not_replaced(nonn_plan, planned_run):
    run, _ = planned_run
    before = sorted(path.name for path in run.iterdir())
    said = nonn_plan("export", run, "-o", run)
    assert said.code == 2
    assert "something else than a bundle" in said.err
    assert sorted(path.name for path in run.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["export", "none"], "none"),
        (["export", "none", "--precision", "fp16"], "fp32, int8 or both"),
        (["export", "none", "--precision", "fp32", "--qdq"], "allowed: int8 or both"),
        (["export", "none", "--plan", "no-plan.json"], "none"),
        (["quantise", "none"], "none"),
        (["quantise", "none", "--epochs", "0"], "--epochs"),
    ],
)
def test_bad_input_is_one_message(nonn_plan, arguments, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = nonn_plan(*arguments)
    assert said.code == 2
    assert told in said.err
    assert "Traceback" not in said.err
    assert not list(tmp_path.iterdir())
