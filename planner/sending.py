"""The order in which the host sends, and the latency that follows (one machine, delivery times).

The host serves boards one after the other; each then needs its own time until its reply is there.
Total = max_b (sent[b] + busy[b] + reply[b] + delay[b]) + around, the delay being the link's latency
on both ways, and around the host's join; with G0 on a board of its own also what passes until that
board begins to send its maps, which it does like the host.  On a medium that boards share, replies
also wait for the last send there and for each other (`planner.medium`).
"""

from itertools import combinations, permutations

from ortools.sat.python import cp_model

from planner.instance import Instance
from planner.loads import slowed_on
from planner.medium import Turn, cleared
from planner.scaling import (
    LATEST,
    busy_units,
    delay_units,
    one_way_units,
    reply_units,
)
from planner.variables import Expr, Variables, total


def latency(model: cp_model.CpModel, v: Variables, instance: Instance) -> Expr:
    """Return the latency of one image: no board replies later than this, plus what is around.

    latency >= sent[b] + busy[b] + reply[b] + delay[b] + around for each board b (that the host
    waits for, where students have copies), and
    latency >= cleared[m] + delay[b] / 2 + around for each used board b on a shared medium m.
    """
    sends = [instance.send(place) for place in range(len(instance.sites))]
    _put_in_order(model, v, instance)
    if instance.replicated:
        _wait_for_one_copy(model, v, instance)
    longest = model.new_int_var(instance.around, LATEST, "latency")
    turns: dict[int, Turn] = {}
    for b in instance.boards:
        earlier = [sends[a] * before for (a, later), before in v.precedes.items() if later == b]
        sent = total([sends[b] * v.used[b], *earlier])
        work = slowed_on(model, v, instance, b, busy_units)
        reply = reply_on(v, instance, b)
        delay = delay_units(instance.sites[b].board) * v.used[b]
        answered = model.add(longest >= sent + work + reply + delay + instance.around)
        if instance.replicated:
            answered.only_enforce_if(v.waits[b])
        longest_reply = reply_units(instance.sites[b].board) * instance.filters
        turns[b] = Turn(sent, sent + work + _one_way(v, instance, b), reply, longest_reply)
    for name, sharing in instance.media.items():
        clear = cleared(model, name, [turns[b] for b in sharing], LATEST)
        for b in sharing:
            model.add(longest >= clear + _one_way(v, instance, b) + instance.around)
    return longest


def send_order(v: Variables, solver: cp_model.CpSolver) -> tuple[int, ...]:
    """Return the used boards in the order of a solution."""
    used = [b for b, there in v.used.items() if solver.boolean_value(there)]
    before = {
        b: sum(solver.boolean_value(v.precedes[a, b]) for a in used if (a, b) in v.precedes)
        for b in used
    }
    return tuple(sorted(used, key=lambda b: before[b]))


def _one_way(v: Variables, instance: Instance, board: int) -> Expr:
    """Return the latency of a board's link, once; 0 where the board is not used."""
    return one_way_units(instance.sites[board].board) * v.used[board]


def reply_on(v: Variables, instance: Instance, board: int) -> Expr:
    """Return the time of a board's reply, which carries the features of all its students."""
    per_filter = reply_units(instance.sites[board].board)
    return total(per_filter * filters for _, _, filters in v.filters_on(board))


def _wait_for_one_copy(model: cp_model.CpModel, v: Variables, instance: Instance) -> None:
    """Let the host wait for boards that together hold each student.

    waited[s,b] <= at[s,b] and waited[s,b] <= waits[b] for each s and b, and
    sum_b waited[s,b] >= active[s] for each s.
    """
    for b in instance.boards:
        v.waits[b] = model.new_bool_var(f"waits{b}")
        for s, at in enumerate(v.students_on(b)):
            v.waited[s, b] = model.new_bool_var(f"waited{s},{b}")
            model.add(v.waited[s, b] <= at)
            model.add_implication(v.waited[s, b], v.waits[b])
    for s, active in enumerate(v.active):
        model.add_bool_or([*(v.waited[s, b] for b in instance.boards), ~active])


def _put_in_order(model: cp_model.CpModel, v: Variables, instance: Instance) -> None:
    """Put the used boards in one order: precedes[a,b] says that the host sends to a before b.

    Of two used boards one precedes: used[a] + used[b] - 1 <= precedes[a,b] + precedes[b,a] <= 1.
    Precedence is transitive: precedes[a,b] and precedes[b,c] imply precedes[a,c].
    Boards that are alike keep the fleet's order (`constraints.alike_boards_by_turn`), so that
    precedes[a,b] = used[b] for these.
    """
    precedes = v.precedes
    for a, b in combinations(instance.boards, 2):
        if instance.kind_of(a) == instance.kind_of(b):
            precedes[a, b] = v.used[b]
            continue
        precedes[a, b] = model.new_bool_var(f"precedes{a},{b}")
        precedes[b, a] = model.new_bool_var(f"precedes{b},{a}")
        model.add_at_most_one(precedes[a, b], precedes[b, a])
        model.add_bool_or(precedes[a, b], precedes[b, a], ~v.used[a], ~v.used[b])
    for a, b, c in permutations(instance.boards, 3):
        if (a, b) in precedes and (b, c) in precedes:
            implied = [precedes[a, c]] if (a, c) in precedes else []
            model.add_bool_or([~precedes[a, b], ~precedes[b, c], *implied])
