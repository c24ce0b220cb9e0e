"""Connections from the host to boards' workers, over either protocol, and their reconnection.

A task says what each board is asked for: a plan's placement and a bundle's models, in the sending
order.  A thread for each board that is wanted connects beside the work until the board is there.
"""

import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol

from boards.protocol import frames
from boards.protocol.address import BoardAddress, BoardAddresses
from boards.protocol.frames import (
    Expectation,
    Features,
    Frame,
    Route,
    Values,
    expect_frame,
    route_frame,
)
from nonn_common.errors import InputError
from nonn_core.export.bundle import BundledModel, Manifest
from planner.plan_file.plan_document import PlanDocument, PlannedGroup0, require_students
from planner.plan_file.training_recipe import trained_students

ProtocolName = Literal["frames", "standard"]

FIRST_PAUSE_S, MAX_PAUSE_S = 0.05, 2.0
"""Pauses between attempts to connect, which double from the first to the longest."""


@dataclass(frozen=True)
class BoardTask:
    """A board, and the students whose features it answers, side by side in this order.

    `joint` are the bundle's models of several of them, with one G0.  Where G0 has a board of its
    own, this board's task has `receivers`, the other boards, and theirs have it as `sender`; all
    have one `session`.
    """

    board: BoardAddress
    models: tuple[BundledModel, ...]
    joint: tuple[BundledModel, ...] = ()
    receivers: tuple[BoardAddress, ...] = ()
    sender: str = ""
    session: str = ""

    @property
    def name(self) -> str:
        """Name of the board."""
        return self.board.name

    @cached_property
    def students(self) -> tuple[str, ...]:
        """Names of its students; none of G0 alone."""
        return tuple(model.name for model in self.models if model.role != "group0")

    @property
    def image_values(self) -> int:
        """Values of an image."""
        return prod(self.models[0].reads.shape)

    @property
    def answer_values(self) -> int:
        """Values of all its features of an image."""
        return sum(prod(m.answers.shape) for m in self.models if m.role != "group0")

    def opening(self, ports: Mapping[str, int]) -> Frame:
        """First frame of a connection; `ports` are those of the receivers' frames."""
        if self.sender:
            return expect_frame(Expectation(self.session, self.sender, self.students))
        if not self.receivers:
            return frames.hello_frame(self.students)
        places = {
            each.name: str(each.endpoint.with_port(ports[each.name])) for each in self.receivers
        }
        return route_frame(Route(self.session, self.models[0].name, places))


def board_tasks(
    plan: PlanDocument, bundle: Manifest, addresses: BoardAddresses, where: str
) -> tuple[BoardTask, ...]:
    """Task of each board of the plan, in the sending order.

    The board of G0 is the first, where it has one of its own.  `where` names the file of addresses.
    Raises InputError for a plan without students, a bundle of other students, a board without an
    address, and one that is asked by the standard protocol where boards exchange maps.
    """
    require_students(plan)
    role = "student" if plan.group0 is None else "head"
    models = {model.name: model for model in bundle.models if model.role == role}
    planned = {student.name: student.filters for student in trained_students(plan).students}
    found = {name: model.filters for name, model in models.items()}
    if found != planned:
        raise InputError(
            "the bundle is of other students than the plan",
            where="bundle",
            found=_described(found),
            allowed=_described(planned),
            fix="export the run of this plan",
        )
    tasks = []
    for board in plan.send_order:
        here = [student.name for student in plan.students if board in student.boards]
        students = tuple(models[name] for name in here)
        tasks.append(BoardTask(addresses.of(board, where), students, bundle.joint_models(here)))
    return (
        tuple(tasks)
        if plan.group0 is None
        else _exchanging(plan.group0, bundle, tasks, addresses, where)
    )


def _exchanging(
    group0: PlannedGroup0,
    bundle: Manifest,
    heads: Sequence[BoardTask],
    addresses: BoardAddresses,
    where: str,
) -> tuple[BoardTask, ...]:
    """Tasks of one session: of G0's board, and of those that read its maps."""
    session, source = secrets.token_hex(16), addresses.of(group0.board, where)
    receivers = tuple(task.board for task in heads)
    for each in (source, *receivers):
        if each.protocol == "standard":
            raise InputError(
                "the standard protocol carries no maps from board to board",
                where=f"{where}, board {each.name}",
                found="protocol: standard",
                allowed="fastest",
                fix="plan with --group0 replicated",
            )
    model = next(model for model in bundle.models if model.role == "group0")
    first = BoardTask(source, (model,), receivers=receivers, session=session)
    return (first, *(replace(task, sender=source.name, session=session) for task in heads))


def working_boards(plan: PlanDocument) -> tuple[str, ...]:
    """Boards that work: that of G0, where it is alone, then the send order."""
    return (*((plan.group0.board,) if plan.group0 else ()), *plan.send_order)


def separate_copies(plan: PlanDocument, bundle: Manifest) -> tuple[str, ...]:
    """Sentences on students that share a G0 in the plan, but not in the bundle."""
    known = {frozenset(model.members) for model in bundle.models}
    return tuple(
        f"the plan gives {', '.join(names)} one G0, and the bundle has no model of them together: "
        "each computes its own; export the run with --plan"
        for names in plan.joint_students.values()
        if frozenset(names) not in known
    )


def _described(filters: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{name} of {len(each)} filters" for name, each in filters.items())


def all_students(all_tasks: Sequence[BoardTask]) -> tuple[BundledModel, ...]:
    """Return every student once, in the order of the FC layer's inputs."""
    models = (model for task in all_tasks for model in task.models if model.role != "group0")
    found = {model.name: model for model in models}
    return tuple(sorted(found.values(), key=lambda model: model.fc_offset or 0))


class ConnectionLostError(Exception):
    """The worker is gone or sends nonsense; its outstanding answers do not come."""


@dataclass(frozen=True)
class Request:
    """`(n, ...)` images under a number; the same for all boards."""

    number: int
    images: Values

    @cached_property
    def frame(self) -> bytes:
        """The request as a frame."""
        return frames.images_frame(self.number, self.images).encoded()


class Reply(NamedTuple):
    """A worker's reply to one request: features, or the reason of refusal.

    `timed` is whether it reports how long it waited and computed, which other servers do not;
    `unsent` are boards that G0's maps did not go to, and why.
    """

    number: int
    features: Features | None
    refusal: str = ""
    timed: bool = True
    unsent: Mapping[str, str] = MappingProxyType({})


class Connection(Protocol):
    """Sends images without waiting; replies are fetched where `fileno` is readable.

    One thread uses it.  Every method may raise ConnectionLostError, after which it is only closed.
    """

    protocol: ProtocolName
    fallback: str
    """Reason why it is not the faster protocol that the worker offers; nothing where it is."""

    def fileno(self) -> int:
        """File descriptor to select on, for replies, and for room to send where `unsent`."""

    @property
    def unsent(self) -> bool:
        """Whether images wait for room on the way to the worker."""

    def send(self, request: Request) -> None:
        """Ask for the features of images."""

    def flush(self) -> None:
        """Send waiting bytes, as far as there is room."""

    def replies(self) -> list[Reply]:
        """Return the replies received so far."""

    def close(self) -> None:
        """Close it."""


class SelfPipe:
    """A self-pipe, by which other threads wake the selector that waits on it."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def fileno(self) -> int:
        """File descriptor to select on."""
        return self._reader

    def wake(self) -> None:
        """Make the pipe readable."""
        # A full pipe wakes as well.
        with suppress(BlockingIOError):
            os.write(self._writer, b"!")

    def drain(self) -> None:
        """Empty the pipe."""
        with suppress(BlockingIOError):
            os.read(self._reader, 4096)

    def close(self) -> None:
        """Close both ends."""
        os.close(self._reader)
        os.close(self._writer)


Connect = Callable[[BoardTask], Connection]


class Reconnector:
    """Connects to boards; readable, for a selector, when there are results."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._results: deque[tuple[str, Connection | str]] = deque()
        self._pipe = SelfPipe()
        self._closed = threading.Event()
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """File descriptor to select on."""
        return self._pipe.fileno()

    def request(self, task: BoardTask) -> None:
        """Connect to a board in a thread, retrying until it works."""
        threading.Thread(
            target=self._run, args=(task,), name=f"connect {task.name}", daemon=True
        ).start()

    def results(self) -> list[tuple[str, Connection | str]]:
        """Return boards with their new connection, or with the reason why there is none."""
        self._pipe.drain()
        found = []
        while self._results:
            found.append(self._results.popleft())
        return found

    def close(self) -> None:
        """Stop connecting."""
        with self._lock:
            self._closed.set()
            self._pipe.close()
        for _, found in self._results:
            if not isinstance(found, str):
                found.close()

    def _run(self, task: BoardTask) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._closed.is_set():
            try:
                connection = self._connect(task)
            except (ConnectionLostError, InputError, OSError) as error:
                self._put(task.name, str(error))
                self._closed.wait(pause_s)
                pause_s = min(2 * pause_s, MAX_PAUSE_S)
                continue
            if not self._put(task.name, connection):
                connection.close()
            return

    def _put(self, name: str, found: Connection | str) -> bool:
        """Hand over a result; return False where nobody takes it any more."""
        with self._lock:
            if self._closed.is_set():
                return False
            self._results.append((name, found))
            self._pipe.wake()
            return True
