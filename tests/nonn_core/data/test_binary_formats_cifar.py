"""CIFAR in its published binary form, written here record by record, with fewer images."""

import dataclasses
import io
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nonn_common.errors import InputError
from nonn_core.data.binary_formats import CIFAR10, CIFAR100, read_cifar
from nonn_core.data.dataset import load_dataset


def fewer(layout, *counts):
    """The same layout with so many images in its files."""
    train = dict(zip(layout.train, counts[:-1], strict=True))
    test = dict.fromkeys(layout.test, counts[-1])
    return dataclasses.replace(layout, train=train, test=test)


FEW10 = fewer(CIFAR10, 3, 1, 2, 1, 1, 2)
FEW100 = fewer(CIFAR100, 4, 3)
LAYOUTS = st.sampled_from([FEW10, FEW100])


def records(rng, count, label_classes):
    """Labels (N, bytes) and pixels (N, 3, 32, 32), and the file that holds them."""
    labels = np.stack([rng.integers(0, n, count) for n in label_classes], axis=1)
    pixels = rng.integers(0, 256, (count, 3, 32, 32))
    content = b"".join(
        bytes(marks) + b"".join(bytes(channel.ravel().tolist()) for channel in image)
        for marks, image in zip(labels.tolist(), pixels, strict=True)
    )
    return labels, pixels, content


def made(layout, seed=0):
    """The content of all files by name, and labels and pixels of the images by file name."""
    rng = np.random.default_rng(seed)
    names = [f"class {number}" for number in range(layout.label_classes[-1])]
    files = {layout.class_names: ("\n".join(names) + "\n\n").encode()}
    arrays = {}
    for name, count in {**layout.train, **layout.test}.items():
        labels, pixels, files[name] = records(rng, count, layout.label_classes)
        arrays[name] = labels[:, -1], pixels
    return files, arrays


def write_folder(root, files):
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (root / name).write_bytes(content)
    return root


def write_tar(path, files, top):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{top}{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write(folder, files, layout, form):
    if form == "tar":
        return str(write_tar(folder / "cifar.tar.gz", files, f"{layout.folder}/"))
    if form == "flat tar":
        return str(write_tar(folder / "cifar.tar.gz", files, "./"))
    write_folder(folder / layout.folder, files)
    return str(folder if form == "parent" else folder / layout.folder)


FORMS = ["folder", "parent", "tar", "flat tar"]


@settings(max_examples=25)
@given(LAYOUTS, st.sampled_from(FORMS), st.integers(0, 99))
def test_what_was_written_is_read_with_fine_labels(tmp_path_factory, layout, form, seed):
    files, arrays = made(layout, seed)
    found = read_cifar(layout, write(tmp_path_factory.mktemp("cifar"), files, layout, form))
    for part, names in ((found.train, layout.train), (found.test, layout.test)):
        assert np.array_equal(part.labels, np.concatenate([arrays[name][0] for name in names]))
        assert np.array_equal(part.pixels, np.concatenate([arrays[name][1] for name in names]))
        assert (part.pixels.dtype, part.labels.dtype) == (np.uint8, np.int64)
    assert found.class_names == tuple(f"class {k}" for k in range(layout.label_classes[-1]))
    assert found.mirrored


def test_the_channels_of_a_record_written_by_hand(tmp_path):
    files, _ = made(FEW100)
    image = bytes([7, 93, *[200] * 32, *[10] * 992, *[20] * 1024, *[30] * 1024])
    files["test.bin"] = image * 3
    found = read_cifar(FEW100, write(tmp_path, files, FEW100, "folder"))
    assert found.test.labels.tolist() == [93] * 3
    red, green, blue = found.test.pixels[2]
    assert (red[0] == 200).all()
    assert (red[1:] == 10).all()
    assert (green == 20).all()
    assert (blue == 30).all()


def test_the_files_have_the_published_lengths():
    """30,730,000 bytes each (CIFAR-10 page); 153,700,000 and 30,740,000 for CIFAR-100."""
    images = {**CIFAR10.train, **CIFAR10.test}
    assert {count * CIFAR10.record_bytes for count in images.values()} == {30_730_000}
    assert len(images) == 6
    assert CIFAR100.train["train.bin"] * CIFAR100.record_bytes == 153_700_000
    assert CIFAR100.test["test.bin"] * CIFAR100.record_bytes == 30_740_000


@settings(max_examples=60)
@given(LAYOUTS, st.sampled_from(FORMS), st.data())
def test_any_file_of_another_length_is_refused_by_name(tmp_path_factory, layout, form, data):
    files, arrays = made(layout)
    name = data.draw(st.sampled_from(sorted(arrays)))
    whole = len(files[name])
    length = data.draw(st.integers(0, whole + 5000).filter(lambda n: n != whole))
    files[name] = (files[name] + bytes(5000))[:length]
    path = write(tmp_path_factory.mktemp("cifar"), files, layout, form)
    with pytest.raises(InputError, match=f"found '{length} bytes'; allowed: {whole} bytes") as e:
        read_cifar(layout, path)
    assert e.value.where == f"{path}: {name}"


@settings(max_examples=60)
@given(st.data())
def test_any_tar_file_cut_short_is_refused_by_name(tmp_path_factory, data):
    files, _ = made(FEW100)
    path = write_tar(tmp_path_factory.mktemp("cifar") / "c.tar.gz", files, "")
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(InputError, match=r"cannot be read as a tar file") as caught:
        read_cifar(FEW100, str(path))
    assert caught.value.where == str(path)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", [FEW10, FEW100])
def test_a_missing_file_is_named(tmp_path, layout, form):
    for number, name in enumerate(layout.files):
        files, _ = made(layout)
        del files[name]
        folder = tmp_path / str(number)
        folder.mkdir()
        path = write(folder, files, layout, form)
        with pytest.raises(InputError, match=f"no such file.*download {layout.name} -o") as caught:
            read_cifar(layout, path)
        assert caught.value.where == f"{path}: {name}"


@pytest.mark.parametrize(
    ("layout", "name", "byte", "value", "highest"),
    [(FEW10, "data_batch_3.bin", 0, 10, 9), (FEW10, "test_batch.bin", 0, 255, 9),
     (FEW100, "train.bin", 0, 20, 19), (FEW100, "test.bin", 1, 100, 99)],
)  # fmt: skip
def test_a_label_that_is_none_is_named(tmp_path, layout, name, byte, value, highest):
    files, _ = made(layout)
    content = bytearray(files[name])
    content[layout.record_bytes + byte] = value
    files[name] = bytes(content)
    path = write(tmp_path, files, layout, "folder")
    with pytest.raises(
        InputError, match=rf"image 1 has.*found {value}; allowed: 0 to {highest}"
    ) as e:
        read_cifar(layout, path)
    assert e.value.where == f"{path}: {name}"


@pytest.mark.parametrize("names", [b"", b"cat\ndog\n", b"\xff\xfe" * 9, b"x\n" * 11])
def test_a_list_of_names_that_is_none_is_named(tmp_path, names):
    files, _ = made(FEW10)
    files["batches.meta.txt"] = names
    with pytest.raises(InputError, match=r"batches\.meta\.txt: not one name for each class.*10"):
        read_cifar(FEW10, write(tmp_path, files, FEW10, "tar"))


def test_progress_counts_the_files(tmp_path):
    files, _ = made(FEW100)
    seen = []
    path = write(tmp_path, files, FEW100, "tar")
    read_cifar(FEW100, path, lambda _, done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_images_of_another_data_set_are_not_taken(tmp_path):
    files, _ = made(FEW100)
    with pytest.raises(InputError, match=r"data_batch_1\.bin: no such file"):
        read_cifar(FEW10, write(tmp_path, files, FEW10, "folder"))


def test_the_published_size_is_loaded_by_its_source(tmp_path):
    """All of CIFAR-10, black but for one dot, in files that take no room on the disk."""
    (tmp_path / "batches.meta.txt").write_text("\n".join("abcdefghij"))
    for name in (*CIFAR10.train, *CIFAR10.test):
        with (tmp_path / name).open("wb") as stream:
            stream.truncate(30_730_000)
            stream.seek(-1, io.SEEK_END)
            stream.write(b"\1")
    dataset = load_dataset(f"cifar10:{tmp_path}")
    assert (len(dataset.train), len(dataset.test)) == (50_000, 10_000)
    assert str(dataset.image) == "3x32x32"
    assert dataset.class_names == tuple("abcdefghij")
    assert dataset.mirrored
