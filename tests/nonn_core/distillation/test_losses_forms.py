"""Forms of the losses: numbers by hand, gradients, what they are to each other, half precision."""

import math
from statistics import fmean, pstdev

import pytest
import torch

from nonn_core.distillation.losses import (
    SOFT_LABELS,
    activation_transfer,
    authors_distillation,
    distillation,
    hinton_distillation,
    joint_activation_transfer,
    standardised_distillation,
)

STUDENT = [[1.0, 2.0, -0.5], [0.3, 0.0, 4.0]]
TEACHER = [[3.0, -1.0, 0.0], [0.5, 0.25, 2.0]]
LABELS = [0, 2]
ALPHA, TAU = 0.9, 4.0

forms = pytest.mark.parametrize("form", SOFT_LABELS)


def softmax(logits):
    powers = [math.exp(x) for x in logits]
    return [p / sum(powers) for p in powers]


def divergence(taught, own):
    return sum(t * math.log(t / s) for t, s in zip(softmax(taught), softmax(own), strict=True))


def hard():
    return fmean(-math.log(softmax(s)[y]) for s, y in zip(STUDENT, LABELS, strict=True))


def softened(logits):
    return [x / TAU for x in logits]


def z_scores(logits):
    return [(x - fmean(logits)) / pstdev(logits) / TAU for x in logits]


def mean_divergence(of):
    return fmean(divergence(of(t), of(s)) for t, s in zip(TEACHER, STUDENT, strict=True))


def found(form, dtype=torch.float64):
    student, teacher = torch.tensor(STUDENT, dtype=dtype), torch.tensor(TEACHER, dtype=dtype)
    return SOFT_LABELS[form](student, teacher, torch.tensor(LABELS), ALPHA, TAU)


def test_the_authors_form_by_hand():
    """2 alpha tau^2 times the divergence averaged over images and classes, and 0.1 of the rest."""
    soft = 2 * ALPHA * TAU**2 * mean_divergence(softened) / 3
    assert found("authors").item() == pytest.approx(0.1 * hard() + soft, rel=1e-12)


def test_hinton_s_form_by_hand():
    soft = ALPHA * TAU**2 * mean_divergence(softened)
    assert found("hinton").item() == pytest.approx(0.1 * hard() + soft, rel=1e-12)


def test_standardised_logits_by_hand():
    soft = ALPHA * TAU**2 * mean_divergence(z_scores)
    assert found("logit-standardised").item() == pytest.approx(0.1 * hard() + soft, rel=1e-9)


def test_the_authors_transfer_by_hand():
    """Students (3, 4) and (12) lie side by side as (3, 4, 12) / 13, teachers as (2, 1, 2) / 3."""
    student = [torch.tensor([[[[3.0, 4.0]]]]), torch.tensor([[[[12.0]]]])]
    teacher = [torch.tensor([[[[2.0, 1.0]]]]), torch.tensor([[[[2.0]]]])]
    squares = [(3 / 13 - 2 / 3) ** 2, (4 / 13 - 1 / 3) ** 2, (12 / 13 - 2 / 3) ** 2]
    loss = joint_activation_transfer(student, teacher).item()
    assert loss == pytest.approx(sum(squares) / 3, rel=1e-6)


def test_of_one_partition_the_authors_transfer_is_the_printed_one_over_its_elements():
    generator = torch.Generator().manual_seed(0)
    own, theirs = (torch.rand(4, 5, 3, 2, generator=generator) for _ in range(2))
    printed = activation_transfer([own], [theirs])
    torch.testing.assert_close(joint_activation_transfer([own], [theirs]), printed / 30)


def test_the_authors_beta_on_the_printed_sum():
    """10000 over 97 filters of 8 x 8 places is 1.6, as is told in the recipe's description."""
    maps = torch.rand(2, 97, 8, 8, generator=torch.Generator().manual_seed(1))
    other = torch.rand(2, 97, 8, 8, generator=torch.Generator().manual_seed(2))
    ratio = joint_activation_transfer([maps], [other]) / activation_transfer([maps], [other])
    assert 10_000 * ratio.item() == pytest.approx(1.6108, abs=1e-4)


def test_maps_of_unequal_size_are_averaged_in_both_transfers():
    small = torch.tensor([[[[3.0, 4.0]]]])
    large = torch.tensor([[[[2.0, 4.0, 4.0, 4.0]]]])
    for transfer in (activation_transfer, joint_activation_transfer):
        assert transfer([small], [large]).item() == pytest.approx(0, abs=1e-12)


@forms
def test_gradients_are_those_of_the_formulas(form):
    generator = torch.Generator().manual_seed(0)
    logits = torch.rand(3, 4, dtype=torch.float64, generator=generator).requires_grad_()
    taught = torch.rand(3, 4, dtype=torch.float64, generator=generator)
    labels = torch.tensor([0, 3, 1])
    assert torch.autograd.gradcheck(
        lambda x: SOFT_LABELS[form](x, taught, labels, ALPHA, TAU), (logits,)
    )


def test_gradients_of_the_joint_transfer():
    generator = torch.Generator().manual_seed(0)
    one, other, *taught = (
        torch.rand(2, filters, 2, 2, dtype=torch.float64, generator=generator) + 0.1
        for filters in (3, 2, 3, 2)
    )
    maps = (one.requires_grad_(), other.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: joint_activation_transfer([a, b], taught), maps)


def soft_gradient(form, temperature):
    student = torch.tensor(STUDENT, dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor(TEACHER, dtype=torch.float64)
    form(student, teacher, torch.tensor(LABELS), 1.0, temperature).backward()
    return student.grad


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_forms_pull_in_one_direction_with_unlike_force(temperature):
    printed = soft_gradient(distillation, temperature)
    torch.testing.assert_close(
        soft_gradient(authors_distillation, temperature), printed * 2 * temperature**2 / 3
    )
    torch.testing.assert_close(
        soft_gradient(hinton_distillation, temperature), printed * temperature**2
    )


@forms
def test_the_teacher_s_own_logits_meet_soft_labels_best(form):
    best = torch.tensor(TEACHER, dtype=torch.float64, requires_grad=True)
    loss = SOFT_LABELS[form](best, best.detach(), torch.tensor(LABELS), 1.0, TAU)
    loss.backward()
    torch.testing.assert_close(best.grad, torch.zeros_like(best), rtol=0, atol=1e-9)
    assert form == "printed" or loss.item() == pytest.approx(0, abs=1e-12)


def test_standardised_logits_know_neither_scale_nor_shift():
    student, teacher = torch.tensor(STUDENT).double(), torch.tensor(TEACHER).double()
    labels = torch.tensor(LABELS)
    one = standardised_distillation(student, teacher, labels, 1.0, 2.0)
    other = standardised_distillation(student * 7 - 3, teacher * 0.2 + 5, labels, 1.0, 2.0)
    torch.testing.assert_close(one, other)


def test_equal_logits_give_numbers():
    flat = torch.zeros(2, 3, requires_grad=True)
    standardised_distillation(flat, torch.tensor(TEACHER), torch.tensor(LABELS), 0.9, 4).backward()
    assert torch.isfinite(flat.grad).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@forms
def test_half_precision_is_widened_first(form, dtype):
    """The value is that of the rounded logits in fp32, also of logits 300 times as large."""
    for scale in (1, 300):
        logits = [(scale * torch.tensor(each)).to(dtype) for each in (STUDENT, TEACHER)]
        logits[0].requires_grad_()
        loss = SOFT_LABELS[form](*logits, torch.tensor(LABELS), ALPHA, TAU)
        wide = SOFT_LABELS[form](*(x.float() for x in logits), torch.tensor(LABELS), ALPHA, TAU)
        torch.testing.assert_close(loss, wide)
        loss.backward()
        assert torch.isfinite(logits[0].grad).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_small_maps_in_half_precision_keep_their_direction(dtype):
    """A square of 1e-5 is nothing in fp16, and the mean over elements would hide a sum of it."""
    generator = torch.Generator().manual_seed(3)
    own, theirs = (1e-5 * torch.rand(2, 6, 4, 4, generator=generator) for _ in range(2))
    loss = joint_activation_transfer([own.to(dtype)], [theirs.to(dtype)]).item()
    assert loss == pytest.approx(joint_activation_transfer([own], [theirs]).item(), rel=0.05)
    assert loss > 0
