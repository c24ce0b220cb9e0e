"""Closed forms: the recurrences that the event engine must reproduce, and that sweeps use.

For one image, boards b = 1..K in send order, all times from the moment the host takes it up::

    sent_b = sent_(b-1) + send_b          sent_0 = 0
    done_b = sent_b + busy_b + reply_b
    total  = max_b done_b + join

In a closed loop the host takes up the next image when it has the answer to the last one, so that
start_(n+1) = end_n = start_n + total.
"""

from collections.abc import Sequence

from profiles.errors import SimulationError
from simulator.result import BoardRow, Breakdown
from simulator.trace import InferenceRow
from simulator.workload import Alone, FanOut, busy_mj, busy_ms, join_ms, reply_ms, send_ms


def fan_out(workload: FanOut, inferences: int = 1) -> Breakdown:
    """Return latency and energy of a NoNN on its boards, for a closed loop of `inferences`."""
    rows = []
    sent_ms = 0.0
    for board, students in workload.sends():
        macs = [student.macs for student in students]
        features = sum(student.features for student in students)
        sent_ms += send_ms(board, workload.image_bytes)
        computing_ms = busy_ms(board.device, macs)
        rows.append(
            BoardRow(
                board=board.name,
                device=board.device.name,
                students=len(students),
                send_done_ms=sent_ms,
                busy_ms=computing_ms,
                done_ms=sent_ms + computing_ms + reply_ms(board, features),
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
