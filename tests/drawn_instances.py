"""Instances drawn by a seed: boards, links, budgets, networks and communities, none of it real."""

from dataclasses import replace

import numpy as np
from made_hardware import device, figure, link

from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from planner.data.board_capacity import BoardCapacity
from planner.data.modes import (
    UNITS_PER_MJ,
    UNITS_PER_MS,
    DropChoice,
    Mode,
    Stem,
    busy_units,
    drain_units,
    energy_units,
)
from planner.data.problem_data import ProblemData
from planner.problem.duty import BatteryDrain
from profiles.device import Hosting
from profiles.fleet import Board
from profiles.layer import KindCost, LayerModel, LayerRates
from profiles.layer_rates import WORKS
from profiles.operating_point import most_macs_within

IMAGES = (ImageShape(1, 8, 8), ImageShape(3, 2, 2), ImageShape(1, 1, 1))
NETWORKS = ("wrn10:4,8,8", "wrn10:4,4,16", "wrn10:6,8,8", "wrn16:4,8,8")
WIDTHS = (*NETWORKS, "wrn10:4,8,16", "wrn10:4,4,8")


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
    return BoardCapacity(
        board,
        size if rng.random() < 0.7 else None,
        macs if rng.random() < 0.3 else None,
        busy=int(rng.integers(1, 60) * UNITS_PER_MS) if rng.random() < 0.2 else None,
        energy=int(rng.integers(1, 120) * UNITS_PER_MJ) if rng.random() < 0.2 else None,
    )


def with_flash(seed, instance):
    """The instance with flash and RAM apart on most boards, in addition to its other budgets.

    They are what up to three random students need, one after the other in RAM, or one byte less.
    """
    rng = np.random.default_rng((7, seed))

    def apart(site):
        if rng.random() < 0.2:
            return site
        stored, alive = 0, 0
        for _ in range(rng.integers(1, 4)):
            mode = instance.modes[rng.integers(len(instance.modes))]
            count = rng.integers(1, len(instance.sizes))
            filters = int(rng.choice(instance.sizes, count, replace=False).sum())
            cost, size = mode.line.at(filters), mode.value_bytes
            stored, alive = stored + size * cost.params, max(alive, size * cost.peak_elements)
        flash, ram = (size - int(rng.integers(2)) for size in (stored, alive))
        return replace(
            site,
            memory_bytes=site.memory_bytes if rng.random() < 0.3 else None,
            flash_bytes=flash if rng.random() < 0.8 else None,
            ram_bytes=ram if rng.random() < 0.8 else None,
        )

    return replace(instance, capacities=tuple(map(apart, instance.capacities)))


def random_drops(rng, sizes):
    """Up to two nested unions beside the empty one."""
    order = rng.permutation(len(sizes)).tolist()
    return tuple(
        DropChoice(
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
    options = tuple(Mode.of(spec, precision, image) for spec in specs for precision in precisions)
    return image, ProblemData(
        host=boards[0].device,
        capacities=tuple(random_site(rng, board, options, sizes) for board in boards),
        modes=options,
        sizes=sizes,
        drop_choices=random_drops(rng, sizes),
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
    options = tuple(Mode.of(spec, precision, image) for spec in specs for precision in precisions)
    shapes = {spec.group0: spec for spec in specs if alone}
    max_students = int(rng.integers(2, 5))
    return image, ProblemData(
        host=boards[0].device,
        capacities=tuple(random_site(rng, board, options, sizes) for board in boards),
        modes=options,
        sizes=sizes,
        drop_choices=tuple(d for d in random_drops(rng, sizes) if len(d.communities) < len(sizes)),
        min_students=int(rng.integers(1, max_students + 1)),
        max_students=max_students,
        image_bytes=image.size_bytes,
        reuse=reuse,
        copies_stem=seed % 8 != 1,
        stems=tuple(Stem.of(spec, image) for spec in shapes.values()),
    )


def like_communities(seed):
    """Two to four communities, all of which stay, for networks whose width and MACs disagree."""
    image, instance = random_instance(seed)
    rng = np.random.default_rng((1, seed))
    names = ("wrn10:4,8,8", "wrn10:4,4,16", "wrn10:4,12,8", "wrn10:4,8,16", "wrn10:4,16,4")
    specs = [parse_network(name) for name in rng.permutation(names)[:3]]
    precisions = [("fp32",), ("int8", "fp32")][rng.random() < 0.4]
    modes = tuple(Mode.of(spec, precision, image) for spec in specs for precision in precisions)
    sizes = tuple(rng.integers(3, 30, rng.integers(2, 5)).tolist())
    sites = [random_site(rng, site.board, modes, sizes) for site in instance.capacities]
    return image, replace(
        instance,
        modes=modes,
        sizes=sizes,
        capacities=tuple(sites),
        drop_choices=(DropChoice(frozenset(), 0, 0.0),),
        min_students=2,
        max_students=3,
    )


def with_layers(seed, image, instance):
    """The instance on devices that know layers: one by rates, the other by some or by measuring.

    Each third time the other device lacks a rate that students of some networks need, so that
    their times follow from FLOPs beside others' by layers.
    """
    rng = np.random.default_rng(seed)
    rates = {name: float(rng.uniform(0.01 if work.counted else 1, 1 if work.counted else 100))
             for name, work in WORKS.items()}  # fmt: skip
    some = {name: 2 * rate for name, rate in rates.items() if name != "strided"}
    kinds = [
        KindCost(kind=kind, kernels=("pointwise", "spatial"), layers=9, terms=terms)
        for kind, terms in (
            ("conv", {"fixed_ms": figure(0.3), "ms_per_pointwise_mmac": figure(80.0),
                      "ms_per_spatial_mmac": figure(40.0)}),
            ("norm", {"ms_per_activation_mb": figure(60.0)}),
            ("pool", {"fixed_ms": figure(0.2)}),
        )
    ]  # fmt: skip
    measured = LayerModel(kinds=kinds, layers=9, residual_pct=1, held_out_pct=None, source="test")
    other = ({"layer_rates": made_rates(some)}, {"layers": measured}, {})[seed % 3]
    updates = {"kind-0": {"layer_rates": made_rates(rates)}, "kind-1": other}

    def knowing(site):
        device = site.board.device
        known = device.model_copy(update=updates[device.name])
        return replace(site, board=replace(site.board, device=known))

    sites = tuple(map(knowing, instance.capacities))
    devices = tuple(dict.fromkeys(site.board.device for site in sites))
    modes = tuple(
        Mode.of(parse_network(mode.name), mode.precision, image, devices) for mode in instance.modes
    )
    return replace(instance, capacities=sites, modes=modes)


def made_rates(rates, low=0.75, high=1.25):
    return LayerRates(
        ms_per_unit=rates, low=low, high=high, rows=3, threads=1, source="drawn by a seed"
    )


def crowded_media(seed):
    """Boards on shared media, each too small for all filters, so that several have to reply."""
    image, instance = random_instance(seed, boards_on_media)
    room = max(option.memory_bytes(instance.filters * 2 // 3) for option in instance.modes)
    sites = tuple(replace(site, memory_bytes=room) for site in instance.capacities)
    return image, replace(instance, capacities=sites)


def with_points(seed, image, instance):
    """The instance whose boards run at one to three operating points: slower, and less hungry.

    Three of ten places have a power limit, as MACs that keep it there.

    Boards of one device have the same points.  The order of places mixes boards, and a board may be
    slower in one thing and quicker in another.
    """
    rng = np.random.default_rng((2, seed))
    points = {}
    kinds = {one.board.device.name: one.board.device for one in instance.capacities}
    for kind, first in sorted(kinds.items()):
        points[kind] = [first, *(_slower(rng, first, k) for k in range(rng.integers(0, 3)))]
    found = [
        (site, replace(one, board=Board(f"b{site} at {device.name}", device, one.board.link)))
        for site, one in enumerate(instance.capacities)
        for device in points[one.board.device.name]
    ]
    limits_w = rng.uniform(0.5, 2.6, len(found))
    found = [
        (site, replace(one, power_macs=most_macs_within(one.board.device, power_w)))
        if rng.random() < 0.3
        else (site, one)
        for (site, one), power_w in zip(found[:5], limits_w, strict=False)
    ]
    order = rng.permutation(len(found)) if rng.random() < 0.3 else range(len(found))
    sites, capacities = zip(*(found[k] for k in order), strict=True)
    return replace(instance, capacities=capacities, sites=sites)


def _slower(rng, device, number):
    factor = float(rng.uniform(1.2, 3.0))
    changes = {
        name: figure(getattr(device, name).value * factor)
        for name in ("compute_fixed_ms", "compute_ms_per_mmac", "message_ms")
    }
    power = float(rng.uniform(0.2, 0.9))
    changes |= {
        name: figure(getattr(device, name).value * power)
        for name in ("power_fixed_w", "power_busy_w")
    }
    return device.model_copy(update=changes | {"name": f"{device.name} slow {number}"})


def with_batteries(seed, instance):
    """The instance whose boards have batteries of unlike sizes, and some no idle power."""
    rng = np.random.default_rng((3, seed))
    period_ms = float(10 ** rng.uniform(0.5, 4))
    sites = instance.sites or range(len(instance.capacities))
    sizes_wh = rng.choice([1.0, 2.0, 3.7, 50.0], max(sites) + 1)
    kinds = sorted({one.board.device.name.split(" ")[0] for one in instance.capacities})
    # Less than any point draws while it computes: a fifth of the first one's power.
    idle_w = {kind: float(rng.choice([0.0, 0.1, 0.2])) for kind in kinds}
    capacities = tuple(
        replace(
            one,
            battery=BatteryDrain(
                share=float(sizes_wh.min() / sizes_wh[site]),
                idle_w=idle_w[one.board.device.name.split(" ")[0]],
                period_ms=period_ms,
            ),
        )
        for site, one in zip(sites, instance.capacities, strict=True)
    )
    return replace(instance, capacities=capacities)


def with_averages(seed, instance):
    """The instance at a rate of images; a third of the places are limited in average power.

    The limit lies above rest, by part of what one student takes there.
    """
    rng = np.random.default_rng((5, seed))
    drained = with_batteries(seed, instance)

    def limited(one):
        idling = replace(one.battery, share=1.0)
        one = replace(one, idling=idling, battery=None)
        if rng.random() < 0.65:
            return one
        mode = instance.modes[rng.integers(len(instance.modes))]
        student = drain_units(idling)(one.board.device, mode.line, False).at(max(instance.sizes))
        return replace(one, cycle=one.resting("cycle") + int(student * rng.uniform(0.6, 2.5)))

    return replace(drained, capacities=tuple(map(limited, drained.capacities)))


def company_needed(sizes, budget):
    """One board on which two students are quicker than one, and one of them only in company.

    `budget`, busy or energy, lets the dearer network have the smaller community together with the
    cheaper one, not alone.
    """
    image = ImageShape(1, 8, 8)
    hurried = device(
        "hurried",
        Hosting(join_fixed_ms=figure(2.0), fc_ms=figure(0.1)),
        compute_fixed_ms=0,
        compute_ms_per_mmac=100,
        power_fixed_w=1.5,
        power_busy_w=2.5,
        message_ms=1,
        sharing_slowdown=0.5,
    )
    names = ("wrn10:4,4,8", "wrn10:4,8,16")
    cheap, dear = (Mode.of(parse_network(name), "fp32", image) for name in names)
    small, large = min(sizes), max(sizes)
    alone = {"busy": busy_units, "energy": energy_units}[budget](hurried, dear.line, False).at(
        small
    )
    site = BoardCapacity(
        Board("b0", hurried, link("wire", 1e6)),
        dear.memory_bytes(small) + cheap.memory_bytes(large),
        None,
        **{budget: int(0.98 * alone)},
    )
    return image, ProblemData(
        host=hurried,
        capacities=(site,),
        modes=(cheap, dear),
        sizes=sizes,
        drop_choices=(DropChoice(frozenset(), 0, 0.0),),
        min_students=2,
        max_students=2,
        image_bytes=image.size_bytes,
    )
