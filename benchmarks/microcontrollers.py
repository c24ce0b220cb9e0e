"""Students in C on emulated Cortex-M3, M4 and M7: features, instructions, flash, RAM and stack.

    python benchmarks/microcontrollers.py quickstart/runs/nonn-0

All test images of a finished run go through each student on each core.  Features are compared
with those of onnxruntime for the same int8 model; instructions, of the image that takes most, are
counted by QEMU, beside the multiply-accumulates that the planner counts.  Ends with exit code 1 if
a feature is more than one quantisation step off.  Needs arm-none-eabi-gcc and qemu-system-arm.
"""

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from emulated_core import CORES, missing_tools, run_on_core

from nonn_core.data.dataset import load_dataset
from nonn_core.distillation.run import load_run, recipe_of
from nonn_core.export.onnx_model import inference
from nonn_core.export.run_export import exported_network
from nonn_core.firmware.int8_network import read_int8_network
from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import student_cost

HEADS = ("student", "core", "flags", "MACs", "instructions", "each", "kernels", "flash", "RAM",
         "planned", "stack", "one off")  # fmt: skip


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    images: Annotated[int | None, typer.Option(help="Test images, if not all.")] = None,
) -> None:
    """Measure each student of a run on each core, with -O2 and -O3."""
    reason = missing_tools()
    if reason is not None:
        print(reason)
        raise typer.Exit(1)
    recipe = recipe_of(folder)
    dataset = load_dataset(recipe.data, usual=recipe.reading)
    _, network = load_run(folder, dataset)
    exported = exported_network(network, recipe, ("fp32",), dataset, c=True)
    pixels = dataset.test.pixels[:images].float().numpy()
    channels, height, width = pixels.shape[1:]
    print("|".join(("", *HEADS, "")))
    print("|".join(("", "---", "---", "---", *["---:"] * 9, "")))
    furthest = 0
    for part in exported.parts:
        checked = exported.c[part.stem]
        found = read_int8_network(checked.model, (channels, height, width), part.name)
        features = found.maps[found.features]
        expected = np.rint(inference(checked.model)(pixels) / features.scale) + features.zero
        spec = parse_network(part.network or "")
        cost = student_cost(spec, ImageShape(channels, height, width), len(part.filters))
        for core in CORES:
            for level in ("-O2", "-O3"):
                run = run_on_core(checked.library, pixels, core, level)
                off = np.abs(run.features - expected)
                furthest = max(furthest, int(off.max()))
                arena = checked.library.arena
                ram = arena.maps_bytes + arena.columns_bytes
                each = f"{run.instructions / cost.macs:.2f}"
                work = (cost.macs, run.instructions, each)
                needs = (run.kernel_bytes, run.flash_bytes, ram, cost.peak_elements)
                figures = (*work, *needs, run.stack_bytes, np.count_nonzero(off))
                print("|".join(("", part.name, core, level, *map(str, figures), "")), flush=True)
    if furthest > 1:
        print(f"a feature is {furthest} steps off")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
