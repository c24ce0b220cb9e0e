import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from nonn_core.data.dataset import Images, load_dataset, randomly_mirrored, shifted
from profiles.errors import InputError


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


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


def test_augmented_batches_hold_each_image_once_in_an_order_of_the_generator(tiny):
    numbered = Images(tiny.train.pixels, torch.arange(72))
    once = [labels for _, labels in tiny.augmented_batches(numbered, 50, generator(1))]
    same = [labels for _, labels in tiny.augmented_batches(numbered, 50, generator(1))]
    other = [labels for _, labels in tiny.augmented_batches(numbered, 50, generator(2))]
    assert [len(labels) for labels in once] == [50, 22]
    assert torch.equal(torch.cat(once).sort().values, torch.arange(72))
    assert not torch.equal(torch.cat(once), torch.arange(72))
    assert torch.equal(torch.cat(once), torch.cat(same))
    assert not torch.equal(torch.cat(once), torch.cat(other))


def test_digits_are_never_mirrored_and_photographs_are(digits, tiny):
    # An image whose left half is bright: mirrored, its right half is.  Shifts move it little.
    half = torch.zeros(64, 1, 16, 16, dtype=torch.uint8)
    half[..., :8] = 255
    brighter = []
    for mirrored in (False, True):
        dataset = type(digits)(
            source="half",
            class_names=("a", "b"),
            train=Images(half, torch.zeros(64, dtype=torch.int64)),
            test=digits.test,
            mirrored=mirrored,
            mean=torch.zeros(1, 1, 1),
            std=torch.ones(1, 1, 1),
        )
        ((pixels, _),) = dataset.augmented_batches(dataset.train, 64, generator())
        brighter.append((pixels[..., 8:].sum((1, 2, 3)) > pixels[..., :8].sum((1, 2, 3))).sum())
    assert brighter[0] == 0
    assert 16 < brighter[1] < 48
    assert tiny.mirrored


def test_a_shift_moves_the_content_and_zeros_enter():
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(1, 256, (40, 3, 16, 16), dtype=np.uint8))
    moves = set()
    for before, after in zip(pixels, shifted(pixels, generator()), strict=True):
        # The move is where the zeros are: they enter at one edge of each axis at most.
        rows = after.any(dim=2).any(dim=0).nonzero().flatten()
        columns = after.any(dim=1).any(dim=0).nonzero().flatten()
        down = int(rows[0]) if rows[0] > 0 else int(rows[-1]) - 15
        right = int(columns[0]) if columns[0] > 0 else int(columns[-1]) - 15
        moves.add((down, right))
        assert max(abs(down), abs(right)) <= 2
        expected = np.zeros_like(before.numpy())
        for y in range(16):
            for x in range(16):
                if 0 <= y - down < 16 and 0 <= x - right < 16:
                    expected[:, y, x] = before[:, y - down, x - right]
        assert np.array_equal(after.numpy(), expected)
    assert len(moves) > 8


@pytest.mark.parametrize(("height", "width"), [(64, 8), (8, 64)])
def test_a_shift_is_at_most_an_eighth_of_each_side(height, width):
    pixels = torch.ones(200, 1, height, width, dtype=torch.uint8)
    after = shifted(pixels, generator())
    rows, columns = after.any(dim=3).sum(dim=2), after.any(dim=2).sum(dim=2)
    assert int(rows.min()) == height - height // 8
    assert int(columns.min()) == width - width // 8


def test_a_mirrored_image_is_flipped_left_to_right():
    pixels = torch.arange(64 * 2 * 3, dtype=torch.uint8).reshape(64, 1, 2, 3)
    after = randomly_mirrored(pixels, generator())
    flipped = [torch.equal(a, b.flip(2)) for a, b in zip(after, pixels, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(after, pixels, strict=True)]
    assert all(f != k for f, k in zip(flipped, kept, strict=True))
    assert 16 < sum(flipped) < 48


@pytest.mark.parametrize("source", ["", "cifar10", "imagefolder", "imagefolder:", "folder:/tmp"])
def test_other_sources_are_refused_with_what_is_allowed(source):
    with pytest.raises(InputError, match=r"not a data set.*allowed: digits"):
        load_dataset(source)
