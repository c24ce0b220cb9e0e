"""All plans of a small instance, in numbers and without the solver's arithmetic.

Costs are the closed forms of `nonn_core.networks.network_cost`, times those of
`simulator.workloads.fan_out`.  What a plan is worth depends on how many filters each student
mimics, not on which, so that divisions of the communities that have the same sizes are taken once.
"""

from functools import cache
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
from enumerated_balance import set_partitions, unevenness_pct, widest_filters_missing

from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import (
    BYTES_PER_VALUE,
    Cost,
    group0_cost,
    group0_table,
    student_cost,
    student_cost_line,
    student_layers,
    student_table,
)
from planner.accuracy.model import UNITS_PER_INDEX
from planner.data.modes import UNITS_PER_MJ, UNITS_PER_MS, UNITS_PER_POINT
from profiles.device import compute_mj, compute_ms, known_time, slowdown
from simulator.graph_builder import exchange_ms, join_ms, send_ms
from simulator.workloads.fan_out import reply_ms

cost_of = cache(lambda name, image, filters: student_cost(parse_network(name), image, filters))
table_of = cache(lambda name, image, filters: student_table(parse_network(name), image, filters))
head_cost_of = cache(
    lambda name, image, filters: student_cost_line(parse_network(name), image, own_group0=False).at(
        filters
    )
)


@cache
def behind_group0(name, image, filters):
    """Parameters, MACs, and the peak of a head: of G0's maps, and of all layers but the pool."""
    spec = parse_network(name)
    whole, group0 = cost_of(name, image, filters), group0_cost(spec, image)
    first, *rows = list(student_layers(spec, image, filters))[len(group0_table(spec, image)) : -1]
    # A wide residual block begins with a norm, which copies maps that others read, too.
    assert first.kind == "norm"
    peak = first.inputs.elements + max(row.live_elements for row in (first, *rows))
    return whole.params - group0.params, whole.macs - group0.macs, peak


@cache
def body_params(name, image):
    """Parameters of a student but its last layer, which has so many for each filter."""
    few, many = (cost_of(name, image, filters).params for filters in (5, 9))
    return few - 5 * (many - few) / 4


@cache
def layers_ms(device, name, image, filters, behind_group0=False):
    """A student's time by its whole tables of 5 and 9 filters; None where FLOPs predict it."""
    spec = parse_network(name)
    skipped = len(group0_table(spec, image)) if behind_group0 else 0
    few, many = (known_time(device, table_of(name, image, n)[skipped:]) for n in (5, 9))
    return few and few.ms + (many.ms - few.ms) / 4 * (filters - 5)


def group0_spent(device, spec, image, cost):
    """Time and energy of G0 on a board of its own."""
    known = known_time(device, group0_table(spec, image))
    if known is None:
        return compute_ms(device, cost.macs), compute_mj(device, cost.macs)
    return known.ms, device.power_busy_w.value * known.ms


def drain_mj(site, busy_ms, busy_mj):
    """Computing at its power, and the rest of the period idle, as of the smallest battery."""
    battery = site.battery
    if battery is None:
        return 0 * busy_ms
    return battery.share * (busy_mj + battery.idle_w * (battery.period_ms - busy_ms))


def cycle_mj(site, busy_ms, busy_mj):
    """Computing at its power, and the rest of the period idle, in mJ."""
    idling = site.idling
    if idling is None:
        return 0 * busy_ms
    return busy_mj + idling.idle_w * (idling.period_ms - busy_ms)


def computing_uw(device, macs):
    """Energy over time of computing so many MACs, in millionths of a W; 0 for none."""
    macs = np.asarray(macs)
    if device.knows_layers:
        return 1e6 * device.power_busy_w.value * (macs > 0)
    some = np.maximum(macs, 1)
    return 1e6 * compute_mj(device, some) / compute_ms(device, some) * (macs > 0)


def log_size(params, macs):
    return (np.log(params) + np.log(macs)) * UNITS_PER_INDEX


def divisions(instance, kept):
    """Filters of each student: communities divided; or one each, and all reshuffled again."""
    for groups in set_partitions(kept):
        if instance.min_students <= len(groups) <= instance.max_students:
            yield [sum(instance.sizes[c] for c in group) for group in groups]
    each = [instance.sizes[c] for c in kept]
    fewest = max(instance.min_students, len(each) + 1)
    for students in range(fewest, instance.max_students + 1) if instance.reuse else ():
        full, left = divmod(students, len(each))
        for last in combinations(each, left):
            yield full * each + list(last)


def plan_values(image, instance):
    """Yield arrays of each objective's values, in solver units, of the plans of one division."""
    assert not any(site.board.link.shared for site in instance.capacities)
    homes = list(alones(image, instance))
    for drop in instance.drop_choices:
        kept = [c for c in range(len(instance.sizes)) if c not in drop.communities]
        for filters in sorted({tuple(sorted(each)) for each in divisions(instance, kept)}):
            if instance.copies_stem:
                yield _Division(image, instance, drop, filters).values()
            for alone in homes:
                yield _Division(image, instance, drop, filters, alone).values()


def alones(image, instance):
    """Each board, and each shape of G0 that fits there in the fewest bytes that there are."""
    precision = min((o.precision for o in instance.modes), key=BYTES_PER_VALUE.get)
    specs = {spec.group0: spec for spec in (parse_network(o.name) for o in instance.modes)}
    for (place, site), group0 in product(enumerate(instance.capacities), instance.stems):
        cost = group0_cost(specs[group0.shape], image)
        device, memory = site.board.device, cost.memory_bytes(precision)
        spent_ms, spent_mj = group0_spent(device, specs[group0.shape], image, cost)
        needs = (
            (memory, site.memory_bytes),
            (cost.params * BYTES_PER_VALUE[precision], site.flash_bytes),
            (cost.peak_elements * BYTES_PER_VALUE[precision], site.ram_bytes),
            (cost.macs, site.macs),
            (cost.macs, site.power_macs),
            (spent_ms * UNITS_PER_MS, site.busy),
            (spent_mj * UNITS_PER_MJ, site.energy),
            (cycle_mj(site, spent_ms, spent_mj) * UNITS_PER_MJ, site.cycle),
        )
        if all(limit is None or need <= limit for need, limit in needs):
            yield Alone(place, group0.shape, cost, memory, group0.maps_bytes, spent_ms, spent_mj)


class Alone(NamedTuple):
    """G0 on a board of its own."""

    place: int
    shape: str
    cost: Cost
    memory: int
    maps_bytes: int
    spent_ms: float
    spent_mj: float


class _Division:
    """Students of known sizes: every choice of networks v, on every choice of boards p.

    A board's figures depend on v and on which students it has, a mask m.
    """

    def __init__(self, image, instance, drop, filters, alone=None):
        self.instance, self.drop, self.filters = instance, drop, np.array(filters)
        self.alone = alone
        count = len(filters)
        self.masks = np.array(list(product((False, True), repeat=count)))
        places = product(range(len(instance.capacities)), repeat=count)
        weights = 2 ** np.arange(count)[::-1]
        on = np.array(list(places))[:, :, None] == np.arange(len(instance.capacities))
        self.mask_on = (on * weights[:, None]).sum(axis=1)
        options = instance.modes
        shared = [
            chosen
            for chosen in product(range(len(options)), repeat=count)
            if len({options[o].group0 for o in chosen}) == 1
            and (alone is None or options[chosen[0]].group0 == alone.shape)
        ]
        self.chosen_modes = np.array(shared)
        self.image = image
        costed = head_cost_of if alone else cost_of
        costs = [[(costed(o.name, image, size), o.precision) for o in options] for size in filters]

        def chosen(figure):
            table = np.array([[figure(*each) for each in row] for row in costs])
            return table[np.arange(count), np.array(shared)]

        self.params = chosen(lambda cost, _: cost.params)
        self.macs = chosen(lambda cost, _: cost.macs)
        self.memory = chosen(lambda cost, precision: cost.memory_bytes(precision))
        self.memory_of, self.macs_of = (self.masks @ each.T for each in (self.memory, self.macs))
        stored = chosen(lambda cost, precision: cost.params * BYTES_PER_VALUE[precision])
        alive = chosen(lambda cost, precision: cost.peak_elements * BYTES_PER_VALUE[precision])
        self.flash_of = self.masks @ stored.T
        self.ram_of = (self.masks[:, None, :] * alive[None]).max(axis=2)
        self.bytes = chosen(lambda _, precision: BYTES_PER_VALUE[precision])
        self.shares = instance.shares_stem and alone is None
        if self.shares:
            self._share(chosen)

    def _share(self, chosen):
        """One G0 for all students of a board and a precision, by mask and choice."""
        specs = [parse_network(o.name) for o in self.instance.modes]
        # One shape for all students of a choice: the first one's.
        group0 = [group0_cost(specs[first], self.image) for first in self.chosen_modes[:, 0]]
        self.group0 = {
            name: np.array([getattr(cost, name) for cost in group0])
            for name in ("params", "macs", "peak_elements")
        }
        heads = [
            [behind_group0(o.name, self.image, int(size)) for o in self.instance.modes]
            for size in self.filters
        ]
        students = np.arange(len(self.filters))
        params, macs, peaks = np.moveaxis(np.array(heads)[students, self.chosen_modes], 2, 0)
        alone = chosen(lambda cost, _: cost.peak_elements)
        self.models = []
        self.memory_of = self.macs_of = self.flash_of = self.ram_of = 0
        for precision in sorted({o.precision for o in self.instance.modes}):
            fits = np.array([o.precision == precision for o in self.instance.modes])
            here = self.masks[:, None, :] & fits[self.chosen_modes][None]
            count, there = here.sum(axis=2), here.any(axis=2)
            joint = (here * peaks).max(axis=2) + here @ self.filters
            peak = np.where(
                count > 1,
                np.maximum(joint, self.group0["peak_elements"]),
                (here * alone).max(axis=2),
            )
            weights = (here * params).sum(axis=2) + there * self.group0["params"]
            work = (here * macs).sum(axis=2) + there * self.group0["macs"]
            self.memory_of = self.memory_of + BYTES_PER_VALUE[precision] * (weights + there * peak)
            self.flash_of = self.flash_of + BYTES_PER_VALUE[precision] * weights
            self.ram_of = np.maximum(self.ram_of, BYTES_PER_VALUE[precision] * there * peak)
            self.macs_of = self.macs_of + work
            self.models.append((here, there, work))
        used = self.masks.any(axis=1)[:, None]
        self.params_of = self.masks @ params.T + used * self.group0["params"]
        self.known_macs_of = self.masks @ macs.T + used * self.group0["macs"]

    def values(self):
        sites = self.instance.capacities
        tables = {site.board.device.name: self._spent(site.board.device) for site in sites}
        busy, energy = zip(*(tables[site.board.device.name] for site in sites), strict=True)
        fits = np.array([self._fits(*each) for each in zip(sites, busy, energy, strict=True)])
        fits = np.logical_and.reduce([fits[b][self.mask_on[:, b]] for b in range(len(sites))])
        if self.alone:
            fits &= self.mask_on[:, [self.alone.place]] == 0
        fits &= self._one_point_each()[:, None]
        p, v = np.nonzero(fits)
        on = self.mask_on[p]
        busy, energy = (
            np.stack([table[on[:, b], v] for b, table in enumerate(each)], axis=1)
            for each in (busy, energy)
        )
        reply = np.stack([self._replies(site)[on[:, b]] for b, site in enumerate(sites)], axis=1)
        send = (on > 0) * np.array([self._input_ms(each.board) for each in sites])
        sums = {
            name: getattr(self, name).sum(axis=1)[v]
            for name in ("params", "macs", "memory", "bytes")
        }
        if self.shares:
            tables = {"params": self.params_of, "macs": self.macs_of, "memory": self.memory_of}
            sums |= {name: table[on, v[:, None]].sum(axis=1) for name, table in tables.items()}
        known_macs = self.known_macs_of[on, v[:, None]].sum(axis=1) if self.shares else sums["macs"]
        same = np.ones(len(v))
        return self._with_group0({
            "accuracy": log_size(sums["params"], known_macs),
            "capacity": sums["params"],
            "imbalance": same * (self.filters.max() - self.filters.min()),
            "unevenness": same * unevenness_pct(self.instance, self.drop, self.filters.tolist()),
            "inversion": self._inversions()[v],
            "dropped": same * (self.drop.delta_val_pct - self.drop.filters) * UNITS_PER_POINT,
            "latency": self._latency(on > 0, send, busy + reply) * UNITS_PER_MS,
            "throughput": self._period(send, busy, reply) * UNITS_PER_MS,
            "energy": energy.sum(axis=1) * UNITS_PER_MJ,
            "energy-node": energy.max(axis=1) * UNITS_PER_MJ,
            "battery": self._drains(on > 0, busy, energy).max(axis=1) * UNITS_PER_MJ,
            "fleet-power": self._powers(on, v).sum(axis=1),
            "fleet-average-power": self._cycles(on > 0, busy, energy).sum(axis=1) * UNITS_PER_MJ,
            "memory": sums["memory"],
            "flops": sums["macs"],
            "boards": (on > 0).sum(axis=1),
            "students": same * len(self.filters),
            "precision": sums["bytes"],
        })  # fmt: skip

    def _one_point_each(self):
        """By choice of boards: no board works at two of its operating points."""
        works = self.mask_on > 0
        if self.alone:
            works[:, self.alone.place] = True
        sites = self.instance.sites or range(len(self.instance.capacities))
        at = [[site == each for site in sites] for each in sorted(set(sites))]
        return np.logical_and.reduce([works[:, here].sum(axis=1) <= 1 for here in at])

    def _drains(self, used, busy, energy):
        """Drain of each board that works from image to image, in mJ."""
        sites = self.instance.capacities
        each = [drain_mj(site, busy[:, b], energy[:, b]) for b, site in enumerate(sites)]
        return used * np.stack(each, axis=1)

    def _cycles(self, used, busy, energy):
        """Energy of each board that works from image to image, in mJ."""
        sites = self.instance.capacities
        each = [cycle_mj(site, busy[:, b], energy[:, b]) for b, site in enumerate(sites)]
        return used * np.stack(each, axis=1)

    def _powers(self, on, v):
        """Power of each board while it computes, in millionths of a W."""
        sites = self.instance.capacities
        each = [
            computing_uw(site.board.device, self.macs_of[on[:, b], v])
            for b, site in enumerate(sites)
        ]
        return np.stack(each, axis=1)

    def _inversions(self):
        """By choice of networks: how many filters more narrower students have than wider ones."""
        names = [option.name for option in self.instance.modes]
        bodies = [body_params(name, self.image) for name in names]
        filters = self.filters.tolist()
        return np.array([
            widest_filters_missing([bodies[o] for o in chosen], filters)
            for chosen in self.chosen_modes.tolist()
        ])  # fmt: skip

    def _input_ms(self, board):
        if self.alone is None:
            return send_ms(board, self.instance.image_bytes)
        source = self.instance.capacities[self.alone.place].board
        return exchange_ms(source, board, self.alone.maps_bytes)

    def _with_group0(self, values):
        """Add what G0 costs on its own board, and what all answers wait for there."""
        if self.alone is None:
            return values
        board, cost = self.instance.capacities[self.alone.place].board, self.alone.cost
        sent_ms = send_ms(board, self.instance.image_bytes)
        spent_ms, energy = self.alone.spent_ms, self.alone.spent_mj * UNITS_PER_MJ
        lead_ms = sent_ms + spent_ms + 2 * board.link.latency_ms.value
        return values | {
            "accuracy": log_size(values["capacity"] + cost.params, values["flops"] + cost.macs),
            "capacity": values["capacity"] + cost.params,
            "latency": values["latency"] + lead_ms * UNITS_PER_MS,
            "throughput": np.maximum(values["throughput"], max(sent_ms, spent_ms) * UNITS_PER_MS),
            "energy": values["energy"] + energy,
            "energy-node": np.maximum(values["energy-node"], energy),
            "battery": np.maximum(
                values["battery"],
                UNITS_PER_MJ
                * drain_mj(
                    self.instance.capacities[self.alone.place], spent_ms, self.alone.spent_mj
                ),
            ),
            "fleet-power": values["fleet-power"] + computing_uw(board.device, cost.macs),
            "fleet-average-power": values["fleet-average-power"]
            + UNITS_PER_MJ
            * cycle_mj(self.instance.capacities[self.alone.place], spent_ms, self.alone.spent_mj),
            "memory": values["memory"] + self.alone.memory,
            "flops": values["flops"] + cost.macs,
            "boards": values["boards"] + 1,
        }

    def _spent(self, device):
        """Time and energy of a device by mask and choice."""
        if self.shares:
            return self._spent_jointly(device)
        alone = self._spent_alone(device)
        factors = np.array([slowdown(device, int(mask.sum())) for mask in self.masks])
        return [factors[:, None] * (self.masks @ each.T) for each in alone]

    def _spent_jointly(self, device):
        """One model for each precision: by layers if all its students', else by FLOPs."""
        options = self.instance.modes
        known = np.array([
            [layers_ms(device, o.name, self.image, int(n)) or np.nan for o in options]
            for n in self.filters
        ])[np.arange(len(self.filters)), self.chosen_modes]  # fmt: skip
        specs = [parse_network(o.name) for o in options]
        times = [known_time(device, group0_table(spec, self.image)) for spec in specs]
        once = np.array([each.ms if each else np.nan for each in times])[self.chosen_modes[:, 0]]
        busy = energy = models = 0
        for here, there, work in self.models:
            layers = np.where(here, known, 0).sum(axis=2) - (here.sum(axis=2) - 1) * once
            by_flops = np.isnan(np.where(here, known, 0)).any(axis=2)
            ms = np.where(by_flops, compute_ms(device, work), layers)
            mj = np.where(by_flops, compute_mj(device, work), device.power_busy_w.value * layers)
            busy = busy + np.where(there, ms, 0)
            energy = energy + np.where(there, mj, 0)
            models = models + there
        factor = np.where(models > 1, slowdown(device, 2), 1)
        return factor * busy, factor * energy

    def _spent_alone(self, device):
        """Time and energy by choice and student, each alone."""
        ms, mj = compute_ms(device, self.macs), compute_mj(device, self.macs)
        for s, filters in enumerate(self.filters):
            for o, option in enumerate(self.instance.modes):
                args = (device, option.name, self.image, int(filters), self.alone is not None)
                known_ms = layers_ms(*args)
                if known_ms is not None:
                    rows = self.chosen_modes[:, s] == o
                    ms[rows, s] = known_ms
                    mj[rows, s] = device.power_busy_w.value * known_ms
        return ms, mj

    def _fits(self, site, busy, energy):
        needs = (
            (self.memory_of, site.memory_bytes),
            (self.flash_of, site.flash_bytes),
            (self.ram_of, site.ram_bytes),
            (self.macs_of, site.macs),
            (self.macs_of, site.power_macs),
            (busy * UNITS_PER_MS, site.busy),
            (energy * UNITS_PER_MJ, site.energy),
            (cycle_mj(site, busy, energy) * (self.macs_of > 0) * UNITS_PER_MJ, site.cycle),
        )
        return np.logical_and.reduce(
            [need <= (np.inf if limit is None else limit) for need, limit in needs]
        )

    def _replies(self, site):
        return np.array([reply_ms(site.board, int(n)) for n in self.masks @ self.filters])

    def _latency(self, used, send, tail):
        """Longest tail first, which on wires of their own is best (Jackson 1955)."""
        delay = np.array(
            [2 * each.board.link.latency_ms.value for each in self.instance.capacities]
        )
        tail = used * (tail + delay)
        order = np.argsort(-tail, axis=1)
        sent = np.cumsum(np.take_along_axis(send, order, axis=1), axis=1)
        ends = sent + np.take_along_axis(tail, order, axis=1)
        return ends.max(axis=1) + join_ms(self.instance.host)

    def _period(self, send, busy, reply):
        half = np.array([each.board.link.duplex == "half" for each in self.instance.capacities])
        wire = np.where(half, send + reply, np.maximum(send, reply))
        longest = np.maximum(np.maximum(wire, busy).max(axis=1), send.sum(axis=1))
        return np.maximum(longest, join_ms(self.instance.host))
