"""Decision variables, and linear expressions of what boards use.

Only choices that can fit exist: a network that does not fit alone on a board, with its budgets and
the smallest community, has no variable there, and modes that no optimal plan needs are removed
before.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from planner import solvers as cp_model
from planner.data.modes import (
    Affine,
    Assignment,
    CostSlope,
    Mode,
    UnitCost,
    busy_units,
    energy_units,
    reply_units,
)
from planner.data.objective_function import ModeCriterion
from planner.data.problem_data import ProblemData


def remove_dominated_modes(
    data: ProblemData, criteria: Collection[ModeCriterion], known: Assignment | None = None
) -> ProblemData:
    """Remove each option that another one with the same G0 replaces without a loss.

    Those that a `known` assignment has stay.

    The other must be no worse in everything that counts, from the fewest to the most filters: in
    no more MACs always; in parameters, MACs or bytes per value where a level asks for more of them;
    in memory where a level asks for less or where a budget can bind.
    """
    counts = {*criteria, *(("memory",) if _memory_can_bind(data) else ())}
    worth = {o: tuple(_costs(o, data, counts)) for o in data.modes}
    used = {(one.network, one.precision) for one in (known.students if known else ())}
    kept: list[Mode] = []
    for mode in sorted(data.modes, key=lambda one: worth[one]):
        chosen = (mode.name, mode.precision) in used
        if chosen or not any(_dominates(worth, other, mode) for other in kept):
            kept.append(mode)
    return replace(data, modes=tuple(mode for mode in data.modes if mode in kept))


def _dominates(worth: dict[Mode, tuple[int, ...]], other: Mode, mode: Mode) -> bool:
    return other.group0 == mode.group0 and all(
        a <= b for a, b in zip(worth[other], worth[mode], strict=True)
    )


def _costs(mode: Mode, data: ProblemData, counts: Collection[str]) -> Iterator[int]:
    """Yield what counts, less being better, at both ends of the range of filters.

    Everything is linear in the filters (a peak line by line), so that the ends decide.  Time and
    energy follow from the MACs, but where layers predict them.
    """
    devices = dict.fromkeys(one.board.device for one in data.capacities)
    layered = [device for device in devices if device.knows_layers]
    for filters in (min(data.sizes), data.filters):
        cost = mode.line.at(filters)
        yield cost.macs
        for device in layered:
            yield busy_units(device, mode.line, False).at(filters)
            yield energy_units(device, mode.line, False).at(filters)
        if "macs" in counts:
            yield -cost.macs
        if "params" in counts:
            yield -cost.params
        if "precision" in counts:
            yield -mode.value_bytes
        if "memory" in counts:
            for fixed, slope in mode.line.peaks:
                yield mode.value_bytes * (cost.params + fixed + slope * filters)


def _memory_can_bind(data: ProblemData) -> bool:
    """Say whether the most and largest students would overfill some board."""
    most = data.most_students * max(o.memory_bytes(data.filters) for o in data.modes)
    limits = (capacity.memory_bytes for capacity in data.capacities)
    return any(limit is not None and most > limit for limit in limits)


Expr = cp_model.LinearExpr


def sum_of(terms: Iterable[Expr | int]) -> Expr:
    """Add up expressions of the model."""
    return cp_model.LinearExpr.sum(list(terms))


@dataclass(frozen=True, slots=True)
class Variables:
    """Students are slots 0 .. slots-1, then those of `further` rounds, in their order.

    Keys are (community|student, student|board, option|head); only students of the first round have
    members.

    active[s]         student s exists
    member[c, s]      community c belongs to student s
    drop[d]           drop step d is what is dropped
    runs[s, b, o]     student s is network o on board b
    filters[s, b, h]  filters of student s where it is on board b with a head of kind h, else 0
    group0[g]         all students share a G0 of shape g
    used[b]           board b has a student
    precedes[a, b]    the host sends to board a before b; only where latency is measured
    picks[s, o]       student s is network o, on whichever boards; only where students are copied
    known[s, h]       filters of student s where it has a head of kind h; only then
    waits[b]          the host waits for board b; only then, and where latency is measured
    waited[s, b]      ... and has the features of student s from it

    Two figures: `most_filters[s, b, o]`, the most filters of student s where it runs o on b, and
    `least_filters[s]`, the fewest that it has at all.
    """

    active: tuple[cp_model.IntVar, ...]
    member: dict[tuple[int, int], cp_model.IntVar]
    drop: tuple[cp_model.IntVar, ...]
    runs: dict[tuple[int, int, int], cp_model.IntVar]
    filters: dict[tuple[int, int, CostSlope], cp_model.IntVar]
    group0: dict[str, cp_model.IntVar]
    used: dict[int, cp_model.IntVar]
    precedes: dict[tuple[int, int], cp_model.IntVar]
    picks: dict[tuple[int, int], cp_model.IntVar]
    known: dict[tuple[int, CostSlope], cp_model.IntVar]
    waits: dict[int, cp_model.IntVar]
    waited: dict[tuple[int, int], cp_model.IntVar]
    extra_students: tuple[tuple[int, int], ...]
    most_filters: dict[tuple[int, int, int], int]
    least_filters: tuple[int, ...]

    @property
    def first_round(self) -> range:
        """The students whose partitions are communities."""
        return range(len(self.active) - len(self.extra_students))

    def follow(self) -> Iterator[tuple[int, int, cp_model.IntVar]]:
        """Yield (round, community, active) of each student of a further round."""
        for (number, community), active in zip(
            self.extra_students, self.active[len(self.first_round) :], strict=True
        ):
            yield number, community, active

    def size(self, data: ProblemData, student: int) -> Expr:
        """Return |P_s|, the filters of a student's communities."""
        return sum_of(
            size * self.member[community, student] for community, size in enumerate(data.sizes)
        )

    def replica_sets(self, student: int, out: Collection[int] = ()) -> list[cp_model.IntVar]:
        """Return runs[s,b,o] of a student, but on the boards that are out."""
        return [runs for (s, b, _), runs in self.runs.items() if s == student and b not in out]

    def on(self, board: int) -> Iterator[tuple[int, int, cp_model.IntVar]]:
        """Yield (student, option, variable) of everything that may run on a board."""
        for (student, where, mode), runs in self.runs.items():
            if where == board:
                yield student, mode, runs

    def students_on(self, board: int) -> list[Expr]:
        """Return at[s,b] for each student s: 1 where it runs on the board, else 0."""
        at: list[list[cp_model.IntVar]] = [[] for _ in self.active]
        for student, _, runs in self.on(board):
            at[student].append(runs)
        return [sum_of(choices) for choices in at]

    def filters_on(self, board: int) -> Iterator[tuple[int, CostSlope, cp_model.IntVar]]:
        """Yield (student, head, filters) of everything that may run on a board."""
        for (student, where, head), filters in self.filters.items():
            if where == board:
                yield student, head, filters


def create_variables(model: cp_model.CpModel, data: ProblemData) -> Variables:
    """Create the variables of `instance` in `model`."""
    first, further = range(data.slots), data.extra_students
    extents = _filter_ranges(data)
    students = range(len(extents))
    most = mode_choices(data)
    heads = sorted({(s, b, data.modes[o].cost_slope) for s, b, o in most})
    return Variables(
        active=tuple(model.new_bool_var(f"active{s}") for s in students),
        member={
            (c, s): model.new_bool_var(f"member{c},{s}") for c in data.communities for s in first
        },
        drop=tuple(model.new_bool_var(f"drop{d}") for d in range(len(data.drop_choices))),
        runs={(s, b, o): model.new_bool_var(f"runs{s},{b},{o}") for s, b, o in most},
        filters={
            (s, b, h): model.new_int_var(0, data.filters, f"filters{s},{b},{h}")
            for s, b, h in heads
        },
        group0={
            shape: model.new_bool_var(f"group0{shape}")
            for shape in sorted({mode.group0 for mode in data.modes})
        },
        used={b: model.new_bool_var(f"used{b}") for b in data.boards},
        precedes={},
        picks={
            key: model.new_bool_var(f"picks{key}")
            for key in sorted({(s, o) for s, _, o in most} if data.has_copies else ())
        },
        known={
            key: model.new_int_var(0, data.filters, f"known{key}")
            for key in sorted({(s, h) for s, _, h in heads} if data.has_copies else ())
        },
        waits={},
        waited={},
        extra_students=further,
        most_filters=most,
        least_filters=tuple(least for least, _ in extents),
    )


def mode_choices(data: ProblemData) -> dict[tuple[int, int, int], int]:
    """Return the most filters of each (student, board, option) that fits with the fewest."""
    found = {}
    extents = _filter_ranges(data)
    for b in data.boards:
        for o, mode in enumerate(data.modes):
            fits = data.capacities[b].most_filters(mode, data.filters)
            for s, (least, most) in enumerate(extents):
                if fits >= least:
                    found[s, b, o] = min(fits, most)
    return dict(sorted(found.items()))


def _filter_ranges(data: ProblemData) -> list[tuple[int, int]]:
    """Fewest and most filters of each student; equal in extra rounds."""
    first = [data.filter_range_of_slot(s) for s in range(data.slots)]
    return first + [(data.sizes[c], data.sizes[c]) for _, c in data.extra_students]


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
    """Return the parameters of a board's students."""
    lines = (mode.line for mode in data.modes)
    costs = [Affine(line.params, line.params_per_filter) for line in lines]
    return cost_on(v, data, board, costs)


def macs_on(v: Variables, data: ProblemData, board: int) -> Expr:
    """Return the MACs per image of a board's students."""
    lines = (mode.line for mode in data.modes)
    costs = [Affine(line.macs, line.macs_per_filter) for line in lines]
    return cost_on(v, data, board, costs)


def memory_on(model: cp_model.CpModel, v: Variables, data: ProblemData, board: int) -> Expr:
    """Bytes of parameters and peak activations of a board's students."""
    sizes = ((mode.line, mode.value_bytes) for mode in data.modes)
    weights = [Affine(size * line.params, size * line.params_per_filter) for line, size in sizes]
    peaks = _peaks(model, v, data, board)
    return sum_of([cost_on(v, data, board, weights), *peaks])


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


def slowed_on(
    model: cp_model.CpModel, v: Variables, data: ProblemData, board: int, units: UnitCost
) -> cp_model.IntVar:
    """Variable at least the time (or energy) of all students of a board.

    Students that run at once share the processor and slow each other down:
    load >= sum_s alone[s]                where one student runs,
    load >= sum_s share[s]                where several run,
    load >= the two least shares' sum     where several run (implied; rules crowds out early).
    The first two hold always once the most by which they can be wrong is taken off, which needs
    no conditional constraint.
    """
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


def most_together(v: Variables, data: ProblemData, board: int) -> int:
    """Most students on a board at once, by the least of each."""
    capacity = data.capacities[board]
    device, reply = capacity.board.device, reply_units(capacity.board)
    needs: list[tuple[int | None, list[tuple[int, int]]]] = [
        (capacity.memory_bytes, []),
        (capacity.macs, []),
        (capacity.busy, []),
        (capacity.latest, []),
    ]
    for s, o, _ in v.on(board):
        mode, filters = data.modes[o], v.least_filters[s]
        busy = busy_units(device, mode.line, True).at(filters)
        macs = mode.line.at(filters).macs
        costs = (mode.memory_bytes(filters), macs, busy, busy + reply * filters)
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
