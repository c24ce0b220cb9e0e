"""Checked libraries: C libraries of students, compiled here and compared.

A student is quantised anew, from its input to its features, as its core had better not compute in
floating point.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from nonn_common import Progress, silent
from nonn_common.errors import ExportError, InputError
from nonn_core.export.deployment import DeployedModel, Models
from nonn_core.export.onnx_model import Array, inference, quantise_int8
from nonn_core.firmware import CStudent
from nonn_core.firmware.c_library import CLibrary, c_library, identifier_of, kernel_files
from nonn_core.firmware.int8_network import Int8Network, read_int8_network

COMPILER = "cc"
_TIMEOUT_S = 120

_MAIN = """#include <stdio.h>
#include "{0}.h"
static uint32_t memory[{1}_MEMORY_BYTES / 4 + 1];
int main(void) {{
  const size_t size = {1}_HEIGHT * {1}_WIDTH * {1}_CHANNELS;
  uint8_t *image = {0}_init(memory);
  while (fread(image, 1, size, stdin) == size)
    fwrite({0}_run(memory), 1, {1}_FEATURES, stdout);
  return 0;
}}
"""


@dataclass(frozen=True, slots=True)
class CheckedLibrary:
    """Library of one student, its ONNX model, and its entry in a manifest."""

    library: CLibrary
    model: onnx.ModelProto
    entry: CStudent


def contents(libraries: Collection[CheckedLibrary]) -> dict[str, bytes]:
    """Content of all files of libraries, the kernels that they share among them, by name."""
    texts = kernel_files() if libraries else {}
    for each in libraries:
        texts |= {each.entry.header: each.library.header, each.entry.source: each.library.source}
    return {name: text.encode() for name, text in texts.items()}


def check_parts(parts: Sequence[DeployedModel]) -> None:
    """Make sure, before any work, that all parts have a form in C; raises InputError."""
    for part in parts:
        if part.role not in ("student", "joint"):
            raise InputError(
                "C libraries are made of students that read images",
                where="--c",
                found=part.name,
                allowed="runs of students that have their own G0",
                fix="export without --c",
            )
    prefixes = [identifier_of(part.name) for part in parts if part.role == "student"]
    twice = next((each for each in prefixes if prefixes.count(each) > 1), None)
    if twice is not None:
        raise InputError(
            "two students have the same name in C", where="--c", found=twice, fix="rename one"
        )


def checked_libraries(
    parts: Sequence[DeployedModel],
    fp32: Models,
    examples: Array,
    pixels: Array,
    progress: Progress = silent,
) -> dict[str, CheckedLibrary]:
    """Libraries of all students by the stem of their part.

    They are calibrated on `examples` (N, C, H, W), and answer for `pixels` (N, C, H, W), test
    images, where there is a compiler.  Raises ExportError where a student has no form in C, or its
    library does not compute what onnxruntime does.
    """
    students = [part for part in parts if part.role == "student"]
    made = {}
    for number, part in enumerate(students):
        progress("writing C", number, len(students))
        model = quantise_int8(fp32[part.stem], examples, throughout=True)
        channels, height, width = part.reads.shape
        network = read_int8_network(model, (channels, height, width), part.name)
        library = c_library(network, part.name)
        found = library_features(library, pixels)
        off = None if found is None else _steps_off(network, model, pixels, found, part.name)
        made[part.stem] = CheckedLibrary(library, model, _entry(library, found, off))
    return made


def _entry(library: CLibrary, found: NDArray[np.uint8] | None, off: int | None) -> CStudent:
    return CStudent(
        source=f"{library.prefix}.c",
        header=f"{library.prefix}.h",
        prefix=library.prefix,
        constant_bytes=library.constant_bytes,
        arena_bytes=library.arena.maps_bytes,
        column_bytes=library.arena.columns_bytes,
        images=None if found is None else len(found),
        values=None if found is None else found.size,
        values_off=off,
    )


def library_features(library: CLibrary, pixels: Array) -> NDArray[np.uint8] | None:
    """Features (N, filters) from the library, as this machine compiles it.

    `pixels` are images (N, C, H, W).  None without a C compiler.  Raises ExportError where it does
    not compile or run.
    """
    compiler = shutil.which(COMPILER)
    if compiler is None:
        return None
    texts = kernel_files() | {
        f"{library.prefix}.h": library.header,
        f"{library.prefix}.c": library.source,
        "main.c": _MAIN.format(library.prefix, library.prefix.upper()),
    }
    images = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1), np.uint8).tobytes()
    with tempfile.TemporaryDirectory() as folder:
        for name, text in texts.items():
            (Path(folder) / name).write_text(text)
        sources = [name for name in texts if name.endswith(".c")]
        _done([compiler, "-std=c99", "-O2", "-o", "student", *sources], folder, library.prefix)
        answer = _done([str(Path(folder) / "student")], folder, library.prefix, images)
    return np.frombuffer(answer, np.uint8).reshape(len(pixels), -1)


def _done(command: list[str], folder: str, name: str, text: bytes = b"") -> bytes:
    """Output of a command that ends well."""
    try:
        return subprocess.run(  # noqa: S603  (the system's compiler, and what it made of our text)
            command, cwd=folder, input=text, capture_output=True, timeout=_TIMEOUT_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip()
        raise ExportError(
            f"{name}: the C library could not be compiled or run: {said[-200:] or error}; nothing "
            "was written; export without --c, and report this with the compiler's version"
        ) from None


def _steps_off(
    network: Int8Network,
    model: onnx.ModelProto,
    pixels: Array,
    found: NDArray[np.uint8],
    name: str,
) -> int:
    """Number of features that are one step from onnxruntime's; raises ExportError beyond."""
    features = network.maps[network.features]
    expected = np.rint(inference(model)(pixels) / features.scale) + features.zero
    steps = np.abs(found - expected)
    if steps.max() > 1:
        raise ExportError(
            f"{name}: the C library differs from onnxruntime by {steps.max():.0f} quantisation "
            "steps; nothing was written; export without --c, and report this with the recipe"
        )
    return int(np.count_nonzero(steps))
