import pytest

from nonn_common.errors import InputError
from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.resnet import WrnSpec


def test_the_published_notation_is_a_factor_of_16_32_64():
    assert parse_network("wrn40-4") == WrnSpec(40, (64, 128, 256))
    assert parse_network(" WRN28-10 ") == WrnSpec(28, (160, 320, 640))


def test_widths_can_be_named_one_by_one():
    spec = parse_network("wrn16:32,64,88")
    assert spec == WrnSpec(16, (32, 64, 88))
    assert str(spec) == "wrn16:32,64,88"
    assert parse_network(str(spec)) == spec


@pytest.mark.parametrize(("depth", "blocks"), [(10, 1), (16, 2), (28, 4), (40, 6)])
def test_depth_is_six_layers_per_block_and_four(depth, blocks):
    assert WrnSpec(depth, (1, 1, 1)).blocks_per_group == blocks


@pytest.mark.parametrize(
    "text",
    ["", "lenet5", "wrn40", "wrn40-", "wrn16:32,", "vgg11-2", "resnet18-x", "wrn16:a,b,c"],
)
def test_other_names_are_refused_with_what_is_allowed(text):
    with pytest.raises(InputError, match=r"not the name of a network.*allowed: "):
        parse_network(text)


@pytest.mark.parametrize("text", ["wrn4-1", "wrn11-1", "wrn18-2", "wrn0-1"])
def test_other_depths_are_refused(text):
    with pytest.raises(InputError, match="not the depth"):
        parse_network(text)


@pytest.mark.parametrize("text", ["wrn10-0", "wrn10:0,4,4", "wrn10:4,4,0"])
def test_widths_of_nothing_are_refused(text):
    with pytest.raises(InputError, match="1 to 16384 channels"):
        parse_network(text)


def test_group0_is_what_students_must_have_in_common():
    one, other = parse_network("wrn16:32,64,88"), parse_network("wrn16:32,40,50")
    assert one.group0 == other.group0
    assert one.group0 != parse_network("wrn10:32,64,88").group0
    assert one.group0 != parse_network("wrn16:16,64,88").group0


def test_an_image_is_channels_height_width():
    image = ImageShape.parse("3x32x48")
    assert (image.channels, image.height, image.width) == (3, 32, 48)
    assert ImageShape.parse(str(image)) == image


def test_a_cifar_image_is_12288_bytes_on_the_wire():
    # A: a 3x32x32 image as float32.
    assert ImageShape(3, 32, 32).size_bytes == 12288


@pytest.mark.parametrize("text", ["", "32x32", "3x32x32x1", "3x32x", "-3x32x32", "3 x 32 x 32"])
def test_other_shapes_are_refused(text):
    with pytest.raises(InputError, match="not an image shape"):
        ImageShape.parse(text)


@pytest.mark.parametrize("text", ["0x8x8", "3x0x8", "3x8x0"])
def test_images_without_pixels_are_refused(text):
    with pytest.raises(InputError, match="1 to 4096 each"):
        ImageShape.parse(text)
