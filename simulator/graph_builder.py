"""A builder of task graphs: one call per step that an image sets off.

A workload of one's own is a function that makes a `GraphBuilder`, adds steps and returns a graph::

    build = GraphBuilder(host)
    replies = []
    for board in boards:
        sent = build.send(board, image_bytes)
        done = build.compute(board, macs, after=(sent,))
        replies.append(build.reply(board, 200, after=(done,), students=(board.name,)))
    return build.graph(build.join(replies))

Each call returns the index of its step.  What waits for nothing begins when the host takes up the
image; steps that become ready at the same time queue in the order of the calls.

A message to a board that is reached through others passes these.  Of links in a row each board
draws its radio's power for its own hops: one in between receives and sends on, the last one only
receives, or sends.  Between two boards all of them draw for the whole time, which is that of the
slower one's links.
"""

from collections.abc import Iterable
from dataclasses import replace

from nonn_common.errors import SimulationError
from profiles.device import DeviceProfile, Hosting, compute_mj, compute_ms, quantity_value
from profiles.fleet import Board, RelayBoard
from profiles.link import LinkProfile, wire_ms
from simulator.task_graph import HOST, Activity, Message, Node, Step, TaskGraph, Transit

NIC = f"{HOST}.nic"
HOST_CPU = f"{HOST}.cpu"


class GraphBuilder:
    """The steps of one image so far; `host` is needed only to join."""

    def __init__(self, host: DeviceProfile | None = None) -> None:
        self._host = host
        self._steps: list[Step] = []
        self._students: dict[int, tuple[str, ...]] = {}
        self._nodes: dict[str, DeviceProfile] = {}
        self._running: dict[str, set[str]] = {}

    def add(self, step: Step) -> int:
        """Add a step as it is."""
        self._steps.append(step)
        return len(self._steps) - 1

    def send(self, board: Board, size_bytes: int, after: Iterable[int] = ()) -> int:
        """Let the host send to `board`: message_ms and the wire, on its serial network card."""
        message = Message(HOST, board.name, size_bytes, _names(board.via))
        lasting_ms = send_ms(board, size_bytes)
        return self._carry("send", message, lasting_ms, (board,), (NIC, downlink(board)), after)

    def compute(
        self,
        board: Board,
        macs: int = 0,
        after: Iterable[int] = (),
        *,
        ms: float | None = None,
        mj: float | None = None,
        queue: str | None = None,
    ) -> int:
        """Let `board` compute `macs`, or for `ms` at `mj`.

        With a `queue`, the step waits there and shares the processor with the heads of other
        queues.

        Given `ms` alone, the energy is that of the device's power_busy_w, or 0 where it has none.
        """
        if macs < 0:
            raise SimulationError(f"a model has at least 0 MACs; found {macs} on {board.name}")
        resource = cpu(board) if queue is None else f"{cpu(board)}/{queue}"
        step = _computing(board.name, board.device, resource, macs, after, ms, mj)
        self._nodes.setdefault(board.name, board.device)
        return self.add(step)

    def reply(
        self,
        board: Board,
        size_bytes: int,
        after: Iterable[int] = (),
        students: Iterable[str] = (),
    ) -> int:
        """Let `board` send to the host on its own link, with the features of `students`."""
        message = Message(board.name, HOST, size_bytes, _names(board.via[::-1]))
        replying_ms = wire_ms(board.link, size_bytes)
        index = self._carry("reply", message, replying_ms, (board,), (uplink(board),), after)
        if names := tuple(students):
            self._students[index] = names
            self._running.setdefault(board.name, set()).update(names)
        return index

    def exchange(
        self,
        sender: Board,
        receiver: Board,
        size_bytes: int,
        after: Iterable[int] = (),
        *,
        message_ms: float | None = None,
    ) -> int:
        """Let `sender` send to `receiver`, at the rate of the slower of their links.

        The time beside the wire is `message_ms`, or the receiver's where None.
        """
        path = _names(relay_path(sender, receiver))
        message = Message(sender.name, receiver.name, size_bytes, path)
        lasting_ms = exchange_ms(sender, receiver, size_bytes, message_ms)
        resources = (uplink(sender), downlink(receiver))
        return self._carry("exchange", message, lasting_ms, (sender, receiver), resources, after)

    def join(
        self,
        after: Iterable[int],
        *,
        ms: float | None = None,
        needs: int | None = None,
        deadline_ms: float | None = None,
    ) -> int:
        """Let the host join replies for its profile's time, or for `ms`."""
        duration_ms = self._join_ms() if ms is None else ms
        replies = tuple(after)
        if not replies:
            raise SimulationError("there is nothing to join: name the steps that bring replies")
        return self.add(
            Step(HOST, "join", (HOST_CPU,), duration_ms, replies, needs, None, 0.0, deadline_ms)
        )

    def first(self, after: Iterable[int]) -> int:
        """Let the host go on, at no cost, when one of `after` has ended."""
        return self.add(Step(HOST, "join", (), 0.0, tuple(after), needs=1))

    def graph(self, sink: int | None = None) -> TaskGraph:
        """The graph that ends with the step `sink`, or with the last one."""
        nodes = (
            Node(name, device, len(self._running.get(name, ())))
            for name, device in self._nodes.items()
        )
        last = len(self._steps) - 1
        return TaskGraph(
            steps=tuple(self._steps),
            sink=last if sink is None else sink,
            students=self._students,
            nodes=tuple(nodes),
        )

    def _carry(
        self,
        activity: Activity,
        message: Message,
        duration_ms: float,
        ends: tuple[Board, ...],
        resources: tuple[str, ...],
        after: Iterable[int],
    ) -> int:
        self._know(message, ends)
        links = tuple(board.link for board in ends)
        on_wire_ms = _slowest_wire_ms(links, message.size_bytes)
        return self.add(
            Step(
                actor=message.sender,
                activity=activity,
                resources=tuple(dict.fromkeys(resources)),
                duration_ms=duration_ms,
                after=tuple(after),
                message=message,
                transit=replace(
                    transit(links, on_wire_ms),
                    radio_parts=radio_parts(ends[0]) if len(ends) == 1 else (),
                ),
            )
        )

    def _know(self, message: Message, ends: tuple[Board, ...]) -> None:
        """Note the boards that a message passes and those at its ends."""
        for board in ends:
            for each in (*board.via, board):
                if each.name in message.places:
                    self._nodes.setdefault(each.name, each.device)

    def _join_ms(self) -> float:
        if self._host is None:
            raise SimulationError("a join without `ms` needs a JobBuilder with a host")
        return join_ms(self._host)


def join_ms(host: DeviceProfile) -> float:
    """Time of `host` from the last reply to the answer, in ms."""
    hosting = _hosting(host)
    return hosting.join_fixed_ms.value + hosting.fc_ms.value


def receive_ms(host: DeviceProfile) -> float:
    """Time of `host` to receive and put together what boards return, in ms."""
    return _hosting(host).join_fixed_ms.value


def send_ms(board: Board, size_bytes: int) -> float:
    """Time of the host's sender for a message to `board`, in ms."""
    return quantity_value(board.device, "message_ms") + wire_ms(board.link, size_bytes)


def exchange_ms(
    source: Board, board: Board, size_bytes: int, message_ms: float | None = None
) -> float:
    """Time of `source` for a message to `board`, in ms, at the slower rate.

    The time beside the wire is `message_ms`, or that of `board` where None.
    """
    if message_ms is None:
        message_ms = quantity_value(board.device, "message_ms")
    return message_ms + _slowest_wire_ms((source.link, board.link), size_bytes)


def cpu(board: Board) -> str:
    """Name the processor of `board`."""
    return f"{board.name}.cpu"


def downlink(board: Board) -> str:
    """Name what carries messages to `board`."""
    return _link_resource(board, "down")


def uplink(board: Board) -> str:
    """Name what carries messages from `board`."""
    return _link_resource(board, "up")


def transit(links: tuple[LinkProfile, ...], on_wire_ms: float) -> Transit:
    """Delay, jitter and loss on `links`, one behind the other.

    `on_wire_ms` is the time of one try on the wire.

    Latency and jitter add up (the sum's mean; jitter stays exponential), a message passes if no
    link loses it, and a lost one is tried again after the longest of their times.
    """
    passing = 1.0
    for link in links:
        passing *= 1 - link.loss_pct.value / 100
    loss_pct = 100 * (1 - passing)
    return Transit(
        latency_ms=sum(link.latency_ms.value for link in links),
        jitter_ms=sum(link.jitter_ms.value for link in links),
        loss_pct=loss_pct,
        retry_ms=max(link.retransmit_ms.value for link in links) + on_wire_ms if loss_pct else 0.0,
        wire_ms=on_wire_ms,
    )


def _slowest_wire_ms(links: Iterable[LinkProfile], size_bytes: int) -> float:
    return max(wire_ms(link, size_bytes) for link in links)


def _names(boards: Iterable[RelayBoard]) -> tuple[str, ...]:
    return tuple(board.name for board in boards)


def _link_resource(board: Board, direction: str) -> str:
    if board.link.shared:
        return f"medium:{board.link.name}"
    return f"{board.name}.wire" if board.link.duplex == "half" else f"{board.name}.{direction}"


def _computing(
    name: str,
    device: DeviceProfile,
    resource: str,
    macs: int,
    after: Iterable[int],
    ms: float | None,
    mj: float | None,
) -> Step:
    if ms is None:
        ms, mj = compute_ms(device, macs), compute_mj(device, macs) if mj is None else mj
    elif mj is None:
        mj = device.power_busy_w.value * ms if device.power_busy_w else 0.0
    return Step(name, "compute", (resource,), ms, tuple(after), energy_mj=mj)


def _hosting(host: DeviceProfile) -> Hosting:
    if host.hosting is None:
        raise SimulationError(f"device {host.name} cannot host: its profile has no hosting figures")
    return host.hosting


def relay_path(sender: Board, receiver: Board) -> tuple[RelayBoard, ...]:
    """Boards on the path from `sender` to `receiver`, in this order.

    It leads towards the host as far as the last board that the routes of both have in common.
    """
    outward, inward = (*sender.via, sender), (*receiver.via, receiver)
    common = 0
    for one, other in zip(outward, inward, strict=False):
        if one.name != other.name:
            break
        common += 1
    turn = max(common - 1, 0)
    path = (*reversed(outward[turn:]), *inward[common:])
    ends = (sender.name, receiver.name)
    return tuple(each for each in path if each.name not in ends)


def radio_parts(board: Board) -> tuple[tuple[str, float], ...]:
    """Part of the time on the wire to `board` of each board's own hops.

    Empty where the host reaches the board itself and one hop is all.
    """
    if not board.via:
        return ()
    route = (*board.via, board)
    until = [1 / each.link.bits_per_s.value for each in route]  # s per bit, from the host to each
    since = (0.0, *until[:-1])
    sent_on = (*until[1:], until[-1])
    return tuple(
        (each.name, (last - first) / until[-1])
        for each, first, last in zip(route, since, sent_on, strict=True)
    )
