from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from converted_once import conversions_kept, converted
from onnx import numpy_helper, shape_inference

from boards.profiling import onnx_builder
from boards.profiling.benchmark_model import random_pixels
from boards.profiling.onnx_builder import mean_model, student_model
from nonn_common.errors import InputError
from nonn_core.export.onnx_model import quantise_static
from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.modules import StudentShape, build_nonn
from nonn_core.networks.network_cost import student_cost

FILTERS = 7
NETWORKS = [
    ("wrn16:8,12,16", "3x32x32"),
    ("wrn10:16,24,40", "1x8x8"),
    ("vgg11:8,12,16,20,24", "3x32x32"),
    ("resnet18-cifar:8,12,16,20", "3x16x16"),
    ("resnet18:8,8,12,16", "3x64x64"),
    ("resnet50:4,4,6,8", "3x64x64"),
    ("mobilenetv2-cifar-0.2", "3x32x32"),
]


def values(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def answer(model, pixels):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {onnx_builder.IMAGE: pixels})[0]


def cost_of(model):
    """Parameters and MACs, counted node by node as fvcore counts the torch module."""
    inferred = shape_inference.infer_shapes(model, strict_mode=True)
    known = (*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input)
    elements = {
        value.name: int(np.prod([d.dim_value or 1 for d in value.type.tensor_type.shape.dim]))
        for value in known
    }
    found = values(model)
    params = macs = 0
    for node in model.graph.node:
        made = elements[node.output[0]]
        if node.op_type == "Conv":
            weight = found[node.input[1]]
            folded = len(node.input) == 3
            params += weight.size + folded * 2 * len(weight)
            macs += made // len(weight) * weight.size + folded * 2 * made
        if node.op_type == "BatchNormalization":
            params += 2 * len(found[node.input[1]])
            macs += 2 * made
        if node.op_type == "ReduceMean":
            macs += elements[node.input[0]]
    return params, macs


@pytest.mark.parametrize(("network", "image"), NETWORKS)
def test_a_student_costs_what_the_closed_form_says(network, image):
    spec, size = parse_network(network), ImageShape.parse(image)
    expected = student_cost(spec, size, FILTERS)
    assert cost_of(student_model(spec, size, FILTERS)) == (expected.params, expected.macs)


@pytest.mark.parametrize(("network", "image"), NETWORKS)
def test_onnxruntime_runs_it(network, image):
    size = ImageShape.parse(image)
    found = answer(student_model(parse_network(network), size, FILTERS), random_pixels(3, size))
    assert found.shape == (3, FILTERS)
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert np.ptp(found, axis=0).max() > 0  # It depends on the image.


@pytest.mark.parametrize("network", ["wrn16:8,12,16", "resnet18-cifar:8,12,16,20"])
def test_its_operations_are_those_of_an_exported_student(network):
    spec = parse_network(network)
    nonn = build_nonn([StudentShape(spec, FILTERS)], 3, 10, seed=0)
    student = next(nonn.deployed()).eval()
    with conversions_kept():
        exported = converted(student, torch.zeros(2, 3, 32, 32), "image", "vector")
    made = student_model(spec, ImageShape(3, 32, 32), FILTERS)
    told = ("Conv", "BatchNormalization", "Relu", "Add", "MaxPool")

    def counted(model):
        return Counter(node.op_type for node in model.graph.node if node.op_type in told)

    assert counted(made) == counted(exported)


def test_folding_changes_no_answer(monkeypatch):
    spec, size = parse_network("wrn10:8,12,16"), ImageShape(3, 16, 16)
    folded = student_model(spec, size, FILTERS)
    monkeypatch.setattr(onnx_builder._Graph, "_fold", lambda _: None)
    plain = student_model(spec, size, FILTERS)
    assert len(plain.graph.node) > len(folded.graph.node)
    pixels = random_pixels(2, size)
    np.testing.assert_allclose(answer(folded, pixels), answer(plain, pixels), rtol=1e-4)


def test_int8_is_int8_throughout():
    size = ImageShape(3, 16, 16)
    model = student_model(parse_network("wrn10:8,8,16"), size, FILTERS, int8=True)
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    small = quantise_static(model, random_pixels(4, size))
    kinds = Counter(node.op_type for node in small.graph.node)
    assert kinds["Conv"] == 1  # The one that reads the image.
    assert kinds["QLinearConv"] == sum(n.op_type == "Conv" for n in model.graph.node) - 1
    pixels = random_pixels(4, size)
    expected, found = answer(model, pixels), answer(small, pixels)
    assert np.abs(found - expected).max() < 0.2 * np.ptp(expected)


def test_what_only_takes_messages_answers_means():
    size = ImageShape(3, 6, 4)
    pixels = random_pixels(2, size)
    np.testing.assert_allclose(answer(mean_model(size), pixels), pixels.mean((2, 3)), rtol=1e-5)


def test_an_image_that_is_too_small_is_refused():
    with pytest.raises(InputError, match="too small"):
        student_model(parse_network("vgg11"), ImageShape(1, 8, 8), FILTERS)


def test_equal_seeds_make_equal_models():
    spec, size = parse_network("wrn10:4,4,4"), ImageShape(1, 8, 8)
    first, again, other = (student_model(spec, size, FILTERS, seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    onnx.checker.check_model(first, full_check=True)
