"""A medium that boards share: replies wait for the last send there and for each other.

Replies take it in the order in which they become ready.  No other order clears a medium sooner (one
machine, release dates, makespan), so that the model may choose any.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from ortools.sat.python import cp_model

from planner.variables import Expr, total


@dataclass(frozen=True, slots=True)
class Turn:
    """One image on a board: when it is sent there, when the reply is ready, how long that takes.

    All are 0 where the board is not used; no reply takes longer than `longest_reply`.
    """

    sent: Expr
    ready: Expr
    reply: Expr
    longest_reply: int


def cleared(
    model: cp_model.CpModel, name: str, turns: Sequence[Turn], latest: int
) -> cp_model.IntVar:
    """Return a variable that is at least the time when the medium `name` is clear again.

    cleared >= sent[b] + sum_c reply[c]                              for each board b, and
    cleared >= ready[b] + reply[b] + sum of reply[c] for c behind b  for each board b.
    Without starting times in the model: these took far longer to prove.
    """
    clear = model.new_int_var(0, latest, f"{name} cleared")
    last = model.new_int_var(0, latest, f"{name} last sent")
    model.add(clear >= last + total(turn.reply for turn in turns))
    behind = _in_some_order(model, name, len(turns))
    for b, turn in enumerate(turns):
        model.add(last >= turn.sent)
        queue = []
        for c, other in enumerate(turns):
            if c != b:
                waits = model.new_int_var(0, other.longest_reply, f"{name} waits{b},{c}")
                model.add(waits >= other.reply).only_enforce_if(behind[c, b])
                queue.append(waits)
        model.add(clear >= turn.ready + turn.reply + total(queue))
    return clear


def _in_some_order(
    model: cp_model.CpModel, name: str, count: int
) -> dict[tuple[int, int], cp_model.BoolVarT]:
    """Return whether reply c is behind reply b, for each (c, b): a total order of all."""
    behind: dict[tuple[int, int], cp_model.BoolVarT] = {}
    for b, c in combinations(range(count), 2):
        behind[c, b] = model.new_bool_var(f"{name} behind{c},{b}")
        behind[b, c] = ~behind[c, b]
    for a, b, c in combinations(range(count), 3):
        model.add_bool_or(~behind[b, a], ~behind[c, b], behind[c, a])
        model.add_bool_or(behind[b, a], behind[c, b], ~behind[c, a])
    return behind
