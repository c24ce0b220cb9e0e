import math

import pytest
import torch

from nonn_core.learning.losses import activation_transfer, distillation


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
