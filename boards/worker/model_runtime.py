"""The runtime of a bundle's models: onnxruntime, or ncnn on 32-bit Arm.

An engine is loaded only when a model is opened with it.  Only the models asked for are loaded, and
only from the files that were exported.
"""

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from nonn_common.errors import InputError
from nonn_core.export.bundle import (
    MANIFEST,
    BundledModel,
    Manifest,
    ModelFile,
    ModelPrecision,
    NcnnFiles,
    Port,
    read_bundled,
    session_options,
)
from nonn_core.export.ncnn_net import NcnnNet

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Engine = Literal["onnxruntime", "ncnn"]
"""Engine that computes: onnxruntime, or ncnn where that has no wheel (32-bit Arm)."""

_ENGINES: tuple[Engine, ...] = ("onnxruntime", "ncnn")

Batch = NDArray[np.float32]
_FLOAT32 = np.dtype(np.float32)

CPUINFO = Path("/proc/cpuinfo")
_ARM_FIELDS = ("CPU implementer", "CPU part")
"""Lines without which the import of onnxruntime on 64-bit Arm ends with a signal (1.32.0)."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A bundled model in memory, ready to answer; several threads may ask at once.

    `precision` is that of its weights and activations; `compute` is its engine's session or net;
    `students` are those of a joint model, whose vectors it answers side by side; else empty.
    """

    bundled: BundledModel
    engine: Engine
    precision: ModelPrecision
    compute: Callable[[Batch], Batch]
    students: tuple[BundledModel, ...] = ()
    bind: Callable[[Batch, Batch], Callable[[], object]] | None = None
    """Computation of one array's answers into another, both of which stay; None where none is."""

    @property
    def name(self) -> str:
        """Its name in the manifest."""
        return self.bundled.name

    @property
    def reads(self) -> Port:
        """Input port, without the batch."""
        return self.bundled.reads

    @property
    def answers(self) -> Port:
        """Output port, without the batch."""
        return self.bundled.answers

    def answer(self, images: Batch) -> Batch:
        """Map (n, *reads.shape), of the values it reads, to (n, *answers.shape), both float32.

        Raises InputError where the array is of another type or shape, empty, or holds a value that
        is no finite number; BoardError where ncnn fails.
        """
        flat = images.reshape(-1)
        # The sum of squares is quicker; only where it is too large must each value be looked at.
        if not (
            images.dtype == _FLOAT32
            and images.shape[1:] == self.bundled.reads.shape
            and len(images)
            and isfinite(flat.dot(flat))
        ):
            _check_batch(images, self.reads, self.name)
        return self.compute(images)


def _check_batch(images: Batch, reads: Port, where: str) -> None:
    """Make sure that a model can read `images`; `where` names the model.

    Raises InputError for another type or shape, an empty batch, or a value that is no finite
    number: engines differ in what they make of those, and ncnn's ReLU makes them zero.
    """
    if images.dtype != _FLOAT32:
        raise InputError(
            f"{reads.name} is of another type",
            where=where,
            found=str(images.dtype),
            allowed="float32",
        )
    if images.shape[1:] != reads.shape or not len(images):
        raise InputError(
            f"{reads.name} is of another shape",
            where=where,
            found=images.shape,
            allowed=f"(n, {', '.join(map(str, reads.shape))}) with n at least 1",
        )
    if not np.isfinite(images).all():
        raise InputError(
            f"{reads.name} holds a value that is no finite number",
            where=where,
            found=float(images[~np.isfinite(images)][0]),
        )


def open_onnx(
    model: BundledModel, precision: ModelPrecision, content: bytes, threads: int, where: str
) -> LoadedModel:
    """Open an ONNX model, on `threads` threads; `where` names the file that `content` is of.

    Raises InputError where it is no such model, or reads and answers other things than the
    manifest says; and on an Arm machine that does not say which processor it has.
    """
    _require_arm_cpuinfo()
    import onnxruntime

    options = session_options(threads)
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # A thread that waits for work must not keep a processor busy that another model needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no other base
        raise InputError(
            f"onnxruntime cannot load it: {' '.join(str(error).split())}", where=where
        ) from None
    _check_ports(session, model, where)
    answers, reads = (model.answers.name,), model.reads.name

    def compute(images: Batch) -> Batch:
        found: Batch = session.run(answers, {reads: images})[0]
        return found

    def bind(images: Batch, features: Batch) -> Callable[[], object]:
        binding = session.io_binding()
        # On a processor these values are the arrays' own memory.
        binding.bind_ortvalue_input(reads, onnxruntime.OrtValue.ortvalue_from_numpy(images))
        binding.bind_ortvalue_output(answers[0], onnxruntime.OrtValue.ortvalue_from_numpy(features))
        return partial(session.run_with_iobinding, binding)

    return LoadedModel(model, "onnxruntime", precision, compute, bind=bind)


def _require_arm_cpuinfo() -> None:
    """Make sure that onnxruntime can be imported: on 64-bit Arm it needs the processor's name.

    Raises InputError under emulation of programs alone (qemu-user), where the file is that of the
    machine outside, and in containers without it.
    """
    if (platform.system(), platform.machine()) != ("Linux", "aarch64"):
        return
    try:
        text = CPUINFO.read_text(errors="replace")
        found = " ".join(text.split())[:60]
    except OSError as error:
        text, found = "", str(error.strerror)
    names = {line.partition(":")[0].strip() for line in text.splitlines()}
    if missing := [name for name in _ARM_FIELDS if name not in names]:
        raise InputError(
            f"no line {' or '.join(missing)}, without which onnxruntime ends the process here",
            where=str(CPUINFO),
            found=found,
            allowed="the file of an Arm machine",
            fix="emulate a whole machine, not programs; show a container the machine's own file; "
            "or `--engine ncnn`, which does not read it",
        )


def _check_ports(session: "InferenceSession", model: BundledModel, where: str) -> None:
    """Make sure that the model is the one which the manifest describes."""
    for found, port in (
        (session.get_inputs(), model.reads),
        (session.get_outputs(), model.answers),
    ):
        ports = [(one.name, tuple(one.shape[1:]), one.type) for one in found]
        allowed = [(port.name, port.shape, "tensor(float)")]
        if ports != allowed:
            raise InputError(
                "has other inputs or outputs than the manifest says",
                where=where,
                found=ports,
                allowed=str(allowed),
            )


def open_ncnn(
    model: BundledModel, param: bytes, weights: bytes, threads: int, where: str
) -> LoadedModel:
    """Open an ncnn model, on `threads` threads; `where` names the file that `param` is of.

    Raises InputError where ncnn cannot load it, or it answers another shape than the manifest says.
    """
    net = NcnnNet.open(param, weights, threads, where)
    opened = LoadedModel(model, "ncnn", "fp32", net)
    # ncnn's files say nothing of shapes.
    found = opened.answer(np.zeros((1, *model.reads.shape), np.float32)).shape[1:]
    if found != model.answers.shape:
        raise InputError(
            "answers another shape than the manifest says",
            where=where,
            found=found,
            allowed=str(model.answers.shape),
        )
    return opened


def load_models(
    folder: Path,
    names: Sequence[str],
    *,
    precision: ModelPrecision | None = None,
    engine: Engine | None = None,
    threads: int = 1,
) -> tuple[LoadedModel, ...]:
    """Load the named models of a bundle; files of others need not be there.

    Students that the bundle has a joint model of are loaded as that one model, with one G0.
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
    models = {name: _bundled_model(manifest, name, folder) for name in names}
    joint = {name: model for model in manifest.joint_models(names) for name in model.members}
    return tuple(
        replace(
            _load(folder, model, precision, chosen, threads),
            students=tuple(models[name] for name in model.members),
        )
        for model in dict.fromkeys(joint.get(name, models[name]) for name in names)
    )


def _bundled_model(manifest: Manifest, name: str, folder: Path) -> BundledModel:
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
    file = onnx_file(folder, model, precision)
    content = read_bundled(folder, file)
    return open_onnx(model, file.precision, content, threads, where=str(folder / file.file))


def onnx_file(folder: Path, model: BundledModel, precision: ModelPrecision | None) -> ModelFile:
    """ONNX file of a precision; where none was asked for, as `load_models` says.

    Raises InputError where the bundle, in `folder`, has no such file.
    """
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
