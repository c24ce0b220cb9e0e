"""The main job with less training: what it writes, says, and lets one do next."""

import json

from nonn_core.recipe import OptimiserRecipe
from nonn_plan.cli.commands import quickstart


def test_quickstart_writes_what_single_commands_read(nonn_plan, tmp_path, monkeypatch):
    brief = OptimiserRecipe(epochs=1, batch_size=128)
    # A teacher near chance has no knowledge to divide, which `quickstart` would warn of.
    monkeypatch.setattr(quickstart, "TEACHER_TRAINING", OptimiserRecipe(epochs=4, batch_size=64))
    monkeypatch.setattr(quickstart, "STUDENT_TRAINING", brief)
    monkeypatch.setattr(quickstart, "TEACHER", "wrn10-2")
    monkeypatch.setattr(quickstart, "LINK_PERCENTILE", 50.0)
    monkeypatch.setattr(quickstart, "SEEDS", 2)
    out = tmp_path / "quick"
    said = nonn_plan("quickstart", "-o", out, "--json")
    assert said.code == 0, said.err
    teacher, nonn, single = said.document["models"]
    assert not teacher["within_budgets"]
    assert nonn["within_budgets"]
    assert len(nonn["accuracies_pct"]) == len(single["accuracies_pct"]) == 2
    # The comparison is fair: the undivided student is as large as the whole NoNN.
    assert abs(single["total_params"] / nonn["total_params"] - 1) < 0.1
    plan = json.loads((out / "plan.json").read_text())
    assert json.loads((out / "summary.json").read_text()) == said.document
    assert nonn["latency_ms"] == plan["predicted"]["total_ms"]
    for command in (["explain"], ["simulate"]):
        assert nonn_plan(*command, out / "plan.json").code == 0
    assert nonn_plan("evaluate", out / "runs" / "nonn-1", "--plan", out / "plan.json").code == 0
    assert nonn_plan("train", out / "train-kd.yaml", "-o", out / "runs" / "kd-0").code == 0
    again = nonn_plan("quickstart", "-o", out)
    assert again.code == 0
    assert "Where everything is" in again.out
