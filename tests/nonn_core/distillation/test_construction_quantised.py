"""Fine-tuning for int8: what is rounded, how, and that a run of it is a run like any other."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from converted_once import conversions_kept
from killed_runs import KilledError, killed_at

from nonn_common.errors import InputError
from nonn_core.distillation.construction import (
    RoundedActivations,
    fake_quantised,
    fine_tuning_recipe,
)
from nonn_core.distillation.run import load_run, train
from nonn_core.export.deployment import to_onnx
from nonn_core.export.onnx_model import inference, quantise_int8
from nonn_core.networks.family import parse_network
from nonn_core.networks.modules import StudentShape, build_classifier, build_nonn, read_tensors


@pytest.fixture(scope="module", autouse=True)
def _conversions_kept():
    with conversions_kept():
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory, nonn_recipe, tiny):
    folder = tmp_path_factory.mktemp("quantised") / "run"
    train(nonn_recipe, folder, tiny)
    return folder


@pytest.fixture
def network():
    return build_classifier(parse_network("wrn10:4,6,8"), 3, 3, seed=0)


def noise(count=32, size=16):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_weights_are_rounded_to_127_steps_of_each_output_channel(network):
    convolution = network.group0[0]
    weight = convolution.weight.detach().clone()
    with fake_quantised(network):
        rounded = convolution.weight.detach()
    scale = weight.abs().flatten(1).amax(dim=1) / 127
    steps = rounded / scale[:, None, None, None]
    torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
    assert steps.abs().max() == pytest.approx(127)
    assert (rounded - weight).abs().max() <= 0.5001 * scale.max()
    assert not torch.equal(rounded, weight)


def test_activations_are_rounded_to_256_levels_that_hold_zero():
    rounder = RoundedActivations()
    maps = torch.linspace(-1, 3, 1001)
    with torch.no_grad():
        found = rounder(maps)
        levels = found.unique()
        assert len(levels) == 256
        assert (levels.abs() < 1e-7).any()
        assert (found - maps).abs().max() <= 4 / 255
        # What one batch of twice the size says counts for a twentieth.
        rounder(2 * maps)
        assert (rounder.low, rounder.high) == (pytest.approx(-1.05), pytest.approx(3.15))
        rounder.eval()
        assert rounder(10 * maps).max() == pytest.approx(3.15, abs=0.02)
        assert rounder.high == pytest.approx(3.15)


def test_a_tensor_that_is_never_negative_uses_all_levels():
    rounder = RoundedActivations()
    with torch.no_grad():
        assert rounder(torch.linspace(2, 4, 100)).min() == pytest.approx(2, abs=4 / 255)
    assert rounder.low == 0


def test_gradients_pass_through_the_rounding(network):
    with fake_quantised(network):
        network(noise())[0].square().sum().backward()
        names = [name for name, parameter in network.named_parameters() if parameter.grad is None]
        assert not names
        assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_the_network_comes_back_as_it_was(network):
    images = noise()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        expected = network.eval()(images)[0]
        with fake_quantised(network):
            assert not torch.equal(network.train()(images)[0], expected)
        network.load_state_dict(before)
        assert torch.equal(network.eval()(images)[0], expected)
    assert network.state_dict().keys() == before.keys()
    with pytest.raises(ZeroDivisionError), fake_quantised(network):
        raise ZeroDivisionError
    assert network.state_dict().keys() == before.keys()


def test_what_is_trained_is_what_remains(network):
    convolution = network.group0[0]
    before = convolution.weight.detach().clone()
    with fake_quantised(network):
        optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
        network(noise())[0].sum().backward()
        optimiser.step()
    assert not torch.equal(convolution.weight, before)
    assert next(network.parameters()) is convolution.weight


@pytest.mark.parametrize(
    "name",
    ["wrn10:6,8,10", "resnet18-cifar:8,8,16,16", "mobilenetv2-cifar-0.05"],
)
def test_training_rounds_where_int8_will(name):
    """The same noise and as many rounded activations as the int8 model; its mean is corrected."""
    images = noise(24, 32)
    nonn = build_nonn([StudentShape(parse_network(name), 6)], 3, 4, seed=0)
    with torch.no_grad():
        for _ in range(30):
            nonn.train()(images)
        student = next(nonn.deployed()).eval()
        expected = student(images).numpy()
        model = quantise_int8(to_onnx(student, images[:2], "image", "vector"), images.numpy())
        int8 = inference(model)(images.numpy())
        with fake_quantised(student):
            for rounder in student.modules():
                rounder.train(isinstance(rounder, RoundedActivations))
            student(images)
            rounded = student.eval()(images).numpy()
            rounders = [m for m in student.modules() if isinstance(m, RoundedActivations)]
    assert (
        0.5 < np.std(rounded - expected, axis=0).max() / np.std(int8 - expected, axis=0).max() < 2
    )
    kinds = [node.op_type for node in model.graph.node]
    convolutions = sum(kind in ("QLinearConv", "QLinearAdd") for kind in kinds)
    assert abs(len(rounders) - convolutions) <= 2


def test_fine_tuning_starts_from_the_run_and_leaves_a_run(run, nonn_recipe, tiny, tmp_path):
    recipe = fine_tuning_recipe(nonn_recipe, run, epochs=2, learning_rate=1e-6)
    history = train(recipe, tmp_path / "int8", tiny)
    assert [metrics.epoch for metrics in history] == [1, 2]
    found, network = load_run(tmp_path / "int8", tiny)
    assert found == recipe
    assert (found.start, found.fake_quantised) == (str(run), True)
    _, start = load_run(run, tiny)
    for name, value in network.named_parameters():
        # Steps this small move nothing far.
        torch.testing.assert_close(value, dict(start.named_parameters())[name], atol=1e-3, rtol=0)
    moved = [
        not torch.equal(a, b) for a, b in zip(network.parameters(), start.parameters(), strict=True)
    ]
    assert all(moved)


def test_a_killed_fine_tuning_ends_as_if_it_had_not_been_killed(run, nonn_recipe, tiny, tmp_path):
    recipe = fine_tuning_recipe(nonn_recipe, run, epochs=2, learning_rate=0.01)
    whole = train(recipe, tmp_path / "whole", tiny)

    with pytest.raises(KilledError):
        train(recipe, tmp_path / "killed", tiny, killed_at(7))
    tensors, _ = read_tensors(tmp_path / "killed" / "checkpoint.safetensors")
    assert any("rounder.high" in name for name in tensors)
    assert train(recipe, tmp_path / "killed", tiny) == whole
    ends = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed")]
    assert ends[0] == ends[1]
    tensors, _ = read_tensors(tmp_path / "whole" / "model.safetensors")
    assert not any("rounder" in name or "parametrizations" in name for name in tensors)


def test_fine_tuning_helps_int8(run, nonn_recipe, tiny, tmp_path):
    """The rounded network's own loss falls, from where training had left it."""
    recipe = fine_tuning_recipe(nonn_recipe, run, epochs=5, learning_rate=0.02)
    history = train(recipe, tmp_path / "int8", tiny)
    losses = [metrics.losses["loss"] for metrics in history]
    assert losses[-1] < losses[0]
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert losses[-1] < last["losses"]["loss"]


@pytest.mark.parametrize("damage", ["missing", "unfinished", "garbage", "another"])
def test_a_start_that_cannot_be_is_named(run, nonn_recipe, tiny, tmp_path, damage):
    start = Path(shutil.copytree(run, tmp_path / "start"))
    model = start / "model.safetensors"
    recipe = fine_tuning_recipe(nonn_recipe, start, 1, 0.01)
    if damage == "missing":
        shutil.rmtree(start)
    if damage == "unfinished":
        model.unlink()
    if damage == "garbage":
        model.write_bytes(b"garbage")
    if damage == "another":
        content = recipe.model_dump(mode="json")
        content["model"] = {"kind": "single", "network": "wrn10:4,6,9"}
        recipe = type(recipe).check(content, "this test")
    with pytest.raises(InputError, match="start"):
        train(recipe, tmp_path / "int8", tiny)


def test_impossible_rates_are_refused(run, nonn_recipe):
    with pytest.raises(InputError, match="learning_rate"):
        fine_tuning_recipe(nonn_recipe, run, 1, -1.0)
