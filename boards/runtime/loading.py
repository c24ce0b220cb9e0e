"""Loading models of a bundle: only those asked for, and only the files that were exported."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from boards.runtime.model import Engine, LoadedModel
from boards.runtime.ncnn import open_ncnn
from boards.runtime.onnx import open_onnx
from nonn_core.bundle import (
    MANIFEST,
    BundledModel,
    Manifest,
    ModelFile,
    ModelPrecision,
    NcnnFiles,
    read_bundled,
)
from profiles.errors import InputError

_ENGINES: tuple[Engine, ...] = ("onnxruntime", "ncnn")


def load_models(
    folder: Path,
    names: Sequence[str],
    *,
    precision: ModelPrecision | None = None,
    engine: Engine | None = None,
    threads: int = 1,
) -> tuple[LoadedModel, ...]:
    """Load the named models of a bundle; files of others need not be there.

    Without `engine`, onnxruntime where it is installed, else ncnn.  Without `precision`, of what
    the engine and the bundle have, the one that the plan counts on; else int8; else fp32.  Each
    file is read once, and what was read is checked before it is loaded.

    Raises InputError for no thread, an unknown name or one given twice, a file that is missing or
    not the one that was exported, an engine that is not installed, and a model that is not in the
    bundle in that form.
    """
    manifest = Manifest.read(folder / MANIFEST)
    if threads < 1:
        raise InputError("threads", found=threads, allowed="at least 1")
    if len(set(names)) < len(names):
        raise InputError("a model is named twice", where=str(folder), found=list(names))
    chosen = _installed_engine(engine)
    return tuple(
        _load(folder, _named(manifest, name, folder), precision, chosen, threads) for name in names
    )


def _named(manifest: Manifest, name: str, folder: Path) -> BundledModel:
    for model in manifest.models:
        if model.name == name:
            return model
    raise InputError(
        "the bundle has no such model",
        where=str(folder / MANIFEST),
        found=name,
        allowed=", ".join(model.name for model in manifest.models),
    )


def _installed_engine(asked: Engine | None) -> Engine:
    """Return the engine asked for, or the first one that is installed."""
    wanted = _ENGINES if asked is None else (asked,)
    for engine in wanted:
        if find_spec(engine) is not None:
            return engine
    raise InputError(
        "no such engine is installed", found=asked, fix=f"pip install {' or '.join(wanted)}"
    )


def _load(
    folder: Path,
    model: BundledModel,
    precision: ModelPrecision | None,
    engine: Engine,
    threads: int,
) -> LoadedModel:
    if engine == "ncnn":
        files = _ncnn_files(folder, model, precision)
        param, weights = (read_bundled(folder, one) for one in (files.param, files.weights))
        return open_ncnn(model, param, weights, threads, where=str(folder / files.param.file))
    file = _onnx_file(folder, model, precision)
    content = read_bundled(folder, file)
    return open_onnx(model, file.precision, content, threads, where=str(folder / file.file))


def _onnx_file(folder: Path, model: BundledModel, precision: ModelPrecision | None) -> ModelFile:
    """Return the ONNX file of a precision; where none was asked for, as `load_models` says."""
    files = {one.precision: one for one in model.files}
    if precision is None:
        return next(files[each] for each in (model.planned, "int8", "fp32") if each in files)
    if precision not in files:
        raise InputError(
            f"the bundle has no {precision} model of {model.name}",
            where=str(folder / MANIFEST),
            allowed=" or ".join(files),
            fix=f"nonn-plan export --precision {precision}",
        )
    return files[precision]


def _ncnn_files(folder: Path, model: BundledModel, precision: ModelPrecision | None) -> NcnnFiles:
    if precision == "int8":
        raise InputError(
            "ncnn runs fp32 models only",
            where="precision",
            found=precision,
            allowed="fp32",
            fix="or install onnxruntime",
        )
    if model.ncnn is None:
        raise InputError(
            f"the bundle has no ncnn model of {model.name}",
            where=str(folder / MANIFEST),
            fix="nonn-plan export --ncnn; or install onnxruntime",
        )
    return model.ncnn
