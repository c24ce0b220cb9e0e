"""The benchmark of messages: their cost beyond the wire, with a real worker on loopback.

A worker process takes images of several sizes over the same transport, with the same keys, as
boards do.  Its models do next to nothing, but their answers are held as long as a student's: host
and worker that waited find their caches cold, which is what costs most.  Of each round trip, less
what the worker computed::

    sending     until the host turns to the next board: message_ms + time per byte
    the rest    the worker wakes and answers, the host wakes and joins: join_fixed_ms + time per
                byte + fc_ms, once per image
"""

import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from boards.host.client import InferenceClient, QuorumPolicy
from boards.host.connection import BoardTask, Reconnector
from boards.host.grpc_connection import connect
from boards.host.inference import Answer, FeatureClassifier
from boards.profiling.benchmark_model import CLASSES, FC_INPUTS, random_pixels, write_message_bundle
from boards.profiling.stopwatch import Stopwatch, TimedTask
from boards.protocol.address import BoardAddress
from boards.tls.authority import make_keys
from boards.tls.credential import HOST_NAME, Subject
from boards.tls.identity import Identity
from boards.worker.model_runtime import Engine
from nonn_common import Progress, silent
from nonn_common.errors import BoardError
from nonn_core.export.bundle import BundledModel
from nonn_core.networks.blueprint import ImageShape
from profiles import Quantity
from profiles.fitting import Fit, relative_fit, rounded_value

SIZES = (ImageShape(1, 8, 8), ImageShape(3, 32, 32), ImageShape(3, 64, 64), ImageShape(3, 96, 96))
"""256 bytes to 108 KiB."""

BOARD = "this-machine"
_READY_S, _END_S = 60.0, 15.0
_LEAST_MS = 1e-4
_HELD_MS = 5.0


@dataclass(frozen=True, slots=True)
class MessageTime:
    """Times of a message: sending, the rest of the round trip, and the FC layer."""

    size_bytes: int
    send_ms: float
    rest_ms: float
    fc_ms: float


@dataclass(frozen=True, slots=True)
class MessageFigures:
    """Message figures of a board and a host; `ms_per_byte` is the loopback's."""

    message_ms: Quantity
    join_fixed_ms: Quantity
    fc_ms: Quantity
    ms_per_byte: Quantity


def measure_messages(
    seconds: float,
    watch: Stopwatch,
    sizes: Sequence[ImageShape] = SIZES,
    engine: Engine | None = None,
    progress: Progress = silent,
) -> tuple[MessageTime, ...]:
    """Time messages of these sizes; raises BoardError where the worker does not serve."""
    with tempfile.TemporaryDirectory(prefix="nonn-plan-profile-") as folder, ExitStack() as stack:
        work_dir = Path(folder)
        manifest = write_message_bundle(work_dir / "bundle", sizes)
        make_keys(work_dir / "keys", (Subject(BOARD),))
        names = [model.name for model in manifest.models]
        address = stack.enter_context(_worker(work_dir, names, engine))
        identity = Identity.read(work_dir / "keys" / HOST_NAME)
        classifier = FeatureClassifier(work_dir / "bundle", manifest)
        hosts = {
            name: stack.enter_context(closing(_OneBoardHost(address, classifier, model, identity)))
            for name, model in zip(names, manifest.models, strict=True)
        }
        parts: tuple[tuple[str, Callable[[_OneBoardHost], TimedTask]], ...] = (
            ("send", lambda host: host.send_ms),
            ("rest", lambda host: host.rest_ms),
            ("fc", lambda host: lambda: watch.once(host.classify)),
        )
        tasks = {
            f"{part} {name}": timing(host) for part, timing in parts for name, host in hosts.items()
        }
        timed = watch.timed("messages", tasks, seconds, progress)
    return tuple(
        MessageTime(size.size_bytes, *(timed[f"{part} {name}"].ms for part, _ in parts))
        for size, name in zip(sizes, names, strict=True)
    )


def message_figures(times: Sequence[MessageTime]) -> MessageFigures:
    """Fit sending and the rest as a fixed time and a time per byte."""
    sizes = [float(row.size_bytes) for row in times]
    sent = _affine(sizes, [row.send_ms for row in times])
    rest = _affine(sizes, [max(row.rest_ms - row.fc_ms, _LEAST_MS) for row in times])
    note = f"messages of {int(min(sizes))} to {int(max(sizes))} bytes to a worker on loopback"
    return MessageFigures(
        message_ms=_measured(sent, f"{note}: until it is sent, less the time per byte"),
        join_fixed_ms=_measured(
            rest, f"{note}: the rest of the round trip, less computing and the time per byte"
        ),
        fc_ms=Quantity(
            value=rounded_value(min(row.fc_ms for row in times)),
            provenance="measured",
            source=f"{FC_INPUTS} features, {CLASSES} classes",
        ),
        ms_per_byte=Quantity(
            value=sum(fit.coefficients["byte"].value for fit in (sent, rest)),
            provenance="measured",
            source=note,
            residual_pct=max(sent.residual_pct, rest.residual_pct),
        ),
    )


def _affine(sizes: Sequence[float], times_ms: Sequence[float]) -> Fit:
    return relative_fit({"fixed": [1.0] * len(sizes), "byte": sizes}, times_ms)


def _measured(fit: Fit, source: str) -> Quantity:
    return fit.quantity("fixed", source).model_copy(update={"provenance": "measured"})


class _OneBoardHost:
    """A host of one board, which sends it images of one size in turn."""

    def __init__(
        self, address: str, classifier: FeatureClassifier, model: BundledModel, identity: Identity
    ) -> None:
        task = BoardTask(BoardAddress(name=BOARD, address=address), (model,))
        reconnector = Reconnector(lambda task: connect(task, identity))
        self._client = InferenceClient((task,), classifier, reconnector, QuorumPolicy())
        if not self._client.wait_connected(_READY_S):
            why = "; ".join(self._client.down.values())
            self._client.close()
            raise BoardError(f"the worker on this machine cannot be reached: {why}")
        self._classifier, self._model = classifier, model
        self._pixels = random_pixels(1, ImageShape(*model.reads.shape)).reshape(1, -1)
        self._features = {model.name: np.ones((1, len(model.filters)), np.float32)}

    def send_ms(self) -> float:
        """Ask once; return the time of sending, in ms."""
        return self._ask().timings[0].sent_ms

    def rest_ms(self) -> float:
        """Ask once; return the time in which nothing was sent or computed."""
        answer = self._ask()
        (board,) = answer.timings
        busy_ms = (board.waited_ms or 0.0) + (board.computed_ms or 0.0)
        return answer.total_ms - board.sent_ms - busy_ms

    def classify(self) -> None:
        """Apply the FC layer once."""
        self._classifier.logits(1, (self._model,), self._features)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _ask(self) -> Answer:
        answer = self._client.ask(self._pixels)
        if answer.missing:
            raise BoardError(f"the worker on this machine: {', '.join(answer.missing.values())}")
        return answer


@contextmanager
def _worker(work_dir: Path, names: Sequence[str], engine: Engine | None) -> Iterator[str]:
    """Run a worker of these models; yield where it listens.  Raises BoardError."""
    students = [
        word
        for name in names
        for word in ("--student", name, "--at-least", f"{name}={_HELD_MS:g}ms")
    ]
    command = [
        *(sys.executable, "-m", "nonn_plan", "worker", str(work_dir / "bundle"), *students),
        *(("--engine", engine) if engine else ()),
        *("--listen", "127.0.0.1:0", "--keys", str(work_dir / "keys" / BOARD)),
    ]
    with (work_dir / "worker.log").open("w+b") as log:
        running = subprocess.Popen(  # noqa: S603  (this program, arguments of our own)
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=_environment()
        )
        try:
            yield _address(running, work_dir / "worker.log")
        finally:
            _end(running)


def _address(running: subprocess.Popen[str], log: Path) -> str:
    """Wait until the worker says where it serves; raises BoardError."""
    assert running.stdout is not None  # noqa: S101  (it is a pipe)
    ready, _, _ = select.select([running.stdout], [], [], _READY_S)
    line = running.stdout.readline() if ready else ""
    if " on " not in line:
        said = log.read_text(errors="replace").strip().splitlines()
        raise BoardError(
            "a worker on this machine does not start"
            f"{': ' + said[-1] if said else f' within {_READY_S:g} s'}; try `nonn-plan worker`"
        )
    return line.rpartition(" on ")[2].strip()


def _end(running: subprocess.Popen[str]) -> None:
    running.send_signal(signal.SIGTERM)
    try:
        running.wait(_END_S)
    except subprocess.TimeoutExpired:
        running.kill()
        running.wait()
    if running.stdout is not None:
        running.stdout.close()


def _environment() -> dict[str, str]:
    """Return an environment in which the worker finds this program, installed or not."""
    here = str(Path(__file__).resolve().parents[2])
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (here, known)))}
