import pytest

from boards.profiling.benchmark_model import TEACHERS, benchmark_models
from boards.profiling.layer_benchmark import (
    CHAIN_LENGTH,
    LayerTimes,
    benchmark_layers,
    held_out_error_pct,
    layer_model,
    measure_layers,
)
from boards.profiling.onnx_builder import chain_model
from boards.profiling.stopwatch import Timing
from boards.profiling.student_benchmark import StudentTime
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import student_table
from profiles.layer import kernel_of

BEGIN_MS = 0.3


def convolution_ms(layer):
    """A roofline that the layer model can hold exactly."""
    per_mmac = {"pointwise": 0.02, "spatial": 0.05, "depthwise": 0.3}[kernel_of(layer)]
    return 0.004 + per_mmac * layer.macs / 1e6 + 0.1 * 4 * layer.weights / 1e6


TIMES = LayerTimes(tuple((layer, convolution_ms(layer)) for layer in benchmark_layers()))


def table(student):
    return student_table(parse_network(student.network), student.image, student.filters)


def by_layers():
    """Students whose time is that of their convolutions, and something for each answer."""
    models = benchmark_models(
        [each for each in TEACHERS if not each.startswith("vgg")], ["3x32x32"]
    )
    return [
        StudentTime(
            student,
            Timing(
                BEGIN_MS + sum(convolution_ms(e) for e in table(student) if e.kind == "conv"), 0, 1
            ),
        )
        for student in models
    ]


def test_all_kinds_of_kernels_are_measured():
    layers = benchmark_layers()
    assert {kernel_of(layer) for layer in layers} == {"pointwise", "spatial", "depthwise"}
    assert len({layer.name for layer in layers}) == len(layers)


def test_the_longer_model_has_that_many_convolutions():
    layer = benchmark_layers()[0]
    kinds = [node.op_type for node in chain_model(layer, CHAIN_LENGTH).graph.node]
    assert kinds.count("Conv") == kinds.count("Relu") == CHAIN_LENGTH
    assert "BatchNormalization" not in kinds


def test_layers_that_sum_up_to_students_are_known_whole():
    students = by_layers()
    model = layer_model(TIMES, "fp32", students, by_macs_pct=20.0)
    assert {each.kind for each in model.kinds} == {"conv", "norm", "pool"}
    assert held_out_error_pct(model, "fp32", students) < 1
    (pool,) = (each for each in model.kinds if each.kind == "pool")
    assert pool.terms["fixed_ms"].value == pytest.approx(BEGIN_MS, rel=0.02)


@pytest.mark.parametrize("by_macs_pct", [0.0, None])
def test_where_macs_tell_students_better_only_convolutions_are_known(by_macs_pct):
    model = layer_model(TIMES, "fp32", by_layers(), by_macs_pct)
    assert {each.kind for each in model.kinds} == {"conv"}
    assert model.layers == len(benchmark_layers())
    assert held_out_error_pct(model, "fp32", by_layers()) is None


class ToldTimes:
    """A watch that runs each thing once, and says of models in a row what the test says."""

    def timed(self, _what, things, _seconds, _progress):
        assert all(thing() > 0 for thing in things.values())
        return {name: Timing(0.7 if name.endswith("-1") else 1.5, 0.0, 1) for name in things}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_convolution_is_timed_without_what_an_answer_costs(tmp_path, precision):
    chosen = (benchmark_layers()[0], benchmark_layers()[-1])
    found = measure_layers(tmp_path / "layers", chosen, precision, 1, 0.0, ToldTimes())
    assert [layer for layer, _ in found.rows] == list(chosen)
    assert [ms for _, ms in found.rows] == pytest.approx([0.1, 0.1])  # 0.8 ms for 8 more.
