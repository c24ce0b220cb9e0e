"""Closed forms: the recurrences that the event engine must reproduce, and that sweeps use.

For one image, boards b = 1..K in send order, all times from the moment the host takes it up::

    sent_b = sent_(b-1) + send_b          sent_0 = 0
    done_b = sent_b + latency_b + busy_b + reply_b + latency_b
    total  = max_b done_b + join

In a closed loop the host takes up the next image when it has the answer to the last one, so that
start_(n+1) = end_n = start_n + total.  `answers` is the same with every server busy until the
image before is through, for images that come when they like.  No noise, no failures, links that
no other board shares; `sweep.fan_out_ms` is the same for many configurations at once.
"""

from collections.abc import Sequence

from profiles.errors import SimulationError
from profiles.fleet import Board
from simulator.result import BoardRow, Breakdown
from simulator.trace import InferenceRow
from simulator.workload import (
    Alone,
    FanOut,
    StudentWork,
    busy_mj,
    busy_ms,
    join_ms,
    reply_ms,
    send_ms,
)


def fan_out(workload: FanOut, inferences: int = 1) -> Breakdown:
    """Return latency and energy of a NoNN on its boards, for a closed loop of `inferences`.

    Raises SimulationError for a fan-out that joins before every student has replied, and for one
    with G0 on a board of its own.
    """
    if workload.needs is not None:
        raise _unknown("that joins k of n students")
    _refuse_more_than_recurs(workload)
    rows = []
    sent_ms = 0.0
    for board, students in workload.sends():
        macs = [student.macs for student in students]
        features = sum(student.features for student in students)
        sent_ms += send_ms(board, workload.image_bytes)
        latency_ms = board.link.latency_ms.value
        arrived_ms = sent_ms + latency_ms
        computing_ms = busy_ms(board.device, macs)
        rows.append(
            BoardRow(
                board=board.name,
                device=board.device.name,
                students=len(students),
                send_done_ms=arrived_ms,
                busy_ms=computing_ms,
                done_ms=arrived_ms + computing_ms + reply_ms(board, features) + latency_ms,
                energy_mj=busy_mj(board.device, macs),
            )
        )
    total_ms = max(row.done_ms for row in rows) + join_ms(workload.host)
    return _breakdown(total_ms, rows, inferences)


def alone(workload: Alone, inferences: int = 1) -> Breakdown:
    """Return latency and energy of one model on one board, for a closed loop of `inferences`."""
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
    return _breakdown(total_ms, [row], inferences)


def answers(
    workload: FanOut, inferences: int, arrivals_ms: Sequence[float] | None = None
) -> tuple[InferenceRow, ...]:
    """Return when each image is answered; they come at `arrivals_ms`, or in a closed loop.

    Each board runs one student: several that share a processor follow no recurrence when images
    overlap.  Raises SimulationError there, and for deadlines, replicas and a board for G0 alone.
    """
    _refuse_more_than_recurs(workload)
    if any(len(students) > 1 for _, students in workload.sends()):
        raise _unknown("with several students on a board")
    boards = [_times_ms(board, students, workload) for board, students in workload.sends()]
    needed = workload.needs or len(boards)
    joining_ms = join_ms(workload.host)
    sender_ms = joiner_ms = 0.0
    cpus_ms, ups_ms = [0.0] * len(boards), [0.0] * len(boards)
    rows: list[InferenceRow] = []
    for inference in range(inferences):
        start_ms = joiner_ms if arrivals_ms is None else arrivals_ms[inference]
        replied_ms = []
        for b, (sending_ms, latency_ms, computing_ms, replying_ms) in enumerate(boards):
            sender_ms = max(start_ms, sender_ms) + sending_ms
            cpus_ms[b] = max(sender_ms + latency_ms, cpus_ms[b]) + computing_ms
            ups_ms[b] = max(cpus_ms[b], ups_ms[b]) + replying_ms
            replied_ms.append(ups_ms[b] + latency_ms)
        joiner_ms = max(sorted(replied_ms)[needed - 1], joiner_ms) + joining_ms
        rows.append(InferenceRow(inference, start_ms, joiner_ms))
    return tuple(rows)


def channel_split_ms(
    boards: int,
    fixed_ms: float,
    shares_ms: Sequence[float],
    wires_ms: Sequence[float],
    exchange_ms: float,
    peer_message_ms: float,
) -> float:
    """Return the latency of a model whose layers are split by channels over equal `boards`.

    Per layer each board computes a share for shares_ms[l]; then all exchange, which costs
    exchange_ms and one message to each other board, each peer_message_ms + wires_ms[l].
    """
    others = boards - 1
    exchanged_ms = (exchange_ms + others * (peer_message_ms + wire_ms) for wire_ms in wires_ms)
    return fixed_ms + sum(shares_ms) + sum(exchanged_ms)


def _times_ms(
    board: Board, students: Sequence[StudentWork], workload: FanOut
) -> tuple[float, float, float, float]:
    """Return what one image costs a board: send, latency of its link, compute, reply."""
    features = sum(student.features for student in students)
    return (
        send_ms(board, workload.image_bytes),
        board.link.latency_ms.value,
        busy_ms(board.device, [student.macs for student in students]),
        reply_ms(board, features),
    )


def _refuse_more_than_recurs(workload: FanOut) -> None:
    if workload.g0 is not None:
        raise _unknown("with a board for G0 alone")
    if workload.deadline_ms is not None:
        raise _unknown("with a deadline")
    if len(workload.names) < len(workload.students):
        raise _unknown("with replicated students")


def _unknown(what: str) -> SimulationError:
    return SimulationError(f"no closed form is known for a fan-out {what}; simulate it instead")


def _breakdown(total_ms: float, rows: Sequence[BoardRow], inferences: int) -> Breakdown:
    compute_ms = max(row.busy_ms for row in rows)
    return Breakdown(
        total_ms=total_ms,
        compute_ms=compute_ms,
        communication_ms=total_ms - compute_ms,
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
