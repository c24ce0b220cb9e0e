"""Boards that are reached through others: who passes a message on, what for, and what if not."""

from itertools import pairwise

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_hardware import device, figure, link

from profiles.device import Hosting
from profiles.fleet import Board, RelayBoard
from profiles.link import chained_link, wire_ms
from simulator.engine.simulation import simulate
from simulator.graph_builder import radio_parts, relay_path
from simulator.results.perfetto import trace_json
from simulator.results.simulation_result import power_draws
from simulator.scenario import Periodic, Scenario, TimedFailure
from simulator.workloads.fan_out import FanOut, StudentWork

HOST = device("desk", hosting=Hosting(join_fixed_ms=figure(1), fc_ms=figure(0)))
PI = device(
    "pi", compute_fixed_ms=10, compute_ms_per_mmac=0, power_fixed_w=1, power_busy_w=1,
    message_ms=0, sharing_slowdown=1, idle_w=0.5, radio_w=2,
)  # fmt: skip


def behind(name, other, bits_per_s):
    """A board that is reached through `other`, or from the host if None."""
    own = link(f"link of {name}", bits_per_s)
    if other is None:
        return Board(name, PI, own)
    relay = RelayBoard(other.name, other.device, other.link)
    return Board(name, PI, chained_link(other.link, other.device, own), (*other.via, relay))


# An image of 1000 bytes takes 2 ms to the hub and 6 ms on to the leaf, 10 bytes a hundredth.
HUB = behind("hub", None, 4_000_000)
LEAF = behind("leaf", HUB, 8_000_000 / 6)
LAST = behind("last", LEAF, 2_000_000)  # 4 ms from the leaf


def fan_out(*homes, boards=(HUB, LEAF), needs=None):
    students = tuple(StudentWork(f"on {home}", home, 0, 25) for home in homes)
    return FanOut(HOST, boards, students, homes, 1000, needs=needs)


def down(*outages, on_failure="wait", arrivals=None):
    failures = tuple(outages)
    scenario = Scenario(failures=failures, on_failure=on_failure)
    return scenario if arrivals is None else Scenario(arrivals, failures, on_failure=on_failure)


@pytest.mark.parametrize("on_failure", ["wait", "lose"])
def test_a_hub_that_is_down_leaves_nobody_behind_it(on_failure):
    for workload in (fan_out("hub", "leaf", needs=1), fan_out("leaf")):
        result = simulate(workload, 3, down(TimedFailure(("hub",), 0), on_failure=on_failure))
        assert (result.answered, result.lost) == (0, 3)


def test_a_leaf_that_is_down_does_not_hold_up_its_hub():
    workload = fan_out("hub", "leaf", needs=1)
    assert simulate(workload, 1, down(TimedFailure(("leaf",), 0))).survivors == {
        frozenset(["on hub"]): 1
    }


def test_a_hub_breaks_off_what_is_under_way_through_it():
    # Image 0-8, 10 ms of computing, reply 18-18.8, join 1: from 8 to 18 nothing needs the hub.
    assert simulate(fan_out("leaf")).total_ms == pytest.approx(19.8)
    idle = simulate(fan_out("leaf"), 1, down(TimedFailure(("hub",), 9, 17)))
    assert idle.total_ms == pytest.approx(19.8)
    hit = simulate(fan_out("leaf"), 1, down(TimedFailure(("hub",), 5, 12)))
    assert [(row.start_ms, row.end_ms) for row in hit.intervals if row.lost] == [(0, 5)]
    assert hit.total_ms == pytest.approx(12 + 19.8)
    late = simulate(fan_out("leaf"), 1, down(TimedFailure(("hub",), 18.5, 30)))
    assert late.total_ms == pytest.approx(30 + 0.8 + 1)


def test_a_hub_and_its_leaf_fail_as_one_and_a_hub_of_a_hub_too():
    group = simulate(fan_out("leaf"), 1, down(TimedFailure(("hub", "leaf"), 9, 17)))
    assert group.total_ms == pytest.approx(17 + 10 + 0.8 + 1)
    chain = fan_out("last", boards=(HUB, LEAF, LAST))
    for name in ("hub", "leaf", "last"):
        assert simulate(chain, 1, down(TimedFailure((name,), 0))).answered == 0


def test_each_radio_draws_for_its_own_hops():
    # Image and reply: 2.2 ms to the hub, 6.6 ms on to the leaf, 4.4 ms on to the last.
    hub, leaf = simulate(fan_out("leaf"), 4).boards
    assert hub.radio_mj == pytest.approx(2 * 8.8)
    assert leaf.radio_mj == pytest.approx(2 * 6.6)
    rows = simulate(fan_out("last", boards=(HUB, LEAF, LAST)), 4).boards
    found = {row.board: row.radio_mj for row in rows}
    assert found == pytest.approx({"hub": 2 * 8.8, "leaf": 2 * 11, "last": 2 * 4.4})


def test_a_hub_draws_for_itself_and_for_others():
    alone, behind_it = simulate(fan_out("hub")), simulate(fan_out("leaf"))
    both = simulate(fan_out("hub", "leaf"))
    hub = both.boards[0].radio_mj
    assert hub == pytest.approx(alone.boards[0].radio_mj + behind_it.boards[0].radio_mj)


def test_a_hub_that_only_passes_on_is_told_apart():
    result = simulate(fan_out("leaf"), 2)
    hub, leaf = result.boards
    assert (hub.board, hub.students, hub.passes_on) == ("hub", 0, True)
    assert (leaf.board, leaf.students, leaf.passes_on) == ("leaf", 1, False)
    assert (hub.busy_ms, hub.energy_mj) == (0, 0)
    # It passes the image on until 8 ms and the reply until 18.8; in between, and then, it waits.
    assert (hub.done_ms, hub.wait_ms) == pytest.approx((18.8, 10 + 1))
    assert hub.idle_mj == pytest.approx(0.5 * 19.8)
    assert result.wait_ms == pytest.approx(leaf.wait_ms)
    assert result.energy_per_node_mj == pytest.approx(leaf.energy_mj)
    assert result.radio_total_mj == pytest.approx(hub.radio_mj + leaf.radio_mj)
    assert [row.passes_on for row in simulate(fan_out("hub", "leaf")).boards] == [False, False]


def test_what_a_hub_draws_over_time_is_its_energy():
    scenario = down(
        TimedFailure(("hub",), 5, 12), TimedFailure(("leaf",), 21, 33), arrivals=Periodic(15)
    )
    result = simulate(fan_out("leaf"), 4, scenario)
    assert any(row.lost for row in result.intervals)
    for row in result.boards:
        area = sum(
            each.watts * (each.end_ms - each.start_ms) for each in power_draws(result)[row.board]
        )
        assert area / 4 == pytest.approx(row.energy_mj + row.idle_mj + row.radio_mj, rel=1e-9)
    assert '"args": {"name": "hub"}' in trace_json(result)


@st.composite
def trees(draw):
    """Boards behind each other or behind the host, and the same as a graph."""
    boards, graph = [], nx.Graph()
    graph.add_node("host")
    for number in range(draw(st.integers(2, 8))):
        other = draw(st.none() | st.sampled_from(boards)) if boards else None
        boards.append(behind(f"b{number}", other, draw(st.floats(1e3, 1e9))))
        graph.add_edge(f"b{number}", other.name if other else "host")
    return boards, graph


@given(trees(), st.data())
def test_the_way_between_two_boards_is_that_in_the_tree(tree, data):
    boards, graph = tree
    one, other = data.draw(st.permutations(boards))[:2]
    path = nx.shortest_path(graph, one.name, other.name)[1:-1]
    assert [each.name for each in relay_path(one, other)] == [
        name for name in path if name != "host"
    ]


@given(trees(), st.integers(1, 10**6))
def test_parts_of_the_radio_are_the_times_of_the_hops(tree, size_bytes):
    boards, graph = tree
    routes = {board.name: board for board in boards}
    for board in boards:
        whole_ms = wire_ms(board.link, size_bytes)
        way = nx.shortest_path(graph, "host", board.name)
        until_ms = [0.0, *(wire_ms(routes[name].link, size_bytes) for name in way[1:])]
        hops_ms = [later - earlier for earlier, later in pairwise(until_ms)]
        expected = {
            name: sum(hops_ms[place : place + 2]) / whole_ms for place, name in enumerate(way[1:])
        }
        if len(way) > 2:
            assert dict(radio_parts(board)) == pytest.approx(expected, abs=1e-9)
        else:
            assert radio_parts(board) == ()
