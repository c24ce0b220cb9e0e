"""Exported models compute what was trained: run by onnxruntime as boards and host would."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from converted_once import conversions_kept
from safetensors.numpy import load_file

import nonn_core
from boards.host.inference import FeatureClassifier
from nonn_common.errors import ExportError, InputError
from nonn_core.data.dataset import load_dataset
from nonn_core.data.picture import PictureReading
from nonn_core.distillation.construction import build_network
from nonn_core.distillation.loop import student_vectors
from nonn_core.distillation.run import load_run, train, train_teacher
from nonn_core.distillation.run_evaluation import evaluate
from nonn_core.export import run_export as exporting
from nonn_core.export.bundle import read_bundle
from nonn_core.export.deployment import deployed_models, to_onnx
from nonn_core.export.onnx_model import inference, quantise_int8
from nonn_core.export.run_export import CALIBRATION_IMAGES, export, exported_network
from nonn_core.networks.family import parse_network
from nonn_core.networks.modules import StudentShape, build_nonn
from nonn_core.recipe import OptimiserRecipe, TrainingRecipe


def changed(recipe, **fields):
    return TrainingRecipe.check({**recipe.model_dump(mode="json"), **fields}, "this test")


def with_group0(recipe, group0):
    return changed(recipe, model={**recipe.model.model_dump(mode="json"), "group0": group0})


def session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Boards:
    """Reads a bundle from its manifest alone, as boards and host do."""

    def __init__(self, folder, precision):
        self.manifest = read_bundle(folder)
        self.models = []
        for model in self.manifest.models:
            (file,) = (one.file for one in model.files if one.precision == precision)
            self.models.append((model, session(folder / file)))
        fc = self.manifest.fc
        self.fc = None if fc is None else load_file(folder / fc.file)

    def __call__(self, pixels):
        shared = pixels
        vectors = None if self.fc is None else np.zeros((len(pixels), self.manifest.fc.inputs))
        for model, opened in self.models:
            (answer,) = opened.run([model.answers.name], {model.reads.name: shared})
            assert answer.dtype == np.float32
            assert answer.shape == (len(pixels), *model.answers.shape)
            if model.role == "group0":
                shared = answer
            elif vectors is None:
                return answer
            else:
                vectors[:, model.fc_offset : model.fc_offset + len(model.filters)] = answer
        return vectors @ self.fc["weight"].T + self.fc["bias"]


@pytest.fixture(scope="module", autouse=True)
def _conversions_kept():
    with conversions_kept():
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory, nonn_recipe, tiny):
    folder = tmp_path_factory.mktemp("export") / "run"
    train(nonn_recipe, folder, tiny)
    return folder


@pytest.fixture(scope="module")
def bundle(run, tiny):
    folder = run.parent / "bundle"
    export(run, folder, ("fp32", "int8"), tiny)
    return folder


def pixels_of(dataset):
    return dataset.test.pixels.float().numpy()


def logits_of(network, dataset):
    with torch.no_grad():
        return network.eval()(dataset.normalised(dataset.test.pixels))[0].numpy()


def test_boards_and_host_compute_the_logits_of_torch(bundle, run, tiny):
    expected = logits_of(load_run(run, tiny)[1], tiny)
    found = Boards(bundle, "fp32")(pixels_of(tiny))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(Boards(bundle, "int8")(pixels_of(tiny)) - expected).max() < 0.1 * np.ptp(expected)


def test_the_manifest_tells_the_truth(bundle, run, tiny, nonn_recipe):
    manifest = read_bundle(bundle)
    assert manifest.class_names == tiny.class_names
    assert manifest.data == tiny.source
    assert manifest.image == "3x8x8"
    assert manifest.pictures == PictureReading(channels=3)
    assert [model.name for model in manifest.models] == ["left", "right"]
    assert [model.fc_offset for model in manifest.models] == [0, 3]
    assert [model.filters for model in manifest.models] == [(0, 2, 7), (1, 3, 4, 5)]
    assert {path.name for path in bundle.iterdir()} == {
        "manifest.json",
        "fc.safetensors",
        *(f"student-{n}{s}" for n in ("left", "right") for s in (".onnx", ".int8.onnx")),
    }
    for one in manifest.files():
        content = (bundle / one.file).read_bytes()
        assert one.sha256 == hashlib.sha256(content).hexdigest()
        assert one.size_bytes == len(content)
    assert manifest.int8_form == "QOperator"
    assert manifest.opset == onnx.load(bundle / "student-left.onnx").opset_import[0].version
    labels = tiny.test.labels.numpy()
    network = logits_of(load_run(run, tiny)[1], tiny)
    for row in manifest.agreement:
        found = Boards(bundle, row.precision)(pixels_of(tiny))
        named = found.argmax(axis=1)
        assert row.images == 24
        assert row.accuracy_pct == pytest.approx(100 * (named == labels).mean())
        agreeing = (named == network.argmax(axis=1)).mean()
        assert row.label_agreement_pct == pytest.approx(100 * agreeing)
        assert row.largest_difference == pytest.approx(np.abs(found - network).max(), abs=1e-4)
        assert row.largest_logit == pytest.approx(np.abs(network).max())


def test_the_host_imputes_as_the_evaluation_of_the_run_did(bundle, run, tiny):
    """With either student missing; of all, it answers as the run."""
    manifest = read_bundle(bundle)
    assert manifest.fc.imputes
    recipe, network = load_run(run, tiny)
    vectors = [each.numpy() for each in student_vectors(network, tiny, tiny.test)]
    answers = dict(zip(("left", "right"), vectors, strict=True))
    classifier = FeatureClassifier(bundle, manifest)
    for subset in evaluate(network, recipe, tiny).subsets:
        came = {name: answers[name] for name in subset.students}
        for _ in range(2):
            logits = classifier.logits(24, manifest.models, came)
        right = (logits.argmax(axis=1) == tiny.test.labels.numpy()).mean()
        assert 100 * right == pytest.approx(subset.accuracy_pct)
    layer = network.feature_layer
    expected = layer.of(np.arange(7) < 3).logits(answers["left"])
    found = classifier.logits(24, manifest.models, {"left": answers["left"]})
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_batches_of_any_size(bundle, tiny):
    pixels = pixels_of(tiny)[:8]
    for precision in ("fp32", "int8"):
        boards = Boards(bundle, precision)
        together = np.concatenate([boards(pixels[:1]), boards(pixels[1:])])
        np.testing.assert_allclose(boards(pixels), together, atol=1e-5)


def test_models_hold_no_trace_of_the_machine(bundle):
    home = str(Path(nonn_core.__file__).parents[1]).encode()
    for model in bundle.glob("*.onnx"):
        content = model.read_bytes()
        assert home not in content
        assert b".py" not in content


def test_the_same_run_gives_the_same_files(bundle, run, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "to_onnx", to_onnx)
    export(run, tmp_path / "again", ("fp32", "int8"), tiny)
    assert len(list(bundle.iterdir())) == 6
    for path in bundle.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_calibration_sees_training_images_only(run, tiny, tmp_path, monkeypatch):
    seen = []

    def watched(model, examples, **form):
        seen.append(examples)
        return quantise_int8(model, examples, **form)

    monkeypatch.setattr(exporting, "quantise_int8", watched)
    export(run, tmp_path / "b", ("int8",), tiny)
    training = {image.tobytes() for image in tiny.train.pixels.float().numpy()}
    testing = {image.tobytes() for image in pixels_of(tiny)}
    assert len(seen) == 2
    for examples in seen:
        shown = {image.tobytes() for image in examples}
        assert len(shown) == min(CALIBRATION_IMAGES, len(tiny.train))
        assert shown <= training
        assert not shown & testing


@pytest.mark.parametrize(
    ("group0", "roles"),
    [
        ("own-board", ["group0", "head", "head"]),
        ("separate", ["student", "student"]),
    ],
)
def test_other_homes_of_group0(group0, roles, nonn_recipe, tiny, tmp_path):
    recipe = with_group0(nonn_recipe, group0)
    network = build_network(recipe, 3)
    # Statistics as after training, so that folding them is seen.
    network.train()(tiny.normalised(tiny.train.pixels))
    found = exported_network(network.eval(), recipe, ("fp32", "int8"), tiny)
    assert [part.role for part in found.parts] == roles
    fp32, int8 = found.agreement
    assert fp32.largest_difference < 1e-4
    assert fp32.label_agreement_pct == 100
    assert int8.largest_difference < 0.1 * int8.largest_logit
    sources = {"image": "maps", "maps": "vector"} if group0 == "own-board" else {"image": "vector"}
    assert {part.reads.name: part.answers.name for part in found.parts} == sources


@pytest.mark.parametrize(
    "model",
    [
        {"kind": "single", "network": "wrn10:4,6,9"},
        {"kind": "splitnet", "network": "wrn10:4,6,8", "groups": [2]},
    ],
)
def test_an_undivided_network_is_one_model(model, nonn_recipe, tiny, tmp_path):
    losses = {"beta": 0.0}
    recipe = changed(nonn_recipe, model=model, distillation=losses)
    network = build_network(recipe, 3).eval()
    found = exported_network(network, recipe, ("fp32", "int8"), tiny)
    (part,) = found.parts
    assert (part.role, part.stem, part.answers.name) == ("whole", "model", "logits")
    assert found.fc is None
    assert found.agreement[0].largest_difference < 1e-4
    expected = logits_of(network, tiny)
    onnx_logits = inference(found.models["fp32"]["model"])(pixels_of(tiny))
    np.testing.assert_allclose(onnx_logits, expected, atol=1e-4)


@pytest.mark.parametrize(
    "network", ["vgg11:8,8,16,16,16", "resnet18:8,8,16,16", "mobilenetv2-cifar-0.05"]
)
def test_every_family_is_exported(network):
    nonn = build_nonn([StudentShape(parse_network(network), 5)], 3, 4, seed=0)
    images = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    nonn.train()(images)
    student = next(nonn.deployed()).eval()
    model = to_onnx(student, images[:2], "image", "vector")
    with torch.no_grad():
        expected = student(images).numpy()
    np.testing.assert_allclose(inference(model)(images.numpy()), expected, atol=1e-4)
    rounded = inference(quantise_int8(model, images.numpy()))(images.numpy())
    assert np.corrcoef(rounded.ravel(), expected.ravel())[0, 1] > 0.98


def test_the_paper_s_student_is_small_in_int8():
    """Must hold: wrn16:32,64,88 with 0.43 M parameters takes at most 500,000 bytes."""
    shapes = [StudentShape(parse_network("wrn16:32,64,88"), filters) for filters in (34, 46)]
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    nonn = build_nonn(shapes, 3, 10, seed=0)
    for student in nonn.deployed():
        assert 430_000 < sum(p.numel() for p in student.parameters()) < 440_000
        model = quantise_int8(to_onnx(student, images[:2], "image", "vector"), images.numpy())
        assert len(model.SerializeToString()) <= 500_000


def test_int8_names_the_classes_of_float32(tmp_path, nonn_recipe):
    """Must hold, on digits: at least 99 % of the test images."""
    digits = load_dataset("digits")
    optimiser = OptimiserRecipe(epochs=4, batch_size=16, learning_rate=0.05)
    teacher = train_teacher(
        parse_network("wrn10:8,12,16"), digits, optimiser, 0, tmp_path / "teacher.safetensors"
    )
    network = teacher.network
    recipe = changed(
        nonn_recipe,
        image="1x16x16",
        model={"kind": "single", "network": "wrn10:8,12,16"},
    )
    found = exported_network(network, recipe, ("fp32", "int8"), digits)
    fp32, int8 = found.agreement
    assert fp32.accuracy_pct > 90
    assert fp32.label_agreement_pct == 100
    assert int8.label_agreement_pct >= 99


def test_any_name_makes_a_file_name(nonn_recipe, tiny):
    model = nonn_recipe.model.model_dump(mode="json")
    for student, name in zip(model["students"], ("../päth", "group0"), strict=True):
        student["name"] = name
    recipe = changed(nonn_recipe, model=model)
    network = build_network(recipe, 3).eval()
    assert [part.stem for part in deployed_models(network, recipe, tiny)] == [
        "student-..%2Fp%C3%A4th",
        "student-group0",
    ]


def test_a_model_that_computes_something_else_is_not_written(run, tiny, tmp_path, monkeypatch):
    right = exporting.to_onnx

    def wrong(*arguments):
        model = right(*arguments)
        weight = next(t for t in model.graph.initializer if len(t.dims) == 4)
        values = onnx.numpy_helper.to_array(weight) * 1.5
        weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), weight.name))
        return model

    monkeypatch.setattr(exporting, "to_onnx", wrong)
    with pytest.raises(ExportError, match="differ from the trained network"):
        export(run, tmp_path / "bundle", ("fp32",), tiny)
    assert not list(tmp_path.iterdir())


def test_an_occupied_place_is_said_before_the_work(run, tiny, tmp_path, monkeypatch):
    (tmp_path / "letter.txt").write_text("dear")
    monkeypatch.setattr(exporting, "load_run", lambda *_: pytest.fail("work was begun"))
    with pytest.raises(InputError, match=r"letter\.txt"):
        export(run, tmp_path, ("fp32",), tiny)


@pytest.mark.parametrize("damage", ["garbage", "missing"])
def test_a_damaged_or_unfinished_run_is_named(run, tiny, tmp_path, damage):
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    model = copy / "model.safetensors"
    model.unlink()
    if damage == "garbage":
        model.write_bytes(b"garbage")
    told = r"model\.safetensors" if damage == "garbage" else "copy.*not finished"
    with pytest.raises(InputError, match=told):
        export(copy, tmp_path / "bundle", ("fp32",), tiny)
    assert not (tmp_path / "bundle").exists()


def test_the_manifest_is_plain_json(bundle):
    content = json.loads((bundle / "manifest.json").read_text())
    assert content["schema_version"] == 1
    assert content["versions"].keys() == {"nonn-plan", "torch", "onnx", "onnxscript", "onnxruntime"}
