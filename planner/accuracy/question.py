"""What a question says of accuracy: the teacher, its accuracy, and the user's own rows."""

from functools import lru_cache

from pydantic import Field

from planner.accuracy.model import AccuracyModel, accuracy_model
from planner.accuracy.rows import AccuracyRow, TeacherFacts
from profiles.document import Record


class AccuracyBasis(Record):
    """What predictions of accuracy rest on, beside the published rows."""

    teacher: TeacherFacts = Field(description="The teacher.")
    teacher_accuracy_pct: float | None = Field(
        default=None,
        ge=0,
        le=100,
        description="Its test accuracy, in percent; null takes that of a published teacher alike.",
    )
    own_rows: tuple[AccuracyRow, ...] = Field(default=(), description="The user's finished runs.")

    @property
    def known(self) -> bool:
        """Say whether the teacher's accuracy is known, so that more than a drop can be told."""
        return self.model.teacher_accuracy_pct is not None

    @property
    def model(self) -> AccuracyModel:
        """The accuracy model, fitted."""
        return _fitted(self)


@lru_cache(maxsize=64)
def _fitted(basis: AccuracyBasis) -> AccuracyModel:
    return accuracy_model(basis.teacher, basis.teacher_accuracy_pct, basis.own_rows)
