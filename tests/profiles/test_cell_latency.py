"""NAS-Bench-201: operations that are computed, and costs that are found again."""

from itertools import product

import pytest

from nonn_common.errors import InputError
from profiles.cell_latency import computed_operations, fit_cells, is_degenerate, swapped
from profiles.measured_latency import measured_cells

ALL = ["".join(digits) for digits in product("01234", repeat=6)]


def ms(cell):
    first, second, third = computed_operations(cell)
    return 3 + 2.5 * first + 16 * second + 2 * third


@pytest.mark.parametrize(
    ("cell", "counts"),
    [
        ("000100", (0, 0, 0)),  # a skip from input to output
        ("333333", (0, 6, 0)),
        ("330100", (0, 0, 0)),  # nothing leads from the inner nodes to the output
        ("000130", (0, 1, 0)),  # node 1 has no input: a convolution of zeros
        ("203004", (1, 1, 1)),  # 0>1, 1>2, 2>3
        ("240020", (2, 0, 0)),  # 0>2 leads nowhere
    ],
)
def test_what_is_computed_leads_to_the_output(cell, counts):
    assert computed_operations(cell) == counts


def test_a_network_is_degenerate_where_no_path_leads_through_it():
    assert is_degenerate("000000")
    assert is_degenerate("000033")
    assert is_degenerate("330000")
    assert not is_degenerate("000100")


def test_swapping_nodes_keeps_the_work_and_is_its_own_inverse():
    twins = {cell: swapped(cell) for cell in ALL}
    assert {cell for cell, twin in twins.items() if twin is None} == {
        cell for cell in ALL if cell[2] != "0"
    }
    for cell, twin in twins.items():
        if twin is not None:
            assert twins[twin] == cell
            assert computed_operations(twin) == computed_operations(cell)


def test_costs_of_a_board_without_noise_are_found():
    model = fit_cells({cell: ms(cell) for cell in ALL[::97]})
    assert model.fixed_ms == pytest.approx(3)
    assert model.ms_per_operation == pytest.approx((2.5, 16, 2))
    assert model.predict(["333333", "000100"]) == pytest.approx([99, 3])


def test_a_slow_mode_of_a_twentieth_of_the_networks_moves_no_cost():
    slow = {cell: ms(cell) * (1.4 if n % 20 == 0 else 1) for n, cell in enumerate(ALL[::31])}
    model = fit_cells(slow)
    assert model.ms_per_operation == pytest.approx((2.5, 16, 2), rel=0.05)


def test_the_interval_holds_nine_tenths_of_what_it_was_fitted_to():
    cells = measured_cells()
    model = fit_cells(cells)
    low, high = model.interval
    sound = [cell for cell in cells if not is_degenerate(cell)]
    within = [
        low * middle <= cells[cell] <= high * middle
        for cell, middle in zip(sound, model.predict(sound), strict=True)
    ]
    assert sum(within) / len(within) == pytest.approx(0.9, abs=0.001)


@pytest.mark.parametrize("cell", ["12345", "123456", "abcdef", ""])
def test_other_names_are_refused(cell):
    with pytest.raises(InputError, match="not the operations of a cell"):
        computed_operations(cell)


def test_three_networks_are_too_few():
    with pytest.raises(InputError, match="too few networks"):
        fit_cells({"000100": 3.0, "000200": 5.5, "000300": 19.0, "000000": 0.1})
