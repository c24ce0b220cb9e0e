"""Networks that people bring: their fconv is found, and their knowledge is measured as it is."""

import numpy as np
import public_architectures
import pytest
import torch

from nonn_core.communities.filter_network import Activities, LinkOptions, average_activities
from nonn_core.communities.knowledge import Knowledge, partition
from nonn_core.teacher.teacher import TargetSpec, Teacher

SIGNED = ("EfficientNet", "MobileNetV3", "ConvNext", "Swin")
UNSIGNED = ("DenseNet", "ShuffleNetV2")


@pytest.fixture(scope="module")
def loaded(tiny):
    """Teachers by name, each loaded once."""
    return {
        name: Teacher.load(f"public_architectures:{name}", None, tiny)
        for name in (*SIGNED, *UNSIGNED)
    }


@pytest.fixture
def images(tiny):
    return tiny.normalised(tiny.train.pixels[10:17])


@pytest.mark.parametrize(
    ("name", "fconv"),
    [
        ("EfficientNet", "features"),
        ("ConvNext", "features"),
        ("Swin", "permute_1"),
        # The function works in place, on what this module gave.
        ("DenseNet", "norm"),
        ("ShuffleNetV2", "last"),
    ],
)
def test_the_maps_that_are_averaged_are_fconv(loaded, images, name, fconv):
    network, teacher = getattr(public_architectures, name)(), loaded[name]
    assert teacher.reference.fconv.startswith(fconv)
    with torch.no_grad():
        logits, maps = teacher(images)
        expected = network.maps(images)
    torch.testing.assert_close(maps, expected)
    torch.testing.assert_close(logits, network.head(expected))


def test_behind_a_hidden_layer_fconv_is_what_the_last_layer_reads(loaded, images):
    network, teacher = public_architectures.MobileNetV3(), loaded["MobileNetV3"]
    with torch.no_grad():
        hidden = network.classifier[:2](network.maps(images).mean((2, 3)))
    torch.testing.assert_close(teacher(images)[1], hidden[:, :, None, None])
    assert teacher.reference.fconv.startswith("hardswish")
    assert "maps of 1x1" in teacher.warnings[0]


@pytest.mark.parametrize("name", SIGNED + UNSIGNED)
def test_the_measured_features_give_the_network_s_own_logits(loaded, tiny, name):
    """Behind a normalisation, too, so that delta_val is that of the network."""
    network, teacher = getattr(public_architectures, name)(), loaded[name]
    activities = average_activities(teacher, tiny, tiny.test)
    with torch.no_grad():
        pixels = tiny.normalised(tiny.test.pixels)
        expected, maps = network(pixels), teacher(pixels)[1]
    np.testing.assert_allclose(activities.logits(), expected.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(activities.average, maps.relu().mean((2, 3)), atol=1e-5)
    below, all_of_it = maps.clamp(max=0).abs().sum(), maps.abs().sum()
    assert activities.negative_pct == pytest.approx(float(100 * below / all_of_it), rel=1e-4)
    assert (activities.negative_pct > 0) == (name in SIGNED)


@pytest.mark.parametrize("kind", ["relu", "abs"])
def test_signed_maps_are_said_and_students_learn_from_what_stands_for_them(tiny, images, kind):
    teacher = Teacher.load("public_architectures:EfficientNet", None, tiny, signed_maps=kind)
    knowledge = Knowledge.of_teacher(teacher, tiny, "AH", LinkOptions(link_percentile=0))
    with torch.no_grad():
        maps = public_architectures.EfficientNet().maps(images)
    stands = maps.abs() if kind == "abs" else maps.clamp(min=0)
    assert maps.min() < 0
    (taken,) = teacher.outputs(images, TargetSpec(((0, 3),))).maps
    torch.testing.assert_close(taken, stands[:, [0, 3]])
    (warning,) = knowledge.warnings
    assert "fconv features has negative values" in warning
    assert ("their size stands" if kind == "abs" else "0 stands") in warning
    made, _ = partition(knowledge, 1.0, 0)
    assert made.teacher.signed_maps == kind


def test_a_teacher_without_negative_values_says_nothing(loaded, tiny):
    teacher = loaded["ShuffleNetV2"]
    knowledge = Knowledge.of_teacher(teacher, tiny, "CA", LinkOptions(link_percentile=0))
    assert knowledge.warnings == ()
    assert knowledge.teacher.signed_maps is None


def test_p0_is_ranked_by_what_the_last_layer_reads():
    """Other activities make other links, and the same features the same curve of delta_val."""
    rng = np.random.default_rng(3)
    features, labels = rng.random((40, 8)), rng.integers(0, 3, 40)
    last = (rng.normal(size=(3, 8)), np.zeros(3))
    weights = np.ones((8, 8)) - np.eye(8)
    plain = Knowledge(weights, Activities(features, labels, *last))
    other = Knowledge(weights, Activities(rng.random((40, 8)), labels, *last, features))
    curves = [partition(each, 1.0, 0)[0].curve for each in (plain, other)]
    assert curves[0] == curves[1]
