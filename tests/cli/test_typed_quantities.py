"""Quantities as people type them: percentages, units, and what is given twice."""

import pytest


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["--at-least", "accuracy=0.97"],
            "found 0.97; allowed: more than 1, up to 100, in percent",
        ),
        (["--at-least", "accuracy=0.97%"], "found 0.97; allowed: more than 1, up to 100"),
        (["--at-least", "robustness=0.9"], "is a fraction where a percentage is meant; found 0.9"),
        (["--at-least", "reliability=0.999"], "reliability=0.999: is a fraction where"),
        (["--teacher-accuracy", "0.99"], "--teacher-accuracy: is a fraction"),
        (["--target", "0.93"], "--target: is a fraction where a percentage is meant; found 0.93"),
        (["--failure", "0.02"], "--failure 0.02: may be a fraction"),
        (["--failure", "rpi-3b-1=0.02"], "'0.02'; allowed: 2% or 0.02%"),
        (["--outage", "rpi-3b-1,rpi-3b-2=0.005"], "'0.005'; allowed: 0.5% or 0.005%"),
        (["--at-least", "accuracy=95/s"], "not a percentage; found '95/s'"),
    ],
)
def test_a_fraction_is_no_percentage_wherever_one_is_typed(nonn_plan, changed, arguments, told):
    said = nonn_plan(*changed("--teacher-network", "wrn40-4", *arguments))
    assert said.code == 2
    assert told in said.err


def test_percentages_are_read_alike_with_and_without_their_sign(nonn_plan, plan_arguments):
    asked = [*plan_arguments, "--teacher-network", "wrn40-4", "--json"]
    signed, bare = (
        nonn_plan(
            *asked, "--at-least", f"accuracy=90{sign}", "--teacher-accuracy", f"95.5{sign}",
            "--failure", f"2{sign}", "--target", f"80{sign}",
        )
        for sign in ("%", "")
    )  # fmt: skip
    assert signed.code == 0, signed.err
    assert signed.out == bare.out
    question = signed.document["question"]
    assert question["requirements"] == [{"objective": "accuracy", "bound": 90.0}]
    assert question["accuracy"]["teacher_accuracy_pct"] == 95.5
    assert question["failures"]["target_pct"] == 80.0
    assert [one["probability"] for one in question["failures"]["boards"]] == [0.02, 0.02]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--memory", "250"], "--memory 250: not a quantity of this kind: it has no unit"),
        (["--runtime", "40"], "--runtime 40: not a quantity of this kind: it has no unit"),
        (["--runtime", "60KB+"], "or 60KB+16KB, of flash and of RAM"),
        (["--runtime", "6KB+5KB+4KB"], "found '6KB+5KB+4KB'; allowed: a size such as 500KB"),
        (
            ["--flash", "nope=1MB"],
            "--flash: no such board in the fleet; found 'nope'; allowed: rpi",
        ),
        (["--ram", "1MB"], "in place of --flash and --ram give one memory, such as --memory"),
        (["--energy", "250"], "--energy 250: not a quantity of this kind: it has no unit"),
        (["--energy", "rpi-3b-1=250"], "--energy rpi-3b-1=250: not a quantity"),
        (["--time", "80"], "--time 80: not a quantity of this kind: it has no unit"),
        (["--at-most", "energy=900"], "energy=900: not a quantity of this kind: it has no unit"),
        (["--at-most", "memory=300"], "memory=300: not a quantity of this kind: it has no unit"),
        (["--at-least", "throughput=20"], "throughput=20: not a quantity of this kind"),
        (["--at-least", "survival=1%"], "not a number; found '1%'"),
    ],
)
def test_a_quantity_without_its_unit_is_refused(nonn_plan, changed, arguments, told):
    said = nonn_plan(*changed(*arguments))
    assert said.code == 2
    assert told in said.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--memory", "250KB", "--memory", "300KB"], "--memory: given twice for all boards"),
        (["--flops", "2M", "--flops", "3M"], "found '2M and 3M'; allowed: one of them"),
        (["--energy", "rpi-3b-1=2J", "--energy", "rpi-3b-1=3J"], "given twice for rpi-3b-1"),
        (["--time", "80ms", "--time", "80ms"], "--time: given twice for all boards"),
        (["--failure", "1%", "--failure", "2%"], "--failure: given twice for all boards"),
        (["--fleet", "mixed", "--fleet", "rpi3x2"], "--fleet: given more than once"),
        (["--epsilon", "1", "--epsilon", "2"], "--epsilon: given more than once"),
        (["--memory", "=250KB"], "--memory: of which board?"),
        (
            ["--at-least", "survival=0", "--at-least", "survival=1"],
            "each objective is bounded once; repeated: survival",
        ),
    ],
)
def test_what_is_given_twice_is_refused(nonn_plan, changed, arguments, told):
    said = nonn_plan(*changed(*arguments))
    assert said.code == 2
    assert told in said.err


def test_a_switch_may_be_given_twice(nonn_plan):
    assert nonn_plan("fleets", "show", "mixed", "--json", "--json").document["name"] == "mixed"
