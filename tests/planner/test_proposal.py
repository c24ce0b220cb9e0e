"""Students for a teacher of no known family: as wide as the boards hold, and narrower."""

import pytest

from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import student_cost
from nonn_plan.api import propose_students
from planner.problem.budgets import BudgetLimits, board_budgets
from profiles.device import compute_mj, compute_ms
from profiles.fleet import parse_fleet, resolve

SMALL = ImageShape(3, 32, 32)
HUGE = 10**9
"""A teacher that no student comes near to."""


def proposed(fleet="rpi3x2", image=SMALL, params=HUGE, own=None, precision="fp32", **limits):
    boards = parse_fleet(fleet)
    budgets = board_budgets(boards, BudgetLimits(**limits), own)
    return propose_students(image, resolve(boards)[1], budgets, 64, precision, params)


def widest(names):
    return max(names, key=lambda name: parse_network(name).widths)


def test_the_published_budget_gives_the_published_family():
    """500 KB at int8 and 100 MMAC: widths 24, 48, 96 and what is narrower, 24 networks."""
    names = proposed(precision="int8", memory_bytes=500_000, macs=100_000_000)
    firsts, middles, lasts = (12, 24), (24, 36, 48), (24, 48, 72, 96)
    assert set(names) == {f"wrn16:{a},{b},{c}" for a in firsts for b in middles for c in lasts}


@pytest.mark.parametrize(
    ("limits", "used"),
    [
        ({"memory_bytes": 500_000}, lambda cost, _: cost.memory_bytes("fp32") / 500_000),
        ({"macs": 20_000_000}, lambda cost, _: cost.macs / 20_000_000),
        ({"busy_ms": 40.0}, lambda cost, device: compute_ms(device, cost.macs) / 40),
        ({"energy_mj": 60.0}, lambda cost, device: compute_mj(device, cost.macs) / 60),
    ],
)
def test_the_widest_keeps_the_budget_and_twice_its_widths_do_not(limits, used):
    """Each budget alone, by the cost of a student of half of the 64 filters."""
    device = resolve(parse_fleet("rpi3x2"))[1][0].device
    spec = parse_network(widest(proposed(**limits)))
    double = spec.proportional(2 * spec.widths[0])
    assert used(student_cost(spec, SMALL, 32), device) <= 1
    assert used(student_cost(double, SMALL, 32), device) > 1


def test_a_student_has_at_most_a_quarter_of_its_teacher():
    spec = parse_network(widest(proposed(params=1_000_000)))
    assert student_cost(spec, SMALL, 32).params <= 250_000
    wider = spec.proportional(2 * spec.widths[0])
    assert student_cost(wider, SMALL, 32).params > 250_000


def test_a_roomy_board_beside_a_tight_one_shares_the_first_group():
    """The widest of the roomy board also comes with each first group of the tight one."""
    own = {"rpi-3b-1": BudgetLimits(150_000)}
    tight = proposed("rpi-3b*2", memory_bytes=150_000)
    roomy = proposed("rpi-3b*2", memory_bytes=1_500_000)
    names = proposed("rpi-3b*2", memory_bytes=1_500_000, own=own)
    assert set(tight) | set(roomy) < set(names)
    wide = parse_network(widest(roomy)).widths[1:]
    groups = {parse_network(name).group0 for name in tight}
    same = {parse_network(n).group0 for n in names if parse_network(n).widths[1:] == wide}
    assert groups < same


def test_large_images_get_the_stem_for_large_images():
    names = proposed(image=ImageShape(3, 96, 96), memory_bytes=2_000_000)
    assert all(name.startswith("resnet18:") for name in names)


def test_where_nothing_fits_the_smallest_are_proposed():
    """The planner then proves that there is no plan of them."""
    assert widest(proposed(memory_bytes=1000)) == "wrn16:2,4,8"
