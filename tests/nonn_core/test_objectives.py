import pytest
import torch
from torch.nn import functional as F

from nonn_core.learning.losses import activation_transfer, distillation
from nonn_core.learning.objectives import classification, nonn_distillation, single_distillation
from nonn_core.modules import build_classifier
from nonn_core.nonn import build_nonn
from nonn_core.recipe import DistillationRecipe

RECIPE = DistillationRecipe(alpha=0.7, temperature=3, beta=20)


@pytest.fixture
def batch(tiny):
    return tiny.normalised(tiny.train.pixels[::6]), tiny.train.labels[::6]


def test_a_teacher_minimises_cross_entropy(teacher, batch):
    network = build_classifier(teacher.card.spec, 3, 3, seed=1).eval()
    expected = F.cross_entropy(network(batch[0])[0], batch[1])
    assert classification(network)(*batch) == {"loss": expected}


def test_a_single_student_minimises_equation_1(teacher, batch):
    network = build_classifier(teacher.card.spec, 3, 3, seed=1).eval()
    losses = single_distillation(network, teacher, RECIPE)(*batch)
    taught = teacher.network(batch[0])[0]
    expected = distillation(network(batch[0])[0], taught, batch[1], 0.7, 3)
    assert losses.keys() == {"loss"}
    torch.testing.assert_close(losses["loss"], expected)


def test_a_nonn_minimises_equation_1_plus_beta_times_equation_6(teacher, two_shapes, batch):
    network = build_nonn(two_shapes, 3, 3, seed=1).eval()
    partitions = [(7, 0, 2), (1, 3, 4, 5, 6)]
    losses = nonn_distillation(network, partitions, teacher, RECIPE)(*batch)
    logits, maps = network(batch[0])
    taught, theirs = teacher.network(batch[0])
    kd = distillation(logits, taught, batch[1], 0.7, 3)
    # Channel by channel, in the order in which the partition names them.
    chosen = [torch.stack([theirs[:, i] for i in part], dim=1) for part in partitions]
    transfer = activation_transfer(maps, chosen)
    torch.testing.assert_close(losses["kd"], kd)
    torch.testing.assert_close(losses["transfer"], transfer)
    torch.testing.assert_close(losses["loss"], kd + 20 * transfer)


def test_every_weight_of_a_nonn_learns_and_none_of_the_teacher(teacher, two_shapes, batch):
    network = build_nonn(two_shapes, 3, 3, seed=1)
    partitions = [(7, 0, 2), (1, 3, 4, 5, 6)]
    nonn_distillation(network, partitions, teacher, RECIPE)(*batch)["loss"].backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert all(parameter.grad is None for parameter in teacher.network.parameters())
