"""The pattern model: how many boards of a class run which pattern of students.

A pattern is a load that the boards of one class can run, students told apart by class only.
Communities of one size that are dropped together or not at all are of one class.  Alike
communities and alike boards are counted, not told apart, so that no plan appears twice; and what
a load costs is a constant, so that the order in which the host sends needs no variable.

Symbols: e pattern, for boards of one class; boards[e] how many run it; there[e] one at least
does; c class of communities; d drop step; dealt[d,r] it is the one and all kept communities are
handed out r times, the last time perhaps in part.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from planner import solvers as cp_model
from planner.data.balance import divisions
from planner.data.modes import LATEST_UNITS, Assignment, DropChoice
from planner.data.objective_function import SENDER, StudentQuantity
from planner.data.problem_data import ProblemData
from planner.heuristics import SearchEffort
from planner.heuristics.board_load import (
    Pattern,
    PatternCatalogue,
    PatternRow,
    StudentType,
    enumerate_patterns,
)
from planner.problem.budgets import Resource
from planner.solvers import constraints as rules
from planner.solvers.reliability_model import Logarithm, size_logarithms
from planner.solvers.variables import Expr, sum_of
from simulator.graph_builder import downlink, uplink


def pattern_rows(
    data: ProblemData, classes: Sequence[Sequence[int]], known: Assignment
) -> Iterator[PatternRow]:
    """Yield what each board of a plan runs."""
    places = {(one.name, one.precision): o for o, one in enumerate(data.modes)}
    rows: dict[int, list[StudentType]] = defaultdict(list)
    for student in known.students:
        own = set(student.communities)
        share = tuple(len(own.intersection(ids)) for ids in classes)
        filters = sum(data.sizes[c] for c in own)
        task = (places[student.network, student.precision], filters)
        rows[student.board].append(StudentType(share, task))
    for board, types in rows.items():
        yield data.kind_of[board], tuple(sorted(types))


class PatternModel:
    """CP-SAT model of all plans of a problem, by patterns of boards."""

    linearization_level = 2

    def __init__(self, data: ProblemData, patterns: PatternCatalogue) -> None:
        self.model = cp_model.CpModel()
        self._data, self._catalogue, self._patterns = data, patterns, patterns.entries
        self._boards = [self._count(pattern, e) for e, pattern in enumerate(patterns.entries)]
        self._there = [self._presence(e) for e in range(len(self._boards))]
        self._dealt = {
            (d, r): self.model.new_bool_var(f"dealt{d},{r}")
            for d in range(len(data.drop_choices))
            for r in range(1, data.rounds + 1)
        }
        self.logarithms: list[Logarithm] = []
        self.refinements: list[Logarithm] = []
        self._each_board_runs_one_loading()
        self._each_community_has_one_place()
        self._number_of_students()
        self._students_share_group0()

    def _count(self, pattern: Pattern, e: int) -> cp_model.IntVar:
        return self.model.new_int_var(0, len(self._data.board_classes[pattern.kind]), f"boards{e}")

    def _presence(self, e: int) -> cp_model.IntVar:
        """Presence of a pattern: there[e] <= boards[e] <= boards of its class * there[e]."""
        boards = len(self._data.board_classes[self._catalogue.entries[e].kind])
        if boards == 1:
            return self._boards[e]
        there = self.model.new_bool_var(f"there{e}")
        self.model.add(self._boards[e] >= there)
        self.model.add(self._boards[e] <= boards * there)
        return there

    # The rules.

    def _each_board_runs_one_loading(self) -> None:
        """sum_{e of kind k} boards[e] <= boards of kind k, at one operating point each."""
        for kinds, boards in self._data.together:
            here = self._sum(int(pattern.kind in kinds) for pattern in self._patterns)
            self.model.add(here <= boards)

    def _each_community_has_one_place(self) -> None:
        """Sum up for each class c, with kept[c,d] communities of c that d keeps.

        sum_{d,r} (r - 1 + [r = 1]) kept[c,d] dealt[d,r] <= sum_e c(e) boards[e], which is
        <= sum_{d,r} r kept[c,d] dealt[d,r]; and no student has several where r > 1.
        """
        self.model.add_exactly_one(self._dealt.values())
        for place, ids in enumerate(self._catalogue.classes):
            held = self._sum(pattern.communities(place) for pattern in self._patterns)
            kept = [len(set(ids) - drop.communities) for drop in self._data.drop_choices]
            full = (max(1, r - 1) * kept[d] * one for (d, r), one in self._dealt.items())
            self.model.add(held >= sum_of(full))
            self.model.add(held <= sum_of(r * kept[d] * one for (d, r), one in self._dealt.items()))
        once = sum_of(one for (_, r), one in self._dealt.items() if r == 1)
        for pattern, there in zip(self._patterns, self._there, strict=True):
            if any(sum(each.communities) > 1 for each in pattern.types):
                self.model.add(there <= once)

    def _number_of_students(self) -> None:
        """Min <= sum_e students(e) boards[e] <= max."""
        self.model.add(self.students() >= self._data.min_students)
        self.model.add(self.students() <= self._data.max_students)

    def _students_share_group0(self) -> None:
        """there[e] <= group0[g] for the G0 shape g of e, and sum_g group0[g] = 1."""
        shapes = sorted({pattern.group0 for pattern in self._patterns})
        if len(shapes) < 2:
            return
        shared = {shape: self.model.new_bool_var(f"group0{shape}") for shape in shapes}
        self.model.add_exactly_one(shared.values())
        for pattern, there in zip(self._patterns, self._there, strict=True):
            self.model.add_implication(there, shared[pattern.group0])

    # The view.

    def total(self, figure: Resource) -> Expr:
        """Return a figure, added up over all boards."""
        students = self._sum(getattr(pattern.loading, figure) for pattern in self._patterns)
        return sum_of([students, self._data.stem_usage(figure)])

    def knowledge(self, figure: StudentQuantity) -> Expr:
        """Return a figure, added up over all students."""
        if figure == "macs" and self._data.shares_stem:
            return self._sum(pattern.loading.known_macs for pattern in self._patterns)
        return self.total(figure)

    def survival(self) -> Expr:
        """Return 0: a student without copies survives no failure."""
        return sum_of([0])

    def boards(self) -> Expr:
        """Return how many boards have a student, or G0 alone."""
        return sum_of([*self._boards, int(self._data.stem is not None)])

    def students(self) -> Expr:
        """Return how many students there are."""
        return self._sum(len(pattern.types) for pattern in self._patterns)

    def dropped(self, worth: Callable[[DropChoice], int]) -> Expr:
        """Return the worth of the chosen drop."""
        drops = self._data.drop_choices
        return sum_of(worth(drops[d]) * one for (d, _), one in self._dealt.items())

    def highest(self, figure: Resource) -> Expr:
        """Let highest >= the figure of each entry that is there."""
        highest = self.model.new_int_var(
            self._data.stem_usage(figure), LATEST_UNITS, f"highest {figure}"
        )
        for pattern, there in zip(self._patterns, self._there, strict=True):
            self.model.add(highest >= getattr(pattern.loading, figure) * there)
        return highest

    def period(self) -> Expr:
        """Let period >= what sender, wires, processors and host are busy with one image."""
        period = self.model.new_int_var(self._data.fixed_period, LATEST_UNITS, "period")
        media: dict[str, list[Expr]] = defaultdict(list)
        for pattern, boards, there in zip(self._patterns, self._boards, self._there, strict=True):
            first, *_ = self._data.board_classes[pattern.kind]
            one, capacity = pattern.loading, self._data.capacities[first].board
            wire = one.send + one.reply if downlink(capacity) == uplink(capacity) else one.reply
            self.model.add(period >= max(one.busy, wire) * there)
            media[SENDER].append(one.send * boards)
            if capacity.link.shared:
                media[uplink(capacity)].append(wire * boards)
        for times in media.values():
            self.model.add(period >= sum_of(times))
        return period

    def size(self) -> Expr:
        """Sum up the logarithms of parameters and of MACs."""
        self.logarithms = self.logarithms or size_logarithms(self.model, self, self._data)
        return sum_of(each.value for each in self.logarithms)

    def spread(self) -> Expr:
        """High >= largest(e) there[e], low <= smallest(e) where e is there."""
        most = self._data.filters
        high, low = (self.model.new_int_var(0, most, name) for name in ("high", "low"))
        for pattern, there in zip(self._patterns, self._there, strict=True):
            sizes = [filters for _, filters in pattern.loading.tasks]
            self.model.add(high >= max(sizes) * there)
            self.model.add(low <= most - (most - min(sizes)) * there)
        self.model.add(high >= low)
        return high - low

    def unevenness(self) -> Expr:
        """Return how much less alike partitions are; number[k] says that there are k students."""
        counts = range(max(1, self._data.min_students), self._data.max_students + 1)
        number = {count: self.model.new_bool_var(f"number{count}") for count in counts}
        self.model.add_exactly_one(number.values())
        self.model.add(self.students() == sum_of(n * there for n, there in number.items()))
        every = [one for one in divisions(self._data) if one.students in number]
        cases = [(one, [self._dealt[one.drop, 1], number[one.students]]) for one in every]
        return rules.most_unevenness(self.model, self._data, self.spread(), cases)

    def inversion(self) -> Expr:
        """Return most filters that a wider student has fewer than a narrower one."""
        found = []
        for pattern, there in zip(self._patterns, self._there, strict=True):
            sizes: dict[int, list[int]] = defaultdict(list)
            for mode, filters in pattern.loading.tasks:
                sizes[self._data.width_ranks[mode]].append(filters)
            found += [(rank, min(own), max(own), there) for rank, own in sizes.items()]
        return rules.wider_students_know_more(self.model, self._data, found)

    def latency(self) -> Expr:
        """Return the latency of one image, the same expression however often it is read."""
        return self._latency

    @cached_property
    def _latency(self) -> Expr:
        """Let the host send to boards with the longest tail first (Jackson 1955).

        latency >= sum_{e' <= e} send(e') boards[e'] + tail(e) there[e] + around for each e, the
        entries e' <= e having no shorter tail.
        """
        around = self._data.fixed_latency
        longest = self.model.new_int_var(around, LATEST_UNITS, "latency")
        by_tail = sorted(range(len(self._patterns)), key=lambda e: -self._patterns[e].loading.tail)
        sent: Expr | int = 0
        for e in by_tail:
            loading = self._patterns[e].loading
            until = self.model.new_int_var(0, LATEST_UNITS, f"sent{e}")
            self.model.add(until == sent + loading.send * self._boards[e])
            self.model.add(longest >= until + loading.tail * self._there[e] + around)
            sent = until
        return longest

    def hint(self, known: Assignment) -> None:
        """Tell the solver of a plan."""
        found = Counter(pattern_rows(self._data, self._catalogue.classes, known))
        for pattern, boards in zip(self._patterns, self._boards, strict=True):
            self.model.add_hint(boards, found[pattern.kind, pattern.key])
        rounds = max(student.round for student in known.students)
        for (d, r), one in self._dealt.items():
            taken = set(self._data.drop_choices[d].communities) == set(known.dropped)
            self.model.add_hint(one, taken and r == rounds)

    def assignment(self, solver: cp_model.CpSolver) -> Assignment:
        """Return the assignment of a solution: alike communities and boards one after the other."""
        ((drop, rounds),) = (key for key, one in self._dealt.items() if solver.boolean_value(one))
        dropped = self._data.drop_choices[drop].communities
        left = [
            [(c, number) for number in range(1, rounds + 1) for c in ids if c not in dropped]
            for ids in self._catalogue.classes
        ]
        free = [list(boards) for boards in self._data.board_classes]
        students = []
        for pattern, boards in zip(self._patterns, self._boards, strict=True):
            for _ in range(solver.value(boards)):
                board = free[pattern.kind].pop(0)
                for each in pattern.types:
                    own = [left[c].pop(0) for c, n in enumerate(each.communities) for _ in range(n)]
                    mode = self._data.modes[each.task[0]]
                    students.append(mode.student([c for c, _ in own], [board], own[0][1]))
        return Assignment(tuple(students), tuple(sorted(dropped)))

    def _sum(self, weights: Iterable[int]) -> Expr:
        return sum_of(w * boards for w, boards in zip(weights, self._boards, strict=True) if w)


@dataclass(slots=True)
class PatternLists:
    """Patterns of one question's boards, listed once: those of tighter limits are among them.

    What may differ from one time to the next is by when boards must be done, the same for all
    boards, and how uneven partitions may be.
    """

    spent: float = 0.0
    _known: list[tuple[ProblemData, float, PatternCatalogue | None]] = field(default_factory=list)

    def of(self, data: ProblemData, most: int, limit: float) -> PatternCatalogue | None:
        """All patterns within the budgets; None for more than `most`, or than can be listed.

        Listing takes as much of the deterministic `limit` at most; where it took all, it is not
        tried again.
        """
        for asked, number, found in self._known:
            if asked.most_uneven != data.most_uneven:
                continue
            if found is not None and _latest(data) <= _latest(asked):
                fewer = _in_time(data, found)
                return fewer if len(fewer.entries) <= most else None
            looser = _latest(data) >= _latest(asked) or number == math.inf
            if found is None and looser and most <= number:
                return None
        effort = SearchEffort(limit)
        found = enumerate_patterns(data, most, effort)
        self.spent += effort.spent
        self._known.append((data, math.inf if effort.over else most, found))
        return found


def _latest(data: ProblemData) -> float:
    latest = data.capacities[0].latest
    return math.inf if latest is None else latest


def _in_time(data: ProblemData, patterns: PatternCatalogue) -> PatternCatalogue:
    """Patterns of boards that are done by when they must be."""
    latest = [data.capacities[board].latest for board, *_ in data.board_classes]
    return PatternCatalogue(
        patterns.classes,
        tuple(
            one
            for one in patterns.entries
            if (until := latest[one.kind]) is None or one.loading.busy + one.loading.reply <= until
        ),
    )
