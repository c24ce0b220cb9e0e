"""The search for a cut against all cuts of all orders of boards."""

from itertools import combinations, pairwise, permutations

import numpy as np
import pytest
from made_hardware import device, figure
from split_models import conv, fc

from nonn_common.errors import UnprovenError
from planner.data.board_capacity import BoardCapacity
from planner.pipelines.label_search import CutSearch, undominated
from planner.pipelines.segment_costs import MOST_KINDS, CutModel, SegmentCosts
from profiles.device import Hosting
from profiles.fleet import Board
from profiles.link import LinkProfile
from simulator.task_graph import period_ms
from simulator.workloads.pipeline import pipeline_graph, pipeline_latency_ms

AIMS = ("latency", "energy", "energy-node", "throughput", "boards")
HOST = device("desk", Hosting(join_fixed_ms=figure(3.0), fc_ms=figure(0.1)))


def random_link(rng, name):
    duplex, shared = [("full", False), ("half", False), ("half", True)][rng.integers(3)]
    return LinkProfile(
        name=name,
        title=name,
        bits_per_s=figure(float(rng.uniform(1e5, 4e6))),
        latency_ms=figure(float(rng.choice([0.0, 1.5]))),
        duplex=duplex,
        shared=shared,
    )


def random_device(rng, name):
    figures = {
        "compute_fixed_ms": rng.uniform(0, 3),
        "compute_ms_per_mmac": rng.uniform(5, 2000),
        "power_fixed_w": rng.uniform(0, 2),
        "power_busy_w": rng.uniform(0.5, 4),
        "message_ms": rng.uniform(0, 3),
    }
    return device(name, **{key: float(value) for key, value in figures.items()})


def random_model(rng, layers):
    widths = rng.integers(1, 9, size=layers)
    table, size = [], 8
    for inputs, outputs in pairwise(widths):
        stride = int(rng.choice([1, 2])) if size > 2 else 1
        table.append(conv(int(inputs), int(outputs), size, stride=stride))
        size = table[-1].out_height
    table.append(fc(int(widths[-1]) * size**2, 5))
    live = tuple(layer.in_elements + layer.out_elements for layer in table)
    return CutModel("made", tuple(table), live)


def random_case(seed):
    """Boards of a few kinds, which are often alike, and budgets that often bind."""
    rng = np.random.default_rng(seed)
    model = random_model(rng, int(rng.integers(2, 6)))
    whole = model.memory_bytes(0, len(model.table))
    kinds = [
        (
            random_device(rng, f"device{kind}"),
            random_link(rng, f"link{kind % 2}"),
            None if rng.random() < 0.3 else int(whole * rng.uniform(0.3, 1.2)),
            None if rng.random() < 0.7 else int(model.macs * rng.uniform(0.3, 1.2)),
        )
        for kind in range(int(rng.integers(1, 5)))
    ]
    links = {each[1].name: each[1] for each in kinds}
    sites = []
    for number in range(int(rng.integers(1, 5))):
        made, link, elements, macs = kinds[rng.integers(len(kinds))]
        sites.append(BoardCapacity(Board(f"board{number}", made, links[link.name]), elements, macs))
    return model, sites


def fits(model, sites, cuts):
    bounds = (0, *cuts, len(model.table))
    for site, (start, end) in zip(sites, pairwise(bounds), strict=True):
        macs = sum(layer.macs for layer in model.table[start:end])
        if site.memory_bytes is not None and model.memory_bytes(start, end) > site.memory_bytes:
            return False
        if site.macs is not None and macs > site.macs:
            return False
    return True


def values(model, sites, cuts):
    made = pipeline_graph(model.table, [site.board for site in sites], HOST, cuts)
    energies_mj = [step.energy_mj for step in made.steps if step.activity == "compute"]
    return {
        "latency": pipeline_latency_ms(made),
        "energy": sum(energies_mj),
        "energy-node": max(energies_mj),
        "throughput": period_ms(made),
        "boards": len(sites),
    }


def everything(model, sites, least=1, most=99):
    """The values of all segmentations that fit."""
    return [
        values(model, order, cuts)
        for parts in range(least, min(len(sites), len(model.table), most) + 1)
        for order in permutations(sites, parts)
        for cuts in combinations(range(1, len(model.table)), parts - 1)
        if fits(model, order, cuts)
    ]


def value_of(costs, model, sites, route):
    left = [list(places) for places in costs.board_classes]
    order = [sites[left[stop.kind].pop()] for stop in route]
    cuts = [stop.end for stop in route[:-1]]
    assert fits(model, order, cuts)
    return values(model, order, cuts)


@pytest.mark.parametrize("cells", [1_000_000, 60], ids=["all at once", "by critical kinds"])
@pytest.mark.parametrize("seed", range(120))
def test_the_optimum_is_that_of_all_cuts_and_orders(monkeypatch, seed, cells):
    monkeypatch.setattr("planner.pipelines.label_search.MOST_CELLS", cells)
    model, sites = random_case(seed)
    costs = SegmentCosts(model, sites, HOST)
    search, known = CutSearch(costs), everything(model, sites)
    rng = np.random.default_rng(seed)
    for aim in AIMS:
        least = min((each[aim] for each in known), default=None)
        route = search.optimum(aim, {})
        if least is None:
            assert route is None
            continue
        assert value_of(costs, model, sites, route)[aim] == pytest.approx(least, rel=1e-9)
        assert search.bound(aim) <= least * (1 + 1e-9)
        # The same under limits on other aims, somewhere between their extremes.
        first, second = rng.choice([each for each in AIMS if each != aim], 2, replace=False)
        limits = {
            str(other): float(np.quantile([each[other] for each in known], rng.uniform())) + 1e-9
            for other in (first, second)
        }
        allowed = [each for each in known if all(each[o] <= most for o, most in limits.items())]
        route = search.optimum(aim, limits)
        if not allowed:
            assert route is None
            continue
        found = value_of(costs, model, sites, route)
        assert found[aim] == pytest.approx(min(each[aim] for each in allowed), rel=1e-9)
        assert all(found[other] <= most + 1e-6 for other, most in limits.items())


@pytest.mark.parametrize(("parts", "least", "most"), [("one", 1, 1), ("several", 2, 99)])
def test_a_number_of_parts_can_be_asked_for(parts, least, most):
    for seed in range(20):
        model, sites = random_case(seed)
        costs = SegmentCosts(model, sites, HOST, parts)
        known = everything(model, sites, least, most)
        route = CutSearch(costs).optimum("latency", {})
        assert (route is None) == (not known)
        if route:
            found = value_of(costs, model, sites, route)["latency"]
            assert found == pytest.approx(min(each["latency"] for each in known))


def test_the_cases_try_what_they_should():
    """Some fit nowhere, some need several boards; half-duplex and shared links occur."""
    cases = [random_case(seed) for seed in range(120)]
    known = [everything(model, sites) for model, sites in cases]
    fewest = [min((each["boards"] for each in one), default=0) for one in known]
    assert {0, 1, 2, 3} <= set(fewest)
    boards = [site.board for _, sites in cases for site in sites]
    assert {(board.link.duplex, board.link.shared) for board in boards} == {
        ("full", False),
        ("half", False),
        ("half", True),
    }


def test_many_boards_that_are_alike_are_counted():
    model = random_model(np.random.default_rng(0), 6)
    rng = np.random.default_rng(1)
    made, link = random_device(rng, "device"), random_link(rng, "link")
    most = max(map(model.memory_bytes, range(6), range(1, 7)))
    many = [BoardCapacity(Board(f"board{n}", made, link), most, None) for n in range(200)]
    assert len(SegmentCosts(model, many, HOST).board_classes) == 1
    few = many[:6]
    routes = [
        CutSearch(SegmentCosts(model, each, HOST)).optimum("energy", {}) for each in (few, many)
    ]
    assert routes[0] == routes[1] is not None


def test_too_many_kinds_of_boards_are_refused():
    model, sites = random_case(0)
    board = sites[0].board
    many = [BoardCapacity(board, 1000 + number, None) for number in range(MOST_KINDS + 1)]
    with pytest.raises(UnprovenError, match="at most 64 kinds of boards; found 65"):
        SegmentCosts(model, many, HOST)


def test_a_search_that_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr("planner.pipelines.label_search.MOST_LABELS", 1)
    model, sites = next(
        case for case in map(random_case, range(99)) if len(everything(*case, least=3)) > 1
    )
    with pytest.raises(UnprovenError, match="too large a search"):
        CutSearch(SegmentCosts(model, sites, HOST, "several")).optimum("latency", {})


def test_undominated_is_what_no_other_of_its_group_is_as_good_as():
    rng = np.random.default_rng(0)
    for rows in (1, 2, 3):
        groups = rng.integers(0, 3, 60)
        figures = rng.integers(0, 6, (rows, 60)).astype(float)
        kept = undominated(groups, figures)
        for each in range(60):
            others = [k for k in kept if groups[k] == groups[each]]
            assert any((figures[:, k] <= figures[:, each]).all() for k in others)
        for one, other in permutations(kept, 2):
            if groups[one] == groups[other]:
                assert not (figures[:, one] <= figures[:, other]).all()
