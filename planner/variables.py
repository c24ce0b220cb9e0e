"""Decision variables of the planning model.

Only choices that can fit exist: a network that does not fit alone on a board, with its budgets and
the smallest community, has no variable there.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from ortools.sat.python import cp_model

from planner.instance import Instance
from planner.option import Head

Expr = cp_model.LinearExpr


def total(terms: Iterable[Expr | int]) -> Expr:
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
    filters: dict[tuple[int, int, Head], cp_model.IntVar]
    group0: dict[str, cp_model.IntVar]
    used: dict[int, cp_model.IntVar]
    precedes: dict[tuple[int, int], cp_model.IntVar]
    picks: dict[tuple[int, int], cp_model.IntVar]
    known: dict[tuple[int, Head], cp_model.IntVar]
    waits: dict[int, cp_model.IntVar]
    waited: dict[tuple[int, int], cp_model.IntVar]
    further: tuple[tuple[int, int], ...]
    most_filters: dict[tuple[int, int, int], int]
    least_filters: tuple[int, ...]

    @property
    def first_round(self) -> range:
        """The students whose partitions are communities."""
        return range(len(self.active) - len(self.further))

    def follow(self) -> Iterator[tuple[int, int, cp_model.IntVar]]:
        """Yield (round, community, active) of each student of a further round."""
        for (number, community), active in zip(
            self.further, self.active[len(self.first_round) :], strict=True
        ):
            yield number, community, active

    def size(self, instance: Instance, student: int) -> Expr:
        """Return |P_s|, the filters of a student's communities."""
        return total(
            size * self.member[community, student] for community, size in enumerate(instance.sizes)
        )

    def homes(self, student: int, out: Collection[int] = ()) -> list[cp_model.IntVar]:
        """Return runs[s,b,o] of a student, but on the boards that are out."""
        return [runs for (s, b, _), runs in self.runs.items() if s == student and b not in out]

    def on(self, board: int) -> Iterator[tuple[int, int, cp_model.IntVar]]:
        """Yield (student, option, variable) of everything that may run on a board."""
        for (student, where, option), runs in self.runs.items():
            if where == board:
                yield student, option, runs

    def students_on(self, board: int) -> list[Expr]:
        """Return at[s,b] for each student s: 1 where it runs on the board, else 0."""
        at: list[list[cp_model.IntVar]] = [[] for _ in self.active]
        for student, _, runs in self.on(board):
            at[student].append(runs)
        return [total(choices) for choices in at]

    def filters_on(self, board: int) -> Iterator[tuple[int, Head, cp_model.IntVar]]:
        """Yield (student, head, filters) of everything that may run on a board."""
        for (student, where, head), filters in self.filters.items():
            if where == board:
                yield student, head, filters


def make_variables(model: cp_model.CpModel, instance: Instance) -> Variables:
    """Create the variables of `instance` in `model`."""
    first, further = range(instance.slots), instance.further
    extents = _extents(instance)
    students = range(len(extents))
    most = choices(instance)
    heads = sorted({(s, b, instance.options[o].head) for s, b, o in most})
    return Variables(
        active=tuple(model.new_bool_var(f"active{s}") for s in students),
        member={
            (c, s): model.new_bool_var(f"member{c},{s}")
            for c in instance.communities
            for s in first
        },
        drop=tuple(model.new_bool_var(f"drop{d}") for d in range(len(instance.drops))),
        runs={(s, b, o): model.new_bool_var(f"runs{s},{b},{o}") for s, b, o in most},
        filters={
            (s, b, h): model.new_int_var(0, instance.filters, f"filters{s},{b},{h}")
            for s, b, h in heads
        },
        group0={
            shape: model.new_bool_var(f"group0{shape}")
            for shape in sorted({option.group0 for option in instance.options})
        },
        used={b: model.new_bool_var(f"used{b}") for b in instance.boards},
        precedes={},
        picks={
            key: model.new_bool_var(f"picks{key}")
            for key in sorted({(s, o) for s, _, o in most} if instance.replicated else ())
        },
        known={
            key: model.new_int_var(0, instance.filters, f"known{key}")
            for key in sorted({(s, h) for s, _, h in heads} if instance.replicated else ())
        },
        waits={},
        waited={},
        further=further,
        most_filters=most,
        least_filters=tuple(least for least, _ in extents),
    )


def choices(instance: Instance) -> dict[tuple[int, int, int], int]:
    """Return the most filters of each (student, board, option) that fits with the fewest."""
    found = {}
    extents = _extents(instance)
    for b in instance.boards:
        for o, option in enumerate(instance.options):
            fits = instance.sites[b].most_filters(option, instance.filters)
            for s, (least, most) in enumerate(extents):
                if fits >= least:
                    found[s, b, o] = min(fits, most)
    return dict(sorted(found.items()))


def _extents(instance: Instance) -> list[tuple[int, int]]:
    """Return the fewest and the most filters of each student; of a further one both are known."""
    first = [instance.sizes_of_slot(s) for s in range(instance.slots)]
    return first + [(instance.sizes[c], instance.sizes[c]) for _, c in instance.further]
