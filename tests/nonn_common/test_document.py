import errno
import json
import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import Field

from nonn_common import document
from nonn_common.document import Document, Record, write_atomic
from nonn_common.errors import InputError, NonnError


class Wheel(Record):
    spokes: int = Field(gt=0, description="Count.")


class Cart(Document):
    name: str = Field(description="Name.")
    load_kg: float = Field(default=1.0, ge=0, description="Load in kg.")
    wheels: tuple[Wheel, ...] = Field(default=(), description="Wheels.")


@pytest.mark.parametrize("suffix", [".json", ".yaml", ".yml"])
def test_reads_back_what_it_wrote(tmp_path, suffix):
    cart = Cart(name="Wägelchen", load_kg=1e-7, wheels=(Wheel(spokes=12), Wheel(spokes=8)))
    path = tmp_path / "new" / f"cart{suffix}"
    cart.write(path)
    assert Cart.read(path) == cart
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_what_a_command_printed_with_warnings_is_read_as_its_document(tmp_path):
    path = tmp_path / "cart.json"
    path.write_text(json.dumps({"name": "c", "warnings": ["one wheel only"]}))
    assert Cart.read(path) == Cart(name="c")


@given(st.text(), st.floats(min_value=0, allow_infinity=False, allow_nan=False))
@example("\x85", 0.0)  # PyYAML folds these line breaks into spaces
@example("a\u2028b\u2029", 1e-7)
@example("\r\n \ufeff", 1e300)
def test_any_content_survives_both_formats(tmp_path_factory, name, load_kg):
    cart = Cart(name=name, load_kg=load_kg)
    for suffix in (".json", ".yaml"):
        path = tmp_path_factory.getbasetemp() / f"any{suffix}"
        cart.write(path)
        assert Cart.read(path) == cart


def test_a_written_file_has_the_permissions_of_any_other(tmp_path):
    (tmp_path / "plain").write_text("")
    Cart(name="c").write(tmp_path / "cart.json")
    assert (tmp_path / "cart.json").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_document_does_not_change():
    with pytest.raises(ValueError, match="frozen"):
        Cart(name="c").name = "d"


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ({"name": "c", "colour": "red"}, "field colour: is not a field of this file"),
        ({}, "field name: is required and missing"),
        ({"name": "c", "load_kg": -1}, "field load_kg: input should be greater than or equal to 0"),
        ({"name": "c", "wheels": [{"spokes": 0}]}, "field wheels.0.spokes"),
        ({"name": "c", "schema_version": 2}, "field schema_version"),
        ([], "field the whole file"),
        (None, "field the whole file"),
        ({"name": 3, "load_kg": "x"}, "and 1 more such field"),
    ],
)
def test_wrong_content_is_one_sentence(tmp_path, content, part):
    path = tmp_path / "cart.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        Cart.read(path)
    assert str(path) in str(caught.value)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_another_kind_is_told_by_its_fields(tmp_path):
    path = tmp_path / "cart.json"
    path.write_text(json.dumps({"schema_version": 1, "wings": 2, "engines": 4, "seats": 99}))
    with pytest.raises(InputError) as caught:
        Cart.read(path)
    assert "is a file of another kind; it has no name" in str(caught.value)
    assert "found 'wings, engines, seats'; docs/file-formats.md" in str(caught.value)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        Cart.read(tmp_path)


def test_infinity_is_no_quantity(tmp_path):
    path = tmp_path / "cart.json"
    path.write_text('{"name": "c", "load_kg": Infinity}')
    with pytest.raises(InputError, match="load_kg"):
        Cart.read(path)


@pytest.mark.parametrize("text", ["{", "", "name: c", "9" * 5000, "[" * 100_000])
def test_what_is_not_json_is_refused(tmp_path, text):
    path = tmp_path / "cart.json"
    path.write_text(text)
    with pytest.raises(InputError, match="is not JSON"):
        Cart.read(path)


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "a: b: c",
        "{a: 1}: 2\n? [",
        "\t- a",
        "day: 2020-13-45",
        "a: !!float ''",
        "a: !!bool x",
        "? [a]\n: b",
    ],
)
def test_what_is_not_yaml_is_refused(tmp_path, text):
    path = tmp_path / "cart.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match="is not YAML"):
        Cart.read(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.json: no such file"):
        Cart.read(tmp_path / "nowhere.json")


def test_a_folder_and_a_picture_are_no_documents(tmp_path):
    picture = tmp_path / "cart.json"
    picture.write_bytes(b"\xff\xd8\xff\xe0")
    for path in (tmp_path, picture):
        with pytest.raises(InputError, match="cannot be read"):
            Cart.read(path)


class FullDisk:
    """A stream that takes nothing, in place of the one that `os.fdopen` returns."""

    def __init__(self, handle, _mode):
        os.close(handle)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def write(self, _content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _no_space(_descriptor):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(("call", "failing"), [("fdopen", FullDisk), ("fsync", _no_space)])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call, failing):
    path = tmp_path / "cart.json"
    Cart(name="old").write(path)
    monkeypatch.setattr(document.os, call, failing)
    with pytest.raises(NonnError, match="No space left on device; nothing was changed"):
        Cart(name="new").write(path)
    assert Cart.read(path).name == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_ctrl_c_while_writing_leaves_no_temporary_file(tmp_path, monkeypatch):
    def interrupted(_descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(document.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "cart.json", b"{}")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_folder_is_a_plain_error(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(NonnError, match="could not be written"):
        write_atomic(tmp_path / "taken" / "cart.json", b"{}")


def test_a_folder_that_cannot_be_synced_is_told_apart(tmp_path, monkeypatch):
    fsync, calls = os.fsync, []

    def only_the_first(descriptor):
        calls.append(descriptor)
        if len(calls) > 1:
            _no_space(descriptor)
        fsync(descriptor)

    monkeypatch.setattr(document.os, "fsync", only_the_first)
    with pytest.raises(NonnError, match="a file was written here"):
        write_atomic(tmp_path / "cart.json", b"{}")
    assert (tmp_path / "cart.json").read_bytes() == b"{}"


@pytest.mark.parametrize("suffix", [".yaml", ".YML", ".json", ".JSON"])
def test_a_byte_order_mark_and_a_suffix_in_capitals_change_nothing(tmp_path, suffix):
    text = '{"name": "c"}' if suffix.lower() == ".json" else "name: c\n"
    path = tmp_path / f"cart{suffix}"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert Cart.read(path) == Cart(name="c")


@pytest.mark.parametrize(
    ("suffix", "text", "told"),
    [
        (".yaml", "name: c\nload_kg: 1\nname: d\n", "key `name` is given twice (lines 1, 3)"),
        (".yaml", "{name: c, name: c}", "key `name` is given twice (line 1)"),
        (
            ".yaml",
            'name: c\nwheels:\n- spokes: 3\n  "spokes": 4\n',
            "key `spokes` is given twice (lines 3, 4)",
        ),
        (
            ".yaml",
            "name: c\nname: d\nload_kg: 1\nload_kg: 2\nname: e\n",
            "key `name` is given 3 times (lines 1, 2, 5); "
            "key `load_kg` is given twice (lines 3, 4)",
        ),
        (".yaml", "name: c\nyes: 1\ntrue: 2\n", "key `True` is given twice (lines 2, 3)"),
        (
            ".yaml",
            "a: &a {name: c}\nb: &b {load_kg: 1}\nc:\n  <<: *a\n  <<: *b\n",
            "key `<<` is given twice (lines 4, 5)",
        ),
        (
            ".json",
            '{\n\t"name": "c",\n\t"wheels": [{"spokes": 1,\n\t"spokes":2}]}',
            "key `spokes` is given twice (lines 3, 4)",
        ),
        (
            ".yaml",
            "name: c\nwheels:\n" + "- {spokes: 1, spokes: 2}\n" * 7,
            "; ".join(f"key `spokes` is given twice (line {line})" for line in range(3, 8))
            + "; and 2 more;",
        ),
        # YAML, which knows lines, reads no pairs of surrogates.
        (".json", '{"name": "\\ud83d\\ude00", "name": "d"}', "key `name` is given twice;"),
    ],
)
def test_a_key_that_is_given_twice_is_refused_with_its_lines(tmp_path, suffix, text, told):
    path = tmp_path / f"cart{suffix}"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        Cart.read(path)
    assert str(caught.value).startswith(f"{path}: {told}")
    assert str(caught.value).endswith("keep one of them")


def test_what_a_mapping_takes_over_may_be_given_again(tmp_path):
    path = tmp_path / "cart.yaml"
    path.write_text(
        "name: c\nwheels:\n- &one {spokes: 3}\n- &two {<<: *one}\n- {<<: *two, spokes: 5}\n- *one\n"
    )
    assert [wheel.spokes for wheel in Cart.read(path).wheels] == [3, 3, 5, 3]


def test_a_document_may_hold_itself(tmp_path):
    path = tmp_path / "cart.yaml"
    path.write_text("&cart {name: c, self: *cart}\n")
    with pytest.raises(InputError, match="field self: is not a field"):
        Cart.read(path)


@pytest.mark.parametrize("form", ["flow", "block"])
def test_yaml_of_too_many_levels_is_refused_before_it_is_parsed(monkeypatch, form):
    """With a low bound: the native parser calls itself for each level."""
    monkeypatch.setattr(document, "MOST_LEVELS", 3)
    assert document.plain_yaml("[[[a]], b, [[c]]]", "here") == [[["a"]], "b", [["c"]]]
    deeper = {"flow": "[\n[[[a]]]]", "block": "a:\n- b:\n  - c: d\n"}
    with pytest.raises(InputError, match=r"here: line \d: too many levels of .*up to 3"):
        document.plain_yaml(deeper[form], "here")
