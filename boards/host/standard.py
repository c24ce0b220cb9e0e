"""The standard protocol as the host speaks it: a call for each student of a board."""

import os
import threading
from collections import deque
from contextlib import suppress
from math import prod
from typing import Any

import grpc
import numpy as np

from boards.host.calls import Caller, told
from boards.host.connection import ConnectionLostError, Reply, Request, Wire
from boards.host.task import Task
from boards.protocol.frames import Features, Values
from boards.protocol.messages import message
from boards.protocol.refusal import Reason
from nonn_core.bundle import BundledModel

_REFUSED = {reason.name for reason in Reason} - {Reason.UNAVAILABLE.name}
"""A server that answers so is there."""


class StandardConnection:
    """Calls of one board; what they answer is put together when all of its students have."""

    wire: Wire = "standard"

    def __init__(self, caller: Caller, task: Task) -> None:
        self._caller = caller
        self._task = task
        self._came: deque[Reply | ConnectionLostError] = deque()
        # What gRPC's threads put down wakes who waits on this.
        self._waker, self._bell = os.pipe()
        os.set_blocking(self._waker, False)
        os.set_blocking(self._bell, False)
        self._lock = threading.Lock()
        self._closed = False

    def fileno(self) -> int:
        """Return what to wait on."""
        return self._waker

    @property
    def unsent(self) -> bool:
        """Never: gRPC keeps what waits."""
        return False

    def send(self, request: Request) -> None:
        """Call for every student."""
        gathered = _Gathered(request.number, len(self._task.models), self._put)
        try:
            for place, model in enumerate(self._task.models):
                future = self._caller.future("ModelInfer", infer_request(model, request.images))
                receive = _receiver(gathered, place, model, len(request.images))
                future.add_done_callback(receive)
        except ValueError as error:
            raise ConnectionLostError(str(error)) from None

    def flush(self) -> None:
        """Nothing waits here."""

    def replies(self) -> list[Reply]:
        """Return what has come."""
        with suppress(BlockingIOError):
            os.read(self._waker, 4096)
        found: list[Reply] = []
        while self._came:
            one = self._came[0]
            if isinstance(one, Reply):
                found.append(one)
            elif found:
                # What came before the end counts; the end is told when it is asked for again.
                self._ring()
                break
            else:
                raise one
            self._came.popleft()
        return found

    def close(self) -> None:
        """Close the channel and the pipe."""
        with self._lock:
            self._closed = True
        self._caller.close()
        os.close(self._waker)
        os.close(self._bell)

    def _put(self, one: Reply | ConnectionLostError) -> None:
        with self._lock:
            if self._closed:
                return
            self._came.append(one)
            self._ring()

    def _ring(self) -> None:
        # A full pipe wakes as well.
        with suppress(BlockingIOError):
            os.write(self._bell, b"!")


class _Gathered:
    """The students' answers to one image, until all are there."""

    def __init__(self, number: int, students: int, put: Any) -> None:
        self._number = number
        self._parts: list[Features | None] = [None] * students
        self._timed = True
        self._put = put
        self._lock = threading.Lock()
        self._told = False

    def add(self, place: int, part: Features, *, timed: bool) -> None:
        with self._lock:
            self._parts[place] = part
            self._timed = self._timed and timed
            parts = [each for each in self._parts if each is not None]
            if len(parts) < len(self._parts):
                return
        self._tell(
            Reply(
                self._number,
                Features(
                    np.concatenate([each.values for each in parts], axis=1),
                    max(each.waited_ns for each in parts),
                    max(each.computed_ns for each in parts),
                ),
                timed=self._timed,
            )
        )

    def refuse(self, refusal: str) -> None:
        self._tell(Reply(self._number, None, refusal))

    def lose(self, why: str) -> None:
        self._tell(ConnectionLostError(why))

    def _tell(self, one: Reply | ConnectionLostError) -> None:
        """Put down one result for the image, whatever more its students say."""
        with self._lock:
            told, self._told = self._told, True
        if not told:
            self._put(one)


def _receiver(gathered: _Gathered, place: int, model: BundledModel, count: int) -> Any:
    """Return what takes one student's answer, in a thread of gRPC."""

    def receive(future: grpc.Future) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is not None:
            refused = error.code().name in _REFUSED
            (gathered.refuse if refused else gathered.lose)(told(error))
            return
        response = future.result()
        features = _features(response, model, count)
        if features is None:
            gathered.refuse(f"{model.name} answers something else than the bundle says")
        else:
            gathered.add(place, features, timed="computed_ns" in response.parameters)

    return receive


def infer_request(model: BundledModel, images: Values) -> Any:
    """Return the ModelInfer request for `(n, ...)` images."""
    request = message("ModelInferRequest")(model_name=model.name)
    shape = (len(images), *model.reads.shape)
    request.inputs.add(name=model.reads.name, datatype="FP32", shape=shape)
    request.outputs.add(name=model.answers.name)
    request.raw_input_contents.append(np.ascontiguousarray(images, dtype="<f4").tobytes())
    return request


def _features(response: Any, model: BundledModel, count: int) -> Features | None:
    """Return a response's features; None if it is not what was asked for."""
    width = prod(model.answers.shape)
    if len(response.outputs) != 1 or response.outputs[0].datatype != "FP32":
        return None
    raw = response.raw_output_contents
    typed = response.outputs[0].contents.fp32_contents
    if (len(raw[0]) if raw else 4 * len(typed)) != 4 * count * width:
        return None
    values: Values = np.frombuffer(raw[0], "<f4") if raw else np.array(typed, np.float32)
    times = response.parameters
    return Features(
        values.reshape(count, width),
        times["waited_ns"].int64_param if "waited_ns" in times else 0,
        times["computed_ns"].int64_param if "computed_ns" in times else 0,
    )
