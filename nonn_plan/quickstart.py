"""`quickstart`: the main job, small and whole, on handwritten digits that ship with scikit-learn.

Each step calls what the single command calls and writes the file that the single command writes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nonn_core.candidates import single_network, student_candidates
from nonn_core.costs import teacher_cost
from nonn_core.family import parse_network
from nonn_core.partition import Partition
from nonn_core.recipe import OptimiserRecipe, SingleRecipe, TrainingRecipe
from nonn_plan.learning import EVALUATION
from nonn_plan.learning_view import show_evaluation, show_fits
from nonn_plan.options import AsJson, Seed
from nonn_plan.output import Output
from nonn_plan.partitioning_view import show_partition
from nonn_plan.plan_view import show_plan
from nonn_plan.planning import require_feasible, write_recipe
from nonn_plan.simulating import planned, teachers_alone
from nonn_plan.simulating_view import show_simulation
from nonn_plan.summary import Row, Summary, nonn_params, nonn_row, show_summary, undivided_row
from nonn_plan.typed_question import typed_budgets
from planner.plan import PlanDocument
from planner.question import Question
from planner.training import recipe
from profiles.fleet import parse_fleet

if TYPE_CHECKING:
    from boards.fit import BoardFit
    from nonn_core.data.dataset import Dataset
    from nonn_core.progress import Progress
    from nonn_core.teacher import Teacher

DATA = "digits"
TEACHER = "wrn16-2"
TEACHER_TRAINING = OptimiserRecipe(epochs=20, batch_size=64)
STUDENT_TRAINING = OptimiserRecipe(epochs=15, batch_size=64)
FLEET = "mixed"
MEMORY = ("250KB", "odroid-xu4s-1=400KB")
FLOPS = ("5M", "odroid-xu4s-1=8M")
GAMMA, LINK_PERCENTILE = 0.8, 95.0
EPSILON_PCT = 0.0
"""Nothing is dropped: 135 validation images cannot tell which of 128 filters are needed."""
SEEDS = 3
TO_RESUME = "run the same command again to go on"


@dataclass(frozen=True, slots=True)
class Place:
    """Where each file of a quickstart lies."""

    folder: Path

    @property
    def teacher(self) -> Path:
        """The teacher's weights."""
        return self.folder / "teacher.safetensors"

    @property
    def partition(self) -> Path:
        """The partition of its filters."""
        return self.folder / "partition.json"

    @property
    def plan(self) -> Path:
        """The plan."""
        return self.folder / "plan.json"

    @property
    def summary(self) -> Path:
        """The final table."""
        return self.folder / "summary.json"

    def recipe(self, kind: str) -> Path:
        """Return the recipe of the NoNN, or of the single student."""
        return self.folder / f"train-{kind}.yaml"

    def run(self, kind: str, seed: int) -> Path:
        """Return the run of one seed."""
        return self.folder / "runs" / f"{kind}-{seed}"


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command()(quickstart)


def quickstart(
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder for all files.")] = Path(
        "quickstart"
    ),
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Everything, small, on real handwritten digits: teacher, partition, plan, training, proof."""
    from nonn_core.data.dataset import load_dataset

    output, place = Output(as_json), Place(out)
    with output.progress(f"{out} keeps what was finished; {TO_RESUME}") as progress:
        data = load_dataset(DATA, progress)
        output.say(f"1. Teacher {TEACHER} on {len(data.train)} handwritten digits")
        teacher = _teacher(data, place, seed, progress)
        output.say("2. Its filter network, communities, and what may be dropped")
        partition = _partition(output, teacher, data, place, seed, progress)
        output.say(f"3. A plan for the fleet `{FLEET}`, under budgets that the teacher breaks")
        plan = _plan(output, partition, place, seed, progress)
        output.say(
            "4. Training recipes: the NoNN, and one distilled student of the same total size"
        )
        recipes = _recipes(plan, data.classes, place, seed)
        rows = [_teacher_row(teacher, data, plan)]
        for kind, recipe in recipes.items():
            output.say(f"5. Training and evaluating with {SEEDS} seeds: {place.recipe(kind)}")
            rows.append(_trained_row(output, kind, recipe, plan, data, place, progress))
    summary = Summary(models=tuple(rows), files=_files(place))
    summary.write(place.summary)
    show_summary(output, summary, plan)
    output.result(summary.model_dump(mode="json"))


def _teacher(data: "Dataset", place: Place, seed: int, progress: "Progress") -> "Teacher":
    from nonn_core.learning.teacher_training import train_teacher

    spec = parse_network(TEACHER)
    return train_teacher(spec, data, TEACHER_TRAINING, seed, place.teacher, progress)


def _partition(
    output: Output,
    teacher: "Teacher",
    data: "Dataset",
    place: Place,
    seed: int,
    progress: "Progress",
) -> Partition:
    from nonn_core.knowledge.filter_network import LinkOptions
    from nonn_core.knowledge.partitioning import partition_teacher

    options = LinkOptions(link_percentile=LINK_PERCENTILE)
    partition = partition_teacher(teacher, data, "AH", GAMMA, seed, options, progress, EPSILON_PCT)
    partition.write(place.partition)
    show_partition(output, partition)
    return partition


def _plan(
    output: Output, partition: Partition, place: Place, seed: int, progress: "Progress"
) -> PlanDocument:
    from planner.model import solve
    from simulator.engine import simulate

    reference = partition.teacher
    assert reference is not None  # noqa: S101  (it was made from a teacher just now)
    fleet = parse_fleet(FLEET)
    question = Question.check(
        {
            "fleet": fleet,
            "budgets": typed_budgets(fleet, MEMORY, FLOPS),
            "image": reference.image,
            "classes": reference.classes,
            "networks": tuple(map(str, student_candidates(parse_network(TEACHER)))),
            "epsilon_pct": EPSILON_PCT,
            "partition": partition.without_curve,
            "teacher": reference.path,
            "data": reference.data,
            "seed": seed,
        },
        where="quickstart",
    )
    plan = solve(question, progress)
    plan.write(place.plan)
    show_plan(output, plan)
    require_feasible(plan)
    alone = {name: simulate(teacher) for name, teacher in teachers_alone(plan).items()}
    asked = planned(plan)
    show_simulation(output, simulate(asked.workload), alone, asked)
    return plan


def _recipes(
    plan: PlanDocument, classes: int, place: Place, seed: int
) -> dict[str, TrainingRecipe]:
    """Write the recipes of the NoNN and of the undivided student of the same total size."""
    nonn = recipe(plan, optimiser=STUDENT_TRAINING, seed=seed)
    like = parse_network(plan.students[0].network)
    image = plan.question.image_shape
    network = single_network(nonn_params(plan), like, image, classes)
    single = nonn.model_copy(update={"model": SingleRecipe(network=str(network))})
    recipes = {"nonn": nonn, "kd": single}
    for kind, each in recipes.items():
        write_recipe(each, place.recipe(kind))
    return recipes


def _teacher_row(teacher: "Teacher", data: "Dataset", plan: PlanDocument) -> Row:
    from nonn_core.evaluation import evaluate_teacher

    cost = teacher_cost(parse_network(TEACHER), data.image, data.classes)
    evaluation = evaluate_teacher(teacher, data)
    return undivided_row(f"teacher {TEACHER}", cost, (evaluation.accuracy_pct,), plan)


def _trained_row(
    output: Output,
    kind: str,
    base: TrainingRecipe,
    plan: PlanDocument,
    data: "Dataset",
    place: Place,
    progress: "Progress",
) -> Row:
    """Train and evaluate each seed, and measure what was built against the boards' budgets."""
    from boards.fit import board_fits
    from nonn_core.evaluation import evaluate
    from nonn_core.learning.run import load_run, train
    from nonn_core.nonn import Nonn

    evaluations = []
    fits: Sequence[BoardFit] = ()
    for seed in ((base.seed + k) % 2**31 for k in range(SEEDS)):
        folder = place.run(kind, seed)
        train(base.model_copy(update={"seed": seed}), folder, data, progress)
        done, network = load_run(folder, data)
        evaluations.append(evaluate(network, done, data, progress))
        evaluations[-1].write(folder / EVALUATION)
        if isinstance(network, Nonn):
            fits = board_fits(plan, network)
    accuracies = tuple(each.accuracy_pct for each in evaluations)
    if isinstance(base.model, SingleRecipe):
        cost = teacher_cost(base.model.spec, data.image, data.classes)
        return undivided_row(f"KD {base.model.network}", cost, accuracies, plan)
    show_evaluation(output, evaluations[0])
    show_fits(output, fits)
    return nonn_row(plan, fits, accuracies)


def _files(place: Place) -> dict[str, str]:
    return {
        "teacher": str(place.teacher),
        "partition": str(place.partition),
        "plan": str(place.plan),
        "training recipe, NoNN": str(place.recipe("nonn")),
        "training recipe, KD student": str(place.recipe("kd")),
        "runs, with weights, metrics and evaluation": str(place.folder / "runs"),
        "this table": str(place.summary),
    }
