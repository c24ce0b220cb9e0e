"""Balance of partitions as people meet it: plans, files, conflicts, repairs, thresholds, fronts."""

from dataclasses import replace

import pytest
from drawn_problems import unlike_question
from planner_questions import published, question, stages

from nonn_common.errors import InputError, UnprovenError
from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network, student_candidates
from nonn_core.networks.network_cost import student_cost
from nonn_plan.cli.parsers.requirements import parse_balance
from planner.accuracy.rows import TeacherFacts
from planner.data.balance import keep_order_of_widths
from planner.data.modes import Mode
from planner.data.problem_data import resolve_problem
from planner.diagnosis.explanation import explain
from planner.exploration.cell import CellRequest
from planner.exploration.trade_offs import BudgetRange, find_breakpoints
from planner.heuristics.baselines import BASELINES, solve_by_baseline
from planner.plan_file.plan_document import PlanDocument
from planner.plan_file.validation import violations
from planner.problem.goals import AccuracyBasis
from planner.problem.problem import BALANCED
from planner.solve import solve
from planner.solvers.search import SolverSession, TimeBudget

TEACHER = AccuracyBasis(teacher=TeacherFacts.of_network("wrn40-4", ImageShape.parse("3x32x32"), 10))
SMALL_IMAGE = ImageShape.parse("1x8x8")
NARROW, WIDE = "wrn10:4,8,8", "wrn10:4,8,16"


def filters_by_network(plan):
    return sorted((one.network, len(one.filters)) for one in plan.students)


def needs(network, filters):
    return student_cost(parse_network(network), SMALL_IMAGE, filters).memory_bytes("fp32")


def test_two_students_of_the_published_case_share_filters_alike():
    """Half a millisecond was won by 69 filters against 12; 7 is what 81 filters allow."""
    asked = published(accuracy=TEACHER, objective=stages("accuracy", "latency"))
    assert sorted(len(one.filters) for one in solve(asked).students) == [12, 69]
    plan = solve(asked.model_copy(update=BALANCED))
    assert sorted(len(one.filters) for one in plan.students) == [37, 44]
    assert (plan.balance.least_spread, plan.balance.most_spread) == (3, 7)


def test_the_wider_student_of_the_published_case_knows_more():
    least_latency = {
        "accuracy": TEACHER,
        "objective": stages("latency"),
        "requirements": ({"objective": "accuracy", "bound": 94.0},),
        "networks": tuple(map(str, student_candidates(parse_network("wrn40-4")))),
    }
    before = filters_by_network(solve(published(**least_latency)))
    assert before == [("wrn16:16,32,96", 69), ("wrn16:16,48,96", 12)]
    after = filters_by_network(solve(published(**least_latency, **BALANCED)))
    assert after == [("wrn16:16,32,96", 39), ("wrn16:16,48,96", 42)]


def test_a_question_without_the_fields_means_what_it_meant():
    asked = published(accuracy=TEACHER, objective=stages("accuracy", "latency"))
    plan = solve(asked)
    assert plan.balance is None
    old = plan.model_dump(mode="json")
    del old["balance"], old["question"]["balance_pct"], old["question"]["inversion"]
    read = PlanDocument.check(old, where="test")
    assert read == plan
    assert violations(read) == []


def uneven_question(**fields):
    """Two boards, of which one holds a student of 4 filters and the other one of 8."""
    own = {"rpi-3b-1": (needs(NARROW, 4), None), "rpi-3b-2": (needs(NARROW, 8), None)}
    named = {"networks": (NARROW,), "min_students": 2, "max_students": 2}
    return question("rpi-3b*2", (3, 4, 5), own=own, **named | BALANCED | fields)


def test_what_only_an_uneven_plan_can_do_is_refused_with_balance_named():
    plan = solve(uneven_question())
    assert plan.status == "infeasible"
    named = [sentence for sentence in plan.conflict if sentence.startswith("balance")]
    assert len(named) == 1
    # 8 - 4 filters are 2 more than 7 - 5, of 6 in the mean.
    assert "33.3334 %, or balance off, would do" in named[0]
    found = explain(plan, 600)
    assert (found.proven, found.irreducible) == (True, True)
    (repair,) = [one for one in found.repairs if one.kind == "balance"]
    assert repair.text == "balance off, or 33.3334 % in place of 10 %"
    for asked in (
        uneven_question(balance_pct=repair.value),
        uneven_question(balance_pct=33.3334),
        uneven_question(balance_pct=None, inversion=None),
    ):
        assert sorted(len(one.filters) for one in solve(asked).students) == [4, 8]
    assert solve(uneven_question(balance_pct=33.333)).status == "infeasible"


def test_explain_says_how_far_balance_may_move():
    asked = published(accuracy=TEACHER, objective=stages("accuracy", "latency"), **BALANCED)
    plan = solve(asked)
    (row,) = [one for one in explain(plan, 600).sensitivities if one.kind == "balance"]
    assert (row.binds, row.proven, row.improves) == (True, True, "latency")
    # 44 and 37 filters: 4 more than 3, of 40.5 in the mean; 11 more are 12 - 30 against 14 + 25.
    assert row.used == pytest.approx(400 / 40.5)
    looser = solve(asked.model_copy(update={"balance_pct": row.loosen_to}))
    assert looser.stages[-1].best < plan.stages[-1].best
    below = solve(asked.model_copy(update={"balance_pct": row.loosen_to - 1e-4}))
    assert below.stages[-1].best == plan.stages[-1].best


def forced_question(**fields):
    """Only the wider network with 5 filters and the narrower with 7 are as large as asked."""
    memory = {"rpi-3b-1": (needs(WIDE, 5), None), "rpi-3b-2": (needs(NARROW, 7), None)}
    size = sum(
        student_cost(parse_network(name), SMALL_IMAGE, filters).params
        for name, filters in ((WIDE, 5), (NARROW, 7))
    )
    named = {"networks": (NARROW, WIDE), "min_students": 2, "max_students": 2}
    asked = {"requirements": ({"objective": "capacity", "bound": size},)}
    return question("rpi-3b*2", (3, 4, 5), own=memory, **named | asked | BALANCED | fields)


def test_a_wider_student_has_fewer_filters_only_where_a_bound_forces_it():
    plan = solve(forced_question())
    assert plan.status == "optimal"
    assert filters_by_network(plan) == [(WIDE, 5), (NARROW, 7)]
    assert (plan.question.inversion, plan.balance.inversion) == (2, 2)
    assert violations(plan) == []
    assert explain(plan, 600).proven
    # Without the bound there is another way.
    free = solve(forced_question(requirements=()))
    assert (free.question.inversion, free.balance.inversion) == (0, 0)


def test_a_break_point_at_which_a_bound_begins_to_force_it_is_found():
    asked = forced_question(objective=stages("capacity"))
    over = BudgetRange("memory_bytes", (0,), needs(WIDE, 4), needs(WIDE, 8))
    steps = find_breakpoints(SolverSession(asked, TimeBudget(120)), over)
    assert steps.proven
    forced = []
    for step in steps.breakpoints:
        at, below = (solve(over.problem_with(asked, step.least - less)) for less in (0, 1))
        assert at.stages[0].best == step.values["capacity"]
        assert below.status == "infeasible" or below.stages[0].best != at.stages[0].best
        forced.append(at.question.inversion)
    assert forced == sorted(forced)
    assert {0, 2} <= set(forced)


def test_a_front_of_a_forced_question_is_not_empty():
    asked = forced_question(objective=stages("capacity", "latency"))
    found = CellRequest("front", asked).find()
    assert (found.status, len(found.points)) == ("optimal", 1)


@pytest.mark.parametrize("seed", range(24))
def test_unlike_boards_get_balanced_plans_in_order_of_width(seed):
    """Balance and widths, recomputed here from the students alone."""
    asked = unlike_question(seed, objective=stages("capacity:5%", "latency"))
    plan = solve(asked.model_copy(update=BALANCED))
    if plan.status == "infeasible":
        pytest.skip("nothing fits")
    balance = plan.balance
    assert balance.largest - balance.smallest <= balance.most_spread
    assert balance.inversion == plan.question.inversion
    widths = {name: rank for rank, name in enumerate(asked.networks)}
    pairs = [(widths[one.network], len(one.filters)) for one in plan.students]
    worst = [more - n for wide, n in pairs for narrow, more in pairs if narrow < wide]
    assert max([0, *worst]) == balance.inversion


def test_a_plan_that_was_edited_to_be_uneven_is_refused():
    named = {"networks": ("wrn16:16,48,96",), "min_students": 2}
    plan = solve(published(objective=stages("latency"), **named, **BALANCED))
    edited = plan.model_copy(
        update={"question": plan.question.model_copy(update={"balance_pct": 0.0})}
    )
    spread = plan.balance.largest - plan.balance.smallest
    assert spread > 3
    assert any(f"are {spread} apart; balance allows 3" in one for one in violations(edited))
    told = plan.balance.model_copy(update={"inversion": 1})
    assert any("the balance is not" in one for one in violations(
        plan.model_copy(update={"balance": told})
    ))  # fmt: skip


@pytest.mark.parametrize("method", sorted(BASELINES))
def test_baselines_keep_balance(method):
    asked = published(accuracy=TEACHER, objective=stages("accuracy", "latency"), **BALANCED)
    try:
        plan = solve_by_baseline(asked, method)
    except UnprovenError:
        pytest.skip("the rule finds none")
    assert violations(plan) == []
    assert plan.balance.largest - plan.balance.smallest <= 7


def test_a_mode_that_is_worse_in_everything_stays_where_it_may_keep_the_order():
    """Were the narrowest replaced by the widest, this would be wider than the one between."""
    names = ("wrn10:4,8,8", "wrn10:4,8,16", "wrn10:4,8,24")
    narrow, middle, wide = (Mode.of(parse_network(n), "fp32", SMALL_IMAGE) for n in names)
    data = replace(resolve_problem(question()), modes=(narrow, middle, wide))
    kept = [middle, wide]
    keep_order_of_widths(data, kept, lambda *pair: pair[0] == wide)
    assert kept == [middle, wide, narrow]
    kept = [middle, wide]
    keep_order_of_widths(data, kept, lambda *pair: pair[1] == narrow)
    assert kept == [middle, wide]
    kept = [wide]
    keep_order_of_widths(data, kept, lambda *_: True)
    assert kept == [wide]


@pytest.mark.parametrize(
    ("text", "balance_pct", "inversion"),
    [("10%", 10.0, 0), ("0 %", 0.0, 0), ("133.4%", 133.4, 0), (".5%", 0.5, 0), ("off", None, None)],
)
def test_balance_is_typed_as_a_percentage_or_off(text, balance_pct, inversion):
    assert parse_balance(text) == {"balance_pct": balance_pct, "inversion": inversion}


@pytest.mark.parametrize("text", ["0.1", "10", "-5%", "on", ""])
def test_what_may_be_a_fraction_is_refused(text):
    with pytest.raises(InputError, match="balance"):
        parse_balance(text)
