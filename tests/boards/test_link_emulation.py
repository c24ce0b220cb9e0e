"""Delays of a relay equal the closed form, message by message."""

import pytest
from emulated_plans import bundle_of, made_fleet, made_plan
from hypothesis import given
from hypothesis import strategies as st

from boards.emulation.link_emulation import board_workloads, link_emulations
from boards.emulation.namespace import LOOPBACK_ONLY, Capabilities
from boards.emulation.relay import CarrierClock, LinkDirection, MessageCounter
from nonn_core.export.bundle import MANIFEST, Manifest
from planner.plan_file.evaluation import plan_workload
from profiles.link import BYTES_PER_FEATURE
from simulator.graph_builder import join_ms
from simulator.workloads import closed_form

KERNEL = Capabilities(namespaces=True, rates=True, shared_channels=True, delays=True)
WITHOUT_NETEM = Capabilities(namespaces=True, rates=True, shared_channels=True)

links = st.fixed_dictionaries(
    {
        "bits_per_s": st.floats(1e5, 5e7),
        "latency_ms": st.floats(0, 50),
        "kind": st.sampled_from(["full", "half", "shared"]),
    }
)


def link(name, bits_per_s, latency_ms, kind):
    return {
        "name": name,
        "bits_per_s": bits_per_s,
        "latency_ms": latency_ms,
        "duplex": "full" if kind == "full" else "half",
        "shared": kind == "shared",
    }


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Of more students than any plan here has."""
    plan = made_plan(made_fleet(["wired-100mbit"] * 5))
    return Manifest.read(bundle_of(plan, tmp_path_factory.mktemp("bundle")) / MANIFEST)


def replied_ms(plan, work, ways):
    """When the last reply is at the host, if boards only hold and the relay only delays."""
    carriers, ready = CarrierClock(), []
    by_name = {duty.board.name: duty for duty in work}
    for name in plan.send_order:
        duty = by_name[name]
        begun_ms = carriers.release_ms(ways[name].down, duty.image_bytes, 1.0, 0.0)
        ready.append((begun_ms + max(duty.holds_ms.values()), name))
    sizes = {student.name: len(student.filters) for student in plan.students}
    done = [
        carriers.release_ms(
            ways[name].up,
            BYTES_PER_FEATURE * sum(sizes[each] for each in by_name[name].students),
            0.0,
            ready_ms,
        )
        for ready_ms, name in sorted(ready)
    ]
    return max(done)


@given(
    st.lists(links, min_size=1, max_size=5),
    st.lists(st.integers(0, 4), min_size=1, max_size=5),
    st.floats(0, 40),
    st.floats(0.1, 60),
)
def test_a_relay_alone_keeps_the_time_of_the_closed_form(
    manifest, kinds, on, message_ms, compute_ms
):
    described = [link(f"l{k}", **kind) for k, kind in enumerate(kinds)]
    fleet = made_fleet([described[k % len(kinds)] for k in on], compute_ms, message_ms)
    plan = made_plan(fleet, width=9)
    work = board_workloads(plan, manifest)
    ways = link_emulations(work, LOOPBACK_ONLY, own_message_ms=0.0)
    workload = plan_workload(plan)
    expected_ms = closed_form.fan_out_breakdown(workload).total_ms - join_ms(workload.host)
    assert replied_ms(plan, work, ways) == pytest.approx(expected_ms, rel=1e-9)


@pytest.mark.parametrize(
    ("described", "message_ms", "can", "needed"),
    [
        (link("l", 1e8, 0, "full"), 0.0, KERNEL, False),
        (link("l", 1e8, 5, "full"), 0.0, KERNEL, False),
        (link("l", 1e8, 5, "full"), 0.0, WITHOUT_NETEM, True),
        (link("l", 1e8, 0, "shared"), 0.0, WITHOUT_NETEM, False),
        (link("l", 1e8, 0, "full"), 1.0, KERNEL, False),
        (link("l", 1e8, 0, "full"), 1.1, KERNEL, True),
        (link("l", 1e8, 0, "full"), 0.0, LOOPBACK_ONLY, True),
        (link("l", 1e10, 0, "full"), 0.0, LOOPBACK_ONLY, False),
        ({**link("l", 1e8, 0, "full"), "jitter_ms": 1.0}, 0.0, KERNEL, True),
        # Each half-duplex wire has an ifb of its own: the host would send on all at once.
        (link("l", 1e6, 0, "half"), 0.0, KERNEL, True),
        (link("l", 1e8, 0, "full"), 0.0, Capabilities(namespaces=True, rates=True), True),
    ],
)
def test_a_relay_is_there_for_what_the_kernel_lacks(manifest, described, message_ms, can, needed):
    plan = made_plan(made_fleet([described] * 2, message_ms=message_ms))
    work = board_workloads(plan, manifest)
    assert bool(link_emulations(work, can, own_message_ms=1.0)) == needed


def test_what_the_kernel_adds_is_released_earlier_and_what_a_message_costs_here_left_out(manifest):
    described = link("l", 8e6, 0, "full")
    plan = made_plan(made_fleet([described] * 2, message_ms=11.0))
    work = board_workloads(plan, manifest)
    ways = link_emulations(work, KERNEL, own_message_ms=1.0)
    size_bytes = work[0].image_bytes
    wire_ms = size_bytes / 1000
    carriers = CarrierClock()
    first, second = (carriers.release_ms(ways[n].down, size_bytes, 1.0, 0.0) for n in ("b0", "b1"))
    assert (first, second) == pytest.approx((10.0, 10.0 + wire_ms + 10.0))
    assert carriers.release_ms(ways["b0"].up, 1000, 0.0, 5.0) == 5.0


def test_jitter_is_exponential_and_drawn_from_the_seed():
    way = LinkDirection(jitter_ms=3.0)
    drawn = [CarrierClock(seed).release_ms(way, 1, 0.0, 10.0) for seed in range(400)]
    assert min(drawn) >= 10.0
    assert sum(drawn) / len(drawn) == pytest.approx(13.0, abs=0.5)
    assert drawn[7] == CarrierClock(7).release_ms(way, 1, 0.0, 10.0)


@given(st.integers(1, 20_000), st.lists(st.integers(1, 5000), min_size=1, max_size=30))
def test_a_message_is_counted_once_however_its_bytes_come(message_bytes, pieces):
    burst = MessageCounter(message_bytes)
    counted = sum(burst.messages(piece) for piece in pieces)
    size = sum(pieces)
    if size < message_bytes:
        assert counted == pytest.approx(size / message_bytes)
    else:
        assert counted == pytest.approx(size // message_bytes)


def test_what_protocols_add_to_a_message_costs_nothing_and_the_next_one_counts_anew():
    burst = MessageCounter(256)
    for _ in range(3):
        assert burst.messages(300) == pytest.approx(1.0)
        burst.answered()
