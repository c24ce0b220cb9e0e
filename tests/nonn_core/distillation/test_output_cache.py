import errno
import json
import os
import shutil

import pytest
import torch

from nonn_common.errors import NonnError
from nonn_core.distillation.losses import activation_transfer
from nonn_core.distillation.output_cache import OutputLayout, TeacherOutputCache, remove_cache
from nonn_core.teacher.teacher import TeacherOutputs

IMAGES, VIEWS = 10, 3


def outputs(seed, images=5, scale=1.0):
    generator = torch.Generator().manual_seed(seed)

    def values(*shape):
        return torch.randn(images, *shape, generator=generator).relu() * scale

    logits = torch.randn(images, 4, generator=generator)
    # As a network gives them.
    maps = values(6, 2, 3).contiguous(memory_format=torch.channels_last)
    return TeacherOutputs(logits, [maps, values(1, 7, 1)], [values(4, 4)])


def view(number):
    """A view of ten images in two parts."""
    return iter([outputs(10 * number), outputs(10 * number + 1)])


@pytest.fixture
def file(tmp_path):
    def make(identity=("teacher", 1), shape=None):
        shape = shape or OutputLayout.of(outputs(0))
        return TeacherOutputCache(
            tmp_path / "run" / "lessons-0.bin", identity, shape, VIEWS, IMAGES
        )

    return make


@pytest.mark.parametrize("images", [1, 5])
def test_a_lesson_comes_back_from_its_bytes(images):
    shape, given = OutputLayout.of(outputs(0)), outputs(3, images)
    rows = shape.pack(given)
    # Four logits of 4 bytes; 36 + 7 values of maps and 16 of attention of 2 bytes.
    assert rows.shape == (images, 16 + 2 * 59)
    assert shape.row_bytes == rows.shape[1]
    found = shape.unpack(rows)
    assert torch.equal(found.logits, given.logits)
    for one, other in zip(
        [*found.maps, *found.attention], [*given.maps, *given.attention], strict=True
    ):
        assert torch.equal(one, other.bfloat16())


def test_what_is_not_asked_for_takes_no_room():
    plain = TeacherOutputs(torch.randn(3, 7))
    shape = OutputLayout.of(plain)
    assert shape.row_bytes == 28
    found = shape.unpack(shape.pack(plain))
    assert torch.equal(found.logits, plain.logits)
    assert not found.maps
    assert not found.attention


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_activation_transfer_changes_little_whatever_the_scale(scale):
    given = outputs(1, images=64, scale=scale)
    students = outputs(2, images=64).maps
    shape = OutputLayout.of(given)
    kept = shape.unpack(shape.pack(given))
    exact = activation_transfer(students, given.maps)
    assert float(activation_transfer(students, kept.maps)) == pytest.approx(float(exact), rel=1e-3)
    # Of a student that is perfect only the rounding is left: some (2^-9)^2 for each partition.
    assert float(activation_transfer(given.maps, kept.maps)) < 2 * 2.0**-16


def test_rows_are_those_of_all_views_in_order(file):
    made = file()
    seen = []
    made.build(view, lambda *told: seen.append(told))
    expected = torch.cat([made.shape.pack(p) for number in range(VIEWS) for p in view(number)])
    assert torch.equal(made.rows(), expected)
    assert made.size_bytes == made.path.stat().st_size == expected.numel()
    assert [told[1:] for told in seen] == [(5 * k, 30) for k in range(1, 7)]
    assert "4.0 KB" in seen[0][0]


def stops_in(number, error=KeyboardInterrupt):
    """Views that end in the middle of this one."""

    def lessons(current):
        yield outputs(10 * current)
        if current == number:
            raise error
        yield outputs(10 * current + 1)

    return lessons


def test_a_killed_build_goes_on_at_the_view_that_was_cut(file):
    whole = file()
    whole.build(view)
    expected = whole.rows().clone()
    remove_cache(whole.path)
    with pytest.raises(KeyboardInterrupt):
        file().build(stops_in(1))
    asked = []

    def recorded(number):
        asked.append(number)
        return view(number)

    again = file()
    again.build(recorded)
    assert asked == [1, 2]
    assert torch.equal(again.rows(), expected)
    again.build(recorded)
    assert asked == [1, 2]


@pytest.mark.parametrize("damage", ["other identity", "no note", "broken note", "no rows"])
def test_what_cannot_be_trusted_is_made_anew(file, damage):
    made = file()
    made.build(view)
    note = made.path.with_suffix(".json")
    if damage == "other identity":
        made = file(identity=("teacher", 2))
    elif damage == "no note":
        note.unlink()
    elif damage == "broken note":
        note.write_text("{")
    else:
        made.path.unlink()
    asked = []
    made.build(lambda number: asked.append(number) or view(number))
    assert asked == [0, 1, 2]


def test_rows_that_were_cut_off_are_made_anew(file):
    made = file()
    made.build(view)
    expected = made.rows().clone()
    os.truncate(made.path, made.path.stat().st_size - 1)
    asked = []
    made.build(lambda number: asked.append(number) or view(number))
    assert asked == [2]
    assert torch.equal(made.rows(), expected)


@pytest.mark.parametrize(("byte", "anew"), [(0, [0, 1, 2]), (10 * 134 + 5, [1, 2]), (-1, [2])])
def test_from_a_damaged_view_on_all_is_made_anew(file, byte, anew):
    made = file()
    made.build(view)
    expected = made.rows().clone()
    content = bytearray(made.path.read_bytes())
    content[byte] ^= 4
    made.path.write_bytes(content)
    asked = []
    made.build(lambda number: asked.append(number) or view(number))
    assert asked == anew
    assert torch.equal(made.rows(), expected)


def test_too_small_a_disk_is_said_before_anything_is_written(file, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(
        NonnError, match=r"3 views need 4\.0 KB: 1\.0 KB are free; .*lower compute\.cached_views"
    ):
        file().build(view)
    assert list(file().path.parent.iterdir()) == []


def test_a_disk_that_fills_up_is_said_and_the_build_can_go_on(file, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def fills_up(what, done, total):
        if done == 20:
            monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(NonnError, match="No space left on device"):
        file().build(view, fills_up)
    monkeypatch.undo()
    assert len(json.loads(file().path.with_suffix(".json").read_text())["checksums"]) == 1
    asked = []
    file().build(lambda number: asked.append(number) or view(number))
    assert asked == [1, 2]


def test_removing_twice_is_no_mistake(file):
    made = file()
    made.build(view)
    remove_cache(made.path)
    remove_cache(made.path)
    assert list(made.path.parent.iterdir()) == []
