"""Sustained load on loopback: memory, open files and threads of host and workers, minute by minute.

    python benchmarks/soak.py --minutes 30

Four workers under mutual TLS are asked without pause over both protocols in turns; once a minute
one of them is killed and started again.  Every answer is compared with the first one of its image.
Ends with exit code 1 if an answer is wrong, a student is missing without a kill, or memory or open
files of a process that lived on grew after the first tenth of the time.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from made_bundle import make_bundle
from worker_processes import WorkerProcess, asking, keys_for, running

from boards.host.client import InferenceClient, QuorumPolicy

IMAGE = (3, 16, 16)
BOARDS = 4
GROWTH_KB = 6_000
"""More than an allocator's own ups and downs, less than one leaked image in a hundred."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Resources that one process holds."""

    resident_kb: int
    files: int
    threads: int


def sample(pid: int) -> Sample:
    """Read what a process holds now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return Sample(
        int(status["VmRSS"].split()[0]),
        len(list(Path(f"/proc/{pid}/fd").iterdir())),
        int(status["Threads"]),
    )


class Load:
    """Asks the same images again and again, and checks what comes."""

    def __init__(self, images: list[np.ndarray]) -> None:
        self._images = images
        self._first: dict[int, np.ndarray] = {}
        self.asked = self.incomplete = 0

    def run(self, client: InferenceClient, seconds: float) -> None:
        """Ask for so long."""
        end = time.monotonic() + seconds

        def stream() -> Iterator[np.ndarray]:
            while time.monotonic() < end:
                yield from self._images

        for number, answer in enumerate(client.stream(stream())):
            self.asked += 1
            place = number % len(self._images)
            if answer.missing:
                self.incomplete += 1
                continue
            first = self._first.setdefault(place, answer.logits)
            if not np.allclose(answer.logits, first, rtol=1e-4, atol=1e-4):
                raise SystemExit(f"image {place} was answered {answer.logits}, at first {first}")


def told(minute: float, load: Load, samples: dict[str, Sample]) -> None:
    """Print one line."""
    held = "  ".join(
        f"{name} {each.resident_kb / 1e3:.1f} MB {each.files} files {each.threads} threads"
        for name, each in samples.items()
    )
    print(
        f"{minute:5.1f} min  {load.asked} images, {load.incomplete} incomplete  {held}", flush=True
    )


def killed_and_started(worker: WorkerProcess, clients: list[InferenceClient], load: Load) -> None:
    """Kill a worker under load, start it again, and wait until both hosts have it."""
    worker.process.kill()
    for client in clients:
        load.run(client, 0.5)
    worker.kill()
    worker.start()
    for client in clients:
        if not client.wait_connected(60):
            raise SystemExit(f"not connected again: {client.down}")


def grown(samples: list[dict[str, Sample]], restarted: str) -> list[str]:
    """Say which processes grew after the first tenth of the samples."""
    first, last = samples[len(samples) // 10], samples[-1]
    return [
        f"{name}: from {first[name]} to {last[name]}"
        for name in last
        if name != restarted
        and (
            last[name].resident_kb > first[name].resident_kb + GROWTH_KB
            or last[name].files > first[name].files + 2
        )
    ]


def main(minutes: Annotated[float, typer.Option(help="How long.")] = 30.0) -> None:
    """Load host and workers for a while, and watch what they hold."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        manifest = make_bundle(folder / "bundle", (8,) * BOARDS, IMAGE)
        names = [f"pi-{number}" for number in range(BOARDS)]
        keys = keys_for(folder / "keys", *names)
        rng = np.random.default_rng(0)
        load = Load([rng.uniform(0, 255, (1, *IMAGE)).astype(np.float32) for _ in range(8)])
        placement = {name: [f"student-{number}"] for number, name in enumerate(names)}
        victim = names[-1]
        with running(folder / "bundle", keys, placement) as workers:
            ask = (
                folder / "bundle",
                manifest,
                keys,
                list(workers.values()),
                QuorumPolicy(in_flight=4),
            )
            with asking(*ask) as frames, asking(*ask, protocol="standard") as standard:
                samples: list[dict[str, Sample]] = []
                broken = 0
                began = time.monotonic()
                while time.monotonic() < began + 60 * minutes:
                    for client in (frames, standard):
                        load.run(client, min(28.0, 30 * minutes))
                    if load.incomplete > broken:
                        raise SystemExit("a student was missing though no worker was killed")
                    killed_and_started(workers[victim], [frames, standard], load)
                    broken = load.incomplete
                    pids = {"host": os.getpid()} | {n: w.process.pid for n, w in workers.items()}
                    samples.append({name: sample(pid) for name, pid in pids.items()})
                    told((time.monotonic() - began) / 60, load, samples[-1])
    wrong = grown(samples, victim)
    print("nothing grew" if not wrong else "\n".join(wrong))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    typer.run(main)
