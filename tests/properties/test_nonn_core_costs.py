"""Closed-form costs of random networks: against built modules, and against each other."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.modules import StudentShape, build_classifier, build_nonn
from nonn_core.networks.network_cost import (
    classifier_params,
    group0_cost,
    student_cost,
    student_cost_line,
    student_layers,
    teacher_cost,
    teacher_layers,
)
from nonn_core.networks.resnet import WrnSpec
from nonn_core.teacher.inspection import measured_cost

small_widths = st.sampled_from([1, 3, 8, 16, 17, 24])
small_specs = st.builds(
    WrnSpec, st.sampled_from([10, 16]), st.tuples(small_widths, small_widths, small_widths)
)
small_images = st.builds(ImageShape, st.integers(1, 3), st.integers(1, 13), st.integers(1, 13))
widths = st.integers(1, 700)
specs = st.builds(
    WrnSpec, st.sampled_from([10, 16, 22, 28, 34, 40]), st.tuples(widths, widths, widths)
)
images = st.builds(ImageShape, st.integers(1, 4), st.integers(1, 65), st.integers(1, 65))
filters = st.integers(1, 4000)
classes = st.integers(2, 1000)


@settings(max_examples=8, deadline=None)
@given(small_specs, small_images, st.integers(2, 20))
def test_a_built_teacher_costs_what_the_closed_form_says(spec, image, classes):
    built = build_classifier(spec, image.channels, classes, seed=0)
    assert measured_cost(built, image) == teacher_cost(spec, image, classes)


@settings(max_examples=8, deadline=None)
@given(small_specs, small_images, st.lists(st.integers(1, 300), min_size=1, max_size=2))
def test_built_students_cost_what_the_closed_form_says(spec, image, filters):
    network = build_nonn([StudentShape(spec, f) for f in filters], image.channels, 3, seed=0)
    for student, count in zip(network.deployed(), filters, strict=True):
        assert measured_cost(student, image) == student_cost(spec, image, count)


@settings(max_examples=15, deadline=None)
@given(small_specs, small_widths, small_widths, st.integers(1, 9), st.integers(1, 9))
def test_students_share_g0_and_nothing_else(spec, second, third, one, other):
    thin = WrnSpec(spec.depth, (spec.widths[0], second, third))
    network = build_nonn([StudentShape(spec, one), StudentShape(thin, other)], 2, 3, seed=0)
    left, right = (
        {p.data_ptr() for p in [*student.parameters(), *student.buffers()]}
        for student in network.deployed()
    )
    shared = {p.data_ptr() for p in [*network.group0[0].parameters(), *network.group0[0].buffers()]}
    assert left & right == shared
    total = sum(p.numel() for p in network.parameters())
    image = ImageShape(2, 8, 8)
    assert total == (
        student_cost(spec, image, one).params
        + student_cost(thin, image, other).params
        - group0_cost(spec, image).params
        + classifier_params(one + other, 3)
    )


@settings(max_examples=10, deadline=None)
@given(small_specs, st.integers(0, 3), st.integers(1, 6), st.integers(1, 6))
def test_the_host_s_answer_is_the_network_s(spec, seed, one, other):
    network = build_nonn([StudentShape(spec, one), StudentShape(spec, other)], 2, 3, seed).eval()
    pixels = torch.randn(3, 2, 6, 5, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        vectors = [student(pixels) for student in network.deployed()]
        torch.testing.assert_close(
            network(pixels)[0], network.fc(torch.cat(vectors, dim=1)), rtol=1e-5, atol=1e-5
        )


@given(specs, images, filters)
def test_the_line_is_the_cost(spec, image, filters):
    assert student_cost_line(spec, image).at(filters) == student_cost(spec, image, filters)


@given(specs, images, filters, st.integers(1, 100))
def test_more_filters_never_cost_less(spec, image, filters, more):
    less, larger = student_cost(spec, image, filters), student_cost(spec, image, filters + more)
    assert larger.params > less.params
    assert larger.macs > less.macs
    assert larger.peak_elements >= less.peak_elements


@given(specs, images, st.integers(0, 2), st.integers(1, 50), filters)
def test_wider_networks_have_more_parameters_and_macs(spec, image, group, more, filters):
    wider = list(spec.widths)
    wider[group] += more
    narrow = student_cost(spec, image, filters)
    wide = student_cost(WrnSpec(spec.depth, tuple(wider)), image, filters)
    # Equal widths save a projection, but its 1x1 weights are fewer than what 3x3 ones gain.
    assert wide.params > narrow.params
    assert wide.macs > narrow.macs


@given(specs, images, classes)
def test_a_cost_is_the_sum_of_its_layers_and_g0_is_part_of_it(spec, image, classes):
    cost = teacher_cost(spec, image, classes)
    layers = list(teacher_layers(spec, image, classes))
    assert cost.params == sum(layer.params for layer in layers)
    assert cost.macs == sum(layer.macs for layer in layers)
    assert cost.peak_elements == max(layer.live_elements for layer in layers)
    shared = group0_cost(spec, image)
    assert shared.params < cost.params
    assert shared.macs < cost.macs
    assert shared.peak_elements <= cost.peak_elements


@given(specs, images, filters)
def test_a_student_without_its_last_two_layers_is_a_teacher_without_its_classifier(
    spec, image, filters
):
    student = list(student_layers(spec, image, filters))
    teacher = list(teacher_layers(spec, image, 10))
    assert student[:-3] == teacher[:-2]


@given(specs, images, filters)
def test_memory_falls_with_the_bytes_per_value(spec, image, filters):
    cost = student_cost(spec, image, filters)
    assert cost.memory_bytes("fp32") == 4 * cost.memory_bytes("int8")
    assert cost.memory_bytes("int8") == cost.params + cost.peak_elements


@given(specs, images)
def test_names_are_read_back(spec, image):
    assert parse_network(str(spec)) == spec
    assert ImageShape.parse(str(image)) == image
