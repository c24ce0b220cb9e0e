"""With copies of students, the planner's optimum equals the best of all plans, enumerated."""

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain, combinations, permutations, product
from math import exp, log

import numpy as np
import pytest
from drawn_instances import random_instance, with_batteries, with_flash
from enumerated_balance import set_partitions
from listed_plans import fits, known, models_of, values
from test_planner_exhaustive import best, slack_of, solved

from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import student_cost
from planner.data.modes import UNITS_PER_MS
from planner.data.objective_function import OBJECTIVE_FUNCTIONS
from planner.reliability.failures import Failures, retained_share
from planner.reliability.robustness import (
    UNITS_PER_ACCURACY_POINT,
    UNITS_PER_CERTAINTY,
    FailureScenarios,
)
from simulator.graph_builder import join_ms, send_ms
from simulator.workloads.fan_out import busy_ms, reply_ms


@dataclass(frozen=True)
class Grown:
    """An accuracy that grows with size, as `planner.accuracy.model` has it, for tiny networks."""

    teacher_accuracy_pct: float = 90.0
    slope: float = 0.4
    offset: float = 5.5
    floor_pct: float = 100 / 3

    def drop_pct(self, index):
        return exp(self.offset - self.slope * index)


def random_failures(rng, boards):
    """Some boards fail alone, most of them together; a target that some plans reach."""
    names = [f"b{b}" for b in range(boards)]
    alone = [(name, float(rng.choice([0.0, 0.05, 0.3]))) for name in names]
    together = [("strip", names[:2], 0.1), ("switch", names[-1:], 0.2)][: rng.integers(0, 3)]
    return Failures.model_validate(
        {
            "boards": [{"board": name, "probability": p} for name, p in alone],
            "outages": [{"name": n, "boards": b, "probability": p} for n, b, p in together],
            "target_pct": float(rng.choice([30, 45, 55, 65])),
        }
    )


def with_copies(seed):
    """Two or three boards, three communities, up to three students of up to two copies."""
    image, instance = random_instance(seed)
    rng = np.random.default_rng(seed)
    failures = random_failures(rng, len(instance.capacities))
    names = tuple(f"b{b}" for b in range(len(instance.capacities)))
    return image, replace(
        instance,
        sizes=instance.sizes[:3],
        modes=instance.modes[:2],
        drop_choices=instance.drop_choices[:1],
        max_copies=int(rng.integers(2, 4)),
        outages=tuple(frozenset(map(names.index, one.boards)) for one in failures.outages),
        scenarios=FailureScenarios(failures, names, Grown()),
    )


def plans_with_copies(image, instance):
    """Yield the value of every objective for every plan that keeps all rules."""
    cost = cache(lambda name, filters: student_cost(parse_network(name), image, filters))
    shares = cache(lambda boards: tuple(answered_shares(instance, boards)))
    places = range(len(instance.capacities))
    homes = [
        chosen
        for count in range(1, instance.max_copies + 1)
        for chosen in combinations(places, count)
    ]
    for groups in set_partitions(list(range(len(instance.sizes)))):
        if not instance.min_students <= len(groups) <= instance.max_students:
            continue
        filters = [sum(instance.sizes[c] for c in group) for group in groups]
        for options in product(instance.modes, repeat=len(groups)):
            if len({option.group0 for option in options}) > 1:
                continue
            costs = [cost(o.name, size) for o, size in zip(options, filters, strict=True)]
            students = list(zip(costs, filters, (o.precision for o in options), strict=True))
            names = [option.name for option in options]
            for boards in product(homes, repeat=len(groups)):
                load = tuple(
                    (b, *student)
                    for student, mine in zip(students, boards, strict=True)
                    for b in mine
                )
                own = [name for name, mine in zip(names, boards, strict=True) for _ in mine]
                models = models_of(image, instance, load, own)
                if fits(instance, models):
                    once = known_once(image, instance, students, boards, names)
                    yield {
                        **values_of_copies(instance, students, boards, load, models, once),
                        **worth(instance, once, shares(boards)),
                    }


def known_once(image, instance, students, boards, names):
    """Knowledge counts each student once; of those that share G0, where that is most.

    Each student is taken on one of its boards, and a board's G0 once.
    """
    if not instance.shares_stem:
        return tuple(sum(getattr(cost, f) for cost, *_ in students) for f in ("params", "macs"))
    placed = ([(b, *s) for s, b in zip(students, each, strict=True)] for each in product(*boards))
    return max(known(image, load, names) for load in placed)


def values_of_copies(instance, students, boards, load, models, once):
    """Each copy counts as work of a board, and once as knowledge of a student."""
    drop = instance.drop_choices[0]
    # What students know, and not what boards do, counts each of them once.
    alone = tuple((0, *student) for student in students)
    shared = replace(instance, shares_stem=True)
    each = values(shared, drop, alone, [(0, cost, p) for cost, _, p in students], once)
    return {
        **values(instance, drop, load, models, once),
        **{
            name: each[name]
            for name in ("accuracy", "capacity", "imbalance", "students", "precision")
        },
        "latency": latency(instance, students, boards, models) * UNITS_PER_MS,
        "survival": survival(instance, boards),
    }


def answered_shares(instance, boards):
    """Of each set of causes that may come together: its chance, and the share that is kept."""
    failures = instance.scenarios.failures
    places = {name: place for place, name in enumerate(instance.scenarios.boards)}
    causes = [({places[one.board]}, one.probability) for one in failures.boards]
    causes += [({places[b] for b in one.boards}, one.probability) for one in failures.outages]
    for came in product([False, True], repeat=len(causes)):
        chance, down = 1.0, set()
        for (taken, p), there in zip(causes, came, strict=True):
            chance *= p if there else 1 - p
            down |= taken if there else set()
        answered = sum(not set(mine) <= down for mine in boards)
        yield chance, retained_share(failures, answered, len(boards))


def worth(instance, once, shares):
    """Accuracy that is left on average, and the chance that it reaches the target."""
    failures, grown = instance.scenarios.failures, instance.scenarios.accuracy
    size = sum(map(log, once))
    accuracy = max(grown.floor_pct, grown.teacher_accuracy_pct - grown.drop_pct(size / 2))
    expected = reached = 0.0
    for chance, share in shares:
        kept = accuracy * share
        expected += chance * kept
        reached += chance * (kept >= failures.target_pct)
    return {
        "robustness": expected * UNITS_PER_ACCURACY_POINT * UNITS_PER_CERTAINTY,
        "reliability": reached * UNITS_PER_CERTAINTY,
    }


def latency(instance, students, boards, models):
    """All orders; each student is answered by the first of its boards."""
    here = defaultdict(list)
    for (_, filters, _), mine in zip(students, boards, strict=True):
        for b in mine:
            here[b].append(filters)
    turn = {}
    for b, those in here.items():
        board = instance.capacities[b].board
        turn[b] = (
            send_ms(board, instance.image_bytes),
            busy_ms(board.device, [cost.macs for where, cost, _ in models if where == b])
            + reply_ms(board, sum(those))
            + 2 * board.link.latency_ms.value,
        )
    least = np.inf
    for order in permutations(turn):
        sent, done = 0.0, {}
        for b in order:
            sent += turn[b][0]
            done[b] = sent + turn[b][1]
        least = min(least, max(min(done[b] for b in mine) for mine in boards))
    return least + join_ms(instance.host)


def survival(instance, boards):
    """The most failures, each a board or an outage, of which any leave each student a board."""
    causes = [frozenset({b}) for b in range(len(instance.capacities))] + list(instance.outages)
    for count in range(1, len(causes) + 1):
        for failed in combinations(causes, count):
            down = set(chain.from_iterable(failed))
            if any(set(mine) <= down for mine in boards):
                return count - 1
    return len(causes)


@pytest.mark.parametrize("seed", range(24))
def test_copies_of_students_that_share_g0_equal_exhaustive_search(seed):
    image, instance = with_copies(seed)
    equals_exhaustive_search(image, replace(instance, shares_stem=True))


@pytest.mark.parametrize("seed", range(200, 206))
def test_copies_on_boards_with_flash_and_ram_equal_exhaustive_search(seed):
    image, instance = with_copies(seed)
    equals_exhaustive_search(image, replace(with_flash(seed, instance), shares_stem=seed % 2 == 1))


@pytest.mark.parametrize("seed", range(40))
def test_each_objective_with_copies_equals_exhaustive_search(seed):
    image, instance = with_copies(seed)
    equals_exhaustive_search(image, instance)


@pytest.mark.parametrize("seed", range(100, 130))
def test_boards_that_differ_in_what_takes_them_down_only(seed):
    image, instance = with_copies(seed)
    first = instance.capacities[0]
    names = [site.board.name for site in instance.capacities]
    sites = tuple(replace(first, board=replace(first.board, name=name)) for name in names)
    # Where every board can have a copy of everything, it does not matter which boards are used.
    equals_exhaustive_search(image, replace(instance, capacities=sites, max_copies=1 + seed % 2))


def equals_exhaustive_search(image, instance):
    drained = with_batteries(0, instance)
    capacities = [replace(one, idling=one.battery) for one in drained.capacities]
    drained = replace(drained, capacities=tuple(capacities))
    plans = list(plans_with_copies(image, drained))
    for name in OBJECTIVE_FUNCTIONS:
        over_time = name in ("battery", "fleet-average-power")
        outcome = solved(drained if over_time else instance, name)
        if not plans:
            assert outcome.infeasible
            continue
        assert outcome.proven
        slack = instance.max_copies * max(
            slack_of(instance, name), OBJECTIVE_FUNCTIONS[name].tolerance_units
        )
        assert outcome.value == pytest.approx(best(plans, name), abs=slack), name
