"""All plans of a small instance, one after the other: every division, placement and send order."""

from collections import Counter, defaultdict
from functools import cache
from itertools import permutations, product
from math import log, pi, sqrt

from enumerated_plans import (
    behind_group0,
    computing_uw,
    cost_of,
    cycle_mj,
    divisions,
    drain_mj,
)
from scipy.stats import gumbel_r

from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import BYTES_PER_VALUE, Cost, group0_cost
from planner.accuracy.model import UNITS_PER_INDEX
from planner.data.modes import UNITS_PER_MJ, UNITS_PER_MS, UNITS_PER_POINT
from simulator.graph_builder import join_ms, send_ms
from simulator.workloads.fan_out import busy_mj, busy_ms, reply_ms


def all_plans(image, instance):
    """Yield the value of every objective for every plan that keeps all rules."""
    places = range(len(instance.capacities))
    for drop in instance.drop_choices:
        kept = [c for c in range(len(instance.sizes)) if c not in drop.communities]
        for filters in divisions(instance, kept):
            for options in product(instance.modes, repeat=len(filters)):
                if len({option.group0 for option in options}) > 1:
                    continue
                costs = [
                    cost_of(o.name, image, size) for o, size in zip(options, filters, strict=True)
                ]
                precisions = [option.precision for option in options]
                for boards in product(places, repeat=len(filters)):
                    load = tuple(zip(boards, costs, filters, precisions, strict=True))
                    names = [option.name for option in options]
                    models = models_of(image, instance, load, names)
                    if fits(instance, models):
                        yield values(instance, drop, load, models, known(image, load, names))


def models_of(image, instance, load, names):
    """Cost and precision of each model, by its board: one for each student, or joined by G0."""
    if not instance.shares_stem:
        return [(board, cost, precision) for board, cost, _, precision in load]
    groups = defaultdict(list)
    for (board, cost, filters, precision), name in zip(load, names, strict=True):
        groups[board, precision].append((cost, filters, name))
    found = []
    for (board, precision), here in groups.items():
        group0 = group0_cost(parse_network(here[0][2]), image)
        heads = [behind_group0(name, image, filters) for _, filters, name in here]
        joint = max(peak for *_, peak in heads) + sum(filters for _, filters, _ in here)
        cost = Cost(
            group0.params + sum(params for params, *_ in heads),
            group0.macs + sum(macs for _, macs, _ in heads),
            max(group0.peak_elements, joint) if heads[1:] else here[0][0].peak_elements,
        )
        found.append((board, cost, precision))
    return found


def known(image, load, names):
    """Parameters and MACs that count once for each board that students share."""
    group0 = group0_cost(parse_network(names[0]), image)
    repeated = len(load) - len({board for board, *_ in load})
    return tuple(
        sum(getattr(row[1], figure) for row in load) - repeated * getattr(group0, figure)
        for figure in ("params", "macs")
    )


def fits(instance, models):
    for b, site in enumerate(instance.capacities):
        here = [(cost, precision) for board, cost, precision in models if board == b]
        macs = [cost.macs for cost, _ in here]
        device = site.board.device
        needs = (
            (sum(cost.memory_bytes(precision) for cost, precision in here), site.memory_bytes),
            (sum(BYTES_PER_VALUE[q] * cost.params for cost, q in here), site.flash_bytes),
            (
                max([BYTES_PER_VALUE[q] * cost.peak_elements for cost, q in here], default=0),
                site.ram_bytes,
            ),
            (sum(macs), site.macs),
            (busy_ms(device, macs) * UNITS_PER_MS, site.busy),
            (busy_mj(device, macs) * UNITS_PER_MJ, site.energy),
        )
        if any(limit is not None and need > limit for need, limit in needs):
            return False
    return True


@cache
def beyond_mean(share):
    """How far a share's quantile of the standard Gumbel distribution lies beyond its mean."""
    return float(gumbel_r.ppf(share) - gumbel_r.mean())


def values(instance, drop, load, models, known):
    """Each objective in solver units, though not whole ones; for throughput the period.

    `known` are the parameters and MACs of students that share G0.
    """
    turns, energies_mj, drains_mj, held_ms = [], [], [], Counter(host=0.0)
    cycles_mj, powers_uw = [], []
    each = 0.95 ** (1 / len({board for board, *_ in load}))
    late = []
    for b, site in enumerate(instance.capacities):
        macs = [cost.macs for board, cost, _ in models if board == b]
        if macs:
            send = send_ms(site.board, instance.image_bytes)
            reply = reply_ms(site.board, sum(n for board, _, n, _ in load if board == b))
            busy = busy_ms(site.board.device, macs)
            turns.append((send, busy, reply, site.board.link))
            cv = site.board.device.compute_cv
            scale_ms = cv.value * busy * sqrt(6) / pi if cv else 0.0
            beyond_ms = scale_ms * beyond_mean(each)
            late.append((send, busy + beyond_ms, reply, site.board.link))
            energies_mj.append(busy_mj(site.board.device, macs))
            drains_mj.append(drain_mj(site, busy, energies_mj[-1]))
            cycles_mj.append(cycle_mj(site, busy, energies_mj[-1]))
            powers_uw.append(float(computing_uw(site.board.device, sum(macs))))
            wire = site.board.link.name if site.board.link.shared else f"wire {b}"
            back = wire if site.board.link.duplex == "half" else f"back {b}"
            held_ms.update({"host": send, f"cpu {b}": busy})
            held_ms.update({wire: send})
            held_ms.update({back: reply})
    sizes = [filters for _, _, filters, _ in load]
    params, macs = (
        known
        if instance.shares_stem
        else (sum(getattr(row[1], name) for row in load) for name in ("params", "macs"))
    )
    join = join_ms(instance.host)
    return {
        "accuracy": (log(params) + log(macs)) * UNITS_PER_INDEX,
        "capacity": params,
        "imbalance": max(sizes) - min(sizes),
        "dropped": (drop.delta_val_pct - drop.filters) * UNITS_PER_POINT,
        "latency": (min(map(makespan, permutations(turns))) + join) * UNITS_PER_MS,
        "latency-p95": (min(map(makespan, permutations(late))) + join) * UNITS_PER_MS,
        "throughput": max(join, *held_ms.values()) * UNITS_PER_MS,
        "energy": sum(energies_mj) * UNITS_PER_MJ,
        "energy-node": max(energies_mj) * UNITS_PER_MJ,
        "battery": max(drains_mj) * UNITS_PER_MJ,
        "fleet-power": sum(powers_uw),
        "fleet-average-power": sum(cycles_mj) * UNITS_PER_MJ,
        "memory": sum(cost.memory_bytes(precision) for _, cost, precision in models),
        "flops": sum(cost.macs for _, cost, _ in models),
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
