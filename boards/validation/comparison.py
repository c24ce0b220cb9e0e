"""Predicted beside measured: latency in its parts, board by board, and accuracy."""

from collections.abc import Iterator, Sequence

import numpy as np
from pydantic import Field

from boards.host.inference import Answer
from boards.validation.measured import Measured, median
from nonn_core.bundle import Manifest
from planner.plan import PlanDocument
from planner.workload import fan_out
from profiles.document import Document, Record
from profiles.errors import BoardError
from simulator.engine import simulate
from simulator.result import BoardRow, SimulationResult

ACCEPTED_PCT = 15.0
"""An error of a prediction that is beyond this asks for another profile."""


class Compared(Record):
    """One figure."""

    predicted: float | None = Field(description="By the plan's profiles; null where unknown.")
    measured: float | None = Field(description="Median on the boards; null where unknown.")
    error_pct: float | None = Field(
        description="Predicted minus measured, in percent of measured; null where either is."
    )

    @classmethod
    def of(cls, predicted: float | None, measured: float | None) -> "Compared":
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
    computed_ms: Compared = Field(description="How long its students computed.")
    replied_ms: Compared = Field(description="When its features were there.")
    energy_mj: Compared = Field(
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
    """What `validate` writes."""

    images: int = Field(gt=0, description="Images that every student answered.")
    incomplete: int = Field(ge=0, description="Images that were left out: a student was missing.")
    total_ms: Compared = Field(description="Latency of an image.")
    compute_ms: Compared = Field(description="Time of the board that computes longest.")
    communication_ms: Compared = Field(description="All the rest.")
    p95_ms: Compared = Field(description="95th percentile of the latency of an image.")
    boards: tuple[BoardComparison, ...] = Field(description="The boards, in the sending order.")
    accuracy: AccuracyComparison = Field(description="Accuracy.")
    advice: tuple[str, ...] = Field(
        description="What to calibrate anew, where the total is off by more than 15 %."
    )


def compared(
    plan: PlanDocument,
    bundle: Manifest,
    answers: Sequence[Answer],
    accuracy_pct: float | None,
    wires: dict[str, str],
) -> Validation:
    """Compare a plan with what its boards answered; raises BoardError if none was complete."""
    whole = [answer for answer in answers if not answer.missing]
    if not whole:
        why = "; ".join(dict.fromkeys(w for each in answers for w in each.missing.values()))
        raise BoardError(f"no image was answered by all students: {why}")
    measured = Measured(whole)
    predicted = simulate(fan_out(plan), len(whole))
    rows = {row.board: row for row in predicted.boards}
    boards = tuple(_board(rows[board], measured, wires.get(board, "")) for board in plan.send_order)
    total = Compared.of(_p(predicted, 50), median(measured.total_ms))
    communication = Compared.of(predicted.communication_ms, median(measured.communication_ms))
    return Validation(
        images=len(whole),
        incomplete=len(answers) - len(whole),
        total_ms=total,
        compute_ms=Compared.of(predicted.compute_ms, median(measured.compute_ms)),
        communication_ms=communication,
        p95_ms=Compared.of(_p(predicted, 95), float(np.percentile(measured.total_ms, 95))),
        boards=boards,
        accuracy=_accuracy(plan, bundle, accuracy_pct),
        advice=() if total.accepted else tuple(_advice(total, communication, boards)),
    )


def _p(predicted: SimulationResult, percentile: float) -> float:
    return float(np.percentile([row.latency_ms for row in predicted.inferences], percentile))


def _board(row: BoardRow, measured: Measured, wire: str) -> BoardComparison:
    computed = measured.of(row.board, lambda timing: timing.computed_ms)
    replied = measured.of(row.board, lambda timing: timing.replied_ms)
    return BoardComparison(
        board=row.board,
        device=row.device,
        wire=wire,
        computed_ms=Compared.of(row.busy_ms, median(computed)),
        replied_ms=Compared.of(row.done_ms, median(replied)),
        energy_mj=Compared.of(row.energy_mj, _energy_mj(row, median(computed))),
    )


def _energy_mj(row: BoardRow, computed_ms: float | None) -> float | None:
    """Return what a board spends in this time, at the power of its prediction."""
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
    total: Compared, communication: Compared, boards: Sequence[BoardComparison]
) -> Iterator[str]:
    """Say which figures of which profile are off, worst first."""
    told = [board for board in boards if board.computed_ms.measured is not None]
    off = [board for board in told if not board.computed_ms.accepted]
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
