import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_bundle import make_bundle

from boards.profiling.benchmark_model import (
    TEACHERS,
    BenchmarkModel,
    benchmark_models,
    bundled_benchmark_models,
    write_benchmark_bundle,
)
from boards.profiling.stopwatch import Stopwatch, Timing
from boards.profiling.student_benchmark import (
    StudentTime,
    compute_model,
    family_errors,
    held_out_errors_pct,
    measure_students,
)
from boards.worker.model_runtime import load_models
from nonn_common.errors import InputError
from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network, student_candidates

MEMBERS = benchmark_models(TEACHERS, ("3x32x32", "1x8x8"))


def timed(student, ms):
    return StudentTime(student, Timing(ms, 0.0, 1))


def synthetic(fixed_ms, ms_per_mmac, noise=None):
    noise = noise if noise is not None else np.ones(len(MEMBERS))
    return [
        timed(student, factor * (fixed_ms + ms_per_mmac * student.macs / 1e6))
        for student, factor in zip(MEMBERS, noise, strict=True)
    ]


@given(st.floats(0.001, 100), st.floats(0.001, 10))
def test_the_fit_finds_the_figures_that_made_the_times(fixed_ms, ms_per_mmac):
    model = compute_model(synthetic(fixed_ms, ms_per_mmac))
    assert model.fixed_ms.value == pytest.approx(fixed_ms, rel=1e-3)
    assert model.ms_per_mmac.value == pytest.approx(ms_per_mmac, rel=1e-3)
    assert model.fixed_ms.provenance == "measured"
    assert model.fixed_ms.residual_pct < 0.1


@given(st.floats(0.01, 10), st.floats(0.01, 1), st.integers(0, 1000))
def test_noise_of_five_percent_leaves_errors_of_that_order(fixed_ms, ms_per_mmac, seed):
    noise = np.random.default_rng(seed).uniform(0.95, 1.05, len(MEMBERS))
    rows = synthetic(fixed_ms, ms_per_mmac, noise)
    errors = held_out_errors_pct(rows, compute_model(rows))
    assert len(errors) == sum(student.held_out for student in MEMBERS)
    assert max(errors) < 15


def test_students_held_out_are_not_seen_but_their_error_is_told():
    rows = synthetic(1.0, 0.1)
    off = [timed(row.student, row.timing.ms * (2 if row.student.held_out else 1)) for row in rows]
    assert compute_model(off) == compute_model(rows)
    model = compute_model(off)
    assert held_out_errors_pct(off, model) == pytest.approx([50.0] * 14, abs=0.1)
    told = {(each.kind, each.held_out): each for each in family_errors(off, model)}
    assert told["wrn 1x8x8", True].mean_pct == pytest.approx(50, abs=0.1)
    assert told["wrn 1x8x8", False].largest_pct < 0.1
    assert sum(each.students for each in told.values()) == len(MEMBERS)


def test_members_are_a_planners_candidates_and_their_ends_are_fitted():
    *students, anchor = benchmark_models(["wrn16-2"], ["1x8x8"])
    candidates = {str(spec) for spec in student_candidates(parse_network("wrn16-2"))}
    assert {student.network for student in students} <= candidates
    macs = [student.macs for student in students]
    assert macs == sorted(macs)
    assert len(set(macs)) == len(macs) == 15
    assert not students[0].held_out
    assert not students[-1].held_out
    assert sum(student.held_out for student in students) == 7
    assert anchor.network == "wrn10:32,64,128"
    assert anchor.macs >= 3 * students[-1].macs
    assert not anchor.held_out
    assert len({student.name for student in MEMBERS}) == len(MEMBERS)


def test_families_that_cannot_read_an_image_are_left_out():
    assert {student.kind for student in MEMBERS} == {
        "wrn 3x32x32", "wrn 1x8x8", "resnet 3x32x32", "resnet 1x8x8", "vgg 3x32x32"
    }  # fmt: skip
    with pytest.raises(InputError, match="can read such an image"):
        benchmark_models(["vgg19"], ["1x8x8"])


@pytest.mark.parametrize("teacher", ["wrn40-4", "vgg19", "resnet34", "mobilenetv2-cifar"])
def test_one_teachers_students_have_a_wider_one_of_their_depth_beside_them(teacher):
    *students, anchor = benchmark_models([teacher], ["3x64x64"], per_teacher=3)
    largest = students[-1]
    assert 3 * largest.macs <= anchor.macs <= 40 * largest.macs
    assert anchor.kind == largest.kind


@pytest.mark.parametrize(("teacher", "image"), [("lenet", "1x8x8"), ("wrn16-2", "8x8")])
def test_what_is_no_network_or_image_is_refused(teacher, image):
    with pytest.raises(InputError, match=r"not the name of a network|not an image shape"):
        benchmark_models([teacher], [image])


def bundle_of(tmp_path, networks):
    manifest = make_bundle(tmp_path / "bundle", filters=(4,) * len(networks))
    models = tuple(
        model.model_copy(update={"network": network})
        for model, network in zip(manifest.models, networks, strict=True)
    )
    return manifest.model_copy(update={"models": models})


def test_students_of_a_bundle_are_members(tmp_path):
    networks = ("wrn10:8,8,8", "wrn10:4,4,4", "wrn16:8,8,8", "wrn16:16,16,16")
    students = bundled_benchmark_models(bundle_of(tmp_path, networks), "bundle")
    assert [student.network for student in students] == [networks[k] for k in (1, 0, 2, 3)]
    assert [student.held_out for student in students] == [False, True, False, False]
    assert students[0] == BenchmarkModel("student-1", "wrn10:4,4,4", ImageShape(1, 8, 8), 4)


@pytest.mark.parametrize("networks", [(None, None), ("wrn10:4,4,4",), ("wrn10:4,4,4",) * 3])
def test_a_bundle_must_hold_students_of_two_sizes(tmp_path, networks):
    with pytest.raises(InputError, match="one size"):
        bundled_benchmark_models(bundle_of(tmp_path, networks), "bundle")


def test_each_student_is_computed_as_the_worker_computes_it(tmp_path):
    students = benchmark_models(["wrn16-2"], ["1x8x8"], per_teacher=3)
    write_benchmark_bundle(tmp_path / "bundle", students, "fp32")
    models = load_models(tmp_path / "bundle", [student.name for student in students])
    found = measure_students(students, models, 0.0, Stopwatch(sleep=lambda _: None))
    assert [row.student for row in found.rows] == list(students)
    assert all(row.timing.ms > 0 for row in found.rows)
