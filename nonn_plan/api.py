"""The Python interface: read and check what commands exchange."""

from pathlib import Path

from nonn_common.errors import InfeasibleError, InputError
from nonn_core.recipe import TrainingRecipe
from planner.plan_file.plan_document import PlanDocument
from planner.plan_file.validation import require_valid


def read_plan(path: Path) -> PlanDocument:
    """Read a plan and check it against its own question; raises InputError if it is broken."""
    answer = PlanDocument.read(path)
    require_valid(answer, where=str(path))
    return answer


def write_recipe(found: TrainingRecipe, path: Path) -> None:
    """Write a recipe, unless another one is there, which a person may have edited."""
    if path.exists() and TrainingRecipe.read(path) != found:
        raise InputError(
            "there is another recipe already, and it may have been edited",
            where=str(path),
            fix="choose another output or remove the file",
        )
    found.write(path)


def require_feasible(answer: PlanDocument) -> None:
    """Raise InfeasibleError, with the conflict, where the solver proved that there is no plan."""
    if answer.status == "infeasible":
        raise InfeasibleError(
            "proven infeasible; these cannot hold together:\n  - " + "\n  - ".join(answer.conflict)
        )
