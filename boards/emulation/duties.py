"""What each board of a plan has to do where it is emulated."""

from collections.abc import Mapping
from dataclasses import dataclass

from nonn_core.bundle import Manifest, ModelPrecision
from planner.plan import PlanDocument, PlannedStudent
from planner.workload import require_students
from profiles.device import figure_of
from profiles.errors import InputError
from profiles.fleet import Board, resolve
from simulator.workload import busy_ms


@dataclass(frozen=True, slots=True)
class Duty:
    """A board, its students, and how long it takes for them and for a message.

    An answer is ready `holds_ms` after its computation began.  An image, a message of
    `image_bytes`, costs the host's sender `message_ms` on top of its time on the wire.
    """

    board: Board
    holds_ms: Mapping[str, float]
    precision: ModelPrecision | None
    image_bytes: int
    message_ms: float

    @property
    def students(self) -> tuple[str, ...]:
        """Names of its students."""
        return tuple(self.holds_ms)


def duties(plan: PlanDocument, bundle: Manifest) -> tuple[Duty, ...]:
    """Return what each board with a student has to do, in the fleet's order.

    Students of one board run at once, so that each is done when all are: the simulator's busy_ms.
    Raises InputError for a plan without students or with G0 on a board of its own, and for a bundle
    that lacks a student.
    """
    require_students(plan)
    if plan.group0 is not None:
        raise InputError(
            "no worker sends maps of G0 to other boards",
            where="plan",
            found=f"G0 on {plan.group0.board}",
            fix="plan with --group0 replicated",
        )
    _require_students_of(plan, bundle)
    _, boards = resolve(plan.question.fleet)
    return tuple(_duty(plan, bundle, board) for board in boards if board.name in plan.decision.used)


def _duty(plan: PlanDocument, bundle: Manifest, board: Board) -> Duty:
    students = [student for student in plan.students if board.name in student.boards]
    together_ms = busy_ms(board.device, [student.macs for student in students])
    return Duty(
        board=board,
        holds_ms={student.name: together_ms for student in students},
        precision=_precision(students, bundle),
        image_bytes=plan.question.image_shape.size_bytes,
        message_ms=figure_of(board.device, "message_ms"),
    )


def _precision(students: list[PlannedStudent], bundle: Manifest) -> ModelPrecision | None:
    """Return the precision that a board's students have by plan and in the bundle, if it is one."""
    names = {student.name for student in students}
    common = {student.precision for student in students}
    if len(common) > 1:
        return None
    for model in bundle.models:
        if model.name in names:
            common &= {one.precision for one in model.files}
    return next((each for each in ("fp32", "int8") if each in common), None)


def _require_students_of(plan: PlanDocument, bundle: Manifest) -> None:
    found = {model.name for model in bundle.models}
    if missing := [student.name for student in plan.students if student.name not in found]:
        raise InputError(
            f"this bundle has no {missing[0]}: it is of another plan",
            where="bundle",
            found=", ".join(sorted(found)),
            allowed=", ".join(student.name for student in plan.students),
            fix="export the run that was trained with this plan's configuration",
        )
