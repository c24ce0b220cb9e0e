import errno
import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from nonn_common.errors import InputError, NonnError
from nonn_core.networks.modules import load_weights, read_tensors, write_tensors


@pytest.fixture
def file(tmp_path):
    return tmp_path / "w.safetensors"


def test_tensors_and_note_come_back(file):
    tensors = {
        "float": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "count": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "grad": torch.randn(3, requires_grad=True),
        "part": torch.arange(12).reshape(3, 4)[:, 1:3],
    }
    note = {"a": [1, 2.5, None, "e\u0301"], "b": {"c": True}}
    write_tensors(file, tensors, note)
    found, found_note = read_tensors(file)
    assert found_note == note
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor), name
        assert found[name].dtype == tensor.dtype


def test_without_a_note_it_is_none(file):
    write_tensors(file, {"a": torch.zeros(1)})
    assert read_tensors(file)[1] is None


def test_a_missing_file_is_named(file):
    with pytest.raises(InputError, match=r"w\.safetensors: no such file"):
        read_tensors(file)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x04}.", bytes(1000), b"\xff" * 64])
def test_other_files_are_refused(file, content):
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"w\.safetensors: is not a whole safetensors file"):
        read_tensors(file)


@pytest.mark.parametrize("missing", [1, 40, 400, 2000])
def test_a_truncated_file_is_refused(file, missing):
    write_tensors(file, {"a": torch.randn(20, 30)})
    file.write_bytes(file.read_bytes()[:-missing])
    with pytest.raises(InputError, match="is not a whole safetensors file"):
        read_tensors(file)


def test_no_bit_that_flips_goes_unnoticed(file):
    tensors = {"a": torch.randn(2, 3), "b": torch.tensor(7), "c": torch.zeros(2).bfloat16()}
    write_tensors(file, tensors, {"epoch": 3})
    whole = file.read_bytes()
    data = len(whole) - (24 + 8 + 4)
    for byte in [*range(data, len(whole)), whole.index(b"epoch"), whole.index(b"sha256")]:
        for bit in (0, 7):
            content = bytearray(whole)
            content[byte] ^= 1 << bit
            file.write_bytes(content)
            with pytest.raises(InputError, match=r"w\.safetensors"):
                read_tensors(file)


def test_a_file_of_somebody_else_has_no_digest(file):
    save_file({"a": torch.ones(2)}, file)
    tensors, note = read_tensors(file)
    assert (tensors["a"].tolist(), note) == ([1, 1], None)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(InputError):
        read_tensors(tmp_path)


def test_weights_are_copied(file):
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    load_weights(target, source.state_dict(), file)
    assert torch.equal(source.weight, target.weight)
    assert source.weight.data_ptr() != target.weight.data_ptr()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.zeros(2, 4)}, r"tensor weight; found \(2, 4\); allowed: \(2, 3\)"),
        ({"surprise": torch.zeros(1)}, r"tensor surprise; found \(1,\); allowed: nothing"),
        ({"bias": None}, r"tensor bias; found 'nothing'; allowed: \(2,\)"),
    ],
)
def test_the_tensor_that_does_not_fit_is_named(file, change, message):
    module = nn.Linear(3, 2)
    before = module.weight.clone()
    tensors = {**module.state_dict(), **change}
    tensors = {name: torch.zeros_like(t) for name, t in tensors.items() if t is not None}
    with pytest.raises(InputError, match=message) as caught:
        load_weights(module, tensors, file)
    assert str(file) in str(caught.value)
    assert torch.equal(module.weight, before)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(file, monkeypatch):
    write_tensors(file, {"a": torch.ones(3)}, "old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NonnError, match="No space left on device") as caught:
        write_tensors(file, {"a": torch.zeros(3)}, "new")
    assert str(file) in str(caught.value)
    monkeypatch.undo()
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    tensors, note = read_tensors(file)
    assert note == "old"
    assert torch.equal(tensors["a"], torch.ones(3))
