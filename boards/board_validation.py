"""Validation of a plan on its boards: predicted beside measured latency and accuracy.

Latency is compared in its parts, board by board.  The trace for Perfetto (ui.perfetto.dev) shows
one real inference beside the simulated one: the simulated processes stand as `simulate --trace`
writes them; the measured ones, whose names say so, below.  A board reports how long it computed,
not when by the host's clock: its slice is put in the middle of the time that is left for the link.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

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

ACCEPTED_PCT = 15.0
"""An error of a prediction that is beyond this asks for another profile."""
_FIRST_PID = 100_000


class MeasuredLatency:
    """The answers of a closed loop, each with every student."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self._answers = answers

    @property
    def total_ms(self) -> list[float]:
        """From taking an image up to its logits."""
        return [answer.total_ms for answer in self._answers]

    @property
    def compute_ms(self) -> list[float]:
        """Compute time of the slowest board, for images where every board reported its own."""
        return [compute_ms for _, compute_ms in self._divided]

    @property
    def communication_ms(self) -> list[float]:
        """All the rest, waiting included; of the same images."""
        return [total_ms - compute_ms for total_ms, compute_ms in self._divided]

    @property
    def _divided(self) -> list[tuple[float, float]]:
        """Total time and slowest board's compute time of each image that has both."""
        divided = []
        for answer in self._answers:
            known = [each.computed_ms for each in answer.timings if each.computed_ms is not None]
            if known and len(known) == len(answer.timings):
                divided.append((answer.total_ms, max(known)))
        return divided

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
    """One figure."""

    predicted: float | None = Field(description="By the plan's profiles; null where unknown.")
    measured: float | None = Field(description="Median on the boards; null where unknown.")
    error_pct: float | None = Field(
        description="Predicted minus measured, in percent of measured; null where either is."
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
    """One board; times in ms, moments since the host took the image up."""

    board: str = Field(description="Name of the board.")
    device: str = Field(description="Its device.")
    wire: str = Field(description="How it was spoken to: frames or standard.")
    computed_ms: Comparison = Field(description="How long its students computed.")
    replied_ms: Comparison = Field(description="When its features were there.")
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
    total_ms: Comparison = Field(description="Latency of an image.")
    compute_ms: Comparison = Field(description="Time of the board that computes longest.")
    communication_ms: Comparison = Field(description="All the rest.")
    p95_ms: Comparison = Field(description="95th percentile of the latency of an image.")
    boards: tuple[BoardComparison, ...] = Field(description="The boards, in the sending order.")
    accuracy: AccuracyComparison = Field(description="Accuracy.")
    advice: tuple[str, ...] = Field(
        description="What to calibrate anew, where the total is off by more than 15 %."
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
    measured = MeasuredLatency(whole)
    predicted = simulate(plan_workload(plan), len(whole))
    rows = {row.board: row for row in predicted.boards}
    boards = tuple(
        _board(rows[board], measured, protocols.get(board, "")) for board in plan.send_order
    )
    total = Comparison.of(_latency_percentile_ms(predicted, 50), median(measured.total_ms))
    communication = Comparison.of(predicted.communication_ms, median(measured.communication_ms))
    return Validation(
        images=len(whole),
        incomplete=len(answers) - len(whole),
        total_ms=total,
        compute_ms=Comparison.of(predicted.compute_ms, median(measured.compute_ms)),
        communication_ms=communication,
        p95_ms=Comparison.of(
            _latency_percentile_ms(predicted, 95), float(np.percentile(measured.total_ms, 95))
        ),
        boards=boards,
        accuracy=_accuracy(plan, bundle, accuracy_pct),
        advice=() if total.accepted else tuple(_advice(total, communication, boards)),
    )


def _latency_percentile_ms(predicted: SimulationResult, percentile: float) -> float:
    return float(np.percentile([row.latency_ms for row in predicted.inferences], percentile))


def _board(row: BoardRow, measured: MeasuredLatency, wire: str) -> BoardComparison:
    computed = measured.of(row.board, lambda timing: timing.computed_ms)
    replied = measured.of(row.board, lambda timing: timing.replied_ms)
    return BoardComparison(
        board=row.board,
        device=row.device,
        wire=wire,
        computed_ms=Comparison.of(row.busy_ms, median(computed)),
        replied_ms=Comparison.of(row.done_ms, median(replied)),
        energy_mj=Comparison.of(row.energy_mj, _energy_mj(row, median(computed))),
    )


def _energy_mj(row: BoardRow, computed_ms: float | None) -> float | None:
    """Energy of a board over its measured compute time, at the predicted power."""
    if computed_ms is None or row.busy_ms == 0:
        return None
    return row.energy_mj / row.busy_ms * computed_ms


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
    total: Comparison, communication: Comparison, boards: Sequence[BoardComparison]
) -> Iterator[str]:
    """Advice on the figures to calibrate anew, worst first."""
    known = [board for board in boards if board.computed_ms.measured is not None]
    off = [board for board in known if not board.computed_ms.accepted]
    for board in sorted(off, key=lambda each: -abs(each.computed_ms.error_pct or 0)):
        figure = board.computed_ms
        yield (
            f"{board.device}: {board.board} computed {_ms(figure.measured)}, predicted "
            f"{_ms(figure.predicted)}; run `nonn-plan profile` on it, with the threads and the "
            "precision of its worker, and plan again with that profile"
        )
    if communication.measured is None:
        return
    missed = abs((communication.predicted or 0) - communication.measured)
    if missed > ACCEPTED_PCT / 100 * (total.measured or 0):
        yield (
            f"communication took {_ms(communication.measured)}, predicted "
            f"{_ms(communication.predicted)}: check rate and latency of the links in the fleet, "
            "and message_ms of the devices, which `nonn-plan profile` measures"
        )


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
