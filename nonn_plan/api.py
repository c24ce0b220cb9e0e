"""Functions of the Python interface: state a problem, read a plan, simulate, explore.

`nonn_plan` exports them beside the classes that they take and give; the command line calls the
same functions.  None of them loads torch, and only those that solve load the solver.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nonn_common import Progress, silent
from nonn_common.document import check_own_place, check_picture, write_atomic
from nonn_common.errors import InfeasibleError, InputError
from nonn_common.units import FLOPS_PER_MAC, check_no_fraction
from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network, student_candidates
from nonn_core.networks.network_cost import Precision, student_cost_line
from nonn_core.networks.resnet import ResNetSpec, WrnSpec
from nonn_core.partition import Partition
from planner.plan_file.plan_document import PlanDocument
from planner.plan_file.validation import require_valid
from planner.problem.budgets import BoardBudget, BudgetName, board_budgets
from planner.problem.duty import sustained
from planner.problem.goals import OBJECTIVES, AccuracyBasis, ObjectiveLevel
from planner.problem.problem import BALANCED, Problem
from profiles.fleet import Board, Fleet, parse_fleet, resolve
from simulator.workloads.layer_parts import time_line, work_mj, work_ms

if TYPE_CHECKING:
    from nonn_core.recipe import TrainingRecipe
    from planner.accuracy.rows import AccuracyRow
    from planner.certificates.verification import Verification
    from planner.exploration.exploration import Cell, Exploration, PlannedCell
    from simulator.results.simulation_result import SimulationResult
    from simulator.results.statistics import ImageProgress, Keep
    from simulator.scenario import Scenario
    from simulator.task_graph import TaskGraph
    from simulator.workloads.fan_out import Workload


def state_problem(
    partition: Partition,
    fleet: Fleet | str,
    *,
    teacher_network: str | None = None,
    teacher_accuracy_pct: float | None = None,
    run_files: Sequence[Path] = (),
    where: str = "problem",
    **fields: Any,
) -> Problem:
    """State a problem; the partition and its teacher give what is left out.

    `fleet` is a fleet, or its text as `plan --fleet` takes it.  `teacher_network`, its accuracy and
    finished runs are what predictions of accuracy rest on.  `fields` are fields of Problem; a rate
    is a requirement of throughput, too.  Networks that nothing says are proposed, by the budgets.
    Raises InputError that names `where`, also for a fraction where a percentage is meant.
    """
    _check_percentages(teacher_accuracy_pct, fields, where)
    teacher = partition.teacher
    known: dict[str, Any] = {
        "fleet": parse_fleet(fleet) if isinstance(fleet, str) else fleet,
        "reuse": True,
        "group0_copies": "per-board",
        "timing": "per-layer",
        **BALANCED,
        "epsilon_pct": partition.bound_pct,
        "partition": partition.for_planning,
    }
    if teacher is not None:
        known |= {"image": teacher.image, "classes": teacher.classes}
        known |= {"teacher": teacher.path, "data": teacher.data}
    stated = known | fields
    if "budgets" not in stated:
        stated["budgets"] = board_budgets(stated["fleet"])
    network = teacher_network or (teacher.network if teacher else None)
    if "networks" not in stated and network is not None:
        stated["networks"] = tuple(map(str, student_candidates(parse_network(network))))
    elif "networks" not in stated and teacher is not None:
        stated["networks"] = _proposed_networks(stated, teacher.params)
    stated["accuracy"] = accuracy_basis(
        partition,
        teacher_network,
        stated.get("image"),
        stated.get("classes"),
        teacher_accuracy_pct,
        run_files,
    )
    stated["requirements"] = sustained(stated.get("requirements", ()), stated.get("rate_per_s"))
    return Problem.check(stated, where=where)


def _proposed_networks(stated: Mapping[str, Any], teacher_params: int) -> tuple[str, ...]:
    """Networks for students of a teacher that is of no family known here."""
    precisions = stated.get("precisions", ("fp32",))
    return propose_students(
        ImageShape.parse(stated["image"]),
        resolve(stated["fleet"])[1],
        stated["budgets"],
        stated["partition"].filters,
        "int8" if "int8" in precisions else "fp32",
        teacher_params,
    )


LARGE_IMAGE = 96
"""From this side on images are large: the stem halves them twice."""
TEACHER_SHARE = 4
"""A student has at most one in so many of its teacher's parameters: half of the channels."""

_LIKE_SMALL, _LIKE_LARGE = WrnSpec.parse("wrn40-1"), ResNetSpec.parse("resnet34")
_SCALES = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
"""Channels of the first group; coarse, so that like budgets have the same students."""


def propose_students(
    image: ImageShape,
    boards: Sequence[Board],
    budgets: Sequence[BoardBudget],
    filters: int,
    precision: Precision,
    teacher_params: int,
) -> tuple[str, ...]:
    """Networks to choose students from, for a teacher of no family known here.

    They are wide residual networks for small images, residual ones with the stem for large images,
    in the published proportion of widths and around it, until the widest just fits a board.

    `filters` are those of the teacher: a student is taken to mimic an even share of them.  The
    roomiest board and the tightest each have networks of their size; those of the roomiest come
    with the first groups of both, so that students of either size can share theirs.
    """
    like = _LIKE_LARGE if max(image.height, image.width) >= LARGE_IMAGE else _LIKE_SMALL
    share = ceil(filters / len(boards))

    def fits(scale: int, board: Board, budget: BoardBudget) -> bool:
        """Whether a student of this scale keeps every budget of the board."""
        widest = max(_students(like, scale), key=lambda one: one.widths)
        line = student_cost_line(widest, image)
        cost, times = line.at(share), time_line(board.device, line.outline)
        work = cost.macs if times is None else times.at(share)
        uses: dict[BudgetName, float | None] = {
            "memory_bytes": cost.memory_bytes(precision),
            "flash_bytes": cost.flash_bytes(precision),
            "ram_bytes": cost.ram_bytes(precision),
            "macs": cost.macs,
            "busy_ms": work_ms(board.device, work),
        }
        if budget.energy_mj is not None:
            uses["energy_mj"] = work_mj(board.device, work)
        return cost.params * TEACHER_SHARE <= teacher_params and not budget.exceeded(uses)

    largest = [
        max((scale for scale in _SCALES if fits(scale, *each)), default=_SCALES[0])
        for each in zip(boards, budgets, strict=True)
    ]
    tight, roomy = _students(like, min(largest)), _students(like, max(largest))
    firsts = dict.fromkeys(student.widths[0] for student in tight)
    mixed = [
        replace(student, widths=(first, *student.widths[1:]))
        for first in firsts
        for student in roomy
    ]
    return tuple(dict.fromkeys(map(str, (*tight, *roomy, *mixed))))


def _students(like: WrnSpec | ResNetSpec, scale: int) -> Sequence[WrnSpec | ResNetSpec]:
    """Students of such a network whose widest has `scale` channels in the first group."""
    return like.proportional(2 * scale).narrowed()


def _check_percentages(
    teacher_accuracy_pct: float | None, fields: Mapping[str, Any], where: str
) -> None:
    """Refuse fractions among the percentages of a problem."""
    known = {"the teacher's accuracy": teacher_accuracy_pct}
    for one in fields.get("requirements", ()):
        if OBJECTIVES[one.objective].unit == "%":
            known[f"requirement {one.relation}"] = one.bound
    failures = fields.get("failures")
    known["the target accuracy"] = failures.target_pct if failures else None
    for what, value_pct in known.items():
        if value_pct is not None:
            check_no_fraction(value_pct, f"{where}: {what}")


def accuracy_basis(
    partition: Partition,
    teacher_network: str | None,
    image: str | None,
    classes: int | None,
    teacher_accuracy_pct: float | None = None,
    run_files: Sequence[Path] = (),
) -> AccuracyBasis | None:
    """Find the basis of accuracy predictions; None where the teacher is unknown."""
    from planner.accuracy.rows import TeacherFacts

    if partition.teacher is not None and partition.teacher.macs is not None:
        teacher = TeacherFacts.of_reference(partition.teacher)
    elif teacher_network is not None and image is not None and classes is not None:
        teacher = TeacherFacts.of_network(teacher_network, ImageShape.parse(image), classes)
    elif run_files or teacher_accuracy_pct is not None:
        raise InputError(
            "accuracy cannot be predicted for a teacher that is not known",
            fix="give --teacher-network, or a PARTITION of a teacher",
        )
    else:
        return None
    places = [path.resolve() for path in run_files]
    if len(set(places)) < len(places):
        raise InputError("a run is named twice", where="rows", found=", ".join(map(str, run_files)))
    known, images = teacher_accuracy_pct, None
    if known is None and partition.teacher is not None:
        known = partition.drop_steps[0].accuracy_pct
        images = None if known is None else partition.images
    rows: tuple[AccuracyRow, ...] = ()
    if run_files:
        from planner.accuracy.own_runs import read_own_rows

        rows = tuple(row for path in run_files for row in read_own_rows(path, teacher, known))
    return AccuracyBasis(
        teacher=teacher, teacher_accuracy_pct=known, teacher_images=images, own_rows=rows
    )


def read_plan(path: Path | str) -> PlanDocument:
    """Read a plan and check it against its own problem.

    Raises InputError if it is broken.
    """
    plan = PlanDocument.read(Path(path))
    require_valid(plan, where=str(path))
    return plan


def verify(plan: PlanDocument) -> "Verification":
    """Check all that a plan says: figures, limits, and each proof by its certificate.

    Prices are checked in whole numbers, without a solver; where there are none, another engine is
    asked.  Loads no OR-Tools.
    """
    from planner.certificates.verification import verify_plan
    from planner.plan_file.validation import violations
    from planner.solvers.second_opinion import second_opinion

    plain = plan.model_dump(mode="json")
    found = verify_plan(plan.question, plain, second_opinion)
    untrue = (*violations(plan), *found.untrue)
    return found.model_copy(update={"untrue": tuple(dict.fromkeys(untrue))})


def require_feasible(plan: PlanDocument, then: str = "") -> None:
    """Raise InfeasibleError, with the conflict, where the solver proved that there is no plan.

    `then` is a last line behind the reason, such as where the proof was written.
    """
    if plan.status == "infeasible":
        from planner.solvers.second_opinion import refusal_standing

        lines = ["proven infeasible; these cannot hold together:"]
        lines += [f"  - {sentence}" for sentence in plan.conflict]
        lines.append(refusal_standing(plan))
        raise InfeasibleError("\n".join([*lines, *filter(None, [then])]))


def write_recipe(recipe: "TrainingRecipe", path: Path) -> None:
    """Write a recipe, unless another one is there, which a person may have edited."""
    if path.exists() and type(recipe).read(path) != recipe:
        raise InputError(
            "there is another recipe already, and it may have been edited",
            where=str(path),
            fix="choose another output or remove the file",
        )
    recipe.write(path)


def simulate(
    workload: "PlanDocument | Workload | TaskGraph",
    images: int = 1,
    scenario: "Scenario | None" = None,
    keep: "Keep" = "all",
    progress: "ImageProgress | None" = None,
) -> "SimulationResult":
    """Run images through a plan or another workload; undisturbed where no scenario is given."""
    from planner.plan_file.evaluation import plan_workload
    from simulator.engine.simulation import simulate as run
    from simulator.scenario import UNDISTURBED

    played = plan_workload(workload) if isinstance(workload, PlanDocument) else workload
    return run(played, images, scenario or UNDISTURBED, keep, progress)


def grid_cells(
    problem: Problem,
    *,
    memory_bytes: Sequence[int | None] = (None,),
    flops: Sequence[int | None] = (None,),
    objectives: Sequence[str] = (),
) -> "tuple[PlannedCell, ...]":
    """Vary a problem: a cell for each memory budget, FLOP budget and objective.

    A budget is that of every board; None leaves the problem's own.
    """
    from planner.exploration.cell import CellRequest
    from planner.exploration.exploration import CellPlace, PlannedCell

    cells = []
    own = ",".join(map(str, problem.objective))
    for memory, flop, objective in product(memory_bytes, flops, objectives or (own,)):
        changed = {"memory_bytes": memory, "macs": None if flop is None else flop // FLOPS_PER_MAC}
        update = {name: value for name, value in changed.items() if value is not None}
        varied = Problem.check(
            dict(problem)
            | {
                "budgets": tuple(row.model_copy(update=update) for row in problem.budgets),
                "objective": tuple(map(ObjectiveLevel.parse, objective.split(","))),
            },
            where="grid",
        )
        place = CellPlace(
            fleet=problem.fleet.name, memory_bytes=memory, flops=flop, objective=objective
        )
        cells.append(PlannedCell(place, CellRequest("plan", varied)))
    return tuple(cells)


def explore(
    cells: "Sequence[PlannedCell]",
    folder: Path | str,
    *,
    jobs: int = -1,
    progress: Progress = silent,
) -> "Exploration":
    """Solve cells on the cores of this machine, and write tables, pictures and a page.

    Cells that lie solved in `folder` are not solved again.
    """
    check_exploration_folder(Path(folder))
    solved, _ = solve_cells(cells, Path(folder), jobs=jobs, progress=progress)
    return write_exploration(solved, Path(folder), "nonn_plan.explore")


def solve_cells(
    cells: "Sequence[PlannedCell]",
    folder: Path,
    *,
    jobs: int = -1,
    dask: str | None = None,
    progress: Progress = silent,
) -> "tuple[tuple[Cell, ...], int]":
    """Solve cells on cores, or on the Dask cluster of this address.

    Gives the cells, and how many of them lay solved in `folder`.
    """
    from planner.exploration.cell import solve_cells_locally, solve_cells_on_cluster
    from planner.exploration.exploration import run_exploration

    solver = (
        partial(solve_cells_locally, jobs=jobs)
        if dask is None
        else partial(solve_cells_on_cluster, address=dask)
    )
    return run_exploration(cells, folder / "cells", solver, progress)


def check_exploration_folder(folder: Path) -> None:
    """Make sure that an exploration can be written here, over nothing but another one."""
    from planner.exploration.exploration import Exploration, check_tables
    from planner.exploration.report import START

    Exploration.check_target(folder / "explore.json")
    check_tables(folder)
    check_own_place(folder / "index.html", START)


def write_exploration(
    cells: "Sequence[Cell]", folder: Path, command: str, front_step_pct: float | None = None
) -> "Exploration":
    """Write an exploration: explore.json, tables, pictures, and one page that holds all.

    Points of a front are shown that differ by so many percent of its range; tables have all.
    """
    from planner.exploration.cell import versions
    from planner.exploration.exploration import Exploration, write_tables
    from planner.exploration.report import FRONT_STEP_PCT, draw_pictures, render_page

    step_pct = FRONT_STEP_PCT if front_step_pct is None else front_step_pct
    found = Exploration(command=command, versions=versions(), cells=tuple(cells))
    drawn = draw_pictures(found)
    found = found.model_copy(update={"pictures": tuple(drawn)})
    for name, content in drawn.items():
        check_picture(folder / name)
        write_atomic(folder / name, content)
    write_tables(cells, folder)
    write_atomic(folder / "index.html", render_page(found, step_pct))
    found.write(folder / "explore.json")
    return found
