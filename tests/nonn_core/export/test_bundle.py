import hashlib
import json
import os
import subprocess
import sys

import pytest
from pydantic import ValidationError

from nonn_common.errors import InputError, NonnError
from nonn_core.export.bundle import (
    Agreement,
    BundledModel,
    Manifest,
    ModelFile,
    PixelScale,
    Port,
    check_bundle_place,
    content_hash,
    read_bundle,
    read_bundled,
    write_bundle,
)

CONTENTS = {"student-a.onnx": b"weights of a", "student-b.onnx": b"weights of b"}


def model(name, content):
    return BundledModel(
        name=name,
        role="student",
        network="wrn10:4,5,6",
        reads=Port(name="image", shape=(3, 8, 8)),
        answers=Port(name="vector", shape=(2,)),
        filters=(0, 1),
        fc_offset=0,
        files=(
            ModelFile(
                precision="fp32",
                file=f"student-{name}.onnx",
                sha256=content_hash(content),
                size_bytes=len(content),
            ),
        ),
    )


@pytest.fixture
def manifest():
    return Manifest(
        data="digits",
        image="3x8x8",
        class_names=("x", "y"),
        pixel_scale=PixelScale(mean=(0.5,), std=(0.2,)),
        models=tuple(model(name[8:-5], content) for name, content in CONTENTS.items()),
        fc=None,
        calibration_images=None,
        agreement=(
            Agreement(
                precision="fp32",
                images=4,
                largest_difference=0,
                largest_logit=1,
                label_agreement_pct=100,
                accuracy_pct=75,
            ),
        ),
        opset=18,
        versions={"torch": "2"},
    )


@pytest.fixture
def bundle(manifest, tmp_path):
    write_bundle(tmp_path / "bundle", manifest, CONTENTS)
    return tmp_path / "bundle"


def content_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_bundle_comes_back_as_it_was_written(bundle, manifest):
    assert read_bundle(bundle) == manifest
    assert content_of(bundle).keys() == {"manifest.json", *CONTENTS}
    assert not list(bundle.parent.glob(".*"))


def test_hashes_are_those_of_the_files():
    assert content_hash(b"abc") == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize("change", ["tampered", "longer", "missing", "folder"])
def test_a_file_that_is_not_the_exported_one_is_named(bundle, change):
    victim = bundle / "student-b.onnx"
    content = victim.read_bytes()
    victim.unlink()
    if change == "tampered":
        victim.write_bytes(content[:-1] + b"!")
    if change == "longer":
        victim.write_bytes(content + b"!")
    if change == "folder":
        victim.mkdir()
    with pytest.raises(InputError, match=r"student-b\.onnx.*again"):
        read_bundle(bundle)


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path):
    with pytest.raises(InputError, match=r"manifest\.json: no such file"):
        read_bundle(tmp_path)


@pytest.mark.parametrize("name", ["../escape.onnx", "a/b.onnx", ".hidden", "", "manifest.json"])
def test_file_names_stay_in_the_folder(bundle, name):
    content = json.loads((bundle / "manifest.json").read_text())
    content["models"][0]["files"][0]["file"] = name
    (bundle / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"manifest\.json"):
        read_bundle(bundle)


def test_a_file_is_named_once(manifest):
    content = manifest.model_dump()
    content["models"][1]["files"][0]["file"] = "student-a.onnx"
    with pytest.raises(InputError, match="named twice"):
        Manifest.check(content, "here")


def test_a_bundle_replaces_a_bundle_whole(bundle, manifest):
    smaller = manifest.model_copy(update={"models": manifest.models[:1]})
    check_bundle_place(bundle)
    write_bundle(bundle, smaller, {"student-a.onnx": CONTENTS["student-a.onnx"]})
    assert content_of(bundle).keys() == {"manifest.json", "student-a.onnx"}
    assert read_bundle(bundle) == smaller


def test_nothing_and_an_empty_folder_are_places_for_a_bundle(tmp_path, manifest):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new", "deep/er"):
        check_bundle_place(tmp_path / name)
        write_bundle(tmp_path / name, manifest, CONTENTS)
        assert read_bundle(tmp_path / name) == manifest


def test_a_link_to_a_bundle_stays_a_link(bundle, manifest, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(bundle)
    write_bundle(link, manifest, CONTENTS)
    assert link.is_symlink()
    assert read_bundle(bundle) == manifest


def test_other_folders_and_files_are_not_replaced(bundle, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("dear")
    (bundle / "notes.txt").write_text("mine")
    for place, told in (("home", "letter.txt"), ("file", "is a file"), ("bundle", "notes.txt")):
        with pytest.raises(InputError, match=told):
            check_bundle_place(tmp_path / place)


@pytest.mark.parametrize("fails", ["new", "student-b.onnx"])
def test_a_failed_write_leaves_the_old_bundle(bundle, manifest, monkeypatch, fails):
    from pathlib import Path

    before = content_of(bundle)
    for method in ("rename", "replace"):
        move = getattr(Path, method)

        def failing(path, target, move=move):
            if path.name == fails or Path(target).name == fails:
                raise OSError(28, "No space left on device")
            return move(path, target)

        monkeypatch.setattr(Path, method, failing)
    with pytest.raises(NonnError, match="No space left"):
        write_bundle(bundle, manifest, CONTENTS)
    monkeypatch.undo()
    assert content_of(bundle) == before
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_boards_read_bundles_without_torch():
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import nonn_core.export.bundle, sys; assert 'torch' not in sys.modules",
        ],
        check=True,
    )


def test_what_is_no_file_is_not_waited_for(tmp_path, manifest):
    write_bundle(tmp_path / "bundle", manifest, CONTENTS)
    path = tmp_path / "bundle" / "student-a.onnx"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputError, match=r"student-a.onnx: is no regular file"):
        read_bundle(tmp_path / "bundle")
    with pytest.raises(InputError, match=r"student-a.onnx: is no regular file"):
        read_bundled(tmp_path / "bundle", manifest.models[0].files[0])


def test_a_size_that_no_file_has_is_not_taken_from_memory(tmp_path, manifest):
    write_bundle(tmp_path / "bundle", manifest, CONTENTS)
    right = manifest.models[0].files[0]
    claimed = right.model_copy(update={"size_bytes": 2**60})
    assert read_bundled(tmp_path / "bundle", claimed) == CONTENTS["student-a.onnx"]
    (tmp_path / "bundle" / "student-a.onnx").write_bytes(b"weights of a, and more")
    with pytest.raises(InputError, match=r"student-a\.onnx"):
        read_bundled(tmp_path / "bundle", claimed)


def test_a_shape_that_no_memory_holds_is_refused():
    with pytest.raises(ValidationError, match=r"4294967296 values; up to 67108864"):
        Port(name="image", shape=(65536, 65536))
