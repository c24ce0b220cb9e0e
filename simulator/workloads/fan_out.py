"""A fan-out: a NoNN's students on the boards of a fleet; its costs.

Two workloads: `FanOut`, and `SingleModel`, one model on one board with no host.  The costs below
are the physical model, shared by the closed forms, the event engine and the planner, so that a
plan means the same milliseconds everywhere::

    host sends, one board after the other       send_ms  = message_ms + wire_ms(image)
    a board runs all of its models at once      busy_ms  = slowdown * sum of work_ms(model)
    it replies on its own link                  reply_ms = wire_ms(features of all its students)
    host joins once the last reply is there     join_ms  = join_fixed_ms + fc_ms
    G0's board sends its maps on                exchange_ms = message_ms + slower wire_ms(maps)

A link's latency is paid once on each way; while it lasts, sender and wire are free again.  With
`sending` per-student, as published (one TCP wrapper per student), each student has a send and a
reply of its own, also beside others on its board, and runs from the moment its own image is there.

A fan-out is affine in multiply-accumulates, as plans are.  Where a device's profile knows the time
of every layer of a student, `layerwise_graph` puts that time in its place; what several students
at once cost more stays the device's sharing_slowdown.

The send order of least latency, whatever the sends take, is longest delivery first: one machine,
all jobs there from the start, delivery times (Jackson 1955).  Where boards share a medium, their
replies wait for each other, and another order may be quicker: the planner searches for it.  Boards
of which no reply is waited for, as those of spare copies, come behind all others.  A board with G0
alone sends its maps on in the same order: what follows an exchange is what follows a send, and the
latency of the sender's own link is the same for all.  Where its own students stand in the order
does not matter, as their reply waits for all exchanges.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from nonn_common.errors import SimulationError
from profiles.device import DeviceProfile, PredictedTime, slowdown
from profiles.fleet import Board
from profiles.link import BYTES_PER_FEATURE, wire_ms
from simulator.graph_builder import GraphBuilder
from simulator.graph_builder import exchange_ms as exchange_ms
from simulator.graph_builder import join_ms as join_ms
from simulator.graph_builder import send_ms as send_ms
from simulator.task_graph import HOST, Node, Step, TaskGraph
from simulator.workloads.layer_parts import Work, joint_time, work_mj, work_ms

Sending = Literal["per-board", "per-student"]
"""Receivers of an image each: the boards that have students, or the students."""


@dataclass(frozen=True, slots=True)
class CopiedGroup:
    """Work of a student's copy of G0: its MACs, or its time by layers."""

    precision: str
    macs: int
    time: PredictedTime | None = None


@dataclass(frozen=True, slots=True)
class StudentWork:
    """One student's work per image: `macs` on `board`, then `features` fp32 values to the host.

    `time` is what its layers predict for that board; without it the time follows from the MACs.
    Students of a board whose `copied` G0 is of one precision are one model, which runs it once.
    """

    name: str
    board: str
    macs: int
    features: int
    time: PredictedTime | None = None
    copied: CopiedGroup | None = None

    def __post_init__(self) -> None:
        if self.macs < 0 or self.features < 1:
            raise SimulationError(
                f"student {self.name}: macs must be at least 0 and features at least 1; "
                f"found {self.macs} and {self.features}"
            )

    @property
    def work(self) -> Work:
        """Its time by layers, or else its MACs."""
        return self.macs if self.time is None else self.time


def models_of(students: Sequence[StudentWork]) -> tuple[tuple[StudentWork, ...], ...]:
    """Students of one board, by model: each alone, or joined by their copied G0."""
    models: dict[object, list[StudentWork]] = {}
    for place, each in enumerate(students):
        models.setdefault(each.copied.precision if each.copied else place, []).append(each)
    return tuple(map(tuple, models.values()))


def model_works(students: Sequence[StudentWork]) -> tuple[Work, ...]:
    """Work of each model of one board with these students.

    A joint model is predicted by layers where they are known of all its students, else by FLOPs.
    """
    return tuple(map(_model_work, models_of(students)))


def _model_work(students: Sequence[StudentWork]) -> Work:
    """Work of a model: a student's, or that of several with G0 once."""
    if len(students) == 1:
        return students[0].work
    copies = [each.copied for each in students if each.copied]
    timed = [(each.time, copy.time) for each, copy in zip(students, copies, strict=True)]
    known = [(time, copy) for time, copy in timed if time and copy]
    if len(known) == len(students):
        return joint_time(known)
    return sum(each.macs for each in students) - sum(copy.macs for copy in copies[1:])


@dataclass(frozen=True, slots=True)
class SharedGroup:
    """G0 on a board of its own, which sends its maps on.

    It computes `macs` there, then sends `size_bytes` to each student's board.  `time` is what its
    layers predict for that board; without it the time follows from the MACs.
    """

    board: str
    macs: int
    size_bytes: int
    time: PredictedTime | None = None

    def __post_init__(self) -> None:
        if self.macs < 0 or self.size_bytes < 1:
            raise SimulationError(
                f"G0 on {self.board}: macs must be at least 0 and its maps at least one byte; "
                f"found {self.macs} and {self.size_bytes}"
            )

    @property
    def work(self) -> Work:
        """Its time by layers, or else its MACs."""
        return self.macs if self.time is None else self.time


@dataclass(frozen=True, slots=True)
class FanOut:
    """A NoNN on boards: the host sends an image and joins the replies.

    It sends `image_bytes` to each board in `send_order`.

    `boards` may hold boards without a student; `send_order` names the others, each once.  A
    student on several boards is replicated: its first reply counts.  The host joins when `needs`
    students have replied (all, if None), or at `deadline_ms` after the image's start with what
    came.  With `g0`, the host sends to that board alone, which sends its maps on in `send_order`.
    `sending` says whether students of one board share one message, and one reply, or not.
    Raises SimulationError where the parts do not fit together.
    """

    host: DeviceProfile
    boards: tuple[Board, ...]
    students: tuple[StudentWork, ...]
    send_order: tuple[str, ...]
    image_bytes: int
    needs: int | None = None
    deadline_ms: float | None = None
    g0: SharedGroup | None = None
    sending: Sending = "per-board"

    def __post_init__(self) -> None:
        _refuse_repeated("board", (HOST, *(board.name for board in self.boards)))
        _refuse_repeated("student", (f"{each.name} on {each.board}" for each in self.students))
        known = {board.name for board in self.boards}
        used = {student.board for student in self.students}
        placed = used | ({self.g0.board} if self.g0 else set())
        if placed - known:
            raise SimulationError(
                f"students are placed on unknown boards: {_listed(placed - known)}; "
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
        if self.sending == "per-student" and any(student.copied for student in self.students):
            raise SimulationError(
                "students that share a copy of G0 on their board are one model, with one message; "
                "found a message per student"
            )
        if self.needs is not None and not 1 <= self.needs <= len(self.names):
            raise SimulationError(
                f"the host can join from 1 to {len(self.names)} students; found {self.needs}"
            )

    @property
    def models(self) -> tuple["StudentWork | SharedGroup", ...]:
        """Models that boards run: the students, and G0 where it is alone."""
        return (*self.students, *((self.g0,) if self.g0 else ()))

    @property
    def names(self) -> tuple[str, ...]:
        """Every student's name, once."""
        return tuple(dict.fromkeys(student.name for student in self.students))

    def sends(self) -> tuple[tuple[Board, tuple[StudentWork, ...]], ...]:
        """Each board that has students, with them, in the order the host sends."""
        boards = {board.name: board for board in self.boards}
        students: dict[str, list[StudentWork]] = {name: [] for name in self.send_order}
        for student in self.students:
            students[student.board].append(student)
        return tuple((boards[name], tuple(students[name])) for name in self.send_order)

    def messages(self) -> tuple[tuple[Board, tuple[StudentWork, ...]], ...]:
        """Messages with the image: board and students of each, in the order the host sends."""
        if self.sending == "per-board":
            return self.sends()
        return tuple((board, (student,)) for board, here in self.sends() for student in here)

    def per_student(self) -> "FanOut":
        """Fan-out with a message for each student, and a G0 of its own."""
        alone = tuple(replace(student, copied=None) for student in self.students)
        return replace(self, students=alone, sending="per-student")

    def model_counts(self) -> dict[str, int]:
        """How many models each board with students runs."""
        return {board.name: len(models_of(here)) for board, here in self.sends()}

    def graph(self) -> TaskGraph:
        """Task graph of one image; models of one board share its processor."""
        build = GraphBuilder(self.host)
        messages = self.messages()
        arrived = self._sent(build, [board for board, _ in messages])
        there = self.model_counts()
        replies: dict[tuple[str, str], int] = {}
        for (board, students), image in zip(messages, arrived, strict=True):
            factor = slowdown(board.device, there[board.name])
            done = [
                build.compute(
                    board,
                    after=(image,),
                    ms=factor * work_ms(board.device, _model_work(model)),
                    mj=factor * _known_mj(board.device, _model_work(model)),
                    queue="+".join(each.name for each in model) if there[board.name] > 1 else None,
                )
                for model in models_of(students)
            ]
            size_bytes = reply_bytes(sum(student.features for student in students))
            names = tuple(student.name for student in students)
            reply = build.reply(board, size_bytes, done, names)
            replies |= {(name, board.name): reply for name in names}
        build.join(self._gathered(build, replies), needs=self.needs, deadline_ms=self.deadline_ms)
        return build.graph()

    def _sent(self, build: GraphBuilder, receivers: Sequence[Board]) -> list[int]:
        """Add what brings each receiver its input; return the step after which it is there."""
        if self.g0 is None:
            return [build.send(board, self.image_bytes) for board in receivers]
        source = next(board for board in self.boards if board.name == self.g0.board)
        image = build.send(source, self.image_bytes)
        work, device = self.g0.work, source.device
        maps = build.compute(
            source, after=(image,), ms=work_ms(device, work), mj=_known_mj(device, work)
        )
        return [
            maps
            if board.name == source.name
            else build.exchange(source, board, self.g0.size_bytes, (maps,))
            for board in receivers
        ]

    def _gathered(
        self, build: GraphBuilder, replies: Mapping[tuple[str, str], int]
    ) -> tuple[int, ...]:
        """For each student, the step after which the host has its features."""
        gathered = []
        for name in self.names:
            homes = [replies[name, each.board] for each in self.students if each.name == name]
            gathered.append(homes[0] if len(homes) == 1 else build.first(homes))
        return tuple(gathered) if self.needs else tuple(dict.fromkeys(gathered))


@dataclass(frozen=True, slots=True)
class SingleModel:
    """One model of `macs` on one `device`, which has the image already.

    `time` is what its layers predict there; without it the time follows from the MACs.
    """

    device: DeviceProfile
    macs: int
    time: PredictedTime | None = None

    def __post_init__(self) -> None:
        if self.macs < 0:
            raise SimulationError(f"macs must be at least 0; found {self.macs}")

    @property
    def work(self) -> Work:
        """Its time by layers, or else its MACs."""
        return self.macs if self.time is None else self.time

    def graph(self) -> TaskGraph:
        """Task graph of the one step that an image sets off."""
        name = self.device.name
        step = Step(
            actor=name,
            activity="compute",
            resources=(f"{name}.cpu",),
            duration_ms=work_ms(self.device, self.work),
            energy_mj=_known_mj(self.device, self.work),
        )
        return TaskGraph((step,), sink=0, nodes=(Node(name, self.device, students=1),))


Workload = FanOut | SingleModel


def busy_ms(device: DeviceProfile, works: Sequence[Work]) -> float:
    """Time of `device` for models that start at once, in ms, by MACs or times.

    They share the processor, so all are done only when the sum of their work is.
    """
    return slowdown(device, len(works)) * sum(work_ms(device, each) for each in works)


def reply_ms(board: Board, features: int) -> float:
    """Time of `features` fp32 values from `board` to the host, in ms."""
    return wire_ms(board.link, reply_bytes(features))


def reply_bytes(features: int) -> int:
    """Size of a reply of `features` fp32 values, in bytes."""
    return BYTES_PER_FEATURE * features


def busy_mj(device: DeviceProfile, works: Sequence[Work]) -> float:
    """Energy of such models at once on `device`, in mJ; NaN where power is unknown."""
    return slowdown(device, len(works)) * sum(work_mj(device, each) for each in works)


def _known_mj(device: DeviceProfile, work: Work) -> float:
    """Energy of a step; 0 where unknown, which results say of its board."""
    return work_mj(device, work) if device.power_known else 0.0


def _refuse_repeated(noun: str, names: Iterable[str]) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise SimulationError(f"{noun} names must be unique; repeated: {_listed(repeated)}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def longest_first(
    boards: Sequence[Board], students: Sequence[StudentWork], image_each_bytes: int | None = None
) -> tuple[str, ...]:
    """Boards with students, longest delivery first; ties keep their order.

    With `image_each_bytes` each student has an image of that size for itself: those of one board
    are sent one behind the other, and what is computed meanwhile is no part of the delivery.
    """
    tails_ms = {}
    for board in boards:
        here = [student for student in students if student.board == board.name]
        if here and image_each_bytes is None:
            replied_ms = reply_ms(board, sum(student.features for student in here))
            computed_ms = busy_ms(board.device, model_works(here))
            tails_ms[board.name] = computed_ms + replied_ms + 2 * board.link.latency_ms.value
        elif here and image_each_bytes is not None:
            replied_ms = reply_ms(board, max(student.features for student in here))
            computed_ms = _computed_behind_ms(board, here, send_ms(board, image_each_bytes))
            tails_ms[board.name] = computed_ms + replied_ms + 2 * board.link.latency_ms.value
    return tuple(sorted(tails_ms, key=lambda name: -tails_ms[name]))


def _computed_behind_ms(board: Board, here: Sequence[StudentWork], sending_ms: float) -> float:
    """Time for which a board computes after the last of its students' images."""
    factor = slowdown(board.device, len(here))
    sent_ms = free_ms = 0.0
    for student in here:
        sent_ms += sending_ms
        free_ms = max(free_ms, sent_ms) + factor * work_ms(board.device, student.work)
    return free_ms - sent_ms


def awaited_first(
    boards: Sequence[Board], students: Sequence[StudentWork], awaited: Collection[str]
) -> tuple[str, ...]:
    """Boards with students, those with `awaited` replies first, longest delivery first.

    The others are behind them, longest first too: to send to them delays nobody who is waited for.
    """
    order = longest_first(boards, students)
    return tuple(sorted(order, key=lambda name: name not in awaited))
