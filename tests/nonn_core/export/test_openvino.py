"""Bundles of `export --qdq` in OpenVINO: the engine of its Model Server and of a Triton backend.

OpenVINO lays the scales of QLinearConv, one for each output, along the inputs: where there are as
many of both, it says nothing (findings/openvino-qlinearconv-scales-along-inputs.sh).
"""

import numpy as np
import pytest
import torch
from converted_once import conversions_kept
from torch import nn

from nonn_core.distillation.construction import build_network
from nonn_core.export.deployment import to_onnx
from nonn_core.export.onnx_model import inference, quantise_int8
from nonn_core.export.run_export import exported_network
from nonn_core.networks.family import parse_network
from nonn_core.networks.modules import StudentShape, build_nonn

openvino = pytest.importorskip("openvino", reason="openvino is not installed: pip install '.[dev]'")


@pytest.fixture(scope="module", autouse=True)
def _conversions_kept():
    with conversions_kept():
        yield


def by_openvino(content, images):
    core = openvino.Core()
    # Elsewhere than in int8, bfloat16 would be its choice on some processors.
    compiled = core.compile_model(
        core.read_model(content), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    return compiled(images)[0]


def exported(module, images):
    return to_onnx(module.eval(), images[:2], "image", "vector")


def noise(channels, side):
    return torch.rand(32, channels, side, side, generator=torch.Generator().manual_seed(0))


def test_each_output_keeps_its_own_scale_where_a_convolution_is_square():
    """Weights of 1, 10, 100 and 1000: by another output's scale they would be far off."""
    square = nn.Conv2d(4, 4, 1, bias=False)
    with torch.no_grad():
        square.weight.copy_(torch.tensor([[1.0], [10], [100], [1000]])[..., None, None])
    module = nn.Sequential(square, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = noise(4, 8)
    model = quantise_int8(exported(module, images), images.numpy(), qdq=True)
    sums = images.numpy().sum(axis=1).mean(axis=(1, 2))
    found = by_openvino(model.SerializeToString(), images.numpy())
    # One of 255 steps of the largest activation is more than the first two outputs.
    np.testing.assert_allclose(found[:, 2:], sums[:, None] * [100, 1000], atol=1000 * 4 / 255)
    np.testing.assert_allclose(found, inference(model)(images.numpy()), atol=1000 * 4 / 255)


def test_no_processor_saturates_at_full_scale():
    """Sixteen products of the largest activation and the largest weight: in 16 bits about half."""
    full = nn.Conv2d(16, 16, 1, bias=False)
    nn.init.constant_(full.weight, 1.0)
    module = nn.Sequential(full, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = torch.ones(1, 16, 4, 4)
    model = quantise_int8(exported(module, images), images.numpy(), qdq=True)
    np.testing.assert_allclose(
        by_openvino(model.SerializeToString(), images.numpy()), 16, rtol=0.01
    )


def residual():
    nonn = build_nonn([StudentShape(parse_network("wrn10:6,8,10"), 6)], 3, 4, seed=0)
    return nonn, next(nonn.deployed())


def separable():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [
            *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6()),
            *(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU6()),
            *(nn.Conv2d(8, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        ]
    network = nn.Sequential(*layers)
    return network, network


@pytest.mark.parametrize("made", [residual, separable])
def test_openvino_answers_a_student_as_onnxruntime_does(made):
    network, student = made()
    images = noise(3, 16)
    with torch.no_grad():
        for _ in range(5):
            network.train()(images)
    model = quantise_int8(exported(student, images), images.numpy(), qdq=True)
    expected = inference(model)(images.numpy())
    found = by_openvino(model.SerializeToString(), images.numpy())
    # Between convolutions it keeps more in float32 than onnxruntime: both are rounded, unlike.
    assert np.abs(found - expected).max() < 0.04 * np.ptp(expected)


def test_openvino_answers_the_models_of_export_qdq(nonn_recipe, tiny):
    network = build_network(nonn_recipe, 3)
    network.train()(tiny.normalised(tiny.train.pixels))
    made = exported_network(network.eval(), nonn_recipe, ("int8",), tiny, qdq=True)
    pixels = tiny.test.pixels.float().numpy()
    for part in made.parts:
        model = made.models["int8"][part.stem]
        expected, found = inference(model)(pixels), by_openvino(model.SerializeToString(), pixels)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() < 0.1 * np.ptp(expected)
