import math

import pytest
import torch
from torch.nn import functional as F

from nonn_core.distillation.losses import activation_transfer, attention_transfer, distillation
from nonn_core.distillation.splitnet import group_balance, group_overlap, group_weight
from nonn_core.networks.modules import attention_map


def softmax(logits, temperature=1.0):
    powers = [math.exp(x / temperature) for x in logits]
    return [p / sum(powers) for p in powers]


def cross_entropy(target, probabilities):
    return -sum(t * math.log(p) for t, p in zip(target, probabilities, strict=True))


STUDENT = [[1.0, 2.0, -0.5], [0.3, 0.0, 4.0]]
TEACHER = [[3.0, -1.0, 0.0], [0.5, 0.25, 2.0]]
LABELS = [0, 2]


def test_equation_1_by_hand():
    alpha, tau = 0.9, 4.0
    expected = 0.0
    for student, teacher, label in zip(STUDENT, TEACHER, LABELS, strict=True):
        hard = -math.log(softmax(student)[label])
        soft = cross_entropy(softmax(teacher, tau), softmax(student, tau))
        expected += ((1 - alpha) * hard + alpha * soft) / 2
    found = distillation(
        torch.tensor(STUDENT), torch.tensor(TEACHER), torch.tensor(LABELS), alpha, tau
    )
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_without_soft_labels_it_is_cross_entropy():
    hard = sum(-math.log(softmax(s)[y]) for s, y in zip(STUDENT, LABELS, strict=True)) / 2
    found = distillation(torch.tensor(STUDENT), torch.tensor(TEACHER), torch.tensor(LABELS), 0, 4)
    assert found.item() == pytest.approx(hard, rel=1e-6)


def test_soft_labels_alone_are_met_best_by_the_teacher_s_own_logits():
    teacher, labels = torch.tensor(TEACHER, dtype=torch.float64), torch.tensor(LABELS)
    best = teacher.clone().requires_grad_()
    distillation(best, teacher, labels, 1.0, 4.0).backward()
    torch.testing.assert_close(best.grad, torch.zeros_like(best), rtol=0, atol=1e-12)


def test_equation_6_by_hand():
    # One image, two partitions: (3, 4) against (1, 0), and (1, 2, 2) against (2, 1, 2).
    student = [torch.tensor([[[[3.0, 4.0]]]]), torch.tensor([[[[1.0]], [[2.0]], [[2.0]]]])]
    teacher = [torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[2.0]], [[1.0]], [[2.0]]]])]
    first = (1 - 3 / 5) ** 2 + (0 - 4 / 5) ** 2
    second = ((2 - 1) / 3) ** 2 + ((1 - 2) / 3) ** 2 + 0
    assert activation_transfer(student, teacher).item() == pytest.approx(first + second, rel=1e-6)


def test_equation_6_is_averaged_over_images_and_each_is_scaled_alone():
    student = [torch.tensor([[3.0, 4.0], [0.0, 100.0]]).reshape(2, 2, 1, 1)]
    teacher = [torch.tensor([[1.0, 0.0], [5.0, 0.0]]).reshape(2, 2, 1, 1)]
    first = (1 - 3 / 5) ** 2 + (4 / 5) ** 2
    second = math.sqrt(2) ** 2
    found = activation_transfer(student, teacher)
    assert found.item() == pytest.approx((first + second) / 2, rel=1e-6)


def test_equal_directions_cost_nothing():
    maps = torch.rand(4, 3, 2, 2, dtype=torch.float64)
    assert activation_transfer([maps * 7], [maps]).item() == pytest.approx(0, abs=1e-15)


def test_maps_of_zero_are_safe():
    teacher = torch.rand(2, 3, 2, 2)
    student = torch.zeros(2, 3, 2, 2, requires_grad=True)
    loss = activation_transfer([student], [teacher])
    assert loss.item() == pytest.approx(1.0)
    loss.backward()
    assert torch.isfinite(student.grad).all()
    assert activation_transfer([torch.zeros(2, 3, 2, 2)], [torch.zeros(2, 3, 2, 2)]).item() == 0


def test_a_dead_student_gets_no_gradient_through_its_activation():
    # A huge finite gradient at zero maps must not leak through the rectifier.
    before = torch.full((2, 3, 2, 2), -1.0, requires_grad=True)
    activation_transfer([before.relu()], [torch.rand(2, 3, 2, 2)]).backward()
    assert not before.grad.any()


def test_as_many_students_as_partitions():
    maps = torch.rand(1, 2, 1, 1)
    with pytest.raises(ValueError, match=r"shorter|longer"):
        activation_transfer([maps], [maps, maps])


def test_gradients_are_those_of_the_formulas():
    generator = torch.Generator().manual_seed(0)

    def positive(*shape):
        return torch.rand(*shape, dtype=torch.float64, generator=generator) + 0.1

    one, other = positive(2, 3, 2, 2).requires_grad_(), positive(2, 2, 2, 2).requires_grad_()
    teacher = [positive(2, 3, 2, 2), positive(2, 2, 2, 2)]
    assert torch.autograd.gradcheck(lambda a, b: activation_transfer([a, b], teacher), (one, other))
    logits, taught = positive(3, 4).requires_grad_(), positive(3, 4)
    labels = torch.tensor([0, 3, 1])
    assert torch.autograd.gradcheck(lambda x: distillation(x, taught, labels, 0.9, 4.0), (logits,))


def test_equation_1_is_torch_s_divergence_plus_the_teacher_s_entropy():
    student, teacher = torch.tensor(STUDENT).double(), torch.tensor(TEACHER).double()
    taught = F.softmax(teacher / 3, dim=1)
    divergence = F.kl_div(F.log_softmax(student / 3, dim=1), taught, reduction="batchmean")
    entropy = torch.distributions.Categorical(probs=taught).entropy().mean()
    found = distillation(student, teacher, torch.tensor(LABELS), 1.0, 3.0)
    torch.testing.assert_close(found, divergence + entropy)


def test_unequal_sizes_are_averaged_to_the_smaller():
    # A teacher's 1x4 places against a student's 1x2: means (1, 0) against (3, 4).
    teacher = torch.tensor([[[[0.5, 1.5, 0.0, 0.0]]]])
    student = torch.tensor([[[[3.0, 4.0]]]])
    expected = (1 - 3 / 5) ** 2 + (0 - 4 / 5) ** 2
    assert activation_transfer([student], [teacher]).item() == pytest.approx(expected, rel=1e-6)
    assert activation_transfer([teacher], [student]).item() == pytest.approx(expected, rel=1e-6)
    # One may be the wider and the other the higher: 2x1 against 1x2 leaves one place.
    high, wide = torch.rand(1, 3, 2, 1), torch.rand(1, 3, 1, 2)
    means = F.cosine_similarity(high.mean((2, 3)), wide.mean((2, 3)))
    found = activation_transfer([high], [wide]).item()
    assert found == pytest.approx(2 - 2 * means.item(), rel=1e-4)


def test_attention_by_hand():
    # Two channels at two places: (1, 2) and (2, 0) give squares 1 + 4 and 4 + 0.
    maps = torch.tensor([[[[1.0, 2.0]], [[2.0, 0.0]]]])
    assert attention_map(maps).tolist() == [[[5.0, 4.0]]]
    # Against a teacher's attention of (3, 4) and of (0, 2): the mean of two squares each.
    length = math.sqrt(5**2 + 4**2)
    first = ((5 / length - 3 / 5) ** 2 + (4 / length - 4 / 5) ** 2) / 2
    second = ((5 / length - 0) ** 2 + (4 / length - 1) ** 2) / 2
    teacher = [torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[0.0, 2.0]]])]
    found = attention_transfer([maps, maps], teacher).item()
    assert found == pytest.approx(first + second, rel=1e-6)


def test_groups_are_paired_from_the_last_backwards():
    generator = torch.Generator().manual_seed(0)
    student = [torch.rand(2, 3, 4, 4, generator=generator) for _ in range(2)]
    teacher = [torch.rand(2, 4, 4, generator=generator) for _ in range(4)]
    expected = attention_transfer(student, teacher[-2:])
    assert torch.equal(attention_transfer(student, teacher), expected)
    assert torch.equal(
        attention_transfer([*student, student[0]], teacher[-1:]),
        attention_transfer(student[:1], teacher[-1:]),
    )


def test_attention_of_unequal_sizes_is_averaged_to_the_smaller():
    student = torch.tensor([[[[1.0, 0.0], [1.0, 2.0]]]])
    # Averages of its squares over the columns of the teacher's 1x2: (1, 2).
    found = attention_transfer([student], [torch.tensor([[[1.0, 2.0]]])])
    assert found.item() == pytest.approx(0, abs=1e-12)


# SplitNet's worked example: three inputs and two classes in two groups.
WEIGHT = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=torch.float64)
INPUTS = torch.tensor([[0.8, 0.5, 0.1], [0.2, 0.5, 0.9]], dtype=torch.float64)
OUTPUTS = torch.tensor([[0.7, 0.4], [0.3, 0.6]], dtype=torch.float64)


def test_splitnet_s_group_weights_by_hand():
    # Group 1: rows (1 - p_1) || (0.7 w_1i, 0.4 w_2i) ||, columns (1 - q_1) || p_1 w_j ||.
    first_rows = (
        0.2 * math.hypot(0.7 * 1, 0.4 * 4)
        + 0.5 * math.hypot(0.7 * 2, 0.4 * 5)
        + 0.9 * math.hypot(0.7 * 3, 0.4 * 6)
    )
    first_columns = 0.3 * math.hypot(0.8 * 1, 0.5 * 2, 0.1 * 3) + 0.6 * math.hypot(
        0.8 * 4, 0.5 * 5, 0.1 * 6
    )
    second_rows = (
        0.8 * math.hypot(0.3 * 1, 0.6 * 4)
        + 0.5 * math.hypot(0.3 * 2, 0.6 * 5)
        + 0.1 * math.hypot(0.3 * 3, 0.6 * 6)
    )
    second_columns = 0.7 * math.hypot(0.2 * 1, 0.5 * 2, 0.9 * 3) + 0.4 * math.hypot(
        0.2 * 4, 0.5 * 5, 0.9 * 6
    )
    expected = first_rows + first_columns + second_rows + second_columns
    assert group_weight(WEIGHT, INPUTS, OUTPUTS).item() == pytest.approx(expected, rel=1e-12)


def test_splitnet_s_overlap_and_balance_by_hand():
    assert group_overlap(INPUTS).item() == pytest.approx(0.8 * 0.2 + 0.5 * 0.5 + 0.1 * 0.9)
    assert group_balance(INPUTS).item() == pytest.approx(1.4**2 + 1.6**2)
    three = torch.tensor([[0.5, 0.0], [0.3, 0.2], [0.2, 0.8]])
    pairs = (0.5 * 0.3) + (0.5 * 0.2) + (0.3 * 0.2 + 0.2 * 0.8)
    assert group_overlap(three).item() == pytest.approx(pairs)
    assert group_balance(three).item() == pytest.approx(0.5**2 + 0.5**2 + 1.0**2)


def test_a_convolution_counts_as_the_squares_of_its_kernels():
    generator = torch.Generator().manual_seed(0)
    kernels = torch.randn(2, 3, 3, 3, dtype=torch.float64, generator=generator)
    lengths = torch.linalg.vector_norm(kernels.flatten(2), dim=2)
    found = group_weight(kernels, INPUTS, OUTPUTS)
    torch.testing.assert_close(found, group_weight(lengths, INPUTS, OUTPUTS))


def test_weights_inside_their_groups_cost_nothing_and_others_do():
    inputs = torch.tensor([[1.0, 1, 0], [0, 0, 1]], requires_grad=True)
    outputs = torch.tensor([[1.0, 0], [0, 1]])
    inside = torch.tensor([[3.0, 4, 0], [0, 0, 5]], requires_grad=True)
    loss = group_weight(inside, inputs, outputs)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    loss.backward()
    assert torch.isfinite(inside.grad).all()
    assert torch.isfinite(inputs.grad).all()
    across = torch.tensor([[0.0, 0, 2], [0, 0, 5]])
    # The one crossing weight is seen from its input and from its output.
    assert group_weight(across, inputs, outputs).item() == pytest.approx(2 + 2)


def test_gradients_of_attention_and_groups_are_those_of_the_formulas():
    generator = torch.Generator().manual_seed(0)

    def positive(*shape):
        return torch.rand(*shape, dtype=torch.float64, generator=generator) + 0.1

    teacher = [positive(2, 2, 4), positive(2, 2, 2)]
    maps = positive(2, 3, 2, 2).requires_grad_(), positive(2, 2, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: attention_transfer([a, b], teacher), maps)
    larger = [positive(2, 3, 3, 5)]
    assert torch.autograd.gradcheck(lambda a: activation_transfer([a], larger), maps[:1])
    groups = positive(3, 2, 3, 3), positive(2, 2), positive(2, 3)
    for each in groups:
        each.requires_grad_()
    assert torch.autograd.gradcheck(group_weight, groups)
    assert torch.autograd.gradcheck(group_overlap, groups[1:2])
    assert torch.autograd.gradcheck(group_balance, groups[1:2])
