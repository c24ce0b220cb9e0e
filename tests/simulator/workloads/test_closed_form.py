import json
from dataclasses import replace

import pytest
from made_hardware import figure
from overlapping_images import inference_times

from nonn_common.errors import SimulationError
from simulator.results.breakdown import BoardRow
from simulator.workloads import closed_form
from simulator.workloads.fan_out import SharedGroup, SingleModel, StudentWork

SLOWER = {"compute_fixed_ms": figure(8.2)}


def test_two_unlike_boards_by_hand(make_fan_out):
    result = closed_form.fan_out_breakdown(make_fan_out())
    slow, fast = result.boards
    # Sending: 12 ms, then 1.8 ms more.  Slow: 12 + 20 + 8.  Fast: 13.8 + 8.75 + 0.8.
    assert (slow.send_done_ms, slow.busy_ms, slow.done_ms) == pytest.approx((12, 20, 40))
    assert (fast.send_done_ms, fast.busy_ms, fast.done_ms) == pytest.approx((13.8, 8.75, 23.35))
    assert (slow.energy_mj, fast.energy_mj) == pytest.approx((40, 30))
    assert (slow.students, fast.students) == (1, 2)
    assert (slow.device, fast.device) == ("tortoise", "hare")
    assert result.total_ms == pytest.approx(43)  # 40 + 3 to join
    assert (result.compute_ms, result.communication_ms) == pytest.approx((20, 23))
    assert result.energy_per_node_mj == pytest.approx(35)
    assert result.energy_total_mj == pytest.approx(70)


def test_a_message_for_each_student_by_hand(make_fan_out):
    result = closed_form.fan_out_breakdown(make_fan_out(sending="per-student"))
    slow, fast = result.boards
    # Images end at 12, 13.8 and 15.6.  On fast, b (1.25 * 3) runs alone for 1.8 ms, then beside
    # c (1.25 * 4) until 19.5; c is done at 22.55, with 0.4 and 0.6 ms for their replies.
    assert (slow.send_done_ms, slow.busy_ms, slow.done_ms) == pytest.approx((12, 20, 40))
    assert (fast.send_done_ms, fast.busy_ms, fast.done_ms) == pytest.approx((13.8, 8.75, 23.03))
    assert (fast.students, fast.energy_mj) == (2, 30)
    assert result.total_ms == pytest.approx(43)


def test_a_second_image_for_a_board_keeps_the_sender_from_the_next(make_fan_out):
    once, each = (
        closed_form.fan_out_breakdown(make_fan_out(send_order=("fast", "slow"), sending=sending))
        for sending in ("per-board", "per-student")
    )
    assert each.total_ms == pytest.approx(once.total_ms + 1.8)


def test_sending_to_the_quick_board_first_costs_its_send(make_fan_out):
    result = closed_form.fan_out_breakdown(make_fan_out(send_order=("fast", "slow")))
    assert [row.done_ms for row in result.boards] == pytest.approx([11.35, 41.8])
    assert result.total_ms == pytest.approx(44.8)


def on_medium(board, **changed):
    half = {"name": "air", "duplex": "half", "shared": True} | changed
    return replace(board, link=board.link.model_copy(update=half))


def test_replies_on_one_medium_wait_for_the_last_send_and_for_each_other(make_fan_out, slow, fast):
    boards = (on_medium(fast), on_medium(slow))
    students = (StudentWork("a", "fast", 0, 250), StudentWork("b", "slow", 0, 250))
    given = {"boards": boards, "students": students, "image_bytes": 1000}
    # Sends end at 1.8 and 13.8; replies of 0.8 and 8 ms are ready at 2.8 and 23.8.
    result = closed_form.fan_out_breakdown(make_fan_out(**given, send_order=("fast", "slow")))
    assert [row.done_ms for row in result.boards] == pytest.approx([14.6, 31.8])
    # Sends end at 12 and 13.8; the replies are ready at 22 and 14.8.
    result = closed_form.fan_out_breakdown(make_fan_out(**given, send_order=("slow", "fast")))
    assert [row.done_ms for row in result.boards] == pytest.approx([30, 15.6])
    # Both ready at 22: the one that was sent to first replies first.
    slower = on_medium(replace(fast, device=fast.device.model_copy(update=SLOWER)))
    result = closed_form.fan_out_breakdown(
        make_fan_out(**given | {"boards": (slower, boards[1])}, send_order=("slow", "fast"))
    )
    assert [row.done_ms for row in result.boards] == pytest.approx([30, 30.8])


@pytest.mark.parametrize("shared", [True, False])
def test_overlapping_images_that_wait_for_each_other_follow_no_recurrence(
    make_fan_out, slow, fast, students, shared
):
    boards = (on_medium(slow, shared=shared), fast)
    with pytest.raises(SimulationError, match="half-duplex link or a shared medium"):
        inference_times(make_fan_out(boards=boards, students=students[:2]), 2, [0.0, 5.0])


def test_the_first_replica_answers(make_fan_out):
    both = tuple(StudentWork("a", name, 5_000_000, 250) for name in ("slow", "fast"))
    result = closed_form.fan_out_breakdown(make_fan_out(students=both))
    # fast: 12 + 1.8 + 3.5 + 0.8; slow is there at 40, and has computed since 12.
    assert result.total_ms == pytest.approx(18.1 + 3)
    assert [row.done_ms for row in result.boards] == pytest.approx([40, 18.1])
    assert result.compute_ms == pytest.approx(21.1 - 12)
    with pytest.raises(SimulationError, match="several images that replicas still work on"):
        closed_form.fan_out_breakdown(make_fan_out(students=both), inferences=2)


def test_g0_on_a_board_of_its_own_has_its_own_row(make_fan_out):
    group = SharedGroup("idle", macs=2_000_000, size_bytes=500)
    g0, slow, fast = closed_form.fan_out_breakdown(make_fan_out(g0=group)).boards
    # Image to idle 12, G0 14 ms, maps to slow 4 + 4 ms, then to fast 1 + 4 ms over slow's rate.
    assert (g0.board, g0.students, g0.send_done_ms, g0.busy_ms) == ("idle", 0, 12, 14)
    assert (g0.energy_mj, g0.done_ms) == pytest.approx((22, 39))
    assert (slow.send_done_ms, fast.send_done_ms) == pytest.approx((34, 39))


def test_what_has_no_closed_form_is_refused(make_fan_out, slow, fast, students):
    group = SharedGroup("slow", macs=0, size_bytes=500)
    both = (*students, StudentWork("a", "fast", macs=5_000_000, features=250))
    for changed, match in (
        ({"needs": 2}, "joins k of n"),
        ({"deadline_ms": 9.0}, "with a deadline"),
        ({"g0": group, "sending": "per-student"}, "G0 alone, and a message per student"),
        ({"g0": group, "boards": (on_medium(slow), fast)}, "G0 alone, on a half-duplex link"),
    ):
        with pytest.raises(SimulationError, match=match):
            closed_form.fan_out_breakdown(make_fan_out(**changed))
    for changed, match in (({"g0": group}, "G0 alone"), ({"students": both}, "replicated")):
        with pytest.raises(SimulationError, match=match):
            inference_times(make_fan_out(**changed), 2, [0.0, 5.0])


def test_a_closed_loop_takes_up_an_image_when_the_last_is_answered(make_fan_out):
    rows = closed_form.fan_out_breakdown(make_fan_out(), inferences=3).inferences
    assert [row.inference for row in rows] == [0, 1, 2]
    assert [row.start_ms for row in rows] == pytest.approx([0, 43, 86])
    assert [row.end_ms for row in rows] == pytest.approx([43, 86, 129])


def test_a_model_alone_only_computes(slow):
    result = closed_form.single_model_breakdown(SingleModel(slow.device, 5_000_000), inferences=2)
    assert (result.total_ms, result.compute_ms, result.communication_ms) == (20, 20, 0)
    assert result.boards == (
        BoardRow("tortoise", "tortoise", 1, send_done_ms=0, busy_ms=20, done_ms=20, energy_mj=40),
    )
    assert [row.end_ms for row in result.inferences] == [20, 40]


def test_no_inference_is_no_question(make_fan_out, slow):
    with pytest.raises(SimulationError, match="found 0"):
        closed_form.fan_out_breakdown(make_fan_out(), inferences=0)
    with pytest.raises(SimulationError, match="found -1"):
        closed_form.single_model_breakdown(SingleModel(slow.device, 1), inferences=-1)


def test_plain_data_for_json(make_fan_out):
    plain = json.loads(json.dumps(closed_form.fan_out_breakdown(make_fan_out()).to_dict()))
    assert plain["total_ms"] == pytest.approx(43)
    assert plain["energy_per_node_mj"] == pytest.approx(35)
    assert plain["energy_total_mj"] == pytest.approx(70)
    assert [row["board"] for row in plain["boards"]] == ["slow", "fast"]
    assert plain["inferences"] == [
        {"inference": 0, "start_ms": 0.0, "end_ms": pytest.approx(43)},
    ]
