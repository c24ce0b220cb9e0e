"""Linear expressions of what boards use: parameters, MACs, memory, time, energy.

Students are models of their own, or, where they share G0, joint models, one for each precision of a
board (`planner.data.mode_costs`).
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Literal

from planner import solvers as cp_model
from planner.data.mode_costs import (
    JointUnits,
    Spent,
    joint_units,
    knows_layers,
    spent_units,
    stem_cost,
)
from planner.data.modes import LATEST_UNITS, Affine, Mode, busy_units, reply_units
from planner.data.problem_data import ProblemData
from planner.solvers.variables import Expr, Variables, sum_of


def cost_on(v: Variables, data: ProblemData, board: int, costs: Sequence[Affine]) -> Expr:
    """Return the sum over a board's students of an affine cost, one per option.

    sum_{s,o} constant_o runs[s,b,o] + sum_{s,h} per_filter_h filters[s,b,h]; options of one head
    cost the same per filter.
    """
    slopes = {o.cost_slope: cost.per_filter for o, cost in zip(data.modes, costs, strict=True)}
    constants = (costs[o].constant * runs for _, o, runs in v.on(board))
    growing = (slopes[head] * filters for _, head, filters in v.filters_on(board))
    return sum_of([*constants, *growing])


def params_on(v: Variables, data: ProblemData, board: int) -> Expr:
    """Return the parameters of a board's students, a shared G0 counted once."""
    return _weights_on(v, data, board, "params", _known_stems(v, data, board))


def macs_on(v: Variables, data: ProblemData, board: int) -> Expr:
    """Return the MACs per image of a board's students."""
    return _weights_on(v, data, board, "macs", copied_stems(v, data, board))


def known_macs_on(v: Variables, data: ProblemData, board: int) -> Expr:
    """Return the MACs of a board's students, a shared G0 counted once."""
    return _weights_on(v, data, board, "macs", _known_stems(v, data, board))


Stems = Sequence[tuple[Mode, cp_model.IntVar]]
"""A mode of each copy of G0 that a board may have, and whether it has it."""


def _known_stems(v: Variables, data: ProblemData, board: int) -> Stems:
    modes = {mode.group0: mode for mode in data.modes}
    return [(modes[g], there) for (b, g), there in v.knows_stem.items() if b == board]


def copied_stems(v: Variables, data: ProblemData, board: int) -> Stems:
    """Modes of the copies of G0 on a board, and whether it has them."""
    modes: dict[tuple[str, str], Mode] = {(one.group0, one.precision): one for one in data.modes}
    return [(modes[g, q], there) for (b, g, q), there in v.copies_stem.items() if b == board]


def head_costs(data: ProblemData, figure: Literal["params", "macs"]) -> list[Affine]:
    """Parameters or MACs of a student of each mode, without a G0 that it shares."""
    return [
        Affine(
            getattr(mode.line, figure)
            - (getattr(stem_cost(mode), figure) if data.shares_stem else 0),
            getattr(mode.line, f"{figure}_per_filter"),
        )
        for mode in data.modes
    ]


def _weights_on(
    v: Variables, data: ProblemData, board: int, figure: Literal["params", "macs"], stems: Stems
) -> Expr:
    heads = cost_on(v, data, board, head_costs(data, figure))
    shared = [getattr(stem_cost(mode), figure) * there for mode, there in stems]
    return sum_of([heads, *shared]) if shared else heads


def slowed_on(
    model: cp_model.CpModel, v: Variables, data: ProblemData, board: int, spent: Spent
) -> Expr:
    """Variable at least the time (or energy) of all students of a board.

    Students that run at once share the processor and slow each other down:
    load >= sum_s alone[s]                where one student runs,
    load >= sum_s share[s]                where several run,
    load >= the two least shares' sum     where several run (implied; rules crowds out early).
    The first two hold always once the most by which they can be wrong is taken off, which needs
    no conditional constraint.
    """
    if data.shares_stem:
        return _joint_spent_on(model, v, data, board, spent)
    units = spent_units(spent, data.capacities[board])
    device = data.capacities[board].board.device
    alone = [units(device, mode.line, False) for mode in data.modes]
    share = [units(device, mode.line, True) for mode in data.modes]
    ends = [
        (s, alone[o].at(filters), share[o].at(filters))
        for s, o, _ in v.on(board)
        for filters in (v.least_filters[s], v.most_filters[s, board, o])
    ]
    most = most_together(v, data, board)
    saved = max((max(0, one - together) for _, one, together in ends), default=0)
    added = max((max(0, together - one) for _, one, together in ends), default=0)
    highest = most * max((max(one, together) for _, one, together in ends), default=0)
    load = model.new_int_var(0, highest, f"load{board}")
    several = _several_students_on(model, v, board, most)
    model.add(load >= cost_on(v, data, board, alone) - most * saved * several)
    model.add(load >= cost_on(v, data, board, share) - added * (1 - several))
    least = _least_of_each((s, together) for s, _, together in ends)
    model.add(load >= sum(least[:2]) * several)
    return load


def _joint_spent_on(
    model: cp_model.CpModel, v: Variables, data: ProblemData, board: int, spent: Spent
) -> Expr:
    """Time (or energy) of all joint models of a board, one for each precision.

    One model takes its own time; two slow each other down: load >= sum of all, alone or together.
    """
    precisions = list(dict.fromkeys(data.modes[o].precision for _, o, _ in v.on(board)))
    alone = [_model_spent(model, v, data, board, spent, q, several=False) for q in precisions]
    if len(precisions) < 2:
        return sum_of(alone)
    there = [
        sum_of(c for (b, _, q), c in v.copies_stem.items() if (b, q) == (board, precision))
        for precision in precisions
    ]
    several = model.new_bool_var(f"models{board}")
    model.add(sum_of(there) >= 2 * several)
    model.add(sum_of(there) <= 1 + several)
    together = [_model_spent(model, v, data, board, spent, q, several=True) for q in precisions]
    load = model.new_int_var(0, LATEST_UNITS, f"load{board}")
    model.add(load >= sum_of(alone)).only_enforce_if(~several)
    model.add(load >= sum_of(together)).only_enforce_if(several)
    return load


def _model_spent(
    model: cp_model.CpModel,
    v: Variables,
    data: ProblemData,
    board: int,
    spent: Spent,
    precision: str,
    *,
    several: bool,
) -> Expr:
    """Time (or energy) of a board's joint model of a precision.

    By layers where they are known of all its students, else by FLOPs.
    """
    capacity = data.capacities[board]
    modes = {o: mode for o, mode in enumerate(data.modes) if mode.precision == precision}
    known = {o for o, mode in modes.items() if knows_layers(capacity.board.device, mode)}

    def joined(by_layers: bool) -> Expr:
        units = {
            o: joint_units(spent, capacity, mode, several=several, by_layers=by_layers)
            for o, mode in modes.items()
            if o in known or not by_layers
        }
        return _joint_on(model, v, data, board, units)

    here = [(o, runs) for _, o, runs in v.on(board) if o in modes]
    by_flops = [runs for o, runs in here if o not in known]
    if len(by_flops) in (0, len(here)):
        return joined(not by_flops)
    mixed = model.new_bool_var(f"by FLOPs{board},{precision}")
    for runs in by_flops:
        model.add_implication(runs, mixed)
    model.add_bool_or([*by_flops, ~mixed])
    load = model.new_int_var(0, LATEST_UNITS, f"model{board},{precision}")
    model.add(load >= joined(True)).only_enforce_if(~mixed)
    model.add(load >= joined(False)).only_enforce_if(mixed)
    return load


def _joint_on(
    model: cp_model.CpModel,
    v: Variables,
    data: ProblemData,
    board: int,
    units: Mapping[int, JointUnits],
) -> Expr:
    """Sum of heads and of G0, the dearest where modes say unlike things of it."""
    none = Affine(0, 0)
    heads = [units[o].head if o in units else none for o in range(len(data.modes))]
    stems: list[Expr] = []
    for mode, there in copied_stems(v, data, board):
        key = (mode.group0, mode.precision)
        costs = {
            o: one.stem
            for o, one in units.items()
            if (data.modes[o].group0, data.modes[o].precision) == key
        }
        if len(set(costs.values())) == 1:
            stems.append(next(iter(costs.values())) * there)
        elif costs:
            dearest = model.new_int_var(0, max(costs.values()), f"stem{board},{key}")
            for _, o, runs in v.on(board):
                if o in costs:
                    model.add(dearest >= costs[o] * runs)
            stems.append(dearest)
    return sum_of([cost_on(v, data, board, heads), *stems])


def most_together(v: Variables, data: ProblemData, board: int) -> int:
    """Most students on a board at once, by the least of each."""
    capacity = data.capacities[board]
    device, reply = capacity.board.device, reply_units(capacity.board)
    needs: list[tuple[int | None, list[tuple[int, int]]]] = [
        (capacity.memory_bytes, []),
        (capacity.flash_bytes, []),
        (capacity.macs, []),
        (capacity.busy, []),
        (capacity.latest, []),
    ]
    for s, o, _ in v.on(board):
        mode, filters = data.modes[o], v.least_filters[s]
        busy = busy_units(device, mode.line, True).at(filters)
        sizes = mode.memory_bytes(filters), mode.flash_bytes(filters)
        costs = (*sizes, mode.line.at(filters).macs, busy, busy + reply * filters)
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


def _several_students_on(
    model: cp_model.CpModel, v: Variables, board: int, most: int
) -> cp_model.IntVar:
    """Boolean: several students on a board.

    2 several <= sum_s at[s,b] <= 1 + (most - 1) several.
    """
    count = sum_of(v.students_on(board))
    several = model.new_bool_var(f"several{board}")
    model.add(count >= 2 * several)
    model.add(count <= 1 + (most - 1) * several)
    return several
