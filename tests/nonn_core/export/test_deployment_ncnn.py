"""Models for ncnn compute what the fp32 ONNX models do, or are not written."""

import hashlib
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from converted_once import conversions_kept

import nonn_core
from nonn_common.errors import ExportError, InputError
from nonn_core.distillation.construction import build_network
from nonn_core.distillation.run import load_run, train
from nonn_core.export import deployment
from nonn_core.export import run_export as exporting
from nonn_core.export.bundle import read_bundle
from nonn_core.export.deployment import (
    OnPixels,
    convert_to_ncnn,
    deployed_models,
    ncnn_models,
    to_onnx,
)
from nonn_core.export.ncnn_net import NcnnNet
from nonn_core.export.onnx_model import inference
from nonn_core.export.run_export import export, exported_network
from nonn_core.networks.family import parse_network
from nonn_core.networks.modules import StudentShape, build_nonn
from nonn_core.recipe import TrainingRecipe

MISSING = [name for name in deployment.NCNN_PACKAGES if find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {' and '.join(MISSING)}")


def changed(recipe, **fields):
    return TrainingRecipe.check({**recipe.model_dump(mode="json"), **fields}, "this test")


def with_group0(recipe, group0):
    return changed(recipe, model={**recipe.model.model_dump(mode="json"), "group0": group0})


@pytest.fixture(scope="module", autouse=True)
def _conversions_kept():
    with conversions_kept():
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory, nonn_recipe, tiny):
    folder = tmp_path_factory.mktemp("ncnn") / "run"
    train(nonn_recipe, folder, tiny)
    return folder


@pytest.fixture(scope="module")
def bundle(run, tiny):
    folder = run.parent / "bundle"
    export(run, folder, ("fp32",), tiny, ncnn=True)
    return folder


def pixels_of(dataset):
    return dataset.test.pixels.float().numpy()


class Scaled:
    """The mean and deviation of a data set."""

    mean = torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1)
    std = torch.tensor([0.2, 0.25, 0.3]).view(1, 3, 1, 1)


def trained_alike(network, size):
    """Return a NoNN of one student with statistics as after training, and images."""
    nonn = build_nonn([StudentShape(parse_network(network), 5)], 3, 4, seed=0)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (16, 3, size, size), generator=generator).float()
    nonn.train()((images / 255 - Scaled.mean) / Scaled.std)
    return nonn.eval(), images


@pytest.mark.parametrize(
    ("network", "size"),
    [
        ("wrn10:4,6,9", 15),
        ("vgg11:8,8,16,16,16", 32),
        ("resnet18:8,8,16,16", 32),
        ("mobilenetv2-cifar-0.05", 32),
    ],
)
def test_every_family_is_converted(network, size):
    nonn, images = trained_alike(network, size)
    student = OnPixels(next(nonn.deployed()).eval(), Scaled)
    model = to_onnx(student, images[:2], "image", "vector")
    expected = inference(model)(images.numpy())
    files = convert_to_ncnn(model, images.shape[1:], "this")
    found = NcnnNet.open(*files, 1, "this")(images.numpy())
    assert found.shape == expected.shape
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_the_manifest_tells_of_ncnn(bundle, tiny):
    manifest = read_bundle(bundle)
    for model in manifest.models:
        files = model.ncnn
        assert files.param.file == f"student-{model.name}.ncnn.param"
        assert files.weights.file == f"student-{model.name}.ncnn.bin"
        for one in (files.param, files.weights):
            content = (bundle / one.file).read_bytes()
            assert one.sha256 == hashlib.sha256(content).hexdigest()
            assert one.size_bytes == len(content)
        opened = NcnnNet.open(
            (bundle / files.param.file).read_bytes(),
            (bundle / files.weights.file).read_bytes(),
            1,
            "this test",
        )
        exact = inference(onnx.load(bundle / model.files[0].file))(pixels_of(tiny))
        found = opened(pixels_of(tiny))
        assert files.images == len(tiny.test) == 24
        assert files.largest_value == pytest.approx(np.abs(exact).max())
        assert files.largest_difference == pytest.approx(np.abs(found - exact).max(), abs=1e-5)
        assert 0 < files.largest_difference < 1e-3 * files.largest_value
    names = [one.file for one in manifest.files()]
    assert {path.name for path in bundle.iterdir()} == {"manifest.json", *names}
    assert manifest.versions.keys() >= {"ncnn", "pnnx"}


def onnx_models(bundle):
    """Return the models of the bundle by the stem of their part."""
    stems = ("student-left", "student-right")
    return {stem: onnx.load(bundle / f"{stem}.onnx") for stem in stems}


def files_of(bundle, stem):
    return tuple((bundle / f"{stem}.ncnn.{kind}").read_bytes() for kind in ("param", "bin"))


def test_the_same_model_gives_the_same_files(bundle):
    for stem, model in onnx_models(bundle).items():
        assert convert_to_ncnn(model, (3, 8, 8), stem) == files_of(bundle, stem)


def test_models_hold_no_trace_of_the_machine(bundle):
    places = (Path(nonn_core.__file__).parents[1], Path(sys.prefix), Path.home())
    for path in bundle.glob("*.ncnn.*"):
        content = path.read_bytes()
        assert b".onnx" not in content
        for place in (*places, "/tmp"):  # noqa: S108  (to be absent)
            assert str(place).encode() not in content


def test_int8_alone_has_models_for_ncnn_too(run, nonn_recipe, tiny, monkeypatch):
    """Made of the fp32 models, and judged by a few test images: ncnn computes one by one."""
    seen = []
    monkeypatch.setattr(exporting, "CHECK_IMAGES", 7)
    monkeypatch.setattr(exporting, "ncnn_models", lambda *given: seen.append(given) or {})
    _, network = load_run(run, tiny)
    found = exported_network(network.eval(), nonn_recipe, ("int8",), tiny, ncnn=True)
    ((parts_given, fp32, pixels, _),) = seen
    assert set(found.models) == {"int8"}
    assert parts_given == found.parts
    assert "Conv" in {node.op_type for node in fp32["student-left"].graph.node}
    assert "QLinearConv" not in {node.op_type for node in fp32["student-left"].graph.node}
    np.testing.assert_array_equal(pixels, pixels_of(tiny)[:7])


def test_a_group0_of_its_own_and_its_heads(nonn_recipe, tiny):
    recipe = with_group0(nonn_recipe, "own-board")
    network = build_network(recipe, 3)
    network.train()(tiny.normalised(tiny.train.pixels))
    found = exported_network(network.eval(), recipe, ("fp32",), tiny, ncnn=True)
    nets = {
        stem: NcnnNet.open(made.param, made.weights, 1, stem) for stem, made in found.ncnn.items()
    }
    assert set(nets) == {"group0", "student-left", "student-right"}
    maps = nets["group0"](pixels_of(tiny))
    vectors = [nets[part.stem](maps) for part in found.parts if part.role == "head"]
    with torch.no_grad():
        expected = network(tiny.normalised(tiny.test.pixels))[0].numpy()
    np.testing.assert_allclose(
        found.fc.logits(np.concatenate(vectors, axis=1)), expected, atol=1e-4
    )


def undivided(recipe, model):
    recipe = changed(recipe, model=model, distillation={"beta": 0.0})
    return build_network(recipe, 3).eval(), recipe


def test_an_undivided_network(nonn_recipe, tiny):
    network, recipe = undivided(nonn_recipe, {"kind": "single", "network": "wrn10:4,6,9"})
    made = exported_network(network, recipe, ("fp32",), tiny, ncnn=True).ncnn["model"]
    found = NcnnNet.open(made.param, made.weights, 1, "model")(pixels_of(tiny))
    with torch.no_grad():
        expected = network(tiny.normalised(tiny.test.pixels))[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_what_is_converted_wrongly_is_refused(nonn_recipe, tiny):
    """ncnn would end the process."""
    model = {"kind": "splitnet", "network": "wrn10:4,6,8", "groups": [2]}
    network, recipe = undivided(nonn_recipe, model)
    with pytest.raises(ExportError, match=r"model: pnnx cannot be trusted to convert .*Gather"):
        exported_network(network, recipe, ("fp32",), tiny, ncnn=True)


def wrong_weights(weights):
    """Return weights a hundredth larger, the flags between them being no such numbers."""
    values = np.frombuffer(weights, np.float32).copy()
    values[np.abs(values) > 1e-30] *= 1.01
    return values.tobytes()


def no_numbers(weights):
    values = np.frombuffer(weights, np.float32).copy()
    values[-1] = np.nan
    return values.tobytes()


@pytest.fixture
def conversion(bundle, run, tiny, monkeypatch):
    """Return a call that makes the models for ncnn of the run, pnnx giving what is said."""
    recipe, network = load_run(run, tiny)
    deployed = tuple(deployed_models(network, recipe, tiny))

    def convert(gives):
        monkeypatch.setattr(deployment, "convert_to_ncnn", lambda *given: gives(given[-1]))
        return ncnn_models(deployed, onnx_models(bundle), pixels_of(tiny))

    return convert


@pytest.mark.parametrize("damage", [wrong_weights, no_numbers])
def test_a_model_that_computes_something_else_is_refused(bundle, conversion, damage):
    def damaged(stem):
        param, weights = files_of(bundle, stem)
        return param, damage(weights)

    right = conversion(lambda stem: files_of(bundle, stem))
    assert set(right) == {"student-left", "student-right"}
    with pytest.raises(ExportError, match=r"student-left: the model for ncnn differs .* a value"):
        conversion(damaged)


def test_a_model_of_another_shape_is_refused(bundle, conversion):
    with pytest.raises(ExportError, match=r"student-right: .* shape \(3,\) in place of \(4,\)"):
        conversion(lambda _: files_of(bundle, "student-left"))


@pytest.mark.parametrize("program", ["exit 3", "exit 0"])
def test_a_failing_conversion_says_so(run, tiny, tmp_path, monkeypatch, program):
    import pnnx

    failing = tmp_path / "pnnx"
    failing.write_text(f"#!/bin/sh\necho 'no such layer' >&2\n{program}\n")
    failing.chmod(0o700)
    monkeypatch.setattr(pnnx, "EXEC_PATH", str(failing))
    with pytest.raises(ExportError, match=rf"exit code {program[-1]}: no such layer\).*nothing"):
        export(run, tmp_path / "bundle", ("fp32",), tiny, ncnn=True)
    assert list(tmp_path.iterdir()) == [failing]


def test_missing_packages_are_named_before_the_work(run, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "load_run", lambda *_: pytest.fail("work was begun"))
    monkeypatch.setattr(deployment, "find_spec", lambda name: None if name == "pnnx" else name)
    with pytest.raises(InputError, match=r"--ncnn: .*need pnnx; pip install 'nonn-plan\[ncnn\]'"):
        export(run, tmp_path / "bundle", ("fp32",), tiny, ncnn=True)
