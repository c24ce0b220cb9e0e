"""Predicted latencies: boards whose truth is known, and real rows that were left out."""

import numpy as np
import pytest

from nonn_common.errors import InputError
from profiles.latency_predictor import LatencyPredictor
from profiles.layer_rates import WORKS, network_work
from profiles.measured_latency import (
    BoardSetting,
    LatencyRow,
    measured_networks,
    measured_rows,
)

NETWORKS = {
    name: layers for name, layers in measured_networks().items() if not name.endswith("_int8")
}
PRIOR = np.array([work.ms for work in WORKS.values()])
SETTINGS = [BoardSetting(f"board {number} (Cortex-A53)", 1, 0) for number in range(6)]
EXACT = {name: float(network_work([layers])[0] @ PRIOR) for name, layers in NETWORKS.items()}


def truth(setting, name):
    """Each board has a speed of its own; one network is slower everywhere than its layers say."""
    speed = 1 + SETTINGS.index(setting)
    return EXACT[name] * speed * (1.3 if name == "mnasnet" else 1)


def rows(left_out=()):
    return [
        LatencyRow(setting, name, truth(setting, name))
        for setting in SETTINGS
        for name in NETWORKS
        if (setting, name) not in left_out
    ]


@pytest.fixture(scope="module")
def real():
    """One thread alone, a fifth of the rows left out."""
    chosen = [row for row in measured_rows() if row.setting.threads == 1]
    fold = np.random.default_rng(0).integers(0, 5, len(chosen))
    kept = [row for row, number in zip(chosen, fold, strict=True) if number]
    held = [row for row, number in zip(chosen, fold, strict=True) if not number]
    settings = sorted({row.setting for row in held})
    predictor = LatencyPredictor.fit(kept, measured_networks(), settings)
    found = dict(zip(settings, predictor.predict(settings, measured_networks()), strict=True))
    return [(row, found[row.setting][row.network]) for row in held]


def test_a_network_slower_than_its_layers_is_so_on_another_board():
    left_out = [(SETTINGS[2], "mnasnet")]
    predictor = LatencyPredictor.fit(rows(left_out), NETWORKS)
    (found,) = predictor.predict([SETTINGS[2]], {"mnasnet": NETWORKS["mnasnet"]})
    assert found["mnasnet"].ms == pytest.approx(truth(SETTINGS[2], "mnasnet"), rel=0.05)
    assert found["mnasnet"].measured_elsewhere


def test_a_network_measured_nowhere_is_predicted_from_its_layers_with_a_wider_interval():
    left_out = [(setting, "resnet18") for setting in SETTINGS]
    predictor = LatencyPredictor.fit(rows(left_out), NETWORKS)
    asked = {name: NETWORKS[name] for name in ("resnet18", "resnet50")}
    (found,) = predictor.predict([SETTINGS[1]], asked)
    new, known = found["resnet18"], found["resnet50"]
    assert new.ms == pytest.approx(truth(SETTINGS[1], "resnet18"), rel=0.05)
    assert not new.measured_elsewhere
    assert new.high_ms / new.ms > known.high_ms / known.ms


def test_a_board_with_three_rows_has_its_speed_and_a_wider_interval():
    known = ("resnet18", "mobilenet", "squeezenet")
    left_out = [(SETTINGS[4], name) for name in NETWORKS if name not in known]
    predictor = LatencyPredictor.fit(rows(left_out), NETWORKS)
    new, old = predictor.predict([SETTINGS[4], SETTINGS[3]], {"vgg16": NETWORKS["vgg16"]})
    assert new["vgg16"].ms == pytest.approx(truth(SETTINGS[4], "vgg16"), rel=0.05)
    assert new["vgg16"].board_rows == 3
    assert new["vgg16"].high_ms / new["vgg16"].ms > old["vgg16"].high_ms / old["vgg16"].ms


def test_a_board_without_rows_is_a_guess_with_the_widest_interval():
    unknown = BoardSetting("another (Cortex-A53)", 1, 0)
    predictor = LatencyPredictor.fit(rows(), NETWORKS, [unknown])
    (found,) = predictor.predict([unknown], {"vgg16": NETWORKS["vgg16"]})
    assert found["vgg16"].board_rows == 0
    assert found["vgg16"].low_ms < EXACT["vgg16"] * 3.5 < found["vgg16"].high_ms
    assert found["vgg16"].high_ms / found["vgg16"].low_ms > 7


def test_intervals_cover_nine_tenths_of_real_rows_left_out(real):
    covered = [found.low_ms <= row.ms <= found.high_ms for row, found in real]
    assert len(covered) > 200
    assert 0.85 <= sum(covered) / len(covered) <= 0.95


def test_half_of_real_rows_left_out_are_within_a_fifteenth(real):
    errors = [abs(found.ms / row.ms - 1) for row, found in real]
    assert np.median(errors) < 1 / 15


def test_networks_without_layers_and_settings_without_a_fit_are_refused():
    with pytest.raises(InputError, match="layers of a network are not known"):
        LatencyPredictor.fit([LatencyRow(SETTINGS[0], "mine", 3.0)], NETWORKS)
    with pytest.raises(InputError, match="no measured row"):
        LatencyPredictor.fit([LatencyRow(SETTINGS[0], "vgg16", None)], NETWORKS)
    predictor = LatencyPredictor.fit(rows(), NETWORKS)
    with pytest.raises(InputError, match="was not fitted for this board"):
        predictor.predict([BoardSetting("another", 1, 0)], {"vgg16": NETWORKS["vgg16"]})
