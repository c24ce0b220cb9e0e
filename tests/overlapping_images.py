"""The recurrence of images that overlap, each server busy until the image before is through.

For a fan-out without randomness and failures; the engine must reproduce it on each inference.
"""

from nonn_common.errors import SimulationError
from simulator.graph_builder import downlink, join_ms, send_ms, uplink
from simulator.results.breakdown import InferenceRow
from simulator.workloads.fan_out import busy_ms, reply_ms


def inference_times(workload, inferences, arrivals_ms=None):
    """Start and answer of images that come at `arrivals_ms`, or in a closed loop.

    Each board runs one student on a full-duplex link: several that share a processor follow no
    recurrence when images overlap, nor do sends and replies that wait for each other.  Raises
    SimulationError there, and for deadlines, replicas and a board for G0 alone.
    """
    if workload.g0 is not None:
        raise _unknown("with a board for G0 alone")
    if workload.deadline_ms is not None:
        raise _unknown("with a deadline")
    if len(workload.names) < len(workload.students):
        raise _unknown("with replicated students")
    if any(len(students) > 1 for _, students in workload.sends()):
        raise _unknown("with several students on a board")
    if any(uplink(board) == downlink(board) for board, _ in workload.sends()):
        raise _unknown("of overlapping images on a half-duplex link or a shared medium")
    boards = [_times_ms(board, students, workload) for board, students in workload.sends()]
    needed = workload.needs or len(boards)
    joining_ms = join_ms(workload.host)
    sender_ms = joiner_ms = 0.0
    cpus_ms, ups_ms = [0.0] * len(boards), [0.0] * len(boards)
    rows = []
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


def _times_ms(board, students, workload):
    """Times of one image at a board: send, latency, compute, reply."""
    return (
        send_ms(board, workload.image_bytes),
        board.link.latency_ms.value,
        busy_ms(board.device, [student.macs for student in students]),
        reply_ms(board, sum(student.features for student in students)),
    )


def _unknown(what):
    return SimulationError(f"no recurrence is known for a fan-out {what}")
