"""Real worker processes on loopback, each with keys of its own; and a host that asks them."""

import os
import signal
import socket
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import sleep

from forked_python import template

from boards.host.client import InferenceClient, QuorumPolicy
from boards.host.connection import BoardTask, Reconnector
from boards.host.grpc_connection import connect
from boards.host.inference import FeatureClassifier
from boards.protocol.address import Address, BoardAddress
from boards.tls.authority import make_keys
from boards.tls.credential import board_subject
from boards.tls.identity import Identity

WORKER = (
    "nonn_plan.cli.app",
    "nonn_plan.cli.commands.worker",
    "boards.worker.server",
    "boards.worker.student_pool",
    "boards.worker.frame_server",
)
"""What a worker imports, but for the standard library."""


def _runs(thread):
    return (thread / "stat").read_text().rpartition(")")[2].split()[0] != "T"


class WorkerProcess:
    """`nonn-plan worker` of some students, which can be killed, stopped and started again."""

    def __init__(self, bundle, name, students, keys, *options):
        self.name, self.students = name, students
        self._command = ["-m", "nonn_plan", "worker", str(bundle)]
        self._command += [part for each in students for part in ("--student", each)]
        self._command += ["--keys", str(keys / name), *options]
        self.address = Address("127.0.0.1", 0)
        self.start()

    def start(self):
        """Start it, on the port that it had."""
        self.process = template(*WORKER).start(
            *self._command,
            "--listen",
            str(self.address),
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        line = self.process.stdout.readline()
        if " on " not in line:
            raise AssertionError(self.process.communicate()[1])
        self.address = Address.parse(line.split(" on ")[1].strip(), "worker")

    def send(self, number):
        """Send a signal; SIGSTOP has stopped every thread when this returns."""
        self.process.send_signal(number)
        threads = Path(f"/proc/{self.process.pid}/task")
        while number == signal.SIGSTOP and any(map(_runs, threads.iterdir())):
            sleep(0.005)

    def kill(self):
        """End it as a power cut would."""
        self.process.kill()
        self.process.communicate()

    def end(self):
        """End it in good order; return its exit code."""
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.communicate()
        return self.process.returncode


def keys_for(folder: Path, *boards: str, sender: str = "") -> Path:
    """Make an authority and keys for a host and these boards, of which one may send maps."""
    subjects = [board_subject(name, ["127.0.0.1"]) for name in boards]
    make_keys(folder, [replace(each, sends=each.name == sender) for each in subjects])
    return folder


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def task_of(worker, manifest, protocol="fastest"):
    """A board as the host asks it: its address, and the models of its students."""
    models = {model.name: model for model in manifest.models}
    place = BoardAddress(name=worker.name, address=str(worker.address), protocol=protocol)
    students = tuple(models[student] for student in worker.students)
    return BoardTask(place, students, manifest.joint_models(worker.students))


@contextmanager
def running(bundle, keys, placement, *options, held=()):
    """Run a worker for each board of `placement`, which names its students.

    `held` are students with the time that their answers take at least: `student-1=5s`.
    """
    with ExitStack() as stack:
        workers = {}
        for name, students in placement.items():
            mine = [each for each in held if each.partition("=")[0] in students]
            slow = [word for each in mine for word in ("--at-least", each)]
            worker = WorkerProcess(bundle, name, students, keys, *options, *slow)
            stack.callback(worker.end)
            workers[name] = worker
        yield workers


@contextmanager
def asking(bundle, manifest, keys, workers, policy=None, protocol="fastest", connected=True):
    """Ask these workers as a host does."""
    identity = Identity.read(keys / "host")
    client = InferenceClient(
        [task_of(worker, manifest, protocol) for worker in workers],
        FeatureClassifier(bundle, manifest),
        Reconnector(partial(connect, identity=identity)),
        policy or QuorumPolicy(),
    )
    try:
        if connected:
            assert client.wait_connected(60), client.down
        yield client
    finally:
        client.close()
