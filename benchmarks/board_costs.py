"""Costs of workers and hosts beside computing, next to another revision: time and memory.

    python benchmarks/board_costs.py --baseline 5a8a45d [--rounds 10] [--json]

Both builds run eight workers each, of a student with next to nothing to compute, and a host, on
loopback under mutual TLS.  They are asked in turns: by a client that only writes and reads bytes,
without a pause (hot) and every 20 ms (paced), and by their hosts.  Shown are medians and their
ratios, and what is the same for both: the runtime's call, called hot and paced here, which is taken
off first; and the floor of start and memory, an interpreter with onnxruntime, grpc and numpy.
"""

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent.parent
BOARDS, IMAGE, WIDTH = 8, (3, 32, 32), 16
PAUSE_S, IDLE_S = 0.02, 10.0
HOT, PACED, ASKED = 200, 20, 40
"""Images of a turn."""
FLOOR = "import numpy, onnxruntime, grpc; print('ready', flush=True); input()"
FRAME_BYTES = 20 + 20 + 4 * WIDTH
COLUMNS = ("what", "baseline", "now", "ratio")


def busy_us(*pids: int) -> float:
    """Processor time that processes have used so far."""
    tasks = [task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e3


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1e3


class Build:
    """One revision's workers and host, by where its code is."""

    def __init__(self, root: Path, keys: Path, made: Path) -> None:
        self.root, self._keys, self._bundle = root, keys, made / "bundle"
        self._environment = os.environ | {
            "PYTHONPATH": os.pathsep.join((str(root), str(root / "tests"))),
            "PYTHONPYCACHEPREFIX": str(made / "compiled"),
            "OMP_NUM_THREADS": "1",
        }
        self._stack = ExitStack()
        self.starts_us: list[float] = []
        self.workers: list[tuple[int, int]] = []
        """Process and port of each."""

    def run(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start a Python process of this build, which ends with it."""
        process = subprocess.Popen(  # noqa: S603  (this program)
            [sys.executable, *map(str, arguments)],
            cwd=self.root,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)
        return process

    def make_bundle(self) -> Path:
        """Write the bundle as this build has it; return where."""
        sizes = f"({WIDTH},) * {BOARDS}, {IMAGE}, channels=1"
        place = f"Path({str(self._bundle)!r})"
        imports = "from pathlib import Path; from made_bundle import make_bundle"
        said(self.run("-c", f"{imports}; make_bundle({place}, {sizes}); print()"))
        return self._bundle

    def start_worker(self) -> None:
        """Start the next worker; note what its start took."""
        number = len(self.workers)
        keys = self._keys / f"pi-{number}"
        process = self.run(
            *("-m", "nonn_plan", "worker", self._bundle, "--student", str(number)),
            *("--listen", "127.0.0.1:0", "--keys", keys),
        )
        line = said(process)
        self.starts_us.append(busy_us(process.pid))
        self.workers.append((process.pid, int(line.rpartition(":")[2])))

    def start_host(self) -> None:
        """Start a host of all workers."""
        ports = ",".join(str(port) for _, port in self.workers)
        self.host = self.run(
            __file__, "--ask", ports, "--keys", self._keys, "--bundle", self._bundle
        )
        said(self.host)

    def asked(self, images: int) -> tuple[float, float]:
        """Let the host ask; its processor time of an image, and that of all, in us."""
        pids = [pid for pid, _ in self.workers]
        host, all_ = busy_us(self.host.pid), busy_us(self.host.pid, *pids)
        print(images, file=self.host.stdin, flush=True)
        said(self.host)
        return (
            (busy_us(self.host.pid) - host) / images,
            (busy_us(self.host.pid, *pids) - all_) / images,
        )

    def close(self) -> None:
        """End all of its processes."""
        self._stack.close()


def said(process: subprocess.Popen[str]) -> str:
    """Next line of a process."""
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        raise SystemExit("a process ended before its time")
    return line


def ask(bundle: Path, keys: Path, ports: Sequence[int]) -> None:
    """Ask workers as a host, as many images as each line of stdin says."""
    from functools import partial

    import numpy as np

    from boards.host.client import InferenceClient, QuorumPolicy
    from boards.host.connection import BoardTask, Reconnector
    from boards.host.grpc_connection import connect
    from boards.host.inference import FeatureClassifier
    from boards.protocol.address import BoardAddress
    from boards.tls.identity import Identity
    from nonn_core.export.bundle import Manifest

    manifest = Manifest.read(bundle / "manifest.json")
    tasks = [
        BoardTask(
            BoardAddress(name=f"pi-{number}", address=f"127.0.0.1:{port}"),
            (manifest.models[number],),
        )
        for number, port in enumerate(ports)
    ]
    connecting = Reconnector(partial(connect, identity=Identity.read(keys / "host")))
    classifier = FeatureClassifier(bundle, manifest)
    client = InferenceClient(tasks, classifier, connecting, QuorumPolicy())
    if not client.wait_connected(60):
        raise SystemExit(str(client.down))
    print("connected", flush=True)
    image = np.zeros((1, *IMAGE), np.float32)
    for line in sys.stdin:
        missing = [answer.missing for answer in client.stream([image] * int(line))]
        print(sum(map(bool, missing)), flush=True)


class Client:
    """A client that only writes and reads bytes."""

    def __init__(self, keys: Path, pid: int, port: int) -> None:
        import numpy as np

        from boards.protocol import frames
        from boards.tls.identity import Identity

        self._pid = pid
        context = Identity.read(keys / "host").client_context()
        plain = socket.create_connection(("127.0.0.1", port + 1))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = context.wrap_socket(plain, server_hostname="pi-0")
        self._connection.sendall(frames.hello_frame(["student-0"]).encoded())
        self._connection.recv(100)
        self._image = frames.images_frame(1, np.zeros((1, *IMAGE), np.float32)).encoded()

    def asked(self, images: int, pause_s: float) -> float:
        """Processor time of the worker for an image, in us."""
        before = busy_us(self._pid)
        for _ in range(images):
            self._connection.sendall(self._image)
            left = FRAME_BYTES
            while left:
                left -= len(self._connection.recv(4096))
            time.sleep(pause_s)
        return (busy_us(self._pid) - before) / images


def runtime_us(call: object, images: int, pause_s: float) -> float:
    """Processor time of the runtime's call alone, called as the worker is."""
    took = 0
    for _ in range(images):
        before = time.thread_time_ns()
        call()  # type: ignore[operator]
        took += time.thread_time_ns() - before
        time.sleep(pause_s)
    return took / images / 1e3


@contextmanager
def baseline(revision: str) -> Iterator[tuple[Path, Path]]:
    """Check a revision out; yield where it is, and a folder for what is made."""
    # Else a run that is ended does not come to what follows `finally`.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    with tempfile.TemporaryDirectory(prefix="board-costs-") as made:
        root = Path(made) / "baseline"
        git = ["git", "-C", str(HERE), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", root, revision], check=True)  # noqa: S603
        try:
            yield root, Path(made)
        finally:
            subprocess.run([*git, "remove", "--force", root], check=True)  # noqa: S603


def measured(builds: Sequence[Build], keys: Path, rounds: int) -> dict[str, list[list[float]]]:
    """Samples of each figure, for each build."""
    import numpy as np

    from boards.worker.model_runtime import load_models

    *_, bundle = [build.make_bundle() for build in builds]
    (model,) = load_models(bundle, ["student-0"])
    image = np.zeros((1, *IMAGE), np.float32)

    def call() -> object:
        return model.compute(image)

    found: dict[str, list[list[float]]] = defaultdict(lambda: [[] for _ in builds])
    # The first ones compile the code.
    for build in builds:
        build.start_worker()
        build.starts_us.clear()
    for _ in range(BOARDS - 1):
        for build in builds:
            build.start_worker()
    clients = [Client(keys, *build.workers[0]) for build in builds]
    for place, build in enumerate(builds):
        build.start_host()
        build.asked(ASKED)
        clients[place].asked(HOT, 0.0)
        found["start of a worker, s"][place] = [each / 1e6 for each in build.starts_us]
    for _ in range(rounds):
        hot, paced = runtime_us(call, HOT, 0.0), runtime_us(call, PACED, PAUSE_S)
        for place, build in enumerate(builds):
            found["the runtime's call, hot, us"][place].append(hot)
            found["the runtime's call, paced, us"][place].append(paced)
            found["worker, hot, us"][place].append(clients[place].asked(HOT, 0.0))
            found["worker, paced, us"][place].append(clients[place].asked(PACED, PAUSE_S))
            host, all_ = build.asked(ASKED)
            found["host, an image and board, us"][place].append(host / BOARDS)
            found["fan-out to 8, all processes, us"][place].append(all_)
    for place, build in enumerate(builds):
        pids = [pid for pid, _ in build.workers]
        found["resident memory, MB"][place] = [resident_mb(pid) for pid in pids]
    time.sleep(60)
    before = [busy_us(*(pid for pid, _ in build.workers)) for build in builds]
    time.sleep(IDLE_S)
    for place, build in enumerate(builds):
        after = busy_us(*(pid for pid, _ in build.workers))
        found["idle worker, us a second"][place] = [(after - before[place]) / IDLE_S / BOARDS]
    return found


def rows(found: dict[str, list[list[float]]], floor: tuple[float, float]) -> Iterator[list[str]]:
    """Medians and ratios, with the runtime's call taken off."""
    medians = {name: [median(each) for each in columns] for name, columns in found.items()}
    calls = {kind: medians[f"the runtime's call, {kind}, us"][0] for kind in ("hot", "paced")}
    for kind, call in calls.items():
        whole = medians[f"worker, {kind}, us"]
        medians[f"worker beyond the call, {kind}, us"] = [each - call for each in whole]
    whole = medians["fan-out to 8, all processes, us"]
    medians["fan-out beyond the calls, us"] = [each - BOARDS * calls["hot"] for each in whole]
    for name, (before, now) in medians.items():
        yield [name, f"{before:.4g}", f"{now:.4g}", f"{now / before:.2f}"]
    for name, each in zip(("floor of a start, s", "floor of memory, MB"), floor, strict=True):
        yield [name, f"{each:.4g}", f"{each:.4g}", ""]


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--baseline", metavar="REV", help="a revision to compare with")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--ask", help=argparse.SUPPRESS)
    parser.add_argument("--keys", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--bundle", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ask:
        ask(given.bundle, given.keys, [int(port) for port in given.ask.split(",")])
        return
    if not given.baseline:
        parser.error("--baseline is needed")
    sys.path[:0] = [str(HERE), str(HERE / "tests")]
    from worker_processes import keys_for

    with baseline(given.baseline) as (root, made), ExitStack() as stack:
        keys = keys_for(made / "keys", *(f"pi-{number}" for number in range(BOARDS)))
        builds = [Build(root, keys, made / "then"), Build(HERE, keys, made / "now")]
        for build in builds:
            stack.callback(build.close)
        empty = [builds[1].run("-c", FLOOR) for _ in range(3)]
        for process in empty:
            said(process)
        floor = (
            median(busy_us(each.pid) for each in empty) / 1e6,
            median(resident_mb(each.pid) for each in empty),
        )
        table = list(rows(measured(builds, keys, given.rounds), floor))
    if given.json:
        print(json.dumps([dict(zip(COLUMNS, row, strict=True)) for row in table], indent=2))
        return
    for row in (COLUMNS, *table):
        print(f"{row[0]:40}" + "".join(f"{each:>12}" for each in row[1:]))


if __name__ == "__main__":
    main()
