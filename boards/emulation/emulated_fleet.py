"""The emulated fleet of a plan: real processes behind real sockets, for a while.

::

    with emulated(plan, bundle) as fleet:
        fleet.addresses             where the host finds the boards
        fleet.worker("rpi-3b-1")    kill(), stop(), cont(), restart()
        fleet.limitations           what is not emulated

All that it makes is removed when it is left, and all processes end with this one.  What a killed
owner (SIGKILL) left in the system is removed by the next fleet.
"""

import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from boards.emulation.iproute import new_tagged_name, remove_folders
from boards.emulation.link_emulation import (
    BoardWorkload,
    LinkEmulation,
    board_workloads,
    emulation_methods,
    limitations,
    link_emulations,
)
from boards.emulation.namespace import Capabilities, Endpoint, board_namespaces, detect
from boards.emulation.relay import RelayOrder
from boards.emulation.worker_process import (
    WORKER_COMMAND,
    Child,
    EmulatedWorker,
    Spawner,
    deferred_signals,
    kill,
    listening_ports,
    stderr_tail,
    worker_command,
)
from boards.protocol.address import Address, BoardAddress, BoardAddresses
from boards.tls.authority import make_keys
from boards.tls.credential import board_subject
from nonn_common.errors import BoardError, InputError
from nonn_core.export.bundle import MANIFEST, Manifest
from planner.plan_file.plan_document import PlanDocument
from profiles.fleet import resolve

OWN_MESSAGE_MS = 1.0
"""Assumed cost of a message to a worker on this machine; a board's may cost more."""
PORT = 8001
_LOOPBACK = Endpoint(board="127.0.0.1", host="127.0.0.2")
"""Workers listen at the first, the relay for them, under the same ports, at the second."""


class RelayProcess:
    """A relay process, for as long as the fleet lives."""

    def __init__(
        self,
        links: Mapping[str, LinkEmulation],
        endpoints: Mapping[str, Endpoint],
        spawner: Spawner,
        log: Path,
        seed: int,
    ) -> None:
        self._links = links
        self._endpoints = endpoints
        self._log = log
        with log.open("ab") as errors:
            self._child: Child = spawner.start(
                [sys.executable, "-m", "boards.emulation.relay", str(seed)], errors, with_stdin=True
            )

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._child.poll() is None

    def relay(self, worker: EmulatedWorker) -> None:
        """Relay every port on which a worker listens now; raises BoardError if that fails."""
        endpoint, links = self._endpoints[worker.board], self._links[worker.board]
        ports = listening_ports(worker.pid)
        order = RelayOrder(worker.board, endpoint.host, endpoint.board, ports, links.down, links.up)
        child = self._child
        if child.stdin is None or child.stdout is None:
            raise BoardError("the relay has no pipes")
        try:
            child.stdin.write(order.encoded())
            child.stdin.flush()
            answer = child.stdout.readline()
        except OSError as error:
            raise BoardError(f"the relay is gone: {error}; {stderr_tail(self._log)}") from None
        if answer != b"\n":
            said = answer.decode(errors="replace").strip() or stderr_tail(self._log)
            raise BoardError(f"the relay cannot relay to {worker.board}: {said}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        kill(self._child)


@dataclass(frozen=True, slots=True)
class EmulatedFleet:
    """A running fleet, with the methods of its emulation and its limitations."""

    addresses: BoardAddresses
    keys: Path
    methods: tuple[str, ...]
    limitations: tuple[str, ...]
    workers: Mapping[str, EmulatedWorker]
    relay: RelayProcess | None = None

    def worker(self, board: str) -> EmulatedWorker:
        """Return the worker of a board; raises InputError where it has none."""
        if board not in self.workers:
            raise InputError(
                "no student of the plan is on this board",
                where="board",
                found=board,
                allowed=", ".join(self.workers),
            )
        return self.workers[board]


@contextmanager
def emulated(
    plan: PlanDocument,
    bundle: Path,
    keys: Path | None = None,
    *,
    capabilities: Capabilities | None = None,
    own_message_ms: float = OWN_MESSAGE_MS,
    command: Sequence[str] = WORKER_COMMAND,
    seed: int = 0,
) -> Iterator[EmulatedFleet]:
    """Run the fleet of `plan`, whose boards all serve when this is entered.

    Without `keys` an authority is made for as long as the fleet lives.  `capabilities` are those of
    the machine unless given, `command` starts a worker, `seed` draws jitter.  Raises InputError for
    a plan, bundle or keys that do not fit, BoardError where the system refuses or a worker ends.
    """
    workloads = board_workloads(plan, Manifest.read(bundle / MANIFEST))
    host, _ = resolve(plan.question.fleet)
    can = detect() if capabilities is None else capabilities
    if plan.group0 is not None:
        can = Capabilities(refused=("G0's board sends to boards, whose networks do not meet",))
    links = link_emulations(workloads, can, own_message_ms)
    undo = ExitStack()
    try:
        folder = _folder(undo)
        keys = keys or _made_keys(folder / "keys", plan, workloads)
        spawner = undo.enter_context(Spawner())
        endpoints = _endpoints(workloads, can, undo)
        relay = (
            undo.enter_context(RelayProcess(links, endpoints, spawner, folder / "relay.log", seed))
            if links
            else None
        )
        workers = {
            workload.board.name: EmulatedWorker(
                worker_command(command, bundle, keys / workload.board.name, workload),
                board=workload.board.name,
                students=workload.students,
                listens=Address(
                    endpoints[workload.board.name].board, PORT if can.namespaces else 0
                ),
                namespace=endpoints[workload.board.name].namespace,
                spawner=spawner,
                log=folder / f"{workload.board.name}.log",
                when_serving=relay.relay if relay else None,
            )
            for workload in workloads
        }
        _start(list(workers.values()), undo)
        yield EmulatedFleet(
            addresses=_addresses(workers, endpoints, links),
            keys=keys,
            methods=emulation_methods(can, links),
            limitations=limitations(workloads, host, can, links, own_message_ms),
            workers=workers,
            relay=relay,
        )
    finally:
        with deferred_signals():
            undo.close()


def _folder(undo: ExitStack) -> Path:
    """Make the folder of logs and keys; first remove those of dead owners."""
    remove_folders()
    folder = Path(tempfile.mkdtemp(prefix=f"{new_tagged_name()}-"))
    undo.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _made_keys(keys: Path, plan: PlanDocument, workloads: Sequence[BoardWorkload]) -> Path:
    sender = plan.group0.board if plan.group0 else ""
    names = [workload.board.name for workload in workloads]
    make_keys(keys, [replace(board_subject(name), sends=name == sender) for name in names])
    return keys


def _endpoints(
    workloads: Sequence[BoardWorkload], can: Capabilities, undo: ExitStack
) -> Mapping[str, Endpoint]:
    boards = [workload.board for workload in workloads]
    if can.namespaces:
        return undo.enter_context(board_namespaces(boards, can))
    return dict.fromkeys((board.name for board in boards), _LOOPBACK)


def _start(workers: Sequence[EmulatedWorker], undo: ExitStack) -> None:
    """Start all workers at once, then wait for each; when left, end all at once."""
    undo.callback(_end, workers)
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.wait()


def _end(workers: Sequence[EmulatedWorker]) -> None:
    for worker in workers:
        worker.ask_to_end()
    for worker in workers:
        worker.end()


def _addresses(
    workers: Mapping[str, EmulatedWorker],
    endpoints: Mapping[str, Endpoint],
    links: Mapping[str, LinkEmulation],
) -> BoardAddresses:
    found = []
    for name, worker in workers.items():
        endpoint = endpoints[name]
        address = Address(endpoint.host if name in links else endpoint.board, worker.address.port)
        found.append(BoardAddress(name=name, address=str(address)))
    return BoardAddresses(boards=tuple(found))
