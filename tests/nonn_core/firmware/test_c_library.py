"""C libraries compute what onnxruntime does with the same model, in the RAM that was planned."""

import shutil

import numpy as np
import onnx
import pytest
from int8_students import FAMILIES, FILTERS, fp32_student, images, int8_student
from onnx import helper, numpy_helper

from nonn_common.errors import ExportError
from nonn_core.export.onnx_model import inference, quantise_int8
from nonn_core.firmware.c_library import c_library, identifier_of
from nonn_core.firmware.checked_library import library_features
from nonn_core.firmware.int8_network import read_int8_network
from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import student_cost

compiled = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc) is here")


def network_of(name):
    return read_int8_network(int8_student(name, FAMILIES[name]), FAMILIES[name], name)


def steps_off(network, model, shape, name):
    """Differences from onnxruntime's features, in quantisation steps."""
    pixels, features = images(shape), network.maps[network.features]
    expected = np.rint(inference(model)(pixels) / features.scale) + features.zero
    found = library_features(c_library(network, name), pixels)
    assert len(np.unique(expected)) > 20
    return np.abs(found - expected)


@compiled
@pytest.mark.parametrize("name", FAMILIES)
def test_features_equal_those_of_onnxruntime(name):
    off = steps_off(network_of(name), int8_student(name, FAMILIES[name]), FAMILIES[name], "a 1")
    assert off.max() <= 1
    assert np.count_nonzero(off) <= off.size / 20, "more than a float32 rounds differently"


@compiled
@pytest.mark.parametrize("shape", [(2, 5, 7), (1, 1, 1), (4, 6, 3)])
def test_images_need_not_be_square(shape):
    model = int8_student("wrn10:4,5,8", shape, 7)
    network = read_int8_network(model, shape, "narrow")
    assert steps_off(network, model, shape, "narrow").max() <= 1


@pytest.mark.parametrize("name", FAMILIES)
def test_the_arena_is_what_the_planner_counts(name):
    library = c_library(network_of(name), name)
    spec, image = parse_network(name), ImageShape(*FAMILIES[name])
    assert library.arena.maps_bytes == student_cost(spec, image, FILTERS).peak_elements


def test_a_network_stays_int8_from_its_image_to_its_features():
    kinds = [node.op_type for node in int8_student("wrn10:5,6,9", (3, 8, 8)).graph.node]
    assert kinds[:3] == ["Sub", "Mul", "QuantizeLinear"]
    assert kinds[-3:] == ["QLinearGlobalAveragePool", "Reshape", "DequantizeLinear"]
    assert set(kinds[3:-3]) == {"QLinearConv", "QLinearAdd"}


def test_the_header_tells_sizes_and_scale():
    network = network_of("wrn10:5,6,9")
    header = c_library(network, "student 1").header
    scale = network.maps[network.features].scale
    for told in (
        "STUDENT_1_HEIGHT 8",
        "STUDENT_1_CHANNELS 3",
        "STUDENT_1_FEATURES 5",
        "STUDENT_1_ARENA_BYTES 1664",
        "const uint8_t *student_1_run(void *memory);",
    ):
        assert told in header
    (shown,) = (line.split()[-1] for line in header.splitlines() if "FEATURE_SCALE 0" in line)
    assert np.float32(shown.rstrip("f")) == scale


def test_libraries_need_string_h_alone():
    library = c_library(network_of("mobilenetv2-cifar-0.1"), "small")
    assert "include <" not in library.source
    assert "float" not in library.source


@pytest.mark.parametrize(
    ("name", "prefix"), [("student-1", "student_1"), ("2nd", "student_2nd"), ("Ü", "student__")]
)
def test_names_in_c(name, prefix):
    assert identifier_of(name) == prefix


def changed(change):
    model = onnx.ModelProto()
    model.CopyFrom(int8_student("wrn10:5,6,9", (3, 8, 8)))
    change(model.graph)
    return model


def other_operation(graph):
    node = next(node for node in graph.node if node.op_type == "QLinearAdd")
    node.op_type = "QLinearMul"


def weights_off_zero(graph):
    node = next(node for node in graph.node if node.op_type == "QLinearConv")
    tensor = next(each for each in graph.initializer if each.name == node.input[5])
    tensor.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(tensor) + np.int8(1), tensor.name)
    )


def dilated(graph):
    node = next(node for node in graph.node if node.op_type == "QLinearConv")
    kept = [each for each in node.attribute if each.name != "dilations"]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute("dilations", [2, 2])])


def without_answer(graph):
    del graph.node[-1]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda: fp32_student("wrn10:5,6,9", (3, 8, 8)), "Conv (conv2) is not known"),
        (lambda: quantise_int8(fp32_student("wrn10:5,6,9", (3, 8, 8)), images((3, 8, 8))),
         "Conv (conv2) is not known"),
        (lambda: changed(other_operation), "QLinearMul"),
        (lambda: changed(weights_off_zero), "weights that are not int8 around zero"),
        (lambda: changed(dilated), "gaps in it"),
        (lambda: changed(without_answer), "not int8 from its image to its answer"),
    ],
)  # fmt: skip
def test_what_is_no_int8_network_is_refused_in_one_message(model, said):
    with pytest.raises(ExportError, match=r"^left: ") as raised:
        read_int8_network(model(), (3, 8, 8), "left")
    assert said in str(raised.value)


def test_a_scale_beyond_fixed_point_is_refused():
    def louder(graph):
        node = next(node for node in graph.node if node.op_type == "QLinearConv")
        tensor = next(each for each in graph.initializer if each.name == node.input[4])
        value = numpy_helper.to_array(tensor) * np.float32(10000)
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))

    network = read_int8_network(changed(louder), (3, 8, 8), "left")
    with pytest.raises(ExportError, match="beyond what fixed point holds"):
        c_library(network, "left")
