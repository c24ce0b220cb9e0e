"""Proofs and explanations as people see them: goals, thresholds, conflicts, repairs, moves."""

from collections.abc import Iterator, Sequence
from math import isclose
from typing import TYPE_CHECKING

from nonn_plan.cli.output import Output, format_estimate
from planner.plan_file.plan_document import LevelResult, PlanDocument
from planner.problem.budgets import round_loosely
from planner.problem.goals import MAXIMISED, OBJECTIVES

if TYPE_CHECKING:
    from planner.diagnosis.explanation import Explanation, Flip, Sensitivity
    from planner.replan import Replan, StudentMove


def show_proof(output: Output, plan: PlanDocument) -> None:
    """Show each goal of a plan, its aim, and how near the bound it is."""
    output.table(
        "Proof",
        ("goal", "aim", "this plan", "best", "bound", "gap"),
        list(map(_proof_row, plan.stages)),
    )
    for sentence in stage_notes(plan):
        output.say(sentence)


def stage_notes(plan: PlanDocument) -> Iterator[str]:
    """Sentences on the price of what is dropped, and what later goals were given."""
    for level in plan.stages:
        if level.objective == "dropped" and plan.dropped_filters:
            points = level.value + plan.dropped_filters
            yield f"drops {plan.dropped_filters} filters for {max(points, 0.0):.2f} points"
        if level.tolerance_pct:
            given = 100 * abs(level.best - level.value) / abs(level.best) if level.best else 0.0
            yield (
                f"{level.objective}: {given:.2g} % given up for later goals, of "
                f"{level.tolerance_pct:g} % that may be"
            )


_PROOF_DIGITS = 7


def _proof_row(level: LevelResult) -> tuple[str, ...]:
    """Row of a stage, its values rounded to the side that holds when typed."""
    bound = "none" if level.bound is None else f"{level.bound:.7g}"
    gap = "none" if level.gap_pct is None else f"{level.gap_pct:.2f} %"
    down = level.objective in MAXIMISED
    value, best = (
        f"{round_loosely(one, down=down, digits=_PROOF_DIGITS):.{_PROOF_DIGITS}g}"
        for one in (level.value, level.best)
    )
    return level.objective, OBJECTIVES[level.objective].aim, value, best, bound, gap


def show_conflict(output: Output, explanation: "Explanation") -> None:
    """Show what cannot hold together, and what would repair it."""
    necessary = explanation.irreducible
    proven = "without any one they can" if necessary else "not all are proven necessary"
    output.say(f"infeasible: these cannot hold together; {proven}")
    for sentence in explanation.conflict:
        output.say(f"  - {sentence}")
    if not explanation.repairs:
        output.say("no repair was found")
        return
    output.say("repairs; with each of them alone there is a plan:")
    for repair in explanation.repairs:
        least = "" if repair.least else " (not proven the least)"
        output.say(f"  - {repair.text}{least}")


def show_thresholds(output: Output, plan: PlanDocument, explanation: "Explanation") -> None:
    """Show how far each limit may move, and what the plan's proof says."""
    from planner.diagnosis.explanation import proof_sentences

    for sentence in (*proof_sentences(plan), *stage_notes(plan)):
        output.say(sentence)
    output.table(
        "How far each may move before the optimal plan changes",
        ("demand", "used", "limit", "slack", "binds", "tighten to", "loosen to", "improves"),
        [_threshold_row(plan, row) for row in explanation.sensitivities],
    )
    for sentence in (*_flip_sentences(explanation.flips), *_price_sentences(plan, explanation)):
        output.say(sentence)


_LIMITED = {
    "power_w": "on each limited board",
    "average_w": "on average on each limited board",
    "fleet-power": "of fleet-power",
    "fleet-average-power": "of fleet-average-power",
}


def _price_sentences(plan: PlanDocument, explanation: "Explanation") -> Iterator[str]:
    """Sentences for people: what more power would buy, and what the limits cost."""
    for price in explanation.power_prices:
        where = "without power limits"
        if price.more_w is not None:
            where = f"with {price.more_w:g} W more {_LIMITED[price.limit]}"
        if not price.values:
            yield f"not settled: what the plan would be {where}"
            continue
        changed = [
            f"{one.objective} {price.values[one.objective]:.6g} "
            f"{OBJECTIVES[one.objective].unit} in place of {one.value:.6g}"
            for one in plan.stages
            if not isclose(price.values[one.objective], one.value, rel_tol=1e-9, abs_tol=1e-9)
        ]
        at = f", at {', '.join(dict.fromkeys(price.points))}" if changed else ""
        yield f"{where}: {'; '.join(changed) or 'the same values'}{at}"


def _flip_sentences(flips: "Sequence[Flip]") -> Iterator[str]:
    """Sentences for people: where in the intervals of times the plan is still the best."""
    stays = [one for one in flips if one.best]
    if stays:
        yield "this plan stays the best"
    for one in stays:
        yield f"  - with {_place(one)}"
    for one in flips:
        if one.best is None:
            yield f"not settled: whether this plan is the best with {_place(one)}"
        elif not one.best and one.best_ms is None:
            yield f"with {_place(one)} no plan keeps all limits"
        elif not one.best:
            yield (
                f"with {_place(one)} another plan is better: {', '.join(one.students) or 'G0'} "
                f"would move, latency {one.best_ms:.1f} ms against {one.total_ms:.1f}"
            )


def _place(flip: "Flip") -> str:
    ends = {"low": "the low end", "middle": "the middle", "high": "the upper end"}
    if flip.board is not None:
        return f"{flip.board} alone at {ends[flip.end]} of its interval"
    return f"all boards at {ends[flip.end]} of their intervals"


def _threshold_row(plan: PlanDocument, row: "Sensitivity") -> tuple[str, ...]:
    from planner.data.relaxable_constraint import (
        RelaxableConstraint,
        constraint_label,
        format_amount,
        format_limit,
    )

    problem = plan.question
    boards = [board.name for board in problem.fleet.boards]
    place = boards.index(row.board) if row.board is not None else -1
    constraint = RelaxableConstraint(row.kind, place, row.objective)
    return (
        constraint_label(problem, constraint),
        *(format_amount(constraint, value) for value in (row.used, row.limit, row.slack)),
        "yes" if row.binds else "no" if row.proven else "not known",
        "not known" if row.tighten_to is None else format_limit(constraint, row.tighten_to),
        "-" if row.loosen_to is None else format_limit(constraint, row.loosen_to),
        row.improves or "-",
    )


def homeless_warnings(found: "Replan") -> Iterator[str]:
    """Warning of trained students without a board, and what answers are worth without them."""
    names, every = found.homeless, found.plan.question.trained
    if not names or every is None:
        return
    kept, known = len(every.students) - len(names), found.plan.accuracy
    yield (
        f"{', '.join(names)}: no board; no placement within the budgets keeps more than {kept} of "
        f"{len(every.students)} students; answers go without"
        + ("" if known is None else f": {_accuracy(found.plan)} expected")
    )


def show_moves(output: Output, before: PlanDocument, found: "Replan") -> None:
    """Show who moves where, and latency and accuracy before and after."""
    output.table(
        "Where students ran, and run",
        ("student", "before", "after", "what"),
        [
            (one.model, ", ".join(one.before) or "-", ", ".join(one.after) or "-", _what(one))
            for one in found.models
        ],
    )
    if before.predicted is not None and found.plan.predicted is not None:
        output.say(
            f"latency {before.predicted.total_ms:.1f} ms before, "
            f"{found.plan.predicted.total_ms:.1f} ms now"
        )
    if before.accuracy is not None:
        output.say(f"expected accuracy {_accuracy(before)} before, {_accuracy(found.plan)} now")
    moved = sum(one.is_move for one in found.models)
    output.say(
        f"{moved} of {len(found.models)} move"
        + ("; no placement as good has fewer moves" if found.proven else "")
    )


def _what(row: "StudentMove") -> str:
    if not row.after:
        return "no board"
    return "moves" if row.is_move else "stays"


def _accuracy(plan: PlanDocument) -> str:
    """Expected accuracy, or the drop below the teacher, with its interval."""
    known = plan.accuracy
    if known is None:
        return "not known"
    if known.value_pct is None or known.low_pct is None or known.high_pct is None:
        value, interval = format_estimate(known.drop_pct, known.drop_low_pct, known.drop_high_pct)
        return f"{value} points below the teacher (95 %: {interval})"
    value, interval = format_estimate(known.value_pct, known.low_pct, known.high_pct)
    return f"{value} % (95 %: {interval})"
