"""ONNX models as models for ncnn, which runs where onnxruntime has no wheel."""

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx

from nonn_core.agreement import Models
from nonn_core.deployment import Part
from nonn_core.ncnn_net import NcnnNet
from nonn_core.onnx_graph import Array, Inference, inference
from nonn_core.progress import Progress, silent
from profiles.errors import ExportError, InputError

NEEDED = ("ncnn", "pnnx")
"""Packages that make models for ncnn."""

CONVERTIBLE = {
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Clip",
    "Conv",
    "Flatten",
    "Gemm",
    "GlobalAveragePool",
    "MaxPool",
    "Mul",
    "ReduceMean",
    "Relu",
    "Reshape",
    "Sub",
}
"""Operators that are converted rightly.

Of the Gather that SplitNet reorders channels with, pnnx makes layers that write past their memory,
so that the process ends before anything could be compared.
"""

CHECK_IMAGES = 256
TOLERANCE = 1e-3
"""Largest difference of a value from the ONNX model's, beside the largest value."""


@dataclass(frozen=True, slots=True)
class NcnnContent:
    """A model for ncnn, and how it compares with the fp32 ONNX model that it was made of."""

    param: bytes
    weights: bytes
    images: int
    largest_difference: float
    largest_value: float


def check_installed() -> None:
    """Make sure, before any work, that models for ncnn can be made; raises InputError."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise InputError(
            f"models for ncnn need {' and '.join(missing)}",
            where="--ncnn",
            fix="pip install 'nonn-plan[ncnn]'",
        )


def ncnn_models(
    parts: Sequence[Part], fp32: Models, pixels: Array, progress: Progress = silent
) -> dict[str, NcnnContent]:
    """Convert each part's ONNX model; return them by the part's stem.

    Each is compared with the ONNX model on `pixels` (N, C, H, W), test images, or on the maps of G0
    for them.  Raises ExportError where one cannot be converted or computes something else.
    """
    made: dict[str, NcnnContent] = {}
    reads = pixels
    for number, part in enumerate(parts):
        progress("converting", number, len(parts))
        exported = inference(fp32[part.stem])
        param, weights = converted(fp32[part.stem], reads.shape[1:], part.stem)
        made[part.stem] = _checked(part.stem, param, weights, exported, reads)
        if part.role == "group0":
            reads = exported(pixels)
    return made


def _checked(
    stem: str, param: bytes, weights: bytes, exported: Inference, reads: Array
) -> NcnnContent:
    """Refuse a model that does not compute what the ONNX model does."""
    found, expected = NcnnNet.open(param, weights, 1, stem)(reads), exported(reads)
    if found.shape != expected.shape:
        raise ExportError(
            f"{stem}: the model for ncnn answers shape {found.shape[1:]} in place of "
            f"{expected.shape[1:]}; nothing was written; export without --ncnn"
        )
    largest = float(np.abs(expected).max())
    difference = float(np.abs(found - expected).max())
    # Written so that a NaN is refused.
    if not difference <= TOLERANCE * largest:
        raise ExportError(
            f"{stem}: the model for ncnn differs from the ONNX model: a value by {difference:.3g}, "
            f"where the largest is {largest:.3g}; nothing was written; export without --ncnn, and "
            "report this with the recipe and the versions of ncnn and pnnx"
        )
    return NcnnContent(param, weights, len(reads), difference, largest)


def converted(model: onnx.ModelProto, reads: tuple[int, ...], stem: str) -> tuple[bytes, bytes]:
    """Let pnnx write its files into a folder of their own; return its param and bin files.

    Raises ExportError where it fails, or would make a model that does.
    """
    import pnnx  # type: ignore[import-untyped]

    unknown = {node.op_type for node in model.graph.node} - CONVERTIBLE
    if unknown:
        raise ExportError(
            f"{stem}: pnnx cannot be trusted to convert {', '.join(sorted(unknown))} of ONNX for "
            "ncnn; nothing was written; export without --ncnn"
        )
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "model.onnx").write_bytes(model.SerializeToString())
        shape = ",".join(map(str, (1, *reads)))
        # fp16=0: or weights are rounded to half precision.
        command = [pnnx.EXEC_PATH, "model.onnx", f"inputshape=[{shape}]f32", "fp16=0"]
        done = subprocess.run(  # noqa: S603  (the program of a package, arguments of our own)
            command, cwd=place, capture_output=True, text=True, errors="replace", check=False
        )
        files = place / "model.ncnn.param", place / "model.ncnn.bin"
        if done.returncode or not all(path.exists() for path in files):
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise ExportError(
                f"{stem}: pnnx could not convert the model (exit code {done.returncode}"
                f"{': ' + said[-1] if said else ''}); nothing was written; export without --ncnn"
            )
        param, weights = (path.read_bytes() for path in files)
    return param, weights
