from dataclasses import replace

import pytest
from made_hardware import figure

from nonn_common.errors import SimulationError
from simulator.engine.simulation import simulate
from simulator.graph_builder import GraphBuilder
from simulator.task_graph import Message, Transit


def over(board, **parts):
    """The board on a link with some parts changed."""
    figures = {k: v if isinstance(v, str | bool) else figure(v) for k, v in parts.items()}
    return replace(board, link=board.link.model_copy(update=figures))


def test_what_no_step_can_be(host, slow):
    build = GraphBuilder(host)
    with pytest.raises(SimulationError, match="at least 0 MACs; found -5 on slow"):
        build.compute(slow, -5)
    with pytest.raises(SimulationError, match="nothing to join"):
        build.join([])


def test_a_workload_of_one_s_own(host, slow, fast):
    build = GraphBuilder(host)
    replies = []
    for board in (slow, fast):
        sent = build.send(board, 1000)
        done = build.compute(board, 5_000_000, after=(sent,))
        replies.append(build.reply(board, 800, after=(done,), students=(board.name,)))
    result = simulate(build.graph(build.join(replies)))
    # Slow: 12 + 20 + 6.4; fast: 12 + 1.8 + 3.5 + 0.64.
    assert [row.done_ms for row in result.boards] == pytest.approx([38.4, 17.94])
    assert result.total_ms == pytest.approx(41.4)
    assert result.survivors == {frozenset({"slow", "fast"}): 1}


def test_what_each_hop_holds_and_carries(host, slow, fast):
    build = GraphBuilder(host)
    build.send(slow, 1000)
    build.exchange(slow, fast, 500, after=(0,))
    build.exchange(slow, fast, 500, message_ms=7)
    build.compute(fast, ms=5, after=(1,), queue="x")
    build.compute(fast, ms=5, mj=3)
    build.first((1, 2))
    steps = build.graph().steps
    assert steps[0].resources == ("host.nic", "slow.down")
    assert steps[0].message == Message("host", "slow", 1000)
    assert steps[1].resources == ("slow.up", "fast.down")
    assert steps[1].duration_ms == 5  # 1 ms for fast and 4 ms at the rate of slow
    assert steps[2].duration_ms == 11
    assert (steps[3].resources, steps[3].energy_mj) == (("fast.cpu/x",), 20)  # 4 W * 5 ms
    assert steps[4].energy_mj == 3
    assert (steps[5].duration_ms, steps[5].needed) == (0, 1)


def test_links_that_are_half_duplex_or_shared(host, slow, fast):
    half, shared = over(slow, duplex="half"), over(fast, duplex="half", shared=True)
    build = GraphBuilder(host)
    build.send(half, 1)
    build.reply(half, 1)
    build.send(shared, 1)
    build.reply(shared, 1)
    build.exchange(half, shared, 1)
    build.exchange(shared, replace(shared, name="other"), 1)
    assert [step.resources for step in build.graph().steps] == [
        ("host.nic", "slow.wire"),
        ("slow.wire",),
        ("host.nic", "medium:wide"),
        ("medium:wide",),
        ("slow.wire", "medium:wide"),
        ("medium:wide",),
    ]


def test_two_links_delay_and_lose_as_both_together(host, slow, fast):
    one = over(slow, latency_ms=2, loss_pct=10, retransmit_ms=30, jitter_ms=1)
    two = over(fast, latency_ms=3, loss_pct=20, retransmit_ms=50)
    build = GraphBuilder(host)
    build.reply(one, 1000)
    build.exchange(one, two, 1000)
    alone, together = (step.transit for step in build.graph().steps)
    assert alone.loss_pct == pytest.approx(10)
    assert (alone.latency_ms, alone.jitter_ms, alone.retry_ms, alone.wire_ms) == (2, 1, 38, 8)
    assert together.loss_pct == pytest.approx(28)  # 1 - 0.9 * 0.8
    assert (together.latency_ms, together.jitter_ms, together.retry_ms) == (5, 1, 58)


def test_a_link_without_noise_leaves_a_message_alone(host, slow):
    build = GraphBuilder(host)
    build.send(slow, 1000)
    assert build.graph().steps[0].transit == Transit(wire_ms=8)


def test_only_a_host_joins(slow):
    build = GraphBuilder()
    done = build.compute(slow, 1)
    with pytest.raises(SimulationError, match="needs a JobBuilder with a host"):
        build.join((done,))
    assert build.graph(build.join((done,), ms=4)).steps[1].duration_ms == 4
