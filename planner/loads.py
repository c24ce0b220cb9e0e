"""What the students of a board ask of it, as linear expressions: memory, MACs, time, energy."""

from collections.abc import Callable, Iterator, Sequence

from ortools.sat.python import cp_model

from nonn_core.costs import StudentCostLine
from planner.instance import Instance
from planner.scaling import Affine
from planner.variables import Expr, Variables, total
from profiles.device import DeviceProfile

Figures = Callable[[DeviceProfile, StudentCostLine, bool], Affine]
"""Cost of one student on a device, alone (False) or as its share among several (True)."""


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


def elements_on(model: cp_model.CpModel, v: Variables, instance: Instance, board: int) -> Expr:
    """Return parameters plus peak activations of a board's students, in elements."""
    peaks = _peaks(model, v, instance, board)
    return total([params_on(v, instance, board), *peaks])


def _peaks(model: cp_model.CpModel, v: Variables, instance: Instance, board: int) -> Iterator[Expr]:
    """Yield the peak activations of everything that may run on a board.

    A peak is the largest of a few lines in the filters.  Where the same line is the largest over
    the whole range it is a constant; else what exceeds its least value is a variable above each
    line: excess >= fixed_i - least + slope_i filters.
    """
    smallest = min(instance.sizes)
    for s, o, runs in v.on(board):
        option = instance.options[o]
        least = option.line.at(smallest).peak_elements
        largest = option.line.at(v.most_filters[board, o]).peak_elements
        yield least * runs
        if largest == least:
            continue
        excess = model.new_int_var(0, largest - least, f"excess{s},{board},{o}")
        for fixed, slope in option.line.peaks:
            grown = fixed - least + slope * v.filters[s, board, option.head]
            model.add(excess >= grown).only_enforce_if(runs)
        yield excess


def slowed_on(
    model: cp_model.CpModel, v: Variables, instance: Instance, board: int, figures: Figures
) -> cp_model.IntVar:
    """Return a variable that is at least the time (or energy) of all students of a board.

    Students that run at once share the processor and slow each other down:
    load >= sum_s alone[s]     where one student runs,
    load >= sum_s share[s]     where several run,
    load >= 2 min share        where several run (implied; rules crowded boards out early).
    The first two hold always once the most by which they can be wrong is taken off, which needs
    no conditional constraint.
    """
    device = instance.sites[board].board.device
    alone = [figures(device, option.line, False) for option in instance.options]
    share = [figures(device, option.line, True) for option in instance.options]
    runnable = [(alone[o], share[o], most) for (b, o), most in v.most_filters.items() if b == board]
    ends = [(a.at(f), s.at(f)) for a, s, most in runnable for f in (0, most)]
    saved = max((max(0, a - s) for a, s in ends), default=0)
    added = max((max(0, s - a) for a, s in ends), default=0)
    least = min((s.at(min(instance.sizes)) for _, s, _ in runnable), default=0)
    highest = instance.slots * max(map(max, ends), default=0)
    load = model.new_int_var(0, highest, f"load{board}")
    several = _several_on(model, v, board)
    model.add(load >= cost_on(v, instance, board, alone) - instance.slots * saved * several)
    model.add(load >= cost_on(v, instance, board, share) - added * (1 - several))
    model.add(load >= 2 * least * several)
    return load


def _several_on(model: cp_model.CpModel, v: Variables, board: int) -> cp_model.IntVar:
    """Say whether two or more run on a board: 2 several <= sum_s at[s,b] <= 1 + slots several."""
    count = total(v.students_on(board))
    several = model.new_bool_var(f"several{board}")
    model.add(count >= 2 * several)
    model.add(count <= 1 + len(v.active) * several)
    return several
