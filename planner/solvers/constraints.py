"""The rules of a plan, one function each: the sentence, then the equation.

Symbols are those of `planner.variables`: s student, b board, o network option, h head, c community
with n_c filters, d drop step.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

from planner import solvers as cp_model
from planner.data.balance import Division, divisions
from planner.data.modes import CostSlope
from planner.data.problem_data import ProblemData
from planner.problem.least_spread import PCT_UNITS, least_spread, most_spread
from planner.solvers.variables import Expr, Variables, sum_of

Model = cp_model.CpModel
Literal = cp_model.BoolVarT
Cases = Sequence[tuple[Division, Sequence[Literal]]]

MOST_UNEVEN = 10**12
"""Unevenness, in solver units, that no plan has."""


def one_drop_step(model: Model, v: Variables) -> None:
    """Take exactly one of the allowed drop steps.

    sum_d drop[d] = 1.
    """
    model.add_exactly_one(v.drop)


def communities_stay_whole(model: Model, v: Variables, data: ProblemData) -> None:
    """Give each community whole to one student, or drop it.

    sum_s member[c,s] + sum_{d drops c} drop[d] = 1 for each c.
    """
    for community in data.communities:
        students = [v.member[community, s] for s in range(data.slots)]
        steps = [
            v.drop[d] for d, one in enumerate(data.drop_choices) if community in one.communities
        ]
        model.add_exactly_one(students + steps)


def students_have_knowledge(model: Model, v: Variables, data: ProblemData) -> None:
    """Give each student that exists at least one community.

    active[s] = max_c member[c,s] for each s of the first round.
    """
    for s in v.first_round:
        active = v.active[s]
        members = [v.member[c, s] for c in data.communities]
        model.add_bool_or([*members, ~active])
        for member in members:
            model.add_implication(member, active)


def number_of_students(model: Model, v: Variables, data: ProblemData) -> None:
    """Keep the number of students in its range.

    min <= sum_s active[s] <= max.
    """
    model.add(sum_of(v.active) >= data.min_students)
    model.add(sum_of(v.active) <= data.max_students)


def further_rounds(model: Model, v: Variables, data: ProblemData) -> None:
    """Hand out all kept communities again, one to each extra student.

    There are extra students only where each student of the first round has one community.

    follow[r,c] <= 1 - drop[d] for each d that drops c, and
    follow[2,c] implies sum_{s of the first round} active[s] = communities that are kept.
    The round before is full: follow[r,c] <= follow[r-1,c'] + sum_{d drops c'} drop[d], all c, c'.
    Of communities that are alike the earlier ones come first.
    """
    follow = {(number, c): active for number, c, active in v.follow()}
    dropped = {
        c: [v.drop[d] for d, one in enumerate(data.drop_choices) if c in one.communities]
        for c in data.communities
    }
    kept = sum_of(
        (len(data.sizes) - len(one.communities)) * v.drop[d]
        for d, one in enumerate(data.drop_choices)
    )
    first = sum_of(v.active[s] for s in v.first_round)
    for (number, c), active in follow.items():
        if number == 2:
            model.add(first == kept).only_enforce_if(active)
        for step in dropped[c]:
            model.add_implication(active, ~step)
        for other in data.communities if number > 2 else ():
            before = [follow[number - 1, other]] if (number - 1, other) in follow else []
            model.add_bool_or([~active, *before, *dropped[other]])
    for c, twin in pairwise(data.communities):
        for number in range(2, data.rounds + 1) if _alike(data, c, twin) else ():
            if (number, c) in follow and (number, twin) in follow:
                model.add_implication(follow[number, twin], follow[number, c])


def _alike(data: ProblemData, community: int, other: int) -> bool:
    """Say whether communities are of one size, and dropped together or not at all."""
    return data.sizes[community] == data.sizes[other] and all(
        (community in drop.communities) == (other in drop.communities) for drop in data.drop_choices
    )


def one_network_and_board(model: Model, v: Variables) -> None:
    """Make each student one network on one board.

    sum_{b,o} runs[s,b,o] = active[s] for each s.
    """
    for s, active in enumerate(v.active):
        model.add_exactly_one([*v.replica_sets(s), ~active])


def one_network_and_boards(model: Model, v: Variables, data: ProblemData) -> None:
    """Make each student one network, and put it on a few boards.

    sum_o picks[s,o] = active[s], runs[s,b,o] <= picks[s,o] <= sum_b runs[s,b,o], and
    sum_{b,o} runs[s,b,o] <= copies, for each s, b, o.
    """
    runs_of: dict[tuple[int, int], list[cp_model.IntVar]] = defaultdict(list)
    for (s, _, o), runs in v.runs.items():
        runs_of[s, o].append(runs)
    for s, active in enumerate(v.active):
        picks = {o: pick for (student, o), pick in v.picks.items() if student == s}
        model.add_exactly_one([*picks.values(), ~active])
        model.add(sum_of(v.replica_sets(s)) <= data.max_copies)
        for o, pick in picks.items():
            model.add_bool_or([*runs_of[s, o], ~pick])
            for runs in runs_of[s, o]:
                model.add_implication(runs, pick)


def filters_follow_students(model: Model, v: Variables, data: ProblemData) -> None:
    """Count a student's filters where it runs.

    sum_{b,h} filters[s,b,h] = |P_s| for each s of the first round; and for each s, b, h, over the
    options o of head h, least[s] * sum_o runs[s,b,o] <= filters[s,b,h] and
    filters[s,b,h] <= sum_o most[s,b,o] * runs[s,b,o], which for a further one are equal.
    """
    choices: dict[tuple[int, int, CostSlope], list[tuple[int, cp_model.IntVar]]] = defaultdict(list)
    for (s, b, o), runs in v.runs.items():
        choices[s, b, data.modes[o].cost_slope].append((v.most_filters[s, b, o], runs))
    for key, filters in v.filters.items():
        least = v.least_filters[key[0]]
        model.add(filters <= sum_of(most * runs for most, runs in choices[key]))
        model.add(filters >= sum_of(least * runs for _, runs in choices[key]))
    for s in () if data.has_copies else v.first_round:
        counted = [filters for (student, _, _), filters in v.filters.items() if student == s]
        model.add(sum_of(counted) == v.size(data, s))


def filters_follow_copies(model: Model, v: Variables, data: ProblemData) -> None:
    """Count filters of a student with copies: once, and on each board.

    For each s of the first round, sum_h known[s,h] = |P_s|; filters[s,b,h] <= |P_s|, and
    filters[s,b,h] >= |P_s| - most * (1 - sum_o runs[s,b,o]) over the options o of head h.
    known[s,h] <= most * sum_o picks[s,o]; of a further student they are equal, with its filters.
    """
    picked: dict[tuple[int, CostSlope], list[cp_model.IntVar]] = defaultdict(list)
    for (s, o), pick in v.picks.items():
        picked[s, data.modes[o].cost_slope].append(pick)
    runs: dict[tuple[int, int, CostSlope], list[cp_model.IntVar]] = defaultdict(list)
    for (s, b, o), one in v.runs.items():
        runs[s, b, data.modes[o].cost_slope].append(one)
    most = data.filters
    for (s, head), known in v.known.items():
        if s not in v.first_round:
            model.add(known == v.least_filters[s] * sum_of(picked[s, head]))
        else:
            model.add(known <= most * sum_of(picked[s, head]))
    for (s, b, head), filters in v.filters.items():
        if s in v.first_round:
            size = v.size(data, s)
            model.add(filters <= size)
            model.add(filters >= size - most * (1 - sum_of(runs[s, b, head])))
    for s in v.first_round:
        counted = [known for (student, _), known in v.known.items() if student == s]
        model.add(sum_of(counted) == v.size(data, s))


def students_share_group0(model: Model, v: Variables, data: ProblemData) -> None:
    """Give all students the same first group, which they share (arXiv:1907.11804, 4.3).

    sum_{b, o of G0 shape g} runs[s,b,o] <= copies * group0[g] for each s, g, and
    sum_g group0[g] = 1.
    """
    model.add_exactly_one(v.group0.values())
    if len(v.group0) == 1:
        return
    choices: dict[tuple[int, str], list[cp_model.IntVar]] = defaultdict(list)
    for (s, _, o), runs in v.runs.items():
        choices[s, data.modes[o].group0].append(runs)
    for s in range(len(v.active)):
        for shape, shared in v.group0.items():
            model.add(sum_of(choices[s, shape]) <= data.max_copies * shared)


def boards_in_use(model: Model, v: Variables) -> None:
    """Call a board used exactly when a student runs on it.

    used[b] = max_s at[s,b] with at[s,b] = sum_o runs[s,b,o].
    """
    for b, used in v.used.items():
        students = v.students_on(b)
        for at in students:
            model.add(at <= used)
        model.add(sum_of(students) >= used)


def copies_of_group0(model: Model, v: Variables, data: ProblemData) -> None:
    """Give a board a shared copy of G0 exactly where a student needs it.

    copies_stem[b,g,q] = max_{s,o} runs[s,b,o] over the options o of G0 g at precision q,
    knows_stem[b,g] = max_q copies_stem[b,g,q], and sum_g knows_stem[b,g] = used[b].
    """
    users: dict[tuple[int, str, str], list[cp_model.IntVar]] = defaultdict(list)
    for (_, b, o), runs in v.runs.items():
        users[b, data.modes[o].group0, data.modes[o].precision].append(runs)
    copies: dict[tuple[int, str], list[cp_model.IntVar]] = defaultdict(list)
    for (b, g, q), copy in v.copies_stem.items():
        copies[b, g].append(copy)
        if copy is not v.used[b]:
            _is_any(model, copy, users[b, g, q])
    known: dict[int, list[cp_model.IntVar]] = defaultdict(list)
    for (b, g), knows in v.knows_stem.items():
        known[b].append(knows)
        if copies[b, g] != [knows]:
            _is_any(model, knows, copies[b, g])
    for b, shapes in known.items():
        if len(shapes) > 1:
            model.add(sum_of(shapes) == v.used[b])


def _is_any(model: Model, one: cp_model.IntVar, others: Sequence[cp_model.IntVar]) -> None:
    """One = max(others)."""
    for other in others:
        model.add_implication(other, one)
    model.add_bool_or([*others, ~one])


def copies_that_count(model: Model, v: Variables, data: ProblemData) -> dict[str, cp_model.IntVar]:
    """Count the copies of G0 that students with replicas know, by shape.

    They are those of a matching of students and boards:

    sum_b counts[s,b] <= 1 and sum_s counts[s,b] <= 1 with counts[s,b] <= at[s,b], and
    sum_g counted[g] <= sum_{s,b} counts[s,b] with counted[g] <= boards * group0[g].
    """
    by_board: dict[int, list[cp_model.IntVar]] = defaultdict(list)
    by_student: dict[int, list[cp_model.IntVar]] = defaultdict(list)
    for b in data.boards:
        for s, at in enumerate(v.students_on(b)):
            counts = model.new_bool_var(f"counts{s},{b}")
            model.add(counts <= at)
            by_board[b].append(counts)
            by_student[s].append(counts)
    for each in (*by_board.values(), *by_student.values()):
        model.add_at_most_one(each)
    boards = len(data.boards)
    counted = {g: model.new_int_var(0, boards, f"counted{g}") for g in v.group0}
    for g, count in counted.items():
        model.add(count <= boards * v.group0[g])
    matched = sum_of(counts for each in by_board.values() for counts in each)
    model.add(sum_of(counted.values()) <= matched)
    return counted


def most_unevenness(model: Model, data: ProblemData, spread: Expr, cases: Cases) -> Expr:
    """Bound how much less alike partitions are than they can be (`planner.data.balance`).

    unevenness >= (spread - least[d,k]) k / F_d where k students share the F_d filters that d keeps.
    """
    unevenness = model.new_int_var(0, MOST_UNEVEN, "unevenness")
    for one, literals in cases:
        if one.students in (1, len(one.kept)):
            continue
        over = spread - least_spread(one.kept, one.students).filters
        scaled = 100 * PCT_UNITS * one.students * over
        model.add(sum(one.kept) * unevenness >= scaled).only_enforce_if(literals)
        if data.most_uneven is not None:
            most = most_spread(data.most_uneven, one.kept, one.students)
            model.add(spread <= most).only_enforce_if(literals)
    return sum_of([unevenness])


def wider_students_know_more(
    model: Model, data: ProblemData, students: Sequence[tuple[int, Expr | int, Expr | int, Expr]]
) -> Expr:
    """Bound on the most filters that a wider student lacks of a narrower one's.

    With steps edge[0] <= edge[1] <= ..., a student of width r that is there has at least
    edge[r] - inversion and at most edge[r+1] filters.  `students` are the rank of a width, fewest
    and most filters, and an expression that is 1 where students of these are there, else 0.
    """
    if len(set(data.width_ranks)) < 2:
        return sum_of([0])
    inversion = model.new_int_var(0, data.filters, "inversion")
    steps = range(max(data.width_ranks) + 2)
    edges = [model.new_int_var(0, data.filters, f"edge{rank}") for rank in steps]
    for lower, higher in pairwise(edges):
        model.add(lower <= higher)
    for rank, fewest, most, there in students:
        absent = data.filters * (1 - there)
        model.add(edges[rank] - inversion <= fewest + absent)
        model.add(edges[rank + 1] >= most - absent)
    return sum_of([inversion])


def unevenness_of_students(model: Model, v: Variables, data: ProblemData, spread: Expr) -> Expr:
    """Bound on unevenness: the first k slots are the students, where there are k."""
    cases: list[tuple[Division, list[Literal]]] = []
    for one in divisions(data):
        further = [~v.active[one.students]] if one.students < data.slots else []
        cases.append((one, [v.drop[one.drop], v.active[one.students - 1], *further]))
    return most_unevenness(model, data, spread, cases)


def inversion_of_students(model: Model, v: Variables, data: ProblemData) -> Expr:
    """Bound on inversion; a student with copies is one network wherever it is."""
    of_rank: dict[tuple[int, int], list[cp_model.IntVar]] = defaultdict(list)
    chosen = [((s, o), one) for (s, _, o), one in v.runs.items()]
    for (s, o), there in v.picks.items() if data.has_copies else chosen:
        of_rank[s, data.width_ranks[o]].append(there)
    sizes = [
        v.size(data, s) if s in v.first_round else sum_of([v.least_filters[s]])
        for s in range(len(v.active))
    ]
    students = [(rank, sizes[s], sizes[s], sum_of(one)) for (s, rank), one in of_rank.items()]
    return wider_students_know_more(model, data, students)


def inversion_of_counts(
    model: Model, data: ProblemData, counts: Mapping[tuple[int, int], Expr], most: int
) -> Expr:
    """Bound on inversion where students are counted by mode and filters, `most` of each."""
    students: list[tuple[int, Expr | int, Expr | int, Expr]] = []
    for (mode, filters), count in counts.items():
        there = model.new_bool_var(f"there{mode},{filters}")
        model.add(count <= most * there)
        students.append((data.width_ranks[mode], filters, filters, there))
    return wider_students_know_more(model, data, students)


def students_in_order(model: Model, v: Variables, data: ProblemData) -> None:
    """Put students in the order of their first communities, so that no plan appears twice.

    member[c,s] <= sum_{c' before c} member[c',s-1], communities being taken larger ones first.
    """
    for place, c in enumerate(data.communities):
        earlier = data.communities[:place]
        for s in range(1, data.slots):
            model.add_bool_or([~v.member[c, s], *(v.member[e, s - 1] for e in earlier)])
    for s in range(data.slots - 1):
        model.add_implication(v.active[s + 1], v.active[s])


def twin_communities_in_order(model: Model, v: Variables, data: ProblemData) -> None:
    """Give the earlier of two alike communities to the student of smaller number.

    sum_{s'<=s} member[c,s'] >= sum_{s'<=s} member[c',s'] for each s.  Alike: of one size, and
    dropped together or not at all.
    """
    for c, twin in pairwise(data.communities):
        if not _alike(data, c, twin):
            continue
        for last in range(data.slots - 1):
            first_ones = range(last + 1)
            model.add(
                sum_of(v.member[c, s] for s in first_ones)
                >= sum_of(v.member[twin, s] for s in first_ones)
            )


def alike_boards_by_first_student(model: Model, v: Variables, data: ProblemData) -> None:
    """Take boards that are alike in the order of their first students.

    at[s,b'] <= sum_{s'<s} at[s',b] for each s, where b' is the next board of b's kind; s' <= s
    where a student may be on both.
    """
    for kind in data.board_classes:
        for board, following in pairwise(kind):
            before, after = v.students_on(board), v.students_on(following)
            for s in range(len(v.active)):
                model.add(after[s] <= sum_of(before[: s + data.has_copies]))


def alike_boards_by_turn(model: Model, v: Variables, data: ProblemData) -> None:
    """Take boards that are alike in the order in which the host sends to them.

    used[b'] <= used[b] where b' is the next board of b's kind.
    """
    for kind in data.board_classes:
        for board, following in pairwise(kind):
            model.add_implication(v.used[following], v.used[board])
