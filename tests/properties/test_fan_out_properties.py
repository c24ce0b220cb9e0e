"""Properties of every fan-out: engine and closed form agree, and nothing gets lost."""

from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import chain, combinations, pairwise, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_hardware import device, figure, link

from nonn_common.errors import SimulationError
from profiles.device import Hosting
from profiles.fleet import Board
from simulator.engine.simulation import simulate
from simulator.workloads import closed_form
from simulator.workloads.fan_out import (
    FanOut,
    SharedGroup,
    SingleModel,
    StudentWork,
    awaited_first,
    longest_first,
)

TOLERANCE_MS = 1e-6  # 1e-9 s

milliseconds = st.floats(0, 100)
factors = st.floats(0.5, 3)
rates = st.floats(0, 20)
watts = st.floats(0, 10)
bits_per_s = st.floats(1e4, 1e9)
student_macs = st.integers(0, 200_000_000)
features = st.integers(1, 640)
image_sizes = st.integers(1, 200_000)


@st.composite
def devices(draw, hosting=None):
    return device(
        "device",
        hosting,
        compute_fixed_ms=draw(milliseconds),
        compute_ms_per_mmac=draw(rates),
        power_fixed_w=draw(watts),
        power_busy_w=draw(watts),
        message_ms=draw(milliseconds),
        sharing_slowdown=draw(factors),
    )


any_device = devices()


@cache  # To make a strategy for each draw takes longer than what is drawn.
@st.composite
def boards(draw, name):
    return Board(name, draw(any_device), link("link", draw(bits_per_s)))


@cache
def orders(names):
    return st.lists(st.sampled_from(names), min_size=1, unique=True).flatmap(st.permutations)


@cache
def further_homes(names):
    return st.lists(st.sampled_from(names), max_size=6)


@cache
@st.composite
def fan_outs(draw, most_boards=6):
    names = tuple(f"board-{i}" for i in range(draw(st.integers(1, most_boards))))
    used = draw(orders(names))
    homes = [*used, *draw(further_homes(tuple(used)))]
    students = tuple(
        StudentWork(
            f"student-{i}",
            home,
            macs=draw(student_macs),
            features=draw(features),
        )
        for i, home in enumerate(homes)
    )
    hosting = Hosting(join_fixed_ms=figure(draw(milliseconds)), fc_ms=figure(draw(milliseconds)))
    return FanOut(
        host=draw(devices(hosting=hosting)),
        boards=tuple(draw(boards(name)) for name in names),
        students=students,
        send_order=tuple(used),
        image_bytes=draw(image_sizes),
    )


link_kinds = st.sampled_from(("air", "bus", "half", "full"))


@st.composite
def half_duplex(draw, workload, latencies_ms):
    """The same fan-out, its boards on one of two shared media, a half-duplex or a full link."""

    def changed(board):
        kind = draw(link_kinds)
        link = {
            "name": kind,
            "duplex": "full" if kind == "full" else "half",
            "shared": kind in ("air", "bus"),
            "latency_ms": figure(draw(latencies_ms)),
        }
        return replace(board, link=board.link.model_copy(update=link))

    return replace(workload, boards=tuple(map(changed, workload.boards)))


any_media = fan_outs().flatmap(lambda workload: half_duplex(workload, milliseconds))


@st.composite
def tied(draw):
    """Whole milliseconds, so that replies become ready at once, also of several students."""
    few = st.integers(0, 3)
    names = [f"board-{i}" for i in range(draw(st.integers(2, 6)))]

    def board(name):
        whole = {"compute_fixed_ms": draw(few), "message_ms": draw(few), "sharing_slowdown": 1}
        nothing = {"compute_ms_per_mmac": 0, "power_fixed_w": 0, "power_busy_w": 0}
        return Board(name, device("device", **whole, **nothing), link("link", 32_000))

    homes = [*names, *draw(st.lists(st.sampled_from(names), max_size=3))]
    students = [StudentWork(f"{i}", home, 0, 1 + draw(few)) for i, home in enumerate(homes)]
    workload = FanOut(
        host=device("host", Hosting(join_fixed_ms=figure(0), fc_ms=figure(0))),
        boards=tuple(map(board, names)),
        students=tuple(students),
        send_order=tuple(names),
        image_bytes=4,
    )
    return draw(half_duplex(workload, few))


def assert_same(simulated, formula):
    for found, wanted in zip(simulated.inferences, formula.inferences, strict=True):
        assert found.inference == wanted.inference
        assert found.start_ms == pytest.approx(wanted.start_ms, rel=0, abs=TOLERANCE_MS)
        assert found.end_ms == pytest.approx(wanted.end_ms, rel=0, abs=TOLERANCE_MS)
    for quantity in ("total_ms", "compute_ms", "communication_ms"):
        assert getattr(simulated, quantity) == pytest.approx(
            getattr(formula, quantity), rel=0, abs=TOLERANCE_MS
        )
    for found, wanted in zip(simulated.boards, formula.boards, strict=True):
        assert (found.board, found.device) == (wanted.board, wanted.device)
        assert found.students == wanted.students
        assert found.energy_mj == pytest.approx(wanted.energy_mj, rel=1e-12)
        assert (found.send_done_ms, found.busy_ms, found.done_ms) == pytest.approx(
            (wanted.send_done_ms, wanted.busy_ms, wanted.done_ms), rel=0, abs=TOLERANCE_MS
        )


@given(fan_outs(), st.integers(1, 5))
def test_engine_equals_closed_form(workload, inferences):
    assert_same(simulate(workload, inferences), closed_form.fan_out_breakdown(workload, inferences))


@settings(max_examples=200)
@given(any_media | tied(), st.integers(1, 3))
def test_engine_equals_closed_form_where_replies_wait_for_each_other(workload, inferences):
    simulated, formula = (
        simulate(workload, inferences),
        closed_form.fan_out_breakdown(workload, inferences),
    )
    assert simulated.total_ms == pytest.approx(formula.total_ms, rel=1e-9)
    assert_same(simulated, formula)


@given(fan_outs() | any_media, st.integers(1, 3))
def test_engine_equals_closed_form_with_a_message_for_each_student(workload, inferences):
    each = replace(workload, sending="per-student")
    assert_same(simulate(each, inferences), closed_form.fan_out_breakdown(each, inferences))


@st.composite
def replicated(draw, workload):
    """The same fan-out, some of its students on further boards."""
    pairs = [(each, board) for each in workload.students for board in workload.send_order]
    further = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=8))
    there = {(each.name, each.board) for each in workload.students}
    copies = (replace(e, board=board) for e, board in further if (e.name, board) not in there)
    return replace(workload, students=(*workload.students, *copies))


@st.composite
def behind_g0(draw, workload):
    """The same fan-out with G0 on any of its boards, students there or not."""
    board = draw(st.sampled_from([each.name for each in workload.boards]))
    g0 = SharedGroup(board, draw(st.integers(0, 10**8)), draw(st.integers(1, 100_000)))
    latencies = {"latency_ms": figure(draw(milliseconds))}
    far = tuple(
        replace(each, link=each.link.model_copy(update=latencies)) for each in workload.boards
    )
    return replace(workload, g0=g0, boards=far)


@settings(max_examples=200)
@given((fan_outs() | any_media | tied()).flatmap(replicated))
def test_engine_equals_closed_form_with_replicated_students(workload):
    assert_same(simulate(workload), closed_form.fan_out_breakdown(workload))
    each = replace(workload, sending="per-student")
    if not boards_tie(each):
        assert_same(simulate(each), closed_form.fan_out_breakdown(each))


def boards_tie(workload):
    """Whether students that share processors of two boards are done at one moment.

    Which of them then replies first on a shared medium follows from when each was last slowed down.
    """
    done = {(turn.board.name, turn.ready_ms) for turn in closed_form._turns(workload, {})}
    return any(
        one[0] != other[0] and one[1] == pytest.approx(other[1], abs=TOLERANCE_MS)
        for one, other in combinations(done, 2)
    )


@settings(max_examples=200)
@given((fan_outs() | fan_outs().flatmap(replicated)).flatmap(behind_g0))
def test_engine_equals_closed_form_with_g0_on_a_board_of_its_own(workload):
    assert_same(simulate(workload), closed_form.fan_out_breakdown(workload))


@given(fan_outs().flatmap(behind_g0), st.integers(2, 4))
def test_engine_equals_closed_form_behind_g0_in_a_closed_loop(workload, inferences):
    assert_same(simulate(workload, inferences), closed_form.fan_out_breakdown(workload, inferences))


@given(fan_outs().flatmap(replicated), st.integers(2, 4))
def test_replicas_are_done_before_the_next_image_or_there_is_no_closed_form(workload, inferences):
    once = closed_form.fan_out_breakdown(workload)
    if all(row.done_ms <= once.total_ms for row in once.boards):
        assert_same(
            simulate(workload, inferences), closed_form.fan_out_breakdown(workload, inferences)
        )
    else:
        with pytest.raises(SimulationError, match="replicas still work on"):
            closed_form.fan_out_breakdown(workload, inferences)


@given(devices(), st.integers(0, 2_000_000_000), st.integers(1, 5))
def test_engine_equals_closed_form_for_a_model_alone(device, macs, inferences):
    workload = SingleModel(device, macs)
    assert_same(
        simulate(workload, inferences), closed_form.single_model_breakdown(workload, inferences)
    )


@given(fan_outs(), st.integers(1, 3))
def test_every_image_reaches_each_board_once_and_every_reply_comes_back(workload, inferences):
    result = simulate(workload, inferences)
    features = Counter()
    for student in workload.students:
        features[student.board] += student.features
    for inference in range(inferences):
        rows = [row for row in result.messages if row.inference == inference]
        out = {row.receiver: row.size_bytes for row in rows if row.sender == "host"}
        back = {row.sender: row.size_bytes for row in rows if row.receiver == "host"}
        assert len(rows) == 2 * len(features)
        assert out == dict.fromkeys(features, workload.image_bytes)
        assert back == {board: 4 * count for board, count in features.items()}


@given(fan_outs(), st.integers(1, 3))
def test_nobody_does_two_things_at_once(workload, inferences):
    result = simulate(workload, inferences)
    for resource in {row.resource for row in result.intervals}:
        busy = [row for row in result.intervals if row.resource == resource]
        rows = sorted((row.start_ms, row.end_ms) for row in busy)
        for (_, end), (start, _) in pairwise(rows):
            assert end <= start + TOLERANCE_MS


@given(fan_outs(most_boards=4))
def test_longest_tail_first_is_the_best_send_order(workload):
    """One machine with delivery times: the largest delivery time first is optimal (Jackson)."""

    def tail(row):
        return row.done_ms - row.send_done_ms

    rows = closed_form.fan_out_breakdown(workload).boards
    longest_first = tuple(row.board for row in sorted(rows, key=tail, reverse=True))
    best_ms = min(
        closed_form.fan_out_breakdown(replace(workload, send_order=order)).total_ms
        for order in permutations(workload.send_order)
    )
    found_ms = closed_form.fan_out_breakdown(replace(workload, send_order=longest_first)).total_ms
    assert found_ms == pytest.approx(best_ms, rel=1e-12)


def quickest_ms(workload):
    orders = permutations(workload.send_order)
    return min(
        closed_form.fan_out_breakdown(replace(workload, send_order=o)).total_ms for o in orders
    )


@given(fan_outs(most_boards=4).flatmap(behind_g0))
def test_longest_first_is_the_best_order_of_exchanges(workload):
    order = longest_first(workload.boards, workload.students)
    found_ms = closed_form.fan_out_breakdown(replace(workload, send_order=order)).total_ms
    assert found_ms == pytest.approx(quickest_ms(workload), rel=1e-12)


@given((fan_outs(4) | fan_outs(4).flatmap(behind_g0)).flatmap(replicated))
def test_awaited_boards_longest_first_is_the_best_order_for_some_of_them(workload):
    used = workload.send_order
    sets = chain.from_iterable(combinations(used, count) for count in range(len(used) + 1))
    found_ms = min(
        closed_form.fan_out_breakdown(
            replace(workload, send_order=awaited_first(workload.boards, workload.students, awaited))
        ).total_ms
        for awaited in sets
    )
    assert found_ms == pytest.approx(quickest_ms(workload), rel=1e-12)


@given(fan_outs(), st.integers(1, 100_000))
def test_a_larger_image_never_comes_back_sooner(workload, more_bytes):
    larger = replace(workload, image_bytes=workload.image_bytes + more_bytes)
    assert (
        closed_form.fan_out_breakdown(larger).total_ms
        > closed_form.fan_out_breakdown(workload).total_ms
    )


@given(fan_outs())
def test_latency_is_no_less_than_any_board_needs(workload):
    result = closed_form.fan_out_breakdown(workload)
    assert result.compute_ms == max(row.busy_ms for row in result.boards)
    assert all(result.total_ms >= row.done_ms for row in result.boards)
    assert result.communication_ms >= 0
