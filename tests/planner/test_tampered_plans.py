"""Plans and certificates that were tampered with: no untruth passes, and no checksum helps."""

import copy

import numpy as np
import pytest
from drawn_problems import unlike_question
from planner_questions import published, stages

from nonn_common.errors import NonnError
from nonn_plan import PlanDocument, solve, verify, with_alternatives, with_certificates
from planner.certificates.replay import PlanReplay

CHANGES = 50
"""Of each kind."""


@pytest.fixture(scope="module", params=["per-student", "per-board"])
def plans(request):
    """The published question, and drawn ones: merged, and as many students as boards."""
    drawn = {"boards": (3, 3), "students": (3, 3), "communities": (3, 4)}
    default = stages("dropped", "capacity:5%", "imbalance", "latency")
    questions = [published(objective=default, max_students=2)]
    questions += [unlike_question(seed, objective=default, **drawn) for seed in (0, 1)]
    copies = {"group0_copies": request.param, "balance_pct": 10.0, "inversion": 0}
    solved = [solve(one.model_copy(update=copies)) for one in questions]
    assert any(one.joint_models for one in solved) is (request.param == "per-board")
    solved[0] = with_alternatives(solved[0])
    return [with_certificates(one).model_dump(mode="json") for one in solved]


def refused(content):
    """Whether a plan file is refused: not a plan at all, or untrue."""
    try:
        plan = PlanDocument.model_validate(content)
        return bool(verify(plan).untrue)
    except (ValueError, NonnError):
        return True


def figures(content, place=()):
    """Places of all numbers, but those of the question, the solver and the certificates."""
    rows = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in rows:
        if key in ("question", "solver", "certificate", "schema_version", "proven"):
            continue
        if isinstance(value, dict | list):
            yield from figures(value, (*place, key))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield (*place, key)


def changed(content, place, change):
    tampered = copy.deepcopy(content)
    part = tampered
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = change(part[place[-1]])
    return tampered


def test_untouched_plans_hold(plans):
    assert not any(map(refused, plans))


def test_a_changed_figure_is_refused(plans):
    draw = np.random.default_rng(1)
    for number in range(CHANGES):
        content = plans[number % len(plans)]
        places = list(figures(content))
        place = places[draw.integers(len(places))]
        step = (-1, 1)[draw.integers(2)]
        tampered = changed(
            content, place, lambda old, step=step: old + step if isinstance(old, int) else
            old * (1 + 0.001 * step) + 0.001 * step,
        )  # fmt: skip
        assert refused(tampered), place


@pytest.mark.parametrize(
    "change",
    [
        lambda models: models[1:],
        lambda models: [*models, models[0]],
        lambda models: [models[0] | {"students": models[0]["students"][:1]}, *models[1:]],
        lambda models: [models[0] | {"students": ["nobody"]}, *models[1:]],
        lambda models: [models[0] | {"board": "nowhere"}, *models[1:]],
    ],
    ids=["left out", "twice", "a student less", "a stranger", "elsewhere"],
)
def test_a_changed_joint_model_is_refused(change):
    question = unlike_question(0, boards=(2, 2), students=(3, 3), communities=(3, 3))
    plan = solve(question.model_copy(update={"group0_copies": "per-board"}))
    content = plan.model_dump(mode="json")
    assert not any(PlanReplay(plan.question, content).false_claims())
    changed_models = change(content["joint_models"])
    replay = PlanReplay(plan.question, content | {"joint_models": changed_models})
    assert any("joint model" in text for text in replay.false_claims())


def test_a_changed_balance_is_refused_by_the_replay(plans):
    """The checker recounts it by itself, whatever the planner's own check says."""
    content = plans[0]
    problem = PlanDocument.model_validate(content).question
    assert not any(PlanReplay(problem, content).false_claims())
    for name, value in content["balance"].items():
        tampered = changed(
            content, ("balance", name), lambda old: not old if old is True else old + 1
        )
        assert [name in text for text in PlanReplay(problem, tampered).false_claims()], value


def test_partitions_less_alike_than_asked_are_refused_by_the_replay(plans):
    content = plans[0]
    strict = changed(content, ("question", "balance_pct"), lambda _: 0.0)
    strict = changed(strict, ("question", "inversion"), lambda _: 0)
    problem = PlanDocument.model_validate(strict).question
    spread = content["balance"]["largest"] - content["balance"]["smallest"]
    said = [text for text in PlanReplay(problem, strict).false_claims() if "apart" in text]
    assert bool(said) is (spread > content["balance"]["least_spread"])


def test_a_figure_of_an_alternative_is_refused(plans):
    content = plans[0]
    places = [place for place in figures(content["alternatives"]) if place[1] != "segmentation"]
    assert {place[0] for place in places} >= {0, 1, 2}
    for place in places:
        tampered = changed(content, ("alternatives", *place), lambda old: old + 1)
        assert refused(tampered), place


def test_a_moved_student_is_refused(plans):
    draw = np.random.default_rng(2)
    for number in range(CHANGES):
        content = plans[number % len(plans)]
        boards = [one["name"] for one in content["question"]["fleet"]["boards"]]
        student = int(draw.integers(len(content["students"])))
        there = content["students"][student]["board"]
        to = str(draw.choice([name for name in boards if name != there]))
        assert refused(changed(content, ("students", student, "board"), lambda _, to=to: to))


def test_a_byte_of_budget_is_refused(plans):
    draw = np.random.default_rng(3)
    for number in range(CHANGES):
        content = plans[number % len(plans)]
        budgets = content["question"]["budgets"]
        place = int(draw.integers(len(budgets)))
        step = (-1, 1)[number % 2]
        tampered = changed(
            content, ("question", "budgets", place, "memory_bytes"), lambda old, s=step: old + s
        )
        assert refused(tampered)


def test_a_changed_price_proves_no_more_than_is_true():
    """A price less or more: the bound is computed anew, and what it does not prove is claimed."""
    draw = np.random.default_rng(4)
    problem = unlike_question(
        0, boards=(6, 6), students=(6, 6), communities=(6, 6), objective=stages("capacity")
    )
    plan = with_certificates(solve(problem)).model_dump(mode="json")
    prices = plan["stages"][0]["certificate"]["leaves"][0]["prices"]
    assert prices
    standings = set()
    for _ in range(CHANGES):
        place = ("stages", 0, "certificate", "leaves", 0, "prices", int(draw.integers(len(prices))))
        step = int(draw.integers(-(10**6), 10**6) // 10 ** int(draw.integers(0, 6)))
        found = verify(
            PlanDocument.model_validate(changed(plan, place, lambda old, s=step: old + s))
        )
        assert not found.untrue
        standings.add(found.stages[0].standing)
        better = changed(plan, ("stages", 0, "bound"), lambda old: old - 1)
        better = changed(better, ("stages", 0, "best"), lambda old: old - 1)
        better = changed(better, place, lambda old, s=step: old + s)
        assert refused(better)
    assert standings == {"certified", "seconded"}


def test_a_better_value_than_there_is_is_refused_by_its_own_prices():
    """Best and bound raised together, so that nothing else contradicts them."""
    problem = unlike_question(
        0,
        boards=(6, 6),
        students=(6, 6),
        communities=(6, 6),
        objective=stages("capacity:5%", "latency"),
    )
    plan = with_certificates(solve(problem)).model_dump(mode="json")
    first = plan["stages"][0]
    raised = first["best"] + 1000
    plan["stages"][0] = first | {"best": raised, "bound": raised, "gap_pct": 0.0}
    assert any("prices prove" in text for text in verify(PlanDocument.model_validate(plan)).untrue)
