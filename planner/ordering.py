"""Of all plans that differ only in what is alike, the one that the model of slots has.

Students go by their first community, twin communities to students in a row, and boards that are
alike are taken in a row (`planner.constraints` has the rules).
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from itertools import product

from planner.assignment import AssignedStudent, Assignment
from planner.catalogue import classes_of
from planner.draft import Appraiser
from planner.instance import Instance


def in_order(instance: Instance, plan: Assignment, *, timed: bool) -> Assignment:
    """Return the plan with students, twins and alike boards in the model's order.

    Its `send_order` is set, longest first where it was not.  Boards that are alike are taken in
    this order where `timed`, else in that of their first students.
    """
    plan = _twins_in_a_row(instance, plan)
    turns = plan.send_order or _longest_first(instance, plan)
    first = tuple(dict.fromkeys(board for student in plan.students for board in student.boards))
    taken: dict[int, int] = {}
    for kind in instance.kinds:
        used = [board for board in (turns if timed else first) if _alike(instance, board, kind[0])]
        taken |= dict(zip(used, kind, strict=False))
    students = tuple(
        replace(one, board=taken[one.board], copies=tuple(taken[b] for b in one.copies))
        for one in plan.students
    )
    return Assignment(students, plan.dropped, tuple(taken[board] for board in turns))


def _alike(instance: Instance, board: int, other: int) -> bool:
    return instance.kind_of(board) == instance.kind_of(other)


def _longest_first(instance: Instance, plan: Assignment) -> tuple[int, ...]:
    appraiser = Appraiser(instance)
    tails = appraiser.view(appraiser.draft(plan)).tails()
    return tuple(sorted(tails, key=lambda board: -tails[board]))


def _turn(rank: Mapping[int, int], student: AssignedStudent) -> tuple[int, int]:
    return student.round, min(rank[c] for c in student.communities)


def _twins_in_a_row(instance: Instance, plan: Assignment) -> Assignment:
    """Sort students by first community and deal out twins in a row, until nothing changes."""
    rank = {community: place for place, community in enumerate(instance.communities)}
    students = sorted(plan.students, key=lambda one: _turn(rank, one))
    owned: dict[int, list[int]] = defaultdict(list)
    rounds = range(1, max(one.round for one in students) + 1)
    for number, twins in product(rounds, classes_of(instance)):
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
    return again if again == plan else _twins_in_a_row(instance, again)
