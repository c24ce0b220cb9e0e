from itertools import combinations

import pytest
import torch

from nonn_core.networks.family import parse_network
from nonn_core.networks.modules import StudentShape, build_nonn


@pytest.fixture
def network(two_shapes):
    """An evaluated network whose normalisations have seen something."""
    network = build_nonn(two_shapes, 3, 4, seed=0)
    network(torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(1)))
    return network.eval()


@pytest.fixture
def images():
    return torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(2))


def addresses(module):
    tensors = [*module.parameters(), *module.buffers()]
    return {tensor.data_ptr() for tensor in tensors}


def test_students_share_g0_and_nothing_else():
    shapes = [StudentShape(parse_network("wrn10:4,5,6"), 3)] * 3
    network = build_nonn(shapes, 3, 4, seed=0)
    for one, other in combinations([addresses(s) for s in network.deployed()], 2):
        assert one & other == addresses(network.group0[0])


def test_the_union_of_the_students_and_the_classifier_is_the_network(network):
    parts = [addresses(student) for student in network.deployed()]
    assert set().union(*parts, addresses(network.fc)) == addresses(network)


def test_students_of_equal_shape_start_differently():
    network = build_nonn([StudentShape(parse_network("wrn10:4,5,6"), 3)] * 2, 3, 4, seed=0)
    assert not torch.equal(network.heads[0].fconv[0].weight, network.heads[1].fconv[0].weight)


def test_maps_have_the_filters_of_each_student_and_are_not_negative(network, images):
    logits, maps = network(images)
    assert logits.shape == (6, 4)
    assert [m.shape for m in maps] == [(6, 3, 2, 2), (6, 5, 2, 2)]
    assert all((m >= 0).all() for m in maps)


def test_what_the_boards_answer_is_all_that_the_host_needs(network, images):
    logits, _ = network(images)
    vectors = [student(images) for student in network.deployed()]
    assert [v.shape for v in vectors] == [(6, 3), (6, 5)]
    by_host = torch.cat(vectors, dim=1) @ network.fc.weight.T + network.fc.bias
    torch.testing.assert_close(logits, by_host, rtol=0, atol=1e-5)
    torch.testing.assert_close(logits, network.classify(vectors), rtol=0, atol=1e-5)


@pytest.mark.parametrize("answering", [(0,), (1,), (), (0, 1), {1}])
def test_who_does_not_answer_counts_as_zero(network, images, answering):
    vectors = [student(images) for student in network.deployed()]
    zeroed = [v if k in answering else v * 0 for k, v in enumerate(vectors)]
    expected = torch.cat(zeroed, dim=1) @ network.fc.weight.T + network.fc.bias
    torch.testing.assert_close(network.classify(vectors, answering), expected)


def test_a_lost_student_does_not_change_another_one(network, images):
    # Students never talk: the second student's vector depends on nothing of the first's head.
    before = [student(images) for student in network.deployed()]
    with torch.no_grad():
        for parameter in network.heads[0].parameters():
            parameter.add_(1)
    after = [student(images) for student in network.deployed()]
    assert torch.equal(before[1], after[1])
    assert not torch.equal(before[0], after[0])


def test_the_seed_decides_the_weights_and_nothing_else_is_touched(two_shapes):
    before = torch.get_rng_state()
    one, same = (build_nonn(two_shapes, 3, 4, seed=1) for _ in range(2))
    other = build_nonn(two_shapes, 3, 4, seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    for name, value in one.state_dict().items():
        assert torch.equal(value, same.state_dict()[name])
    assert not torch.equal(one.fc.weight, other.fc.weight)
