"""The pattern model: how many boards of a class run which pattern of students.

A pattern is a load that the boards of one class can run, students told apart by class only.
Communities of one size that are dropped together or not at all are of one class.  Alike
communities and alike boards are counted, not told apart, so that no plan appears twice; and what
a load costs is a constant, so that the order in which the host sends needs no variable.

Symbols: e pattern, for boards of one class; boards[e] how many run it; there[e] one at least
does; c class of communities; d drop step; dealt[d,r] it is the one and all kept communities are
handed out r times, the last time perhaps in part.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice, product

from planner import solvers as cp_model
from planner.data.balance import divisions
from planner.data.board_capacity import BoardCapacity
from planner.data.mode_costs import StudentLoad
from planner.data.modes import LATEST_UNITS, Assignment, DropChoice
from planner.data.objective_function import SENDER, StudentQuantity
from planner.data.problem_data import ProblemData, community_classes
from planner.heuristics.board_load import BoardLoad, RivalPoints, cached_loads
from planner.problem.budgets import Resource
from planner.solvers import constraints as rules
from planner.solvers.reliability_model import Logarithm, size_logarithms
from planner.solvers.variables import Expr, sum_of
from profiles.device import slowdown
from simulator.graph_builder import downlink, uplink

MOST_TYPES = 100
"""Of more types of students than this there are too many loadings to list them."""


@dataclass(frozen=True, order=True, slots=True)
class StudentType:
    """How many communities of each class a student has, and its task."""

    communities: tuple[int, ...]
    task: StudentLoad


PatternStudents = tuple[StudentType, ...]
"""The students of one board, by type."""
PatternRow = tuple[int, PatternStudents]
"""The kind of a board, and its students in the order of `Pattern.key`."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One loading of the boards of one kind, with the types of its students."""

    kind: int
    types: PatternStudents
    loading: BoardLoad
    group0: str

    @property
    def key(self) -> PatternStudents:
        """The types, in an order of their own."""
        return tuple(sorted(self.types))

    def communities(self, place: int) -> int:
        """Return how many communities of a class the students have together."""
        return sum(each.communities[place] for each in self.types)


@dataclass(frozen=True, slots=True)
class PatternCatalogue:
    """Classes of communities (ids, larger ones first), and all entries."""

    classes: tuple[tuple[int, ...], ...]
    entries: tuple[Pattern, ...]


def enumerate_patterns(data: ProblemData, most: int) -> PatternCatalogue | None:
    """Return all board loads within the budgets; None where there are more than `most`."""
    classes = community_classes(data)
    types = _student_types(data, classes)
    if types is None:
        return None
    load = cached_loads(data)
    # One and two students on a board tell most often, and sooner than one board after the other.
    alone = _patterns(data, classes, types, load, 1)
    pairs = (row for row in _patterns(data, classes, types, load, 2) if len(row.types) > 1)
    if sum(1 for _ in islice(chain(alone, pairs), most + 1)) > most:
        return None
    patterns = tuple(islice(_patterns(data, classes, types, load), most + 1))
    return PatternCatalogue(classes, patterns) if len(patterns) <= most else None


def _student_types(
    data: ProblemData, classes: Sequence[Sequence[int]]
) -> dict[str, list[StudentType]] | None:
    """Student types by the shape of their G0; None for too many."""
    sizes = [data.sizes[ids[0]] for ids in classes]
    fewest, most = data.partition_range
    together = data.spare_communities + 1
    shares: list[tuple[int, ...]] = [()]
    for ids in classes:
        room = range(min(len(ids), together) + 1)
        shares = [(*share, n) for share, n in product(shares, room) if sum(share) + n <= together]
        if len(shares) > MOST_TYPES:
            return None
    types: dict[str, list[StudentType]] = defaultdict(list)
    for share in shares:
        filters = sum(n * size for n, size in zip(share, sizes, strict=True))
        for o, mode in enumerate(data.modes if fewest <= filters <= most else ()):
            types[mode.group0].append(StudentType(share, (o, filters)))
    return types if sum(map(len, types.values())) <= MOST_TYPES else None


def _patterns(
    data: ProblemData,
    classes: Sequence[Sequence[int]],
    types: Mapping[str, Sequence[StudentType]],
    load: Callable[[int, tuple[StudentLoad, ...]], BoardLoad],
    most_students: int = 10**9,
) -> Iterator[Pattern]:
    """Yield every entry within the budgets that no other operating point runs as well."""
    limits, points = [data.rounds * len(ids) for ids in classes], RivalPoints(data, load)
    for kind, (board, *_) in enumerate(data.board_classes):
        capacity = data.capacities[board]

        def loading(row: PatternStudents, board: int = board) -> BoardLoad:
            return load(board, tuple(sorted(each.task for each in row)))

        # Where several are quicker than one, one that takes too long may not do so in company.
        hurries = slowdown(capacity.board.device, 2) < 1
        room = replace(capacity, latest=None, busy=None, energy=None) if hurries else capacity

        def keeps(row: PatternStudents, room: BoardCapacity = room) -> bool:
            # Only the last one's communities can be too many: the others were kept without it.
            for c, n in enumerate(row[-1].communities):
                if n and sum([each.communities[c] for each in row]) > limits[c]:
                    return False
            return loading(row).violation(room) <= 0

        for group0, all_types in types.items():
            for row in _student_rows(all_types, keeps, most_students):
                here = loading(row)
                if here.violation(capacity) <= 0 and not points.replaced(kind, here):
                    yield Pattern(kind, row, here, group0)


def _student_rows(
    types: Sequence[StudentType],
    keeps: Callable[[PatternStudents], bool],
    most: int,
    row: PatternStudents = (),
    start: int = 0,
) -> Iterator[PatternStudents]:
    """Yield all rows of types in order that `keeps` lets grow."""
    for place in range(start, len(types)) if len(row) < most else ():
        longer = (*row, types[place])
        if keeps(longer):
            yield longer
            yield from _student_rows(types, keeps, most, longer, place)


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
