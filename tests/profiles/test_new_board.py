"""A new board from a few networks: rates of its own, found again from three students."""

import numpy as np
import pytest

from nonn_common.errors import InputError, ProfileError
from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import student_table
from profiles.device import DEVICES, model_ms
from profiles.layer_rates import WORKS, network_work
from profiles.measured_latency import (
    BoardSetting,
    LatencyRow,
    measured_networks,
    student_network,
)
from profiles.new_board import calibrated_board, new_board_rates

CIFAR = ImageShape(3, 32, 32)
SHOWN = ("wrn16-1", "wrn40-2", "vgg11")
HELD_OUT = ("wrn10-1", "wrn16-2", "wrn28-2", "resnet18-cifar", "vgg13", "vgg16")
SETTING = BoardSetting("A board of one's own", 1, 0)


def table(name):
    return student_table(parse_network(name), CIFAR, 32)


def layers(name, int8=False):
    return student_network(table(name), int8)


def made_rates(seed):
    """Rates like those of a public board, but each kind of work up to a third off, and slower."""
    like = DEVICES.get("rpi-4b-1t").layer_rates.ms_per_unit
    drawn = np.random.default_rng(seed).normal(0.7, 0.2, len(WORKS))
    return np.array(
        [like.get(kind, 0.0) * np.exp(off) for kind, off in zip(WORKS, drawn, strict=True)]
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_board_with_rates_of_its_own_is_found_again_from_three_students(seed):
    rates = made_rates(seed)
    truth = {name: float(network_work([layers(name)])[0] @ rates) for name in (*SHOWN, *HELD_OUT)}
    found = new_board_rates(SETTING, [(layers(name), truth[name]) for name in SHOWN], False, "test")
    device = DEVICES.get("rpi-4b").model_copy(update={"layer_rates": found})
    for name in HELD_OUT:
        predicted = model_ms(device, table(name))
        assert predicted.how == "per-layer"
        assert predicted.low_ms <= truth[name] <= predicted.high_ms
    assert found.rows == len(SHOWN) and "3341 public rows" in found.source


def test_three_students_tell_more_than_flops_do():
    rates, errors = made_rates(9), {"rates": [], "affine": []}
    truth = {name: float(network_work([layers(name)])[0] @ rates) for name in (*SHOWN, *HELD_OUT)}
    rows = [LatencyRow(SETTING, name, truth[name]) for name in SHOWN]
    networks = {name: layers(name) for name in SHOWN}
    device = calibrated_board(rows, networks, DEVICES.get("rpi-4b"), "own", "own.csv")
    plain = device.model_copy(update={"layer_rates": None})
    for name in HELD_OUT:
        errors["rates"].append(abs(model_ms(device, table(name)).ms / truth[name] - 1))
        errors["affine"].append(abs(model_ms(plain, table(name)).ms / truth[name] - 1))
    assert max(errors["rates"]) < max(errors["affine"])


def test_what_the_rows_do_not_tell_is_that_of_the_other_device_and_assumed():
    like, networks = DEVICES.get("rpi-4b"), measured_networks()
    rows = [LatencyRow(SETTING, name, ms) for name, ms in (("resnet18", 90.0), ("vgg16", 800.0))]
    device = calibrated_board(rows, networks, like, "own", "own.csv")
    assert (device.name, device.title, device.cores) == ("own", SETTING.board, 1)
    assert (device.ram_bytes, device.clock_hz) == (like.ram_bytes, like.clock_hz)
    assert (device.power_busy_w.value, device.power_busy_w.provenance) == (7.2, "assumed")
    assert device.compute_ms_per_mmac.provenance == "fitted"
    assert device.missing_as_board == ()


def test_rows_of_two_settings_are_no_device():
    rows = [LatencyRow(SETTING._replace(threads=n), "resnet18", 90.0) for n in (1, 2)]
    with pytest.raises(ProfileError, match=r"own.csv: .*on 1 in fp32, .*on 2 in fp32"):
        calibrated_board(rows, measured_networks(), DEVICES.get("rpi-4b"), "own", "own.csv")


def test_a_network_without_layers_is_refused():
    rows = [LatencyRow(SETTING, "a secret", 90.0)]
    with pytest.raises(InputError, match="a secret"):
        calibrated_board(rows, measured_networks(), DEVICES.get("rpi-4b"), "own", "own.csv")
