from dataclasses import replace

import numpy as np
import pytest
from made_hardware import figure

from simulator.graph_builder import join_ms, send_ms
from simulator.workloads import closed_form
from simulator.workloads.fan_out import busy_ms, reply_ms
from simulator.workloads.student_sweep import fan_out_ms


def test_a_sweep_is_the_closed_form_for_each_configuration(make_fan_out):
    workloads = [
        make_fan_out(image_bytes=size, send_order=order)
        for size in (1, 500, 20_000)
        for order in (("slow", "fast"), ("fast", "slow"))
    ]
    parts = [
        [
            (
                send_ms(board, w.image_bytes),
                busy_ms(board.device, [s.macs for s in students]),
                reply_ms(board, sum(s.features for s in students)),
            )
            for board, students in w.sends()
        ]
        for w in workloads
    ]
    send, busy, reply = np.moveaxis(np.array(parts), -1, 0)
    found = fan_out_ms(send, busy, reply, join_ms(workloads[0].host))
    assert found.tolist() == [closed_form.fan_out_breakdown(w).total_ms for w in workloads]


def test_latency_is_paid_on_each_way(make_fan_out, slow, fast):
    far = replace(fast, link=fast.link.model_copy(update={"latency_ms": figure(30)}))
    total_ms = closed_form.fan_out_breakdown(make_fan_out(boards=(slow, far))).total_ms
    assert total_ms == pytest.approx(13.8 + 30 + 8.75 + 0.8 + 30 + 3)
    found = fan_out_ms([12, 1.8], [20, 8.75], [8, 0.8], 3, latency_ms=[0, 30])
    assert found == pytest.approx(total_ms)


def test_shapes_broadcast_and_boards_may_be_absent():
    busy = np.array([[5.0, -np.inf], [5.0, 7.0]])
    assert fan_out_ms([1, 2], busy, 0.5, [10, 20]).tolist() == [16.5, 30.5]
