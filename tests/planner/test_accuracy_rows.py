import pytest

from nonn_common.errors import InputError
from nonn_core.accuracy_report import published_accuracy
from nonn_core.experiments.table_rows import published_sizes, row_cost, table_design
from nonn_core.networks.blueprint import ImageShape
from nonn_core.partition import TeacherReference
from planner.accuracy.rows import TeacherFacts, published_rows

CIFAR_10 = "WRN40-4 on cifar-10"


def _row(title, name):
    return next(r for r in published_rows() if (r.teacher.title, r.name) == (title, name))


def test_each_published_row_is_there_once():
    names = [(row.teacher.title, row.name) for row in published_rows()]
    assert len(set(names)) == len(names) == 24
    by_teacher = {title: [n for t, n in names if t == title] for title, _ in names}
    assert {title: len(rows) for title, rows in by_teacher.items()} == {
        CIFAR_10: 12,
        "WRN28-10 on cifar-100": 6,
        "ResNet-152 on scene": 3,
        "ResNet-152 on cub": 3,
    }


def test_rows_without_a_published_whole_and_other_methods_are_left_out():
    names = {row.name for row in published_rows()}
    assert not names & {"splitnet-2g", "splitnet-4g", "nonn-2s-7m", "nonn-4s-4m", "teacher"}


@pytest.mark.parametrize(
    ("title", "name", "method", "students", "params", "macs"),
    [
        # Table 2: one model of 0.7 M parameters, 202 MFLOPs of two per multiply-accumulate.
        (CIFAR_10, "kd", "kd", 1, 0.7e6, 101e6),
        # Table 4: 10 times fewer parameters and 7.7 times fewer FLOPs than 8.9 M and 2.6 G.
        (CIFAR_10, "nonn-2s", "nonn", 2, 0.89e6, 1300e6 / 7.7),
        (CIFAR_10, "nonn-8s-xl", "nonn", 8, 8.9e6 / 2.9, 1000e6),
        # Built as NoNN-2S-XL, trained by plain KD.
        (CIFAR_10, "kd-nonn-2s-xl", "kd", 2, 8.9e6 / 11, 260e6),
        # Table 5: two students of 11 M each; this table counts one per multiply-accumulate.
        ("ResNet-152 on cub", "nonn-2s", "nonn", 2, 22e6, 4e9),
        ("ResNet-152 on cub", "atkd", "atkd", 1, 22e6, 4e9),
    ],
)
def test_a_row_has_the_size_of_all_boards(title, name, method, students, params, macs):
    row = _row(title, name)
    assert (row.method, row.students) == (method, students)
    assert (row.params, row.macs) == pytest.approx((params, macs))


def test_published_sizes_are_those_of_the_networks_laid_down_here():
    # Independent: closed-form cost of the rows' networks.  XL rows of 6 and 8 students compress
    # less than any layout with one G0 gives (decision 0015).
    for table, dataset in (("2", "cifar-10"), ("4", "cifar-10"), ("4", "cifar-100")):
        laid = table_design(table, dataset)
        for row in laid.rows[1:]:
            if row.name in ("nonn-6s-xl", "nonn-8s-xl"):
                continue
            cost = row_cost(
                row, laid.image, laid.classes, published_sizes(laid.teacher, row.students)
            )
            found = next(
                r
                for r in published_rows()
                if r.name == row.name and r.teacher.classes == laid.classes
            )
            assert found.params == pytest.approx(cost.fleet_params, rel=0.12)
            assert found.macs == pytest.approx(cost.fleet_macs, rel=0.06)


def test_accuracies_are_the_published_ones():
    part = published_accuracy().part("4", "cifar-100")
    for published in part.rows:
        row = _row("WRN28-10 on cifar-100", published.row)
        assert row.accuracy_pct == published.accuracy_pct
        assert row.teacher_accuracy_pct == 79.28


def test_a_network_by_name_is_like_the_published_teacher():
    teacher = TeacherFacts.of_network("WRN40-4", ImageShape(3, 32, 32), 10)
    published = _row(CIFAR_10, "nonn-2s").teacher
    assert teacher.like(published)
    assert not teacher.same(published)
    assert teacher.params == pytest.approx(published.params, rel=0.01)
    assert not TeacherFacts.of_network("wrn40-4", ImageShape(3, 32, 32), 100).like(published)
    assert not TeacherFacts.of_network("wrn16-2", ImageShape(3, 32, 32), 10).like(published)


def _reference(**changed):
    content = {
        "path": "t.safetensors",
        "network": "wrn16-2",
        "fingerprint": "abc",
        "fconv": "trunk",
        "data": "digits",
        "image": "1x8x8",
        "classes": 10,
        "params": 691674,
        "macs": 6_000_000,
        "peak_elements": 100,
    }
    return TeacherReference.model_validate(content | changed)


def test_the_teacher_of_a_partition_is_known_by_its_weights():
    teacher = TeacherFacts.of_reference(_reference())
    assert (teacher.params, teacher.macs, teacher.classes) == (691674, 6_000_000, 10)
    assert teacher.same(TeacherFacts.of_reference(_reference(params=1)))
    assert not teacher.same(TeacherFacts.of_reference(_reference(fingerprint="def")))


def test_foreign_networks_are_like_no_other():
    foreign = TeacherFacts.of_reference(_reference(network=None, fingerprint=None))
    assert not foreign.like(TeacherFacts.of_reference(_reference(network=None, fingerprint="x")))


def test_a_teacher_of_unknown_macs_is_refused():
    with pytest.raises(InputError, match="multiply-accumulates"):
        TeacherFacts.of_reference(_reference(macs=None))
