"""`quickstart`: the whole method, small, on handwritten digits that ship with scikit-learn.

Each step calls what the single command calls and writes the file that the single command writes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import Field

import nonn_plan
from nonn_common.document import Document, Record
from nonn_common.units import format_count, format_flops
from nonn_core.networks.family import parse_network, single_network, student_candidates
from nonn_core.networks.network_cost import Cost, classifier_params, group0_cost, teacher_cost
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
from planner.plan_file.evaluation import plan_workload
from planner.plan_file.plan_document import PlanDocument
from planner.plan_file.training_recipe import training_recipe
from planner.problem.problem import BALANCED, Problem
from profiles.device import DeviceProfile, compute_ms
from profiles.fleet import parse_fleet, resolve
from simulator.workloads import closed_form
from simulator.workloads.fan_out import SingleModel

if TYPE_CHECKING:
    from boards.board_fit import BoardFit
    from nonn_common import Progress
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


class SummaryRow(Record):
    """One model of the final table."""

    model: str = Field(description="What it is.")
    total_params: int = Field(description="Parameters of the whole model.")
    largest_board_params: int = Field(description="Parameters on the board that holds most.")
    largest_board_macs: int = Field(description="MACs per image on the board that computes most.")
    largest_board_memory_bytes: int = Field(description="Memory on the board that needs most.")
    within_budgets: bool = Field(description="Whether it runs on the fleet within all budgets.")
    accuracies_pct: tuple[float, ...] = Field(description="Test accuracy of each seed, percent.")
    accuracy_pct: float = Field(description="Their mean.")
    spread_pct: float | None = Field(description="Their standard deviation; null for one seed.")
    latency_ms: float = Field(description="Simulated latency of one image.")
    energy_per_node_mj: float = Field(description="Simulated computing energy per board.")


class Summary(Document):
    """Results of a quickstart, and its files."""

    models: tuple[SummaryRow, ...] = Field(description="Teacher, NoNN, and one distilled student.")
    files: dict[str, str] = Field(description="What was written, and where.")


def nonn_params(plan: PlanDocument) -> int:
    """Count the NoNN's parameters: students with one copy of G0, and the FC layer."""
    spec = parse_network(plan.students[0].network)
    copies = 0 if plan.group0 else len(plan.students) - 1
    group0_params = group0_cost(spec, plan.question.image_shape).params
    features = sum(len(student.filters) for student in plan.students)
    students = sum(model.params for model in plan.decision.models) - copies * group0_params
    return students + classifier_params(features, plan.question.classes)


def undivided_row(
    model: str, cost: Cost, accuracies_pct: tuple[float, ...], plan: PlanDocument
) -> SummaryRow:
    """Describe an undivided network, alone on the weakest kind of board of the fleet."""
    breakdown = closed_form.single_model_breakdown(SingleModel(weakest_device(plan), cost.macs))
    memory_bytes = cost.memory_bytes(plan.question.smallest_precision)
    return SummaryRow(
        model=model,
        total_params=cost.params,
        largest_board_params=cost.params,
        largest_board_macs=cost.macs,
        largest_board_memory_bytes=memory_bytes,
        within_budgets=any(
            not budget.exceeded({"memory_bytes": memory_bytes, "macs": cost.macs})
            for budget in plan.question.budgets
        ),
        **_statistics(accuracies_pct),
        latency_ms=breakdown.total_ms,
        energy_per_node_mj=breakdown.energy_per_node_mj,
    )


def nonn_row(
    plan: PlanDocument, fits: "Sequence[BoardFit]", accuracies_pct: tuple[float, ...]
) -> SummaryRow:
    """Describe the NoNN of a plan, its built students measured on their boards."""
    breakdown = closed_form.fan_out_breakdown(plan_workload(plan))
    return SummaryRow(
        model=f"NoNN, {len(plan.students)} students",
        total_params=nonn_params(plan),
        largest_board_params=max(fit.params for fit in fits),
        largest_board_macs=max(fit.macs for fit in fits),
        largest_board_memory_bytes=max(fit.memory_bytes for fit in fits),
        within_budgets=all(fit.fits for fit in fits),
        **_statistics(accuracies_pct),
        latency_ms=breakdown.total_ms,
        energy_per_node_mj=breakdown.energy_per_node_mj,
    )


def _statistics(accuracies_pct: tuple[float, ...]) -> dict[str, Any]:
    return {
        "accuracies_pct": accuracies_pct,
        "accuracy_pct": mean(accuracies_pct),
        "spread_pct": stdev(accuracies_pct) if len(accuracies_pct) > 1 else None,
    }


def weakest_device(plan: PlanDocument) -> DeviceProfile:
    """Slowest kind of board in the fleet."""
    _, boards = resolve(plan.question.fleet)
    return max((board.device for board in boards), key=lambda device: compute_ms(device, 10**6))


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
            **BALANCED,
        },
        where="quickstart",
    )
    plan = nonn_plan.with_certificates(nonn_plan.solve(problem, progress))
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
