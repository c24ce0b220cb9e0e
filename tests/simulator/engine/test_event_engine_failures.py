"""Repairs and losses: a wait is in nobody's way, and a loss does not take the next with it."""

import math

import pytest

from nonn_common.errors import SimulationError
from simulator.engine.simulation import simulate
from simulator.scenario import Periodic, RenewalFailure, Scenario, TimedFailure
from simulator.task_graph import Message, Step, TaskGraph, Transit


def sent(name, *resources, **parts):
    return Step("host", "send", resources, 5.0, message=Message("host", name, 1), **parts)


def on(name, duration_ms, after=()):
    return Step(name, "compute", (f"{name}.cpu",), duration_ms, after)


def replied(name, resource, after):
    return Step(name, "reply", (resource,), 5.0, after, message=Message(name, "host", 1))


def join(after, needs=None):
    return Step("host", "join", (), 1.0, after, needs)


def star(up, down, needs):
    """A send of 5 ms, a computation of 10 and a reply of 5 for each of a and b; a join of 1."""
    steps = [sent(name, "host.nic", down.format(name)) for name in "ab"]
    steps += [on(name, 10.0, (i,)) for i, name in enumerate("ab")]
    steps += [replied(name, up.format(name), (2 + i,)) for i, name in enumerate("ab")]
    return TaskGraph((*steps, join((4, 5), needs)), sink=6)


DUPLEX = star("{}.up", "{}.down", needs=1)


def rows_on(result, *resources):
    """Work that was done on resources: image, step, start, end, and whether it was lost."""
    steps = result.recording.graph.steps
    return [
        (row.inference, row.step, row.start_ms, row.end_ms, row.lost)
        for row in result.intervals
        if set(resources) & set(steps[row.step].resources)
    ]


def test_a_send_to_a_board_that_is_down_leaves_the_network_card_to_others():
    result = simulate(DUPLEX, 1, Scenario(failures=(TimedFailure(("a",), 0, 100),)))
    assert rows_on(result, "host.nic") == [(0, 1, 0, 5, False), (0, 0, 100, 105, False)]
    assert result.total_ms == 5 + 10 + 5 + 1
    assert result.duration_ms == 120  # the reply of a


def test_a_send_that_breaks_off_frees_the_network_card_there():
    result = simulate(DUPLEX, 1, Scenario(failures=(TimedFailure(("a",), 3, 100),)))
    assert rows_on(result, "host.nic") == [
        (0, 0, 0, 3, True),
        (0, 1, 3, 8, False),
        (0, 0, 100, 105, False),
    ]
    assert result.total_ms == 24
    assert result.utilisation["host.nic"] == (3 + 5 + 5) / 120


def test_a_send_that_finds_the_board_down_again_waits_again():
    outages = (TimedFailure(("a",), 0, 50), TimedFailure(("a",), 52, 70))
    result = simulate(DUPLEX, 1, Scenario(failures=outages))
    assert rows_on(result, "host.nic")[1:] == [(0, 0, 50, 52, True), (0, 0, 70, 75, False)]


def test_images_pass_a_board_that_is_down_and_it_catches_up_in_their_order():
    result = simulate(DUPLEX, 3, Scenario(Periodic(30), (TimedFailure(("a",), 0, 1000),)))
    assert [row.latency_ms for row in result.inferences] == [21, 21, 21]
    late = [row for row in rows_on(result, "host.nic", "a.cpu") if row[2] >= 1000]
    assert late == [
        (0, 0, 1000, 1005, False),
        (1, 0, 1005, 1010, False),
        (0, 2, 1005, 1015, False),
        (2, 0, 1010, 1015, False),
        (1, 2, 1015, 1025, False),
        (2, 2, 1025, 1035, False),
    ]


def test_a_reply_on_a_shared_medium_lets_others_through():
    graph = star("medium:air", "medium:air", needs=1)
    result = simulate(graph, 1, Scenario(failures=(TimedFailure(("a",), 12, 100),)))
    # a computes from 5 to 12, and again from 100 to 110; b replies from 20 on.
    assert result.total_ms == 26
    held = simulate(graph, 1, Scenario(failures=(TimedFailure(("a",), 17, 100),)))
    # a replies from 15 to 17 and from 100 on; b, from 20.
    assert rows_on(held, "medium:air")[2:] == [
        (0, 4, 15, 17, True),
        (0, 5, 20, 25, False),
        (0, 4, 100, 105, False),
    ]


def test_a_reply_that_waits_for_the_repair_of_a_one_way_link_does_not_block_the_host():
    graph = star("{}.wire", "{}.wire", needs=1)
    result = simulate(graph, 2, Scenario(Periodic(30), (TimedFailure(("a",), 17, 1000),)))
    # The first reply of a breaks off at 17; the second send to a finds it down.
    assert [row.latency_ms for row in result.inferences] == [26, 21]
    assert rows_on(result, "a.wire") == [
        (0, 0, 0, 5, False),
        (0, 4, 15, 17, True),
        (0, 4, 1000, 1005, False),
        (1, 0, 1005, 1010, False),
        (1, 4, 1020, 1025, False),
    ]


def test_a_step_on_its_board_s_processor_keeps_its_place():
    scenario = Scenario(Periodic(1), (TimedFailure(("a",), 4, 30),))
    result = simulate(TaskGraph((on("a", 10.0),), sink=0), 3, scenario)
    assert [row.end_ms for row in result.inferences] == [40, 50, 60]


def test_a_later_image_does_not_take_the_place_of_one_that_waits_for_a_repair():
    """The second image's step on a is known from 10 ms on, but not ready before 20."""
    graph = TaskGraph((on("b", 10.0), on("a", 2.0, (0,))), sink=1)
    result = simulate(graph, 2, Scenario(Periodic(10), (TimedFailure(("a",), 11, 14),)))
    assert rows_on(result, "a.cpu") == [
        (0, 1, 10, 11, True),
        (0, 1, 14, 16, False),
        (1, 1, 20, 22, False),
    ]


def test_what_waits_for_a_repair_takes_the_times_that_were_drawn_for_it():
    noise = Transit(jitter_ms=3, loss_pct=20, retry_ms=4)
    sends = (sent(name, "host.nic", transit=noise, service="exponential") for name in "ab")
    graph = TaskGraph((*sends, join((0, 1), 1)), sink=2)
    failing = (RenewalFailure(("a",), 300, 100), RenewalFailure(("b",), 200, 100))
    calm, rough = (
        simulate(graph, 50, Scenario(Periodic(100), failures, seed=4)).recording
        for failures in ((), failing)
    )
    for late, soon in (("frees_ms", "starts_ms"), ("ends_ms", "frees_ms")):
        wanted, found = (
            getattr(each.batch, late) - getattr(each.batch, soon) for each in (calm, rough)
        )
        assert found == pytest.approx(wanted)
    assert (rough.batch.starts_ms - calm.batch.starts_ms > 50).sum() > 10


def test_a_send_that_failures_never_let_through_is_an_error():
    with pytest.raises(SimulationError, match="step 0 needs 5 ms, and failures broke it off 10000"):
        simulate(DUPLEX, 1, Scenario(failures=(RenewalFailure(("a",), 0.1, 0.1),)))


@pytest.mark.parametrize(
    ("needs", "a_up_ms", "b_up_ms", "next_ms"),
    [
        (2, 100, 40, 100),  # both must be up
        (2, 40, 100, 100),
        (1, 100, 40, 40),  # one is enough
        (1, None, 40, 40),
        (2, None, 40, 15),  # both never will: at once
        (1, None, None, 15),
    ],
)
def test_a_closed_loop_goes_on_when_an_answer_is_possible_again(needs, a_up_ms, b_up_ms, next_ms):
    graph = TaskGraph((on("a", 10.0), on("b", 20.0), join((0, 1), needs)), sink=2)
    outages = (TimedFailure(("a",), 5, a_up_ms), TimedFailure(("b",), 15, b_up_ms))
    first, second = simulate(graph, 2, Scenario(failures=outages, on_failure="lose")).inferences
    assert not first.answered
    assert second.start_ms == next_ms
    assert second.answered == (next_ms > 15)


def test_a_lost_image_is_given_up_when_nothing_of_it_is_under_way():
    graph = TaskGraph((on("a", 10.0), on("b", 20.0), join((0, 1))), sink=2)
    for repaired_ms, next_ms in ((8, 20), (30, 30), (None, 20)):
        outage = TimedFailure(("a",), 5, repaired_ms)
        result = simulate(graph, 2, Scenario(failures=(outage,), on_failure="lose"))
        assert [row.start_ms for row in result.inferences] == [0, next_ms]


def test_an_image_that_some_boards_answer_does_not_wait_for_the_others():
    scenario = Scenario(failures=(TimedFailure(("a",), 0, 500),), on_failure="lose")
    assert [row.start_ms for row in simulate(DUPLEX, 3, scenario).inferences] == [0, 21, 42]


def test_a_step_that_never_began_is_possible_again_when_what_it_waits_for_is():
    scenario = Scenario(failures=(TimedFailure(("a", "b"), 2, 60),), on_failure="lose")
    rows = simulate(DUPLEX, 2, scenario).inferences
    # Lost at 2: the send to a; the one to b finds it down.
    assert [row.start_ms for row in rows] == [0, 60]
    assert math.isnan(rows[0].end_ms)
    assert rows[1].latency_ms == 21


def test_short_outages_lose_an_image_each():
    graph = TaskGraph((on("a", 10.0),), sink=0)
    outages = (
        TimedFailure(("a",), 25, 31),
        TimedFailure(("a",), 36, 50),
        TimedFailure(("a",), 60, 62),
    )
    result = simulate(graph, 1000, Scenario(failures=outages, on_failure="lose"))
    # From 31 to 36, from 50 to 60 (in time), from 60 on: found down at once.
    assert [row.inference for row in result.inferences if not row.answered] == [2, 3, 5]
    renewed = Scenario(failures=(RenewalFailure(("a",), 1000, 100),), on_failure="lose", seed=1)
    result = simulate(graph, 20_000, renewed, keep="totals")
    # An image is through with probability exp(-10 / 1000).
    assert result.lost / 20_000 == pytest.approx(1 - math.exp(-0.01), rel=0.2)


def test_a_host_with_a_deadline_gives_up_there():
    last = Step("host", "join", (), 1.0, (0,), deadline_ms=50.0)
    graph = TaskGraph((on("a", 10.0), last), sink=1)
    scenario = Scenario(failures=(TimedFailure(("a",), 5, 200),), on_failure="lose")
    rows = simulate(graph, 6, scenario).inferences
    assert [row.start_ms for row in rows] == [0, 50, 100, 150, 200, 211]
    assert [row.answered for row in rows] == [False] * 4 + [True] * 2
