"""Losses: ranges, invariances, optima, and half precision."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nonn_core.distillation.losses import activation_transfer, attention_transfer, distillation
from nonn_core.distillation.splitnet import group_balance, group_overlap, group_weight
from nonn_core.networks.modules import attention_map

shapes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
seeds = st.integers(0, 2**20)
logit_shapes = st.tuples(st.integers(1, 4), st.integers(2, 5))
taus = st.floats(0.5, 20)
scales = st.floats(0.01, 100)
powers = st.integers(-4, 4)
halves = st.sampled_from([torch.float16, torch.bfloat16])


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


@settings(max_examples=60, deadline=None)
@given(shapes, seeds, halves, powers, powers)
def test_half_precision_neither_underflows_nor_overflows(shape, seed, half, one, other):
    # Up to 1e4, as float16 ends at 65504; at least a hundredth of the scale, above its denormals.
    student = (positive(shape, seed) * 0.9 * 10.0**one).to(half).requires_grad_()
    teacher = (positive(shape, seed + 1) * 0.9 * 10.0**other).to(half)
    exact = activation_transfer([student.detach().double()], [teacher.double()]).item()
    with torch.autocast("cpu", torch.bfloat16):
        loss = activation_transfer([student], [teacher])
        attention = attention_transfer([student], [attention_map(teacher)])
    assert loss.dtype == attention.dtype == torch.float32
    assert loss.item() == pytest.approx(exact, rel=1e-4, abs=1e-6)
    looked_at = [attention_map(teacher.double())]
    exact = attention_transfer([student.detach().double()], looked_at).item()
    assert attention.item() == pytest.approx(exact, rel=1e-4, abs=1e-6)
    (loss + attention).backward()
    # The true gradient grows as maps shrink; float16 cannot hold that of the smallest.
    assert half == torch.float16 or torch.isfinite(student.grad).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(-30, -4), seeds)
def test_gradients_near_dead_maps_are_finite(power, seed):
    student = (positive((2, 3, 2, 2), seed).float() * 10.0**power).requires_grad_()
    teacher = positive((2, 3, 2, 2), seed + 1).float()
    loss = activation_transfer([student], [teacher])
    (loss + attention_transfer([student], [attention_map(teacher)])).backward()
    assert math.isfinite(loss.item())
    assert torch.isfinite(student.grad).all()


@settings(max_examples=40, deadline=None)
@given(shapes, seeds, scales, scales)
def test_attention_knows_no_scale_and_is_zero_at_the_teacher(shape, seed, one, other):
    student, teacher = positive(shape, seed), positive(shape, seed + 1)
    expected = attention_transfer([student], [attention_map(teacher)]).item()
    found = attention_transfer([student * one], [attention_map(teacher * other)]).item()
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert attention_transfer([teacher], [attention_map(teacher)]).item() == 0
    cosine = torch.nn.functional.cosine_similarity(
        attention_map(student).flatten(1), attention_map(teacher).flatten(1)
    )
    places = shape[2] * shape[3]
    assert expected == pytest.approx((2 - 2 * cosine).mean().item() / places, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 4), st.integers(1, 5), st.integers(1, 5), seeds)
def test_group_losses_by_their_definitions(groups, inputs, outputs, seed):
    weight = positive((outputs, inputs), seed) - 0.5
    p = torch.softmax(3 * positive((groups, inputs), seed + 1), dim=0)
    q = torch.softmax(3 * positive((groups, outputs), seed + 2), dim=0)
    expected = 0.0
    for g in range(groups):
        # W of the paper maps inputs (rows) to outputs (columns).
        rows = torch.diag(1 - p[g]) @ weight.T @ torch.diag(q[g])
        columns = torch.diag(p[g]) @ weight.T @ torch.diag(1 - q[g])
        expected += rows.norm(dim=1).sum().item() + columns.norm(dim=0).sum().item()
    assert group_weight(weight, p, q).item() == pytest.approx(expected, rel=1e-9)
    pairs = sum(float(p[i] @ p[j]) for j in range(groups) for i in range(j))
    assert group_overlap(p).item() == pytest.approx(pairs, rel=1e-9, abs=1e-12)
    assert group_balance(p).item() >= inputs**2 / groups - 1e-9
    even = torch.full_like(p, 1 / groups)
    assert group_balance(even).item() == pytest.approx(inputs**2 / groups)
    assert group_overlap(p).item() <= group_overlap(even).item() + 1e-9
