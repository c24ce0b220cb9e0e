"""Explanation of a plan: its proof, and how far each limit may move.

The plan is said to change where the best value of some level does, under the levels before it.

Tightened: a level keeps its best value as long as some plan that has it uses no more than the
budget, so that the least that such a plan uses is where it changes.  Of levels without tolerance
the last one's plan has all their values.

Loosened: the least use of a plan that is better in some level, and in no earlier one worse than
its tolerance allows, is where the optimum improves.  For any smaller budget every level, one after
the other, keeps its value.  Where there is no plan: the conflict, and what would repair it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field

from nonn_common import Progress, silent
from nonn_common.document import Record
from nonn_common.errors import InfeasibleError, InputError, UnprovenError
from planner.data.objective_function import (
    FLOAT_NOISE,
    ObjectiveBound,
    relaxed_bound,
    rounding_units,
)
from planner.data.problem_data import resolve_problem
from planner.data.relaxable_constraint import (
    ConstraintKind,
    RelaxableConstraint,
    constraint_label,
    current_limit,
    interchangeable,
    lift_constraints,
    readable_limit,
    relaxable_constraints,
)
from planner.diagnosis.conflict import conflict_sentences, irreducible_conflict
from planner.diagnosis.power_price import PowerPrice, power_prices
from planner.diagnosis.repair import Repair, find_repairs
from planner.plan_file.evaluation import PlanEvaluation
from planner.plan_file.plan_document import Decision, LevelResult, PlanDocument, PlannedStudent
from planner.plan_file.validation import keeps_limits
from planner.problem.goals import OBJECTIVES, Objective
from planner.problem.problem import Problem
from planner.solvers.lexicographic import LexicographicOptimum, lexicographic_optimum
from planner.solvers.search import SolverSession, TimeBudget
from profiles.device import End


class Sensitivity(Record):
    """How far one budget or requirement may move before the optimal plan changes."""

    kind: ConstraintKind = Field(description="Which budget, bound or requirement; also its unit.")
    board: str | None = Field(description="Name of the board, of its budgets.")
    objective: Objective | None = Field(description="What a requirement bounds.")
    limit: int | float = Field(description="What the question asks.")
    used: int | float = Field(description="What the plan has of it, the runtime's memory included.")
    slack: int | float = Field(description="How far the plan is within the limit.")
    tighten_to: int | float | None = Field(
        description="The tightest limit with which the best value of every stage stays; the next "
        "tighter one changes it. Of epsilon: what must be allowed. Null if not found."
    )
    loosen_to: int | float | None = Field(
        description="The first limit, going looser, with which the best value of some stage is "
        "better, the earlier ones staying; null: no limit improves any."
    )
    improves: Objective | None = Field(description="The stage that improves there.")
    binds: bool = Field(description="A looser limit would improve the optimal plan.")
    proven: bool = Field(description="Both are proven; else the solver was stopped.")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """In solver units: how tight a constraint keeps the optimum, and where looser improves it."""

    tight: int | None
    loose: int | None
    improves: Objective | None
    proven: bool


def sensitivities(
    session: SolverSession,
    best: LexicographicOptimum,
    used: Mapping[RelaxableConstraint, float],
    progress: Progress = silent,
) -> tuple[Sensitivity, ...]:
    """Sensitivity of each constraint that the plan uses; alike boards are solved once.

    `used` is what the plan has of each constraint, as people read it.
    """
    problem = session.problem
    asked = list(relaxable_constraints(problem))[::-1]
    asked.sort(key=lambda one: (one.board < 0, one.board))
    found: dict[RelaxableConstraint, Thresholds] = {}
    for number, one in enumerate(asked):
        progress(f"moving {constraint_label(problem, one)}", number, len(asked))
        if one not in found:
            found |= dict.fromkeys(interchangeable(problem, one), thresholds(session, best, one))
    return tuple(_row(problem, one, used[one], found[one]) for one in asked)


def thresholds(
    session: SolverSession, best: LexicographicOptimum, constraint: RelaxableConstraint
) -> Thresholds:
    """Find both thresholds of a constraint."""
    tight, tight_proven = _tight(session, best, constraint)
    lifted = lift_constraints(session.problem, {constraint})
    if lifted == resolve_problem(session.problem) and not constraint.of_plans:
        return Thresholds(tight, None, None, best.proven and tight_proven)
    loose, improves, loose_proven = _loose(session, best, constraint)
    return Thresholds(tight, loose, improves, best.proven and tight_proven and loose_proven)


def _tight(
    session: SolverSession, best: LexicographicOptimum, constraint: RelaxableConstraint
) -> tuple[int | None, bool]:
    """Return the tightest limit that each level's best value allows; None if one is unknown."""
    known = {id(best.levels[-1]): best.assignment}
    outcomes = [
        session.tightest(constraint, one.as_good, incumbent=known.get(id(one))) for one in best.kept
    ]
    values = [outcome.value for outcome in outcomes if outcome.value is not None]
    proven = all(outcome.proven for outcome in outcomes)
    if len(values) < len(outcomes):
        return None, False
    return (min if constraint.tightness.maximise else max)(values), proven


def _loose(
    session: SolverSession, best: LexicographicOptimum, constraint: RelaxableConstraint
) -> tuple[int | None, Objective | None, bool]:
    """Return the first limit, going looser, at which a level improves, and that level."""
    measure = constraint.tightness
    step = 1 if measure.maximise else -1
    sooner: list[ObjectiveBound] = []
    value, improves, proven = None, None, True
    for one in best.levels:
        outcome = session.tightest(constraint, [*one.better, *sooner])
        proven = proven and (outcome.proven or outcome.infeasible)
        if outcome.value is not None:
            value, improves = outcome.value, one.level.objective
            # Of a later level only a limit that is reached sooner matters.
            sooner = [ObjectiveBound(measure, value + step)]
    return value, improves, proven


def _row(
    problem: Problem, constraint: RelaxableConstraint, used: float, found: Thresholds
) -> Sensitivity:
    limit = current_limit(problem, constraint)
    return Sensitivity(
        kind=constraint.kind,
        board=problem.budgets[constraint.board].board if constraint.board >= 0 else None,
        objective=constraint.objective,
        limit=limit,
        used=used,
        slack=used - limit if constraint.from_below else limit - used,
        tighten_to=None
        if found.tight is None
        else readable_limit(problem, constraint, found.tight),
        loosen_to=None if found.loose is None else readable_limit(problem, constraint, found.loose),
        improves=found.improves,
        binds=found.loose is not None,
        proven=found.proven,
    )


class Flip(Record):
    """The plan where times lie elsewhere in their 90 % intervals, if still the best."""

    board: str | None = Field(description="The board whose time is moved; null: each board's.")
    end: End = Field(description="Where it is moved to; all others take what is predicted.")
    best: bool | None = Field(
        description="The plan is still the best, up to rounding; null: not settled in the limit. "
        "False without a best latency: no plan keeps all limits there."
    )
    students: tuple[str, ...] = Field(
        description="Students whose board, network or share is another one in the best plan there."
    )
    total_ms: float = Field(
        ge=0, description="Latency of this placement there, sent to in its best order."
    )
    best_ms: float | None = Field(
        ge=0, description="Latency of the best plan there; null where none was found."
    )


FLIPS_SHARE = 0.3
"""Part of the deterministic time that may go to other times of boards."""
MOST_FLIPS = 12
"""Boards whose time is moved by itself, at most."""


def find_flips(
    session: SolverSession, plan: PlanDocument, progress: Progress = silent
) -> tuple[Flip, ...]:
    """Other best plans within the intervals of times; none where no interval is known.

    All boards at the low end and at the upper end; and each board by itself at its upper end.  Of
    a plan for upper ends: all at the low end, and all as predicted.
    """
    if plan.predicted is None or plan.predicted.high_ms is None:
        return ()
    places: list[tuple[End, str | None]]
    if plan.question.timing == "upper-end":
        places = [("low", None), ("middle", None)]
    else:
        told = [row.board for row in plan.board_times if row.high_ms is not None]
        single = told[:MOST_FLIPS] if len(told) > 1 or len(plan.question.boards) > 1 else []
        places = [("low", None), ("high", None), *(("high", board) for board in single)]
    time_budget = TimeBudget(FLIPS_SHARE * session.time_budget.remaining)
    found = []
    for number, (end, board) in enumerate(places):
        progress(f"times at the {end} end", number, len(places))
        moved = SolverSession(plan.question.at_end(end, board), time_budget)
        found.append(_flip(moved, plan, end, board))
    took = FLIPS_SHARE * session.time_budget.remaining - time_budget.remaining
    session.time_budget.spend(took, settled=True)
    session.time_budget.ran_out |= time_budget.ran_out
    return tuple(found)


def _flip(session: SolverSession, plan: PlanDocument, end: End, board: str | None) -> Flip:
    problem = session.problem
    here = PlanEvaluation.of_plan(plan).at(problem)
    total_ms = here.predicted.total_ms

    def told(best: bool | None, other: PlanEvaluation | None = None) -> Flip:
        moved = _moved_students(plan, other.decision) if other and not best else ()
        best_ms = None if other is None else other.predicted.total_ms
        return Flip(
            board=board, end=end, best=best, students=moved, total_ms=total_ms, best_ms=best_ms
        )

    try:
        optimum = lexicographic_optimum(session)
    except UnprovenError:
        return told(None)
    except InfeasibleError:
        return told(False)
    other = PlanEvaluation.of(problem, optimum.assignment)
    if keeps_limits(here) and _as_good(here, optimum):
        return told(True if optimum.proven else None, other)
    return told(False, other)


def _as_good(plan: PlanEvaluation, optimum: LexicographicOptimum) -> bool:
    """Whether a plan has the optimum's value of each level, up to tolerances and rounding."""
    problem = plan.problem
    for one in optimum.levels:
        measure, last = one.measure, one is optimum.levels[-1]
        tolerance_pct = 0.0 if last else one.level.tolerance_pct
        bound = relaxed_bound(problem, one.level.objective, one.best, tolerance_pct)
        counted = measure.scale.count(problem, plan.value(one.level.objective))
        slack = rounding_units(problem, measure) + FLOAT_NOISE
        worse = bound.bound - counted if measure.maximise else counted - bound.bound
        if worse > slack:
            return False
    return True


def _moved_students(plan: PlanDocument, other: Decision) -> tuple[str, ...]:
    """Students of the plan that the other decision lacks; alike boards are one.

    A student is as many filters on a network, at a precision, on such boards.
    """
    data = resolve_problem(plan.question)
    kinds = {board.name: data.site_class(b) for b, board in enumerate(plan.question.boards)}

    def key(student: PlannedStudent) -> tuple[object, ...]:
        on = tuple(sorted(kinds[board] for board in student.boards))
        return len(student.filters), student.network, student.precision, on

    left = Counter(map(key, other.students))
    moved = []
    for student in plan.students:
        if left[key(student)]:
            left[key(student)] -= 1
        else:
            moved.append(student.name)
    return tuple(moved)


class Explanation(Record):
    """Explanation of a plan and its limits, or of why there is none."""

    status: Literal["optimal", "feasible", "infeasible"] = Field(
        description="As the plan says; thresholds are of the question's optimum in any case."
    )
    stages: tuple[LevelResult, ...] = Field(description="The plan's proof.")
    sensitivities: tuple[Sensitivity, ...] = Field(
        default=(), description="Of each budget and requirement; empty if infeasible."
    )
    flips: tuple[Flip, ...] = Field(
        default=(),
        description="The plan elsewhere in the intervals of times; empty where none is known.",
    )
    power_prices: tuple[PowerPrice, ...] = Field(
        default=(), description="What a watt more of each limit of power buys, and no limit."
    )
    conflict: tuple[str, ...] = Field(
        default=(), description="If infeasible: demands that cannot hold together, any fewer can."
    )
    repairs: tuple[Repair, ...] = Field(
        default=(), description="If infeasible: changes, checked, with which there is a plan."
    )
    irreducible: bool = Field(
        default=False, description="If infeasible: proven that any fewer of the conflict hold."
    )
    proven: bool = Field(description="All of it is proven.")
    stopped: bool = Field(
        default=False, description="The limit stopped a search; a higher one may prove more."
    )


def explain(
    plan: PlanDocument, deterministic_limit: float, progress: Progress = silent
) -> Explanation:
    """Explain a plan by solving its question again, moved.

    The limit is for all of it together.  Raises UnprovenError where it does not suffice to find
    the problem's optimum, and InputError where the plan wrongly says infeasible.
    """
    session = SolverSession(plan.question, TimeBudget(deterministic_limit))
    moved = replace(session, most_solutions=0)  # which would take most of so small questions
    if plan.status == "infeasible":
        if moved.plan().assignment is None:
            return explain_refusal(moved, progress)
        raise InputError("the plan says infeasible and its question has a plan", fix="plan again")
    best = lexicographic_optimum(session)
    flips = find_flips(session, plan, progress)
    rows = sensitivities(moved, best, dict(_uses(plan)), progress)
    return Explanation(
        status=plan.status,
        stages=plan.stages,
        sensitivities=rows,
        flips=flips,
        power_prices=power_prices(session),
        proven=all(row.proven for row in rows) and all(one.best is not None for one in flips),
        stopped=session.time_budget.ran_out,
    )


def explain_refusal(session: SolverSession, progress: Progress = silent) -> Explanation:
    """Conflict and repairs of a problem that is known to have no plan."""
    progress("finding the conflict", 0, 0)
    found = irreducible_conflict(session)
    conflict = conflict_sentences(session, found)
    repaired = find_repairs(session, found.demands, progress)
    least = found.proven and all(one.least for one in repaired)
    return Explanation(
        status="infeasible",
        stages=(),
        conflict=conflict,
        repairs=repaired,
        irreducible=found.proven,
        proven=least and session.time_budget.remaining > 0,
        stopped=session.time_budget.ran_out,
    )


def _uses(plan: PlanDocument) -> Iterator[tuple[RelaxableConstraint, float]]:
    """Yield what the plan has of each constraint."""
    used = {(row.board, row.budget): row.used for row in plan.budgets}
    evaluation = PlanEvaluation.of_plan(plan)
    for one in relaxable_constraints(plan.question):
        if one.budget is not None:
            yield one, used[plan.question.budgets[one.board].board, one.budget]
        elif one.objective is not None and plan.predicted is not None:
            yield one, evaluation.value(one.objective)
        elif one.kind == "epsilon":
            yield one, evaluation.drop_step.worst_pct or 0.0
        elif (found := evaluation.balance) and one.kind in ("balance", "inversion"):
            yield one, found.unevenness_pct if one.kind == "balance" else found.inversion
        else:
            yield one, len(plan.students)


def proof_sentences(plan: PlanDocument) -> tuple[str, ...]:
    """Return sentences for people: what the plan is and what was proven of each level."""
    run = plan.solver
    head = (
        f"{plan.status}: {len(plan.students)} students on {len(plan.decision.used)} of "
        f"{len(plan.question.fleet.boards)} boards, {plan.dropped_filters} filters dropped; "
        f"{run.name} {run.version}, seed {run.seed}"
    )
    return head, *_stages(plan.stages)


def _stages(stages: Sequence[LevelResult]) -> Iterator[str]:
    for level in stages:
        bound = "" if level.bound is None else f", bound {level.bound:.10g}"
        gap = "" if level.gap_pct is None else f", gap {level.gap_pct:.2f} %"
        best = f"best {level.best:.10g}{bound}{gap}, {'' if level.proven else 'not '}proven"
        yield f"{level.objective}, {OBJECTIVES[level.objective].aim}: {level.value:.10g} ({best})"
