"""C libraries of students on emulated Cortex-M cores: their answers, and what they need."""

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nonn_core.firmware.c_library import CLibrary, kernel_files

CORES = {"cortex-m3": "mps2-an385", "cortex-m4": "mps2-an386", "cortex-m7": "mps2-an500"}
"""Cores, and the boards that QEMU has with one; the first has no DSP extension."""
COMPILER, EMULATOR = "arm-none-eabi-gcc", "qemu-system-arm"
PACKAGES = "gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
INSTRUCTIONS_PER_TICK = 40
TIMEOUT_S = 300
_FILES = Path(__file__).parent / "data"


@dataclass(frozen=True)
class CoreRun:
    """Features (N, filters) of all images; the most instructions of one; bytes, measured.

    `kernel_bytes` is the code of all kernels; `flash_bytes` the kernels and the student.
    """

    features: NDArray[np.uint8]
    instructions: int
    stack_bytes: int
    kernel_bytes: int
    flash_bytes: int


def missing_tools() -> str | None:
    """Reason why nothing can be emulated here; None if it can."""
    missing = [tool for tool in (COMPILER, EMULATOR) if shutil.which(tool) is None]
    return f"{', '.join(missing)} not here: apt install {PACKAGES}" if missing else None


def run_on_core(
    library: CLibrary, pixels: NDArray[np.float32], core: str, level: str = "-O2"
) -> CoreRun:
    """Run a library on an emulated core for images (N, C, H, W), pixels of 0 to 255."""
    prefix, upper = library.prefix, library.prefix.upper()
    texts = kernel_files() | {
        f"{prefix}.c": library.source,
        f"{prefix}.h": library.header,
        "student.h": f'#include "{prefix}.h"\n'
        f"#define INIT {prefix}_init\n#define RUN {prefix}_run\n"
        f"#define MEMORY_BYTES {upper}_MEMORY_BYTES\n#define FEATURES {upper}_FEATURES\n"
        f"#define IMAGE_BYTES ({upper}_HEIGHT * {upper}_WIDTH * {upper}_CHANNELS)\n",
    }
    target = [COMPILER, f"-mcpu={core}", "-mthumb", "-std=c99", level, "-Wall", "-Wextra"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in texts.items():
            (folder / file).write_text(text)
        np.ascontiguousarray(pixels.transpose(0, 2, 3, 1), np.uint8).tofile(folder / "images.bin")
        sources = ["nonn_kernels.c", f"{prefix}.c"]
        _done([*target, "-Werror", "-c", *sources], folder)
        sizes = [_size(folder, f"{Path(source).stem}.o") for source in sources]
        objects = [f"{Path(source).stem}.o" for source in sources]
        linked = ["-nostartfiles", "--specs=nano.specs", "-T", str(_FILES / "emulated_core.ld")]
        start = [f"-I{folder}", str(_FILES / "emulated_core.c")]
        _done([*target, *start, *objects, *linked, "-o", "program.elf"], folder)
        machine = ["-M", CORES[core], "-nographic", "-monitor", "none", "-serial", "null"]
        hosted = ["-icount", "shift=0", "-semihosting-config", "enable=on,target=native"]
        _done([EMULATOR, *machine, *hosted, "-kernel", "program.elf"], folder)
        features = np.fromfile(folder / "features.bin", np.uint8).reshape(len(pixels), -1)
        images, ticks, stack = np.fromfile(folder / "figures.bin", np.uint32).tolist()
    assert images == len(pixels)
    return CoreRun(features, ticks * INSTRUCTIONS_PER_TICK, stack, sizes[0], sum(sizes))


def _done(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{command[0]}: {done.stderr[-800:]}"
    return done.stdout


def _size(folder: Path, name: str) -> int:
    """Bytes of code and constants of an object file."""
    text, data, bss = map(int, _done(["arm-none-eabi-size", name], folder).split()[6:9])
    assert data == bss == 0
    return text
