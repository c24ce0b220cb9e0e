"""Validation: every rule of a problem, recomputed from the plan alone.

Knows nothing of the solver: the rules are written a second time, on sets and sums, costs are of
`nonn_core.costs`, milliseconds of `simulator.closed_form`.  Runs before a plan leaves `solve`, and
again on every plan that is read, which a person may have edited.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from nonn_common.document import Record
from nonn_common.errors import InputError
from planner.data.modes import AssignedStudent, Assignment
from planner.data.objective_function import rounding_tolerance, satisfies
from planner.data.problem_data import host_device
from planner.data.relaxable_constraint import RelaxableConstraint
from planner.plan_file.alternatives import false_alternatives
from planner.plan_file.decision_workload import broken_balance, evaluate_decision
from planner.plan_file.evaluation import PlanEvaluation
from planner.plan_file.plan_document import BoardTime, LevelResult, PlanDocument, Prediction
from planner.problem.budgets import BUDGETS
from planner.problem.duty import Duty
from planner.problem.goals import MAXIMISED
from planner.problem.problem import Problem

FRACTION = 1e-9
"""Part of a figure that is taken for noise of binary fractions."""


def require_valid(plan: PlanDocument, where: str | None = None) -> None:
    """Refuse a plan that breaks its question; raises InputError that names the violated rule."""
    problems = violations(plan)
    if problems:
        more = len(problems) - 1
        raise InputError(
            f"the plan breaks its own question: {problems[0]}",
            where=where,
            fix=f"{f'and {more} more; ' if more else ''}plan again instead of editing the answer",
        )


def violations(plan: PlanDocument) -> list[str]:
    """Return every rule that the plan breaks, as sentences; empty if it is valid."""
    if plan.status == "infeasible":
        return list(_false_answers(plan))
    problems = list(_unknown_names(plan))
    if problems:
        return problems
    problems += _broken_rules(plan)
    problems += _broken_budgets(plan)
    return problems or list(_wrong_figures(plan))


def _false_answers(plan: PlanDocument) -> Iterator[str]:
    if plan.students or plan.predicted or plan.stages or plan.send_order:
        yield "an infeasible question has no students, send order, prediction or stages"
    if not plan.conflict:
        yield "an infeasible question has a conflict"


def _unknown_names(plan: PlanDocument) -> Iterator[str]:
    """Each name means something: students exist, and their network, board, communities do."""
    problem = plan.question
    if not plan.students or plan.predicted is None or plan.conflict:
        yield "a feasible plan has students, a prediction and no conflict"
    boards = {board.name for board in problem.fleet.boards}
    ids = {one.id for one in problem.partition.communities}
    for student in plan.students:
        if student.network not in problem.networks:
            yield f"{student.name}: network {student.network} is not among the question's"
        if student.precision not in problem.precisions:
            yield f"{student.name}: precision {student.precision} is not among the question's"
        if unknown_boards := set(student.boards) - boards:
            yield f"{student.name}: board {min(unknown_boards)} is not in the fleet"
        if unknown := set(student.communities) - ids:
            yield f"{student.name}: community {min(unknown)} does not exist"
    if unknown := set(plan.dropped) - ids:
        yield f"dropped community {min(unknown)} does not exist"
    repeated = [n for n, c in Counter(one.name for one in plan.students).items() if c > 1]
    if repeated:
        yield f"several students are called {repeated[0]}"


def _broken_rules(plan: PlanDocument) -> Iterator[str]:
    problem = plan.question
    yield from _split_communities(plan)
    own = problem.trained
    yield from _wrong_rounds(plan) if own is None else own.changed(map(dict, plan.students))
    yield from _wrong_drop(plan)
    yield from _wrong_copies(plan)
    yield from _wrong_group0(plan)
    count = len(plan.students)
    if not problem.min_students <= count <= problem.most_students:
        yield (
            f"{count} students; the question allows {problem.min_students} to "
            f"{problem.most_students}"
        )
    specs = dict(zip(problem.networks, problem.specs, strict=True))
    if len({specs[student.network].group0 for student in plan.students}) > 1:
        yield "students share G0, so family, depth and first width must be the same for all"
    if sorted(plan.send_order) != sorted({b for student in plan.students for b in student.boards}):
        yield "send_order must name each board that has a student, once"


def _wrong_group0(plan: PlanDocument) -> Iterator[str]:
    """G0 is where the problem lets it be, and alone there."""
    group0, problem = plan.group0, plan.question
    if group0 is None:
        if problem.group0 == "own-board":
            yield "the question asks for a board of G0 alone"
        return
    if problem.group0 == "replicated":
        yield "the question asks for a copy of G0 on each board with a student"
    if group0.board not in {board.name for board in problem.fleet.boards}:
        yield f"G0 is on board {group0.board}, which is not in the fleet"
    if group0.board in {board for student in plan.students for board in student.boards}:
        yield f"{group0.board} runs G0 and a student; the board of G0 runs nothing else"
    if group0.precision not in problem.precisions:
        yield f"precision {group0.precision} of G0 is not among the question's"


def _split_communities(plan: PlanDocument) -> Iterator[str]:
    """Each community is whole, in exactly one student of the first round or dropped."""
    owners = Counter(
        c for student in plan.students if student.round == 1 for c in student.communities
    )
    owners.update(plan.dropped)
    homeless = trained.communities if (trained := plan.question.trained) else ()
    for community in plan.question.partition.communities:
        times = owners[community.id]
        if times != 1 and (times or community.id not in homeless):
            yield (
                f"community {community.id} appears {times} times among students and dropped; "
                "each must appear once"
            )


def _wrong_rounds(plan: PlanDocument) -> Iterator[str]:
    """Further rounds hand out single kept communities, all of them before the next round."""
    rounds: dict[int, list[int]] = defaultdict(list)
    for student in plan.students:
        rounds[student.round] += student.communities
        if len(student.communities) > 1 and max(one.round for one in plan.students) > 1:
            yield f"{student.name}: where filters are reshuffled a student has one community"
    if len(rounds) > 1 and not plan.question.reuse:
        yield "the question allows no further students with reshuffled filters"
    kept = {one.id for one in plan.question.partition.communities} - set(plan.dropped)
    last = max(rounds)
    for number in range(1, last + 1):
        found = rounds[number]
        if len(set(found)) < len(found) or not set(found) <= kept:
            yield f"round {number} must have kept communities, each once; it has {sorted(found)}"
        elif number < last and set(found) != kept:
            yield f"round {number} must have each kept community, as it is not the last"


def _wrong_copies(plan: PlanDocument) -> Iterator[str]:
    """Each student is on different boards, and not on more than are allowed."""
    most = plan.question.max_copies
    for student in plan.students:
        if len(set(student.boards)) < len(student.boards):
            yield f"{student.name}: its copies must be on different boards"
        if len(student.boards) > most:
            yield f"{student.name}: it is on {len(student.boards)} boards; allowed: {most}"


def _wrong_drop(plan: PlanDocument) -> Iterator[str]:
    """Only one of the drop steps is dropped, at a cost below epsilon."""
    problem = plan.question
    steps = [
        one for one in problem.partition.drop_steps if set(one.communities) == set(plan.dropped)
    ]
    if not steps:
        yield f"dropped communities {sorted(plan.dropped)} are not one of the drop steps"
    elif not any(problem.allows(step) for step in steps):
        bound_pct = steps[0].loss_bound_pct
        bound = "" if bound_pct is None else f", and may cost {bound_pct:g}"
        yield (
            f"dropping communities {sorted(plan.dropped)} changes validation accuracy by "
            f"{steps[0].delta_val_pct} points{bound}; epsilon is {problem.epsilon_pct}"
        )


def _broken_budgets(plan: PlanDocument) -> Iterator[str]:
    """Find budgets that a board's students exceed together."""
    for row in _recomputed(plan).budgets:
        if row.slack is not None and row.slack < -FRACTION * row.used:
            shown = BUDGETS[row.budget]
            yield (
                f"{shown.noun} budget of {row.board}: its students need {shown.text(row.used)}, "
                f"allowed {shown.text(row.limit or 0)}"
            )


def _broken_requirements(evaluation: PlanEvaluation) -> Iterator[str]:
    """Find requirements of the whole plan that do not hold."""
    problem = evaluation.problem
    for one in problem.requirements:
        value = evaluation.value(one.objective)
        if not satisfies(problem, one, value):
            yield f"{one} is required; the plan has {one.objective} {value:g}"


def _wrong_figures(plan: PlanDocument) -> Iterator[str]:
    """Every derived figure equals what the problem and the students give."""
    problem, decision = plan.question, (computed_plan := _recomputed(plan)).decision
    for written, computed in zip(plan.students, decision.students, strict=True):
        yield from _differences(f"student {written.name}", written, computed)
    if plan.group0 and decision.group0:
        yield from _differences("group0", plan.group0, decision.group0)
    if plan.joint_models != decision.joint:
        yield "joint_models are not those of the students that share a board's copy of G0"
    if plan.budgets != computed_plan.budgets:
        yield "the budgets' use or slack is not what the students need"
    removed = computed_plan.dropped_filters
    if plan.dropped_filters != removed:
        yield f"dropped_filters is {plan.dropped_filters}; the dropped communities hold {removed}"
    if plan.delta_val_pct != computed_plan.delta_val_pct:
        yield f"delta_val_pct is {plan.delta_val_pct}; the drop step says otherwise"
    yield from _wrong_prediction(plan, computed_plan.predicted)
    yield from _wrong_times(plan, computed_plan.board_times)
    yield from _wrong_duty(plan.duty, computed_plan.duty)
    # Plans from before chance was the least may hold less.
    expected = plan.accuracy and problem.accuracy_model.limited(plan.accuracy)
    if expected != computed_plan.accuracy:
        yield "the predicted accuracy is not what the question's rows give"
    if plan.host != host_device(problem).name:
        yield f"the host is {plan.host}; the question gives {host_device(problem).name}"
    yield from _broken_requirements(computed_plan)
    yield from broken_balance(problem, computed_plan.balance)
    if plan.balance != computed_plan.balance:
        yield "the balance is not what the students' partitions give"
    yield from false_alternatives(plan)
    yield from _wrong_stages(plan, computed_plan)


def _differences(what: str, written: Record, computed: Record) -> Iterator[str]:
    for field in type(written).model_fields:
        one, other = getattr(written, field), getattr(computed, field)
        if one != other:
            yield f"{what}: {field} is {_short(one)}; it should be {_short(other)}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _wrong_prediction(plan: PlanDocument, predicted: Prediction) -> Iterator[str]:
    for field in Prediction.model_fields:
        written, computed = getattr(plan.predicted, field), getattr(predicted, field)
        if written is None and field in ("expected_ms", "p95_ms"):
            continue  # a plan from before it was told
        if not _alike(written, computed):
            yield f"predicted {field} is {_told(written)}; the closed form gives {_told(computed)}"


def _alike(one: float | None, other: float | None) -> bool:
    """Whether two figures are the same up to rounding, or both unknown."""
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)


def _told(value: float | None) -> str:
    return "not known" if value is None else f"{value:g}"


def _wrong_times(plan: PlanDocument, computed: tuple[BoardTime, ...]) -> Iterator[str]:
    """Each board's time, its interval, and what predicted it."""
    known = [(row.board, row.how) for row in computed]
    if [(row.board, row.how) for row in plan.board_times] != known:
        yield "board_times do not name the boards that work, and what predicts each"
        return
    for row, other in zip(plan.board_times, computed, strict=True):
        for field in ("busy_ms", "low_ms", "high_ms"):
            written, right = getattr(row, field), getattr(other, field)
            if not _alike(written, right):
                yield (
                    f"{field} of {row.board} is {_told(written)}; its device gives {_told(right)}"
                )


def _wrong_duty(written: Duty | None, computed: Duty | None) -> Iterator[str]:
    """Power and battery life of each board at the rate, and of all."""
    if (written is None) != (computed is None):
        yield "duty is told where the question has a rate of images, and only there"
    if written is None or computed is None:
        return
    named, working = ([row.board for row in one.boards] for one in (written, computed))
    if named != working:
        yield f"duty names {', '.join(named) or 'no board'}; {', '.join(working)} work"
        return
    sides = (written, *written.boards), (computed, *computed.boards)
    for who, one, other in zip(("all boards", *named), *sides, strict=True):
        for field, right in other.model_dump(exclude={"board", "boards"}).items():
            if not _alike(told := getattr(one, field), right):
                yield f"{field} of {who} is {_told(told)}; at the rate it is {_told(right)}"


def _wrong_stages(plan: PlanDocument, evaluation: PlanEvaluation) -> Iterator[str]:
    """Each level's value is right, within tolerance, and no better than proven."""
    asked = [(level.objective, level.tolerance_pct) for level in plan.question.objective]
    if [(level.objective, level.tolerance_pct) for level in plan.stages] != asked:
        yield "the stages are not those of the question's objective"
        return
    for level in plan.stages:
        value = evaluation.value(level.objective)
        if not math.isclose(level.value, value, rel_tol=1e-9, abs_tol=1e-9):
            yield f"{level.objective} is {level.value:g}; the plan gives {value:g}"
        yield from _wrong_proof(
            level, rounding_tolerance(plan.question, level.objective, level.best)
        )
    if (plan.status == "optimal") != all(level.proven for level in plan.stages):
        yield f"status is {plan.status}; the stages' proofs say otherwise"


def _wrong_proof(level: LevelResult, hidden: float) -> Iterator[str]:
    sign = -1.0 if level.objective in MAXIMISED else 1.0
    value, best = sign * level.value, sign * level.best
    slack = hidden + 1e-9 * abs(best)
    if value > best + (abs(best) + slack) * level.tolerance_pct / 100 + slack:
        yield (
            f"{level.objective} is {level.value:g}; within {level.tolerance_pct:g}% of its best "
            f"({level.best:g}) was asked"
        )
    bound = None if level.bound is None else sign * level.bound
    if bound is not None and min(value, best) < bound - slack:
        yield f"{level.objective} is better than its proven bound {level.bound:g}"
    if level.proven and (bound is None or best > bound + 2 * slack):
        yield f"{level.objective} is called proven, yet best and bound differ"


def _recomputed(plan: PlanDocument) -> PlanEvaluation:
    places = {board.name: place for place, board in enumerate(plan.question.fleet.boards)}
    students = {}
    for one in plan.students:
        first, *copies = (places[board] for board in one.boards)
        students[one.name] = AssignedStudent(
            one.communities, one.network, one.precision, first, one.round, tuple(copies)
        )
    stem = (plan.group0.board, plan.group0.precision) if plan.group0 else None
    decision = evaluate_decision(plan.question, students, plan.dropped, stem)
    return PlanEvaluation(plan.question, decision, plan.send_order)


LevelValues = tuple[float, ...]
"""One value per stage of an objective, in the unit that people read."""


def level_values(problem: Problem, assignment: Assignment) -> LevelValues:
    """Value of each level of the problem's objective."""
    evaluation = PlanEvaluation.of(problem, assignment)
    return tuple(evaluation.value(level.objective) for level in problem.objective)


def best_assignment(problem: Problem, candidates: Sequence[Assignment]) -> Assignment | None:
    """Best candidate that keeps all budgets and requirements, if any does.

    Level by level, those within its tolerance of its best stay; the last level decides, and then
    the order of the candidates.
    """
    every = {one: PlanEvaluation.of(problem, one) for one in candidates}
    able = [one for one, evaluation in every.items() if keeps_limits(evaluation)]
    for level in problem.objective:
        sign = -1.0 if level.objective in MAXIMISED else 1.0
        values = {one: sign * every[one].value(level.objective) for one in able}
        able.sort(key=values.__getitem__)
        best = values[able[0]] if able else 0.0
        allowed = best + abs(best) * level.tolerance_pct / 100
        able = [one for one in able if values[one] <= allowed]
    return able[0] if able else None


def broken_exactly(evaluation: PlanEvaluation) -> Iterator[RelaxableConstraint]:
    """Budgets and requirements that the plan's own figures break.

    Binary fractions alone may differ, not what the solver's rounding hides.
    """
    places = {board.name: place for place, board in enumerate(evaluation.problem.fleet.boards)}
    for row in evaluation.budgets:
        if row.slack is not None and row.slack < -FRACTION * row.used:
            yield RelaxableConstraint(row.budget, places[row.board])
    for one in evaluation.problem.requirements:
        over = evaluation.value(one.objective) - one.bound
        if (-over if one.objective in MAXIMISED else over) > FRACTION * max(1.0, abs(one.bound)):
            yield RelaxableConstraint("requirement", objective=one.objective)


def keeps_limits(evaluation: PlanEvaluation) -> bool:
    """Whether each board's budgets and the requirements on the whole are kept."""
    if any(row.slack is not None and row.slack < 0 for row in evaluation.budgets):
        return False
    problem = evaluation.problem
    if any(broken_balance(problem, evaluation.balance)):
        return False
    return all(
        satisfies(problem, one, evaluation.value(one.objective)) for one in problem.requirements
    )
