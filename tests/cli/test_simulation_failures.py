"""`simulate` of boards that fail, are repaired, hang behind others, or slow down."""

import pytest


def test_a_board_that_fails_makes_the_host_wait(simulated):
    usual = simulated()["simulation"]["total_ms"]
    found = simulated("--fail", "rpi-3b-1@20ms..500ms")["simulation"]
    assert found["total_ms"] > 500 > usual


def test_boards_that_fail_as_one(simulated):
    found = simulated("--fail", "rpi-3b-1,rpi-3b-2@20ms..500ms")["simulation"]
    assert all(row["done_ms"] > 500 for row in found["boards"])


def test_a_deadline_uses_what_came(simulated):
    found = simulated("--fail", "rpi-3b-1@0ms", "--on-failure", "lose", "--deadline", "200ms")
    assert found["simulation"]["survivors"] == [{"students": ["student-2"], "images": 1}]
    assert 200 < found["simulation"]["total_ms"] < 210


def test_the_host_needs_only_some(simulated):
    both, one = simulated()["simulation"], simulated("--needs", 1)["simulation"]
    assert one["total_ms"] < both["total_ms"]


def test_a_board_that_is_down_holds_up_nobody_else(simulated):
    """Two like boards with like students: the second takes the place of the first."""
    usual = simulated("--needs", 1)["simulation"]["total_ms"]
    found = simulated("--needs", 1, "--fail", "rpi-3b-1@0..10s")["simulation"]
    assert found["total_ms"] == pytest.approx(usual)


def test_mean_times_to_failure_and_repair(simulated):
    arguments = ("--inferences", 200, "--mttf", "2s", "--mttr", "300ms", "--on-failure", "lose")
    each = simulated(*arguments)["simulation"]
    assert 0 < each["lost"] < 200
    own = simulated(*arguments, "--mttf", "rpi-3b-1=900000s")["simulation"]
    assert 0 < own["lost"] < each["lost"]
    group = simulated(
        "--inferences", 200, "--mttf", "rpi-3b-1,rpi-3b-2=2s", "--mttr", "300ms",
        "--on-failure", "lose",
    )["simulation"]  # fmt: skip
    assert 0 < group["lost"] < 200
    turned = simulated(
        "--inferences", 200, "--mttf", "rpi-3b-1,rpi-3b-2=2s", "--mttr", "rpi-3b-2,rpi-3b-1=300ms",
        "--on-failure", "lose",
    )["simulation"]  # fmt: skip
    assert turned == group


VIA = """\
name: via
title: A board that is reached through another
boards:
- {name: hub, device: rpi-4b, link: wired-1gbit}
- {name: leaf, device: rpi-3b, link: wifi, via: hub}
"""


@pytest.fixture
def via(nonn_plan, tmp_path):
    """Simulate students on a board behind a hub, or on both."""
    (tmp_path / "via.yaml").write_text(VIA)

    def call(*arguments):
        fleet = ("--fleet", tmp_path / "via.yaml")
        return nonn_plan("simulate", "--student", "wrn16:32,64,88", *fleet, *arguments, "--json")

    return call


@pytest.mark.parametrize("places", [("--place", "hub,leaf", "--students", 2), ("--place", "leaf")])
def test_behind_a_hub_that_is_down_nobody_answers(via, places):
    for fail in ("hub@0", "hub,leaf@0"):
        found = via(*places, "--needs", 1, "--fail", fail).document["simulation"]
        assert (found["answered"], found["lost"]) == (0, 1)


def test_a_hub_alone_is_one_of_the_boards_that_fail_and_draw(via):
    found = via("--place", "leaf").document
    assert [row["board"] for row in found["simulation"]["boards"]] == ["hub", "leaf"]
    assert [row["passes_on"] for row in found["simulation"]["boards"]] == [True, False]
    assert found["simulation"]["boards"][0]["radio_mj"] > 0
    assert found["latency_model"] == {"rpi-3b": "flop-affine"}
    failing = ("--mttf", "2s", "--mttf", "leaf=900000s", "--mttr", "300ms", "--on-failure", "lose")
    assert via("--place", "leaf", "--inferences", 100, *failing).document["simulation"]["lost"] > 0


def test_a_hub_that_computes_nothing_has_no_clock_to_slow_down(via):
    said = via("--place", "leaf", "--throttle", "hub@0=0.5")
    assert said.code == 2
    assert "found 'hub'; allowed: leaf" in said.err


def test_throttling_slows_a_board_down(simulated):
    usual = simulated()["simulation"]["boards"][0]["busy_ms"]
    slower = simulated("--throttle", "rpi-3b-1@0=0.5")["simulation"]["boards"][0]["busy_ms"]
    assert slower == pytest.approx(2 * usual)
