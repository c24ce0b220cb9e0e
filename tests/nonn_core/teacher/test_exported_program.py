"""Exported programs as teachers: any batch, damage, and what is refused."""

import io
import logging
import zipfile
from fractions import Fraction

import pytest
import torch
from foreign_programs import exported, made, same_as
from torch.export import Dim, export, save
from torch.nn import functional as F

from nonn_common.errors import InputError
from nonn_core.teacher.foreign import load_foreign
from nonn_core.teacher.teacher import Teacher

pytestmark = pytest.mark.usefixtures("beside_strange")


@pytest.mark.parametrize("name", ["named", "functional", "Functional"])
@pytest.mark.parametrize("count", [1, 3])
def test_a_program_of_a_fixed_batch_answers_any_number(tmp_path, probe, images, name, count):
    found = load_foreign(exported(name, tmp_path / "net.pt2", count), probe, 3, None)
    same_as(made(name), found, images)
    same_as(made(name), found, images[:3])
    network = made(name)
    assert found.params == sum(each.numel() for each in network.parameters())


def test_a_program_of_any_batch(tmp_path, probe, images):
    reference = exported("functional", tmp_path / "net.pt2", batch=Dim("batch"))
    found = load_foreign(reference, probe, 3, None)
    assert found.fconv == "relu"
    same_as(made("functional"), found, images)


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
def test_a_decomposed_program(tmp_path, probe, images):
    """The last layer is then addmm, or mm where it has no bias."""
    for name in ("named", "Functional"):
        path = exported(name, tmp_path / f"{name}.pt2", batch=Dim("batch"), decomposed=True)
        same_as(made(name), load_foreign(path, probe, 3, None), images)


def test_a_program_for_other_images_is_refused(tmp_path, probe):
    path = exported("named", tmp_path / "net.pt2")
    with pytest.raises(InputError, match=r"net\.pt2: is not made for these images.*3, 9, 8"):
        load_foreign(path, torch.randn(4, 3, 9, 8), 3, None)


def test_a_program_of_two_inputs_is_refused(tmp_path, probe):
    class Two(torch.nn.Module):
        def forward(self, one, other):
            return F.relu(one + other).mean((2, 3))

    save(export(Two(), (probe, probe)), tmp_path / "two.pt2")
    with pytest.raises(InputError, match="allowed: one input"):
        load_foreign(str(tmp_path / "two.pt2"), probe, 3, None)


@pytest.mark.parametrize(
    ("dropout", "said"), [(0.5, "answered differently each time"), (0.0, "answered differently")]
)
def test_a_program_in_training_mode_is_refused(tmp_path, probe, dropout, said):
    network = made("named").train()
    network.drop.p = dropout
    save(export(network, (probe,), dynamic_shapes=({0: Dim("batch")},)), tmp_path / "net.pt2")
    with pytest.raises(InputError, match=f"{said}.*evaluation mode"):
        load_foreign(str(tmp_path / "net.pt2"), probe, 3, None)


def test_a_program_in_half_precision_says_what_to_do(tmp_path, probe):
    program = export(made("Half"), (probe.half(),))
    save(program, tmp_path / "half.pt2")
    with pytest.raises(InputError, match=r"float16.*allowed: torch\.float32; .*network\.float\(\)"):
        load_foreign(str(tmp_path / "half.pt2"), probe, 3, None)


def test_a_damaged_program_is_named_without_a_traceback(tmp_path, probe, caplog):
    path = tmp_path / "net.pt2"
    whole = exported("named", path)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        weights = max(archive.infolist(), key=lambda info: info.file_size).header_offset
    flipped = bytes(content[weights + 300 : weights + 340])[::-1]
    for damaged in (
        b"",
        b"PK",
        content[:-100],
        content[: weights + 300] + flipped + content[weights + 340 :],
    ):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"net\.pt2: is not a whole exported program"):
            load_foreign(whole, probe, 3, None)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "not a program")
    with pytest.raises(InputError, match=r"net\.pt2: is not a whole exported program"):
        load_foreign(whole, probe, 3, None)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not logging.getLogger("torch.export").disabled
    path.unlink()
    with pytest.raises(InputError, match=r"net\.pt2: no such teacher"):
        load_foreign(whole, probe, 3, None)


def rewritten(path, name, content):
    """Write an archive anew with another content of one entry, or with one entry more."""
    with zipfile.ZipFile(path) as archive:
        entries = {each: archive.read(each) for each in archive.namelist()}
    top = next(iter(entries)).partition("/")[0]
    with zipfile.ZipFile(path, "w") as archive:
        for each, found in (entries | {f"{top}/{name}": content}).items():
            archive.writestr(each, found)


def test_a_program_of_more_than_weights_is_refused(tmp_path, probe):
    """Objects that an unpickler would make: here a fraction, which does no harm."""
    path = tmp_path / "net.pt2"
    whole = exported("named", path)
    rewritten(path, "unused", b"")
    load_foreign(whole, probe, 3, None)
    pickled = io.BytesIO()
    torch.save(((Fraction(1, 3),), {}), pickled)
    rewritten(path, "data/sample_inputs/model.pt", pickled.getvalue())
    with pytest.raises(InputError, match=r"net\.pt2: is not a whole.*[Ww]eights.only"):
        load_foreign(whole, probe, 3, None)
    exported("named", path)
    rewritten(path, "data/constants/opaque_obj_0", b"")
    with pytest.raises(InputError, match=r"net\.pt2: holds objects that only code can restore"):
        load_foreign(whole, probe, 3, None)


def test_a_program_counts_the_same_whatever_its_batch(tiny, tmp_path):
    reference = Teacher.load("strange.nets:named", None, tiny).reference
    path = exported("named", tmp_path / "net.pt2", 3)
    said = Teacher.load(path, None, tiny).reference
    assert (said.params, said.macs) == (reference.params, reference.macs)
    assert said.peak_elements is None
