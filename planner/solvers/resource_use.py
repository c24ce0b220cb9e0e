"""Use of resources by boards, as linear expressions, and the budgets that it keeps.

Of bytes: weights that boards store, and activations that are alive while models run.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from nonn_core.networks.network_cost import head_peaks
from planner import solvers as cp_model
from planner.data.board_capacity import BoardCapacity
from planner.data.mode_costs import joint_ways, stem_cost
from planner.data.modes import (
    LATEST_UNITS,
    Affine,
    CostSlope,
    Mode,
    UnitCost,
    busy_units,
    drain_units,
    energy_units,
    reply_units,
)
from planner.data.problem_data import ProblemData
from planner.problem.budgets import IN_TURN, Resource
from planner.solvers.board_costs import (
    copied_stems,
    cost_on,
    head_costs,
    macs_on,
    params_on,
    slowed_on,
)
from planner.solvers.variables import Expr, Variables, sum_of
from profiles.operating_point import power_saving, whole_power

LONGEST = 2**52
"""More than the MACs of any board in parts, so that they fit the solver's numbers."""
MOST_STUDENTS = 10**6
"""No board runs more; a bound that only the solver's arithmetic needs."""


def memory_on(model: cp_model.CpModel, v: Variables, data: ProblemData, board: int) -> Expr:
    """Bytes of parameters and peak activations of a board's students."""
    peaks = (_joint_peaks if data.shares_stem else _peaks)(model, v, data, board)
    return sum_of([*_stored(v, data, board), *peaks])


def flash_on(v: Variables, data: ProblemData, board: int) -> Expr:
    """Bytes of parameters of a board's students."""
    return sum_of(_stored(v, data, board))


def ram_on(model: cp_model.CpModel, v: Variables, data: ProblemData, board: int) -> Expr:
    """Bytes of the largest peak of a board's models, which run in turn.

    ram >= peak of each model.
    """
    ram = model.new_int_var(0, LATEST_UNITS, f"ram{board}")
    if data.shares_stem:
        for peak in _joint_peaks(model, v, data, board):
            model.add(ram >= peak)
        return sum_of([ram])
    for s, o, runs in v.on(board):
        mode = data.modes[o]
        size, filters = mode.value_bytes, v.filters[s, board, mode.cost_slope]
        lines = [(size * fixed, size * slope) for fixed, slope in mode.line.peaks]
        _above(model, ram, lines, filters, runs, (v.least_filters[s], v.most_filters[s, board, o]))
    return sum_of([ram])


def _stored(v: Variables, data: ProblemData, board: int) -> Iterator[Expr]:
    """Yield the bytes of parameters of heads, and of each shared G0."""
    heads = zip(head_costs(data, "params"), data.modes, strict=True)
    sizes = ((head, mode.value_bytes) for head, mode in heads)
    weights = [Affine(size * head.constant, size * head.per_filter) for head, size in sizes]
    yield cost_on(v, data, board, weights)
    for mode, there in copied_stems(v, data, board):
        yield mode.value_bytes * stem_cost(mode).params * there


def _peaks(model: cp_model.CpModel, v: Variables, data: ProblemData, board: int) -> Iterator[Expr]:
    """Yield the peak activations of everything that may run on a board, in bytes.

    A peak is the largest of a few lines in the filters.  Where the same line is the largest over
    the whole range it is a constant; else what exceeds its least value is a variable above each
    line: excess >= fixed_i - least + slope_i filters.
    """
    for s, o, runs in v.on(board):
        mode = data.modes[o]
        least = mode.line.at(v.least_filters[s]).peak_elements
        largest = mode.line.at(v.most_filters[s, board, o]).peak_elements
        yield mode.value_bytes * least * runs
        if largest == least:
            continue
        excess = model.new_int_var(0, largest - least, f"excess{s},{board},{o}")
        for fixed, slope in mode.line.peaks:
            grown = fixed - least + slope * v.filters[s, board, mode.cost_slope]
            model.add(excess >= grown).only_enforce_if(runs)
        yield mode.value_bytes * excess


def _joint_peaks(
    model: cp_model.CpModel, v: Variables, data: ProblemData, board: int
) -> Iterator[Expr]:
    """Yield peak activations of the joint models that a board may run, in bytes.

    Of one student it is the largest of the lines of its own; of several, also at least each line
    with G0's maps alive (`nonn_core.networks.network_cost.joint_cost`) plus all their filters.
    """
    for precision in dict.fromkeys(data.modes[o].precision for _, o, _ in v.on(board)):
        here = [row for row in v.on(board) if data.modes[row[1]].precision == precision]
        size = data.modes[here[0][1]].value_bytes
        filters = sum_of(
            n for _, head, n in v.filters_on(board) if head in _slopes_of(data, precision)
        )
        ends = [max(c + k * data.filters for c, k in _lines(data.modes[o])) for _, o, _ in here]
        most = max(ends) + data.rounds * data.filters
        peak = model.new_int_var(0, most, f"peak{board},{precision}")
        behind = model.new_int_var(0, max(ends), f"behind{board},{precision}")
        joined = model.new_bool_var(f"joined{board},{precision}")
        students = len({s for s, _, _ in here})
        model.add(sum_of(runs for _, _, runs in here) <= 1 + (students - 1) * joined)
        model.add(peak >= behind + filters).only_enforce_if(joined)
        for s, o, runs in here:
            mode, limits = data.modes[o], (v.least_filters[s], v.most_filters[s, board, o])
            own = v.filters[s, board, mode.cost_slope]
            _above(model, peak, mode.line.peaks, own, runs, limits)
            _above(model, behind, head_peaks(mode.line.outline), own, runs, limits)
        yield size * peak


def _slopes_of(data: ProblemData, precision: str) -> set[CostSlope]:
    return {mode.cost_slope for mode in data.modes if mode.precision == precision}


def _lines(mode: Mode) -> list[tuple[int, int]]:
    return [*mode.line.peaks, *head_peaks(mode.line.outline)]


def _above(
    model: cp_model.CpModel,
    peak: cp_model.IntVar,
    lines: Sequence[tuple[int, int]],
    filters: cp_model.IntVar,
    runs: cp_model.IntVar,
    ends: tuple[int, int],
) -> None:
    """Let peak >= each line where it runs; a constant where one is always largest."""
    least, most = (max(fixed + slope * end for fixed, slope in lines) for end in ends)
    model.add(peak >= least * runs)
    for fixed, slope in lines if most > least else ():
        if fixed + slope * ends[1] > least:
            model.add(peak >= fixed + slope * filters).only_enforce_if(runs)


def use_on(
    model: cp_model.CpModel, v: Variables, data: ProblemData, board: int, figure: Resource
) -> Expr:
    """Use of a resource by a board's students, or by G0 alone there."""
    if board not in v.used:
        return sum_of([data.stem_usage_on(board, figure)])
    if figure == "params":
        return params_on(v, data, board)
    if figure == "macs":
        return macs_on(v, data, board)
    if figure == "memory_bytes":
        return memory_on(model, v, data, board)
    if figure == "flash_bytes":
        return flash_on(v, data, board)
    if figure == "ram_bytes":
        return ram_on(model, v, data, board)
    if figure == "value_bytes":
        return sum_of(data.modes[o].value_bytes * runs for _, o, runs in v.on(board))
    if figure == "power":
        return power_on(model, v, data, board)
    spent = slowed_on(model, v, data, board, figure)
    resting = data.capacities[board].resting(figure)
    return sum_of([spent, resting * v.used[board]]) if resting else spent


def power_on(model: cp_model.CpModel, v: Variables, data: ProblemData, board: int) -> Expr:
    """Power of a board while it computes, as `whole_power` has it.

    power >= busy_w used - saved, with saved = (busy_w - fixed_w) M / (M + macs).
    """
    device, used = data.capacities[board].board.device, v.used[board]
    saving = power_saving(device)
    if saving is None:
        return sum_of([whole_power(device, 1) * used])
    length = model.new_int_var(saving.long, LONGEST, f"length{board}")
    model.add(length == saving.parts * macs_on(v, data, board) + saving.long)
    saved = model.new_int_var(0, saving.most, f"saved{board}")
    # Of products this large the solver's relaxation refutes what there is; a quotient is exact.
    model.add_division_equality(saved, saving.most * saving.long, length)
    power = model.new_int_var(0, saving.busy, f"power{board}")
    model.add(power >= saving.busy * used - saved)
    return sum_of([power])


def budgets_hold(model: cp_model.CpModel, v: Variables, data: ProblemData) -> None:
    """Keep what a board's students use of each limited resource within its budget.

    use[b] <= B[b]: h and f of arXiv:1907.11804, Eq. 2, and time and energy of an image.
    """
    for b in data.boards:
        for figure, limit in data.capacities[b].limits:
            if limit is not None:
                model.add(use_on(model, v, data, b, figure) <= limit)


def _sizes(value_bytes: int, params: int, peak: int) -> dict[str, int]:
    """Bytes of parameters and a peak, together and apart."""
    flash, ram = value_bytes * params, value_bytes * peak
    return {"memory_bytes": flash + ram, "flash_bytes": flash, "ram_bytes": ram}


@dataclass(frozen=True, slots=True)
class LeastUse:
    """Least cost of a student on a board, by mode and filters, in solver units.

    Power is that of all students together, of which one adds nothing by itself.
    """

    memory_bytes: int
    flash_bytes: int
    ram_bytes: int
    macs: int
    params: int
    value_bytes: int
    busy: int
    energy: int
    drain: int
    cycle: int
    reply: int
    power: int = 0

    @classmethod
    def of(cls, capacity: BoardCapacity, mode: Mode, filters: int) -> "LeastUse":
        """Alone or as its share among several, whichever costs less."""
        device, cost = capacity.board.device, mode.line.at(filters)

        def least(units: UnitCost) -> int:
            return min(units(device, mode.line, several).at(filters) for several in (False, True))

        return cls(
            **_sizes(mode.value_bytes, cost.params, cost.peak_elements),
            macs=cost.macs,
            params=cost.params,
            value_bytes=mode.value_bytes,
            busy=least(busy_units),
            energy=least(energy_units),
            drain=least(drain_units(capacity.battery)),
            cycle=least(drain_units(capacity.idling)),
            reply=reply_units(capacity.board) * filters,
        )

    @classmethod
    def behind_group0(cls, capacity: BoardCapacity, mode: Mode, filters: int) -> "LeastUse":
        """The same of a student whose G0 others pay for."""
        cost, stem = mode.line.at(filters), stem_cost(mode)
        behind = filters + max(c + k * filters for c, k in head_peaks(mode.line.outline))
        peak = min(cost.peak_elements, max(stem.peak_elements, behind))
        sizes = _sizes(mode.value_bytes, cost.params - stem.params, peak)
        return cls(
            **sizes | {"memory_bytes": sizes["flash_bytes"]},
            macs=cost.macs - stem.macs,
            params=cost.params - stem.params,
            value_bytes=mode.value_bytes,
            busy=min(one.head.at(filters) for one in joint_ways("busy", capacity, mode)),
            energy=min(one.head.at(filters) for one in joint_ways("energy", capacity, mode)),
            drain=min(one.head.at(filters) for one in joint_ways("drain", capacity, mode)),
            cycle=min(one.head.at(filters) for one in joint_ways("cycle", capacity, mode)),
            reply=reply_units(capacity.board) * filters,
        )

    @classmethod
    def of_group0(cls, capacity: BoardCapacity, modes: Sequence[Mode]) -> "LeastUse":
        """Least cost of G0 to a board with students of these modes, of one shape."""
        stem, size = stem_cost(modes[0]), min(mode.value_bytes for mode in modes)
        return cls(
            **_sizes(size, stem.params, stem.peak_elements),
            macs=stem.macs,
            params=stem.params,
            value_bytes=0,
            busy=min(one.stem for mode in modes for one in joint_ways("busy", capacity, mode)),
            energy=min(one.stem for mode in modes for one in joint_ways("energy", capacity, mode)),
            drain=min(one.stem for mode in modes for one in joint_ways("drain", capacity, mode)),
            cycle=min(one.stem for mode in modes for one in joint_ways("cycle", capacity, mode)),
            reply=0,
        )

    def most(self, capacity: BoardCapacity) -> int:
        """Most such students within the budgets of a board."""
        needs = [(name, getattr(self, name), limit) for name, limit in capacity.limits]
        needs = [each for each in needs if each[1] > 0]
        rooms = (
            MOST_STUDENTS * (need <= limit) if name in IN_TURN else limit // need
            for name, need, limit in needs
            if limit is not None
        )
        return min(rooms, default=MOST_STUDENTS)


def least_cost(costs: Iterable[Affine], stem: int = 0) -> tuple[int, Affine]:
    """Least cost of a student, and before it what all share of it."""
    constants, slopes = zip(*((one.constant, one.per_filter) for one in costs), strict=True)
    return stem, Affine(min(constants) - stem, min(slopes))


def _separate_lines(modes: Sequence[Mode]) -> Iterator[tuple[int, Affine]]:
    """Yield parameters and one line of the peak, in bytes."""
    for place in range(min(len(mode.line.peaks) for mode in modes)):
        yield least_cost(_line_bytes(mode, *mode.line.peaks[place]) for mode in modes)


def _joint_lines(modes: Sequence[Mode]) -> Iterator[tuple[int, Affine]]:
    """Yield weights with the peak of G0, or with that behind it, in bytes."""
    least, group0 = min(mode.value_bytes for mode in modes), stem_cost(modes[0])
    _, head = least_cost(_line_bytes(mode, -group0.params, 0) for mode in modes)
    yield least * (group0.params + group0.peak_elements), head
    if len({mode.precision for mode in modes}) == 1:
        held = min(fixed for mode in modes for fixed, _ in head_peaks(mode.line.outline)[:1])
        yield least * (group0.params + held), Affine(head.constant, head.per_filter + least)


def flash_line(modes: Sequence[Mode], stem: int) -> tuple[int, Affine]:
    """Weights of students behind a G0 of so many parameters, and those of G0."""
    least = min(mode.value_bytes for mode in modes)
    weights = (
        Affine(
            mode.value_bytes * (mode.line.params - stem),
            mode.value_bytes * mode.line.params_per_filter,
        )
        for mode in modes
    )
    return least * stem, least_cost(weights)[1]


def _peak_lines(modes: Sequence[Mode]) -> Iterator[tuple[int, Affine]]:
    """Yield one line of a student's peak."""
    for place in range(min(len(mode.line.peaks) for mode in modes)):
        lines = [(mode.value_bytes, *mode.line.peaks[place]) for mode in modes]
        yield least_cost(Affine(size * fixed, size * slope) for size, fixed, slope in lines)


def _joint_peak_lines(modes: Sequence[Mode]) -> Iterator[tuple[int, Affine]]:
    """Yield bytes of G0's peak in a joint model, and of that behind it."""
    least = min(mode.value_bytes for mode in modes)
    yield least * stem_cost(modes[0]).peak_elements, Affine(0, 0)
    if len({mode.precision for mode in modes}) == 1:
        held = min(fixed for mode in modes for fixed, _ in head_peaks(mode.line.outline)[:1])
        yield least * held, Affine(0, least)


def _line_bytes(mode: Mode, fixed: int, slope: int) -> Affine:
    line, size = mode.line, mode.value_bytes
    return Affine(size * (line.params + fixed), size * (line.params_per_filter + slope))


ByteLines = list[tuple[int, Affine]]
"""Least bytes of students of a board: what comes once, and what comes with each."""


def memory_lines(modes: Sequence[Mode], *, joint: bool) -> ByteLines:
    """Lines that bound weights and activations of students, from below."""
    return list((_joint_lines if joint else _separate_lines)(modes))


def ram_lines(modes: Sequence[Mode], *, joint: bool) -> ByteLines:
    """Lines that bound activations: of one student, or of the joint model of all."""
    return list((_joint_peak_lines if joint else _peak_lines)(modes))
