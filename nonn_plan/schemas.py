"""JSON Schemas of every file that commands exchange: `python -m nonn_plan.schemas docs/schemas`."""

import json
import sys
from pathlib import Path

from boards.board_validation import Validation
from boards.protocol.address import BoardAddresses
from nonn_common.document import Document, write_atomic
from nonn_core.accuracy_report import Evaluation, RepeatedEvaluation
from nonn_core.experiments.table_results import Experiment, TableResults
from nonn_core.export.bundle import Manifest
from nonn_core.partition import Partition
from nonn_core.recipe import TrainingRecipe
from nonn_core.teacher.teacher import TeacherCard
from nonn_plan.cli.commands.quickstart import Summary
from planner.exploration.exploration import Exploration
from planner.plan_file.plan_document import PlanDocument
from profiles.device import DeviceProfile
from profiles.fleet import Fleet
from profiles.link import LinkProfile

DOCUMENTS: dict[str, type[Document]] = {
    "device": DeviceProfile,
    "link": LinkProfile,
    "fleet": Fleet,
    "teacher": TeacherCard,
    "partition": Partition,
    "plan": PlanDocument,
    "explore": Exploration,
    "train": TrainingRecipe,
    "evaluation": Evaluation,
    "evaluations": RepeatedEvaluation,
    "manifest": Manifest,
    "boards": BoardAddresses,
    "validation": Validation,
    "summary": Summary,
    "table": TableResults,
    "experiment": Experiment,
}


def schema_text(document: type[Document]) -> str:
    """Schema of one kind of file, as it stands under docs/schemas."""
    return json.dumps(document.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def write_schemas(folder: Path) -> None:
    """Write every schema as `NAME.schema.json`."""
    for name, document in DOCUMENTS.items():
        write_atomic(folder / f"{name}.schema.json", schema_text(document).encode())


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]))
