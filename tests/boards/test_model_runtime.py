"""Loaded models answer what their engine answers when asked directly; wrong files and images do not
get that far.
"""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from full_scale_int8 import (
    CONVOLUTIONS,
    SIDE,
    full_scale_images,
    full_scale_model,
    full_scale_sum,
)
from made_bundle import make_bundle

from boards.worker import model_runtime
from boards.worker.model_runtime import load_models, open_onnx
from nonn_common.errors import BoardError, InputError
from nonn_core.export.bundle import (
    MANIFEST,
    BundledFile,
    BundledModel,
    Manifest,
    ModelFile,
    NcnnFiles,
    Port,
    content_hash,
    read_bundle,
    write_bundle,
)

ENGINES = ("onnxruntime", "ncnn")
PRECISIONS = ("fp32", "int8")


def session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def rewritten(folder, place, change):
    """Copy a bundle with each model's description, and the files' contents, changed."""
    manifest = read_bundle(folder)
    contents = {one.file: (folder / one.file).read_bytes() for one in manifest.files()}
    models = tuple(change(model, contents) for model in manifest.models)
    new = Manifest.check(manifest.model_copy(update={"models": models}).model_dump(), "this test")
    write_bundle(place, new, contents)
    return place


def bundled(kind, name, content, **fields):
    return kind(file=name, sha256=content_hash(content), size_bytes=len(content), **fields)


@pytest.fixture(scope="module")
def fp32(tmp_path_factory):
    """Students of five, three and one filters; the maps have an odd number of pixels."""
    folder = tmp_path_factory.mktemp("runtime") / "fp32"
    make_bundle(folder, filters=(5, 3, 1), image=(1, 7, 7))
    return folder


@pytest.fixture(scope="module")
def bundle(fp32):
    """The same with int8 models."""
    from nonn_core.export.onnx_model import quantise_int8

    examples = pixels(32, seed=5)

    def with_int8(model, contents):
        name = f"{model.name}.int8.onnx"
        exact = onnx.load_from_string(contents[model.files[0].file])
        contents[name] = quantise_int8(exact, examples).SerializeToString()
        int8 = bundled(ModelFile, name, contents[name], precision="int8")
        return model.model_copy(update={"files": (*model.files, int8)})

    return rewritten(fp32, fp32.parent / "both", with_int8)


@pytest.fixture(scope="module")
def ncnn_bundle(fp32):
    """The same with models for ncnn."""
    needed = [name for name in ("ncnn", "pnnx") if find_spec(name) is None]
    if needed:
        pytest.skip(f"not installed: {' and '.join(needed)}")
    from nonn_core.export.deployment import convert_to_ncnn

    def with_ncnn(model, contents):
        exact = onnx.load_from_string(contents[model.files[0].file])
        names = f"{model.name}.ncnn.param", f"{model.name}.ncnn.bin"
        contents.update(
            zip(names, convert_to_ncnn(exact, model.reads.shape, model.name), strict=True)
        )
        files = NcnnFiles(
            param=bundled(BundledFile, names[0], contents[names[0]]),
            weights=bundled(BundledFile, names[1], contents[names[1]]),
            images=1,
            largest_difference=0,
            largest_value=1,
        )
        return model.model_copy(update={"ncnn": files})

    return rewritten(fp32, fp32.parent / "ncnn", with_ncnn)


def pixels(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 1, 7, 7)).astype(np.float32)


def names_of(folder):
    return [model.name for model in Manifest.read(folder / MANIFEST).models]


@pytest.fixture(params=ENGINES)
def either(request, bundle):
    """A model of each engine, and its bundle."""
    folder = bundle if request.param == "onnxruntime" else request.getfixturevalue("ncnn_bundle")
    (model,) = load_models(folder, ["student-0"], engine=request.param)
    return model


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_answers_of_onnxruntime(bundle, precision, threads):
    images = pixels(9)
    models = load_models(bundle, names_of(bundle), precision=precision, threads=threads)
    for model, described in zip(models, read_bundle(bundle).models, strict=True):
        (file,) = (one.file for one in described.files if one.precision == precision)
        (expected,) = session(bundle / file).run(None, {"images": images})
        assert (model.name, model.engine) == (described.name, "onnxruntime")
        assert model.precision == precision
        assert (model.reads, model.answers) == (described.reads, described.answers)
        found = model.answer(images)
        assert found.dtype == np.float32
        assert np.abs(expected).max() > 0.1
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("convolution", CONVOLUTIONS, ids=str)
def test_a_board_adds_int8_products_exactly_whatever_its_processor(convolution):
    channels, _, _ = convolution
    content = full_scale_model(*convolution).SerializeToString()
    shape = (channels, SIDE, SIDE)
    described = BundledModel(
        name="full-scale",
        role="student",
        network=None,
        reads=Port(name="images", shape=shape),
        answers=Port(name="features", shape=shape),
        filters=(),
        fc_offset=None,
        files=(bundled(ModelFile, "full-scale.int8.onnx", content, precision="int8"),),
    )
    model = open_onnx(described, "int8", content, 1, "this test")
    found = model.answer(full_scale_images(channels))
    assert (found[0, :, 1:-1, 1:-1] == full_scale_sum(*convolution)).all()


def test_ncnn_answers_what_onnxruntime_does(ncnn_bundle):
    images = pixels(9)
    names = names_of(ncnn_bundle)
    exact = load_models(ncnn_bundle, names, engine="onnxruntime", precision="fp32")
    for model, other in zip(load_models(ncnn_bundle, names, engine="ncnn"), exact, strict=True):
        assert (model.engine, model.precision) == ("ncnn", "fp32")
        expected, found = other.answer(images), model.answer(images)
        assert found.dtype == np.float32
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_ncnn_computes_in_fp32(ncnn_bundle):
    """Its options are wrong by default on Arm only, where these tests seldom run."""
    (model,) = load_models(ncnn_bundle, ["student-0"], engine="ncnn", threads=2)
    option = model.compute.net.opt
    assert not option.use_fp16_storage
    assert not option.use_fp16_arithmetic
    assert not option.use_fp16_packed
    assert not option.use_bf16_storage
    assert option.num_threads == 2


def test_int8_is_chosen_where_the_bundle_has_it(bundle, fp32):
    assert [one.precision for one in load_models(bundle, ["student-1"])] == ["int8"]
    assert [one.precision for one in load_models(fp32, ["student-1"])] == ["fp32"]


def test_what_the_plan_counts_on_is_chosen(bundle, fp32, tmp_path):
    def chosen(source, planned, precision=None):
        folder = tmp_path / planned / source.name
        shutil.copytree(source, folder, dirs_exist_ok=True)
        manifest = json.loads((folder / MANIFEST).read_text())
        for model in manifest["models"]:
            model["planned"] = planned
        (folder / MANIFEST).write_text(json.dumps(manifest))
        return load_models(folder, ["student-1"], precision=precision)[0].precision

    assert chosen(bundle, "fp32") == "fp32"
    assert chosen(bundle, "int8") == "int8"
    assert chosen(bundle, "fp32", "int8") == "int8"
    assert chosen(fp32, "int8") == "fp32"


def installed(monkeypatch, *names):
    monkeypatch.setattr(model_runtime, "find_spec", lambda name: name if name in names else None)


def test_ncnn_is_chosen_where_there_is_no_onnxruntime(ncnn_bundle, monkeypatch):
    installed(monkeypatch, "ncnn")
    assert load_models(ncnn_bundle, ["student-0"])[0].engine == "ncnn"
    with pytest.raises(InputError, match=r"no such engine.*onnxruntime"):
        load_models(ncnn_bundle, ["student-0"], engine="onnxruntime")
    with pytest.raises(InputError, match=r"fp32 models only.*int8"):
        load_models(ncnn_bundle, ["student-0"], precision="int8")


def test_a_bundle_without_models_for_ncnn(fp32, monkeypatch):
    installed(monkeypatch, "ncnn")
    with pytest.raises(InputError, match=r"no ncnn model of student-0.*export --ncnn"):
        load_models(fp32, ["student-0"])


def test_no_engine_at_all(fp32, monkeypatch):
    installed(monkeypatch)
    with pytest.raises(InputError, match=r"no such engine is installed.*onnxruntime or ncnn"):
        load_models(fp32, ["student-0"])


ARM = "processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd03\n"
X86 = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Some CPU\n"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "CPU implementer or CPU part.*found 'No such file"),
        ("", "CPU implementer or CPU part.*found ''"),
        (X86, "CPU implementer or CPU part.*found 'processor : 0 vendor_id : GenuineIntel"),
        (ARM.replace("CPU part", "CPU"), "CPU part, without which"),
    ],
    ids=["missing", "empty", "x86", "without its part"],
)
def test_an_arm_machine_that_does_not_name_its_processor(
    ncnn_bundle, tmp_path, monkeypatch, content, told
):
    file = tmp_path / "cpuinfo"
    if content is not None:
        file.write_text(content)
    monkeypatch.setattr(model_runtime, "CPUINFO", file)
    monkeypatch.setattr(model_runtime.platform, "machine", lambda: "aarch64")
    with pytest.raises(InputError, match=rf"cpuinfo: no line.*{told}.*--engine ncnn"):
        load_models(ncnn_bundle, ["student-0"])
    # ncnn does not read that file.
    assert load_models(ncnn_bundle, ["student-0"], engine="ncnn")[0].engine == "ncnn"
    file.write_text(ARM)
    assert load_models(ncnn_bundle, ["student-0"])[0].engine == "onnxruntime"


def test_a_bundle_without_the_precision(fp32):
    with pytest.raises(InputError, match="no int8 model of student-0; allowed: fp32"):
        load_models(fp32, ["student-0"], precision="int8")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["student-7"], "no such model.*student-7.*student-0, student-1, student-2"),
        (["student-1", "student-1"], "named twice"),
    ],
)
def test_wrong_names(bundle, names, told):
    with pytest.raises(InputError, match=told):
        load_models(bundle, names)


def test_no_thread(bundle):
    with pytest.raises(InputError, match="threads; found 0; allowed: at least 1"):
        load_models(bundle, ["student-0"], threads=0)


def only(folder, place, *names):
    """Copy a bundle's manifest and some of its files."""
    place.mkdir()
    for name in (MANIFEST, *names):
        (place / name).write_bytes((folder / name).read_bytes())
    return place


def test_a_board_holds_the_files_of_its_own_student_only(bundle, tmp_path):
    board = only(bundle, tmp_path / "board", "student-1.int8.onnx")
    images = pixels(2)
    (model,) = load_models(board, ["student-1"])
    (expected,) = load_models(bundle, ["student-1"])
    np.testing.assert_array_equal(model.answer(images), expected.answer(images))
    with pytest.raises(InputError, match=r"student-0\.int8\.onnx: cannot be read"):
        load_models(board, ["student-1", "student-0"])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("damage", ["one bit", "longer", "shorter", "empty", "another"])
def test_only_what_was_exported_is_loaded(request, bundle, tmp_path, engine, damage):
    if engine == "onnxruntime":
        folder, name, other = bundle, "student-0.int8.onnx", "student-1.int8.onnx"
    else:
        folder = request.getfixturevalue("ncnn_bundle")
        name, other = "student-0.ncnn.bin", "student-1.ncnn.bin"
    board = only(folder, tmp_path / "board", name, *(["student-0.ncnn.param"] * (engine == "ncnn")))
    content = (folder / name).read_bytes()
    half = len(content) // 2
    damaged = {
        "one bit": content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :],
        "longer": content + b"\0",
        "shorter": content[:-1],
        "empty": b"",
        "another": (folder / other).read_bytes(),
    }[damage]
    load_models(board, ["student-0"], engine=engine)
    (board / name).write_bytes(damaged)
    with pytest.raises(InputError, match=f"{name}: is not the file that was exported"):
        load_models(board, ["student-0"], engine=engine)


def test_what_was_checked_is_what_is_loaded(bundle, tmp_path, monkeypatch):
    """A file that is exchanged after it was read changes nothing: it is read once."""
    name = "student-0.fp32.onnx"
    board = only(bundle, tmp_path / "board", name)
    checked = model_runtime.read_bundled

    def exchanging(folder, one):
        content = checked(folder, one)
        (folder / one.file).write_bytes((bundle / "student-1.fp32.onnx").read_bytes())
        return content

    monkeypatch.setattr(model_runtime, "read_bundled", exchanging)
    (model,) = load_models(board, ["student-0"], precision="fp32")
    assert model.answer(pixels(1)).shape == (1, 5)


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (np.zeros((1, 7, 7), np.float32), r"another shape; found \(1, 7, 7\); allowed: \(n, 1, 7"),
        (np.zeros((1, 1, 7, 8), np.float32), r"another shape; found \(1, 1, 7, 8\)"),
        (np.zeros((1, 1, 1, 7, 7), np.float32), "another shape"),
        (np.zeros((0, 1, 7, 7), np.float32), "another shape.*n at least 1"),
        (np.float32(3), "another shape"),
        (np.zeros((1, 1, 7, 7)), "another type; found 'float64'; allowed: float32"),
        (np.zeros((1, 1, 7, 7), np.uint8), "another type; found 'uint8'"),
        (np.zeros((1, 1, 7, 7), ">f4"), "another type; found '>f4'"),
        (np.full((1, 1, 7, 7), np.nan, np.float32), "no finite number; found nan"),
        (np.full((1, 1, 7, 7), -np.inf, np.float32), "no finite number; found -inf"),
    ],
)
def test_images_that_a_model_cannot_read(either, images, told):
    with pytest.raises(InputError, match=f"student-0: images .*{told}"):
        either.answer(images)
    assert either.answer(pixels(1)).shape == (1, 5)


def test_any_layout_of_an_array(either):
    images = pixels(4)
    expected = either.answer(images)
    np.testing.assert_array_equal(either.answer(np.asfortranarray(images)), expected)
    every_other = np.repeat(images, 2, axis=0)[::2]
    assert not every_other.flags.c_contiguous
    np.testing.assert_array_equal(either.answer(every_other), expected)


def test_an_answer_stays_what_it_was(either):
    """Engines keep buffers of their own and use them again."""
    first, second = pixels(1, seed=1), pixels(1, seed=2)
    answer = either.answer(first)
    kept = answer.copy()
    assert not np.array_equal(either.answer(second), kept)
    np.testing.assert_array_equal(answer, kept)


def test_four_threads_at_once(either):
    batches = [pixels(1 + number % 3, seed=number) for number in range(200)]
    expected = [either.answer(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(either.answer, batches))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def other_content(suffix, content):
    """Return a change for `rewritten` that puts another content into files of a kind."""

    def change(model, contents):
        plain = model.model_dump()
        files = [*plain["files"], *([plain["ncnn"]["param"]] if plain["ncnn"] else [])]
        for one in files:
            if one["file"].endswith(suffix):
                contents[one["file"]] = content
                one |= {"sha256": content_hash(content), "size_bytes": len(content)}
        return type(model).check(plain, "this test")

    return change


def test_a_file_that_is_no_onnx_model(fp32, tmp_path):
    folder = rewritten(fp32, tmp_path / "b", other_content(".fp32.onnx", b"no model"))
    with pytest.raises(InputError, match=r"student-0\.fp32\.onnx: onnxruntime cannot load it: "):
        load_models(folder, ["student-0"])


def test_a_file_that_is_no_ncnn_model(ncnn_bundle, tmp_path, capfd):
    folder = rewritten(ncnn_bundle, tmp_path / "b", other_content(".ncnn.param", b"no model"))
    with pytest.raises(InputError, match=r"student-0\.ncnn\.param: ncnn cannot load it"):
        load_models(folder, ["student-0"], engine="ncnn")
    capfd.readouterr()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_model_that_the_manifest_describes_wrongly(request, fp32, tmp_path, engine):
    def wrong(model, contents):
        answers = model.answers.model_copy(update={"shape": (6,)})
        return model.model_copy(update={"answers": answers, "filters": tuple(range(6))})

    source = fp32 if engine == "onnxruntime" else request.getfixturevalue("ncnn_bundle")
    folder = rewritten(source, tmp_path / "b", wrong)
    with pytest.raises(InputError, match=r"than the manifest says.*\(?5,\)?.*\(?6,\)?"):
        load_models(folder, ["student-0"], engine=engine)


def test_a_net_that_fails_says_so(ncnn_bundle, monkeypatch, capfd):
    """ncnn tells failures by numbers."""
    from nonn_core.export import ncnn_net

    (model,) = load_models(ncnn_bundle, ["student-0"], engine="ncnn")
    monkeypatch.setattr(ncnn_net, "NCNN_ANSWERS", "no such blob")
    with pytest.raises(BoardError, match="ncnn could not compute no such blob"):
        model.answer(pixels(1))
    capfd.readouterr()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_board_needs_no_torch_and_leaves_nothing_in_its_home(request, bundle, tmp_path, engine):
    folder = bundle if engine == "onnxruntime" else request.getfixturevalue("ncnn_bundle")
    program = f"""
import sys
from pathlib import Path
from boards.worker.model_runtime import load_models
assert not {{"onnxruntime", "ncnn"}} & set(sys.modules), "loaded before it is used"
load_models(Path({str(folder)!r}), ["student-0"], engine={engine!r})
assert {engine!r} in sys.modules
heavy = {{"torch", "onnx", "ortools", "scipy", "sklearn", "onnxruntime", "ncnn"}}
print(*(heavy & set(sys.modules) - {{{engine!r}}}))
"""
    root = Path(model_runtime.__file__).parents[2]
    home = {"HOME": str(tmp_path), "PYTHONPATH": str(root)}
    kept = {name: os.environ[name] for name in ("PATH", "OMP_NUM_THREADS") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, env=kept | home, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
    # onnxruntime's telemetry would have begun with an identifier of this machine.
    assert list(tmp_path.rglob("*")) == []
