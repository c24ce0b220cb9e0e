import pytest
import torch

from nonn_common.errors import InputError
from nonn_core.data.dataset import first_of_each_class


def test_the_first_images_of_each_class_in_their_order(tiny):
    found = first_of_each_class(tiny, 5)
    assert found.train.labels.bincount().tolist() == [5, 5, 5]
    for label in range(3):
        own = tiny.train.pixels[tiny.train.labels == label][:5]
        assert torch.equal(found.train.pixels[found.train.labels == label], own)


def test_test_images_and_their_normalisation_stay(tiny):
    found = first_of_each_class(tiny, 5)
    assert len(found.test) == len(tiny.test)
    assert torch.equal(found.mean, tiny.mean)
    assert torch.equal(found.std, tiny.std)
    assert found.fingerprint != tiny.fingerprint


def test_more_than_there_are(tiny):
    assert len(first_of_each_class(tiny, 24).train) == len(tiny.train)
    with pytest.raises(InputError, match="24"):
        first_of_each_class(tiny, 25)
