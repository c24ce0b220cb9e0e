"""Cost of host and protocols beside the students' computing: loopback, mutual TLS, batch 1.

    python benchmarks/host_overhead.py

One student of WRN16 width is exported with random weights; calls of it are made in blocks that take
turns: the runtime itself, frames, the standard protocol.  The fan-out asks eight workers whose
answers are held for some time, as eight boards with processors of their own would; its overhead is
the total beyond the slowest board's own time.  Here the workers share this machine's processors
with the host: what they need of them to answer one image stands beside it, for that student and for
one with next to nothing to compute.  Throughput is compared with what such boards can compute at
most, and with how busy the host's thread is.  All times are medians, in ms.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from boards.host.client import InferenceClient, QuorumPolicy
from boards.host.connection import BoardTask, Reconnector
from boards.host.grpc_connection import GrpcChannel, connect, infer_request
from boards.host.inference import FeatureClassifier
from boards.protocol.address import Address, BoardAddress
from boards.tls.authority import make_keys
from boards.tls.credential import board_subject
from boards.tls.identity import Identity
from boards.worker.model_runtime import load_models
from nonn_core.export.bundle import Manifest

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from made_bundle import make_bundle

BOARDS = 8
HOLD_MS = 10.0
IMAGE = (3, 32, 32)


class Place(NamedTuple):
    """A worker that runs."""

    board: str
    address: str
    student: int
    pid: int


@contextmanager
def workers(bundle: Path, keys: Path, count: int, hold_ms: float) -> Iterator[list[Place]]:
    """Run workers of one student each."""
    with ExitStack() as stack:
        found: list[Place] = []
        for number in range(count):
            name = f"pi-{number}"
            command = [sys.executable, "-m", "nonn_plan", "worker", str(bundle)]
            command += ["--student", str(number), "--listen", "127.0.0.1:0"]
            command += ["--keys", str(keys / name)]
            if hold_ms:
                command += ["--at-least", f"{number}={hold_ms}ms"]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603
            stack.callback(process.wait)
            stack.callback(process.terminate)
            line = process.stdout.readline() if process.stdout else ""
            found.append(Place(name, line.split(" on ")[1].strip(), number, process.pid))
        yield found


@contextmanager
def host(
    bundle: Path,
    keys: Path,
    manifest: Manifest,
    places: Sequence[Place],
    protocol: str = "fastest",
    in_flight: int = 1,
) -> Iterator[InferenceClient]:
    """Ask these workers."""
    tasks = [
        BoardTask(
            BoardAddress.check(
                {"name": place.board, "address": place.address, "protocol": protocol}, "here"
            ),
            (manifest.models[place.student],),
        )
        for place in places
    ]
    reconnecting = Reconnector(partial(connect, identity=Identity.read(keys / "host")))
    client = InferenceClient(
        tasks, FeatureClassifier(bundle, manifest), reconnecting, QuorumPolicy(in_flight=in_flight)
    )
    try:
        if not client.wait_connected(60):
            raise SystemExit(str(client.down))
        yield client
    finally:
        client.close()


def interleaved(
    ways: dict[str, Callable[[], object]], rounds: int, block: int = 25
) -> dict[str, float]:
    """Return the median time of each way in ms, called in blocks that take turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(1 + rounds // block):
        for name, way in ways.items():
            for call in range(block):
                began = time.perf_counter()
                way()
                # The first turn warms up, and the first calls of a block find other's caches.
                if turn and call >= block // 5:
                    times[name].append(1e3 * (time.perf_counter() - began))
    return {name: statistics.median(each) for name, each in times.items()}


def one_worker(folder: Path, manifest: Manifest, rounds: int) -> dict[str, float]:
    """Time the runtime itself and both protocols, of one student."""
    bundle, keys = folder / "bundle", folder / "keys"
    image = _image()
    (model,) = load_models(bundle, ["student-0"])
    with (
        workers(bundle, keys, 1, 0.0) as places,
        host(bundle, keys, manifest, places) as frames,
        host(bundle, keys, manifest, places, "standard") as standard,
    ):
        caller = GrpcChannel(
            Address.parse(places[0].address, "here"), "pi-0", Identity.read(keys / "host")
        )
        request = infer_request(manifest.models[0], image)
        ways = {
            "runtime": partial(model.answer, image),
            "frames, by the host": partial(frames.ask, image),
            "standard, a call": partial(caller.call, "ModelInfer", request, 10.0),
            "standard, by the host": partial(standard.ask, image),
        }
        return interleaved(ways, rounds)


def fan_out_overhead(
    bundle: Path, keys: Path, manifest: Manifest, protocol: str, rounds: int
) -> tuple[list[float], float, float]:
    """Ask eight workers, one image after the other.

    Returns total minus the slowest board's own time, image by image; and the processor time for one
    image, of one worker and of the host.
    """
    image = _image()
    with (
        workers(bundle, keys, BOARDS, HOLD_MS) as places,
        host(bundle, keys, manifest, places, protocol) as asked,
    ):
        for _ in range(20):
            asked.ask(image)
        worker_ns, host_ns = sum(_busy_ns(place.pid) for place in places), time.process_time_ns()
        over = []
        for _ in range(rounds):
            answer = asked.ask(image)
            over.append(answer.total_ms - max(each.computed_ms or 0.0 for each in answer.timings))
        host_ns = time.process_time_ns() - host_ns
        worker_ns = sum(_busy_ns(place.pid) for place in places) - worker_ns
    return over, worker_ns / BOARDS / rounds / 1e6, host_ns / rounds / 1e6


def _busy_ns(pid: int) -> int:
    """Return the processor time that a process used."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def throughput(
    folder: Path, manifest: Manifest, hold_ms: float, images: int
) -> tuple[float, float]:
    """Send images through eight boards, eight on their way at once.

    Returns images per second, and the share of that time in which the host's thread was busy.
    """
    bundle, keys = folder / "bundle", folder / "keys"
    image = _image()
    with (
        workers(bundle, keys, BOARDS, hold_ms) as places,
        host(bundle, keys, manifest, places, in_flight=8) as asked,
    ):
        list(asked.stream([image] * 50))
        busy, began = time.thread_time(), time.perf_counter()
        for answer in asked.stream([image] * images):
            if answer.missing:
                raise SystemExit(f"a student was missing: {answer.missing}")
        seconds = time.perf_counter() - began
        return images / seconds, (time.thread_time() - busy) / seconds


def _image() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (1, *IMAGE)).astype(np.float32)


def main(
    rounds: Annotated[int, typer.Option(help="Calls of each way.")] = 500,
) -> None:
    """Print what the protocols, the fan-out and the host cost."""
    console = Console(width=110, highlight=False)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        widths = (16,) * BOARDS
        manifest = make_bundle(folder / "bundle", widths, IMAGE, channels=16, convolutions=5)
        least = make_bundle(folder / "least", widths, IMAGE, channels=1)
        make_keys(folder / "keys", [board_subject(f"pi-{number}") for number in range(BOARDS)])
        single = one_worker(folder, manifest, rounds)
        table = Table("one student", "ms", "beyond the runtime")
        for name, value in single.items():
            table.add_row(name, f"{value:.3f}", f"{value - single['runtime']:+.3f}")
        console.print(table)
        columns = ("beyond the slowest, ms", "p95", "worker's CPU", "host's CPU")
        table = Table(f"{BOARDS} workers, {HOLD_MS:g} ms each", *columns)
        for name, bundle, asked, protocol in (
            ("frames", "bundle", manifest, "fastest"),
            ("frames, least student", "least", least, "fastest"),
            ("standard", "bundle", manifest, "standard"),
        ):
            over, worker_ms, host_ms = fan_out_overhead(
                folder / bundle, folder / "keys", asked, protocol, rounds
            )
            p95 = statistics.quantiles(over, n=20)[-1]
            figures = (statistics.median(over), p95, worker_ms, host_ms)
            table.add_row(name, *(f"{figure:.2f}" for figure in figures))
        console.print(table)
        columns = ("images per s", "boards can compute", "host busy")
        table = Table("8 workers, 8 images at once", *columns)
        for hold_ms in (20.0, 10.0, 5.0):
            found, busy = throughput(folder, manifest, hold_ms, int(6000 / hold_ms))
            most = 1000 / hold_ms
            table.add_row(f"{hold_ms:g} ms each", f"{found:.0f}", f"{most:.0f}", f"{busy:.0%}")
        console.print(table)


if __name__ == "__main__":
    typer.run(main)
