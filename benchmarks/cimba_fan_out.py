"""The fan-out as a cimba model: processes with inboxes, as its documentation teaches.

cimba is no dependency: `pip install cimba`.  Host and boards are servers, each a process that takes
an image from its inbox, holds it for a time and puts it into the next inbox.
"""

from collections.abc import Sequence

import cimba
import numpy as np
from cimba import inputs
from numpy.typing import NDArray

from simulator.graph_builder import join_ms, send_ms
from simulator.workloads.fan_out import FanOut, busy_ms, reply_ms


class BoardServer(cimba.Model):
    """A board: its processor, and its link to the host."""

    computing_ms: cimba.Param[float]
    replying_ms: cimba.Param[float]
    inbox: cimba.Store[int]
    outbox: cimba.Store[int]
    replies: cimba.Ref[cimba.Store[int]]

    @cimba.process
    def processor(self):
        """Compute."""
        while True:
            image = self.inbox.get()
            cimba.hold(self.computing_ms)
            self.outbox.put(image)

    @cimba.process
    def link(self):
        """Reply."""
        while True:
            image = self.outbox.get()
            cimba.hold(self.replying_ms)
            self.replies.put(image)


class HostServer(cimba.Model):
    """The host: where images come from, the sender, and the join."""

    gaps: cimba.Input[float]
    images: cimba.Param[int]
    joining_ms: cimba.Param[float]
    sending_ms: cimba.Array[float]
    starts_ms: cimba.Array[float]
    came: cimba.Array[int]
    boards: list[BoardServer]
    arrived: cimba.Store[int]
    replies: cimba.Store[int]
    complete: cimba.Store[int]
    latency_ms: cimba.Dataset
    mean_ms: cimba.Output[float]

    @cimba.process
    def source(self):
        """Let images come."""
        for image in range(self.images):
            cimba.hold(self.gaps.next())
            self.starts_ms[image] = cimba.now()
            self.arrived.put(image)

    @cimba.process
    def sender(self):
        """Send each image to all boards, one after the other."""
        while True:
            image = self.arrived.get()
            for place in range(len(self.boards)):
                cimba.hold(self.sending_ms[place])
                self.boards[place].inbox.put(image)

    @cimba.process
    def receiver(self):
        """Wait for the replies to an image."""
        while True:
            image = self.replies.get()
            self.came[image] += 1
            if self.came[image] == len(self.boards):
                self.complete.put(image)

    @cimba.process
    def joiner(self):
        """Join."""
        while True:
            image = self.complete.get()
            cimba.hold(self.joining_ms)
            self.latency_ms.record(cimba.now() - self.starts_ms[image])

    @cimba.on_end
    def measure(self):
        """Keep the mean."""
        self.mean_ms = self.latency_ms.sample_mean()


class CimbaFanOut:
    """A fan-out with images at given times, ready to run again and again."""

    def __init__(self, workload: FanOut, starts_ms: Sequence[float]) -> None:
        self._workload, self._starts_ms = workload, np.array(starts_ms)

    def mean_ms(self) -> float:
        """Run all images; return their mean latency."""
        host = self._host()
        return float(cimba.Experiment(host).run(workers=1)[host].mean_ms[0, 0])

    def latencies_ms(self) -> NDArray[np.float64]:
        """Run all images; return the latency of each."""
        host = self._host()
        host.latency_ms.capture()
        _, latencies = cimba.Experiment(host).run(workers=1)[host].latency_ms.trial(0, 0)
        return np.array(latencies)

    def _host(self) -> HostServer:
        workload, images = self._workload, len(self._starts_ms)
        host = HostServer()
        host.gaps = inputs.trace(np.diff(self._starts_ms, prepend=0.0))
        host.images, host.joining_ms = images, join_ms(workload.host)
        host.starts_ms, host.came = cimba.Array(images), cimba.Array(images)
        host.latency_ms, host.replies = cimba.Dataset(), cimba.Store()
        sends = workload.sends()
        host.sending_ms = cimba.Array([send_ms(board, workload.image_bytes) for board, _ in sends])
        servers = []
        for board, students in sends:
            server = BoardServer()
            server.computing_ms = busy_ms(board.device, [each.macs for each in students])
            server.replying_ms = reply_ms(board, sum(each.features for each in students))
            server.replies = host.replies
            servers.append(server)
        host.boards = servers
        return host
