"""Eq. 1 and Eq. 6 of arXiv:1907.11804: ranges, invariances and optima."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nonn_core.learning.losses import activation_transfer, distillation

shapes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
seeds = st.integers(0, 2**20)
logit_shapes = st.tuples(st.integers(1, 4), st.integers(2, 5))
taus = st.floats(0.5, 20)
scales = st.floats(0.01, 100)


def positive(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, dtype=torch.float64, generator=generator) + 0.01


@settings(max_examples=40, deadline=None)
@given(shapes, seeds, scales, scales)
def test_transfer_knows_no_scale(shape, seed, one, other):
    student, teacher = positive(shape, seed), positive(shape, seed + 1)
    expected = activation_transfer([student], [teacher]).item()
    found = activation_transfer([student * one], [teacher * other]).item()
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(shapes, min_size=1, max_size=3), seeds)
def test_transfer_is_between_zero_and_two_per_partition(sizes, seed):
    # Non-negative directions are at most orthogonal.
    batch = sizes[0][0]
    sizes = [(batch, *size[1:]) for size in sizes]
    student = [positive(size, seed + 2 * k) for k, size in enumerate(sizes)]
    teacher = [positive(size, seed + 2 * k + 1) for k, size in enumerate(sizes)]
    loss = activation_transfer(student, teacher).item()
    assert 0 <= loss <= 2 * len(sizes)
    cosines = sum(
        torch.nn.functional.cosine_similarity(s.flatten(1), t.flatten(1)).mean().item()
        for s, t in zip(student, teacher, strict=True)
    )
    assert loss == pytest.approx(2 * len(sizes) - 2 * cosines, abs=1e-9)
    assert activation_transfer(teacher, student).item() == pytest.approx(loss)


@settings(max_examples=40, deadline=None)
@given(shapes, seeds, st.data())
def test_dead_maps_give_a_number(shape, seed, data):
    student, teacher = positive(shape, seed).float(), positive(shape, seed + 1).float()
    student[data.draw(st.integers(0, shape[0] - 1))] = 0
    student.requires_grad_()
    loss = activation_transfer([student], [teacher])
    loss.backward()
    assert math.isfinite(loss.item())
    assert torch.isfinite(student.grad).all()


@settings(max_examples=40, deadline=None)
@given(logit_shapes, seeds, st.floats(0, 1), taus, st.floats(-9, 9))
def test_distillation_by_the_definition(shape, seed, alpha, tau, shift):
    batch, classes = shape
    student, teacher = positive(shape, seed) * 6, positive(shape, seed + 1) * 6
    labels = torch.arange(batch) % classes
    expected = 0.0
    for s, t, label in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        hard = math.log(sum(map(math.exp, s))) - s[label]
        taught = [math.exp(x / tau) for x in t]
        norm = math.log(sum(math.exp(x / tau) for x in s))
        soft = sum(p / sum(taught) * (norm - x / tau) for p, x in zip(taught, s, strict=True))
        expected += ((1 - alpha) * hard + alpha * soft) / batch
    found = distillation(student, teacher, labels, alpha, tau).item()
    assert found == pytest.approx(expected, rel=1e-9)
    # Softmax does not see what is added to all logits.
    shifted = distillation(student + shift, teacher - shift, labels, alpha, tau).item()
    assert shifted == pytest.approx(expected, rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(logit_shapes, seeds, taus)
def test_no_student_is_closer_to_the_teacher_than_the_teacher(shape, seed, tau):
    student, teacher = positive(shape, seed) * 6, positive(shape, seed + 1) * 6
    labels = torch.zeros(shape[0], dtype=torch.int64)
    own = distillation(teacher, teacher, labels, 1.0, tau).item()
    assert distillation(student, teacher, labels, 1.0, tau).item() >= own - 1e-12
