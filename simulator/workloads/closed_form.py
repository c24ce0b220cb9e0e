"""Closed forms: the recurrences that the event engine must reproduce.

For one image, boards b = 1..K in send order, all times from the moment the host takes it up::

    sent_b  = sent_(b-1) + send_b         sent_0 = 0
    ready_b = sent_b + latency_b + busy_b
    done_b  = ready_b + reply_b + latency_b
    total   = max_b done_b + join

On a medium that boards share, replies wait for the last send there and for each other, first come
first served (ties in send order; boards of several students last, in the order of their images)::

    free    = max(free, ready_b) + reply_b        from free = the last sent_b on that medium
    done_b  = free + latency_b

A replicated student is answered at the first of its boards' replies, so that::

    total   = max over students (min over its boards done_b) + join

With G0 on a board 0 of its own, the host sends there alone; board 0 sends its maps on, in send
order, and its own students' reply queues behind them::

    sent_0  = send_0
    maps    = sent_0 + latency_0 + G0's compute
    sent_b  = sent_(b-1) + exchange_b      from maps; ready_b = sent_b + latency_0 + latency_b + ...

Where each student has a send of its own (`FanOut.sending`), b runs over the students; those of one
board share its processor from the moments when their images are there: of n that run each goes at
1/n of the clock, and each replies when it is done.  Where students on two boards are done at one
moment and reply on one medium, the engine may let the other go first.

Times are means of what boards of the device draw.  Where their spread is known, the join waits for
the largest of independent done_b (`JoinSpread`); a closed loop at the means is no less exact.

In a closed loop the host takes up the next image when it has the answer to the last one, so that
start_(n+1) = end_n = start_n + total.  No randomness and no failures.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nonn_common.errors import SimulationError
from profiles.device import slowdown, spread_cv
from profiles.fleet import Board
from profiles.time_spread import SpreadTime, expected_maximum_ms, maximum_quantile_ms
from simulator.graph_builder import downlink, exchange_ms, join_ms, send_ms, uplink
from simulator.results.breakdown import BoardRow, Breakdown, InferenceRow
from simulator.workloads.fan_out import (
    FanOut,
    SharedGroup,
    SingleModel,
    busy_mj,
    busy_ms,
    model_works,
    reply_ms,
)
from simulator.workloads.layer_parts import work_mj, work_ms


def fan_out_breakdown(
    workload: FanOut, inferences: int = 1, slow: Mapping[str, float] | None = None
) -> Breakdown:
    """Latency and energy of a NoNN on its boards.

    The images are a closed loop of `inferences`.  Boards named in `slow` compute so many times as
    long as in the mean, for the same energy.

    Raises SimulationError for a fan-out that joins k of n students or at a deadline, for one with
    G0 on a board of its own and a half-duplex link or a message per student, and for several
    images of which a replica still works on one when the next begins.
    """
    if workload.needs is not None:
        raise _unknown("that joins k of n students")
    if workload.deadline_ms is not None:
        raise _unknown("with a deadline")
    slow = slow or {}
    g0 = workload.g0
    turns = _turns(workload, slow) if g0 is None else _turns_behind_g0(workload, g0, slow)
    replied_ms = _replied_ms(turns)
    total_ms = _answered_ms(workload, turns, replied_ms) + join_ms(workload.host)
    rows = []
    computing_ms = []
    for name in dict.fromkeys(turn.board.name for turn in turns):
        here = [i for i, turn in enumerate(turns) if turn.board.name == name]
        own = [turns[i] for i in here]
        rows.append(
            BoardRow(
                board=name,
                device=own[0].board.device.name,
                students=sum(len(turn.names) for turn in own),
                send_done_ms=min(turn.begun_ms for turn in own),
                busy_ms=sum(turn.computing_ms for turn in own),
                done_ms=max(max(replied_ms[i], turns[i].passed_ms) for i in here),
                energy_mj=sum(turn.energy_mj for turn in own),
            )
        )
        # What goes on after the answer made nobody wait.
        computing_ms.append(_busy_until_ms(own, total_ms))
    if inferences > 1 and any(row.done_ms > total_ms for row in rows):
        raise _unknown("of several images that replicas still work on when the next one begins")
    return _breakdown(total_ms, max(computing_ms), rows, inferences)


P95 = 0.95


@dataclass(frozen=True, slots=True)
class JoinSpread:
    """Spread of a join over images: its mean, its 95th percentile, the slowest board's compute.

    All in ms.
    """

    expected_ms: float
    p95_ms: float
    compute_ms: float

    @property
    def communication_ms(self) -> float:
        """The rest of the expected latency, in ms."""
        return self.expected_ms - self.compute_ms


def join_spread(workload: FanOut) -> JoinSpread:
    """Spread of the join of a NoNN, by the compute_cv of its boards' devices.

    A board without one computes for its mean.  Exact where a board's computing is not held up by
    its own later images.  Raises SimulationError where there is no closed form, or where replies
    may wait for each other or for the first of several copies.
    """
    if workload.g0 is not None:
        raise _unknown("that spreads behind a board for G0 alone")
    if len(workload.names) < len(workload.students):
        raise _unknown("that spreads, with students on several boards")
    boards = {board.name: board for board in workload.boards}
    media = [board.link.name for board, _ in workload.sends() if board.link.shared]
    if len(set(media)) < len(media):
        raise _unknown("that spreads on a shared medium")
    rows = fan_out_breakdown(workload).boards
    joined, computing = [], []
    for row in rows:
        cv = spread_cv(boards[row.board].device)
        joined.append(SpreadTime.of(row.busy_ms, cv, row.done_ms - row.busy_ms))
        computing.append(SpreadTime.of(row.busy_ms, cv))
    around_ms = join_ms(workload.host)
    return JoinSpread(
        expected_ms=expected_maximum_ms(joined) + around_ms,
        p95_ms=maximum_quantile_ms(joined, P95) + around_ms,
        compute_ms=expected_maximum_ms(computing),
    )


def known_join_spread(workload: FanOut) -> JoinSpread | None:
    """Spread of the join; None where no closed form or no device tells it."""
    used = {student.board for student in workload.students}
    if not any(board.device.compute_cv for board in workload.boards if board.name in used):
        return None
    try:
        return join_spread(workload)
    except SimulationError:
        return None


def single_model_breakdown(workload: SingleModel, inferences: int = 1) -> Breakdown:
    """Latency and energy of one model on one board.

    The images are a closed loop of `inferences`.
    """
    total_ms = work_ms(workload.device, workload.work)
    row = BoardRow(
        board=workload.device.name,
        device=workload.device.name,
        students=1,
        send_done_ms=0.0,
        busy_ms=total_ms,
        done_ms=total_ms,
        energy_mj=work_mj(workload.device, workload.work),
    )
    return _breakdown(total_ms, total_ms, [row], inferences)


@dataclass(frozen=True, slots=True)
class _Turn:
    """Part of a board in one image, from a message to its reply.

    It is sent until `sent_ms`, then takes `latency_ms`; the students `names` then compute, and
    `waiting_ms` longer where those of other messages run at once.  A board with G0 alone replies
    nothing; one whose link passes G0's maps on until `passing_ms` replies after that.
    """

    board: Board
    names: tuple[str, ...]
    sent_ms: float
    latency_ms: float
    computing_ms: float
    replying_ms: float
    energy_mj: float
    passing_ms: float = 0.0
    passed_ms: float = 0.0
    shared: bool = False
    waiting_ms: float = 0.0

    @property
    def begun_ms(self) -> float:
        return self.sent_ms + self.latency_ms

    @property
    def ready_ms(self) -> float:
        return self.begun_ms + self.computing_ms + self.waiting_ms


def _turns(workload: FanOut, slow: Mapping[str, float]) -> list[_Turn]:
    turns = []
    sent_ms = 0.0
    there = workload.model_counts()
    for board, students in workload.messages():
        sent_ms += send_ms(board, workload.image_bytes)
        works = model_works(students)
        # Models that come one by one are slowed down as those that come together are.
        factor = slowdown(board.device, there[board.name]) / slowdown(board.device, len(works))
        turns.append(
            _Turn(
                board=board,
                names=tuple(student.name for student in students),
                sent_ms=sent_ms,
                latency_ms=board.link.latency_ms.value,
                computing_ms=slow.get(board.name, 1.0) * factor * busy_ms(board.device, works),
                replying_ms=reply_ms(board, sum(student.features for student in students)),
                energy_mj=factor * busy_mj(board.device, works),
                shared=there[board.name] > 1,
            )
        )
    return turns if workload.sending == "per-board" else _shared(turns)


def _shared(turns: Sequence[_Turn]) -> list[_Turn]:
    """Turns with the time that each loses to others of its board (processor sharing)."""
    done = list(turns)
    for name in {turn.board.name for turn in turns}:
        here = [i for i, turn in enumerate(turns) if turn.board.name == name]
        left_ms = {i: turns[i].computing_ms for i in here}
        running: list[int] = []
        now_ms = 0.0
        while left_ms:
            coming_ms = turns[here[0]].begun_ms if here else math.inf
            ending_ms = min((now_ms + len(running) * left_ms[i] for i in running), default=math.inf)
            then_ms = min(coming_ms, ending_ms)
            for i in running:
                left_ms[i] -= (then_ms - now_ms) / len(running)
            now_ms = then_ms
            if coming_ms <= ending_ms:
                running.append(here.pop(0))
                continue
            least_ms = min(left_ms[i] for i in running)
            for i in [i for i in running if left_ms[i] == least_ms]:
                running.remove(i)
                del left_ms[i]
                alone_ms = turns[i].begun_ms + turns[i].computing_ms
                done[i] = replace(turns[i], waiting_ms=now_ms - alone_ms)
    return done


def _busy_until_ms(turns: Sequence[_Turn], end_ms: float) -> float:
    """Time until `end_ms` for which a board computes: never idle while work is there."""
    busy_ms = free_ms = 0.0
    for turn in turns:
        begin_ms = max(free_ms, turn.begun_ms)
        free_ms = begin_ms + turn.computing_ms
        busy_ms += min(turn.computing_ms, max(0.0, end_ms - begin_ms))
    return busy_ms


def _turns_behind_g0(workload: FanOut, g0: SharedGroup, slow: Mapping[str, float]) -> list[_Turn]:
    """Turn of G0's board, then those of the other boards in send order."""
    source = next(board for board in workload.boards if board.name == g0.board)
    boards = [source, *(board for board, _ in workload.sends())]
    if workload.sending != "per-board":
        raise _unknown("with a board for G0 alone, and a message per student")
    if any(uplink(board) == downlink(board) for board in boards):
        raise _unknown("with a board for G0 alone, on a half-duplex link or a shared medium")
    sent_ms = send_ms(source, workload.image_bytes)
    latency_ms = source.link.latency_ms.value
    own = _Turn(
        board=source,
        names=(),
        sent_ms=sent_ms,
        latency_ms=latency_ms,
        computing_ms=slow.get(source.name, 1.0) * work_ms(source.device, g0.work),
        replying_ms=0.0,
        energy_mj=work_mj(source.device, g0.work),
    )
    passed_ms = own.ready_ms
    others = []
    for turn in _turns(workload, slow):
        if turn.board.name == source.name:
            own = replace(
                own,
                names=turn.names,
                shared=turn.shared,
                computing_ms=own.computing_ms + turn.computing_ms,
                replying_ms=turn.replying_ms,
                energy_mj=own.energy_mj + turn.energy_mj,
            )
        else:
            passed_ms += exchange_ms(source, turn.board, g0.size_bytes)
            both_ms = latency_ms + turn.latency_ms
            others.append(replace(turn, sent_ms=passed_ms, latency_ms=both_ms))
    there_ms = max((turn.begun_ms for turn in others), default=0.0)
    return [replace(own, passing_ms=passed_ms, passed_ms=there_ms), *others]


def _replied_ms(turns: Sequence[_Turn]) -> list[float]:
    """Time at which the host has each reply.

    It is 0 of a board with G0 alone, which replies nothing.
    The link resource that carries it may be busy with others' replies.
    """
    free_ms = {downlink(turn.board): turn.sent_ms for turn in turns}
    free_ms |= {uplink(turn.board): turn.passing_ms for turn in turns if turn.passing_ms}
    done_ms = [0.0] * len(turns)
    replying = [i for i, turn in enumerate(turns) if turn.names]
    for i in sorted(replying, key=lambda i: _in_turn(turns[i])):
        turn = turns[i]
        link_resource = uplink(turn.board)
        free_ms[link_resource] = (
            max(free_ms.get(link_resource, 0.0), turn.ready_ms) + turn.replying_ms
        )
        done_ms[i] = free_ms[link_resource] + turn.board.link.latency_ms.value
    return done_ms


def _in_turn(turn: _Turn) -> tuple[float, float]:
    """Key that orders replies as the engine does.

    Of replies that are ready at once, those of boards with several students come last.
    """
    return turn.ready_ms, turn.begun_ms if turn.shared else 0.0


def _answered_ms(workload: FanOut, turns: Sequence[_Turn], replies_ms: Sequence[float]) -> float:
    """Time at which the host has each student's features.

    They come from the first of its boards to reply.
    """
    first_ms = dict.fromkeys(workload.names, math.inf)
    for turn, replied_ms in zip(turns, replies_ms, strict=True):
        for name in turn.names:
            first_ms[name] = min(first_ms[name], replied_ms)
    return max(first_ms.values())


def _unknown(what: str) -> SimulationError:
    return SimulationError(f"no closed form is known for a fan-out {what}; simulate it instead")


def _breakdown(
    total_ms: float, computing_ms: float, rows: Sequence[BoardRow], inferences: int
) -> Breakdown:
    return Breakdown(
        total_ms=total_ms,
        compute_ms=computing_ms,
        communication_ms=total_ms - computing_ms,
        boards=tuple(rows),
        inferences=_closed_loop(total_ms, inferences),
    )


def _closed_loop(total_ms: float, inferences: int) -> tuple[InferenceRow, ...]:
    if inferences < 1:
        raise SimulationError(f"at least one inference is needed; found {inferences}")
    rows = []
    start_ms = 0.0
    for inference in range(inferences):
        rows.append(InferenceRow(inference, start_ms, start_ms + total_ms))
        start_ms += total_ms
    return tuple(rows)
