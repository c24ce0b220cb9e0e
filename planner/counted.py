"""The model that counts: how many boards of a kind run which loading of the catalogue.

Alike communities and alike boards are counted, not told apart, so that no plan appears twice; and
what a loading costs is a constant, so that the order in which the host sends needs no variable.

Symbols: e entry of the catalogue, for boards of one kind; boards[e] how many run it; there[e] one
at least does; c class of communities; d drop step; dealt[d,r] it is the one and all kept
communities are handed out r times, the last time perhaps in part.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property

from ortools.sat.python import cp_model

from planner.assignment import Assignment
from planner.catalogue import Catalogue, Entry, Row, StudentType
from planner.instance import Instance
from planner.logarithm import Logarithm, logarithms
from planner.scaling import LATEST
from planner.variables import Expr, total
from planner.view import SENDER, Amount, Figure
from simulator.hops import down, up


class CountedModel:
    """All plans of an instance, as a view for objectives and as a model for the solver."""

    linearization_level = 2

    def __init__(self, instance: Instance, entries: Catalogue) -> None:
        self.model = cp_model.CpModel()
        self._instance, self._catalogue = instance, entries
        self._boards = [self._count(entry, e) for e, entry in enumerate(entries.entries)]
        self._there = [self._presence(e) for e in range(len(self._boards))]
        self._dealt = {
            (d, r): self.model.new_bool_var(f"dealt{d},{r}")
            for d in range(len(instance.drops))
            for r in range(1, instance.rounds + 1)
        }
        self.logarithms: list[Logarithm] = []
        self.refinements: list[Logarithm] = []
        self._each_board_runs_one_loading()
        self._each_community_has_one_place()
        self._number_of_students()
        self._students_share_group0()

    def _count(self, entry: Entry, e: int) -> cp_model.IntVar:
        return self.model.new_int_var(0, len(self._instance.kinds[entry.kind]), f"boards{e}")

    def _presence(self, e: int) -> cp_model.IntVar:
        """Say whether a loading is there: there[e] <= boards[e] <= boards of the kind there[e]."""
        boards = len(self._instance.kinds[self._catalogue.entries[e].kind])
        if boards == 1:
            return self._boards[e]
        there = self.model.new_bool_var(f"there{e}")
        self.model.add(self._boards[e] >= there)
        self.model.add(self._boards[e] <= boards * there)
        return there

    # The rules.

    def _each_board_runs_one_loading(self) -> None:
        """sum_{e of kind k} boards[e] <= boards of kind k."""
        for kind, boards in enumerate(self._instance.kinds):
            here = self._sum(int(entry.kind == kind) for entry in self._entries)
            self.model.add(here <= len(boards))

    def _each_community_has_one_place(self) -> None:
        """Sum up for each class c, with kept[c,d] communities of c that d keeps.

        sum_{d,r} (r - 1 + [r = 1]) kept[c,d] dealt[d,r] <= sum_e c(e) boards[e], which is
        <= sum_{d,r} r kept[c,d] dealt[d,r]; and no student has several where r > 1.
        """
        self.model.add_exactly_one(self._dealt.values())
        for place, ids in enumerate(self._catalogue.classes):
            held = self._sum(entry.communities(place) for entry in self._entries)
            kept = [len(set(ids) - drop.communities) for drop in self._instance.drops]
            full = (max(1, r - 1) * kept[d] * one for (d, r), one in self._dealt.items())
            self.model.add(held >= total(full))
            self.model.add(held <= total(r * kept[d] * one for (d, r), one in self._dealt.items()))
        for entry, there in zip(self._entries, self._there, strict=True):
            if entry.merges:
                self.model.add(there <= total(self._dealt_once()))

    def _dealt_once(self) -> list[cp_model.IntVar]:
        """Return dealt[d,1] of each drop step."""
        return [one for (_, r), one in self._dealt.items() if r == 1]

    def _number_of_students(self) -> None:
        """Min <= sum_e students(e) boards[e] <= max."""
        self.model.add(self.students() >= self._instance.min_students)
        self.model.add(self.students() <= self._instance.max_students)

    def _students_share_group0(self) -> None:
        """there[e] <= group0[g] for the G0 shape g of e, and sum_g group0[g] = 1."""
        shapes = sorted({entry.group0 for entry in self._entries})
        if len(shapes) < 2:
            return
        shared = {shape: self.model.new_bool_var(f"group0{shape}") for shape in shapes}
        self.model.add_exactly_one(shared.values())
        for entry, there in zip(self._entries, self._there, strict=True):
            self.model.add_implication(there, shared[entry.group0])

    # The view.

    def total(self, figure: Figure) -> Expr:
        """Return a figure, added up over all boards."""
        students = self._sum(getattr(entry.loading, figure) for entry in self._entries)
        return total([students, self._instance.alone(figure)])

    def knowledge(self, figure: Amount) -> Expr:
        """Return a figure, added up over all students."""
        return self.total(figure)

    def survival(self) -> Expr:
        """Return 0: a student without copies survives no failure."""
        return total([0])

    def boards(self) -> Expr:
        """Return how many boards have a student, or G0 alone."""
        return total([*self._boards, int(self._instance.own is not None)])

    def students(self) -> Expr:
        """Return how many students there are."""
        return self._sum(len(entry.types) for entry in self._entries)

    def dropped(self, delta_val: int, filters: int) -> Expr:
        """Return |delta_val| times one factor plus |P0| times the other."""
        drops = self._instance.drops
        return total(
            (delta_val * drops[d].delta_units + filters * drops[d].filters) * one
            for (d, _), one in self._dealt.items()
        )

    def highest(self, figure: Figure) -> Expr:
        """Let highest >= the figure of each entry that is there."""
        highest = self.model.new_int_var(self._instance.alone(figure), LATEST, f"highest {figure}")
        for entry, there in zip(self._entries, self._there, strict=True):
            self.model.add(highest >= getattr(entry.loading, figure) * there)
        return highest

    def period(self) -> Expr:
        """Let period >= what sender, wires, processors and host are busy with one image."""
        period = self.model.new_int_var(self._instance.held, LATEST, "period")
        media: dict[str, list[Expr]] = defaultdict(list)
        for entry, boards, there in zip(self._entries, self._boards, self._there, strict=True):
            one, site = entry.loading, self._instance.sites[self._first(entry)].board
            wire = one.send + one.reply if down(site) == up(site) else one.reply
            self.model.add(period >= max(one.busy, wire) * there)
            media[SENDER].append(one.send * boards)
            if site.link.shared:
                media[up(site)].append(wire * boards)
        for times in media.values():
            self.model.add(period >= total(times))
        return period

    def size(self) -> Expr:
        """Sum up the logarithms of parameters and of MACs."""
        self.logarithms = self.logarithms or logarithms(self.model, self, self._instance)
        return total(each.value for each in self.logarithms)

    def spread(self) -> Expr:
        """High >= largest(e) there[e], low <= smallest(e) where e is there."""
        most = self._instance.filters
        high, low = (self.model.new_int_var(0, most, name) for name in ("high", "low"))
        for entry, there in zip(self._entries, self._there, strict=True):
            sizes = [filters for _, filters in entry.loading.tasks]
            self.model.add(high >= max(sizes) * there)
            self.model.add(low <= most - (most - min(sizes)) * there)
        self.model.add(high >= low)
        return high - low

    def latency(self) -> Expr:
        """Return the latency of one image, the same expression however often it is read."""
        return self._latency

    @cached_property
    def _latency(self) -> Expr:
        """Let the host send to boards with the longest tail first (Jackson 1955).

        latency >= sum_{e' <= e} send(e') boards[e'] + tail(e) there[e] + around for each e, the
        entries e' <= e having no shorter tail.
        """
        around = self._instance.around
        longest = self.model.new_int_var(around, LATEST, "latency")
        by_tail = sorted(range(len(self._entries)), key=lambda e: -self._entries[e].loading.tail)
        sent: Expr | int = 0
        for e in by_tail:
            loading = self._entries[e].loading
            until = self.model.new_int_var(0, LATEST, f"sent{e}")
            self.model.add(until == sent + loading.send * self._boards[e])
            self.model.add(longest >= until + loading.tail * self._there[e] + around)
            sent = until
        return longest

    def hint(self, known: Assignment) -> None:
        """Tell the solver of a plan."""
        found = Counter(self._rows(known))
        for entry, boards in zip(self._entries, self._boards, strict=True):
            self.model.add_hint(boards, found[entry.kind, entry.key])
        rounds = max(student.round for student in known.students)
        for (d, r), one in self._dealt.items():
            taken = set(self._instance.drops[d].communities) == set(known.dropped)
            self.model.add_hint(one, taken and r == rounds)

    def assignment(self, solver: cp_model.CpSolver) -> Assignment:
        """Return the assignment of a solution: alike communities and boards one after the other."""
        ((drop, rounds),) = (key for key, one in self._dealt.items() if solver.boolean_value(one))
        dropped = self._instance.drops[drop].communities
        left = [
            [(c, number) for number in range(1, rounds + 1) for c in ids if c not in dropped]
            for ids in self._catalogue.classes
        ]
        free = [list(boards) for boards in self._instance.kinds]
        students = []
        for entry, boards in zip(self._entries, self._boards, strict=True):
            for _ in range(solver.value(boards)):
                board = free[entry.kind].pop(0)
                for each in entry.types:
                    own = [left[c].pop(0) for c, n in enumerate(each.communities) for _ in range(n)]
                    option = self._instance.options[each.task[0]]
                    students.append(option.student([c for c, _ in own], [board], own[0][1]))
        return Assignment(tuple(students), tuple(sorted(dropped)))

    def _rows(self, known: Assignment) -> Iterator[tuple[int, Row]]:
        """Yield the kind of each board of a plan, and the types of its students."""
        instance = self._instance
        kinds = {b: k for k, boards in enumerate(instance.kinds) for b in boards}
        places = {(one.name, one.precision): o for o, one in enumerate(instance.options)}
        rows: dict[int, list[StudentType]] = defaultdict(list)
        for student in known.students:
            own = set(student.communities)
            share = tuple(len(own.intersection(ids)) for ids in self._catalogue.classes)
            filters = sum(instance.sizes[c] for c in own)
            task = (places[student.network, student.precision], filters)
            rows[student.board].append(StudentType(share, task))
        for board, types in rows.items():
            yield kinds[board], tuple(sorted(types))

    def _first(self, entry: Entry) -> int:
        """Return the place of the first board of an entry's kind."""
        return self._instance.kinds[entry.kind][0]

    @property
    def _entries(self) -> tuple[Entry, ...]:
        return self._catalogue.entries

    def _sum(self, weights: Iterable[int]) -> Expr:
        return total(w * boards for w, boards in zip(weights, self._boards, strict=True) if w)
