"""`quickstart`: the whole method, small, on handwritten digits that ship with scikit-learn.

Each step calls what the single command calls and writes the file that the single command writes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import nonn_plan
from nonn_common.units import format_count, format_flops
from nonn_core.networks.family import parse_network, single_network, student_candidates
from nonn_core.networks.network_cost import teacher_cost
from nonn_core.partition import Partition
from nonn_core.recipe import OptimiserRecipe, SingleRecipe, TrainingRecipe
from nonn_plan.api import require_feasible, simulate, write_recipe
from nonn_plan.cli.commands.train import EVALUATION
from nonn_plan.cli.output import Output
from nonn_plan.cli.parsers.options import AsJson, Seed
from nonn_plan.cli.parsers.requirements import parse_budgets
from nonn_plan.cli.parsers.workload import plan_request, teachers_alone
from nonn_plan.cli.views.plan_report import show_partition, show_plan
from nonn_plan.cli.views.simulation_report import show_simulation
from nonn_plan.cli.views.training_report import show_evaluation, show_fits
from nonn_plan.summary import (
    Summary,
    SummaryRow,
    nonn_params,
    nonn_row,
    undivided_row,
    weakest_device,
)
from planner.plan_file.plan_document import PlanDocument
from planner.plan_file.training_recipe import training_recipe
from planner.problem.problem import Problem
from profiles.fleet import parse_fleet

if TYPE_CHECKING:
    from boards.board_fit import BoardFit
    from nonn_common.progress import Progress
    from nonn_core.data.dataset import Dataset
    from nonn_core.teacher.teacher import Teacher


DATA = "digits"
TEACHER = "wrn16-2"
TEACHER_TRAINING = OptimiserRecipe(epochs=20, batch_size=64)
STUDENT_TRAINING = OptimiserRecipe(epochs=15, batch_size=64)
FLEET = "mixed"
MEMORY = ("250KB", "odroid-xu4s-1=400KB")
FLOPS = ("5M", "odroid-xu4s-1=8M")
GAMMA, LINK_PERCENTILE = 0.8, 95.0
SEEDS = 3
TO_RESUME = "run the same command again to go on"


@dataclass(frozen=True, slots=True)
class QuickstartFiles:
    """Paths of a quickstart's files."""

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
        """Recipe of the NoNN, or of the single student."""
        return self.folder / f"train-{kind}.yaml"

    def run(self, kind: str, seed: int) -> Path:
        """Run of one seed."""
        return self.folder / "runs" / f"{kind}-{seed}"


def quickstart(
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder for all files.")] = Path(
        "quickstart"
    ),
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Everything, small, on real handwritten digits: teacher, partition, plan, training, proof."""
    from nonn_core.data.dataset import load_dataset

    output, files = Output(as_json), QuickstartFiles(out)
    with output.progress(f"{out} keeps what was finished; {TO_RESUME}") as progress:
        data = load_dataset(DATA, progress)
        output.say(f"1. Teacher {TEACHER} on {len(data.train)} handwritten digits")
        teacher = _teacher(data, files, seed, progress)
        output.say("2. Its filter network, communities, and what may be dropped")
        partition = _partition(output, teacher, data, files, seed, progress)
        output.say(f"3. A plan for the fleet `{FLEET}`, under budgets that the teacher breaks")
        plan = _plan(output, partition, files, seed, progress)
        output.say(
            "4. Training recipes: the NoNN, and one distilled student of the same total size"
        )
        recipes = _recipes(plan, data.classes, files, seed)
        rows = [_teacher_row(teacher, data, plan)]
        for kind, recipe in recipes.items():
            output.say(f"5. Training and evaluating with {SEEDS} seeds: {files.recipe(kind)}")
            rows.append(_trained_row(output, kind, recipe, plan, data, files, progress))
    summary = Summary(models=tuple(rows), files=_files(files))
    summary.write(files.summary)
    show_summary(output, summary, plan)
    output.result(summary.model_dump(mode="json"))


def _teacher(data: "Dataset", files: QuickstartFiles, seed: int, progress: "Progress") -> "Teacher":
    from nonn_core.distillation.run import train_teacher

    spec = parse_network(TEACHER)
    return train_teacher(spec, data, TEACHER_TRAINING, seed, files.teacher, progress)


def _partition(
    output: Output,
    teacher: "Teacher",
    data: "Dataset",
    files: QuickstartFiles,
    seed: int,
    progress: "Progress",
) -> Partition:
    from nonn_core.communities.filter_network import LinkOptions
    from nonn_core.communities.knowledge import partition_teacher

    options = LinkOptions(link_percentile=LINK_PERCENTILE)
    partition = partition_teacher(teacher, data, "AH", GAMMA, seed, options, progress)
    partition.write(files.partition)
    show_partition(output, partition)
    return partition


def _plan(
    output: Output, partition: Partition, files: QuickstartFiles, seed: int, progress: "Progress"
) -> PlanDocument:
    reference = partition.teacher
    assert reference is not None  # noqa: S101  (it was made from a teacher just now)
    fleet = parse_fleet(FLEET)
    problem = Problem.check(
        {
            "fleet": fleet,
            "budgets": parse_budgets(fleet, MEMORY, FLOPS),
            "image": reference.image,
            "classes": reference.classes,
            "networks": tuple(map(str, student_candidates(parse_network(TEACHER)))),
            "epsilon_pct": partition.bound_pct,
            "partition": partition.for_planning,
            "teacher": reference.path,
            "data": reference.data,
            "seed": seed,
        },
        where="quickstart",
    )
    plan = nonn_plan.solve(problem, progress)
    plan.write(files.plan)
    show_plan(output, plan)
    require_feasible(plan)
    alone = {name: simulate(teacher) for name, teacher in teachers_alone(plan).items()}
    show_simulation(output, simulate(plan), alone, plan_request(plan))
    return plan


def _recipes(
    plan: PlanDocument, classes: int, files: QuickstartFiles, seed: int
) -> dict[str, TrainingRecipe]:
    """Write the recipes of the NoNN and of one student as large."""
    nonn = training_recipe(plan, optimiser=STUDENT_TRAINING, seed=seed)
    like = parse_network(plan.students[0].network)
    image = plan.question.image_shape
    network = single_network(nonn_params(plan), like, image, classes)
    single = nonn.model_copy(update={"model": SingleRecipe(network=str(network))})
    recipes = {"nonn": nonn, "kd": single}
    for kind, each in recipes.items():
        write_recipe(each, files.recipe(kind))
    return recipes


def _teacher_row(teacher: "Teacher", data: "Dataset", plan: PlanDocument) -> SummaryRow:
    from nonn_core.distillation.run_evaluation import evaluate_teacher

    cost = teacher_cost(parse_network(TEACHER), data.image, data.classes)
    evaluation = evaluate_teacher(teacher, data)
    return undivided_row(f"teacher {TEACHER}", cost, (evaluation.accuracy_pct,), plan)


def _trained_row(
    output: Output,
    kind: str,
    base: TrainingRecipe,
    plan: PlanDocument,
    data: "Dataset",
    files: QuickstartFiles,
    progress: "Progress",
) -> SummaryRow:
    """Train and evaluate each seed, and measure what was built against the boards' budgets."""
    from boards.board_fit import check_board_fit
    from nonn_core.distillation.run import load_run, train
    from nonn_core.distillation.run_evaluation import evaluate
    from nonn_core.networks.modules import Nonn

    evaluations = []
    fits: Sequence[BoardFit] = ()
    for seed in ((base.seed + k) % 2**31 for k in range(SEEDS)):
        folder = files.run(kind, seed)
        train(base.model_copy(update={"seed": seed}), folder, data, progress)
        done, network = load_run(folder, data)
        evaluations.append(evaluate(network, done, data, progress))
        evaluations[-1].write(folder / EVALUATION)
        if isinstance(network, Nonn):
            fits = check_board_fit(plan, network)
    accuracies = tuple(each.accuracy_pct for each in evaluations)
    if isinstance(base.model, SingleRecipe):
        cost = teacher_cost(base.model.spec, data.image, data.classes)
        return undivided_row(f"KD {base.model.network}", cost, accuracies, plan)
    show_evaluation(output, evaluations[0])
    show_fits(output, fits)
    return nonn_row(plan, fits, accuracies)


def _files(files: QuickstartFiles) -> dict[str, str]:
    return {
        "teacher": str(files.teacher),
        "partition": str(files.partition),
        "plan": str(files.plan),
        "training recipe, NoNN": str(files.recipe("nonn")),
        "training recipe, KD student": str(files.recipe("kd")),
        "runs, with weights, metrics and evaluation": str(files.folder / "runs"),
        "this table": str(files.summary),
    }


def show_summary(output: Output, summary: Summary, plan: PlanDocument) -> None:
    """Show the table, and where every file is."""
    seeds = max(len(row.accuracies_pct) for row in summary.models)
    output.table(
        f"What came out (per board: the largest; accuracy: test images, mean and spread of {seeds} "
        f"seeds; undivided networks: alone on {weakest_device(plan).name})",
        (
            "model",
            "params",
            "params/board",
            "FLOPs/board",
            "in budget",
            "accuracy",
            "latency",
            "energy/node",
        ),
        [_summary_cells(row) for row in summary.models],
    )
    output.table("Where everything is", ("what", "file"), list(summary.files.items()))
    plan_file = summary.files["plan"]
    output.say(f"Feed any of it to the single commands, e.g. nonn-plan explain {plan_file}")


def _summary_cells(row: SummaryRow) -> tuple[str, ...]:
    spread = "" if row.spread_pct is None else f" ± {row.spread_pct:.2f}"
    return (
        row.model,
        format_count(row.total_params),
        format_count(row.largest_board_params),
        format_flops(row.largest_board_macs),
        "yes" if row.within_budgets else "no",
        f"{row.accuracy_pct:.2f}{spread} %",
        f"{row.latency_ms:.1f} ms",
        f"{row.energy_per_node_mj:.1f} mJ",
    )
