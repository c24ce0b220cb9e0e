"""Layer models: exact and noisy synthetic truths, real layers of this machine, what is unknown."""

import time
from dataclasses import asdict, replace

import numpy as np
import pytest

from nonn_common.csv_table import CsvTable
from nonn_common.errors import InputError, ProfileError
from profiles.device import DEVICES, DeviceProfile, compute_ms, model_ms
from profiles.fitting import fit_layers, measured_layers
from profiles.layer import LayerWork, kernel_of, layer_features, layer_ms

TRUTH = {
    "conv": {
        "fixed_ms": 0.05,
        "ms_per_pointwise_mmac": 0.2,
        "ms_per_spatial_mmac": 0.1,
        "ms_per_depthwise_mmac": 0.6,
        "ms_per_activation_mb": 1.5,
        "ms_per_weight_mb": 4.0,
    },
    "norm": {"fixed_ms": 0.02, "ms_per_activation_mb": 2.0},
    "fc": {"fixed_ms": 0.01, "ms_per_pointwise_mmac": 0.5},
}


def conv(channels, filters, size, kernel=3, groups=1, stride=1):
    out = size // stride
    weights = filters * (channels // groups) * kernel * kernel
    return LayerWork(
        name=f"conv {channels} {filters} {size} {kernel} {groups}",
        kind="conv",
        macs=weights * out * out,
        weights=weights,
        in_channels=channels,
        in_height=size,
        in_width=size,
        out_channels=filters,
        out_height=out,
        out_width=out,
        kernel=kernel,
        stride=stride,
        groups=groups,
    )


def norm(channels, size):
    return LayerWork(
        f"norm {channels}", "norm", 0, 2 * channels, channels, size, size, channels, size, size
    )


def fc(features, classes):
    count = features * classes
    return LayerWork(f"fc {features}", "fc", count, count, features, 1, 1, classes, 1, 1)


CONVOLUTIONS = [
    conv(c, f, s, k, stride=t)
    for c, f, s, k, t in (
        (3, 16, 32, 3, 1),
        (16, 32, 32, 3, 1),
        (32, 32, 32, 1, 1),
        (32, 64, 16, 3, 2),
        (64, 64, 16, 3, 1),
        (64, 128, 8, 1, 1),
        (128, 128, 8, 3, 1),
        (96, 24, 28, 1, 1),
        (256, 256, 4, 1, 1),
        (16, 96, 32, 1, 2),
    )
]
DEPTHWISE = [
    conv(c, c, s, 3, groups=c, stride=t) for c, s, t in ((32, 32, 1), (96, 16, 2), (8, 64, 1))
]
NORMS = [norm(c, s) for c, s in ((16, 32), (32, 16), (64, 8), (200, 5))]
LAYERS = [*CONVOLUTIONS, *DEPTHWISE, *NORMS, *(fc(n, 10) for n in (64, 128, 640, 2048))]


def truth_ms(layer, precision="fp32"):
    features = layer_features(layer, precision)
    return sum(value * features[term] for term, value in TRUTH[layer.kind].items())


def on_board(model):
    return DEVICES.get("rpi-3b").model_copy(update={"layers": model})


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_exact_truth_is_found_again(precision):
    model = fit_layers([(layer, truth_ms(layer, precision)) for layer in LAYERS], precision)
    (found,) = (cost for cost in model.kinds if cost.kind == "conv")
    for term, value in TRUTH["conv"].items():
        assert found.terms[term].value == pytest.approx(value, rel=1e-3), term
    assert model.layers == len(LAYERS)
    assert model.residual_pct <= 0.01
    assert model.held_out_pct <= 1
    unseen = conv(48, 80, 20)
    assert layer_ms(model, unseen, precision) == pytest.approx(
        truth_ms(unseen, precision), rel=1e-3
    )


def test_noise_shows_in_the_residual_and_in_what_was_held_out():
    rng = np.random.default_rng(1)
    many = [replace(layer, name=f"{layer.name} {i}") for i in range(8) for layer in LAYERS]
    measured = [(layer, truth_ms(layer) * rng.uniform(0.95, 1.05)) for layer in many]
    model = fit_layers(measured)
    assert 2 < model.residual_pct < 15
    assert 1 < model.held_out_pct < 10
    for cost in model.kinds:
        assert all(figure.value >= 0 for figure in cost.terms.values())
    whole = sum(truth_ms(layer) for layer in LAYERS)
    timed = model_ms(on_board(model), tuple(LAYERS))
    assert timed.ms == pytest.approx(whole, rel=0.03)


def test_no_coefficient_is_negative_whatever_was_measured():
    rng = np.random.default_rng(2)
    model = fit_layers([(layer, float(rng.uniform(0.1, 10))) for layer in LAYERS])
    for cost in model.kinds:
        assert all(figure.value >= 0 for figure in cost.terms.values())


def test_layers_that_were_measured_are_added_up_and_the_result_says_so():
    model = fit_layers([(layer, truth_ms(layer)) for layer in LAYERS])
    table = (CONVOLUTIONS[0], NORMS[0], LAYERS[-1])
    timed = model_ms(on_board(model), table)
    assert timed.how == "per-layer"
    assert timed.ms == pytest.approx(sum(map(truth_ms, table)), rel=1e-3)


def test_without_measured_layers_macs_decide_and_the_result_says_so():
    device, table = DEVICES.get("rpi-3b"), tuple(CONVOLUTIONS)
    timed = model_ms(device, table)
    assert timed.how == "flop-affine"
    assert timed.ms == compute_ms(device, sum(layer.macs for layer in table))


def test_a_kind_or_kernel_that_was_not_measured_is_not_guessed():
    spatial = [layer for layer in CONVOLUTIONS if layer.kernel == 3]
    device = on_board(fit_layers([(layer, truth_ms(layer)) for layer in spatial]))
    assert model_ms(device, tuple(spatial)).how == "per-layer"
    for stranger in (CONVOLUTIONS[2], DEPTHWISE[0], NORMS[0]):
        assert model_ms(device, (*spatial, stranger)).how == "flop-affine"


def test_two_models_of_the_same_macs_differ_where_their_layers_do():
    device = on_board(fit_layers([(layer, truth_ms(layer)) for layer in LAYERS]))
    wide, deep = conv(64, 64, 16), conv(32, 32, 32)
    assert wide.macs == deep.macs
    assert model_ms(device, (wide,)).ms != pytest.approx(model_ms(device, (deep,)).ms, rel=0.01)


def test_one_layer_of_a_kind_tells_no_more_than_its_own_time():
    model = fit_layers([(NORMS[0], 0.3)])
    assert layer_ms(model, NORMS[0], "fp32") == pytest.approx(0.3)
    assert list(model.kinds[0].terms) == ["fixed_ms"]
    assert model.held_out_pct is None


def test_the_shape_of_a_kernel():
    assert kernel_of(DEPTHWISE[0]) == "depthwise"
    assert kernel_of(conv(8, 8, 4, 1)) == "pointwise"
    assert kernel_of(conv(8, 8, 4, 5)) == "spatial"
    assert kernel_of(conv(8, 8, 4, 3, groups=2)) == "spatial"
    assert kernel_of(fc(8, 2)) == "pointwise"


def test_a_profile_keeps_its_layer_model(tmp_path):
    device = on_board(fit_layers([(layer, truth_ms(layer)) for layer in LAYERS]))
    for suffix in ("yaml", "json"):
        device.write(tmp_path / f"d.{suffix}")
        assert DeviceProfile.read(tmp_path / f"d.{suffix}") == device


@pytest.mark.parametrize("measured", [[], [(NORMS[0], 0.0)], [(NORMS[0], float("nan"))]])
def test_layers_that_took_no_time_are_refused(measured):
    with pytest.raises(ProfileError):
        fit_layers(measured)


def written(path, measured):
    names = list(asdict(LAYERS[0]))
    lines = [",".join([*names, "ms"])]
    lines += [
        ",".join([*(str(asdict(layer)[name]) for name in names), str(ms)]) for layer, ms in measured
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_measured_layers_are_read_from_csv(tmp_path):
    measured = [(layer, truth_ms(layer)) for layer in LAYERS]
    table = CsvTable.read(written(tmp_path / "l.csv", measured))
    assert measured_layers(table) == tuple(measured)


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        (",conv,", ",dance,", "row 1 (MeasuredLayer): field layer.kind"),
        ("name,", "nickname,", "field layer.name"),
        (",ms", ",seconds", "field layer.seconds"),
    ],
)
def test_a_wrong_line_of_layers_is_one_sentence(tmp_path, old, new, part):
    path = written(tmp_path / "l.csv", [(CONVOLUTIONS[0], 1.0)])
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError) as caught:
        measured_layers(CsvTable.read(path))
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_or_unreadable_layers_are_bad_input(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        CsvTable.read(tmp_path / "nowhere.csv")
    (tmp_path / "l.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read"):
        CsvTable.read(tmp_path / "l.csv")


def test_real_layers_of_this_machine_are_fitted():
    """1 x 1 convolutions as matrix products; what they take is this machine's affair."""
    rng = np.random.default_rng(3)
    measured = []
    for channels, filters, size in ((16, 16, 32), (64, 32, 16), (64, 128, 32), (128, 128, 16)):
        weights = rng.normal(size=(filters, channels)).astype(np.float32)
        pixels = rng.normal(size=(channels, size * size)).astype(np.float32)
        spans = []
        for _ in range(7):
            start = time.perf_counter()
            np.maximum(weights @ pixels, 0)
            spans.append(time.perf_counter() - start)
        measured.append((conv(channels, filters, size, kernel=1), 1000 * min(spans)))
    model = fit_layers(measured, source="numpy on the machine of this test")
    assert model.kinds[0].kernels == ("pointwise",)
    timed = model_ms(on_board(model), tuple(layer for layer, _ in measured))
    assert timed.how == "per-layer"
    assert timed.ms > 0
