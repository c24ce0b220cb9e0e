from planner.diagnosis.explanation import explain
from planner.plan_file.plan_document import PlanDocument


def test_explain_has_a_row_for_each_board_and_budget(nonn_plan, plan_file):
    said = nonn_plan("explain", plan_file, "--json")
    assert said.code == 0
    assert said.document["status"] == "optimal"
    assert said.document["proven"]
    assert {(row["board"], row["kind"]) for row in said.document["sensitivities"]} == {
        *((board, kind) for board in ("rpi-3b-1", "rpi-3b-2") for kind in ("memory_bytes", "macs")),
        *((None, kind) for kind in ("min_students", "max_students", "epsilon")),
        *((None, kind) for kind in ("balance", "inversion")),
    }


def test_people_see_thresholds_and_proof(nonn_plan, plan_file):
    said = nonn_plan("explain", plan_file)
    for word in ("memory of rpi-3b-1", "FLOP of rpi-3b-2", "tighten to", "binds", "proven", "yes"):
        assert word in said.out


def test_people_see_the_conflict_and_its_repairs(nonn_plan, changed, tmp_path):
    assert nonn_plan(*changed("--memory", "50KB")).code == 3
    said = nonn_plan("explain", tmp_path / "plan.json")
    assert said.code == 0
    assert "without any one they can" in said.out
    assert "memory budget of rpi-3b-1: 50.0 KB" in said.out
    assert "on every board" in said.out
    told = nonn_plan("explain", tmp_path / "plan.json", "--json").document
    assert {one["kind"] for one in told["repairs"]} == {"memory_bytes"}
    assert told["sensitivities"] == []


def test_a_repair_that_people_see_does_when_it_is_typed(nonn_plan, changed, tmp_path):
    nonn_plan(*changed("--memory", "50KB"))
    repairs = nonn_plan("explain", tmp_path / "plan.json", "--json").document["repairs"]
    (each,) = (one for one in repairs if one["each"])
    typed = each["text"].split(", to ")[1].split(",")[0].replace(" ", "")
    assert nonn_plan(*changed("--memory", typed)).code == 0


def test_without_time_the_answer_is_unproven(nonn_plan, changed, plan_file, tmp_path):
    said = nonn_plan("explain", plan_file, "--limit", "0")
    assert said.code == 4
    nonn_plan(*changed("--memory", "50KB"))
    said = nonn_plan("explain", tmp_path / "plan.json", "--limit", "0")
    assert said.code == 4
    assert "raise --limit" in said.err


def test_a_limit_that_stopped_nothing_is_not_named(nonn_plan, plan_file, monkeypatch):
    found = explain(PlanDocument.read(plan_file), 600)
    monkeypatch.setattr("nonn_plan.explain", lambda *_: found.model_copy(update={"proven": False}))
    said = nonn_plan("explain", plan_file)
    assert said.code == 4
    assert "no limit is the cause" in said.err
    assert "--limit" not in said.err
