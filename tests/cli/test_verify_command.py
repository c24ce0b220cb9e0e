"""`nonn-plan verify`: what each stage stands on, and exit 1 for an untruth."""

import json

import pytest

OWN_G0 = ("--group0-copies", "per-student")
"""The second engine knows students that have a copy of G0 each."""


@pytest.mark.parametrize("copies", [(), OWN_G0], ids=["shared", "own"])
def test_a_plan_is_certified_stage_by_stage(nonn_plan, plan_arguments, tmp_path, copies):
    assert nonn_plan(*plan_arguments, *copies).code == 0
    said = nonn_plan("verify", tmp_path / "plan.json")
    assert said.code == 0
    assert "all that is written there holds" in said.out
    found = nonn_plan("verify", tmp_path / "plan.json", "--json").document
    assert found["untrue"] == []
    assert [one["standing"] for one in found["stages"]] == ["certified"] * 4


@pytest.mark.parametrize("change", ["capacity", "latency"])
def test_an_untrue_plan_ends_with_1(nonn_plan, plan_arguments, tmp_path, change):
    assert nonn_plan(*plan_arguments).code == 0
    content = json.loads((tmp_path / "plan.json").read_text())
    (stage,) = (one for one in content["stages"] if one["objective"] == change)
    stage["value"] += 1
    (tmp_path / "plan.json").write_text(json.dumps(content))
    said = nonn_plan("verify", tmp_path / "plan.json", "--json")
    assert said.code == 1
    assert change in said.document["untrue"][0]
    assert "says what is untrue" in said.err


def test_a_plan_from_before_there_were_certificates_gets_a_second_opinion(
    nonn_plan, plan_arguments, tmp_path
):
    assert nonn_plan(*plan_arguments, *OWN_G0).code == 0
    content = json.loads((tmp_path / "plan.json").read_text())
    content.pop("refutation")
    for stage in content["stages"]:
        stage.pop("certificate")
    (tmp_path / "plan.json").write_text(json.dumps(content))
    said = nonn_plan("verify", tmp_path / "plan.json", "--json")
    assert said.code == 0
    rows = {one["objective"]: one for one in said.document["stages"]}
    assert rows["capacity"]["standing"] == "seconded"
    assert rows["latency"]["standing"] == "claimed"
    assert rows["latency"]["reason"].startswith("the file has none: none closed within the work")
    assert "CP-SAT alone; the file has none" in " ".join(
        nonn_plan("verify", tmp_path / "plan.json").out.split()
    )


def test_a_refusal_says_what_it_rests_on(nonn_plan, changed, tmp_path):
    said = nonn_plan(*changed("--memory", "100KB"))
    assert said.code == 3
    assert "certified: prices in whole numbers prove it" in said.err
    found = nonn_plan("verify", tmp_path / "plan.json", "--json")
    assert found.code == 0
    assert found.document["stages"] == [
        {"objective": "no plan", "standing": "certified", "reason": None}
    ]
