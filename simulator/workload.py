"""Workloads: what one image makes the boards do, and what each step of it costs.

Two workloads: `FanOut`, a NoNN's students on the boards of a fleet, and `Alone`, one model on one
board with no host.  The costs below are the physical model, shared by the closed forms, the event
engine and the planner, so that a plan means the same milliseconds everywhere::

    host sends, one board after the other       send_ms  = message_ms + wire_ms(image)
    a board runs all of its students at once    busy_ms  = slowdown * sum of compute_ms(student)
    it replies on its own link                  reply_ms = wire_ms(features of all its students)
    host joins once the last reply is there     join_ms  = join_fixed_ms + fc_ms
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from profiles.device import DeviceProfile, compute_mj, compute_ms, figure_of, slowdown
from profiles.errors import SimulationError
from profiles.fleet import Board
from profiles.link import BYTES_PER_FEATURE, wire_ms

HOST = "host"
"""Name of the host among the actors of a workload; no board may be called so."""


@dataclass(frozen=True, slots=True)
class StudentWork:
    """One student's work per image: `macs` on `board`, then `features` fp32 values to the host."""

    name: str
    board: str
    macs: int
    features: int

    def __post_init__(self) -> None:
        if self.macs < 0 or self.features < 1:
            raise SimulationError(
                f"student {self.name}: macs must be at least 0 and features at least 1; "
                f"found {self.macs} and {self.features}"
            )


@dataclass(frozen=True, slots=True)
class FanOut:
    """The host sends an image of `image_bytes` to each board in `send_order` and joins the replies.

    `boards` may hold boards without a student; `send_order` names the others, each once.  Raises
    SimulationError where the parts do not fit together.
    """

    host: DeviceProfile
    boards: tuple[Board, ...]
    students: tuple[StudentWork, ...]
    send_order: tuple[str, ...]
    image_bytes: int

    def __post_init__(self) -> None:
        _refuse_repeated("board", (HOST, *(board.name for board in self.boards)))
        _refuse_repeated("student", (student.name for student in self.students))
        known = {board.name for board in self.boards}
        used = {student.board for student in self.students}
        if used - known:
            raise SimulationError(
                f"students are placed on unknown boards: {_listed(used - known)}; "
                f"the fleet has: {_listed(known)}"
            )
        if sorted(self.send_order) != sorted(used):
            raise SimulationError(
                "send_order must name each board that has a student once: "
                f"found {_listed(self.send_order)}; boards with a student: {_listed(used)}"
            )
        if not self.students or self.image_bytes < 1:
            raise SimulationError(
                "a fan-out needs at least one student and an image of at least one byte; "
                f"found {len(self.students)} students and {self.image_bytes} bytes"
            )

    def sends(self) -> tuple[tuple[Board, tuple[StudentWork, ...]], ...]:
        """Return each board that has students, with them, in the order the host sends."""
        boards = {board.name: board for board in self.boards}
        students: dict[str, list[StudentWork]] = {name: [] for name in self.send_order}
        for student in self.students:
            students[student.board].append(student)
        return tuple((boards[name], tuple(students[name])) for name in self.send_order)


@dataclass(frozen=True, slots=True)
class Alone:
    """One model of `macs` on one `device`, which has the image already and tells nobody."""

    device: DeviceProfile
    macs: int

    def __post_init__(self) -> None:
        if self.macs < 0:
            raise SimulationError(f"macs must be at least 0; found {self.macs}")


Workload = FanOut | Alone


def send_ms(board: Board, image_bytes: int) -> float:
    """Return how long the host's sender is busy with one image for `board`, in ms."""
    return figure_of(board.device, "message_ms") + wire_ms(board.link, image_bytes)


def busy_ms(device: DeviceProfile, macs: Sequence[int]) -> float:
    """Return how long `device` needs for models of `macs` that start at once, in ms.

    They share the processor, so all are done only when the sum of their work is.
    """
    return slowdown(device, len(macs)) * sum(compute_ms(device, each) for each in macs)


def reply_ms(board: Board, features: int) -> float:
    """Return how long `features` fp32 values take from `board` to the host, in ms."""
    return wire_ms(board.link, reply_bytes(features))


def reply_bytes(features: int) -> int:
    """Return the size of a reply of `features` fp32 values, in bytes."""
    return BYTES_PER_FEATURE * features


def join_ms(host: DeviceProfile) -> float:
    """Return how long `host` needs from the last reply to the answer, in ms."""
    if host.hosting is None:
        raise SimulationError(f"device {host.name} cannot host: its profile has no hosting figures")
    return host.hosting.join_fixed_ms.value + host.hosting.fc_ms.value


def busy_mj(device: DeviceProfile, macs: Sequence[int]) -> float:
    """Return the energy of computing models of `macs` at once on `device`, in mJ."""
    return slowdown(device, len(macs)) * sum(compute_mj(device, each) for each in macs)


def _refuse_repeated(noun: str, names: Iterable[str]) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise SimulationError(f"{noun} names must be unique; repeated: {_listed(repeated)}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
