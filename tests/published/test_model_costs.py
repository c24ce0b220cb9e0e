"""Parameters and FLOPs of the networks of arXiv:1907.11804, Tables 2 and 3, and of its teachers."""

import pytest

from nonn_common.units import FLOPS_PER_MAC
from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.modules import StudentShape, build_classifier, build_nonn
from nonn_core.networks.network_cost import student_cost, teacher_cost
from nonn_core.teacher.inspection import measured_cost

CIFAR = ImageShape(3, 32, 32)

# Name, classes, millions of parameters, GFLOPs, and by how much their last digit may be off.
TEACHERS = [
    ("wrn40-4", 10, (8.95, 0.005), (2.60, 0.005)),
    ("wrn40-2", 10, (2.24, 0.005), (0.66, 0.005)),
    # 0.202 in Table 2, 0.203 elsewhere in A.
    ("wrn16-2", 10, (0.69, 0.005), (0.2025, 0.001)),
    ("wrn28-10", 100, (36.5, 0.05), (10.5, 0.05)),
]


@pytest.mark.parametrize(("name", "classes", "mparams", "gflops"), TEACHERS)
def test_a_classifier_costs_what_was_published(name, classes, mparams, gflops):
    cost = teacher_cost(parse_network(name), CIFAR, classes)
    assert cost.params / 1e6 == pytest.approx(mparams[0], abs=mparams[1])
    assert FLOPS_PER_MAC * cost.macs / 1e9 == pytest.approx(gflops[0], abs=gflops[1])


@pytest.mark.parametrize(("name", "classes"), [(row[0], row[1]) for row in TEACHERS[1:3]])
def test_the_built_classifier_costs_the_same(name, classes):
    spec = parse_network(name)
    assert measured_cost(build_classifier(spec, 3, classes, 0), CIFAR) == teacher_cost(
        spec, CIFAR, classes
    )


def test_a_student_of_table_2_fits_its_budgets():
    # NoNN-2S: 0.43 M parameters and 167 MFLOPs per student; students of 34 and 46 filters;
    # budgets 0.5 M parameters and 200 MFLOPs.
    spec = parse_network("wrn16:32,64,88")
    cost = student_cost(spec, CIFAR, 34)
    assert cost.params / 1e6 == pytest.approx(0.43, abs=0.005)
    # The published students' widths are not known; these give 167 within 2.5 %.
    assert FLOPS_PER_MAC * cost.macs / 1e6 == pytest.approx(167, rel=0.025)
    for filters in (34, 46):
        student = student_cost(spec, CIFAR, filters)
        assert student.params < 0.5e6
        assert FLOPS_PER_MAC * student.macs < 200e6


def test_the_whole_nonn_of_table_2_is_smaller_than_its_students_together():
    # 0.82 M in all: G0 is counted once.
    spec = parse_network("wrn16:32,64,88")
    network = build_nonn([StudentShape(spec, 34), StudentShape(spec, 46)], 3, 10, 0)
    params = sum(parameter.numel() for parameter in network.parameters())
    assert params / 1e6 == pytest.approx(0.82, abs=0.02)
    apart = sum(student_cost(spec, CIFAR, filters).params for filters in (34, 46))
    assert params < apart
