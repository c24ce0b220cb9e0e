"""The file that `nonn-plan evaluate` leaves: what a trained network knows.  Torch-free."""

from pydantic import Field

from profiles.document import Document, Record


class SubsetAccuracy(Record):
    """Accuracy when only these students answer."""

    students: tuple[str, ...] = Field(description="Names of the students that answer.")
    accuracy_pct: float = Field(description="Test accuracy in percent.")


class Evaluation(Document):
    """Test accuracy of one trained network."""

    data: str = Field(description="Data set; its test images were used.")
    images: int = Field(gt=0, description="Number of test images.")
    weights: str | None = Field(
        default=None, description="Digest of the weights that were evaluated; null if unknown."
    )
    accuracy_pct: float = Field(description="Test accuracy with every student, in percent.")
    subsets: tuple[SubsetAccuracy, ...] = Field(
        description="Accuracy for every non-empty subset of students (A, Fig. 8); empty for an "
        "undivided network."
    )
