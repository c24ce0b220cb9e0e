"""Rates of layers: the work of a layer in closed form, and rates of boards that are known."""

import subprocess
import sys

import numpy as np
import pytest

from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import teacher_table
from profiles.device import DEVICES, DeviceProfile, PredictedTime, compute_ms, model_ms
from profiles.layer import LayerRates
from profiles.layer_rates import WORKS, fit_rates, layer_work, network_work
from profiles.measured_latency import (
    BoardSetting,
    RuntimeLayer,
    measured_networks,
    student_network,
)

CIFAR = ImageShape(3, 32, 32)
PRIOR = np.log([work.ms for work in WORKS.values()])


def convolution(inside, outside, kernel, stride=1, groups=1, int8=False):
    weights = kernel * kernel * inside[2] * outside[2] // groups
    kind = "ConvolutionDepthWise" if groups > 1 else "Convolution"
    shape = (kernel, kernel)
    return RuntimeLayer(kind, 1, inside, outside, shape, stride, groups, int8, 0, weights)


def plain(kind, inside, outside, kernel=0, stride=0):
    return RuntimeLayer(kind, 1, inside, outside, (kernel, kernel), stride, 0, False, 0, 0)


def work(layer):
    found = {}
    for name, amount in layer_work(layer):
        found[name] = found.get(name, 0) + amount
    return found


def test_winograd_counts_whole_tiles_and_transformed_weights():
    # 14 pixels need 3 tiles of 6 a side: 9 tiles of 8 x 8.
    assert work(convolution((14, 14, 64), (14, 14, 32), 3)) == {
        "convolutions": 1,
        "winograd": 9 * 64 * 64 * 32,
        "tile values": 9 * 64 * (64 + 32),
        "winograd weights": 64 * 64 * 32,
    }


def test_winograd_takes_the_smaller_tile_where_it_pads_less():
    # 7 pixels: 4 tiles of 6 a side make 256 products, 4 tiles of 4 a side 144.
    assert work(convolution((7, 7, 64), (7, 7, 64), 3))["winograd"] == 144 * 64 * 64


def test_a_pointwise_convolution_reads_writes_and_multiplies():
    assert work(convolution((8, 8, 16), (8, 8, 32), 1)) == {
        "convolutions": 1,
        "pointwise": 8 * 8 * 16 * 32,
        "pointwise values": 8 * 8 * (16 + 32),
        "pointwise weights": 16 * 32,
    }


def test_int8_work_is_of_its_own_kind():
    found = work(convolution((8, 8, 16), (8, 8, 32), 1, int8=True))
    assert found["int8 pointwise"] == 8 * 8 * 16 * 32
    assert "pointwise" not in found


def test_a_depthwise_convolution_with_stride():
    found = work(convolution((8, 8, 32), (4, 4, 32), 3, stride=2, groups=32))
    assert found == {
        "convolutions": 1,
        "depthwise strided": 4 * 4 * 9 * 32,
        "depthwise values": 8 * 8 * 32 + 4 * 4 * 32,
    }


def test_a_grouped_convolution_is_as_its_groups():
    found = work(convolution((8, 8, 32), (8, 8, 32), 1, groups=2))
    assert (found["pointwise"], found["groups"]) == (8 * 8 * 32 * 16, 2)


def test_channels_beside_the_lanes_are_odd():
    assert work(convolution((8, 8, 16), (8, 8, 30), 1))["odd channels"] == 8 * 8 * 16 * 30
    assert "odd channels" not in work(convolution((8, 8, 3), (8, 8, 32), 1))


def test_an_inner_product_needs_no_weights_in_the_table():
    found = work(plain("InnerProduct", (6, 6, 256), (4096, 1, 1)))
    assert found["fc weights"] == 6 * 6 * 256 * 4096


def test_free_layers_do_no_work():
    assert work(plain("Split", (8, 8, 8), (8, 8, 8))) == {}


def test_alexnet_reads_as_many_weights_as_its_fully_connected_layers_have():
    row = network_work([measured_networks()["alexnet"]])[0]
    expected = (9216 * 4096 + 4096 * 4096 + 4096 * 1000) / 1e6
    assert row[list(WORKS).index("fc weights")] == pytest.approx(expected)


def test_equal_layers_are_counted_each_time():
    network = measured_networks()["resnet18"]
    once, twice = network_work([network, (*network, *network)])
    assert twice == pytest.approx(2 * once)


def test_a_student_has_the_macs_of_its_layers():
    table = teacher_table(parse_network("wrn16-2"), CIFAR, 10)
    layers = student_network(table)
    macs = sum(
        one.out_shape[0] * one.out_shape[1] * one.weights
        for one in layers
        if one.kind.startswith("Convolution")
    )
    assert macs == sum(one.macs for one in table if one.kind == "conv")
    assert all(one.int8 for one in student_network(table, int8=True))


SETTINGS = [
    BoardSetting("one (Cortex-A53)", 1, 0),
    BoardSetting("two (Cortex-A53)", 1, 0),
    BoardSetting("three (Cortex-A53)", 1, 0),
    BoardSetting("four (Cortex-A72)", 1, 0),
]
NAMES = [name for name in sorted(measured_networks()) if not name.endswith("_int8")]
ALL_WORK = network_work([measured_networks()[name] for name in NAMES])


def made(log_rates, pairs):
    """Rows of networks on settings whose rates are known, without noise."""
    at, of = (np.array(column) for column in zip(*pairs, strict=True))
    return at, ALL_WORK[of], (ALL_WORK[of] * np.exp(log_rates)[at]).sum(axis=1)


def test_rates_of_boards_that_are_multiples_of_the_prior_are_found():
    truth = PRIOR + np.log([1.0, 2.0, 5.0, 0.25])[:, None]
    held = NAMES.index("resnet18")
    pairs = [(s, n) for s in range(4) for n in range(len(NAMES)) if n != held]
    found = fit_rates(SETTINGS, *made(truth, pairs))
    expected = ALL_WORK[held] @ np.exp(truth).T
    assert ALL_WORK[held] @ np.exp(found).T == pytest.approx(expected, rel=0.01)


def test_a_board_with_three_rows_borrows_the_rates_of_its_core():
    # Winograd costs all A53s three times what the prior says; the three known rows have none.
    settings = [BoardSetting(f"{number} (Cortex-A53)", 1, 0) for number in range(6)]
    truth = PRIOR + np.log([3.0 if "winograd" in name else 1.0 for name in WORKS])
    three = [(5, NAMES.index(name)) for name in ("mobilenet", "mnasnet", "mobilenet_v2")]
    others = [(s, n) for s in range(5) for n in range(len(NAMES))]
    log_rates = np.tile(truth, (6, 1))
    borrowed = fit_rates(settings, *made(log_rates, others + three))
    alone = fit_rates(settings, *made(log_rates, three))
    vgg16 = ALL_WORK[NAMES.index("vgg16")]
    expected = vgg16 @ np.exp(truth)
    assert vgg16 @ np.exp(alone[5]) < 0.5 * expected
    assert 0.8 * expected < vgg16 @ np.exp(borrowed[5]) < 1.05 * expected


def test_a_setting_without_rows_has_the_level_of_its_board_with_more_threads():
    more = BoardSetting("one (Cortex-A53)", 2, 0)
    pairs = [(0, n) for n in range(len(NAMES))]
    found = fit_rates([SETTINGS[0], more], *made(np.vstack([PRIOR, PRIOR]), pairs))
    vgg16 = ALL_WORK[NAMES.index("vgg16")]
    gain = vgg16 @ np.exp(found[0]) / (vgg16 @ np.exp(found[1]))
    assert gain == pytest.approx(2**0.8, rel=0.05)


def test_the_fit_is_the_same_each_time():
    pairs = [(s, n) for s in range(4) for n in range(len(NAMES))]
    rows = made(PRIOR + np.zeros((4, 1)), pairs)
    assert np.array_equal(fit_rates(SETTINGS, *rows), fit_rates(SETTINGS, *rows))


RATES = LayerRates(
    ms_per_unit={name: 0.1 + place / 100 for place, name in enumerate(WORKS)},
    low=0.75,
    high=1.25,
    rows=12,
    threads=4,
    source="made up",
)


def rated(precision="fp32", **figures):
    content = DEVICES.get("rpi-3b").model_dump() | {"layers": None, "precision": precision}
    return DeviceProfile.model_validate(content | {"layer_rates": RATES.model_dump()} | figures)


@pytest.mark.parametrize(("precision", "int8"), [("fp32", False), ("int8", True)])
def test_a_device_with_rates_takes_them_times_the_work_of_the_runtimes_layers(precision, int8):
    table = teacher_table(parse_network("wrn16-2"), CIFAR, 10)
    work = network_work([student_network(table, int8)])[0]
    expected = float(work @ np.array(list(RATES.ms_per_unit.values())))
    found = model_ms(rated(precision), table)
    assert found.how == "per-layer"
    assert found.ms == pytest.approx(expected, rel=1e-12)
    assert (found.low_ms, found.high_ms) == pytest.approx((0.75 * expected, 1.25 * expected))


def test_measured_layers_come_before_rates_and_macs_after_them():
    table = teacher_table(parse_network("wrn16-2"), CIFAR, 10)
    kinds = [
        {"kind": kind, "kernels": ["pointwise", "spatial"], "layers": 5, "terms": {"fixed_ms": ms}}
        for kind, ms in (("conv", QUANTITY), ("norm", QUANTITY), ("pool", QUANTITY))
    ]
    measured = {"kinds": kinds, "layers": 5, "residual_pct": 1, "held_out_pct": 1, "source": "x"}
    unknown_fc = rated(layers=measured)
    assert model_ms(unknown_fc, table) == model_ms(rated(), table)
    known = rated(layers=measured | {"kinds": [*kinds, kinds[0] | {"kind": "fc"}]})
    assert model_ms(known, table) == PredictedTime(2.0 * len(table), "per-layer")
    poor = {"layer_rates": RATES.model_dump() | {"ms_per_unit": {"stem": 1.0}}}
    macs = sum(layer.macs for layer in table)
    affine = PredictedTime(compute_ms(rated(), macs), "flop-affine")
    assert model_ms(rated(**poor), table) == affine


QUANTITY = {"value": 2.0, "provenance": "measured", "source": "made up"}


def test_rates_survive_their_file_and_equal_profiles_hash_alike(tmp_path):
    device = rated()
    device.write(tmp_path / "rated.yaml")
    assert DeviceProfile.read(tmp_path / "rated.yaml") == device
    assert len({device, rated(), rated("int8")}) == 2


def test_a_device_predicts_without_loading_what_fits_rates():
    program = (
        "import sys; from profiles.device import DEVICES; DEVICES.get('rpi-3b');"
        "loaded = {'numpy', 'scipy', 'profiles.layer_rates'} & set(sys.modules); print(loaded);"
        "import profiles.layer_rates;"
        "print({'scipy', 'scipy.optimize', 'scipy.sparse'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["set()", "set()"], done.stderr
