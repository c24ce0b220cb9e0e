"""Measured latencies: the shipped tables, tables of users, and shapes that are inferred."""

import pytest

from nonn_common.csv_table import CsvTable
from nonn_common.errors import InputError
from profiles.measured_latency import (
    BoardSetting,
    RuntimeLayer,
    latency_rows,
    measured_cells,
    measured_networks,
    measured_rows,
    placed_lines,
    runtime_networks,
    with_shapes,
)

PI_4 = "Raspberry Pi 4 Model B Broadcom BCM2711B0, Cortex-A72 (ARMv8) (1.8GHz x 4)"


def layer(kind, inputs=1, kernel=0, stride=0, groups=0, weights=0):
    return RuntimeLayer(
        kind, inputs, None, None, (kernel, kernel), stride, groups, False, 0, weights
    )


def table(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_text(text)
    return CsvTable.read(path)


def test_the_shipped_tables_are_whole():
    assert (len(measured_rows()), len(measured_networks()), len(measured_cells())) == (
        3341,
        35,
        12500,
    )


def test_a_shipped_row_is_the_fastest_loop_of_the_source():
    rows = {(row.setting, row.network): row.ms for row in measured_rows()}
    assert rows[BoardSetting(PI_4, 1, 0), "squeezenet"] == 73.35


def test_every_measured_network_has_layers_under_its_name():
    assert {row.network for row in measured_rows()} <= set(measured_networks())


@pytest.mark.parametrize(
    ("board", "powersave", "core"),
    [
        (PI_4, 0, "A72"),
        ("Rockchip RK3588 (Cortex-A76 2.4GHz x 4 + Cortex-A55 1.8GHz x 4)", 2, "A76"),
        ("Rockchip RK3588 (Cortex-A76 2.4GHz x 4 + Cortex-A55 1.8GHz x 4)", 1, "A55"),
        ("RDK X3 Module (Cortex-A53 1.5GHz x 4) aarch64", 0, "A53"),
        ("Loongson 3A4000 (GS464V 1.8GHz * 4 with MSA128)", 1, "Loongson"),
        ("Intel Atom x5-Z8350", 0, "x86"),
        ("a board nobody knows", 0, "other"),
    ],
)
def test_the_kind_of_core_is_read_from_the_description(board, powersave, core):
    assert BoardSetting(board, 1, powersave).core == core


def test_a_branch_that_strides_again_begins_at_the_split():
    layers = [
        layer("Input", 0),
        layer("Convolution", kernel=3, stride=2, weights=3 * 9 * 24),
        layer("Split"),
        layer("ConvolutionDepthWise", kernel=3, stride=2, groups=24, weights=24 * 9),
        layer("Convolution", kernel=1, stride=1, weights=24 * 24),
        layer("ConvolutionDepthWise", kernel=3, stride=2, groups=24, weights=24 * 9),
        layer("Concat", 2),
        layer("Slice"),
    ]
    found = with_shapes(layers, 32)
    assert [one.out_shape for one in found[1:]] == [
        (16, 16, 24),
        (16, 16, 24),
        (8, 8, 24),
        (8, 8, 24),
        (8, 8, 24),
        (8, 8, 48),
        (8, 8, 24),
    ]
    assert found[5].in_shape == (16, 16, 24)


def test_tokens_of_the_vision_transformer_are_those_of_its_patches():
    layers = measured_networks()["vision_transformer"]
    attention = next(one for one in layers if one.kind == "MultiHeadAttention")
    assert attention.in_shape == (768, 12 * 12 + 1, 1)
    first, second = [one for one in layers if one.kind == "Gemm"][:2]
    assert (first.out_shape, second.out_shape) == ((3072, 145, 1), (768, 145, 1))


def test_all_networks_have_shapes():
    for name, layers in measured_networks().items():
        assert all(one.out_shape for one in layers if one.kind in ("Convolution", "Pooling")), name


def test_a_user_table_may_lack_latencies_and_spell_names_as_the_source(tmp_path):
    lines = placed_lines(table(tmp_path, "board,threads,network\nx,4,mobilenet-ssd\n"), "board")
    assert latency_rows(lines) == ((BoardSetting("x", 4, 0), "mobilenet_ssd", None),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("board,threads\nx,4\n", "columns are missing"),
        ("board,threads,network\nx,four,a\n", "threads is no whole number"),
        ("board,threads,network\nx,0,a\n", "threads must be positive"),
        ("board,threads,network\nx,,a\n", "threads is missing"),
        ("board,threads,network,min_ms\nx,1,a,-3\n", "min_ms is no latency"),
        ("board,threads,network,min_ms\nx,1,a,nan\n", "min_ms is no latency"),
        ("board,threads,network,min_ms\nx,1,a,fast\n", "min_ms is no latency"),
    ],
)
def test_wrong_rows_are_refused(tmp_path, text, words):
    with pytest.raises(InputError, match=words):
        latency_rows(placed_lines(table(tmp_path, text), "board", "threads", "network"))


def test_layers_of_a_user_are_read(tmp_path):
    text = (
        "network,kind,inputs,in_w,in_h,in_c,out_w,out_h,out_c,kernel_w,kernel_h,stride_w,groups,"
        "int8,weights\nmine,Convolution,1,8,8,16,8,8,32,1,1,1,1,0,512\n"
    )
    networks = runtime_networks(placed_lines(table(tmp_path, text), "network"))
    (one,) = networks["mine"]
    assert (one.in_shape, one.out_shape, one.weights) == ((8, 8, 16), (8, 8, 32), 512)
