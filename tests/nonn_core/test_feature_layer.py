"""The host's FC layer: regression by hand and by another library, and what folding keeps."""

import numpy as np
import pytest

from nonn_core.feature_layer import FeatureLayer, FeatureMoments

CAME = np.array([True, True, False, False, False])


@pytest.fixture
def drawn():
    """Features (400, 5) of two students, of which the second is nearly told by the first."""
    rng = np.random.default_rng(7)
    first = rng.normal(2, 1, (400, 2))
    second = first @ rng.normal(0, 1, (2, 3)) + rng.normal(0, 0.1, (400, 3)) + 5
    return np.hstack([first, second]).astype(np.float32)


@pytest.fixture
def layer(drawn):
    rng = np.random.default_rng(8)
    weight = rng.normal(0, 1, (4, 5)).astype(np.float32)
    bias = rng.normal(0, 1, 4).astype(np.float32)
    return FeatureLayer(weight, bias, FeatureMoments.of(drawn, [2, 3]))


def test_two_features_by_hand():
    """Variance 4 and covariance 2: half of what the first lies above its mean."""
    moments = FeatureMoments(np.array([1, 10], np.float32), np.array([[4, 2], [2, 3]], np.float32))
    layer = FeatureLayer(np.array([[1, 3], [0, 1]], np.float32), np.zeros(2, np.float32), moments)
    folded = layer.of(np.array([True, False]))
    # x2 = 10 + (x1 - 1) / 2, so that the logits of x1 = 5 are 5 + 3 * 12 and 12.
    assert folded.logits(np.array([[5]], np.float32)).tolist() == [[41, 12]]
    assert folded.weight.tolist() == [[2.5], [0.5]]


def test_it_is_the_ridge_regression_of_numpy(drawn, layer):
    """Of augmented rows: least squares with sqrt(N lambda) below the centred features."""
    mean = drawn.mean(axis=0)
    centred = (drawn - mean).astype(np.float64)
    covariance = centred.T @ centred / len(drawn)
    ridge = float(layer.moments.covariance[0, 0] - covariance[0, 0])
    rows = np.vstack([centred[:, :2], np.sqrt(len(drawn) * ridge) * np.eye(2)])
    wanted = np.vstack([centred[:, 2:], np.zeros((2, 3))])
    told = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    filled = np.hstack([drawn[:, :2], (drawn[:, :2] - mean[:2]) @ told + mean[2:]])
    expected = filled @ layer.weight.T + layer.bias
    np.testing.assert_allclose(layer.of(CAME).logits(drawn[:, :2]), expected, rtol=2e-4, atol=2e-4)


def test_features_that_are_told_are_nearly_those_that_came(drawn, layer):
    whole = layer.logits(drawn)
    imputed = layer.of(CAME).logits(drawn[:, :2])
    zeros = FeatureLayer(layer.weight, layer.bias).of(CAME).logits(drawn[:, :2])
    assert np.abs(imputed - whole).mean() < np.abs(zeros - whole).mean() / 10


def test_all_features_keep_every_bit(drawn, layer):
    same = layer.of(np.ones(5, bool))
    assert np.array_equal(same.logits(drawn), layer.logits(drawn))


def test_of_no_feature_the_logits_are_those_of_the_mean(drawn, layer):
    nobody = layer.of(np.zeros(5, bool)).logits(drawn[:1, :0])
    np.testing.assert_allclose(nobody[0], layer.logits(layer.moments.mean[None])[0], rtol=1e-5)


def test_without_moments_what_is_missing_is_zero(drawn, layer):
    plain = FeatureLayer(layer.weight, layer.bias)
    zeroed = np.where(CAME, drawn, 0)
    np.testing.assert_allclose(
        plain.of(CAME).logits(drawn[:, CAME]), plain.logits(zeroed), rtol=1e-5, atol=1e-5
    )


def test_fewer_images_than_features_and_dead_ones_give_numbers():
    features = np.zeros((6, 40), np.float32)
    features[:, :4] = np.random.default_rng(1).random((6, 4))
    for each in (features, np.zeros((4, 40), np.float32)):
        layer = FeatureLayer(np.ones((3, 40), np.float32), np.zeros(3, np.float32))
        known = FeatureLayer(layer.weight, layer.bias, FeatureMoments.of(each, [20, 20]))
        came = np.arange(40) < 20
        assert np.isfinite(known.of(came).logits(each[:, came])).all()


def test_noise_is_told_with_a_larger_ridge():
    """The ridge is chosen by images that it was not fitted to."""
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 1, (60, 40)).astype(np.float32)
    exact = np.hstack([noise[:, :20], noise[:, :20] * 2])
    ridges = [
        np.trace(FeatureMoments.of(each, [20, 20]).covariance) / np.trace(np.cov(each.T, ddof=0))
        for each in (noise, exact)
    ]
    assert ridges[0] == pytest.approx(2)
    assert ridges[1] == pytest.approx(1.0001, abs=1e-4)


def test_too_few_images_have_no_moments():
    with pytest.raises(ValueError, match="3 images"):
        FeatureMoments.of(np.zeros((3, 2), np.float32), [1, 1])


def test_tensors_are_what_they_were(layer):
    again = FeatureLayer.from_tensors(layer.tensors())
    assert all(
        np.array_equal(again.tensors()[name], each) for name, each in layer.tensors().items()
    )
    plain = FeatureLayer.from_tensors(FeatureLayer(layer.weight, layer.bias).tensors())
    assert plain.moments is None
