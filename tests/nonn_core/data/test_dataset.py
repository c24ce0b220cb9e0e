from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from nonn_core.data.dataset import Images, load_dataset


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def test_digits_are_1797_in_two_parts(digits):
    assert (len(digits.train), len(digits.test)) == (1347, 450)
    assert str(digits.image) == "1x16x16"
    assert digits.classes == 10
    assert digits.class_names == tuple("0123456789")
    assert not digits.mirrored
    assert digits.train.pixels.dtype == digits.test.pixels.dtype == torch.uint8
    assert digits.train.labels.dtype == torch.int64


def test_digits_are_those_of_scikit_learn_each_once(digits):
    bunch = load_digits()
    labels = torch.cat([digits.train.labels, digits.test.labels])
    assert np.array_equal(np.bincount(labels), np.bincount(bunch.target))
    # Each class is split in the same proportion.
    share = np.bincount(digits.test.labels) / np.bincount(bunch.target)
    assert share.min() > 0.23
    assert share.max() < 0.27
    # Enlarging keeps the mean brightness of each image, up to rounding.
    pixels = torch.cat([digits.train.pixels, digits.test.pixels]).float()
    enlarged = np.sort(pixels.mean(dim=(1, 2, 3)).numpy())
    originals = np.sort(bunch.images.mean(axis=(1, 2)) * 255 / 16)
    assert np.abs(enlarged - originals).max() < 6


def test_digits_are_the_same_each_time(digits):
    again = load_dataset("digits")
    for one, other in [(digits.train, again.train), (digits.test, again.test)]:
        assert torch.equal(one.pixels, other.pixels)
        assert torch.equal(one.labels, other.labels)


def test_training_and_test_images_differ(digits):
    seen = {image.numpy().tobytes() for image in digits.train.pixels}
    repeated = sum(image.numpy().tobytes() in seen for image in digits.test.pixels)
    assert repeated == 0


def test_the_split_is_90_to_10_disjoint_covering_and_repeatable(digits):
    numbered = type(digits)(
        source="numbers",
        class_names=("a",),
        train=Images(torch.zeros(1347, 1, 1, 1, dtype=torch.uint8), torch.arange(1347)),
        test=digits.test,
        mirrored=False,
        mean=digits.mean,
        std=digits.std,
    )
    training, validation = numbered.split(5)
    assert (len(training), len(validation)) == (1212, 135)
    together = torch.cat([training.labels, validation.labels])
    assert torch.equal(together.sort().values, torch.arange(1347))
    again = numbered.split(5)
    assert torch.equal(again[0].labels, training.labels)
    assert torch.equal(again[1].labels, validation.labels)
    assert not torch.equal(numbered.split(6)[1].labels, validation.labels)


def test_pixels_go_with_their_labels_through_the_split(tiny):
    pairs = {
        (image.numpy().tobytes(), int(label))
        for image, label in zip(tiny.train.pixels, tiny.train.labels, strict=True)
    }
    for part in tiny.split(1):
        for image, label in zip(part.pixels, part.labels, strict=True):
            assert (image.numpy().tobytes(), int(label)) in pairs


def test_training_images_are_normalised_to_mean_zero_and_variance_one(tiny):
    values = tiny.normalised(tiny.train.pixels)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values.mean(dim=(0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-4)
    deviation = values.std(dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(deviation, torch.ones(3), rtol=1e-4, atol=0)


def test_batches_hold_each_image_once_in_order(tiny):
    batches = list(tiny.batches(tiny.train, 50))
    assert [len(labels) for _, labels in batches] == [50, 22]
    assert torch.equal(torch.cat([labels for _, labels in batches]), tiny.train.labels)
    together = torch.cat([pixels for pixels, _ in batches])
    assert torch.equal(together, tiny.normalised(tiny.train.pixels))


def test_photographs_may_be_mirrored(tiny):
    assert tiny.mirrored


def test_a_data_set_moves_to_a_device_whole(tiny):
    moved = tiny.to(torch.device("meta"))
    parts = (*(getattr(p, n) for p in (moved.train, moved.test) for n in ("pixels", "labels")),)
    assert {each.device.type for each in (*parts, moved.mean, moved.std)} == {"meta"}
    assert moved.source == tiny.source


def of_labels(digits, labels):
    labels = torch.as_tensor(labels)
    pixels = torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8)
    names = tuple(map(str, range(int(labels.max()) + 1)))
    return replace(digits, class_names=names, train=Images(pixels, labels))


def test_each_class_gives_its_share_of_validation_images(digits):
    labels = np.repeat([0, 1, 2], [700, 250, 50])
    for seed in range(5):
        training, validation = of_labels(digits, labels).split(seed)
        assert np.bincount(validation.labels).tolist() == [70, 25, 5]
        assert np.bincount(training.labels).tolist() == [630, 225, 45]
    counted = np.bincount(digits.split(0)[1].labels)
    assert counted.sum() == 135
    assert set(counted.tolist()) <= {13, 14}


def test_a_class_of_five_images_validates_with_one_and_a_single_image_trains(digits):
    labels = np.repeat([0, 1, 2], [994, 5, 1])
    for seed in range(20):
        _, validation = of_labels(digits, labels).split(seed)
        assert np.bincount(validation.labels, minlength=3).tolist() == [99, 1, 0]


def test_seeds_choose_other_images_of_a_class(digits):
    one, other = (digits.split(seed)[1].pixels for seed in (0, 1))
    assert not torch.equal(one, other)


def test_teachers_from_before_keep_their_split(digits):
    order = torch.randperm(1347, generator=torch.Generator().manual_seed(3))
    _, validation = digits.split(3, by_class=False)
    assert torch.equal(validation.pixels, digits.train.pixels[order[:135].sort().values])
