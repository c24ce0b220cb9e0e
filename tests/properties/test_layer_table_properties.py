"""Layer tables of random networks of every family: their sums are the costs."""

from hypothesis import given, settings
from hypothesis import strategies as st

from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.mobilenet import MobileNetSpec
from nonn_core.networks.network_cost import (
    student_cost,
    student_layers,
    student_table,
    teacher_cost,
    teacher_table,
)
from nonn_core.networks.resnet import ResNetSpec, WrnSpec
from nonn_core.networks.vgg import VggSpec

widths = st.integers(1, 300)
specs = st.one_of(
    st.builds(WrnSpec, st.sampled_from([10, 16, 40]), st.tuples(*[widths] * 3)),
    st.builds(VggSpec, st.sampled_from([11, 13, 16, 19]), st.tuples(*[widths] * 5)),
    st.builds(
        ResNetSpec, st.sampled_from([18, 34, 50, 101]), st.tuples(*[widths] * 4), st.booleans()
    ),
    st.builds(MobileNetSpec, st.integers(5, 200), st.booleans()),
)
images = st.builds(ImageShape, st.integers(1, 4), st.integers(32, 70), st.integers(32, 70))
filters = st.integers(1, 500)


@settings(max_examples=40, deadline=None)
@given(specs, images, st.integers(1, 200))
def test_a_teacher_s_table_sums_to_its_cost(spec, image, classes):
    table = teacher_table(spec, image, classes)
    cost = teacher_cost(spec, image, classes)
    assert sum(layer.macs for layer in table) == cost.macs
    assert sum(layer.weights for layer in table) == cost.params
    assert max(layer.out_elements + layer.held_elements for layer in table) <= cost.peak_elements


@settings(max_examples=40, deadline=None)
@given(specs, images, filters)
def test_a_student_s_table_sums_to_its_cost(spec, image, filters):
    table = student_table(spec, image, filters)
    cost = student_cost(spec, image, filters)
    assert sum(layer.macs for layer in table) == cost.macs
    assert sum(layer.weights for layer in table) == cost.params
    assert [layer.name for layer in table] == [
        layer.name for layer in student_layers(spec, image, filters)
    ]


@settings(max_examples=40, deadline=None)
@given(specs, images, filters)
def test_each_layer_reads_what_an_earlier_one_wrote(spec, image, filters):
    """MACs follow from shapes, whatever the costs say; the main path is a chain."""
    table = student_table(spec, image, filters)
    shape = (image.channels, image.height, image.width)
    for layer in table:
        if layer.kind == "conv":
            each = layer.in_channels // layer.groups * layer.kernel**2
            assert layer.macs == each * layer.out_elements
            assert layer.weights == each * layer.out_channels
        if not layer.side:
            assert (layer.in_channels, layer.in_height, layer.in_width) == shape
            shape = (layer.out_channels, layer.out_height, layer.out_width)
    assert shape == (filters, 1, 1)
