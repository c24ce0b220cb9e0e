"""Decision variables of the models, student by student, and the modes that have any.

Only choices that can fit exist: a network that does not fit alone on a board, with its budgets and
the smallest community, has no variable there, and modes that no optimal plan needs are removed
before.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product

from nonn_core.networks.network_cost import group0_maps, head_peaks
from planner import solvers as cp_model
from planner.data.balance import keep_order_of_widths
from planner.data.board_capacity import BoardCapacity
from planner.data.mode_costs import joint_units, knows_layers
from planner.data.modes import SEVERAL, Assignment, CostSlope, Mode, busy_units, energy_units
from planner.data.objective_function import ModeCriterion
from planner.data.problem_data import ProblemData
from profiles.device import slowdown


def remove_dominated_modes(
    data: ProblemData,
    criteria: Collection[ModeCriterion],
    known: Assignment | None = None,
    *,
    by_width: bool = False,
) -> ProblemData:
    """Remove each option that another one with the same G0 replaces without a loss.

    Those that a `known` assignment has stay.

    The other must be no worse in everything that counts, from the fewest to the most filters: in
    no more MACs always; in parameters, MACs or bytes per value where a level asks for more of them;
    in memory where a level asks for less or where a budget can bind.  Where students share G0, it
    must be of the same precision, so that no board runs a model more; or of one that all may have.
    Where it matters which of two students is wider (`by_width`), no replacement of all modes that
    go may change that.
    """
    data = _narrowest(data, criteria, known)
    counts = {*criteria, *_binding_memories(data)}
    worth = {o: tuple(_costs(o, data, counts)) for o in data.modes}
    used = _modes_of(known)
    kept: list[Mode] = []
    for mode in sorted(data.modes, key=lambda one: worth[one]):
        chosen = (mode.name, mode.precision) in used
        if chosen or not any(_dominates(data, worth, other, mode) for other in kept):
            kept.append(mode)
    if by_width:
        keep_order_of_widths(data, kept, partial(_dominates, data, worth))
    return replace(data, modes=tuple(mode for mode in data.modes if mode in kept))


def _modes_of(known: Assignment | None) -> set[tuple[str, str]]:
    return {(one.network, one.precision) for one in (known.students if known else ())}


def _narrowest(
    data: ProblemData, criteria: Collection[ModeCriterion], known: Assignment | None
) -> ProblemData:
    """Leave the narrowest precision alone where students share G0 and nothing asks for another.

    To store all students as narrowly makes no board run more models.
    """
    precisions = {mode.precision: mode.value_bytes for mode in data.modes}
    if len(precisions) < 2 or "precision" in criteria or not _one_model_is_less(data):
        return data
    narrowest, used = min(precisions, key=precisions.__getitem__), _modes_of(known)
    return replace(
        data,
        modes=tuple(
            mode
            for mode in data.modes
            if mode.precision == narrowest or (mode.name, mode.precision) in used
        ),
    )


def _one_model_is_less(data: ProblemData) -> bool:
    """Whether a joint model, of narrow values, costs no more than two of unlike precision.

    Not where the largest of them counts alone, where two at once are quicker, where another way
    would predict the time, or where maps and vectors that stay alive take more than wide values.
    """
    if not data.shares_stem or any(one.ram_bytes is not None for one in data.capacities):
        return False
    devices = dict.fromkeys(one.board.device for one in data.capacities)
    hurries = any(slowdown(device, SEVERAL) < 1 for device in devices)
    mixed = any(len({knows_layers(device, mode) for mode in data.modes}) > 1 for device in devices)
    sizes = sorted({mode.value_bytes for mode in data.modes})
    least = min(mode.line.at(min(data.sizes)).peak_elements for mode in data.modes)
    held = max(_maps_elements(mode) for mode in data.modes) + data.rounds * data.filters
    return not hurries and not mixed and held * sizes[0] <= (sizes[1] - sizes[0]) * least


def _maps_elements(mode: Mode) -> int:
    return group0_maps(mode.line.outline.spec, mode.line.outline.image).elements


def _dominates(
    data: ProblemData, worth: dict[Mode, tuple[int, ...]], other: Mode, mode: Mode
) -> bool:
    alike = other.group0 == mode.group0 and (
        not data.shares_stem or other.precision == mode.precision
    )
    return alike and all(a <= b for a, b in zip(worth[other], worth[mode], strict=True))


def _costs(mode: Mode, data: ProblemData, counts: Collection[str]) -> Iterator[int]:
    """Yield what counts, less being better, at both ends of the range of filters.

    Everything is linear in the filters (a peak line by line), so that the ends decide.  Time and
    energy follow from the MACs, but where layers predict them.
    """
    layered = {
        one.board.device: one for one in data.capacities if one.board.device.knows_layers
    }.values()
    for filters in (min(data.sizes), data.filters):
        cost = mode.line.at(filters)
        yield cost.macs
        for capacity in layered:
            device = capacity.board.device
            yield busy_units(device, mode.line, False).at(filters)
            yield energy_units(device, mode.line, False).at(filters)
            if data.shares_stem:
                yield from _joint_times(mode, capacity, filters)
        if "macs" in counts:
            yield -cost.macs
        if "params" in counts:
            yield -cost.params
        if "precision" in counts:
            yield -mode.value_bytes
        size = mode.value_bytes
        peaks = [*mode.line.peaks, *(head_peaks(mode.line.outline) if data.shares_stem else ())]
        if "memory" in counts:
            yield from (size * (cost.params + fixed + slope * filters) for fixed, slope in peaks)
        if "flash" in counts:
            yield size * cost.params
        if "ram" in counts:
            yield from (size * (fixed + slope * filters) for fixed, slope in peaks)


def _joint_times(mode: Mode, capacity: BoardCapacity, filters: int) -> Iterator[int]:
    """Yield whether layers predict a student's time, which must be alike, and its parts' times."""
    known = knows_layers(capacity.board.device, mode)
    yield from (known, -known)
    found = joint_units("busy", capacity, mode, several=False, by_layers=known)
    yield from (found.stem, found.head.at(filters))


def _binding_memories(data: ProblemData) -> Iterator[ModeCriterion]:
    """Yield the memories that the most and largest students would overfill on some board."""
    sizes = zip(*(_largest_bytes(data, mode) for mode in data.modes), strict=True)
    whole, weights, peaks = map(max, sizes)
    whole, weights = data.most_students * whole, data.most_students * weights
    if any(one.memory_bytes is not None and whole > one.memory_bytes for one in data.capacities):
        yield "memory"
    if any(one.flash_bytes is not None and weights > one.flash_bytes for one in data.capacities):
        yield "flash"
    if any(one.ram_bytes is not None and peaks > one.ram_bytes for one in data.capacities):
        yield "ram"


def _largest_bytes(data: ProblemData, mode: Mode) -> tuple[int, int, int]:
    """Most bytes of a student, alone or with others: in all, of weights, of activations."""
    peak = mode.line.at(data.filters).peak_elements
    if data.shares_stem:
        held = max(fixed + slope * data.filters for fixed, slope in head_peaks(mode.line.outline))
        peak = max(peak, held + data.rounds * data.filters)
    weights = mode.flash_bytes(data.filters)
    return weights + mode.value_bytes * peak, weights, mode.value_bytes * peak


Expr = cp_model.LinearExpr


def sum_of(terms: Iterable[Expr | int]) -> Expr:
    """Add up expressions of the model."""
    return cp_model.LinearExpr.sum(list(terms))


@dataclass(frozen=True)
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
    copies_stem[b, g, q]  board b has a copy of a G0 of shape g at precision q, which its students
                      share; only where they do
    knows_stem[b, g]  ... at any precision
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
    copies_stem: dict[tuple[int, str, str], cp_model.IntVar]
    knows_stem: dict[tuple[int, str], cp_model.IntVar]
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
        return [runs for b, runs in self._runs_of[student] if b not in out]

    @cached_property
    def _runs_of(self) -> dict[int, list[tuple[int, cp_model.IntVar]]]:
        """(board, variable) of everything that each student may run."""
        found: dict[int, list[tuple[int, cp_model.IntVar]]] = defaultdict(list)
        for (student, board, _), runs in self.runs.items():
            found[student].append((board, runs))
        return found

    def on(self, board: int) -> Sequence[tuple[int, int, cp_model.IntVar]]:
        """(student, option, variable) of everything that may run on a board."""
        return self._runs_on[board]

    @cached_property
    def _runs_on(self) -> dict[int, list[tuple[int, int, cp_model.IntVar]]]:
        found: dict[int, list[tuple[int, int, cp_model.IntVar]]] = defaultdict(list)
        for (student, board, mode), runs in self.runs.items():
            found[board].append((student, mode, runs))
        return found

    def students_on(self, board: int) -> list[Expr]:
        """Return at[s,b] for each student s: 1 where it runs on the board, else 0."""
        at: list[list[cp_model.IntVar]] = [[] for _ in self.active]
        for student, _, runs in self.on(board):
            at[student].append(runs)
        return [sum_of(choices) for choices in at]

    def filters_on(self, board: int) -> Sequence[tuple[int, CostSlope, cp_model.IntVar]]:
        """(student, head, filters) of everything that may run on a board."""
        return self._filters_on[board]

    @cached_property
    def _filters_on(self) -> dict[int, list[tuple[int, CostSlope, cp_model.IntVar]]]:
        found: dict[int, list[tuple[int, CostSlope, cp_model.IntVar]]] = defaultdict(list)
        for (student, board, head), filters in self.filters.items():
            found[board].append((student, head, filters))
        return found


def create_variables(model: cp_model.CpModel, data: ProblemData) -> Variables:
    """Create the variables of `instance` in `model`."""
    first, further = range(data.slots), data.extra_students
    extents = _filter_ranges(data)
    students = range(len(extents))
    most = mode_choices(data)
    heads = sorted({(s, b, data.modes[o].cost_slope) for s, b, o in most})
    v = Variables(
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
        copies_stem={},
        knows_stem={},
        waits={},
        waited={},
        extra_students=further,
        most_filters=most,
        least_filters=tuple(least for least, _ in extents),
    )
    if data.shares_stem:
        _create_copies(model, v, data)
    return v


def _create_copies(model: cp_model.CpModel, v: Variables, data: ProblemData) -> None:
    """Create the variables of copies of G0.

    One shape of G0, or one precision, needs none of its own.
    """
    for b, g in product(data.boards, v.group0):
        only = len(v.group0) == 1
        knows = v.used[b] if only else model.new_bool_var(f"knows{b},{g}")
        v.knows_stem[b, g] = knows
        precisions = sorted({mode.precision for mode in data.modes if mode.group0 == g})
        for q in precisions:
            alone = len(precisions) == 1
            v.copies_stem[b, g, q] = knows if alone else model.new_bool_var(f"copies{b},{g},{q}")


def mode_choices(data: ProblemData) -> dict[tuple[int, int, int], int]:
    """Return the most filters of each (student, board, option) that fits with the fewest."""
    found = {}
    extents = _filter_ranges(data)
    known: dict[tuple[int, int], int] = {}
    for b in data.boards:
        for o, mode in enumerate(data.modes):
            kind = data.board_class(b), o
            if kind not in known:
                known[kind] = data.capacities[b].most_filters(mode, data.filters)
            fits = known[kind]
            for s, (least, most) in enumerate(extents):
                if min(fits, most) >= least:
                    found[s, b, o] = min(fits, most)
    return dict(sorted(found.items()))


def choice_count(data: ProblemData) -> int:
    """Number of choices of `mode_choices`, which are many where boards and students are."""
    ranges = Counter(_filter_ranges(data))
    return sum(
        len(kind) * count
        for kind in data.board_classes
        for fits in (data.capacities[kind[0]].most_filters(o, data.filters) for o in data.modes)
        for (least, most), count in ranges.items()
        if min(fits, most) >= least
    )


def _filter_ranges(data: ProblemData) -> list[tuple[int, int]]:
    """Fewest and most filters of each student; equal in extra rounds."""
    first = [data.filter_range_of_slot(s) for s in range(data.slots)]
    return first + [(data.sizes[c], data.sizes[c]) for _, c in data.extra_students]


def one_point_per_board(model: cp_model.CpModel, v: Variables, data: ProblemData) -> None:
    """Let a board work at one of its operating points.

    sum_{b of kinds K} used[b] <= boards[K] for the kinds K that are points of the same boards.
    """
    for kinds, boards in data.rivals:
        model.add(sum_of(v.used[b] for k in kinds for b in data.board_classes[k]) <= boards)
