"""Models and fleets to split, made for a test: by hand, and at random."""

from functools import cache

from hypothesis import strategies as st
from made_hardware import device, figure, link

from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.mobilenet import MobileNetSpec
from nonn_core.networks.network_cost import teacher_table
from nonn_core.networks.resnet import ResNetSpec, WrnSpec
from nonn_core.networks.vgg import VggSpec
from profiles.device import Hosting
from profiles.fleet import Board
from profiles.layer import LayerWork

CLASSES = 5

_widths = st.integers(1, 9)
specs = st.one_of(
    st.builds(WrnSpec, st.sampled_from([10, 16]), st.tuples(*[_widths] * 3)),
    st.builds(VggSpec, st.sampled_from([11, 13]), st.tuples(*[_widths] * 5)),
    st.builds(ResNetSpec, st.sampled_from([18, 50]), st.tuples(*[_widths] * 4), st.booleans()),
    st.builds(MobileNetSpec, st.integers(5, 30), st.booleans()),
)
images = st.builds(ImageShape, st.integers(1, 3), st.integers(32, 41), st.integers(32, 41))
tables = st.builds(teacher_table, specs, images, st.just(CLASSES))
"""Layer tables of small networks of every family."""


def conv(inputs, outputs, size, kernel=3, stride=1):
    """A convolution of square maps of `size`."""
    out = -(-size // stride)
    weights = inputs * outputs * kernel**2
    return LayerWork(
        f"conv{inputs}-{outputs}",
        "conv",
        weights * out * out,
        weights,
        inputs,
        size,
        size,
        outputs,
        out,
        out,
        kernel,
        stride,
    )


def fc(inputs, classes):
    work = inputs * classes
    return LayerWork("fc", "fc", work, work + classes, inputs, 1, 1, classes, 1, 1)


@st.composite
def hosts(draw):
    hosting = Hosting(join_fixed_ms=figure(draw(st.floats(0, 50))), fc_ms=figure(0.1))
    return device(
        "desk",
        hosting,
        compute_fixed_ms=draw(st.floats(0, 10)),
        compute_ms_per_mmac=draw(st.floats(0.01, 5)),
    )


@cache
@st.composite
def boards(draw, name):
    profile = device(
        "device",
        compute_fixed_ms=draw(st.floats(0, 50)),
        compute_ms_per_mmac=draw(st.floats(0.01, 20)),
        power_fixed_w=draw(st.floats(0, 5)),
        power_busy_w=draw(st.floats(0, 5)),
        message_ms=draw(st.floats(0, 20)),
        exchange_ms=draw(st.floats(0, 20)),
        peer_message_ms=draw(st.floats(0, 20)),
        radio_w=draw(st.floats(0, 1)),
    )
    return Board(name, profile, link("link", draw(st.floats(1e4, 1e9))))


@cache
@st.composite
def fleets(draw, most=4):
    return tuple(draw(boards(f"board-{i}")) for i in range(draw(st.integers(1, most))))
