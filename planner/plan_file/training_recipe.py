"""The training recipe of a plan."""

from typing import Literal

from nonn_common.errors import InputError
from nonn_core.partition import reshuffle_filters
from nonn_core.recipe import (
    DistillationRecipe,
    NonnRecipe,
    OptimiserRecipe,
    StudentRecipe,
    TrainingRecipe,
)
from planner.plan_file.plan_document import PlanDocument, require_students
from planner.problem.trained_students import TrainedStudent, TrainedStudents


def training_recipe(
    plan: PlanDocument,
    *,
    optimiser: OptimiserRecipe,
    distillation: DistillationRecipe | None = None,
    data: str | None = None,
    teacher: str | None = None,
    students: int | None = None,
    seed: int = 0,
) -> TrainingRecipe:
    """Return the training recipe of a plan.

    `data` and `teacher` default to what the plan's question names.  With more `students` than the
    plan has, further ones take its networks in turn, and its filters reshuffled
    (arXiv:1907.11804, section 5.1).
    Raises InputError where nothing names data or teacher, where the plan has no students, or more
    than are asked for.
    """
    require_students(plan)
    problem = plan.question
    measured = problem.partition.teacher
    named = _all_named(data=data or problem.data, teacher=teacher or problem.teacher)
    return TrainingRecipe(
        data=named["data"],
        image=problem.image,
        teacher=named["teacher"],
        teacher_fingerprint=None if teacher or measured is None else measured.fingerprint,
        fconv=None if teacher or measured is None else measured.fconv,
        signed_maps=(measured and measured.signed_maps) or "relu",
        model=NonnRecipe(
            students=_students(plan) + _further_students(plan, students, seed),
            group0=_group0(plan),
        ),
        optimiser=optimiser,
        distillation=distillation or DistillationRecipe(),
        seed=seed,
    )


def trained_students(plan: PlanDocument) -> TrainedStudents:
    """Students that a plan's training has, those without a board included."""
    if plan.question.trained is not None:
        return plan.question.trained
    return TrainedStudents(
        students=tuple(TrainedStudent.of(dict(one)) for one in plan.students),
        params=plan.decision.params,
        macs=plan.decision.macs,
    )


def require_matching_recipe(plan: PlanDocument, found: TrainingRecipe, where: str) -> None:
    """Refuse a recipe that does not train this plan's students; raises InputError."""
    require_students(plan)
    trained = found.model.students if isinstance(found.model, NonnRecipe) else ()
    if isinstance(found.model, NonnRecipe) and found.model.group0 != _group0(plan):
        raise InputError(
            "was not trained for this plan: its G0 is elsewhere",
            where=where,
            found=found.model.group0,
            allowed=_group0(plan),
        )
    if _students(plan) != trained:
        raise InputError(
            "was not trained for this plan: its students differ in name, network or filters",
            where=where,
            found=", ".join(student.name for student in trained) or "one undivided network",
            allowed=", ".join(student.name for student in _students(plan)),
        )


def _group0(plan: PlanDocument) -> Literal["replicated", "own-board"]:
    return "replicated" if plan.group0 is None else "own-board"


def _students(plan: PlanDocument) -> tuple[StudentRecipe, ...]:
    return tuple(
        StudentRecipe(name=one.name, network=one.network, filters=one.filters)
        for one in trained_students(plan).students
    )


def _further_students(
    plan: PlanDocument, students: int | None, seed: int
) -> tuple[StudentRecipe, ...]:
    if students is None:
        return ()
    if students < len(plan.students):
        raise InputError(
            "fewer students than the plan has",
            found=students,
            allowed=f"{len(plan.students)} or more",
        )
    first = [one for one in plan.students if one.round == 1]
    filters = reshuffle_filters(tuple(one.filters for one in first), students, seed)
    further = []
    for position in range(len(plan.students), students):
        group, number = divmod(position, len(first))
        name, network = f"{first[number].name}-{group + 1}", first[number].network
        further.append(StudentRecipe(name=name, network=network, filters=filters[position]))
    return tuple(further)


def _all_named(**values: str | None) -> dict[str, str]:
    """Values that are named; raises InputError with all that are not."""
    missing = [what for what, value in values.items() if value is None]
    if missing:
        raise InputError(
            f"the plan does not say which {' and '.join(missing)} to train with",
            fix=f"give {' and '.join(f'--{what}' for what in missing)}",
        )
    return {what: value for what, value in values.items() if value is not None}
