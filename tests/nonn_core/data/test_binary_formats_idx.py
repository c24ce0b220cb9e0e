"""MNIST-family files, written here byte by byte."""

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nonn_common.errors import InputError
from nonn_core.data.binary_formats import read_idx
from nonn_core.data.dataset import load_dataset

NAMES = [
    f"{part}-{what}-ubyte" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")
]


def idx(values):
    """Write an array of unsigned bytes as an IDX file."""
    header = bytes([0, 0, 8, values.ndim]) + b"".join(struct.pack(">i", n) for n in values.shape)
    return header + bytes(values.ravel().tolist())


def made(train=5, test=2, height=9, width=8, classes=3, seed=0):
    """The content of the four files by name; every class is in both parts' labels."""
    rng = np.random.default_rng(seed)
    arrays = []
    for count in (train, test):
        arrays.append(rng.integers(0, 256, (count, height, width), dtype=np.uint8))
        arrays.append((np.arange(count) % classes).astype(np.uint8))
    return dict(zip(NAMES, arrays, strict=True))


def write(folder, files, suffix="", mark="-"):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        packed = gzip.compress(content) if suffix else content
        (folder / f"{name.replace('-idx', mark + 'idx')}{suffix}").write_bytes(packed)
    return folder


@pytest.fixture
def files():
    return {name: idx(values) for name, values in made().items()}


def test_a_file_written_by_hand(tmp_path):
    images = bytes.fromhex("00000803 00000002 00000001 00000003") + bytes([1, 2, 3, 250, 251, 252])
    labels = bytes.fromhex("00000801 00000002") + bytes([1, 0])
    found = read_idx(str(write(tmp_path, dict(zip(NAMES, [images, labels] * 2, strict=True)))))
    for part in (found.train, found.test):
        assert part.pixels.tolist() == [[[[1, 2, 3]]], [[[250, 251, 252]]]]
        assert part.labels.tolist() == [1, 0]
    assert found.class_names == ("0", "1")


@settings(max_examples=40)
@given(
    st.tuples(*[st.integers(2, 9)] * 2, *[st.integers(1, 12)] * 2),
    st.integers(2, 256),
    st.sampled_from(["", ".gz"]),
    st.sampled_from("-."),
    st.integers(0, 99),
)
def test_what_was_written_is_read(tmp_path_factory, shape, classes, suffix, mark, seed):
    arrays = made(*shape, classes=min(classes, *shape[:2]), seed=seed)
    arrays["train-labels-idx1-ubyte"][-1] = classes - 1
    files = {name: idx(values) for name, values in arrays.items()}
    found = read_idx(str(write(tmp_path_factory.mktemp("idx"), files, suffix, mark)))
    images, labels, test_images, test_labels = arrays.values()
    assert np.array_equal(found.train.pixels, images[:, None])
    assert np.array_equal(found.test.pixels, test_images[:, None])
    assert np.array_equal(found.train.labels, labels)
    assert np.array_equal(found.test.labels, test_labels)
    assert found.train.labels.dtype == np.int64
    assert len(found.class_names) == classes


@settings(max_examples=100)
@given(st.sampled_from(NAMES), st.sampled_from(["", ".gz"]), st.data())
def test_any_file_cut_short_is_refused_by_name(tmp_path_factory, name, suffix, data):
    files = {name: idx(values) for name, values in made().items()}
    folder = write(tmp_path_factory.mktemp("idx"), files, suffix)
    path = folder / f"{name}{suffix}"
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(InputError) as caught:
        read_idx(str(folder))
    assert caught.value.where == str(path)


@settings(max_examples=150)
@given(st.sampled_from(NAMES), st.data())
def test_a_damaged_packed_file_is_read_as_it_was_or_refused_by_name(tmp_path_factory, name, data):
    """A changed bit that means nothing (a time stamp, padding) does no harm."""
    arrays = made()
    files = {each: idx(values) for each, values in arrays.items()}
    folder = write(tmp_path_factory.mktemp("idx"), files, ".gz")
    path = folder / f"{name}.gz"
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        found = read_idx(str(folder))
    except InputError as error:
        assert error.where == str(path)
    else:
        for part, prefix in ((found.train, "train"), (found.test, "t10k")):
            assert np.array_equal(part.pixels[:, 0], arrays[f"{prefix}-images-idx3-ubyte"])
            assert np.array_equal(part.labels, arrays[f"{prefix}-labels-idx1-ubyte"])


def test_a_data_set_of_grey_images_that_are_never_mirrored(tmp_path, files):
    dataset = load_dataset(f"idx:{write(tmp_path, files)}")
    assert str(dataset.image) == "1x9x8"
    assert dataset.classes == 3
    assert not dataset.mirrored
    assert (len(dataset.train), len(dataset.test)) == (5, 2)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda content: content + b"\0", r"not as long as its header says.*allowed: "),
        (lambda content: b"\x89PNG" + content[4:], r"is not an IDX file; found '89 50 4e 47'"),
        (lambda content: content[:2] + b"\x0d" + content[3:], r"another type; found 'type 0x0d'"),
        (lambda content: content[:3] + b"\x02" + content[4:], r"number of dimensions; found 2"),
        (lambda content: content[:4] + b"\xff" * 4 + content[8:], r"not as long as its header"),
        (lambda content: content[:4] + bytes(4) + content[8:], r"is empty"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, files, name, damage, told):
    files[name] = damage(files[name])
    with pytest.raises(InputError, match=told) as caught:
        read_idx(str(write(tmp_path, files)))
    assert caught.value.where == str(tmp_path / name)


def test_images_for_labels_are_noticed(tmp_path, files):
    files["train-labels-idx1-ubyte"] = files["train-images-idx3-ubyte"]
    with pytest.raises(InputError, match=r"train-labels.*dimensions; found 3; allowed: 1"):
        read_idx(str(write(tmp_path, files)))


@pytest.mark.parametrize("part", ["train", "t10k"])
def test_as_many_labels_as_images(tmp_path, files, part):
    files[f"{part}-labels-idx1-ubyte"] = idx(np.array([0, 1, 2], np.uint8))
    with pytest.raises(InputError, match=rf"{part}-labels.*not one label for each.*{part}-images"):
        read_idx(str(write(tmp_path, files)))


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named_with_its_spellings_and_how_to_get_it(tmp_path, files, name):
    del files[name]
    with pytest.raises(InputError, match=rf"{name}: no such file.*\.gz.*nonn-plan download mnist"):
        read_idx(str(write(tmp_path, files)))


def test_a_missing_folder_says_how_to_get_it(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no such folder.*nonn-plan download mnist -o"):
        load_dataset(f"idx:{tmp_path / 'nowhere'}")


def test_a_file_that_cannot_be_read_is_named(tmp_path, files):
    write(tmp_path, files)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    (tmp_path / "t10k-images-idx3-ubyte").rename(path)
    with pytest.raises(InputError, match=r"t10k-images-idx3-ubyte\.gz: is damaged: Not a gzip"):
        read_idx(str(tmp_path))


def test_test_images_of_another_size_are_named(tmp_path, files):
    files["t10k-images-idx3-ubyte"] = idx(np.zeros((2, 8, 9), np.uint8))
    with pytest.raises(InputError, match=r"t10k-images.*found '9x8'; allowed: 8x9"):
        read_idx(str(write(tmp_path, files)))


def test_a_label_that_no_training_image_has_is_named(tmp_path, files):
    files["t10k-labels-idx1-ubyte"] = idx(np.array([0, 3], np.uint8))
    with pytest.raises(InputError, match=r"t10k-labels.*found 3; allowed: 0 to 2"):
        read_idx(str(write(tmp_path, files)))


def test_one_class_is_too_few(tmp_path, files):
    files["train-labels-idx1-ubyte"] = idx(np.zeros(5, np.uint8))
    with pytest.raises(InputError, match=r"train-labels.*at least two classes"):
        read_idx(str(write(tmp_path, files)))
