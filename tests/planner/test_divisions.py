"""Divisions of a case, each with prices of its own: none is left out, and all are needed."""

from itertools import product

import numpy as np
import pytest
from drawn_problems import unlike_question
from planner_questions import question, stages

from planner.certificates import Case, Certificate, Demands, remaining_cases
from planner.certificates.figures import CostTables
from planner.certificates.listing import case_divisions
from planner.certificates.pricing import WorkLimit
from planner.certificates.verification import Claim, verify_plan
from planner.problem.problem import BALANCED
from planner.solve import solve
from planner.solvers.certificate_search import with_certificates

STAGED = stages("dropped", "capacity:5%", "imbalance", "latency")


def listed(sizes, students, spread):
    """Filters of each student in all ways to give every community to one, by brute force."""
    found = set()
    for owners in product(range(students), repeat=len(sizes)):
        held = [0] * students
        for size, owner in zip(sizes, owners, strict=True):
            held[owner] += size
        if min(held) and max(held) - min(held) <= spread:
            found.add(tuple(sorted(held, reverse=True)))
    return sorted(found)


@pytest.mark.parametrize("seed", range(12))
def test_divisions_are_those_of_all_assignments(seed):
    draw = np.random.default_rng(seed)
    sizes = tuple(map(int, draw.integers(1, 12, 6)))
    students, spread = int(draw.integers(2, 5)), int(draw.integers(0, 9))
    case = Case(0, 1, "any", tuple(range(6)), sizes, students, students, spread)
    parts = case_divisions(question(), case, WorkLimit(10**6))
    assert [part.division for part in parts] == listed(sizes, students, spread)
    assert all((part.sizes, part.most, part.merges) == (part.division, students, False)
               for part in parts)  # fmt: skip


def test_plans_of_the_default_question_are_certified_by_divisions():
    """Without them imbalance and latency were claims alone, after a search of twelve seconds."""
    problem = unlike_question(7, objective=STAGED)
    plan = with_certificates(solve(problem))
    found = verify_plan(problem, plan.model_dump(mode="json"))
    assert not found.untrue
    assert [one.standing for one in found.stages] == ["certified"] * 4
    assert any(leaf.division for leaf in plan.stages[-1].certificate.leaves)


def certified_by_divisions():
    """A question whose certificate has a leaf for each of several divisions."""
    problem = unlike_question(7, objective=stages("latency")).model_copy(update=BALANCED)
    (stage,) = with_certificates(solve(problem)).stages
    return problem, stage


def test_each_division_needs_a_leaf_that_is_its_own():
    problem, stage = certified_by_divisions()
    tables, demands = CostTables(problem), Demands.of(problem)
    claim = Claim(demands, "latency", stage.bound, stage.best)
    leaves = stage.certificate.leaves
    (whole, *_) = remaining_cases(problem, demands)
    assert len({leaf.division for leaf in leaves}) > 1
    assert claim.holds(tables, stage.certificate)
    better = Claim(demands, "latency", stage.bound + 1, stage.best + 1)
    assert not better.holds(tables, stage.certificate)
    for wrong in (
        leaves[1:],
        (leaves[0].model_copy(update={"division": leaves[1].division}), *leaves[1:]),
        (leaves[0].model_copy(update={"division": whole.kept_sizes}), *leaves[1:]),
    ):
        assert not claim.holds(tables, Certificate(leaves=wrong))
