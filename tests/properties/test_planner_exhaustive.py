"""The planner's optimum equals the best of all plans, enumerated and costed without a solver."""

from collections import Counter
from dataclasses import replace
from itertools import permutations, product
from math import log

import numpy as np
import pytest
from enumerated_plans import cost_of, divisions, plan_values
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from made_hardware import device, figure, link

from nonn_core.costs import BYTES_PER_VALUE
from nonn_core.family import parse_network
from nonn_core.image import Image
from planner.catalogue import catalogue
from planner.counted import CountedModel
from planner.group0 import Group0
from planner.instance import Instance
from planner.objective import MEASURES, Limit
from planner.option import DropOption, Option
from planner.scaling import (
    UNITS_PER_INDEX,
    UNITS_PER_MJ,
    UNITS_PER_MS,
    UNITS_PER_POINT,
    at_least,
    at_most,
    rounding,
)
from planner.search import search
from planner.site import Site
from planner.slots import SlotModel
from profiles.device import Hosting
from profiles.fleet import Board
from simulator.workload import busy_mj, busy_ms, join_ms, reply_ms, send_ms

IMAGES = (Image(1, 8, 8), Image(3, 2, 2), Image(1, 1, 1))
NETWORKS = ("wrn10:4,8,8", "wrn10:4,4,16", "wrn10:6,8,8", "wrn16:4,8,8")
WIDTHS = (*NETWORKS, "wrn10:4,8,16", "wrn10:4,4,8")
MAXIMISED = [name for name, measure in MEASURES.items() if measure.maximise]
FAILURES = ("survival", "robustness", "reliability")
"""Objectives of boards that fail: `test_copies_exhaustive` compares these."""
UNFAILING = [name for name in MEASURES if name not in FAILURES]


def random_device(rng, name):
    return device(
        name,
        Hosting(join_fixed_ms=figure(2.0), fc_ms=figure(0.1)),
        compute_fixed_ms=rng.integers(0, 10),
        compute_ms_per_mmac=rng.integers(1, 200),
        power_fixed_w=1.5,
        power_busy_w=2.5,
        message_ms=rng.integers(0, 8),
        sharing_slowdown=rng.choice([0.6, 1.0, 1.3, 2.0]),
    )


def random_boards(rng):
    kinds = [random_device(rng, f"kind-{k}") for k in range(2)]
    wire = link("link", rng.integers(10**4, 10**7))
    return [Board(f"b{b}", kinds[rng.integers(2)], wire) for b in range(rng.integers(2, 4))]


def boards_on_media(rng):
    """Two to four boards: two or more on one medium, others on wires or on a medium of two."""
    kinds = [random_device(rng, f"kind-{k}") for k in range(2)]
    half = {"duplex": "half", "shared": True}
    rates = {name: 10 ** rng.uniform(3.5, 5.5) for name in ("air", "bus", "wire")}
    air, bus, wire = (link(name, rate) for name, rate in rates.items())
    air = air.model_copy(update=half | {"latency_ms": figure(rng.integers(0, 4))})
    others = (air, bus.model_copy(update=half), wire)
    links = [air, air, *(others[rng.integers(3)] for _ in range(rng.integers(0, 3)))]
    return [Board(f"b{b}", kinds[rng.integers(2)], each) for b, each in enumerate(links)]


def random_site(rng, board, options, sizes):
    """Budgets, if any, are what up to three random students need, or one less."""
    size = macs = 0
    for _ in range(rng.integers(0, 4)):
        option = options[rng.integers(len(options))]
        filters = int(rng.choice(sizes, rng.integers(1, len(sizes)), replace=False).sum())
        size += option.memory_bytes(filters)
        macs += option.line.at(filters).macs
    size, macs = (max(0, limit - int(rng.integers(2))) for limit in (size, macs))
    return Site(
        board,
        size if rng.random() < 0.7 else None,
        macs if rng.random() < 0.3 else None,
        busy=int(rng.integers(1, 60) * UNITS_PER_MS) if rng.random() < 0.2 else None,
        energy=int(rng.integers(1, 120) * UNITS_PER_MJ) if rng.random() < 0.2 else None,
    )


def random_drops(rng, sizes):
    """Up to two nested unions beside the empty one."""
    order = rng.permutation(len(sizes)).tolist()
    return tuple(
        DropOption(
            frozenset(order[:count]),
            sum(sizes[c] for c in order[:count]),
            int(rng.integers(1, 50)) / 10 if count else 0.0,
        )
        for count in range(rng.integers(1, 4))
    )


def random_instance(seed, boards_of=random_boards):
    """A few boards of two kinds, 3 to 5 communities (some alike), 2 or 3 networks."""
    rng = np.random.default_rng(seed)
    image = IMAGES[rng.integers(len(IMAGES))]
    boards = boards_of(rng)
    most_communities = 7 - len(boards)
    sizes = tuple(rng.choice([1, 4, 7, 12, 30], rng.integers(3, most_communities + 1)).tolist())
    networks = rng.permutation(NETWORKS)[: rng.integers(2, 4 if len(boards) == 2 else 3)]
    specs = [parse_network(name) for name in networks]
    precisions = [("fp32",), ("int8", "fp32")][rng.random() < 0.2]
    options = tuple(Option.of(spec, precision, image) for spec in specs for precision in precisions)
    return image, Instance(
        host=boards[0].device,
        sites=tuple(random_site(rng, board, options, sizes) for board in boards),
        options=options,
        sizes=sizes,
        drops=random_drops(rng, sizes),
        min_students=int(rng.integers(1, 3)),
        max_students=int(rng.integers(2, 4)),
        image_bytes=image.size_bytes,
    )


def small_instance(seed):
    """Up to four students, four boards and six communities; three networks.

    Of every four, one may have more students than communities, and one G0 on a board of its own or,
    each second time, must have it.
    """
    rng = np.random.default_rng(seed)
    reuse, alone = seed % 4 == 0, seed % 4 == 1
    image = IMAGES[rng.integers(len(IMAGES))]
    kinds = [random_device(rng, f"kind-{k}") for k in range(2)]
    wires = [link(f"wire-{k}", 10 ** rng.uniform(4, 7)) for k in range(2)]
    wires[1] = wires[1].model_copy(update={"latency_ms": figure(rng.integers(0, 20))})
    boards = [
        Board(f"b{b}", kinds[rng.integers(2)], wires[rng.integers(2)])
        for b in range(rng.integers(1, 5))
    ]
    count = rng.integers(2, 4) if reuse else rng.integers(2, 7)
    sizes = tuple(rng.choice([1, 4, 7, 12, 30], count).tolist())
    precisions = ("int8", "fp32") if len(boards) < 3 and rng.random() < 0.3 else ("fp32",)
    specs = [parse_network(name) for name in rng.permutation(WIDTHS)[:3]]
    options = tuple(Option.of(spec, precision, image) for spec in specs for precision in precisions)
    shapes = {spec.group0: spec for spec in specs if alone}
    max_students = int(rng.integers(2, 5))
    return image, Instance(
        host=boards[0].device,
        sites=tuple(random_site(rng, board, options, sizes) for board in boards),
        options=options,
        sizes=sizes,
        drops=tuple(d for d in random_drops(rng, sizes) if len(d.communities) < len(sizes)),
        min_students=int(rng.integers(1, max_students + 1)),
        max_students=max_students,
        image_bytes=image.size_bytes,
        reuse=reuse,
        replicates=seed % 8 != 1,
        group0s=tuple(Group0.of(spec, image) for spec in shapes.values()),
    )


def crowded_media(seed):
    """Boards on shared media, each too small for all filters, so that several have to reply."""
    image, instance = random_instance(seed, boards_on_media)
    room = max(option.memory_bytes(instance.filters * 2 // 3) for option in instance.options)
    sites = tuple(replace(site, memory_bytes=room) for site in instance.sites)
    return image, replace(instance, sites=sites)


instances = st.integers(0, 2**32 - 1).map(random_instance)
further = st.integers(0, 2**32 - 1).map(lambda n: small_instance(4 * n))
on_media = st.integers(0, 2**32 - 1).map(crowded_media)


def all_plans(image, instance):
    """Yield the value of every objective for every plan that keeps all rules."""
    places = range(len(instance.sites))
    for drop in instance.drops:
        kept = [c for c in range(len(instance.sizes)) if c not in drop.communities]
        for filters in divisions(instance, kept):
            for options in product(instance.options, repeat=len(filters)):
                if len({option.group0 for option in options}) > 1:
                    continue
                costs = [
                    cost_of(o.name, image, size) for o, size in zip(options, filters, strict=True)
                ]
                precisions = [option.precision for option in options]
                for boards in product(places, repeat=len(filters)):
                    load = tuple(zip(boards, costs, filters, precisions, strict=True))
                    if fits(instance, load):
                        yield values(instance, drop, load)


def fits(instance, load):
    for b, site in enumerate(instance.sites):
        here = [(cost, precision) for board, cost, _, precision in load if board == b]
        macs = [cost.macs for cost, _ in here]
        device = site.board.device
        needs = (
            (sum(cost.memory_bytes(precision) for cost, precision in here), site.memory_bytes),
            (sum(macs), site.macs),
            (busy_ms(device, macs) * UNITS_PER_MS, site.busy),
            (busy_mj(device, macs) * UNITS_PER_MJ, site.energy),
        )
        if any(limit is not None and need > limit for need, limit in needs):
            return False
    return True


def values(instance, drop, load):
    """Each objective in solver units, though not whole ones; for throughput the period."""
    turns, energies_mj, held_ms = [], [], Counter(host=0.0)
    for b, site in enumerate(instance.sites):
        here = [(cost.macs, filters) for board, cost, filters, _ in load if board == b]
        if here:
            macs = [each for each, _ in here]
            send = send_ms(site.board, instance.image_bytes)
            reply = reply_ms(site.board, sum(filters for _, filters in here))
            busy = busy_ms(site.board.device, macs)
            turns.append((send, busy, reply, site.board.link))
            energies_mj.append(busy_mj(site.board.device, macs))
            wire = site.board.link.name if site.board.link.shared else f"wire {b}"
            back = wire if site.board.link.duplex == "half" else f"back {b}"
            held_ms.update({"host": send, f"cpu {b}": busy})
            held_ms.update({wire: send})
            held_ms.update({back: reply})
    sizes = [filters for _, _, filters, _ in load]
    params, macs = (sum(getattr(row[1], name) for row in load) for name in ("params", "macs"))
    join = join_ms(instance.host)
    return {
        "accuracy": (log(params) + log(macs)) * UNITS_PER_INDEX,
        "capacity": params,
        "imbalance": max(sizes) - min(sizes),
        "dropped": (drop.delta_val_pct - drop.filters) * UNITS_PER_POINT,
        "latency": (min(map(makespan, permutations(turns))) + join) * UNITS_PER_MS,
        "throughput": max(join, *held_ms.values()) * UNITS_PER_MS,
        "energy": sum(energies_mj) * UNITS_PER_MJ,
        "energy-node": max(energies_mj) * UNITS_PER_MJ,
        "memory": sum(cost.memory_bytes(precision) for _, cost, _, precision in load),
        "flops": macs,
        "boards": len(turns),
        "students": len(load),
        "precision": sum(BYTES_PER_VALUE[precision] for *_, precision in load),
    }


def makespan(order):
    sent = latest = 0.0
    free, ready = {}, []
    for send, busy, reply, on in order:
        sent += send
        free[on.name] = sent if on.shared else 0.0
        ready.append((sent + on.latency_ms.value + busy, reply, on))
    for at, reply, on in sorted(ready, key=lambda each: each[0]):
        end = max(at, free[on.name]) + reply
        free[on.name] = end if on.shared else 0.0
        latest = max(latest, end + on.latency_ms.value)
    return latest


def best(plans, name):
    return max(plan[name] for plan in plans) if name in MAXIMISED else min(p[name] for p in plans)


def solved(instance, name, limits=()):
    return search(instance, MEASURES[name], limits, seed=0, deterministic_limit=60)


def slack_of(instance, name):
    """How far rounding up may carry a value, in solver units."""
    if MEASURES[name].curved:
        return 4
    rounds = instance.max_students if instance.reuse else 1
    size = rounding(len(instance.sites), instance.max_students, rounds * instance.filters)
    return size if MEASURES[name].rounded else 1e-6


def optima(image, instance):
    """The best value of each objective over all plans; empty where there is none."""
    divided = [each for each in plan_values(image, instance) if each["boards"].size]
    return {
        name: (max if name in MAXIMISED else min)(
            each[name].max() if name in MAXIMISED else each[name].min() for each in divided
        )
        for name in UNFAILING
        if divided
    }


def assert_optimal(instance, known):
    """Each objective's optimum is the best of all plans; without any, nothing is found."""
    for name in UNFAILING:
        outcome = solved(instance, name)
        if not known:
            assert outcome.infeasible
            continue
        assert outcome.proven
        slack = slack_of(instance, name)
        assert outcome.value == pytest.approx(known[name], abs=slack), name


def without_hints(monkeypatch):
    """Let the solver find every plan itself."""
    monkeypatch.setattr("planner.search.local_search", lambda *_, **__: None)


INSTANCES = 272
PARTS = 8


@pytest.mark.parametrize("part", range(PARTS))
def test_the_solver_alone_equals_exhaustive_search(part, monkeypatch):
    without_hints(monkeypatch)
    for seed in range(part * INSTANCES // PARTS, (part + 1) * INSTANCES // PARTS):
        image, instance = small_instance(seed)
        assert_optimal(instance, optima(image, instance))


@pytest.mark.parametrize("seed", range(INSTANCES, INSTANCES + 24))
def test_the_whole_search_equals_exhaustive_search(seed):
    """The local search bounds the proof, and its plan is a hint."""
    image, instance = small_instance(seed)
    assert_optimal(instance, optima(image, instance))


def test_the_small_instances_reach_their_sizes():
    drawn = [small_instance(seed)[1] for seed in range(INSTANCES)]
    largest = [(one.max_students, len(one.sites), len(one.sizes)) for one in drawn]
    assert max(largest) == (4, 4, 6)
    assert {len({option.name for option in one.options}) for one in drawn} == {3}
    assert {len({option.precision for option in one.options}) for one in drawn} == {1, 2}
    assert {len({option.group0 for option in one.options}) for one in drawn} == {1, 2, 3}
    assert sum(one.reuse and one.max_students > len(one.sizes) for one in drawn) >= 20
    found = [search(one, None, seed=0, deterministic_limit=60) for one in drawn]
    assert sum(each.assignment is not None for each in found) >= 200
    alone = [each.assignment for each in found if each.assignment and each.assignment.own]
    assert len(alone) >= 10


@pytest.mark.parametrize("seed", range(0, 40, 4))
@pytest.mark.parametrize("build", ["counted", "slots"])
def test_each_model_has_all_plans_with_further_students(build, seed, monkeypatch):
    """More students than communities, up to three rounds of them."""
    image, instance = small_instance(seed)
    instance = replace(
        instance, sizes=instance.sizes[:2], drops=instance.drops[:1], max_students=5,
        sites=instance.sites[:2], options=instance.options[:3],
    )  # fmt: skip
    without_hints(monkeypatch)
    monkeypatch.setattr("planner.attempt._model", MODELS[build])
    for fewest in (1, 3, 5):
        asked = replace(instance, min_students=fewest)
        assert_optimal(asked, optima(image, asked))


MODELS = {
    "counted": lambda one, **_: CountedModel(one, catalogue(one, most=10**6)),
    "slots": lambda one, timed, **_: SlotModel(one, timed=timed),
}


@pytest.mark.parametrize("seed", [*range(8), 12, 16, 92])
def test_the_quick_enumeration_equals_the_slow_one(seed):
    """All send orders, all divisions, one plan after the other."""
    image, instance = small_instance(seed)
    instance = replace(
        instance, sites=instance.sites[:3], options=instance.options[:3],
        drops=instance.drops[:2], sizes=instance.sizes[:4], max_students=3,
        min_students=min(3, instance.min_students),
    )  # fmt: skip
    plans = list(all_plans(image, instance))
    known = optima(image, instance)
    assert bool(plans) == bool(known)
    for name, value in known.items():
        assert value == pytest.approx(best(plans, name), rel=1e-12), name


@settings(max_examples=100, deadline=None, derandomize=True)
@given(instances, st.permutations(sorted(UNFAILING)), st.sampled_from([0, 10, 40]))
def test_stages_equal_exhaustive_search_one_after_the_other(case, names, tolerance_pct):
    image, instance = case
    plans = list(all_plans(image, instance))
    assume(plans)
    limits = []
    for name in names[:3]:
        measure = MEASURES[name]
        outcome = solved(instance, name, limits)
        top = best(plans, name)
        slack = slack_of(instance, name)
        assert outcome.value == pytest.approx(top, abs=slack), name
        worst = at_least if measure.maximise else at_most
        limits.append(Limit(measure, worst(outcome.value, tolerance_pct)))
        room = abs(top) * tolerance_pct / 100 + slack
        sign = -1 if measure.maximise else 1
        plans = [plan for plan in plans if sign * plan[name] <= sign * top + room]


@pytest.mark.parametrize("energy", [21_633_000, 21_626_699, 21_318_599, 14_730_599])
def test_the_accuracy_that_a_stage_found_can_be_kept_in_the_next(energy):
    """A logarithm is known to a unit, and each model has tangents of its own."""
    _, instance = random_instance(161)
    limits = [Limit(MEASURES["energy"], energy)]
    accuracy = solved(instance, "accuracy", limits)
    limits.append(Limit(MEASURES["accuracy"], accuracy.value))
    assert solved(instance, "boards", limits).proven


@settings(max_examples=80, deadline=None, derandomize=True)
@given(on_media, st.sampled_from([0, 30]))
def test_latency_on_shared_media_equals_exhaustive_search(case, tolerance_pct):
    """All send orders of all plans, replies queueing; then the fewest boards near that latency."""
    image, instance = case
    plans = list(all_plans(image, instance))
    assume(plans)
    outcome = solved(instance, "latency")
    top, slack = best(plans, "latency"), slack_of(instance, "latency")
    assert outcome.proven
    assert outcome.value == pytest.approx(top, abs=slack)
    limit = Limit(MEASURES["latency"], at_most(outcome.value, tolerance_pct))
    near = [plan for plan in plans if plan["latency"] <= top * (1 + tolerance_pct / 100) + slack]
    assert solved(instance, "boards", [limit]).value == best(near, "boards")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(instances | on_media | further, st.sampled_from(sorted(UNFAILING)))
def test_more_memory_and_more_macs_never_make_the_optimum_worse(case, name):
    _, instance = case
    measure = MEASURES[name]
    before = solved(instance, name)
    assume(not before.infeasible)
    grown = tuple(
        replace(
            site,
            memory_bytes=site.memory_bytes and 2 * site.memory_bytes,
            macs=site.macs and 2 * site.macs,
        )
        for site in instance.sites
    )
    after = solved(replace(instance, sites=grown), name)
    assert after.proven
    assert after.value >= before.value if measure.maximise else after.value <= before.value


@settings(max_examples=60, deadline=None, derandomize=True)
@given(instances | further, st.sampled_from(sorted(UNFAILING)))
def test_one_more_board_never_makes_the_optimum_worse(case, name):
    _, instance = case
    measure = MEASURES[name]
    before = solved(instance, name)
    assume(not before.infeasible)
    after = solved(replace(instance, sites=(*instance.sites, instance.sites[0])), name)
    assert after.value >= before.value if measure.maximise else after.value <= before.value
