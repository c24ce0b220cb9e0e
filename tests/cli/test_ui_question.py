"""The page's question: its command asks the same, a plan becomes one, and repairs repair it."""

import shlex

import pytest

from nonn_common.errors import InputError, NonnError
from nonn_plan import solve
from nonn_plan.ui.answer import answer_question
from nonn_plan.ui.question import Question, budget_fields, library, matching_devices
from nonn_plan.ui.source import open_source, question_of
from planner.diagnosis import conflict, explanation
from planner.diagnosis.conflict import irreducible_conflict
from planner.diagnosis.explanation import explain
from planner.problem.budgets import BUDGETS

TEACHER = {"teacher_network": "wrn40-4", "image": "3x32x32", "classes": "10"}
TYPED = {"memory": "500KB", "flops": "200M"}


def asked(source, boards=(), options=None, **budgets):
    """Question on two Raspberry Pis, or on other boards, with these budgets on each."""
    plain = source.question.model_dump(mode="json")
    plain["boards"] = [{**row} for row in (boards or plain["boards"])]
    for row in plain["boards"]:
        row["budgets"] = row.get("budgets") or (budgets or TYPED)
    plain["options"] = {**TEACHER, "precision": "int8", **(options or {})}
    return Question.check(plain, where="test")


@pytest.fixture
def source(partition_document, tmp_path):
    return open_source(partition_document, str(tmp_path / "partition.json"), "1")


def board(device, number, link="wired-100mbit", **budgets):
    return {"name": f"{device}-{number}", "device": device, "link": link, "budgets": budgets}


QUESTIONS = {
    "a library fleet": {},
    "a list": {"boards": [board("rpi-3b", 1), board("rpi-3b", 2, "wifi"), board("rpi-4b", 1)]},
    "budgets of their own": {
        "boards": [
            board("rpi-3b", 1, memory="1MB", flops="20M", time="80ms"),
            board("rpi-3b", 2, memory="0.3MB", energy="0.25J", runtime="40KB"),
        ]
    },
    "power and clocks left open": {
        "boards": [
            {**board("rpi-3b", n, memory="500KB", power="2.5W"), "points": "any"} for n in (1, 2)
        ]
    },
    "names of their own": {"boards": [{**board("rpi-3b", 1), "name": "attic"}]},
    "failures": {
        "boards": [{**board("rpi-3b", n), "failure": f"{n}%"} for n in (1, 2, 3)],
        "options": {
            "survive": "1",
            "outage": ["rpi-3b-1,rpi-3b-2=0.5%"],
            "target": "90%",
            "objective": "robustness,latency",
        },
    },
    "all kinds of options": {
        "options": {
            "students": "1:2",
            "balance": "25%",
            "epsilon": "0.5",
            "robust": True,
            "seed": "3",
            "at_least": ["accuracy=90%"],
            "at_most": ["latency=200ms"],
            "limit": "33.5",
            "objective": "capacity:5%,latency",
            "precision": "fp32,int8",
            "host": ["x86-host"],
            "student": ["wrn16:16,32,64"],
            "group0_copies": "per-student",
        }
    },
}


class HeardError(NonnError):
    """The problem that the command states, in place of its plan."""


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_command_that_is_shown_asks_the_same(
    name, source, partition_document, tmp_path, monkeypatch, nonn_plan
):
    source.partition.write(tmp_path / "partition.json")
    monkeypatch.chdir(tmp_path)
    question = asked(source, **QUESTIONS[name])
    heard = []

    def hear(problem, progress):
        heard.append(problem)
        raise HeardError

    monkeypatch.setattr("nonn_plan.solve", hear)
    if fleet := source.fleet_file(question):
        (tmp_path / "fleet.json").write_text(fleet)
    words = shlex.split(source.command(question))
    assert words[:2] == ["nonn-plan", "plan"]
    assert nonn_plan(*words[1:]).code == 1
    (typed,) = heard
    assert typed == source.problem(question)
    # And the plan's own problem becomes the same question again.
    again, notes = question_of(typed, "1")
    assert notes == ()
    assert source.problem(again) == typed


def test_a_fleet_is_called_as_short_as_it_can_be(source):
    assert "--fleet rpi3x2 " in source.command(asked(source))
    listed = asked(
        source, [board("rpi-3b", 1), board("rpi-4b", 1, "wifi"), board("rpi-4b", 2, "wifi")]
    )
    assert "--fleet 'rpi-3b,rpi-4b@wifi*2' " in source.command(listed)
    open_clocks = [{**board("rpi-3b", n), "points": "any"} for n in (1, 2)]
    assert "--fleet 'rpi-3b:any*2' " in source.command(asked(source, open_clocks))
    assert source.fleet_file(listed) is None


def test_each_budget_that_boards_have_is_on_the_page():
    assert {*BUDGETS} <= {one.field for one in budget_fields()}


@pytest.mark.parametrize(
    "options", [{"rows": ["/etc/passwd"]}, {"subsets": "/etc/passwd"}, {"colour": "red"}]
)
def test_the_page_names_no_file_and_no_unknown_option(source, options):
    with pytest.raises(InputError, match="no option of the page"):
        asked(source, options=options).problem_options()


@pytest.mark.parametrize(
    ("options", "budgets"),
    [
        ({}, {"memory": "100KB"}),
        ({}, {"memory": "500KB", "flops": "20M"}),
        ({"at_most": ["latency=30ms"]}, {"memory": "500KB"}),
        ({"at_least": ["accuracy=95.4%"]}, {"memory": "500KB"}),
        ({"at_most": ["latency=30ms"], "at_least": ["accuracy=94%"]}, {"memory": "140KB"}),
        ({"students": "3", "at_most": ["boards=1"]}, {"memory": "140KB"}),
        ({"balance": "0%", "student": ["wrn16:16,32,64"]}, {"memory": "140KB"}),
    ],
)
def test_each_repair_that_is_shown_has_a_plan(source, options, budgets):
    heard = []
    question = asked(source, options={"objective": "latency", **options}, **budgets)
    plan = answer_question(source, question, heard.append)
    assert plan.status == "infeasible"
    answer = heard[-1]
    assert answer["conflict"] and answer["repairs"]
    for repair in answer["repairs"]:
        repaired = Question.check(repair["question"], where="repair")
        assert repaired != question
        assert solve(source.problem(repaired)).students, repair["text"]


def test_a_refusal_is_settled_once_and_is_that_of_the_commands(source, monkeypatch):
    settled = []

    def counted(session):
        settled.append(irreducible_conflict(session))
        return settled[-1]

    for user in (conflict, explanation):
        monkeypatch.setattr(user, "irreducible_conflict", counted)
    heard, question = [], asked(source, memory="100KB")
    plan = answer_question(source, question, heard.append)
    assert len(settled) == 1
    assert plan == solve(source.problem(question))
    explained = explain(plan, 600)
    assert heard[-1]["conflict"] == explained.conflict == plan.conflict
    assert [one["text"] for one in heard[-1]["repairs"]] == [one.text for one in explained.repairs]


def test_a_search_that_is_watched_gives_the_same_plan(source):
    problem = source.problem(asked(source))
    heard = []
    watched = solve(problem, watch=lambda *told: heard.append(told))
    assert watched == solve(problem)
    for level in watched.stages:
        values = [
            value for name, value, _ in heard if name == level.objective and value is not None
        ]
        bounds = [bound for name, _, bound in heard if name == level.objective]
        assert values and bounds
        assert values[-1] == pytest.approx(level.best, rel=1e-4)


def test_a_rate_and_batteries_are_told_of_all_and_of_each_board(source):
    """Figures of the page are those of the plan: no rate, no such figure."""
    question = asked(source, options={"rate": "2/s", "objective": "battery"}, battery="10Wh")
    messages = []
    plan = answer_question(source, question, messages.append)
    answer = messages[-1]
    figures = {one["name"]: one["value"] for one in answer["figures"]}
    assert figures["average power"] == f"{plan.duty.average_w:.4g} W"
    assert figures["battery life"] == f"{plan.duty.battery_h:.4g} h"
    told = {row["name"]: row["duty"] for row in answer["boards"]}
    working = {one.board: one for one in plan.duty.boards}
    for name, text in told.items():
        assert bool(text) == (name in working)
        if text:
            assert f"on average {working[name].average_w:.4g} W" in text
            assert f"lasts {working[name].battery_h:.4g} h" in text
    messages.clear()
    answer_question(source, asked(source), messages.append)
    assert {"average power", "battery life"}.isdisjoint(
        one["name"] for one in messages[-1]["figures"]
    )
    assert {row["duty"] for row in messages[-1]["boards"]} == {""}


def test_devices_are_found_by_what_they_are():
    assert matching_devices("a53")["found"] > 5
    assert "rpi-4b" in {row["name"] for row in matching_devices("pi 4b")["devices"]}
    assert {"memory", "flops"} <= {row["option"] for row in library()["budgets"]}


@pytest.mark.parametrize("plain", [{"models": []}, [], {}, 3])
def test_what_is_neither_plan_nor_partition_is_refused_with_both_names(plain):
    with pytest.raises(InputError, match=r"summary\.json: is neither.*allowed: plan\.json or part"):
        open_source(plain, "summary.json", "1")
