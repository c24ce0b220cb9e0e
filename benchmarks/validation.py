"""A plan for four boards, from a profile of this machine to predicted beside measured.

    python benchmarks/validation.py [-o FOLDER]

All by the commands a person types: `profile` measures this machine; four boards get its profile,
ten times slower, as four boards at its own speed would need four machines; a teacher is trained on
digits, partitioned, planned for, the plan trained, exported, emulated, and asked for every test
image.  The labels must be those of the trained network in torch.  Ends with exit code 1 if one is
not, or if the predicted latency is more than 15 % off the measured median.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import torch
import typer
import yaml

from nonn_common.csv_table import CsvTable
from nonn_core.data.dataset import load_dataset
from nonn_core.distillation.run import load_run
from profiles.device import DeviceProfile

BOARDS = 4
SLOWER = 10.0
TEACHER, IMAGE = "wrn16-2", "1x16x16"


def nonn_plan(folder: Path, *words: str) -> None:
    """Run a command; stop where it fails."""
    print("$ nonn-plan", *words, flush=True)
    command = [sys.executable, "-m", "nonn_plan", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        raise SystemExit(done.stderr)


def write_fleet(folder: Path) -> None:
    """Write a fleet of slower boards like this machine, with this machine as the host."""
    here = DeviceProfile.read(folder / "here.yaml").model_dump(mode="json")
    board = {**here, "name": "board", "layers": None}
    for figure in ("compute_fixed_ms", "compute_ms_per_mmac"):
        times = {"value": SLOWER * here[figure]["value"], "standard_error": None}
        source = f"{SLOWER:g} times {here[figure]['source']}"
        board[figure] = {**here[figure], **times, "provenance": "assumed", "source": source}
    fleet = {
        "name": "four",
        "title": f"Four boards, {SLOWER:g} times slower than this machine",
        "host": "here",
        "boards": [
            {"name": f"board-{number}", "device": "board", "link": "wired-100mbit"}
            for number in range(1, BOARDS + 1)
        ],
        "devices": [here, board],
    }
    (folder / "four.yaml").write_text(yaml.safe_dump(fleet, sort_keys=False))


@contextmanager
def emulated(folder: Path) -> Iterator[None]:
    """Run the fleet until it is left."""
    command = [sys.executable, "-m", "nonn_plan", "emulate", "plan.json", "bundle"]
    command += ["--keys", "keys", "-o", "boards.yaml"]
    print("$ nonn-plan", *command[3:], flush=True)
    with (folder / "emulate.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log)  # noqa: S603
        try:
            while "next:" not in (folder / "emulate.log").read_text():
                if process.poll() is not None:
                    raise SystemExit("the fleet did not start")
                time.sleep(0.2)
            yield
        finally:
            process.terminate()
            process.wait()
    print((folder / "emulate.log").read_text())


def torch_labels(folder: Path) -> list[str]:
    """Return the class that the trained network names for each test image."""
    dataset = load_dataset("digits")
    _, network = load_run(folder / "run", dataset)
    network.eval()
    with torch.inference_mode():
        logits, _ = network(dataset.normalised(dataset.test.pixels))
    return [dataset.class_names[label] for label in logits.argmax(dim=1).tolist()]


def host_labels(folder: Path) -> list[str]:
    """Return the class that the boards named for each test image."""
    return [row.cells["class"] for row in CsvTable.read(folder / "labels.csv").rows()]


def run(folder: Path) -> None:
    """Do all of it in a folder."""
    nonn_plan(
        folder,
        "profile",
        "--teacher",
        TEACHER,
        "--image",
        IMAGE,
        "--name",
        "here",
        "-o",
        "here.yaml",
    )
    write_fleet(folder)
    training = ("--data", "digits", "--epochs", "20", "--batch-size", "64")
    nonn_plan(folder, "train-teacher", "--network", TEACHER, *training, "-o", "t.safetensors")
    nonn_plan(folder, "partition", "t.safetensors", "--gamma", "0.8", "-o", "partition.json")
    budgets = ("--memory", "400KB", "--flops", "8M", "--students", str(BOARDS))
    wanted = ("--fleet", "four.yaml", "--objective", "capacity", "-o", "plan.json")
    nonn_plan(folder, "plan", "partition.json", *budgets, *wanted)
    nonn_plan(folder, "config", "plan.json", "--epochs", "10", "--batch-size", "64")
    nonn_plan(folder, "train", "train.yaml", "-o", "run")
    nonn_plan(folder, "export", "run", "-o", "bundle", "--plan", "plan.json", "--precision", "fp32")
    nonn_plan(folder, "keys", "init", "keys", "--plan", "plan.json")
    asking = ("plan.json", "bundle", "--boards", "boards.yaml", "--keys", "keys/host")
    with emulated(folder):
        nonn_plan(folder, "host", *asking, "-o", "labels.csv")
        nonn_plan(folder, "validate", *asking, "--limit", "450", "--trace", "trace.json")


def main(
    out: Annotated[Path | None, typer.Option("-o", "--output", help="Folder to keep.")] = None,
) -> None:
    """Run the whole way and print what came out."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("PYTHONPATH", str(Path(__file__).parent.parent))
        run(folder)
        found = json.loads((folder / "validation.json").read_text())
        expected, named = torch_labels(folder), host_labels(folder)
    same = sum(map(str.__eq__, expected, named))
    print(f"labels: {same} of {len(expected)} as torch names them")
    for figure in ("total_ms", "compute_ms", "communication_ms", "p95_ms"):
        row = found[figure]
        print(
            f"{figure}: predicted {row['predicted']:.2f}, measured {row['measured']:.2f}, "
            f"error {row['error_pct']:+.1f} %"
        )
    print(f"accuracy on the boards: {found['accuracy']['measured_pct']:.2f} %")
    sys.exit(same < len(expected) or abs(found["total_ms"]["error_pct"]) > 15)


if __name__ == "__main__":
    typer.run(main)
