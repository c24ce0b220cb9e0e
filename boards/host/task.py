"""What each board is asked for: a plan's placement and a bundle's models, in the sending order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

from boards.host.addresses import BoardAddress, BoardAddresses
from nonn_core.bundle import BundledModel, Manifest
from planner.plan import PlanDocument
from planner.workload import require_students
from profiles.errors import InputError


@dataclass(frozen=True)
class Task:
    """A board, and the students whose features it answers, side by side in this order."""

    board: BoardAddress
    models: tuple[BundledModel, ...]

    @property
    def name(self) -> str:
        """Name of the board."""
        return self.board.name

    @cached_property
    def students(self) -> tuple[str, ...]:
        """Names of its students."""
        return tuple(model.name for model in self.models)

    @property
    def image_values(self) -> int:
        """Values of an image."""
        return prod(self.models[0].reads.shape)

    @property
    def answer_values(self) -> int:
        """Values of all its features of an image."""
        return sum(prod(model.answers.shape) for model in self.models)


def tasks(
    plan: PlanDocument, bundle: Manifest, addresses: BoardAddresses, where: str
) -> tuple[Task, ...]:
    """Return what each board of the plan is asked for, in the order in which the host sends.

    `where` names the file of addresses.  Raises InputError for a plan without students or with G0
    on a board of its own, a bundle of other students, and a board without an address.
    """
    require_students(plan)
    if plan.group0 is not None:
        raise InputError(
            "this host sends images to students alone, not maps of G0 from board to board",
            where="plan",
            found=f"G0 on {plan.group0.board}",
            fix="plan with --group0 replicated",
        )
    models = {model.name: model for model in bundle.models if model.role == "student"}
    planned = {student.name: student.filters for student in plan.students}
    found = {name: model.filters for name, model in models.items()}
    if found != planned:
        raise InputError(
            "the bundle is of other students than the plan",
            where="bundle",
            found=_told(found),
            allowed=_told(planned),
            fix="export the run of this plan",
        )
    return tuple(
        Task(addresses.of(board, where), _on(board, plan, models)) for board in plan.send_order
    )


def _on(
    board: str, plan: PlanDocument, models: Mapping[str, BundledModel]
) -> tuple[BundledModel, ...]:
    return tuple(models[student.name] for student in plan.students if board in student.boards)


def _told(filters: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{name} of {len(each)} filters" for name, each in filters.items())


def students_of(all_tasks: Sequence[Task]) -> tuple[BundledModel, ...]:
    """Return every student once, in the order of the FC layer's inputs."""
    found = {model.name: model for task in all_tasks for model in task.models}
    return tuple(sorted(found.values(), key=lambda model: model.fc_offset or 0))
