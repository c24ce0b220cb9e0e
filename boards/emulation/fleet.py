"""The fleet of a plan on this machine: real processes behind real sockets, for a while.

::

    with emulated(plan, bundle) as fleet:
        fleet.addresses             where the host finds the boards
        fleet.worker("rpi-3b-1")    kill(), stop(), cont(), restart()
        fleet.notes                 what is not emulated

All that it makes is removed when it is left, and all processes end with this one.  What a killed
owner (SIGKILL) left in the system is removed by the next fleet.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from boards.credentials.holder import board as holder
from boards.credentials.keyring import make_keys
from boards.emulation.capabilities import Capabilities, detect
from boards.emulation.children import Starter
from boards.emulation.duties import Duty, duties
from boards.emulation.networks import Place, networks
from boards.emulation.notes import emulated_by, not_emulated
from boards.emulation.owner import new_name, remove_folders
from boards.emulation.relaying import Relaying
from boards.emulation.undisturbed import undisturbed
from boards.emulation.ways import Ways, relayed
from boards.emulation.workers import COMMAND, EmulatedWorker, worker_command
from boards.host.addresses import BoardAddress, BoardAddresses
from boards.protocol.address import Address
from nonn_core.bundle import MANIFEST, Manifest
from planner.plan import PlanDocument
from profiles.errors import InputError
from profiles.fleet import resolve

OWN_MESSAGE_MS = 1.0
"""What a message to a worker is taken to cost on this machine; a board's may cost more."""

PORT = 8001
_LOOPBACK = Place(board="127.0.0.1", host="127.0.0.2")
"""Workers listen at the first, the relay for them, under the same ports, at the second."""


@dataclass(frozen=True, slots=True)
class EmulatedFleet:
    """A fleet that runs: `does` says what stands for its boards, `notes` what is not emulated."""

    addresses: BoardAddresses
    keys: Path
    does: tuple[str, ...]
    notes: tuple[str, ...]
    workers: Mapping[str, EmulatedWorker]
    relay: Relaying | None = None

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
    command: Sequence[str] = COMMAND,
    seed: int = 0,
) -> Iterator[EmulatedFleet]:
    """Run the fleet of `plan`, whose boards all serve when this is entered.

    Without `keys` an authority is made for as long as the fleet lives.  `capabilities` are those of
    the machine unless given, `command` starts a worker, `seed` draws jitter.  Raises InputError for
    a plan, bundle or keys that do not fit, BoardError where the system refuses or a worker ends.
    """
    work = duties(plan, Manifest.read(bundle / MANIFEST))
    host, _ = resolve(plan.question.fleet)
    can = detect() if capabilities is None else capabilities
    ways = relayed(work, can, own_message_ms)
    undo = ExitStack()
    try:
        folder = _folder(undo)
        keys = keys or _made_keys(folder / "keys", work)
        starter = undo.enter_context(Starter())
        places = _places(work, can, undo)
        relay = (
            undo.enter_context(Relaying(ways, places, starter, folder / "relay.log", seed))
            if ways
            else None
        )
        workers = {
            duty.board.name: EmulatedWorker(
                worker_command(command, bundle, keys / duty.board.name, duty),
                board=duty.board.name,
                students=duty.students,
                listens=Address(places[duty.board.name].board, PORT if can.namespaces else 0),
                namespace=places[duty.board.name].namespace,
                starter=starter,
                log=folder / f"{duty.board.name}.log",
                when_serving=relay.relay if relay else None,
            )
            for duty in work
        }
        _start(list(workers.values()), undo)
        yield EmulatedFleet(
            addresses=_addresses(workers, places, ways),
            keys=keys,
            does=emulated_by(can, ways),
            notes=not_emulated(work, host, can, ways, own_message_ms),
            workers=workers,
            relay=relay,
        )
    finally:
        with undisturbed():
            undo.close()


def _folder(undo: ExitStack) -> Path:
    """Make the folder of logs and keys; first remove those of dead owners."""
    remove_folders()
    folder = Path(tempfile.mkdtemp(prefix=f"{new_name()}-"))
    undo.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _made_keys(keys: Path, work: Sequence[Duty]) -> Path:
    make_keys(keys, [holder(duty.board.name) for duty in work])
    return keys


def _places(work: Sequence[Duty], can: Capabilities, undo: ExitStack) -> Mapping[str, Place]:
    boards = [duty.board for duty in work]
    if can.namespaces:
        return undo.enter_context(networks(boards, can))
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
    workers: Mapping[str, EmulatedWorker], places: Mapping[str, Place], ways: Mapping[str, Ways]
) -> BoardAddresses:
    found = []
    for name, worker in workers.items():
        place = places[name]
        address = Address(place.host if name in ways else place.board, worker.address.port)
        found.append(BoardAddress(name=name, address=str(address)))
    return BoardAddresses(boards=tuple(found))
