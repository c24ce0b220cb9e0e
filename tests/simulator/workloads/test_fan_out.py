import pytest

from nonn_common.errors import ProfileError, SimulationError
from profiles.fleet import Board
from simulator.graph_builder import join_ms, send_ms
from simulator.workloads.fan_out import (
    SingleModel,
    StudentWork,
    busy_mj,
    busy_ms,
    reply_bytes,
    reply_ms,
)


def test_costs_of_each_step_by_hand(host, slow, fast):
    assert send_ms(slow, 1000) == 12  # 4 + 8,000 bits at 1,000 per ms
    assert send_ms(fast, 1000) == 1.8
    assert busy_ms(slow.device, [5_000_000]) == 20  # 10 + 2 * 5
    assert busy_ms(fast.device, [4_000_000, 6_000_000]) == 8.75  # 1.25 * (3 + 4)
    assert busy_ms(fast.device, []) == 0
    assert reply_bytes(250) == 1000
    assert reply_ms(slow, 250) == 8
    assert join_ms(host) == 3
    assert busy_mj(slow.device, [5_000_000]) == 40  # 1 W * 10 ms + 3 W * 10 ms
    assert busy_mj(fast.device, [4_000_000, 6_000_000]) == 30  # 1.25 * (2 + 8 + 2 + 12)


def test_sends_follow_the_send_order_and_skip_idle_boards(make_fan_out, slow, fast, students):
    sends = make_fan_out(send_order=("fast", "slow")).sends()
    assert sends == ((fast, students[1:]), (slow, students[:1]))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"send_order": ("slow",)}, "send_order must name each board .* found slow;"),
        ({"send_order": ("slow", "fast", "fast")}, "send_order must name each board"),
        ({"send_order": ("slow", "fast", "idle")}, "found fast, idle, slow; .* fast, slow"),
        ({"students": (), "send_order": ()}, "at least one student"),
        ({"image_bytes": 0}, "found 3 students and 0 bytes"),
        ({"boards": ()}, "unknown boards: fast, slow; the fleet has: none"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(make_fan_out, changed, message):
    with pytest.raises(SimulationError, match=message):
        make_fan_out(**changed)


def test_names_are_unique(make_fan_out, slow, fast, students):
    with pytest.raises(SimulationError, match="board names must be unique; repeated: slow"):
        make_fan_out(boards=(slow, fast, slow))
    with pytest.raises(SimulationError, match="repeated: host"):
        make_fan_out(boards=(slow, fast, Board("host", slow.device, slow.link)))
    with pytest.raises(SimulationError, match="student names must be unique; repeated: b on fast"):
        make_fan_out(students=(*students, students[1]))


@pytest.mark.parametrize(("macs", "features"), [(-1, 1), (1, 0), (1, -4)])
def test_a_student_does_no_negative_work(macs, features):
    with pytest.raises(SimulationError, match="student a: "):
        StudentWork("a", "slow", macs, features)


def test_a_model_alone_does_no_negative_work(slow):
    with pytest.raises(SimulationError, match="found -1"):
        SingleModel(slow.device, -1)


def test_a_board_is_no_host(slow):
    with pytest.raises(SimulationError, match="device tortoise cannot host"):
        join_ms(slow.device)


def test_a_host_is_no_board(host, slow):
    with pytest.raises(ProfileError, match="device desk: this device has no message_ms"):
        send_ms(Board("b", host, slow.link), 1000)
