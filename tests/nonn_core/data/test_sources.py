"""The texts that name a data set."""

import pytest

from nonn_common.errors import InputError
from nonn_core.data.sources import read_source

KINDS = ("imagefolder", "idx", "cifar10", "cifar100")


@pytest.mark.parametrize(
    "source", ["", "mnist", "cifar10", "imagefolder:", "folder:/tmp", "digits:x", "Digits", ":x"]
)
def test_another_source_is_refused_with_all_that_are_allowed(source):
    with pytest.raises(InputError, match=r"not a data set") as caught:
        read_source(source)
    assert caught.value.found == source
    for kind in KINDS:
        assert f"{kind}:PATH" in str(caught.value)
    assert "digits" in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "name"), [("idx", "mnist"), ("cifar10", "cifar10"), ("cifar100", "cifar100")]
)
def test_a_path_that_is_not_there_is_never_fetched_but_says_how(tmp_path, kind, name):
    with pytest.raises(InputError, match=f"no such.*nonn-plan download {name} -o DIR"):
        read_source(f"{kind}:{tmp_path / 'data'}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["imagefolder", "cifar10", "cifar100"])
@pytest.mark.parametrize("content", [b"", b"no tar file", b"\x1f\x8b\x08\0"])
def test_a_file_that_is_no_tar_file_is_named_by_every_kind(tmp_path, kind, content):
    path = tmp_path / "data.tar.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as a tar file") as caught:
        read_source(f"{kind}:{path}")
    assert caught.value.where == str(path)
