"""What the students of a board ask of it, as linear expressions: memory, MACs, time, energy."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from ortools.sat.python import cp_model

from planner.instance import Instance
from planner.scaling import Affine, Units, busy_units, reply_units
from planner.variables import Expr, Variables, total


def cost_on(v: Variables, instance: Instance, board: int, costs: Sequence[Affine]) -> Expr:
    """Return the sum over a board's students of an affine cost, one per option.

    sum_{s,o} constant_o runs[s,b,o] + sum_{s,h} per_filter_h filters[s,b,h]; options of one head
    cost the same per filter.
    """
    slopes = {o.head: cost.per_filter for o, cost in zip(instance.options, costs, strict=True)}
    constants = (costs[o].constant * runs for _, o, runs in v.on(board))
    growing = (slopes[head] * filters for _, head, filters in v.filters_on(board))
    return total([*constants, *growing])


def params_on(v: Variables, instance: Instance, board: int) -> Expr:
    """Return the parameters of a board's students."""
    lines = (option.line for option in instance.options)
    costs = [Affine(line.params, line.params_per_filter) for line in lines]
    return cost_on(v, instance, board, costs)


def macs_on(v: Variables, instance: Instance, board: int) -> Expr:
    """Return the MACs per image of a board's students."""
    lines = (option.line for option in instance.options)
    costs = [Affine(line.macs, line.macs_per_filter) for line in lines]
    return cost_on(v, instance, board, costs)


def memory_on(model: cp_model.CpModel, v: Variables, instance: Instance, board: int) -> Expr:
    """Return what parameters and peak activations of a board's students take, in bytes."""
    sizes = ((option.line, option.value_bytes) for option in instance.options)
    weights = [Affine(size * line.params, size * line.params_per_filter) for line, size in sizes]
    peaks = _peaks(model, v, instance, board)
    return total([cost_on(v, instance, board, weights), *peaks])


def _peaks(model: cp_model.CpModel, v: Variables, instance: Instance, board: int) -> Iterator[Expr]:
    """Yield the peak activations of everything that may run on a board, in bytes.

    A peak is the largest of a few lines in the filters.  Where the same line is the largest over
    the whole range it is a constant; else what exceeds its least value is a variable above each
    line: excess >= fixed_i - least + slope_i filters.
    """
    for s, o, runs in v.on(board):
        option = instance.options[o]
        least = option.line.at(v.least_filters[s]).peak_elements
        largest = option.line.at(v.most_filters[s, board, o]).peak_elements
        yield option.value_bytes * least * runs
        if largest == least:
            continue
        excess = model.new_int_var(0, largest - least, f"excess{s},{board},{o}")
        for fixed, slope in option.line.peaks:
            grown = fixed - least + slope * v.filters[s, board, option.head]
            model.add(excess >= grown).only_enforce_if(runs)
        yield option.value_bytes * excess


def slowed_on(
    model: cp_model.CpModel, v: Variables, instance: Instance, board: int, units: Units
) -> cp_model.IntVar:
    """Return a variable that is at least the time (or energy) of all students of a board.

    Students that run at once share the processor and slow each other down:
    load >= sum_s alone[s]                where one student runs,
    load >= sum_s share[s]                where several run,
    load >= the two least shares' sum     where several run (implied; rules crowds out early).
    The first two hold always once the most by which they can be wrong is taken off, which needs
    no conditional constraint.
    """
    device = instance.sites[board].board.device
    alone = [units(device, option.line, False) for option in instance.options]
    share = [units(device, option.line, True) for option in instance.options]
    ends = [
        (s, alone[o].at(filters), share[o].at(filters))
        for s, o, _ in v.on(board)
        for filters in (v.least_filters[s], v.most_filters[s, board, o])
    ]
    most = most_together(v, instance, board)
    saved = max((max(0, one - together) for _, one, together in ends), default=0)
    added = max((max(0, together - one) for _, one, together in ends), default=0)
    highest = most * max((max(one, together) for _, one, together in ends), default=0)
    load = model.new_int_var(0, highest, f"load{board}")
    several = _several_on(model, v, board, most)
    model.add(load >= cost_on(v, instance, board, alone) - most * saved * several)
    model.add(load >= cost_on(v, instance, board, share) - added * (1 - several))
    least = _least_of_each((s, together) for s, _, together in ends)
    model.add(load >= sum(least[:2]) * several)
    return load


def most_together(v: Variables, instance: Instance, board: int) -> int:
    """Return the most students that can run on a board at once, going by the least of each."""
    site = instance.sites[board]
    device, reply = site.board.device, reply_units(site.board)
    needs: list[tuple[int | None, list[tuple[int, int]]]] = [
        (site.memory_bytes, []),
        (site.macs, []),
        (site.busy, []),
        (site.latest, []),
    ]
    for s, o, _ in v.on(board):
        option, filters = instance.options[o], v.least_filters[s]
        busy = busy_units(device, option.line, True).at(filters)
        macs = option.line.at(filters).macs
        costs = (option.memory_bytes(filters), macs, busy, busy + reply * filters)
        for (_, rows), cost in zip(needs, costs, strict=True):
            rows.append((s, cost))
    counts = [
        sum(used <= limit for used in accumulate(_least_of_each(rows)))
        for limit, rows in needs
        if limit is not None
    ]
    students = len({s for s, _, _ in v.on(board)})
    return max(1, min([students, *counts]))


def _least_of_each(costs: Iterable[tuple[int, int]]) -> list[int]:
    """Return the least cost of each student, in order."""
    least: dict[int, int] = {}
    for student, cost in costs:
        least[student] = min(cost, least.get(student, cost))
    return sorted(least.values())


def _several_on(model: cp_model.CpModel, v: Variables, board: int, most: int) -> cp_model.IntVar:
    """Say whether several run on a board: 2 several <= sum_s at[s,b] <= 1 + (most-1) several."""
    count = total(v.students_on(board))
    several = model.new_bool_var(f"several{board}")
    model.add(count >= 2 * several)
    model.add(count <= 1 + (most - 1) * several)
    return several
