"""Limits: the time they count, and questions that are too large for a model."""

import numpy as np
import pytest
from drawn_problems import unlike_question
from planner_questions import SMALL, partition, question, stages

from planner import solvers
from planner.data.objective_function import OBJECTIVE_FUNCTIONS
from planner.data.problem_data import resolve_problem
from planner.heuristics import SearchEffort
from planner.heuristics.board_load import enumerate_patterns
from planner.heuristics.local_search import apply_move, enumerate_moves, local_search
from planner.heuristics.solution import CostEvaluator
from planner.plan_file.validation import violations
from planner.solve import solve
from planner.solvers import is_modelled, level_solver, term_count
from planner.solvers.pattern_model import PatternLists
from planner.solvers.search import TimeBudget, search


def test_a_local_search_ends_at_its_limit_with_a_plan():
    data = resolve_problem(question("rpi-3b*4,odroid-xu4s*4", (3, 4, 5, 6, 7, 8)))
    goal = OBJECTIVE_FUNCTIONS["capacity"]
    free, held = SearchEffort(), SearchEffort(limit=0.005)
    local_search(data, goal, (), seed=0, effort=free)
    assert local_search(data, goal, (), seed=0, effort=held) is not None
    assert free.spent > 0.01
    assert held.spent < 0.006


def test_moves_alone_take_a_part_of_the_time_and_kicks_lead_on_from_there():
    data = resolve_problem(unlike_question(0, boards=(6, 6), students=(5, 5)))
    goal, effort = OBJECTIVE_FUNCTIONS["latency"], [SearchEffort(), SearchEffort()]
    first = local_search(data, goal, (), seed=0, kicks=0, effort=effort[0])
    assert local_search(data, goal, (), seed=0, effort=effort[1])[1] <= first[1]
    assert effort[0].spent < effort[1].spent


def test_the_same_limit_gives_the_same_plan():
    data = resolve_problem(question("rpi-3b*4,odroid-xu4s*4", (3, 4, 5, 6, 7, 8)))
    goal = OBJECTIVE_FUNCTIONS["latency"]
    found = [
        local_search(data, goal, (), seed=3, effort=SearchEffort(limit=0.005)) for _ in range(2)
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize("copies", [1, 2])
def test_a_draft_valued_from_one_near_it_is_valued_alike(copies):
    asked = question("rpi-3b*3,odroid-xu4s", (3, 4, 5, 6), memory=60_000, max_copies=copies)
    data = resolve_problem(asked)
    draw, evaluator = np.random.default_rng(1), CostEvaluator(data)
    solution = evaluator.solution_of(
        local_search(data, OBJECTIVE_FUNCTIONS["capacity"], (), seed=0)[0]
    )
    near = evaluator.evaluate(solution)
    for _ in range(200):
        moves = enumerate_moves(data, solution)
        changed = apply_move(data, solution, moves[draw.integers(len(moves))])
        if changed is None:
            continue
        whole, partly = evaluator.evaluate(changed), evaluator.evaluate(changed, near)
        for read in ("latency", "period", "students", "boards", "spread", "size", "tie_breaker"):
            assert getattr(whole, read)() == getattr(partly, read)()
        assert whole.total("memory_bytes") == partly.total("memory_bytes")
        assert whole.violation() == pytest.approx(partly.violation())
        solution, near = changed, partly


def test_a_question_too_large_for_a_model_has_the_plan_of_the_local_search(monkeypatch):
    monkeypatch.setattr("planner.solvers.MOST_TERMS", 10)
    monkeypatch.setattr("planner.solvers.MOST_PATTERNS", 1)
    plan = solve(question("rpi3x2", (3, 4, 5), objective=stages("capacity", "latency")))
    assert plan.status == "feasible"
    assert violations(plan) == []
    assert [stage.proven for stage in plan.stages] == [False, False]
    assert [stage.bound for stage in plan.stages] == [None, None]
    assert plan.solver.deterministic_time < plan.question.deterministic_limit


def test_what_is_modelled_grows_with_boards_and_not_with_their_names():
    few = resolve_problem(question("rpi-3b*3", (3, 4, 5)))
    assert is_modelled(term_count(few, 1000, timed=True))
    assert not is_modelled(term_count(few, 10**7, timed=True))


def test_no_model_is_made_with_the_last_of_the_time():
    terms = 200_000
    assert is_modelled(terms, 1.0)
    assert not is_modelled(terms, 0.5)
    assert is_modelled(terms // 10, 0.0)  # soon made


def test_too_many_patterns_are_known_from_parts_of_one_row():
    """Nothing limits what a board runs: of 50 rounds of 4 communities there are 51^4 - 1 rows."""
    asked = resolve_problem(
        question("rpi-3b*60", (3, 4, 5, 6), networks=SMALL[:1], max_students=200, reuse=True)
    )
    effort = SearchEffort()
    assert enumerate_patterns(asked, 50_000, effort) is None
    assert effort.spent < 0.01


@pytest.mark.parametrize("copies", ["per-student", "per-board"])
def test_too_many_pairs_are_known_at_once_and_never_where_there_are_no_more(copies):
    """The second half: what room added-up costs have is no more than what joint models take."""
    same = (24, 24)
    large = unlike_question(0, boards=same, students=same, communities=same)
    effort = SearchEffort()
    asked = resolve_problem(large.model_copy(update={"group0_copies": copies}))
    assert enumerate_patterns(asked, 1_000, effort) is None
    assert effort.spent == 0
    for seed in range(6):
        small = unlike_question(seed, boards=(3, 3), students=(2, 3), communities=(3, 4))
        asked = resolve_problem(small.model_copy(update={"group0_copies": copies}))
        every = enumerate_patterns(asked, 10**6)
        assert enumerate_patterns(asked, len(every.entries)) == every


def test_a_level_leaves_time_for_those_that_follow(monkeypatch):
    """Each search takes all that it is given; the first has a plan to find, and takes a half."""
    given = []

    def costly(data, goal, *parts, time_budget, **fields):
        given.append(time_budget.remaining)
        found = search(data, goal, *parts, time_budget=TimeBudget(20), **fields)
        time_budget.remaining = 0.0 if len(given) > 1 else time_budget.remaining / 2
        return found

    monkeypatch.setattr("planner.solve.search", costly)
    goals = stages("capacity", "imbalance", "latency", "energy")
    solve(question("rpi3x2", (3, 4, 5), objective=goals, deterministic_limit=100.0))
    assert given == pytest.approx([100, 50 * 0.8, 50 * 0.2 * 0.9, 50 * 0.2 * 0.1])


def test_listing_counts_and_ends_at_its_limit():
    asked = resolve_problem(unlike_question(0, boards=(3, 3), students=(3, 3), communities=(4, 4)))
    free, held = SearchEffort(), SearchEffort(limit=0.001)
    assert enumerate_patterns(asked, 10**6, free) is not None
    assert enumerate_patterns(asked, 10**6, held) is None
    assert free.spent > held.spent
    assert held.spent == pytest.approx(0.001, rel=0.05)


def test_patterns_are_listed_once_and_those_of_a_tighter_limit_are_the_same(monkeypatch):
    asked = resolve_problem(unlike_question(3, boards=(3, 3), students=(3, 3), communities=(4, 4)))
    listed = []

    def counted(*parts):
        listed.append(parts)
        return enumerate_patterns(*parts)

    monkeypatch.setattr("planner.solvers.pattern_model.enumerate_patterns", counted)
    ends = sorted(one.loading.tail for one in enumerate_patterns(asked, 10**6).entries)
    lists, bounds = PatternLists(), (ends[-1], ends[len(ends) // 2], ends[len(ends) // 3])
    for latency in bounds:
        within = asked.within_latency(latency + asked.fixed_latency)
        fresh = enumerate_patterns(within, 10**6)
        assert lists.of(within, 10**6, 1.0) == fresh
        assert lists.of(within, len(fresh.entries) - 1, 1.0) is None
    assert len(listed) == 1
    # A looser one is another list; what was too many before is too many again.
    assert lists.of(asked, 1, 1.0) is None
    assert lists.of(asked, 1, 1.0) is None
    assert len(listed) == 2


def test_a_goal_of_drops_alone_needs_no_model(monkeypatch):
    monkeypatch.setattr(solvers.CpSolver, "solve", None)
    for steps in ((), [((0,), 0.1)]):
        parts = partition((3, 4, 5, 6), steps)
        (stage,) = solve(question(partition=parts, objective=stages("dropped"))).stages
        assert stage.proven
        assert stage.bound == stage.best == (0.1 - 3 if steps else 0)


def test_a_large_model_is_made_once(monkeypatch):
    built, model = [], level_solver.AssignmentModel

    def counted(*parts, **named):
        built.append(parts)
        return model(*parts, **named)

    asked = resolve_problem(unlike_question(1))
    goal = OBJECTIVE_FUNCTIONS["capacity"]
    monkeypatch.setattr(level_solver, "AssignmentModel", counted)
    monkeypatch.setattr("planner.solvers.search.SHORT_SHARE", 1e-9)
    found = []
    for many in (0, 10**9):
        monkeypatch.setattr(level_solver, "MANY_CHOICES", many)
        found.append(search(asked, goal, seed=0, time_budget=TimeBudget(20)))
    assert found[0].proven
    assert found[0].value == found[1].value
    assert len(built) == 3
