"""The assignment model: which communities, mode and board each student slot has, if any.

It tells all students apart, so that it holds whatever the communities are; where these or the
boards are alike, `planner.counted` has fewer plans to choose from.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import product
from typing import TypeVar

from planner import solvers as cp_model
from planner.data.mode_costs import stem_cost
from planner.data.modes import (
    LATEST_UNITS,
    AssignedStudent,
    Assignment,
    DropChoice,
    log_units,
)
from planner.data.objective_function import SENDER, StudentQuantity
from planner.data.problem_data import ProblemData, community_classes
from planner.heuristics.solution import CostEvaluator
from planner.problem.budgets import Resource
from planner.solvers import constraints as rules
from planner.solvers.board_costs import head_costs, known_macs_on
from planner.solvers.latency import model_latency, ordered_boards, reply_time
from planner.solvers.reliability_model import (
    LOGARITHMS,
    AccuracyCurve,
    Logarithm,
    ReliabilityModel,
    size_logarithms,
)
from planner.solvers.resource_use import budgets_hold, use_on
from planner.solvers.variables import Expr, create_variables, one_point_per_board, sum_of
from simulator.graph_builder import downlink, uplink


def canonical_form(data: ProblemData, plan: Assignment, *, timed: bool) -> Assignment:
    """Return the plan with students, twins and alike boards in the model's order.

    Its `send_order` is set, longest first where it was not.  Boards that are alike are taken in
    this order where `timed`, else in that of their first students.
    """
    plan = _sort_interchangeable(data, plan)
    turns = plan.send_order or _longest_first(data, plan)
    first = tuple(dict.fromkeys(board for student in plan.students for board in student.boards))
    taken: dict[int, int] = {}
    for kind in data.board_classes:
        used = [
            board
            for board in (turns if timed else first)
            if _interchangeable_boards(data, board, kind[0])
        ]
        taken |= dict(zip(used, kind, strict=False))
    students = tuple(
        replace(one, board=taken[one.board], copies=tuple(taken[b] for b in one.copies))
        for one in plan.students
    )
    return Assignment(students, plan.dropped, tuple(taken[board] for board in turns))


def _interchangeable_boards(data: ProblemData, board: int, other: int) -> bool:
    return data.board_class(board) == data.board_class(other)


def _longest_first(data: ProblemData, plan: Assignment) -> tuple[int, ...]:
    appraiser = CostEvaluator(data)
    loads = appraiser.evaluate(appraiser.solution_of(plan)).loads
    return tuple(sorted(loads, key=lambda board: -loads[board].tail))


def _turn(rank: Mapping[int, int], student: AssignedStudent) -> tuple[int, int]:
    return student.round, min(rank[c] for c in student.communities)


def _sort_interchangeable(data: ProblemData, plan: Assignment) -> Assignment:
    """Sort students by first community and deal out twins in a row, until nothing changes."""
    rank = {community: place for place, community in enumerate(data.communities)}
    students = sorted(plan.students, key=lambda one: _turn(rank, one))
    owned: dict[int, list[int]] = defaultdict(list)
    rounds = range(1, max(one.round for one in students) + 1)
    for number, twins in product(rounds, community_classes(data)):
        owners = [
            s
            for s, one in enumerate(students)
            for c in one.communities
            if one.round == number and c in twins
        ]
        for community, s in zip(twins, owners, strict=False):
            owned[s].append(community)
    dealt = tuple(
        replace(one, communities=tuple(sorted(owned[s]))) for s, one in enumerate(students)
    )
    again = replace(plan, students=dealt)
    return again if again == plan else _sort_interchangeable(data, again)


K = TypeVar("K", bound=Hashable)


class AssignmentModel:
    """CP-SAT model of all plans of a problem, student by student."""

    linearization_level = 1

    def __init__(self, data: ProblemData, *, timed: bool) -> None:
        self.model = cp_model.CpModel()
        self._data = data
        self._v = create_variables(self.model, data)
        self.logarithms: list[Logarithm] = []
        self.refinements: list[AccuracyCurve | ReliabilityModel] = []
        self._add_rules(timed)

    def _place_students(self) -> None:
        """Add the rules of students on boards, whatever they know."""
        model, v, data = self.model, self._v, self._data
        if data.has_copies:
            rules.one_network_and_boards(model, v, data)
            rules.filters_follow_copies(model, v, data)
        else:
            rules.one_network_and_board(model, v)
        rules.filters_follow_students(model, v, data)
        rules.students_share_group0(model, v, data)
        rules.boards_in_use(model, v)
        one_point_per_board(model, v, data)
        rules.copies_of_group0(model, v, data)
        budgets_hold(model, v, data)

    def _add_rules(self, timed: bool) -> None:
        model, v, data = self.model, self._v, self._data
        rules.one_drop_step(model, v)
        rules.communities_stay_whole(model, v, data)
        rules.students_have_knowledge(model, v, data)
        rules.number_of_students(model, v, data)
        rules.further_rounds(model, v, data)
        self._place_students()
        rules.students_in_order(model, v, data)
        rules.twin_communities_in_order(model, v, data)
        if timed:
            rules.alike_boards_by_turn(model, v, data)
        else:
            rules.alike_boards_by_first_student(model, v, data)

    def total(self, figure: Resource) -> Expr:
        """Return a figure, added up over all boards."""
        students = (self._at(b, figure) for b in self._data.boards)
        return sum_of([*students, self._data.stem_usage(figure)])

    def knowledge(self, figure: StudentQuantity) -> Expr:
        """Return a figure, added up over all students, copies not counted."""
        v, data, modes = self._v, self._data, self._data.modes
        if not data.has_copies:
            if figure == "macs" and data.shares_stem:
                return sum_of(known_macs_on(v, data, b) for b in data.boards)
            return self.total(figure)
        if figure == "value_bytes":
            return sum_of(modes[o].value_bytes * pick for (_, o), pick in v.picks.items())
        heads = head_costs(data, figure)
        fixed = (heads[o].constant * pick for (_, o), pick in v.picks.items())
        slope = {one.cost_slope: head.per_filter for one, head in zip(modes, heads, strict=True)}
        shapes = {mode.group0: stem_cost(mode) for mode in modes} if data.shares_stem else {}
        stems = (getattr(cost, figure) * self._counted[g] for g, cost in shapes.items())
        known = (slope[head] * filters for (_, head), filters in v.known.items())
        return sum_of([*fixed, *known, *stems])

    @cached_property
    def _counted(self) -> dict[str, cp_model.IntVar]:
        return rules.copies_that_count(self.model, self._v, self._data)

    def survival(self) -> Expr:
        """Failures that each student survives, as a variable.

        Let survival <= |boards of s beside those of a threat| + its outages - 1, each s.
        """
        most = self._data.max_copies
        survival = self.model.new_int_var(0, most - 1, "survival")
        for out, number in self._data.outage_sets:
            for s, active in enumerate(self._v.active):
                left = sum_of(self._v.replica_sets(s, out)) + number - 1
                self.model.add(survival <= left + most * (1 - active))
        return survival

    def robustness(self) -> Expr:
        """Return the expected accuracy when boards fail."""
        return self._answers.robustness

    def reliability(self) -> Expr:
        """Return the chance that an answer has the target accuracy."""
        return self._answers.reliability

    @cached_property
    def _answers(self) -> ReliabilityModel:
        """Which students answer when boards fail; made where it is asked for."""
        data = self._data
        assert data.scenarios is not None  # noqa: S101  (a question needs them for it)
        (p0, p1), (m0, m1) = (data.usage_range(figure) for figure in LOGARITHMS)
        extent = log_units(p0) + log_units(m0), log_units(p1) + log_units(m1) + 2
        curve = AccuracyCurve(self.model, data.scenarios, self.size(), *extent)
        answers = ReliabilityModel(self.model, self._v, data, data.scenarios, curve.value)
        self.refinements = [curve, answers]
        return answers

    def on(self, board: int, figure: Resource) -> Expr:
        """Return a figure of one board, at whichever of its operating points."""
        return sum_of(self._at(place, figure) for place in self._data.places_of[board])

    def _at(self, place: int, figure: Resource) -> Expr:
        return use_on(self.model, self._v, self._data, place, figure)

    def boards(self) -> Expr:
        """Return how many boards have a student, or G0 alone."""
        return sum_of([*self._v.used.values(), int(self._data.stem is not None)])

    def students(self) -> Expr:
        """Return how many students there are."""
        return sum_of(self._v.active)

    def latency(self) -> Expr:
        """Return the latency of one image.

        It is one expression however often it is read: a limit and an objective must hold for the
        same order of sends.
        """
        return self._latency

    @cached_property
    def _latency(self) -> Expr:
        return model_latency(self.model, self._v, self._data)

    def highest(self, figure: Resource) -> Expr:
        """Let highest >= the figure of each board."""
        highest = self.model.new_int_var(
            self._data.stem_usage(figure), LATEST_UNITS, f"highest {figure}"
        )
        for b in self._data.boards:
            self.model.add(highest >= self._at(b, figure))
        return highest

    def period(self) -> Expr:
        """Let period >= what sender, wires, processors and host are busy with one image."""
        v, data = self._v, self._data
        period = self.model.new_int_var(data.fixed_period, LATEST_UNITS, "period")
        held: dict[str, list[Expr]] = defaultdict(list)
        for b in data.boards:
            capacity = data.capacities[b].board
            send = data.send(b) * v.used[b]
            held[SENDER].append(send)
            held[downlink(capacity)].append(send)
            held[uplink(capacity)].append(reply_time(v, data, b))
            held[f"{capacity.name}.cpu"].append(self._at(b, "busy"))
        for times in held.values():
            self.model.add(period >= sum_of(times))
        return period

    def size(self) -> Expr:
        """Sum up the logarithms of parameters and of MACs."""
        self.logarithms = self.logarithms or size_logarithms(self.model, self, self._data)
        return sum_of(each.value for each in self.logarithms)

    def spread(self) -> Expr:
        """High >= |P_s| >= low for each student s."""
        most = self._data.filters
        high, low = (self.model.new_int_var(0, most, name) for name in ("high", "low"))
        # Further rounds have no other sizes.
        for s in self._v.first_round:
            size = self._v.size(self._data, s)
            self.model.add(high >= size)
            self.model.add(low <= size + most * (1 - self._v.active[s]))
        self.model.add(high >= low)
        return high - low

    def unevenness(self) -> Expr:
        """Return how much less alike partitions are than they can be."""
        return rules.unevenness_of_students(self.model, self._v, self._data, self.spread())

    def inversion(self) -> Expr:
        """Return most filters that a wider student has fewer than a narrower one."""
        return rules.inversion_of_students(self.model, self._v, self._data)

    def dropped(self, worth: Callable[[DropChoice], int]) -> Expr:
        """Return the worth of the chosen drop."""
        choices = zip(self._data.drop_choices, self._v.drop, strict=True)
        return sum_of(worth(drop) * taken for drop, taken in choices)

    def hint(self, known: Assignment) -> None:
        """Tell the solver of a plan, in the model's own order."""
        v, data = self._v, self._data
        plan = canonical_form(data, known, timed=bool(v.precedes))
        numbered = [(self._slot(place, one), one) for place, one in enumerate(plan.students)]
        members = {(c, s) for s, one in numbered for c in one.communities if one.round == 1}
        runs = {(s, b, self._option(one)) for s, one in numbered for b in one.boards}
        turn = {board: place for place, board in enumerate(plan.send_order)}
        self._hint(v.member, members)
        self._hint(v.runs, runs)
        self._hint(v.used, set(turn))
        self._hint(dict(enumerate(v.active)), {s for s, _ in numbered})
        self._hint(v.group0, {data.modes[o].group0 for _, _, o in runs})
        copies = {(b, data.modes[o].group0, data.modes[o].precision) for _, b, o in runs}
        if len(v.group0) > 1:
            self._hint(v.knows_stem, {(b, g) for b, g, _ in copies})
        own = {key: c for key, c in v.copies_stem.items() if c is not v.knows_stem[key[:2]]}
        self._hint(own, copies)
        self._hint(
            dict(enumerate(v.drop)),
            {
                d
                for d, one in enumerate(data.drop_choices)
                if set(one.communities) == set(plan.dropped)
            },
        )
        self._hint(
            {pair: before for pair, before in v.precedes.items() if before is not v.used[pair[1]]},
            {(a, b) for a in turn for b in turn if turn[a] < turn[b]},
        )
        sizes = {s: sum(data.sizes[c] for c in one.communities) for s, one in numbered}
        filters = {(s, b, data.modes[o].cost_slope): sizes[s] for s, b, o in runs}
        for key, variable in v.filters.items():
            self.model.add_hint(variable, filters.get(key, 0))
        self._hint_copies(numbered, sizes)

    def _hint_copies(
        self, numbered: Sequence[tuple[int, AssignedStudent]], sizes: Mapping[int, int]
    ) -> None:
        v, data = self._v, self._data
        picks = {(s, self._option(one)) for s, one in numbered}
        self._hint(v.picks, picks)
        known = {(s, data.modes[o].cost_slope): sizes[s] for s, o in picks}
        for key, variable in v.known.items():
            self.model.add_hint(variable, known.get(key, 0))
        self._hint(v.waits, {one.board for _, one in numbered})
        self._hint(v.waited, {(s, one.board) for s, one in numbered})

    def _option(self, student: AssignedStudent) -> int:
        """Return the place of a student's option."""
        names = [(one.name, one.precision) for one in self._data.modes]
        return names.index((student.network, student.precision))

    def _slot(self, place: int, student: AssignedStudent) -> int:
        """Return the slot of a student: those of the first round are at their places."""
        if student.round == 1:
            return place
        first = len(self._v.first_round)
        return first + self._v.extra_students.index((student.round, student.communities[0]))

    def _hint(self, variables: Mapping[K, cp_model.IntVar], true: Collection[K]) -> None:
        """Hint that the variables of these keys are true, and all others false."""
        for key, variable in variables.items():
            self.model.add_hint(variable, key in true)

    def assignment(self, solver: cp_model.CpSolver) -> Assignment:
        """Return the assignment of a solution."""
        v, data = self._v, self._data
        replica_sets: dict[tuple[int, int], list[int]] = defaultdict(list)
        for (s, b, o), runs in v.runs.items():
            if solver.boolean_value(runs):
                replica_sets[s, o].append(b)
        students = tuple(
            data.modes[o].student(*self._knowledge(solver, s, boards))
            for (s, o), boards in replica_sets.items()
        )
        (drop,) = (d for d, taken in enumerate(v.drop) if solver.boolean_value(taken))
        return Assignment(
            students=students,
            dropped=tuple(sorted(data.drop_choices[drop].communities)),
            send_order=ordered_boards(v, solver) if data.order_matters and v.precedes else (),
        )

    def _knowledge(
        self, solver: cp_model.CpSolver, student: int, boards: Sequence[int]
    ) -> tuple[list[int], list[int], int]:
        """Return a student's communities in a solution, its boards, waited for first, its round."""
        v = self._v
        waited = {b for b in boards if b in v.waits and solver.boolean_value(v.waits[b])}
        replica_sets = sorted(boards, key=lambda b: b not in waited)
        if student in v.first_round:
            communities = self._data.communities
            own = [c for c in communities if solver.boolean_value(v.member[c, student])]
            return own, replica_sets, 1
        number, community = v.extra_students[student - len(v.first_round)]
        return [community], replica_sets, number
