import pytest

from nonn_common.errors import SimulationError
from simulator.task_graph import Message, Step, TaskGraph, Transit, owner_of, shared_cpu


def step(*resources, after=(), **parts):
    return Step("a", "compute", resources, 1.0, after, **parts)


def test_resources_belong_to_boards_by_their_names():
    assert (
        owner_of("rpi-3b-1.cpu")
        == owner_of("rpi-3b-1.cpu/s2")
        == owner_of("rpi-3b-1.wire")
        == "rpi-3b-1"
    )
    assert owner_of("medium:wifi.home") is None
    assert shared_cpu("a.b.cpu/s/2") == "a.b.cpu"
    assert shared_cpu("a.cpu") is None


def test_a_step_needs_all_places_of_its_actor_message_and_resources():
    sent = Step("host", "send", ("host.nic", "medium:air"), 1.0, message=Message("host", "a", 1))
    assert sent.places == {"host", "a"}
    assert step("b.cpu").places == {"a", "b"}


def test_a_resource_behind_a_busier_one_never_makes_anybody_wait():
    both = [step("host.nic", f"{name}.down") for name in "abc"]
    graph = TaskGraph((*both, step("a.down", "b.up"), step()), sink=4)
    # b.down and c.down are never held without host.nic; a.down is, and b.up never without it.
    assert graph.resources == ("host.nic", "a.down", "b.down", "c.down", "b.up")
    assert graph.held == ((0, 1), (0,), (0,), (1,), ())


def test_of_two_resources_that_go_together_one_counts():
    assert TaskGraph((step("a.up", "b.down"), step("a.up", "b.down")), sink=1).held == ((0,), (0,))


def test_resources_whose_every_user_holds_the_same_and_needs_the_same():
    def exclusive(*steps):
        return TaskGraph(steps, sink=0).exclusive

    def sent(name, *resources):
        return Step("host", "send", resources, 1.0, message=Message("host", name, 1))

    assert exclusive(step("a.cpu"), step("a.cpu"), step()) == (True, True, True)
    assert (
        exclusive(sent("a", "host.nic", "a.down"), sent("b", "host.nic", "b.down")) == (False,) * 2
    )
    assert exclusive(sent("a", "host.nic", "a.down"), step("a.cpu")) == (True, True)
    # One way: the reply may not keep the wire, or the send that waits for it keeps the card.
    wires = [sent(name, "host.nic", f"{name}.wire") for name in "ab"]
    assert exclusive(*wires, step("a.wire"), step("b.cpu")) == (False, False, False, True)


def test_a_processor_named_as_a_whole_beside_its_lanes_is_a_lane_too():
    graph = TaskGraph((step("a.cpu"), step("a.cpu/s"), step("b.cpu")), sink=0)
    assert graph.processors == {"a.cpu": "a.cpu", "a.cpu/s": "a.cpu"}


def test_whether_the_answer_waits_for_all():
    first, second = step("a.cpu"), step("b.cpu")
    assert TaskGraph((first, second, step(after=(0, 1))), sink=2).waits_for_all
    assert not TaskGraph((first, second, step(after=(0,))), sink=2).waits_for_all
    assert not TaskGraph((first, second, step(after=(0, 1), needs=1)), sink=2).waits_for_all
    assert not TaskGraph((first, second, step(after=(0, 1), deadline_ms=5)), sink=2).waits_for_all


def test_what_can_queue_before_the_step_before_it_has_ended():
    def following(first, second, *more, sink=1):
        return TaskGraph((first, second, *more), sink).next_steps[0]

    after = step("b.cpu", after=(0,))
    assert following(step("a.cpu"), after) == 1
    assert following(step("a.cpu"), step(after=(0,))) == 1
    assert following(step("a.cpu"), after, sink=0) is None
    assert following(step("a.cpu"), after, step("c.cpu", after=(0,))) is None
    assert following(step("a.cpu"), after, step("b.cpu")) is None  # it may come between
    assert following(step("a.cpu"), step("b.cpu", after=(0,), deadline_ms=9)) is None
    assert following(step("a.cpu"), step("a.cpu/1", after=(0,))) is None
    assert following(step(), after) is None  # ends in any order, as service may be random
    assert following(step("a.up", transit=Transit(jitter_ms=1)), after) is None
    assert following(step("a.up", transit=Transit(latency_ms=1)), after) == 1


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"duration_ms": -1.0}, "found -1.0 ms"),
        ({"duration_ms": float("nan")}, "found nan ms"),
        ({"energy_mj": float("inf")}, "inf mJ"),
        ({"after": (1,)}, "only for steps before it"),
        ({"after": (-1,)}, "only for steps before it"),
        ({"after": (0,), "needs": 2}, "needs must be from 1 to 1; found 2"),
        ({"needs": 1}, "needs must be from 1 to 0"),
        ({"deadline_ms": 1.0}, "a deadline is for a step that waits"),
        ({"resources": ("x.up", "x.up")}, "resources must differ"),
        ({"resources": ("a.cpu/1", "a.up")}, "is all that a step may hold"),
        ({"resources": ("a.cpu/1",), "transit": Transit(1.0)}, "no latency"),
        ({"resources": ("x.cpu/1",)}, "is for its own board"),
        ({"message": Message("a", "b", -1)}, "found -1"),
    ],
)
def test_steps_that_make_no_sense_are_refused(parts, message):
    fine = {"actor": "a", "activity": "compute", "resources": (), "duration_ms": 1.0}
    with pytest.raises(SimulationError, match=f"step 1 .compute of a.: .*{message}"):
        TaskGraph((step(), Step(**{**fine, **parts})), sink=0)


def test_an_answer_and_students_are_of_steps_that_exist():
    with pytest.raises(SimulationError, match="one of 1 steps; found step 1"):
        TaskGraph((step(),), sink=1)
    with pytest.raises(SimulationError, match=r"unknown steps: \[3\]"):
        TaskGraph((step(),), sink=0, students={3: ("a",)})


@pytest.mark.parametrize(
    "parts", [{"loss_pct": 100}, {"latency_ms": -1}, {"jitter_ms": float("inf")}]
)
def test_a_message_is_lost_less_than_always_and_delayed_forwards(parts):
    with pytest.raises(SimulationError, match="loss from 0 to below 100"):
        Transit(**parts)
