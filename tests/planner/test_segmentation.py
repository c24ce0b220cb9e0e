"""Segmentations of real networks: the simulator's figures, budgets, and stages over networks."""

import re
from functools import cache
from itertools import combinations, permutations

import pytest
from planner_questions import PUBLISHED_SIZES, question, stages
from segmentation_graph import segmentation_graph

from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import teacher_cost
from planner.pipelines.segment_costs import cut_model
from planner.pipelines.segmentation import (
    Segmentation,
    best_segmentation,
    describe_segmentation,
    infeasibility_reason,
)
from planner.problem.goals import ObjectiveLevel
from profiles.fleet import FLEETS, Fleet, resolve
from profiles.link import LINKS
from simulator.engine.simulation import simulate
from simulator.scenario import Scenario, Times

WIRE = "@wired-100mbit"
UNLIKE = f"jetson-nano,odroid-xu4s,rpi-3b,rpi-zero-2w{WIRE},stm32h7a3zi{WIRE}"
TEACHER = parse_network("wrn40-4")
TINY = tuple(map(parse_network, ("wrn10:4,8,8", "wrn10:4,8,16", "wrn10:8,8,16")))


def asked(fleet=UNLIKE, memory=12_000_000, **fields):
    return question(
        fleet,
        PUBLISHED_SIZES,
        memory=memory,
        **{"image": "3x32x32", "precisions": ("fp32",)} | fields,
    )


def stage(aim, tolerance_pct=0):
    """A stage of any aim, whether or not a question may name it."""
    return ObjectiveLevel.model_construct(objective=aim, tolerance_pct=tolerance_pct)


def calm_wifi():
    """The wifi fleet with a link that delays but neither jitters nor loses anything."""
    none = {"value": 0.0, "provenance": "assumed", "source": "this test"}
    wifi = FLEETS.get("mixed-wifi")
    delay = none | {"value": 2.5}
    calm = LINKS.get("wifi").model_dump() | {
        "name": "calm",
        "jitter_ms": none,
        "loss_pct": none,
        "latency_ms": delay,
    }
    boards = [board.model_dump() | {"link": "calm"} for board in wifi.boards]
    return Fleet.check(wifi.model_dump() | {"boards": boards, "links": [calm]}, "test")


@pytest.mark.parametrize("fleet", [UNLIKE, calm_wifi(), "rpi3x8"], ids=["unlike", "wifi", "alike"])
@pytest.mark.parametrize("objective", ["latency", "energy", "boards"])
def test_a_simulation_gives_the_same_milliseconds(fleet, objective):
    one = asked(fleet)
    found = best_segmentation(one, [TEACHER], stages=stages(objective))
    result = simulate(segmentation_graph(one, found))
    assert result.total_ms == pytest.approx(found.total_ms, abs=1e-9)
    assert result.compute_ms == pytest.approx(found.compute_ms, abs=1e-9)
    assert result.communication_ms == pytest.approx(found.communication_ms, abs=1e-9)
    assert result.energy_total_mj == pytest.approx(found.energy_fleet_mj)
    assert max(row.energy_mj for row in result.boards) == pytest.approx(found.energy_highest_mj)
    assert [row.board for row in result.boards] == list(found.boards)


def test_images_in_a_row_leave_at_the_throughput():
    one = asked()
    found = best_segmentation(one, [TEACHER], stages=stages("latency"))
    rows = simulate(
        segmentation_graph(one, found), 12, Scenario(arrivals=Times((0.0,) * 12))
    ).inferences
    assert rows[-1].end_ms - rows[-2].end_ms == pytest.approx(1000 / found.throughput_per_s)


def test_the_parts_are_the_network_and_within_their_budgets():
    own = {"rpi-3b-1": (8_000_000, 400_000_000), "jetson-nano-1": (9_000_000, None)}
    one = asked(own=own)
    found = best_segmentation(one, [TEACHER], stages=stages("energy"))
    whole = teacher_cost(TEACHER, one.image_shape, one.classes)
    assert (found.params, found.macs) == (whole.params, whole.macs)
    budgets = {budget.board: budget for budget in one.budgets}
    assert len(set(found.boards)) == len(found.parts) > 1
    for part in found.parts:
        budget = budgets[part.board]
        assert part.memory_bytes <= budget.memory_bytes
        assert budget.macs is None or part.macs <= budget.macs


def test_whole_on_one_board_it_needs_what_the_cost_model_says():
    one = asked(memory=10**9)
    (part,) = best_segmentation(one, [TEACHER], stages=stages("latency")).parts
    whole = teacher_cost(TEACHER, one.image_shape, one.classes)
    assert part.memory_bytes == whole.memory_bytes("fp32")
    assert (part.board, part.first_layer, part.last_layer) == ("jetson-nano-1", "group0.0", "fc")
    assert part.sent_bytes == 4 * one.classes


def test_a_segmentation_survives_a_file():
    found = best_segmentation(asked(), [TEACHER], stages=stages("latency"))
    assert Segmentation.model_validate_json(found.model_dump_json()) == found


@cache
def brute(fleet, memory):
    """All segmentations of the tiny networks that fit."""
    one = question(fleet, memory=memory)
    _, boards = resolve(one.fleet)
    known = []
    for network in TINY:
        model = cut_model(network, one.image_shape, one.classes)
        for parts in range(1, len(boards) + 1):
            for order in permutations(boards, parts):
                for cuts in combinations(range(1, len(model.table)), parts - 1):
                    found = describe_segmentation(one, model, order, cuts)
                    if found.memory_highest_bytes <= memory:
                        known.append(found)
    return known


@pytest.mark.parametrize(
    ("first", "second", "tolerance_pct"),
    [
        ("latency", "energy", 30),
        ("energy", "latency", 8),
        ("throughput", "latency", 25),
        ("boards", "energy", 0),
    ],
)
@pytest.mark.parametrize("memory", [16_000, 40_000])
def test_stages_are_kept_over_networks_and_cuts(first, second, tolerance_pct, memory):
    fleet = f"odroid-xu4s,rpi-3b,stm32h7a3zi{WIRE}"
    one, known = question(fleet, memory=memory), brute(fleet, memory)
    best = min(each.value(first) for each in known)
    worst = best * (1 + tolerance_pct / 100)
    if first == "throughput":
        worst = best / (1 - tolerance_pct / 100)
    least = min(each.value(second) for each in known if each.value(first) <= worst * (1 + 1e-9))
    found = best_segmentation(one, TINY, stages=(stage(first, tolerance_pct), stage(second)))
    assert found.value(second) == pytest.approx(least)
    assert found.value(first) <= worst * (1 + 1e-6)


def test_capacity_takes_the_largest_network_that_fits():
    fleet = "odroid-xu4s,rpi-3b"
    for memory in (16_000, 40_000):
        known = brute(fleet, memory)
        largest = max(each.params for each in known)
        found = best_segmentation(
            question(fleet, memory=memory), TINY, stages=stages("capacity", "latency")
        )
        assert found.params == largest
        least_ms = min(each.total_ms for each in known if each.params == largest)
        assert found.total_ms == pytest.approx(least_ms)


def test_accuracy_is_what_the_estimate_says():
    one = question("odroid-xu4s,rpi-3b", memory=40_000)
    by_accuracy = (stage("accuracy"),)
    found = best_segmentation(one, TINY, stages=by_accuracy, accuracy=lambda *each: -each[0])
    assert found.network == str(TINY[0])
    found = best_segmentation(
        one, TINY, stages=by_accuracy, accuracy=lambda *each: each[1] / each[2]
    )
    assert found.network == str(TINY[2])
    unknown = best_segmentation(one, TINY, stages=by_accuracy, accuracy=lambda *_: None)
    assert unknown == best_segmentation(one, TINY, stages=())


def test_limits_hold():
    one = asked(memory=10**9)
    free = best_segmentation(one, [TEACHER], stages=stages("energy"))
    limit_ms = free.total_ms * 0.5
    fast = best_segmentation(one, [TEACHER], stages=stages("energy"), limits={"latency": limit_ms})
    assert fast.total_ms <= limit_ms
    assert fast.energy_fleet_mj > free.energy_fleet_mj
    least_ms = best_segmentation(one, [TEACHER], stages=stages("latency")).total_ms
    assert best_segmentation(one, [TEACHER], limits={"latency": 0.99 * least_ms}) is None


def test_why_nothing_fits():
    cases = {
        "its layer .* needs 2.6 MB, the largest board has 1.0 MB": asked(memory=1_000_000),
        "its weights need 35.8 MB, all boards together have 16.1 MB": asked(memory=3_500_000),
        "its layer .* needs 75.5 MFLOP, the largest budget is 60.0 MFLOP": asked(macs=30_000_000),
        "it needs 2.6 GFLOP, all budgets are 500.0 MFLOP": asked(macs=50_000_000),
        "no cut of it fits these boards": asked("odroid-xu4s,rpi-3b,rpi-4b", memory=12_000_000),
    }
    for reason, one in cases.items():
        assert best_segmentation(one, [TEACHER]) is None
        assert re.search(reason, infeasibility_reason(one, TEACHER))


def test_why_nothing_fits_whole_or_in_several_parts():
    assert infeasibility_reason(asked(), TEACHER, "one").endswith(
        "it needs 36.6 MB, the largest board has 12.0 MB"
    )
    alone = asked("rpi-3b", memory=10**9)
    assert best_segmentation(alone, [TEACHER], parts="several") is None
    assert infeasibility_reason(alone, TEACHER, "several").endswith("there is one board only")


def test_more_memory_and_more_boards_are_never_worse():
    before = None
    for fleet, memory in (
        ("rpi-3b*2,rpi-4b", 19_000_000),
        ("rpi-3b*2,rpi-4b", 25_000_000),
        ("rpi-3b*2,rpi-4b,odroid-xu4s", 25_000_000),
        ("rpi-3b*3,rpi-4b,odroid-xu4s", 50_000_000),
    ):
        found = best_segmentation(asked(fleet, memory=memory), [TEACHER], stages=stages("latency"))
        assert before is None or found.total_ms <= before + 1e-9
        before = found.total_ms
