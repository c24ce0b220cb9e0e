"""Downloads from a real server on this machine; what fails leaves nothing behind."""

import gzip
import hashlib
import socket

import numpy as np
import pytest
from local_server import serving

from nonn_common.errors import InputError, NonnError
from nonn_core.data.download import download
from nonn_core.data.files import PUBLISHED, PublishedDataset, PublishedFile

CONTENTS = {
    "one.bin": np.random.default_rng(1).bytes(300_000),
    "two.bin.gz": gzip.compress(np.random.default_rng(2).bytes(1000)),
}


@pytest.fixture
def server():
    with serving() as running:
        running.files.update(CONTENTS)
        yield running


def published(address, contents=CONTENTS):
    files = [
        PublishedFile(f"{address}/{name}", hashlib.md5(content).hexdigest())  # noqa: S324
        for name, content in contents.items()
    ]
    return PublishedDataset("idx", tuple(files))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_come_as_they_are_with_progress_and_only_once(server, tmp_path, capfd):
    folder, seen = tmp_path / "new" / "folder", []
    dataset = published(server.address)
    fetched = download(dataset, folder, lambda *told: seen.append(told))
    assert fetched == (folder / "one.bin", folder / "two.bin.gz")
    assert contents(folder) == CONTENTS
    one = [(done, total) for what, done, total in seen if what == "fetching one.bin (kB)"]
    assert one == [(65, 300), (131, 300), (196, 300), (262, 300), (300, 300), (300, 300)]
    assert server.asked == ["one.bin", "two.bin.gz"]
    assert download(dataset, folder) == ()
    assert len(server.asked) == 2
    assert capfd.readouterr() == ("", "")


def test_only_what_is_missing_is_fetched(server, tmp_path):
    (tmp_path / "one.bin").write_bytes(CONTENTS["one.bin"])
    assert download(published(server.address), tmp_path) == (tmp_path / "two.bin.gz",)
    assert server.asked == ["two.bin.gz"]


def test_another_content_is_refused_with_both_checksums(server, tmp_path):
    dataset = published(server.address)
    server.files["two.bin.gz"] = b"something else"
    with pytest.raises(NonnError) as caught:
        download(dataset, tmp_path)
    assert not isinstance(caught.value, InputError)
    found = hashlib.md5(b"something else").hexdigest()  # noqa: S324
    for part in (f"{server.address}/two.bin.gz", found, dataset.files[1].md5):
        assert part in str(caught.value)
    # The first file was fetched whole and stays.
    assert contents(tmp_path) == {"one.bin": CONTENTS["one.bin"]}


def test_a_file_that_the_server_does_not_have(server, tmp_path):
    del server.files["one.bin"]
    with pytest.raises(NonnError, match=rf"{server.address}/one\.bin: could not be.*404"):
        download(published(server.address), tmp_path)
    assert contents(tmp_path) == {}


def test_a_connection_that_breaks_leaves_nothing(server, tmp_path):
    server.cut_short.add("one.bin")
    with pytest.raises(NonnError, match=r"one\.bin: could not be fetched.*run the command again"):
        download(published(server.address), tmp_path)
    assert contents(tmp_path) == {}
    server.cut_short.clear()
    download(published(server.address), tmp_path)
    assert contents(tmp_path) == CONTENTS


def test_no_server_is_said(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(NonnError, match=rf"{address}/one\.bin: could not be fetched"):
            download(published(address), tmp_path)
    assert contents(tmp_path) == {}


def test_an_interruption_leaves_nothing(server, tmp_path):
    def stop(what, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(published(server.address), tmp_path, stop)
    assert contents(tmp_path) == {}


def test_a_file_of_the_user_is_not_replaced_and_nothing_is_fetched(server, tmp_path):
    (tmp_path / "two.bin.gz").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"two\.bin\.gz: is another file.*choose another folder"):
        download(published(server.address), tmp_path)
    assert contents(tmp_path) == {"two.bin.gz": b"mine"}
    assert server.asked == []


def test_a_file_in_the_place_of_the_folder_is_named(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=r"file.*a file is where its folder should be"):
        download(published(server.address), tmp_path / "file")
    assert server.asked == []


def test_the_published_sets_have_whole_checksums_and_names_that_their_readers_find(tmp_path):
    assert set(PUBLISHED) == {"mnist", "fashion-mnist", "kmnist", "cifar10", "cifar100"}
    files = [file for dataset in PUBLISHED.values() for file in dataset.files]
    assert len(files) == 3 * 4 + 2
    assert len({file.md5 for file in files}) == len({file.url for file in files}) == len(files)
    assert all(len(bytes.fromhex(file.md5)) == 16 for file in files)
    for name in ("mnist", "fashion-mnist", "kmnist"):
        assert PUBLISHED[name].source(tmp_path) == f"idx:{tmp_path}"
    assert PUBLISHED["cifar100"].source(tmp_path) == f"cifar100:{tmp_path}/cifar-100-binary.tar.gz"
