"""Layer cut: what is alive at the cut, and the best one."""

from dataclasses import replace

import pytest
from made_hardware import device, figure, link
from split_models import conv, fc

from nonn_common.errors import SimulationError
from profiles.fleet import Board, RelayBoard
from profiles.link import chained_link
from simulator.engine.simulation import simulate
from simulator.workloads import model_split
from simulator.workloads.model_split import best_cut, layer_cut_board_mj, layer_cut_latency_ms

# Image of 3 x 8 x 8 (768 bytes), then 2 x 8 x 8 (512), 4 x 4 x 4 (256) beside 32 held values, 10.
TABLE = (conv(3, 2, 8), replace(conv(2, 4, 8, stride=2), held_elements=32), fc(64, 10))


@pytest.fixture
def near():
    profile = device(
        "phone",
        compute_fixed_ms=5,
        compute_ms_per_mmac=1000,
        power_fixed_w=1,
        power_busy_w=2,
        radio_w=4,
    )
    return Board("phone", profile, link("air", 1_000_000))


@pytest.fixture
def desk(host):
    return device("desk", host.hosting, compute_fixed_ms=3, compute_ms_per_mmac=100)


def test_by_hand(near, desk):
    """Behind the second layer 64 + 32 values are alive: 384 bytes, 3.072 ms."""
    head_ms = 5 + (TABLE[0].macs + TABLE[1].macs) / 1000
    rest_ms = 3 + TABLE[2].macs / 10_000
    result = simulate(model_split.layer_cut_graph(TABLE, near, desk, 2))
    assert result.total_ms == pytest.approx(head_ms + 3.072 + 2.5 + rest_ms)
    assert layer_cut_board_mj(TABLE, near, desk, 2) == pytest.approx(
        5 + 2 * (head_ms - 5) + 4 * 3.072
    )


def test_before_the_first_layer_the_image_is_sent(near, desk):
    all_ms = 3 + sum(layer.macs for layer in TABLE) / 10_000
    assert layer_cut_latency_ms(TABLE, near, desk, 0) == pytest.approx(6.144 + 2.5 + all_ms)
    assert layer_cut_board_mj(TABLE, near, desk, 0) == pytest.approx(4 * 6.144)


def test_behind_the_last_layer_nothing_is_sent(near, desk):
    split = model_split.layer_cut_graph(TABLE, near, desk, 3)
    assert [step.activity for step in split.steps] == ["compute"]
    assert simulate(split).total_ms == pytest.approx(5 + sum(layer.macs for layer in TABLE) / 1000)


def test_the_latency_of_the_link_counts(near, desk):
    far = replace(near, link=near.link.model_copy(update={"latency_ms": figure(20)}))
    for cut, more_ms in ((0, 20), (2, 20), (3, 0)):
        assert layer_cut_latency_ms(TABLE, far, desk, cut) == pytest.approx(
            layer_cut_latency_ms(TABLE, near, desk, cut) + more_ms
        )


def test_latency_and_energy_may_want_different_cuts(near, desk):
    """Of a slow phone the host takes all for latency; a costly radio keeps all for energy."""
    changes = {"compute_ms_per_mmac": figure(10_000), "radio_w": figure(1000)}
    slow = replace(near, device=near.device.model_copy(update=changes))
    assert best_cut(TABLE, slow, desk) == 0
    assert best_cut(TABLE, slow, desk, "energy") == 3


def test_behind_another_board_the_radio_sends_on_its_own_hop_alone(near, desk):
    wired = link("wire", 2_000_000)
    relay = RelayBoard("hub", device("hub", message_ms=2), wired)
    row = chained_link(wired, relay.device, near.link)
    far = replace(near, link=row, via=(relay,))
    assert layer_cut_latency_ms(TABLE, far, desk, 2) == pytest.approx(
        layer_cut_latency_ms(TABLE, near, desk, 2) + 3.072 / 2 + 2
    )
    assert layer_cut_board_mj(TABLE, far, desk, 2) == pytest.approx(
        layer_cut_board_mj(TABLE, near, desk, 2)
    )
    (phone,) = [
        r
        for r in simulate(model_split.layer_cut_graph(TABLE, far, desk, 2)).boards
        if not r.passes_on
    ]
    assert phone.energy_mj + phone.radio_mj == pytest.approx(
        layer_cut_board_mj(TABLE, far, desk, 2)
    )


def test_a_cut_lies_in_the_model(near, desk):
    for cut in (-1, 4):
        with pytest.raises(SimulationError, match=f"0 to 3 layers; found {cut}"):
            model_split.layer_cut_graph(TABLE, near, desk, cut)
