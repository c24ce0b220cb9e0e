"""Files of benchmarks/instances: best-known answers hold, and a command alone changes them."""

import shlex
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import instances
import known_instance
from known_instance import FOLDER, Instance

from planner.certificates.verification import verify_plan
from planner.plan_file.plan_document import PlanDocument
from planner.plan_file.validation import violations

FILES = sorted(FOLDER.glob("*.json"))
SMALL = FOLDER / "08x08-latency.json"


def test_there_are_small_files_of_each_kind():
    assert 20 <= len(FILES) <= 30
    assert sum(path.stat().st_size for path in FILES) < 500_000
    names = {path.stem[:5] for path in FILES}
    assert names >= {"08x08", "16x16", "24x24", "32x32", "04x12", "08x20", "08x40", "06x30"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_best_known_answer_holds(path):
    one = Instance.read(path)
    plan, known = one.plan, one.known
    assert violations(plan) == []
    found = verify_plan(plan.question, plan.model_dump(mode="json"))
    assert found.untrue == ()
    assert (plan.status == "feasible") is (known.proof == "best known")
    certified = {row.standing for row in found.stages} == {"certified"}
    assert (certified and plan.status != "feasible") is (known.proof == "certified")
    # What was asked for is what the plan answers, but for what its limits force.
    assert one.problem.model_copy(update={"inversion": known.inversion}) == plan.question


@pytest.fixture
def small():
    return Instance.read(SMALL)


def test_the_command_asks_the_question_and_finds_the_value(
    small, nonn_plan, tmp_path, monkeypatch, capsys
):
    instances.unpack(small, tmp_path, Console(width=10_000))
    command = capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    assert nonn_plan(*shlex.split(command)[1:]).code == 0
    plan = PlanDocument.read(tmp_path / "plan.json")
    assert plan.question == small.problem
    assert plan.stages[0].value == pytest.approx(small.known.stages[0].value, rel=1e-9)
    assert nonn_plan("verify", tmp_path / "known.json").code == 0


def with_latency(one, change_ms, **fields):
    """The instance as if another latency had been the best known."""
    stage = one.known.stages[0]
    worse = stage.model_copy(
        update={"value": stage.value + change_ms, "best": stage.best + change_ms, **fields}
    )
    known = one.known.model_copy(update={"stages": (worse,), "proof": "best known"})
    return one.model_copy(update={"known": known})


@pytest.mark.parametrize("take_over", [False, True])
def test_a_better_value_goes_into_the_file_by_the_command_which_says_so(
    small, take_over, tmp_path, monkeypatch
):
    monkeypatch.setattr(known_instance, "FOLDER", tmp_path)
    said = StringIO()
    asked = with_latency(small, 1.0, proven=False, bound=None, gap_pct=None)
    answer = instances.measured(asked, 5.0, take_over, Console(file=said, width=200))
    assert f"becomes {small.known.stages[0].best:g}" in said.getvalue()
    assert ("taken over" in said.getvalue()) is take_over
    if take_over:
        assert answer.gap_pct == 0
        again = Instance.read(tmp_path / SMALL.name)
        assert again.known.stages[0].best == pytest.approx(small.known.stages[0].best, rel=1e-9)
    else:
        assert answer.gap_pct == pytest.approx(-100 / (small.known.stages[0].best + 1))
        assert not (tmp_path / SMALL.name).exists()


def test_a_proof_that_an_answer_contradicts_ends_the_run(small):
    with pytest.raises(SystemExit, match="is proven to be the best"):
        asked = with_latency(small, 1.0, bound=small.known.stages[0].best + 0.9)
        instances.measured(asked, 5.0, False, Console(file=StringIO()))


def test_sections_of_other_versions_stay_in_the_page(small, tmp_path, monkeypatch):
    monkeypatch.setattr(instances, "PAGE", tmp_path / "page.md")
    (tmp_path / "page.md").write_text(
        "# Title\n\n## nonn-plan 0.0.1\n\nold\n\n## nonn-plan 0.1.0\n\nx\n"
    )
    best = small.known.stages[0].best
    row = instances.Answer(
        "one", "latency", f"{best:g}", "proven", f"{best:g}", 0.0, "proven", 0.0, 1.0
    )
    instances.write_page([row], 5.0)
    written = (tmp_path / "page.md").read_text()
    assert written.count("## nonn-plan 0.1.0") == 1
    assert "## nonn-plan 0.0.1\n\nold" in written
    assert "| one | latency |" in written
    assert "\n\nx\n" not in written
