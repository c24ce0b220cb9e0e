"""Validation of a plan on its boards: predicted beside measured latency and accuracy.

Latency is compared in its parts, board by board.  Both sides are medians over as many images,
real and simulated; communication is what the median compute leaves of the median total, so that
the parts add up.  The trace for Perfetto (ui.perfetto.dev) shows
one real inference beside the simulated one: the simulated processes stand as `simulate --trace`
writes them; the measured ones, whose names say so, below.  A board reports how long it computed,
not when by the host's clock: its slice is put in the middle of the time that is left for the link.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from boards.host.connection import working_boards
from boards.host.inference import Answer, BoardTiming
from nonn_common.document import Document, Record, write_atomic
from nonn_common.errors import BoardError
from nonn_core.export.bundle import Manifest
from planner.plan_file.evaluation import plan_workload
from planner.plan_file.plan_document import PlanDocument
from simulator.engine.simulation import simulate
from simulator.results.breakdown import BoardRow
from simulator.results.perfetto import trace_json
from simulator.results.simulation_result import SimulationResult
from simulator.task_graph import HOST

ACCEPTED_PCT = 15.0
"""An error of a prediction that is beyond this asks for another profile."""
_NOTHING_IS_OFF = (
    f"nothing to calibrate anew: total, 95th percentile and each board's compute are within "
    f"{ACCEPTED_PCT:g} % of what was measured"
)
_CHECK_LINKS = (
    "check rate and latency of the links in the fleet, and message_ms of the devices, which "
    "`nonn-plan profile` measures"
)
_FIRST_PID = 100_000


class AnswerTimes:
    """Times of a closed loop's answers, each with every student; real or simulated."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self._answers = answers

    @classmethod
    def simulated(cls, found: SimulationResult) -> "AnswerTimes":
        """Times of simulated images; a board counts where its reply came by the answer."""
        started_ms = [row.start_ms for row in found.inferences]
        computing: defaultdict[tuple[int, str], list[float]] = defaultdict(list)
        for each in found.intervals:
            if each.activity == "compute":
                computing[each.inference, each.actor] += (each.start_ms, each.end_ms)
        timings: defaultdict[int, list[BoardTiming]] = defaultdict(list)
        sent_ms = {(row.inference, row.receiver): row.received_ms for row in found.messages}
        replying = {row.sender for row in found.messages if row.receiver == HOST}
        for (image, board), moments in computing.items():
            if board != HOST and board not in replying:
                # The board of G0, which replies to nobody.
                begun_ms, ended_ms = (each(moments) - started_ms[image] for each in (min, max))
                timings[image].append(
                    BoardTiming(board, begun_ms, ended_ms, None, ended_ms - begun_ms)
                )
        for reply in found.messages:
            image, board = reply.inference, reply.sender
            if reply.receiver == HOST and reply.received_ms <= found.inferences[image].end_ms:
                moments = computing[image, board]
                timings[image].append(
                    BoardTiming(
                        board=board,
                        sent_ms=sent_ms[image, board] - started_ms[image],
                        replied_ms=reply.received_ms - started_ms[image],
                        waited_ms=None,
                        computed_ms=max(moments) - min(moments),
                    )
                )
        nothing = np.zeros((0, 0), np.float32)
        return cls(
            [
                Answer(row.inference, nothing, {}, row.latency_ms, tuple(timings[row.inference]))
                for row in found.inferences
            ]
        )

    @property
    def total_ms(self) -> list[float]:
        """From taking an image up to its logits."""
        return [answer.total_ms for answer in self._answers]

    @property
    def compute_ms(self) -> list[float]:
        """Compute time of the slowest board, for images where every board reported its own."""
        longest = []
        for answer in self._answers:
            known = [each.computed_ms for each in answer.timings if each.computed_ms is not None]
            if known and len(known) == len(answer.timings):
                longest.append(max(known))
        return longest

    @property
    def typical(self) -> Answer:
        """The answer whose total is the median's neighbour."""
        return sorted(self._answers, key=lambda answer: answer.total_ms)[len(self._answers) // 2]

    def of(self, board: str, figure: Callable[[BoardTiming], float | None]) -> list[float]:
        """Return one figure of a board for each image that has it."""
        found = (
            figure(timing)
            for answer in self._answers
            for timing in answer.timings
            if timing.board == board
        )
        return [each for each in found if each is not None]


def median(values: Sequence[float]) -> float | None:
    """Return the median; None without any value."""
    return float(np.median(values)) if values else None


class Comparison(Record):
    """One figure, by the same statistic on both sides."""

    predicted: float | None = Field(description="By the plan's profiles; null where unknown.")
    measured: float | None = Field(description="On the boards; null where unknown.")
    error_pct: float | None = Field(
        description="Predicted minus measured, in percent of measured: above 0 where the boards "
        "are quicker than predicted.  Null where either is."
    )

    @classmethod
    def of(cls, predicted: float | None, measured: float | None) -> "Comparison":
        """Compare two figures."""
        error = None
        if predicted is not None and measured:
            error = 100 * (predicted - measured) / measured
        return cls(predicted=predicted, measured=measured, error_pct=error)

    @property
    def accepted(self) -> bool:
        """Whether the prediction is as good as it should be."""
        return self.error_pct is not None and abs(self.error_pct) <= ACCEPTED_PCT


class BoardComparison(Record):
    """One board; medians in ms, moments since the host took the image up."""

    board: str = Field(description="Name of the board.")
    device: str = Field(description="Its device.")
    wire: str = Field(description="How it was spoken to: frames or standard.")
    computed_ms: Comparison = Field(description="How long its students computed.")
    replied_ms: Comparison = Field(
        description="When its features were there.  Of the board of G0, where it has its own, "
        "nothing is predicted: it only says that the maps are sent."
    )
    energy_mj: Comparison = Field(
        description="Energy of computing, in mJ per image.  Measured is a proxy: the power that "
        "its profile predicts, for as long as it computed."
    )


class AccuracyComparison(Record):
    """Accuracy, in percent."""

    predicted_pct: float | None = Field(description="By the plan; null where it does not know.")
    low_pct: float | None = Field(description="Lower end of the plan's 95 % interval.")
    high_pct: float | None = Field(description="Upper end of the plan's 95 % interval.")
    exported_pct: float | None = Field(
        description="Of the exported models on all test images; null if of another precision."
    )
    measured_pct: float | None = Field(
        description="On the boards, on the images that were sent; null where no class is known."
    )


class Validation(Document):
    """The document of `validate`: prediction beside measurement, figure by figure."""

    images: int = Field(gt=0, description="Images that every student answered.")
    incomplete: int = Field(ge=0, description="Images that were left out: a student was missing.")
    total_ms: Comparison = Field(description="Latency of an image, median.")
    compute_ms: Comparison = Field(
        description="Time of the board that computes longest for an image, median."
    )
    communication_ms: Comparison = Field(description="All the rest: the total less the compute.")
    p95_ms: Comparison = Field(description="95th percentile of the latency of an image.")
    boards: tuple[BoardComparison, ...] = Field(description="The boards, in the sending order.")
    accuracy: AccuracyComparison = Field(description="Accuracy.")
    advice: tuple[str, ...] = Field(
        description="What to calibrate anew, for figures that are off by more than 15 %, or that "
        "there is nothing.  Never empty."
    )


def compare_with_plan(
    plan: PlanDocument,
    bundle: Manifest,
    answers: Sequence[Answer],
    accuracy_pct: float | None,
    protocols: dict[str, str],
) -> Validation:
    """Compare a plan with what its boards answered; raises BoardError if none was complete."""
    whole = [answer for answer in answers if not answer.missing]
    if not whole:
        why = "; ".join(dict.fromkeys(w for each in answers for w in each.missing.values()))
        raise BoardError(f"no image was answered by all students: {why}")
    result = simulate(plan_workload(plan), len(whole))
    rows = {row.board: row for row in result.boards}
    predicted, measured = AnswerTimes.simulated(result), AnswerTimes(whole)
    boards = tuple(
        _board(
            rows[board],
            predicted,
            measured,
            protocols.get(board, ""),
            replies=board in plan.send_order,
        )
        for board in working_boards(plan)
    )
    total = _medians(predicted.total_ms, measured.total_ms)
    compute = _medians(predicted.compute_ms, measured.compute_ms)
    communication = Comparison.of(
        _rest(total.predicted, compute.predicted), _rest(total.measured, compute.measured)
    )
    p95 = Comparison.of(_p95(predicted.total_ms), _p95(measured.total_ms))
    return Validation(
        images=len(whole),
        incomplete=len(answers) - len(whole),
        total_ms=total,
        compute_ms=compute,
        communication_ms=communication,
        p95_ms=p95,
        boards=boards,
        accuracy=_accuracy(plan, bundle, accuracy_pct),
        advice=_advice(total, communication, p95, boards),
    )


def _medians(predicted: Sequence[float], measured: Sequence[float]) -> Comparison:
    return Comparison.of(median(predicted), median(measured))


def _rest(total_ms: float | None, compute_ms: float | None) -> float | None:
    """Total less compute: a median of differences would not add up with the other two."""
    return None if total_ms is None or compute_ms is None else total_ms - compute_ms


def _p95(values: Sequence[float]) -> float:
    return float(np.percentile(values, 95))


def _board(
    row: BoardRow, predicted: AnswerTimes, measured: AnswerTimes, wire: str, *, replies: bool
) -> BoardComparison:
    def compared(figure: Callable[[BoardTiming], float | None]) -> Comparison:
        return _medians(predicted.of(row.board, figure), measured.of(row.board, figure))

    computed = compared(lambda timing: timing.computed_ms)
    replied = compared(lambda timing: timing.replied_ms)
    return BoardComparison(
        board=row.board,
        device=row.device,
        wire=wire,
        computed_ms=computed,
        replied_ms=replied if replies else Comparison.of(None, replied.measured),
        energy_mj=_energy_compared(row, computed.measured),
    )


def _energy_compared(row: BoardRow, computed_ms: float | None) -> Comparison:
    """Energy of a board, and over its measured compute time at the predicted power.

    Both are unknown where the power is.
    """
    if math.isnan(row.energy_mj):
        return Comparison.of(None, None)
    if computed_ms is None or row.busy_ms == 0:
        return Comparison.of(row.energy_mj, None)
    return Comparison.of(row.energy_mj, row.energy_mj / row.busy_ms * computed_ms)


def _accuracy(
    plan: PlanDocument, bundle: Manifest, measured_pct: float | None
) -> AccuracyComparison:
    estimate = plan.accuracy
    stored = {student.precision for student in plan.students}
    exported = [row.accuracy_pct for row in bundle.agreement if {row.precision} == stored]
    return AccuracyComparison(
        predicted_pct=estimate.value_pct if estimate else None,
        low_pct=estimate.low_pct if estimate else None,
        high_pct=estimate.high_pct if estimate else None,
        exported_pct=exported[0] if exported else None,
        measured_pct=measured_pct,
    )


def _advice(
    total: Comparison,
    communication: Comparison,
    p95: Comparison,
    boards: Sequence[BoardComparison],
) -> tuple[str, ...]:
    """Advice on the figures to calibrate anew, boards first, the worst at the top."""
    known = [board for board in boards if board.computed_ms.measured is not None]
    off = [board for board in known if not board.computed_ms.accepted]
    lines = [
        f"{board.device}: {board.board} computed {_ms(board.computed_ms.measured)}, predicted "
        f"{_ms(board.computed_ms.predicted)}; run `nonn-plan profile` on it, with the threads and "
        "the precision of its worker, and plan again with that profile"
        for board in sorted(off, key=lambda each: -abs(each.computed_ms.error_pct or 0))
    ]
    if communication.predicted is not None and communication.measured is not None:
        missed = abs(communication.predicted - communication.measured)
        if missed > ACCEPTED_PCT / 100 * (total.measured or 0):
            lines.append(
                f"communication took {_ms(communication.measured)}, predicted "
                f"{_ms(communication.predicted)}: {_CHECK_LINKS}"
            )
    if not lines and not total.accepted:
        why = "" if known else ", and no board says how long it computed"
        lines.append(
            f"an image took {_ms(total.measured)}, predicted {_ms(total.predicted)}{why}: run "
            f"`nonn-plan profile` on the boards, and {_CHECK_LINKS}"
        )
    if not lines and not p95.accepted:
        lines.append(
            f"the 95th percentile was {_ms(p95.measured)}, predicted {_ms(p95.predicted)}: check "
            "loss and jitter of the links in the fleet, and what else boards and host do"
        )
    return tuple(lines) or (_NOTHING_IS_OFF,)


def _ms(value: float | None) -> str:
    return "an unknown time" if value is None else f"{value:.2f} ms"


def write_comparison_trace(plan: PlanDocument, answer: Answer, path: Path) -> None:
    """Write the trace of a real answer beside the simulated one."""
    events = json.loads(trace_json(simulate(plan_workload(plan))))["traceEvents"]
    events += _measured_events(answer)
    lines = ",\n".join(json.dumps(event, ensure_ascii=False) for event in events)
    write_atomic(path, ('{"traceEvents": [\n' + lines + "\n]}\n").encode())


def _measured_events(answer: Answer) -> Iterator[dict[str, object]]:
    """Yield the events of a real inference."""
    yield _process_name(_FIRST_PID, "measured: host")
    begun_ms = 0.0
    for timing in sorted(answer.timings, key=lambda each: each.sent_ms):
        yield _slice(_FIRST_PID, 1, f"send to {timing.board}", begun_ms, timing.sent_ms)
        begun_ms = timing.sent_ms
    last_ms = max(timing.replied_ms for timing in answer.timings)
    yield _slice(_FIRST_PID, 1, "join", last_ms, answer.total_ms)
    for number, timing in enumerate(answer.timings, start=1):
        yield from _board_events(_FIRST_PID + number, timing)


def _board_events(pid: int, timing: BoardTiming) -> Iterator[dict[str, object]]:
    yield _process_name(pid, f"measured: {timing.board}")
    if timing.waited_ms is not None and timing.computed_ms is not None:
        busy_ms = timing.waited_ms + timing.computed_ms
        wire_ms = timing.replied_ms - timing.sent_ms - busy_ms
        came_ms = timing.sent_ms + wire_ms / 2
        began_ms = came_ms + timing.waited_ms
        yield _slice(pid, 1, "wait", came_ms, began_ms)
        yield _slice(pid, 1, "compute", began_ms, began_ms + timing.computed_ms)
    yield _slice(pid, 2, "until its features were there", timing.sent_ms, timing.replied_ms)


def _process_name(pid: int, name: str) -> dict[str, object]:
    return {"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}}


def _slice(pid: int, tid: int, name: str, start_ms: float, end_ms: float) -> dict[str, object]:
    return {
        "ph": "X",
        "name": name,
        "pid": pid,
        "tid": tid,
        "ts": round(start_ms * 1e3, 3),
        "dur": round((end_ms - start_ms) * 1e3, 3),
    }
