"""Machine code is what its Python says, and is run only where it was made for just that."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from simulator import native_code
from simulator.native_code import Kernel, part

FIND = """
import sys
sys.path[:0] = sys.argv[1:2]
from test_native_code import DOUBLING
print(DOUBLING.find(), "numba" in sys.modules)
"""


@part
def doubled(value):
    return 2 * value


def doubling(numbers, floats, wholes):
    for place in range(numbers[0]):
        floats[0][place] = doubled(floats[0][place])
        wholes[0][place] = place


DOUBLING = Kernel(doubling, __name__)


def raising(numbers, floats, wholes):
    if numbers[0]:
        raise ValueError


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "kept"))
    return tmp_path / "kept"


def kernel():
    """The same, as a new process has it."""
    return Kernel(doubling, __name__)


def run(each):
    floats, wholes = np.array([1.5, -2.0, 7.0]), np.zeros(3, dtype=np.int64)
    each(np.array([2]), [floats], [wholes])
    return floats.tolist(), wholes.tolist()


def test_machine_code_does_what_python_does(folder):
    made = kernel()
    assert not made.find()
    assert made.make()
    assert run(made) == run(doubling) == ([3.0, -4.0, 7.0], [0, 1, 0])


def test_a_new_process_finds_it_without_numba(folder):
    assert kernel().make()
    here = str(Path(__file__).parent)
    ended = subprocess.run([sys.executable, "-c", FIND, here], capture_output=True, text=True)
    assert ended.stdout == "True False\n", ended.stderr


@pytest.mark.parametrize("spoil", [lambda code: code[:-9], lambda code: code[:-1] + b"?", bytes])
def test_a_file_that_is_not_whole_is_compiled_anew(folder, spoil):
    assert kernel().make()
    (kept,) = folder.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(spoil(whole) if spoil is not bytes else b"")
    found = kernel()
    assert not found.find()
    assert found.make()
    assert run(found) == run(doubling)
    assert len(kept.read_bytes()) == len(whole)


def test_code_of_another_version_is_replaced(folder, monkeypatch):
    assert kernel().make()
    before = {each.name for each in folder.iterdir()}
    monkeypatch.setattr(native_code, "version", lambda name: f"{name} of tomorrow")
    later = kernel()
    assert not later.find()
    assert later.make()
    after = {each.name for each in folder.iterdir()}
    assert len(after) == 1
    assert not after & before


def test_a_kernel_that_needs_more_than_itself_is_refused(folder):
    assert not Kernel(raising, __name__).make()
    with pytest.raises(ValueError, match="nothing outside"):
        native_code._machine_code(raising)


def test_without_a_folder_it_runs_and_is_not_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "folder"))
    assert native_code.has_place()
    (tmp_path / "file").write_text("in the way")
    assert not native_code.has_place()
    made = kernel()
    assert made.make()
    assert run(made) == run(doubling)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_code_whose_source_cannot_be_read_is_neither_found_nor_made(folder):
    lost = Kernel(doubling, "a_module_that_is_not_there")
    assert not lost.find()
    assert not lost.make()
    assert not lost.is_loaded


@pytest.mark.parametrize("wrong", [np.zeros(3, dtype=np.float32), np.zeros((3, 2))[:, 0]])
def test_arrays_of_another_kind_are_refused(folder, wrong):
    made = kernel()
    assert made.make()
    with pytest.raises(TypeError, match="contiguous"):
        made(np.array([2]), [wrong], [np.zeros(3, dtype=np.int64)])
