"""A search: the best assignment for one measure under limits on others, with its proof."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from planner.assignment import Assignment
from planner.attempt import Attempt
from planner.dominance import without_dominated
from planner.group0 import OwnGroup0
from planner.instance import Instance
from planner.local_search import MOST_DRAFTS, local_search
from planner.objective import Limit, Measure, Want
from planner.placements import placements
from planner.solving import Outcome

FIRST_SHARE = 0.2
"""Part of the time after which an unproven latency is bracketed first."""
PROBES_SHARE = 0.4
"""Part of the time for asking whether less is possible."""
RELAXED_SHARE = 0.02
"""Part of the time for one question to the relaxation, or one packing."""


def search(
    instance: Instance,
    goal: Measure | None,
    limits: Sequence[Limit] = (),
    *,
    seed: int,
    deterministic_limit: float,
    known: Assignment | None = None,
    most_drafts: int = MOST_DRAFTS,
) -> Outcome:
    """Find the best assignment for `goal`, or any where it is None, and prove it.

    `known` keeps all limits; `most_drafts` bounds the local search that comes first.  One worker, a
    fixed seed and a limit on deterministic time: the same call gives the same outcome on every
    machine.
    """
    measures = [*(limit.measure for limit in limits), *([goal] if goal else [])]
    wants = frozenset[Want]().union(*(measure.wants for measure in measures))
    own = known.own if known else None
    found: list[Outcome] = []
    took = 0.0
    # What is known comes first: the better what was found, the sooner all else is refuted.
    for each in sorted(placements(instance, wants), key=lambda one: one.own != own):
        kept = known if each.own == own else None
        outcome = _placed(
            without_dominated(each, wants, kept),
            goal,
            [*limits, *_as_good(goal, found)],
            seed=seed,
            deterministic_limit=deterministic_limit - took,
            known=kept,
            most_drafts=most_drafts,
        )
        took += outcome.deterministic_time
        found.append(_standing_on(each.own, outcome))
        if goal is None and outcome.assignment is not None:
            break
    return replace(_best(goal, found), deterministic_time=took)


def _standing_on(own: OwnGroup0 | None, outcome: Outcome) -> Outcome:
    """Say of what was found where its G0 is."""
    if outcome.assignment is None:
        return outcome
    return replace(outcome, assignment=replace(outcome.assignment, own=own))


def _as_good(goal: Measure | None, found: Sequence[Outcome]) -> Iterator[Limit]:
    """Yield the limit that leaves out what is worse than what was found, if anything was."""
    best = _best(goal, found)
    if goal is not None and best.value is not None:
        yield Limit(goal, best.value + (-goal.noise if goal.maximise else goal.noise))


def _best(goal: Measure | None, found: Sequence[Outcome]) -> Outcome:
    """Return the best of what was found, and what is proven of all of it together."""
    if len(found) == 1:
        return found[0]
    sign = -1 if goal is not None and goal.maximise else 1
    left = [one for one in found if not one.infeasible]
    plans = [one for one in left if one.assignment is not None]
    if not plans:
        return Outcome(None, None, None, False, infeasible=not left, deterministic_time=0.0)
    best = min(plans, key=lambda one: sign * (one.value or 0))
    bounds = [one.bound for one in left if one.bound is not None]
    if best.value is None or len(bounds) < len(left):
        return replace(best, bound=None, proven=False)
    bound = min(bounds, key=lambda each: sign * each)
    values = [one.value if one.proven else one.bound for one in left]
    proven = all(sign * (value or 0) >= sign * best.value for value in values)
    return replace(best, bound=bound, proven=proven)


def _placed(
    instance: Instance,
    goal: Measure | None,
    limits: Sequence[Limit],
    *,
    seed: int,
    deterministic_limit: float,
    known: Assignment | None,
    most_drafts: int,
) -> Outcome:
    """Search where it is settled where G0 is."""
    attempt = Attempt(instance, goal, tuple(limits), seed)
    found, took = None, 0.0
    if known is None:
        refuted, took = attempt.refuted(RELAXED_SHARE * deterministic_limit)
        if refuted:
            return Outcome(None, None, None, proven=False, infeasible=True, deterministic_time=took)
    if goal is not None:
        found = local_search(
            instance, goal, limits, seed=seed, known=known, most_drafts=most_drafts
        )
    if goal is None or found is None or not goal.timed or instance.sequenced:
        outcome = attempt.run(found, deterministic_limit - took)
        return replace(outcome, deterministic_time=outcome.deterministic_time + took)
    relaxed, found, asked = attempt.relaxed(goal, found, RELAXED_SHARE * deterministic_limit)
    took += asked
    if relaxed >= found[1]:
        return Outcome(
            *found, bound=relaxed, proven=True, infeasible=False, deterministic_time=took
        )
    first = attempt.run(found, FIRST_SHARE * deterministic_limit, low=relaxed)
    took += first.deterministic_time
    if first.proven or first.assignment is None or first.value is None:
        return replace(first, deterministic_time=took)
    best = (first.assignment, first.value)
    probing = PROBES_SHARE * deterministic_limit
    bound = max(relaxed, first.bound or relaxed)
    low, best, probed = attempt.bracketed(goal, best, bound, probing)
    took += probed
    last = attempt.run(best, deterministic_limit - took, low=low)
    bound = max(low, last.bound or low)
    return replace(last, bound=bound, deterministic_time=last.deterministic_time + took)
