import pytest

from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network, single_network, student_candidates
from nonn_core.networks.network_cost import teacher_cost
from nonn_core.networks.resnet import WrnSpec

CIFAR = ImageShape(3, 32, 32)


@pytest.mark.parametrize(
    ("teacher", "depth"), [("wrn40-4", 16), ("wrn22-4", 16), ("wrn16-2", 10), ("wrn10-1", 10)]
)
def test_candidates_are_shallower_and_at_most_half_as_wide(teacher, depth):
    teacher = parse_network(teacher)
    found = student_candidates(teacher)
    assert {spec.depth for spec in found} == {depth}
    assert len(set(found)) == len(found)
    for spec in found:
        halves = zip(spec.widths, teacher.widths, strict=True)
        assert all(8 * mine in (w, 2 * w, 3 * w, 4 * w) for mine, w in halves)


def test_candidates_of_the_published_teacher():
    found = student_candidates(parse_network("wrn40-4"))
    # 2 first widths, 3 second ones and 4 third ones, in every combination.
    assert len(found) == 2 * 3 * 4
    assert {spec.widths[0] for spec in found} == {16, 32}
    assert {spec.widths[1] for spec in found} == {32, 48, 64}
    assert {spec.widths[2] for spec in found} == {32, 64, 96, 128}


def test_a_very_thin_teacher_still_has_candidates():
    found = student_candidates(WrnSpec(10, (1, 1, 1)))
    assert found == (WrnSpec(10, (1, 1, 1)),)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_the_size_of_a_published_network_gives_that_network(factor):
    spec = parse_network(f"wrn16-{factor}")
    like = parse_network("wrn16:1,2,3")
    assert single_network(teacher_cost(spec, CIFAR, 10).params, like, CIFAR, 10) == spec


@pytest.mark.parametrize("params", [20_000, 123_456, 820_000])
def test_no_neighbour_is_nearer_to_the_size(params):
    found = single_network(params, parse_network("wrn16-4"), CIFAR, 10)
    step = found.widths[0]
    assert found.widths == (step, 2 * step, 4 * step)

    def missed(k):
        return abs(teacher_cost(WrnSpec(16, (k, 2 * k, 4 * k)), CIFAR, 10).params - params)

    assert missed(step) <= min(missed(step - 1), missed(step + 1))
