"""Replans: trained students on the boards that are left, or that come.

What was trained stays: students, their networks, what they know, the shape and precision of G0.  A
student may go to any board whose budgets it keeps there.  Where not all fit, most of them stay, and
of as many those with most parameters; then the best placement by the plan's own objectives, and of
placements as good the one with fewest moves, each proven.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import partial

from pydantic import Field

from nonn_common import Progress, silent
from nonn_common.document import Record
from nonn_common.errors import InfeasibleError, InputError, UnprovenError
from planner.data.modes import AssignedStudent, Assignment
from planner.data.objective_function import OBJECTIVE_FUNCTIONS, ObjectiveBound, relaxed_bound
from planner.data.problem_data import ProblemData
from planner.data.relaxable_constraint import loosened_budgets, requirement_bounds
from planner.plan_file.decision_workload import evaluate_decision
from planner.plan_file.evaluation import PlanEvaluation, build_plan
from planner.plan_file.plan_document import LevelResult, PlanDocument, require_students
from planner.plan_file.training_recipe import trained_students
from planner.plan_file.validation import require_valid
from planner.problem.budgets import BoardBudget, BudgetLimits, board_budgets
from planner.problem.goals import ObjectiveLevel
from planner.problem.problem import Problem
from planner.problem.trained_students import SETTLED, placement_question
from planner.reliability.failures import Failures, with_added_board
from planner.solve import solve
from planner.solvers.certificate_search import with_certificates
from planner.solvers.placement_model import (
    ANSWERED,
    ANSWERING,
    MOVES,
    PlacementData,
    PlacementSearch,
)
from planner.solvers.search import TimeBudget
from profiles.fleet import Fleet, FleetBoard, parse_fleet


class StudentMove(Record):
    """Boards of a student, or of G0 alone, before and after."""

    model: str = Field(description="Name of the student; group0 is G0 alone.")
    before: tuple[str, ...] = Field(description="Boards that ran it; empty for none.")
    after: tuple[str, ...] = Field(description="Boards that run it; empty for none.")

    @property
    def is_move(self) -> bool:
        """Whether a board gets the model that did not have it."""
        return not set(self.after) <= set(self.before)


class Replan(Record):
    """A plan for the boards that are there now, beside the plan before."""

    plan: PlanDocument = Field(description="The plan, as `plan` writes it.")
    gone: tuple[str, ...] = Field(description="Boards of the plan before that are not there.")
    came: tuple[str, ...] = Field(description="Boards that were not there.")
    models: tuple[StudentMove, ...] = Field(description="A row for each trained student, and G0.")
    notes: tuple[str, ...] = Field(description="What was assumed, or is not asked any more.")
    proven: bool = Field(
        description="That no more students fit, that no placement is better, and none as good has "
        "fewer moves."
    )

    @property
    def homeless(self) -> tuple[str, ...]:
        """Names of students that no board runs."""
        return tuple(one.model for one in self.models if not one.after)


def replan(
    plan: PlanDocument,
    without: Collection[str] = (),
    boards: Sequence[str] = (),
    progress: Progress = silent,
) -> Replan:
    """Replan for a fleet without some boards, and with others that come.

    `boards` are as `parse_fleet` reads them.  The plan is the same where no board goes or comes.
    Raises InputError for a plan without students, an unknown board, a fleet of none, or a new board
    without a known budget; InfeasibleError where no student may run anywhere; UnprovenError where
    the plan's limit stopped
    the solver before it had a placement.
    """
    require_students(plan)
    require_valid(plan)
    if not without and not boards:
        return Replan(
            plan=plan, gone=(), came=(), models=tuple(_moves(plan, plan)), notes=(), proven=True
        )
    gone = _gone(plan.question.fleet, without)
    question, notes = _changed_question(plan, gone, boards)
    time_budget = TimeBudget(question.deterministic_limit)
    find = partial(_placement_search, plan, question, time_budget=time_budget)
    progress("which students fit", 0, 2)
    kept, most = _kept(question, find)
    progress("where they run", 1, 2)
    searches: list[PlacementSearch] = []

    def found(data: ProblemData) -> PlacementSearch:
        searches.append(find(kept, data))
        return searches[-1]

    # Which modes students have, the search knows; names and communities are those of the plan.
    asked = placement_question(question, kept).model_copy(update={"trained": None})
    placed = solve(asked, find=found, then=(MOVES,))
    if placed.status == "infeasible":
        raise UnprovenError(
            "a limit is so near to what the students need that whole numbers cannot tell whether "
            "they keep it; allow a thousandth of a percent more and plan again"
        )
    answer = with_certificates(_as_trained(plan, question, kept, placed))
    require_valid(answer)
    before = {row.name for row in plan.question.fleet.boards}
    return Replan(
        plan=answer,
        gone=gone,
        came=tuple(b.name for b in question.fleet.boards if b.name not in before),
        models=tuple(_moves(plan, answer)),
        notes=notes,
        proven=most and answer.status == "optimal" and searches[-1].proven.get(id(MOVES), False),
    )


def _gone(fleet: Fleet, without: Collection[str]) -> tuple[str, ...]:
    """Boards that are not reached any more: these, and those behind them."""
    names = [row.name for row in fleet.boards]
    if unknown := sorted(set(without) - set(names)):
        raise InputError(
            "no such board in the plan",
            where="--without",
            found=", ".join(unknown),
            allowed=", ".join(names),
        )
    gone = set(without)
    while behind := {row.name for row in fleet.boards if row.via in gone} - gone:
        gone |= behind
    return tuple(name for name in names if name in gone)


def _changed_question(
    plan: PlanDocument, gone: Collection[str], boards: Sequence[str]
) -> tuple[Problem, tuple[str, ...]]:
    """The question for the changed fleet, and sentences on it."""
    problem = plan.question
    notes = list(_behind(problem.fleet, gone))
    rows = [row for row in problem.fleet.boards if row.name not in gone]
    budgets = [row for row in problem.budgets if row.board not in gone]
    failures = _without_boards(problem.failures, gone)
    devices, links = list(problem.fleet.devices), list(problem.fleet.links)
    # The name of a board that is gone stays its own: what comes has none of its models.
    taken = {row.name for row in problem.fleet.boards}
    for text in boards:
        coming = parse_fleet(text)
        devices += [one for one in coming.devices if one not in devices]
        links += [one for one in coming.links if one not in links]
        for row in _renamed(coming, taken):
            budget, like = _budget_like(problem, row, coming)
            taken.add(row.name)
            rows.append(row)
            budgets.append(budget)
            if failures is not None and like is not None:
                failures = with_added_board(failures, like, row.name)
            notes.append(f"{row.name} has the budget of {like or 'all boards'}")
    if not rows:
        raise InputError("no board is left", where="--without", found=", ".join(gone))
    levels = tuple(one for one in problem.objective if one.objective not in SETTLED)
    if not levels:
        levels = (ObjectiveLevel(objective="latency"),)
        notes.append("the plan's objective is settled by training: placed for least latency")
    notes += [
        f"{one} was kept by training, and is not asked of a placement"
        for one in problem.requirements
        if one.objective in SETTLED
    ]
    trained = trained_students(plan)
    title = f"{problem.fleet.title}, as replanned"
    fleet = problem.fleet.model_dump(exclude_none=True)
    fleet |= {"title": title, "boards": [row.model_dump(exclude_none=True) for row in rows]}
    fleet |= {"devices": [one.model_dump() for one in devices]}
    fleet |= {"links": [one.model_dump() for one in links]}
    stated = dict(problem) | {
        "fleet": Fleet.check(fleet, where="replan"),
        "budgets": tuple(budgets),
        "failures": failures,
        "objective": levels,
        "requirements": tuple(r for r in problem.requirements if r.objective not in SETTLED),
        "min_students": 1,
        "max_students": len(trained.students),
        "balance_pct": None,
        "inversion": None,
        "group0": "own-board" if plan.group0 else "replicated",
        "trained": trained,
    }
    return Problem.check(stated, where="replan"), tuple(notes)


def _behind(fleet: Fleet, gone: Collection[str]) -> Iterator[str]:
    for row in fleet.boards:
        if row.name in gone and row.via in gone:
            yield f"{row.name} is reached through {row.via}, and goes with it"


def _without_boards(failures: Failures | None, gone: Collection[str]) -> Failures | None:
    """Failures of the boards that are left."""
    if failures is None:
        return None
    outages = (
        one.model_copy(update={"boards": tuple(b for b in one.boards if b not in gone)})
        for one in failures.outages
    )
    return failures.model_copy(
        update={
            "boards": tuple(one for one in failures.boards if one.board not in gone),
            "outages": tuple(one for one in outages if one.boards),
        }
    )


def _renamed(coming: Fleet, taken: Collection[str]) -> Iterator[FleetBoard]:
    """Boards that come, under names that are free."""
    used, names = set(taken), {}
    for row in coming.boards:
        stem, number = row.name.rstrip("0123456789").rstrip("-") or row.name, 1
        name = row.name
        while name in used:
            name, number = f"{stem}-{number}", number + 1
        used.add(name)
        names[row.name] = name
    for row in coming.boards:
        via = None if row.via is None else names[row.via]
        yield row.model_copy(update={"name": names[row.name], "via": via})


def _budget_like(
    problem: Problem, row: FleetBoard, coming: Fleet
) -> tuple[BoardBudget, str | None]:
    """Budget of a new board, and the board that it is like, if any.

    It is that of a board of its device; else that of all boards, where they have the same.
    """
    for one, budget in zip(problem.fleet.boards, problem.budgets, strict=True):
        if one.device == row.device:
            return budget.model_copy(update={"board": row.name}), one.name
    asked = {_asked(budget) for budget in problem.budgets}
    if len(asked) > 1:
        raise InputError(
            "no budget is known for this board: the plan's boards have unlike ones",
            where="--with",
            found=row.device,
            allowed=", ".join(dict.fromkeys(one.device for one in problem.fleet.boards)),
            fix="bring a board of such a device, or plan again",
        )
    (limits,) = asked
    alone = coming.model_copy(update={"boards": (row.model_copy(update={"via": None}),)})
    return board_budgets(alone, limits)[0], None


def _asked(budget: BoardBudget) -> BudgetLimits:
    """Limits of a budget as they were asked for, before a device's memory cut them."""
    known = {one.name: getattr(budget, one.name) for one in fields(BudgetLimits)}
    for name in ("memory_bytes", "flash_bytes", "ram_bytes"):
        asked = getattr(budget, f"asked_{name.removeprefix('memory_')}")
        known[name] = asked or known[name]
    return BudgetLimits(**known)


def _placement_search(
    plan: PlanDocument,
    question: Problem,
    names: Collection[str],
    data: ProblemData,
    *,
    time_budget: TimeBudget,
) -> PlacementSearch:
    """Search for where these students run; they are the communities of the data."""
    sites = {row.name: site for site, row in enumerate(question.fleet.boards)}
    homes = {
        one.name: frozenset(sites[b] for b in one.boards if b in sites) for one in plan.students
    }
    trained = trained_students(plan)
    kept = [one.name for one in trained.students if one.name in names]
    alone = plan.group0
    placing = PlacementData.of(
        data,
        placement_question(question, names),
        [homes.get(name, frozenset()) for name in kept],
        (sites.get(alone.board), alone.precision) if alone else None,
    )
    return PlacementSearch(placing, question.seed, time_budget)


def _kept(question: Problem, find: partial[PlacementSearch]) -> tuple[tuple[str, ...], bool]:
    """Students that have a board: most of them, then those of most parameters.

    Of sets alike in both, that of the best placement, with fewest moves.  Also whether that is
    proven.
    """
    assert question.trained is not None  # noqa: S101  (it is a question of trained students)
    names = tuple(one.name for one in question.trained.students)
    asked = placement_question(question, names).model_copy(update={"min_students": 1})
    search = find(names, loosened_budgets(asked))
    limits = requirement_bounds(asked, loosened=True)
    found = search(ANSWERING, limits, None)
    if found.infeasible:
        raise InfeasibleError(_no_placement(question))
    if found.assignment is None or found.value is None:
        raise UnprovenError(
            f"the plan's limit of {question.deterministic_limit:g} stopped the solver before it "
            "had a placement; plan again with more boards or a higher --limit"
        )
    if found.value == len(names):
        return names, True
    chosen, proven = found.assignment, found.proven
    levels = ((OBJECTIVE_FUNCTIONS[one.objective], one) for one in asked.objective)
    limits.append(ObjectiveBound(ANSWERING, found.value))
    for goal, level in ((ANSWERED, None), *levels, (MOVES, None)):
        found = search(goal, limits, chosen if level else None)
        if found.assignment is None or found.value is None:
            return _of(names, chosen), False
        chosen, proven = found.assignment, proven and found.proven
        limits.append(
            relaxed_bound(asked, level.objective, found.value, level.tolerance_pct)
            if level
            else ObjectiveBound(goal, found.value)
        )
    return _of(names, chosen), proven


def _of(names: Sequence[str], chosen: Assignment) -> tuple[str, ...]:
    """Names of a placement's students, by their communities."""
    places = {one.communities[0] for one in chosen.students}
    return tuple(name for place, name in enumerate(names) if place in places)


def _no_placement(question: Problem) -> str:
    """Sentences on why no trained student may run."""
    asked = "; ".join(map(str, question.requirements))
    return (
        "proven infeasible: no trained student keeps the budgets of a board that is left"
        + (f", within {asked}" if asked else "")
        + "; nothing was written; bring a board with `--with`, or plan and train for these boards"
    )


def _as_trained(
    plan: PlanDocument, question: Problem, kept: Collection[str], placed: PlanDocument
) -> PlanDocument:
    """The plan of trained students that a placement is, with its proofs."""
    assert question.trained is not None  # noqa: S101  (it is a question of trained students)
    problem = question.model_copy(update={"fleet": placed.question.fleet})
    sites = {row.name: site for site, row in enumerate(problem.fleet.boards)}
    boards_of = {one.communities[0]: one.boards for one in placed.students}
    students: dict[str, AssignedStudent] = {}
    own = [one for one in question.trained.students if one.name in kept]
    for place, one in enumerate(own):
        first, *copies = (sites[board] for board in boards_of[place])
        students[one.name] = AssignedStudent(
            one.communities, one.network, one.precision, first, one.round, tuple(copies)
        )
    alone = placed.group0
    stem = (alone.board, alone.precision) if alone else None
    decision = evaluate_decision(problem, students, plan.dropped, stem)
    evaluation = PlanEvaluation(problem, decision, placed.send_order)
    stages = tuple(_stage(one, evaluation) for one in placed.stages)
    return build_plan(
        evaluation,
        status="optimal" if all(one.proven for one in stages) else "feasible",
        stages=stages,
        solver=placed.solver,
    )


def _stage(placed: LevelResult, evaluation: PlanEvaluation) -> LevelResult:
    """The level of a placement; unproven where students without a board change its value."""
    value = evaluation.value(placed.objective)
    if abs(value - placed.value) <= 1e-9 * max(1.0, abs(value)):
        return placed
    changed = {"value": value, "best": value, "bound": None, "gap_pct": None, "proven": False}
    return placed.model_copy(update=changed)


def _moves(before: PlanDocument, after: PlanDocument) -> Iterator[StudentMove]:
    """Boards of each model in both plans."""
    rows: Mapping[str, tuple[str, ...]] = {one.name: one.boards for one in before.decision.models}
    now = {one.name: one.boards for one in after.decision.models}
    for name in (*(one.name for one in trained_students(after).students), "group0"):
        if name in rows or name in now:
            yield StudentMove(model=name, before=rows.get(name, ()), after=now.get(name, ()))
