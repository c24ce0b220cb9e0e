"""The event engine: each workload told as the events of one image after another, on SimPy.

Time is SimPy's, in ms.  Sender, processors, uplinks and joiner are busy-until servers, and each
step starts the next one in its callback.  Without noise every inference takes as long as
`closed_form` says.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial

from simpy import Environment

from profiles.errors import SimulationError
from profiles.fleet import Board
from simulator.result import Share, SimulationResult, summarise
from simulator.server import Server
from simulator.trace import Activity, InferenceRow, IntervalRow, MessageRow, Trace
from simulator.workload import (
    HOST,
    Alone,
    FanOut,
    StudentWork,
    Workload,
    busy_mj,
    busy_ms,
    join_ms,
    reply_bytes,
    reply_ms,
    send_ms,
)


def simulate(workload: Workload, inferences: int = 1) -> SimulationResult:
    """Run a closed loop of `inferences` images of `workload` and return what happened.

    The next image is taken up when the answer to the last one is there.  Raises SimulationError
    for fewer than one inference and ProfileError where a profile lacks a figure.
    """
    if inferences < 1:
        raise SimulationError(f"at least one inference is needed; found {inferences}")
    if isinstance(workload, FanOut):
        return _FanOutStory(workload, inferences).result()
    return _AloneStory(workload, inferences).result()


@dataclass(slots=True)
class _Image:
    """An image under way, and how many replies the host still misses."""

    inference: int
    start_ms: float
    missing: int


class _Story(ABC):
    """A closed loop of inferences; the subclass tells what one image sets off."""

    def __init__(self, inferences: int) -> None:
        self._inferences = inferences
        self._environment = Environment()
        self._trace = Trace()

    def result(self) -> SimulationResult:
        """Run from the first image to the last answer."""
        self._take_up(0)
        self._environment.run()
        return summarise(self._trace, self._shares())

    @abstractmethod
    def _take_up(self, inference: int) -> None:
        """Start what the image sets off; its last step calls `_answered`."""

    @abstractmethod
    def _shares(self) -> tuple[Share, ...]:
        """Return the boards at work."""

    def _answered(self, image: _Image) -> None:
        end_ms = self._environment.now
        self._trace.inferences.append(InferenceRow(image.inference, image.start_ms, end_ms))
        if image.inference + 1 < self._inferences:
            self._take_up(image.inference + 1)

    def _note(
        self, image: _Image, actor: str, activity: Activity, start_ms: float, end_ms: float
    ) -> None:
        row = IntervalRow(image.inference, actor, activity, start_ms, end_ms)
        self._trace.intervals.append(row)


class _Post:
    """One board at work in a fan-out: its servers, and what a step of each image costs it."""

    def __init__(
        self,
        environment: Environment,
        board: Board,
        students: tuple[StudentWork, ...],
        image_bytes: int,
    ) -> None:
        macs = [student.macs for student in students]
        features = sum(student.features for student in students)
        self.name = board.name
        self.processor, self.uplink = Server(environment), Server(environment)
        self.send_ms = send_ms(board, image_bytes)
        self.busy_ms = busy_ms(board.device, macs)
        self.reply_ms = reply_ms(board, features)
        self.reply_bytes = reply_bytes(features)
        self.share = Share(
            board.name, board.device.name, len(students), busy_mj(board.device, macs)
        )


class _FanOutStory(_Story):
    """The host sends to one board after the other; each computes and replies; the host joins."""

    def __init__(self, workload: FanOut, inferences: int) -> None:
        super().__init__(inferences)
        self._image_bytes = workload.image_bytes
        self._join_ms = join_ms(workload.host)
        self._sender, self._joiner = Server(self._environment), Server(self._environment)
        self._posts = tuple(
            _Post(self._environment, board, students, workload.image_bytes)
            for board, students in workload.sends()
        )

    def _shares(self) -> tuple[Share, ...]:
        return tuple(post.share for post in self._posts)

    def _take_up(self, inference: int) -> None:
        image = _Image(inference, self._environment.now, missing=len(self._posts))
        for post in self._posts:
            self._sender.serve(post.send_ms, partial(self._image_arrived, image, post))

    def _image_arrived(self, image: _Image, post: _Post, start_ms: float, end_ms: float) -> None:
        self._note(image, HOST, "send", start_ms, end_ms)
        self._trace.messages.append(
            MessageRow(image.inference, HOST, post.name, self._image_bytes, start_ms, end_ms)
        )
        post.processor.serve(post.busy_ms, partial(self._computed, image, post))

    def _computed(self, image: _Image, post: _Post, start_ms: float, end_ms: float) -> None:
        self._note(image, post.name, "compute", start_ms, end_ms)
        post.uplink.serve(post.reply_ms, partial(self._replied, image, post))

    def _replied(self, image: _Image, post: _Post, start_ms: float, end_ms: float) -> None:
        self._note(image, post.name, "reply", start_ms, end_ms)
        self._trace.messages.append(
            MessageRow(image.inference, post.name, HOST, post.reply_bytes, start_ms, end_ms)
        )
        image.missing -= 1
        if not image.missing:
            self._joiner.serve(self._join_ms, partial(self._joined, image))

    def _joined(self, image: _Image, start_ms: float, end_ms: float) -> None:
        self._note(image, HOST, "join", start_ms, end_ms)
        self._answered(image)


class _AloneStory(_Story):
    """One board computes one image after the other."""

    def __init__(self, workload: Alone, inferences: int) -> None:
        super().__init__(inferences)
        self._workload = workload
        self._processor = Server(self._environment)
        self._busy_ms = busy_ms(workload.device, [workload.macs])

    def _shares(self) -> tuple[Share, ...]:
        device = self._workload.device
        return (Share(device.name, device.name, 1, busy_mj(device, [self._workload.macs])),)

    def _take_up(self, inference: int) -> None:
        image = _Image(inference, self._environment.now, missing=0)
        self._processor.serve(self._busy_ms, partial(self._computed, image))

    def _computed(self, image: _Image, start_ms: float, end_ms: float) -> None:
        self._note(image, self._workload.device.name, "compute", start_ms, end_ms)
        self._answered(image)
