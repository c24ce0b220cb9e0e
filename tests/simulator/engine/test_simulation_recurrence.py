import pytest

from simulator.engine import simulation
from simulator.engine.simulation import simulate
from simulator.scenario import UNDISTURBED, Periodic, Poisson, Scenario, Throttle, TimedFailure
from simulator.task_graph import Step, TaskGraph, Transit


def on(resource, duration_ms=1.0, after=(), **parts):
    return Step("a", "compute", (resource,) if resource else (), duration_ms, tuple(after), **parts)


def assert_same_bytes(graph, scenario, inferences=50):
    one, other = (
        simulate(graph, inferences, scenario, path=path) for path in ("events", "recurrence")
    )
    for name in type(one.recording.batch).__slots__:
        left, right = (getattr(each.recording.batch, name) for each in (one, other))
        assert left.tobytes() == right.tobytes()


@pytest.mark.parametrize("scenario", [UNDISTURBED, Scenario(Poisson(20), seed=8)])
@pytest.mark.parametrize("needs", [None, 1])
def test_a_fan_out_is_the_same_on_both_paths(make_fan_out, students, scenario, needs):
    graph = make_fan_out(students=students[:2], needs=needs).graph()
    assert simulation.keeps_order(graph)
    assert_same_bytes(graph, scenario)


def test_a_resource_used_twice_keeps_its_order_only_in_a_closed_loop():
    graph = TaskGraph((on("a.cpu", 3), on("b.cpu", 5, (0,)), on("a.cpu", 2, (1,))), sink=2)
    assert simulation.recurrence_applies(graph, UNDISTURBED)
    assert not simulation.recurrence_applies(graph, Scenario(Periodic(1)))
    assert_same_bytes(graph, UNDISTURBED)


def test_the_order_in_a_closed_loop_is_that_of_the_first_image_not_of_the_steps():
    # The third step is ready at 1, the second at 4: the third comes first to a.cpu.
    steps = (on("x.cpu", 4), on("a.cpu", 2, (0,)), on("y.cpu", 1), on("a.cpu", 9, (2,)))
    graph = TaskGraph((*steps, on("z.cpu", 1, (1, 3))), sink=4)
    assert simulate(graph, path="events").total_ms == 13
    assert_same_bytes(graph, UNDISTURBED)


def test_a_step_that_waits_twice_for_one_is_ready_at_another_time():
    # Ready at 5 and at 1: the second step comes first to the resource that both use.
    graph = TaskGraph(
        (
            Step("a", "compute", ("a.cpu",), 1.0),
            Step("b", "compute", ("b.cpu",), 5.0),
            Step("a", "reply", ("medium:air",), 1.0, after=(0, 1), needs=2),
            Step("a", "reply", ("medium:air",), 1.0, after=(0, 0, 1), needs=2),
            Step("host", "join", ("host.cpu",), 0.0, after=(2, 3)),
        ),
        sink=4,
    )
    assert not simulation.keeps_order(graph)
    taken = [
        row for row in simulate(graph, path="events").intervals if row.resource == "medium:air"
    ]
    assert [(row.step, row.start_ms) for row in taken] == [(3, 1.0), (2, 5.0)]


def test_latency_alone_keeps_the_order():
    graph = TaskGraph((on("a.up", transit=Transit(latency_ms=5)), on("h.cpu", 2, (0,))), sink=1)
    assert_same_bytes(graph, Scenario(Periodic(1)))


@pytest.mark.parametrize(
    "steps",
    [
        (on("a.up", transit=Transit(jitter_ms=1)),),
        (on("", service="exponential"),),
        (on("a.cpu"), on("b.cpu", after=(0,), deadline_ms=4)),
    ],
)
def test_what_may_overtake_is_not_fused(steps):
    assert not simulation.recurrence_applies(TaskGraph(steps, sink=len(steps) - 1), UNDISTURBED)


def test_what_disturbs_is_not_fused():
    graph = TaskGraph((on("a.cpu"),), sink=0)
    assert simulation.recurrence_applies(graph, UNDISTURBED)
    assert not simulation.recurrence_applies(graph, Scenario(failures=(TimedFailure(("a",), 1),)))
    assert not simulation.recurrence_applies(graph, Scenario(throttling=(Throttle("a", 1, 0.5),)))


def test_lanes_are_fused_only_in_a_closed_loop():
    graph = TaskGraph((on("a.cpu/1"), on("a.cpu/2"), on("h.cpu", after=(0, 1))), sink=2)
    assert simulation.recurrence_applies(graph, UNDISTURBED)
    assert not simulation.recurrence_applies(graph, Scenario(Periodic(1)))
