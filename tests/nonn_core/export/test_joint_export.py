"""A board's students exported as one model: G0 once, the same vectors, a head for each."""

from importlib.util import find_spec

import numpy as np
import onnx
import pytest
import torch
from converted_once import conversions_kept

from nonn_common.errors import ExportError
from nonn_core.distillation.construction import build_network
from nonn_core.export import run_export as exporting
from nonn_core.export.bundle import MANIFEST, Manifest
from nonn_core.export.deployment import NCNN_PACKAGES, deployed_models
from nonn_core.export.ncnn_net import NcnnNet
from nonn_core.export.onnx_model import inference
from nonn_core.export.run_export import export, exported_network
from nonn_core.recipe import TrainingRecipe

JOINT = {"students-of-b0": ("left", "right")}


@pytest.fixture(scope="module", autouse=True)
def _conversions_kept():
    with conversions_kept():
        yield


@pytest.fixture(scope="module")
def network(nonn_recipe, tiny):
    """Weights as drawn, statistics as after training, no two normalisations alike."""
    built = build_network(nonn_recipe, 3)
    built.train()(tiny.normalised(tiny.train.pixels))
    drawn = torch.Generator().manual_seed(0)
    for module in built.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5, generator=drawn)
    return built.eval()


@pytest.fixture(scope="module")
def found(network, nonn_recipe, tiny):
    return exported_network(network, nonn_recipe, ("fp32", "int8"), tiny, joint=JOINT)


@pytest.fixture(scope="module")
def parts(network, nonn_recipe, tiny):
    """G0 and heads, each a model of its own, in fp32 and int8."""
    content = nonn_recipe.model.model_dump(mode="json") | {"group0": "own-board"}
    recipe = TrainingRecipe.check(
        {**nonn_recipe.model_dump(mode="json"), "model": content}, "this test"
    )
    return exported_network(network, recipe, ("fp32", "int8"), tiny)


def pixels_of(dataset):
    return dataset.test.pixels.float().numpy()


def macs_of(model, image):
    """Multiply-accumulates of all convolutions, from the graph and its shapes."""
    sized = onnx.ModelProto()
    sized.CopyFrom(model)
    sized.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in onnx.shape_inference.infer_shapes(sized, strict_mode=True).graph.value_info
    }
    tensors = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    total = 0
    for node in model.graph.node:
        if node.op_type == "Conv":
            _, channels, height, width = shapes[node.output[0]]
            assert channels == tensors[node.input[1]][0]
            total += height * width * int(np.prod(tensors[node.input[1]]))
    return total


def weights_of(model):
    """Values of all weights of convolutions, of whichever precision."""
    convolutions = [node for node in model.graph.node if node.op_type in ("Conv", "QLinearConv")]
    names = {node.input[3 if node.op_type == "QLinearConv" else 1] for node in convolutions}
    return sum(int(np.prod(t.dims)) for t in model.graph.initializer if t.name in names)


def test_g0_is_in_the_graph_once(found, parts):
    joint = found.models["fp32"]["students-of-b0"]
    single = [found.models["fp32"][f"student-{name}"] for name in ("left", "right")]
    group0 = parts.models["fp32"]["group0"]
    heads = [parts.models["fp32"][f"student-{name}"] for name in ("left", "right")]
    for count in (lambda model: macs_of(model, "3x8x8"), weights_of):
        assert count(group0) > 0
        assert count(joint) == count(group0) + sum(map(count, heads))
        assert count(joint) == sum(map(count, single)) - count(group0)
    int8, apart = found.models["int8"], parts.models["int8"]
    assert weights_of(int8["students-of-b0"]) == sum(map(weights_of, apart.values()))
    assert len(int8["students-of-b0"].SerializeToString()) < sum(
        len(int8[f"student-{name}"].SerializeToString()) for name in ("left", "right")
    )


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-6), ("int8", 0.0)])
def test_vectors_are_those_of_the_separate_models(found, tiny, precision, tolerance):
    """In fp32 to the runtime's rounding; in int8, where scales are equal, to the last bit."""
    models, pixels = found.models[precision], pixels_of(tiny)
    joint = inference(models["students-of-b0"])(pixels)
    apart = [inference(models[f"student-{name}"])(pixels) for name in ("left", "right")]
    expected = np.concatenate(apart, axis=1)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(joint, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_the_shared_g0_is_quantised_once_with_the_scales_of_the_separate_ones(found):
    def scales(name):
        graph = found.models["int8"][name].graph
        values = {t.name: onnx.numpy_helper.to_array(t).tobytes() for t in graph.initializer}
        nodes = [node for node in graph.node if node.op_type == "QLinearConv"]
        return [tuple(values[i] for i in (*n.input[1:3], *n.input[4:8])) for n in nodes]

    joint, left, right = map(scales, ("students-of-b0", "student-left", "student-right"))
    shared = [each for each in left if each in right]
    assert shared
    assert len(joint) == len(left) + len(right) - len(shared)
    assert set(joint) == set(left) | set(right)


def test_what_is_reported_is_how_the_boards_run(found, network, tiny):
    with torch.no_grad():
        expected = network(tiny.normalised(tiny.test.pixels))[0].numpy()
    fp32, int8 = found.agreement
    assert (fp32.precision, int8.precision) == ("fp32", "int8")
    assert fp32.largest_difference < 1e-4
    assert fp32.label_agreement_pct == 100
    labels = tiny.test.labels.numpy()
    assert fp32.accuracy_pct == pytest.approx(100 * (expected.argmax(axis=1) == labels).mean())


def test_the_manifest_names_the_students_of_a_joint_model(network, nonn_recipe, tiny, tmp_path):
    exporting_run = pytest.MonkeyPatch()
    with exporting_run.context() as patched:
        patched.setattr(exporting, "load_run", lambda *_: (nonn_recipe, network))
        planned = {"left": "int8", "right": "int8"}
        export(tmp_path, tmp_path / "b", ("fp32", "int8"), tiny, planned=planned, joint=JOINT)
    manifest = Manifest.read(tmp_path / "b" / MANIFEST)
    *students, joint = manifest.models
    assert [model.name for model in students] == ["left", "right"]
    assert (joint.role, joint.members, joint.planned) == ("joint", ("left", "right"), "int8")
    assert joint.answers.shape == (sum(len(model.filters) for model in students),)
    assert [one.file for one in joint.files] == ["students-of-b0.onnx", "students-of-b0.int8.onnx"]
    assert manifest.joint_models(["right", "left"]) == (joint,)
    assert manifest.joint_models(["left"]) == ()


@pytest.mark.parametrize("wrong", ["students-of-b0", "student-left"])
def test_a_joint_or_single_model_that_computes_something_else_is_not_written(
    network, nonn_recipe, tiny, monkeypatch, wrong
):
    right = exporting.to_onnx
    order = [part.stem for part in deployed_models(network, nonn_recipe, tiny, JOINT)]

    def spoilt(*arguments):
        model = right(*arguments)
        if order.pop(0) == wrong:
            weight = next(t for t in model.graph.initializer if len(t.dims) == 4)
            values = onnx.numpy_helper.to_array(weight) * 1.5
            weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), weight.name))
        return model

    monkeypatch.setattr(exporting, "to_onnx", spoilt)
    with pytest.raises(ExportError, match="differ from the trained network"):
        exported_network(network, nonn_recipe, ("fp32",), tiny, joint=JOINT)


@pytest.mark.skipif(any(find_spec(n) is None for n in NCNN_PACKAGES), reason="no ncnn")
def test_ncnn_computes_the_joint_model(network, nonn_recipe, tiny):
    made = exported_network(network, nonn_recipe, ("fp32",), tiny, joint=JOINT, ncnn=True)
    content = made.ncnn["students-of-b0"]
    pixels = pixels_of(tiny)
    found = NcnnNet.open(content.param, content.weights, 1, "joint")(pixels)
    expected = inference(made.models["fp32"]["students-of-b0"])(pixels)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    weights = sum(len(made.ncnn[f"student-{name}"].weights) for name in ("left", "right"))
    assert len(content.weights) < weights
