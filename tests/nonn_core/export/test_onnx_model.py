import logging

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from converted_once import conversions_kept, converted
from full_scale_int8 import (
    CONVOLUTIONS,
    full_scale_images,
    full_scale_model,
    full_scale_sum,
)
from onnx import numpy_helper
from torch import nn

from nonn_core.export.onnx_model import (
    correct_biases,
    inference,
    norms_as_convolutions,
    quantise_int8,
)


@pytest.fixture(scope="module", autouse=True)
def _conversions_kept():
    with conversions_kept():
        yield


class Block(nn.Module):
    """A pre-activation block as in a WRN: its first normalisation follows a sum."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.conv = nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False)

    def forward(self, images):
        maps = self.stem(images)
        return self.conv(torch.relu(self.norm(maps + maps.abs()))).mean((2, 3))


@pytest.fixture
def images():
    return torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def block(images):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = Block()
        nn.init.normal_(found.norm.weight)
        nn.init.normal_(found.norm.bias)
        found.train()(images)
    return found.eval()


def exported(module, images):
    return converted(module, images[:2], "image", "vector")


def values(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def operations(model):
    return [node.op_type for node in model.graph.node]


def test_a_norm_is_a_convolution(block, images):
    model = exported(block, images)
    assert operations(model).count("BatchNormalization") == 1
    before = inference(model)(images.numpy())
    norms_as_convolutions(model)
    onnx.checker.check_model(model, full_check=True)
    assert "BatchNormalization" not in operations(model)
    np.testing.assert_allclose(inference(model)(images.numpy()), before, atol=1e-5)
    used = {name for node in model.graph.node for name in node.input}
    assert values(model).keys() <= used


def test_int8_is_per_channel_symmetric_and_stays_int8(block, images):
    model = quantise_int8(exported(block, images), images.numpy())
    assert operations(model).count("QLinearConv") == 3
    assert operations(model).count("QuantizeLinear") <= 2
    assert "BatchNormalization" not in operations(model)
    found = values(model)
    for node in model.graph.node:
        if node.op_type == "QLinearConv":
            weight, scale, zero, bias = (found[node.input[k]] for k in (3, 4, 5, 8))
            assert weight.dtype == np.int8
            assert bias.dtype == np.int32
            assert not zero.any()
            assert scale.shape == (len(weight),)
            largest = np.abs(weight.reshape(len(weight), -1).astype(int)).max(axis=1)
            assert (largest == 127).all()


def test_int8_answers_almost_the_same(block, images):
    model = exported(block, images)
    expected = inference(model)(images.numpy())
    found = inference(quantise_int8(model, images.numpy()))(images.numpy())
    assert np.abs(found - expected).max() < 0.02 * np.ptp(expected)
    assert np.abs(found - expected).max() > 0


def test_qdq_has_plain_convolutions_with_weights_of_7_bits(block, images):
    """Two products of 255 and 64 are less than 2**15: no processor can saturate."""
    model = quantise_int8(exported(block, images), images.numpy(), qdq=True)
    assert operations(model).count("Conv") == 3
    assert not any(kind.startswith("QLinear") for kind in operations(model))
    found = values(model)
    made_by = {node.output[0]: node for node in model.graph.node}
    for node in model.graph.node:
        if node.op_type == "Conv":
            weights = made_by[node.input[1]]
            assert weights.op_type == "DequantizeLinear"
            assert [a.i for a in weights.attribute if a.name == "axis"] == [0]
            weight, scale, zero = (found[name] for name in weights.input)
            assert weight.dtype == np.int8
            assert scale.shape == (len(weight),)
            assert not zero.any()
            largest = np.abs(weight.reshape(len(weight), -1).astype(int)).max(axis=1)
            assert (largest == 64).all()


def test_qdq_answers_almost_the_same(block, images):
    model = exported(block, images)
    expected = inference(model)(images.numpy())
    found = inference(quantise_int8(model, images.numpy(), qdq=True))(images.numpy())
    assert 0 < np.abs(found - expected).max() < 0.04 * np.ptp(expected)


def test_qdq_needs_no_setting_of_the_session(block, images):
    """Without our session options, sums that would saturate are the same."""
    model = quantise_int8(exported(block, images), images.numpy(), qdq=True)
    plain = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = plain.run(None, {"image": images.numpy()})
    np.testing.assert_array_equal(found, inference(model)(images.numpy()))


@pytest.mark.parametrize("convolution", CONVOLUTIONS, ids=str)
def test_sums_of_int8_products_are_exact_on_every_processor(convolution):
    found = inference(full_scale_model(*convolution))(full_scale_images(convolution[0]))
    assert (found[0, :, 1:-1, 1:-1] == full_scale_sum(*convolution)).all()


def test_the_float_model_is_not_changed(block, images):
    model = exported(block, images)
    before = model.SerializeToString(deterministic=True)
    quantise_int8(model, images.numpy())
    assert model.SerializeToString(deterministic=True) == before


def with_rounded_weights(model):
    """Round each convolution's weights as int8 does, by hand."""
    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    for tensor in rounded.graph.initializer:
        weight = numpy_helper.to_array(tensor)
        if weight.ndim == 4:
            scale = np.abs(weight).reshape(len(weight), -1).max(axis=1).reshape(-1, 1, 1, 1) / 127
            grid = (np.rint(weight / scale) * scale).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(grid, tensor.name))
    return rounded


def test_corrected_biases_remove_the_mean_error_of_rounded_weights(images):
    """Exactly so for 1x1 convolutions, which have no edges."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = nn.Sequential(
            nn.Conv2d(3, 6, 1, bias=False), nn.Conv2d(6, 4, 1, groups=2)
        )  # Linear, so that means of the first are all that reaches the second.
    pooled = nn.Sequential(module, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = exported(pooled.eval(), images + 2)
    pixels = (images + 2).numpy()
    expected = inference(model)(pixels).mean(axis=0)
    uncorrected = inference(with_rounded_weights(model))(pixels).mean(axis=0)
    correct_biases(model, pixels)
    corrected = inference(with_rounded_weights(model))(pixels).mean(axis=0)
    assert np.abs(uncorrected - expected).max() > 1e-4
    np.testing.assert_allclose(corrected, expected, atol=1e-5)


def test_biases_of_equal_convolutions_are_corrected_each_by_its_own(images):
    """The exporter stores equal tensors once."""
    first = nn.Conv2d(3, 3, 1)
    second = nn.Conv2d(3, 3, 1)
    second.load_state_dict(first.state_dict())
    module = nn.Sequential(first, nn.ReLU(), second, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = exported(module.eval(), images)
    correct_biases(model, images.numpy())
    onnx.checker.check_model(model, full_check=True)
    biases = [node.input[2] for node in model.graph.node if node.op_type == "Conv"]
    assert len(set(biases)) == 2


@pytest.mark.parametrize("gamma", [1e-12, 1e-30, 0.0])
def test_a_channel_that_weight_decay_removed_keeps_its_bias(images, gamma, caplog):
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ).eval()
    with torch.no_grad():
        module[1].weight[2] = gamma
        module[1].bias[2] = 0.7
        expected = module(images).numpy()
    with caplog.at_level(logging.WARNING):
        found = inference(quantise_int8(exported(module, images), images.numpy()))(images.numpy())
    assert not caplog.records
    np.testing.assert_allclose(found[:, 2], 0.7, atol=0.02)
    assert np.abs(found - expected).max() < 0.05 * np.ptp(expected)


def test_nothing_is_said(block, images, capfd, caplog):
    with caplog.at_level(logging.WARNING):
        quantise_int8(exported(block, images), images.numpy())
    said = capfd.readouterr()
    assert (said.out, said.err, caplog.records) == ("", "", [])
