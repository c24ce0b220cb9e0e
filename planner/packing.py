"""A packing: communities dealt to boards of which it is known how many students each runs."""

from collections.abc import Sequence

from ortools.sat.python import cp_model

from planner.assignment import AssignedStudent, Assignment
from planner.instance import Instance
from planner.loading import loader
from planner.option import Option
from planner.relaxation import Choice
from planner.variables import total


def packed(
    instance: Instance, option: Option, choices: Sequence[Choice], solver: cp_model.CpSolver
) -> Assignment | None:
    """Return a plan of low latency that runs these choices, sent to in their order, if one fits.

    All students are of one network.  What it returns may break a budget whose peak depends on who
    runs which community, so that it has to be appraised.
    """
    free = [list(boards) for boards in instance.kinds]
    boards = [free[choice.kind].pop(0) for choice in choices]
    model = cp_model.CpModel()
    member = [[model.new_bool_var("") for _ in boards] for _ in instance.sizes]
    drop = [model.new_bool_var("") for _ in instance.drops]
    model.add_exactly_one(drop)
    for c, places in enumerate(member):
        steps = [d for d, one in zip(drop, instance.drops, strict=True) if c in one.communities]
        model.add_exactly_one([*places, *steps])
    latency = model.new_int_var(0, 2**50, "latency")
    load, place, sent = loader(instance), instance.options.index(option), 0
    for p, (board, choice) in enumerate(zip(boards, choices, strict=True)):
        sent += choice.send
        here = [places[p] for places in member]
        model.add(total(here) >= choice.students)
        filters = total(n * one for n, one in zip(instance.sizes, here, strict=True))
        model.add(filters <= choice.filters)
        # A loading's times are affine in its filters.
        none, one = (
            load(board, ((place, 0),) * (choice.students - 1) + ((place, n),)).tail for n in (0, 1)
        )
        model.add(latency >= sent + none + (one - none) * filters)
    model.minimize(latency)
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    students: list[AssignedStudent] = []
    for p, (board, choice) in enumerate(zip(boards, choices, strict=True)):
        own = [c for c, places in enumerate(member) if solver.boolean_value(places[p])]
        last = choice.students - 1
        groups = [*([c] for c in own[:last]), own[last:]]
        students += [option.student(group, [board]) for group in groups]
    (taken,) = (one for d, one in zip(drop, instance.drops, strict=True) if solver.boolean_value(d))
    return Assignment(tuple(students), tuple(sorted(taken.communities)))
