import io
import shutil
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from nonn_common.errors import InputError
from nonn_core.data import sources
from nonn_core.data.dataset import load_dataset
from nonn_core.data.sources import read_image_folder


def encoded(pixels, kind="PNG"):
    stream = io.BytesIO()
    Picture.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def write_folder(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def write_tar(path, files, mode="w:gz"):
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


NOISE = np.random.default_rng(3).integers(0, 256, (8, 12, 3), dtype=np.uint8)


@pytest.fixture
def pixels():
    """Two images each of cats and dogs in train, one each in test; uint8 (8, 12, 3)."""
    rng = np.random.default_rng(0)
    names = [
        *(f"train/{kind}/{number}.png" for kind in ("cat", "dog") for number in (0, 1)),
        *(f"test/{kind}/9.png" for kind in ("cat", "dog")),
    ]
    return {name: rng.integers(0, 256, (8, 12, 3), dtype=np.uint8) for name in names}


@pytest.fixture
def files(pixels):
    return {name: encoded(each) for name, each in pixels.items()}


@pytest.fixture(params=["folder", "tar"])
def written(request, tmp_path):
    """Write files as a folder or a tar file and return its path."""

    def write(files):
        if request.param == "folder":
            return str(write_folder(tmp_path / "data", files))
        return str(write_tar(tmp_path / "data.tar.gz", files))

    return write


def test_images_and_labels_are_those_of_the_files(written, files, pixels):
    found = read_image_folder(written(files))
    assert found.class_names == ("cat", "dog")
    assert found.train[1].tolist() == [0, 0, 1, 1]
    assert found.test[1].tolist() == [0, 1]
    for part in ("train", "test"):
        expected = [each for name, each in pixels.items() if name.startswith(part)]
        assert np.array_equal(getattr(found, part)[0], np.stack(expected).transpose(0, 3, 1, 2))


def same(one, other):
    assert one.class_names == other.class_names
    for a, b in [(one.train, other.train), (one.test, other.test)]:
        assert torch.equal(a.pixels, b.pixels)
        assert torch.equal(a.labels, b.labels)
    assert torch.equal(one.mean, other.mean)
    assert torch.equal(one.std, other.std)


def test_a_tar_file_in_any_order_is_the_folder(tmp_path, files):
    folder = load_dataset(f"imagefolder:{write_folder(tmp_path / 'data', files)}")
    backwards = dict(reversed(files.items()))
    plain = {f"./{name}": content for name, content in files.items()}
    below = {f"my-data/{name}": content for name, content in backwards.items()}
    for name, members, mode in [
        ("a.tar.gz", backwards, "w:gz"),
        ("b.tar", plain, "w"),
        ("c.tar.xz", below, "w:xz"),
    ]:
        path = write_tar(tmp_path / name, members, mode)
        same(load_dataset(f"imagefolder:{path}"), folder)


def test_of_a_name_twice_in_a_tar_file_the_last_is_meant(tmp_path, files):
    folder = load_dataset(f"imagefolder:{write_folder(tmp_path / 'data', files)}")
    name, other = list(files)[:2]
    path = write_tar(tmp_path / "data.tar", {**files, name: files[other]}, "w")
    with tarfile.open(path, "a") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(files[name])
        tar.addfile(member, io.BytesIO(files[name]))
    same(load_dataset(f"imagefolder:{path}"), folder)


def test_links_to_class_folders_are_followed(tmp_path, files):
    plain = write_folder(tmp_path / "plain", files)
    linked = write_folder(tmp_path / "linked", files)
    (linked / "train" / "dog").rename(tmp_path / "elsewhere")
    (linked / "train" / "dog").symlink_to(tmp_path / "elsewhere")
    same(load_dataset(f"imagefolder:{linked}"), load_dataset(f"imagefolder:{plain}"))


def test_a_photograph_may_be_mirrored_and_has_three_channels(written, files):
    dataset = load_dataset(f"imagefolder:{written(files)}")
    assert dataset.mirrored
    assert str(dataset.image) == "3x8x12"


def test_grey_and_jpeg_images_become_three_channels(written, files):
    grey = np.arange(96, dtype=np.uint8).reshape(8, 12)
    files["train/cat/0.png"] = encoded(grey)
    files["train/dog/2.jpeg"] = encoded(np.full((8, 12, 3), 77, np.uint8), "JPEG")
    found = read_image_folder(written(files))
    assert np.array_equal(found.train[0][0], np.stack([grey] * 3))
    assert np.abs(found.train[0][4].astype(int) - 77).max() <= 1


def test_other_files_are_left_out(written, files):
    files["train/cat/notes.txt"] = b"not an image"
    files["train/.DS_Store"] = b"x"
    files["README.md"] = b"x"
    assert len(read_image_folder(written(files)).train[1]) == 4


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.jpg", b"I am a text file"),
        ("empty.png", b""),
        ("half.jpg", encoded(NOISE, "JPEG")[:300]),
        ("nearly.jpg", encoded(NOISE, "JPEG")[:-60]),
        ("half.png", encoded(NOISE)[:120]),
        ("header.gif", encoded(NOISE, "GIF")[:20]),
        ("half.webp", encoded(NOISE, "WEBP")[:70]),
    ],
)
@pytest.mark.parametrize("part", ["train", "test"])
def test_an_unreadable_image_is_named(written, files, part, name, content):
    files[f"{part}/dog/{name}"] = content
    path = written(files)
    with pytest.raises(InputError, match="not a readable image") as caught:
        read_image_folder(path)
    assert f"{part}/dog/{name}" in str(caught.value)
    assert path in str(caught.value)


def test_a_folder_with_the_name_of_an_image_is_named(tmp_path, files):
    root = write_folder(tmp_path / "data", files)
    (root / "train" / "cat" / "folder.png").mkdir()
    with pytest.raises(InputError, match=r"folder\.png: a folder in a class folder"):
        read_image_folder(str(root))


def test_an_image_that_claims_to_be_enormous_is_named(written, files):
    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    files["train/cat/huge.png"] = b"".join(
        [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), chunk(b"IDAT", b""), chunk(b"IEND", b"")]
    )
    with pytest.raises(InputError, match=r"train/cat/huge\.png"):
        read_image_folder(written(files))


@pytest.mark.parametrize("name", ["train/dog/big.png", "test/dog/big.png"])
def test_another_size_is_named(written, files, name):
    files[name] = encoded(np.zeros((8, 13, 3), np.uint8))
    with pytest.raises(InputError, match=r"same size.*13x8.*12x8") as caught:
        read_image_folder(written(files))
    assert name in str(caught.value)


def test_training_and_test_images_must_have_one_size(written, files):
    for name in [name for name in files if name.startswith("test")]:
        files[name] = encoded(np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(InputError, match="same size"):
        read_image_folder(written(files))


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_class_folder_that_is_missing_in_one_part_is_named(written, files, part):
    files[f"{part}/bird/0.png"] = files["train/cat/0.png"]
    with pytest.raises(InputError, match=r"a class has no image in t.*bird"):
        read_image_folder(written(files))


def test_no_test_folder_is_said(written, files):
    only = {name: content for name, content in files.items() if name.startswith("train")}
    with pytest.raises(InputError, match="test"):
        read_image_folder(written(only))


def test_one_class_is_too_few(written, files):
    cats = {name: content for name, content in files.items() if "cat" in name}
    with pytest.raises(InputError, match=r"at least two class folders.*train/CLASS"):
        read_image_folder(written(cats))


def test_a_folder_or_tar_without_images_is_refused(written):
    with pytest.raises(InputError, match="at least two class folders"):
        read_image_folder(written({"README.md": b"x"}))


def test_a_missing_path_is_named(tmp_path):
    path = tmp_path / "nowhere"
    with pytest.raises(InputError, match="nowhere: no such folder or tar file"):
        read_image_folder(str(path))


@pytest.mark.parametrize("content", [b"", b"not a tar file" * 100, b"\x1f\x8b\x08garbage"])
def test_what_is_no_tar_file_is_named(tmp_path, content):
    path = tmp_path / "data.tar.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"data\.tar\.gz"):
        read_image_folder(str(path))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_tar_file_is_named(tmp_path, files, mode, share):
    path = write_tar(tmp_path / "data.tar", large(files), mode)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share) // 512 * 512 + 7])
    with pytest.raises(InputError, match=r"data\.tar"):
        read_image_folder(str(path))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_file_with_damaged_bytes_is_named(tmp_path, files, mode):
    path = write_tar(tmp_path / "data.tar", large(files), mode)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"data\.tar"):
        read_image_folder(str(path))


@pytest.mark.parametrize("target", ["nowhere.png", "link.png"])
def test_a_tar_file_with_a_link_to_nothing_is_named(tmp_path, files, target):
    path = write_tar(tmp_path / "data.tar", files, "w")
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("train/dog/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, target
        tar.addfile(link)
    with pytest.raises(InputError, match=r"data\.tar: cannot be read as a tar file"):
        read_image_folder(str(path))


def test_a_damaged_header_does_not_end_the_data_set_early(tmp_path, files):
    # Test images first, so that what is in front of the damage would pass for a whole data set.
    ordered = dict(sorted(files.items()))
    path = write_tar(tmp_path / "data.tar", ordered, "w")
    with tarfile.open(path) as tar:
        last = tar.getmember("train/dog/1.png")
    content = bytearray(path.read_bytes())
    content[last.offset : last.offset + 100] = b"\xff" * 100
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"data\.tar"):
        read_image_folder(str(path))


def large(files):
    """Add images of noise, so that damage in the middle hits an image."""
    rng = np.random.default_rng(1)
    more = {
        f"train/cat/{100 + k}.png": encoded(rng.integers(0, 256, (8, 12, 3), dtype=np.uint8))
        for k in range(40)
    }
    return {**more, **files}


def test_progress_is_told_while_reading(tmp_path, files):
    more = {f"train/cat/{k}.png": files["train/cat/0.png"] for k in range(1000)}
    folder = write_folder(tmp_path / "data", {**files, **more})
    seen = []
    read_image_folder(str(folder), lambda what, done, _: seen.append((what, done)))
    assert [done for _, done in seen] == [500, 1000]


def test_deep_images_are_refused_and_not_made_white(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "deep")
    deep = np.full((8, 8), 300, dtype=np.uint16)
    Picture.fromarray(deep).save(folder / "train" / "bar" / "000.png")
    with pytest.raises(InputError, match=r"train/bar/000.png: has more than 8 bits"):
        read_image_folder(str(folder))


@pytest.mark.parametrize("part", ["train", "test"])
def test_an_empty_class_folder_is_named(tiny_folder, tmp_path, part):
    folder = shutil.copytree(tiny_folder, tmp_path / "data")
    (folder / part / "empty").mkdir()
    with pytest.raises(InputError, match=r"no image in train/.*empty"):
        read_image_folder(str(folder))


def test_an_image_in_no_class_folder_is_named(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "data")
    nested = folder / "train" / "bar" / "more"
    nested.mkdir()
    shutil.copy(folder / "train" / "bar" / "000.png", nested / "1.png")
    with pytest.raises(InputError, match=r"train/bar/more: a folder in a class folder"):
        read_image_folder(str(folder))


def test_hidden_files_are_no_images(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "data")
    (folder / "train" / "bar" / "._000.png").write_bytes(b"metadata")
    assert len(read_image_folder(str(folder)).train[1]) == 72


def test_one_top_folder_may_hold_a_data_set_two_may_not(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "top" / "one")
    assert len(read_image_folder(str(tmp_path / "top")).train[1]) == 72
    shutil.copytree(tiny_folder, tmp_path / "top" / "two")
    with pytest.raises(InputError, match=r"more than one data set.*one.*two"):
        read_image_folder(str(tmp_path / "top"))


def test_a_zip_file_is_named_as_one(tmp_path):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("train/a/1.png", b"")
    with pytest.raises(InputError, match=r"is a zip file.*unpack it"):
        read_image_folder(str(tmp_path / "data.zip"))


def test_pictures_of_a_data_set_are_bounded_together(tmp_path, files, monkeypatch):
    """Six pictures of 288 bytes, each small; a name that comes again in a tar counts once."""
    again = dict(list(files.items())[:1])
    archive = write_tar(tmp_path / "photos.tar", files, "w")
    with tarfile.open(archive, "a") as tar:
        for name, content in again.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(sources, "MOST_HELD_BYTES", 6 * 288)
    assert len(read_image_folder(archive).train.pixels) == 4
    monkeypatch.setattr(sources, "MOST_HELD_BYTES", 6 * 288 - 1)
    with pytest.raises(InputError, match=r"photos.tar: .*too large together.*6 files"):
        read_image_folder(archive)
