"""CP-SAT as the planner uses it, beside the module of OR-Tools that it stands for."""

import gc
import weakref

import pytest
from ortools.sat.python import cp_model as full

from planner import solvers


def filled(model):
    """One of each constraint that the planner uses, an objective and a hint."""
    x, y = model.new_int_var(0, 9, "x"), model.new_int_var(-3, 7, "y")
    a, b, c = (model.new_bool_var(name) for name in "abc")
    model.add(2 * x + 3 * y <= 20)
    model.add(x >= y + 1).only_enforce_if(a)
    model.add_bool_or([a, b, ~c])
    model.add_bool_or(a, c)
    model.add_at_most_one([a, b])
    model.add_exactly_one(b, c)
    model.add_implication(a, ~b)
    product, largest = model.new_int_var(0, 99, "product"), model.new_int_var(0, 9, "largest")
    model.add_multiplication_equality(product, [x, x])
    model.add_max_equality(largest, [x, y])
    model.add(True)
    model.add_hint(x, 4)
    model.add_hint(a, True)
    return x, y, a


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_models_are_those_of_or_tools(goal):
    models = solvers.CpModel(), full.CpModel()
    for model in models:
        x, y, a = filled(model)
        getattr(model, goal)(3 * x - 2 * y + a + 5)
    own, theirs = (str(model.proto) for model in models)
    assert own == theirs


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_solutions_are_those_of_or_tools(goal):
    found = []
    for kind in (solvers, full):
        model = kind.CpModel()
        x, y, a = filled(model)
        getattr(model, goal)(3 * x - 2 * y + a + 5)
        solver = kind.CpSolver()
        solver.parameters.num_workers = 1
        assert solver.solve(model) == solvers.OPTIMAL
        found.append(
            (
                solver.value(3 * x - 2 * y),
                solver.boolean_value(a),
                solver.objective_value,
                solver.best_objective_bound,
            )
        )
    assert found[0] == found[1]


def test_a_rule_that_never_holds_leaves_no_solution():
    model = solvers.CpModel()
    filled(model)
    model.add(False)
    model.minimize(7)
    assert solvers.CpSolver().solve(model) == solvers.INFEASIBLE


def test_a_model_that_nobody_holds_is_gone_at_once():
    gc.disable()
    try:
        model = solvers.CpModel()
        filled(model)
        gone = weakref.ref(model)
        del model
        assert gone() is None
    finally:
        gc.enable()
