"""Latency in models: the order of sends, shared media, and a relaxation by due dates.

The host serves boards one after the other; each then needs its own time until its reply is there.
Of a percentile, busy[b] is the time that the board keeps in so many of its images
(`ProblemData.at_percentile`); all else is alike.
Total = max_b (sent[b] + busy[b] + reply[b] + delay[b]) + around, the delay being the link's
latency on both ways, and around the host's join; with G0 on a board of its own also what passes
until that board begins to send its maps, which it does like the host (one machine, delivery
times).  On a medium that boards share, replies also wait for the last send there and for each
other.  They take it in the order in which they become ready: no other order clears a medium
sooner (one machine, release dates, makespan), so that the model may choose any.

The relaxation says how many students each board runs, and how many filters at most.  Which
student knows which communities is left open, so that few choices remain.  Asked whether any plan
is within a latency T, the host's sends are jobs with due dates: what follows a send until the
reply is joined, the tail, must fit behind it.  Jobs on one machine meet their due dates exactly
if, for each due date t, all that is due by t can be sent by t (Jackson 1955):

    sum_{e due by t} send[e] boards[e] <= t      for each t = T - around - tail[e] of a choice e,

which needs no order.  A choice e is a kind of board, a number of students and a range of filters;
it costs what the least of its range costs and is paid for the most, both in the student's favour:
no plan within T is lost, and where nothing is left there is none.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, permutations, product

from planner import solvers as cp_model
from planner.data.board_capacity import BoardCapacity
from planner.data.mode_costs import Spent, joint_units, knows_layers, spent_units, stem_cost
from planner.data.modes import LATEST_UNITS, Affine, Mode, delay_units, one_way_units, reply_units
from planner.data.problem_data import ProblemData
from planner.solvers.board_costs import slowed_on
from planner.solvers.resource_use import flash_line, least_cost, memory_lines, ram_lines
from planner.solvers.variables import Expr, Variables, sum_of


@dataclass(frozen=True, slots=True)
class Transmission:
    """Send, readiness and duration of one board's reply.

    All are 0 where the board is not used; no reply takes longer than `longest_reply`.
    """

    sent: Expr
    ready: Expr
    reply: Expr
    longest_reply: int


def medium_clear_time(
    model: cp_model.CpModel, name: str, turns: Sequence[Transmission], latest: int
) -> cp_model.IntVar:
    """Variable at least the time when the medium `name` is clear again.

    cleared >= sent[b] + sum_c reply[c]                              for each board b, and
    cleared >= ready[b] + reply[b] + sum of reply[c] for c behind b  for each board b.
    Without starting times in the model: these took far longer to prove.
    """
    clear = model.new_int_var(0, latest, f"{name} cleared")
    last = model.new_int_var(0, latest, f"{name} last sent")
    model.add(clear >= last + sum_of(turn.reply for turn in turns))
    behind = _in_some_order(model, name, len(turns))
    for b, turn in enumerate(turns):
        model.add(last >= turn.sent)
        queue = []
        for c, other in enumerate(turns):
            if c != b:
                waits = model.new_int_var(0, other.longest_reply, f"{name} waits{b},{c}")
                model.add(waits >= other.reply).only_enforce_if(behind[c, b])
                queue.append(waits)
        model.add(clear >= turn.ready + turn.reply + sum_of(queue))
    return clear


def _in_some_order(
    model: cp_model.CpModel, name: str, count: int
) -> dict[tuple[int, int], cp_model.BoolVarT]:
    """Total order: whether reply c is behind reply b, for each (c, b)."""
    behind: dict[tuple[int, int], cp_model.BoolVarT] = {}
    for b, c in combinations(range(count), 2):
        behind[c, b] = model.new_bool_var(f"{name} behind{c},{b}")
        behind[b, c] = ~behind[c, b]
    for a, b, c in combinations(range(count), 3):
        model.add_bool_or(~behind[b, a], ~behind[c, b], behind[c, a])
        model.add_bool_or(behind[b, a], behind[c, b], ~behind[c, a])
    return behind


def model_latency(model: cp_model.CpModel, v: Variables, data: ProblemData) -> Expr:
    """Latency of one image: no board replies later, plus the fixed latency.

    latency >= sent[b] + busy[b] + reply[b] + delay[b] + around for each board b (that the host
    waits for, where students have copies), and
    latency >= cleared[m] + delay[b] / 2 + around for each used board b on a shared medium m.
    """
    sends = [data.send(place) for place in range(len(data.capacities))]
    _put_in_order(model, v, data)
    if data.has_copies:
        _wait_for_one_copy(model, v, data)
    longest = model.new_int_var(data.fixed_latency, LATEST_UNITS, "latency")
    turns: dict[int, Transmission] = {}
    for b in data.boards:
        earlier = [sends[a] * before for (a, later), before in v.precedes.items() if later == b]
        sent = sum_of([sends[b] * v.used[b], *earlier])
        work = slowed_on(model, v, data, b, "late")
        reply = reply_time(v, data, b)
        delay = delay_units(data.capacities[b].board) * v.used[b]
        answered = model.add(longest >= sent + work + reply + delay + data.fixed_latency)
        if data.has_copies:
            answered.only_enforce_if(v.waits[b])
        longest_reply = reply_units(data.capacities[b].board) * data.filters
        turns[b] = Transmission(sent, sent + work + _one_way(v, data, b), reply, longest_reply)
    for name, sharing in data.shared_media.items():
        clear = medium_clear_time(model, name, [turns[b] for b in sharing], LATEST_UNITS)
        for b in sharing:
            model.add(longest >= clear + _one_way(v, data, b) + data.fixed_latency)
    return longest


def ordered_boards(v: Variables, solver: cp_model.CpSolver) -> tuple[int, ...]:
    """Return the used boards in the order of a solution."""
    used = [b for b, there in v.used.items() if solver.boolean_value(there)]
    before = {
        b: sum(solver.boolean_value(v.precedes[a, b]) for a in used if (a, b) in v.precedes)
        for b in used
    }
    return tuple(sorted(used, key=lambda b: before[b]))


def _one_way(v: Variables, data: ProblemData, board: int) -> Expr:
    """Return the latency of a board's link, once; 0 where the board is not used."""
    return one_way_units(data.capacities[board].board) * v.used[board]


def reply_time(v: Variables, data: ProblemData, board: int) -> Expr:
    """Return the time of a board's reply, which carries the features of all its students."""
    per_filter = reply_units(data.capacities[board].board)
    return sum_of(per_filter * filters for _, _, filters in v.filters_on(board))


def _wait_for_one_copy(model: cp_model.CpModel, v: Variables, data: ProblemData) -> None:
    """Let the host wait for boards that together hold each student.

    waited[s,b] <= at[s,b] and waited[s,b] <= waits[b] for each s and b, and
    sum_b waited[s,b] >= active[s] for each s.
    """
    for b in data.boards:
        v.waits[b] = model.new_bool_var(f"waits{b}")
        for s, at in enumerate(v.students_on(b)):
            v.waited[s, b] = model.new_bool_var(f"waited{s},{b}")
            model.add(v.waited[s, b] <= at)
            model.add_implication(v.waited[s, b], v.waits[b])
    for s, active in enumerate(v.active):
        model.add_bool_or([*(v.waited[s, b] for b in data.boards), ~active])


def _put_in_order(model: cp_model.CpModel, v: Variables, data: ProblemData) -> None:
    """Put used boards in one order: precedes[a,b] sends to a first.

    Of two used boards one precedes: used[a] + used[b] - 1 <= precedes[a,b] + precedes[b,a] <= 1.
    Precedence is transitive: precedes[a,b] and precedes[b,c] imply precedes[a,c].
    Boards that are alike keep the fleet's order (`constraints.alike_boards_by_turn`), so that
    precedes[a,b] = used[b] for these.
    """
    precedes = v.precedes
    for a, b in combinations(data.boards, 2):
        if data.board_class(a) == data.board_class(b):
            precedes[a, b] = v.used[b]
            continue
        precedes[a, b] = model.new_bool_var(f"precedes{a},{b}")
        precedes[b, a] = model.new_bool_var(f"precedes{b},{a}")
        model.add_at_most_one(precedes[a, b], precedes[b, a])
        model.add_bool_or(precedes[a, b], precedes[b, a], ~v.used[a], ~v.used[b])
    for a, b, c in permutations(data.boards, 3):
        if (a, b) in precedes and (b, c) in precedes:
            implied = [precedes[a, c]] if (a, c) in precedes else []
            model.add_bool_or([~precedes[a, b], ~precedes[b, c], *implied])


FILTER_RANGES = 4
"""Ranges of filters that are told apart, for each number of students on a board."""
MOST_CHOICES = 20_000
"""A relaxation with more choices is not asked."""


@dataclass(frozen=True, slots=True)
class BoardChoice:
    """A number of students on a board of a class, with at most some filters.

    Times in solver units.
    """

    kind: int
    students: int
    filters: int
    send: int
    tail: int


def relaxes(data: ProblemData) -> bool:
    """Say whether it holds: no shared medium, no copies, and no communities handed out twice."""
    return not data.order_matters and not data.extra_students


class LatencyRelaxation:
    """The choices of problem data whose students share one shape of G0."""

    def __init__(self, data: ProblemData, modes: Sequence[Mode]) -> None:
        self._data = data
        self._choices = [
            choice
            for kind, boards in enumerate(data.board_classes)
            for choice in _choices(data, modes, kind, data.capacities[boards[0]])
        ]

    @property
    def too_many(self) -> bool:
        """Say whether there are too many choices to ask."""
        return len(self._choices) > MOST_CHOICES

    def within(self, latency: int) -> "RelaxedModel":
        """Model of the relaxation's plans within a latency, in solver units.

        Where it is infeasible, the problem has no plan within that latency either.
        """
        data, until = self._data, latency - self._data.fixed_latency
        choices = sorted(
            (one for one in self._choices if one.send + one.tail <= until), key=lambda e: -e.tail
        )
        model = cp_model.CpModel()
        boards = [
            model.new_int_var(0, len(data.board_classes[e.kind]), f"boards{e.kind},{e.students}")
            for e in choices
        ]
        for kinds, most in data.together:
            here = [count for e, count in zip(choices, boards, strict=True) if e.kind in kinds]
            model.add(sum_of(here) <= most)
        weighted = cp_model.LinearExpr.weighted_sum
        students = weighted(boards, [e.students for e in choices])
        filters = weighted(boards, [e.filters for e in choices])
        model.add(students >= data.min_students)
        model.add(students <= data.max_students)
        model.add(filters + max(drop.filters for drop in data.drop_choices) >= data.filters)
        sent: Expr | int = 0
        for e, count in zip(choices, boards, strict=True):
            done = model.new_int_var(0, until - e.tail, "")
            model.add(done == sent + e.send * count)
            sent = done
        return RelaxedModel(model, tuple(choices), tuple(boards))


@dataclass(frozen=True, slots=True)
class RelaxedModel:
    """CP-SAT model of a latency relaxation: how many boards run each choice."""

    model: cp_model.CpModel
    choices: tuple[BoardChoice, ...]
    counts: tuple[cp_model.IntVar, ...]

    def plan(self, solver: cp_model.CpSolver) -> list[BoardChoice]:
        """Choice of each used board of a solution, in the host's send order."""
        pairs = zip(self.choices, self.counts, strict=True)
        return [choice for choice, count in pairs for _ in range(solver.value(count))]


def _choices(
    data: ProblemData, modes: Sequence[Mode], kind: int, capacity: BoardCapacity
) -> Iterator[BoardChoice]:
    """Yield choices of a board whose budgets hold for the least cost.

    k students have at least the k smallest communities; where all have one each, at most the k
    largest.
    """
    sizes = sorted(data.sizes)
    send = data.send(data.board_classes[kind][0])
    for students in range(1, data.slots + 1):
        least = sum(sizes[:students])
        most = data.filters if data.spare_communities else sum(sizes[-students:])
        cost = _Cost(data, modes, capacity, students)
        if not cost.fits(least):
            if students > 1:
                return
            continue
        low, high = least, most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if cost.fits(middle) else (low, middle - 1)
        width = -(-(low - least + 1) // FILTER_RANGES)
        for first in range(least, low + 1, width):
            filters = min(first + width - 1, low)
            yield BoardChoice(kind, students, filters, send, cost.tail(first))


class _Cost:
    """Least cost of k students with F filters on a board.

    Costs are affine in a student's filters, constant + slope n; so k students cost at least k times
    the least constant plus F times the least slope, and of a peak that is the largest of several
    lines, at least what each line gives.  Where students share G0, its least cost comes once.
    """

    def __init__(
        self, data: ProblemData, modes: Sequence[Mode], capacity: BoardCapacity, students: int
    ) -> None:
        self._students, self._site = students, capacity
        joint = data.shares_stem and students > 1
        least = partial(_joint_spent if joint else _separate_spent, modes, capacity, students)
        self._busy, self._energy, self._late = least("busy"), least("energy"), least("late")
        weights = [Affine(one.line.macs, one.line.macs_per_filter) for one in modes]
        self._macs = least_cost(weights, stem_cost(modes[0]).macs if joint else 0)
        self._bytes, self._ram = (lines(modes, joint=joint) for lines in (memory_lines, ram_lines))
        self._flash = flash_line(modes, stem_cost(modes[0]).params if joint else 0)
        # The largest of several peaks is no less than one of the mean number of filters.
        self._arenas = 1 if joint else students

    def tail(self, filters: int) -> int:
        """Time from the end of the send until the reply is there, in units."""
        reply = reply_units(self._site.board) * filters
        return self._of(self._late, filters) + reply + delay_units(self._site.board)

    def fits(self, filters: int) -> bool:
        """Say whether the budgets allow it."""
        capacity, ram = self._site, self._site.ram_bytes
        needs = (
            (self._macs, capacity.macs),
            (self._busy, capacity.busy),
            (self._energy, capacity.energy),
            (self._flash, capacity.flash_bytes),
            *((line, capacity.memory_bytes) for line in self._bytes),
            *((line, ram and self._arenas * ram) for line in self._ram),
        )
        return all(limit is None or self._of(cost, filters) <= limit for cost, limit in needs)

    def _of(self, cost: tuple[int, Affine], filters: int) -> int:
        once, each = cost
        return once + self._students * each.constant + each.per_filter * filters


def _separate_spent(
    modes: Sequence[Mode], capacity: BoardCapacity, students: int, spent: Spent
) -> tuple[int, Affine]:
    units, device = spent_units(spent, capacity), capacity.board.device
    return least_cost(units(device, mode.line, students > 1) for mode in modes)


def _joint_spent(
    modes: Sequence[Mode], capacity: BoardCapacity, _: int, spent: Spent
) -> tuple[int, Affine]:
    """Least parts in all ways in which joint models may take their time."""
    device = capacity.board.device
    known = [mode for mode in modes if knows_layers(device, mode)]
    ways = [(mode, True) for mode in known]
    ways += [(mode, False) for mode in modes] if len(known) < len(modes) else []
    crowds = (False, True) if len({mode.precision for mode in modes}) > 1 else (False,)
    units = [
        joint_units(spent, capacity, mode, several=several, by_layers=by_layers)
        for (mode, by_layers), several in product(ways, crowds)
    ]
    stem = min(one.stem for one in units)
    return stem, least_cost(one.head for one in units)[1]
