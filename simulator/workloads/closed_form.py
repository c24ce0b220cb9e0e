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

In a closed loop the host takes up the next image when it has the answer to the last one, so that
start_(n+1) = end_n = start_n + total.  No randomness and no failures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nonn_common.errors import SimulationError
from profiles.device import compute_mj, compute_ms
from profiles.fleet import Board
from simulator.graph_builder import downlink, exchange_ms, join_ms, send_ms, uplink
from simulator.results.breakdown import BoardRow, Breakdown, InferenceRow
from simulator.workloads.fan_out import (
    FanOut,
    SharedGroup,
    SingleModel,
    StudentWork,
    busy_mj,
    busy_ms,
    reply_ms,
)


def fan_out_breakdown(workload: FanOut, inferences: int = 1) -> Breakdown:
    """Latency and energy of a NoNN on its boards.

    The images are a closed loop of `inferences`.

    Raises SimulationError for a fan-out that joins k of n students or at a deadline, for one with
    G0 on a board of its own and a half-duplex link, and for several images of which a replica
    still works on one when the next begins.
    """
    if workload.needs is not None:
        raise _unknown("that joins k of n students")
    if workload.deadline_ms is not None:
        raise _unknown("with a deadline")
    turns = _turns(workload) if workload.g0 is None else _turns_behind_g0(workload, workload.g0)
    replied_ms = _replied_ms(turns)
    total_ms = _answered_ms(workload, replied_ms) + join_ms(workload.host)
    rows = [
        BoardRow(
            board=turn.board.name,
            device=turn.board.device.name,
            students=turn.students,
            send_done_ms=turn.begun_ms,
            busy_ms=turn.computing_ms,
            done_ms=max(replied_ms.get(turn.board.name, 0.0), turn.passed_ms),
            energy_mj=turn.energy_mj,
        )
        for turn in turns
    ]
    if inferences > 1 and any(row.done_ms > total_ms for row in rows):
        raise _unknown("of several images that replicas still work on when the next one begins")
    # What goes on after the answer made nobody wait.
    computing_ms = (min(turn.computing_ms, max(0.0, total_ms - turn.begun_ms)) for turn in turns)
    return _breakdown(total_ms, max(computing_ms), rows, inferences)


def single_model_breakdown(workload: SingleModel, inferences: int = 1) -> Breakdown:
    """Latency and energy of one model on one board.

    The images are a closed loop of `inferences`.
    """
    total_ms = busy_ms(workload.device, [workload.macs])
    row = BoardRow(
        board=workload.device.name,
        device=workload.device.name,
        students=1,
        send_done_ms=0.0,
        busy_ms=total_ms,
        done_ms=total_ms,
        energy_mj=busy_mj(workload.device, [workload.macs]),
    )
    return _breakdown(total_ms, total_ms, [row], inferences)


@dataclass(frozen=True, slots=True)
class _Turn:
    """A board's part in one image, up to the moment when its reply is ready.

    Its input is sent until `sent_ms`, then takes `latency_ms`.  A board with G0 alone replies
    nothing; one whose link passes G0's maps on until `passing_ms` replies after that.
    """

    board: Board
    students: int
    sent_ms: float
    latency_ms: float
    computing_ms: float
    replying_ms: float
    energy_mj: float
    passing_ms: float = 0.0
    passed_ms: float = 0.0

    @property
    def begun_ms(self) -> float:
        return self.sent_ms + self.latency_ms

    @property
    def ready_ms(self) -> float:
        return self.begun_ms + self.computing_ms


def _turns(workload: FanOut) -> list[_Turn]:
    turns = []
    sent_ms = 0.0
    for board, students in workload.sends():
        sending_ms, latency_ms, computing_ms, replying_ms = _times_ms(board, students, workload)
        sent_ms += sending_ms
        energy_mj = busy_mj(board.device, [student.macs for student in students])
        turns.append(
            _Turn(board, len(students), sent_ms, latency_ms, computing_ms, replying_ms, energy_mj)
        )
    return turns


def _turns_behind_g0(workload: FanOut, g0: SharedGroup) -> list[_Turn]:
    """Turn of G0's board, then those of the other boards in send order."""
    source = next(board for board in workload.boards if board.name == g0.board)
    boards = [source, *(board for board, _ in workload.sends())]
    if any(uplink(board) == downlink(board) for board in boards):
        raise _unknown("with a board for G0 alone, on a half-duplex link or a shared medium")
    sent_ms = send_ms(source, workload.image_bytes)
    latency_ms = source.link.latency_ms.value
    own = _Turn(
        board=source,
        students=0,
        sent_ms=sent_ms,
        latency_ms=latency_ms,
        computing_ms=compute_ms(source.device, g0.macs),
        replying_ms=0.0,
        energy_mj=compute_mj(source.device, g0.macs),
    )
    passed_ms = own.ready_ms
    others = []
    for turn in _turns(workload):
        if turn.board.name == source.name:
            own = replace(
                own,
                students=turn.students,
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


def _replied_ms(turns: Sequence[_Turn]) -> dict[str, float]:
    """Time at which the host has each board's reply.

    The link resource that carries it may be busy with others' replies.
    """
    free_ms = {downlink(turn.board): turn.sent_ms for turn in turns}
    free_ms |= {uplink(turn.board): turn.passing_ms for turn in turns if turn.passing_ms}
    done_ms = {}
    replying = (turn for turn in turns if turn.students)
    for turn in sorted(replying, key=_in_turn):
        link_resource = uplink(turn.board)
        free_ms[link_resource] = (
            max(free_ms.get(link_resource, 0.0), turn.ready_ms) + turn.replying_ms
        )
        done_ms[turn.board.name] = free_ms[link_resource] + turn.board.link.latency_ms.value
    return done_ms


def _in_turn(turn: _Turn) -> tuple[float, float]:
    """Key that orders replies as the engine does.

    Of replies that are ready at once, those of boards with several students come last.
    """
    return turn.ready_ms, turn.begun_ms if turn.students > 1 else 0.0


def _answered_ms(workload: FanOut, replies_ms: Mapping[str, float]) -> float:
    """Time at which the host has each student's features.

    They come from the first of its boards to reply.
    """
    first_ms: dict[str, float] = {}
    for student in workload.students:
        replied_ms = replies_ms[student.board]
        first_ms[student.name] = min(first_ms.get(student.name, replied_ms), replied_ms)
    return max(first_ms.values())


def _times_ms(
    board: Board, students: Sequence[StudentWork], workload: FanOut
) -> tuple[float, float, float, float]:
    """Times of one image at a board: send, latency, compute, reply."""
    features = sum(student.features for student in students)
    return (
        send_ms(board, workload.image_bytes),
        board.link.latency_ms.value,
        busy_ms(board.device, [student.macs for student in students]),
        reply_ms(board, features),
    )


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
