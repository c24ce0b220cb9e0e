"""Bounds, needed images and warnings, by the number of validation images."""

from math import log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest
from scipy.stats import t as student_t

from nonn_core.evidence import (
    PairedAnswers,
    partition_warnings,
    student_t_quantile,
    student_warnings,
    wilson_bounds_pct,
)
from nonn_core.partition import Community, DropStep, Partition, TeacherReference


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 20, 21, 120, 1001])
def test_quantiles_of_students_t_are_scipys(freedom):
    for confidence in (0.5, 0.9, 0.95, 0.999):
        expected = student_t.ppf((1 + confidence) / 2, freedom)
        assert student_t_quantile(freedom, confidence) == pytest.approx(expected, rel=1e-10)


def test_bounds_of_a_published_table():
    # Airway hyper-responsiveness before and after a transplantation (Bentur et al. 2009): of 21
    # pairs 1 and 7 are discordant.  Fagerland, Lydersen and Laake (2014, Statistics in Medicine 33,
    # 2850-2875) print Tango's 95 % interval of the difference as -0.517 to -0.026.
    assert PairedAnswers(21, 1, 7).loss_bound_pct(97.5) == pytest.approx(-2.6, abs=0.05)
    assert PairedAnswers(21, 7, 1).loss_bound_pct(97.5) == pytest.approx(51.7, abs=0.05)


@pytest.mark.parametrize("images", [1, 135, 268, 5000])
def test_without_a_change_the_bound_is_wilsons(images):
    found = PairedAnswers(images, 0, 0).loss_bound_pct(95)
    # Of two equal tails of 5 % each, the upper end of Wilson's 90 % interval of 0 of n.
    known = binomtest(0, images).proportion_ci(0.9, method="wilson").high
    assert found == pytest.approx(100 * known)


def likelihood(images, lost, won, loss, share_won):
    """Logarithm of the likelihood of the three kinds of images, less a constant."""
    same = (images - lost - won, 1 - 2 * share_won - loss)
    kinds = ((lost, share_won + loss), (won, share_won), same)
    return sum(count * log(share) for count, share in kinds if count)


@settings(max_examples=60)
@given(st.integers(5, 400), st.integers(0, 40), st.integers(0, 40))
def test_at_the_bound_the_score_is_the_quantile(images, lost, won):
    lost, won = min(lost, images // 2), min(won, images // 2)
    bound = PairedAnswers(images, lost, won).loss_bound_pct(95) / 100
    least, most = max(0.0, -bound), (1 - bound) / 2
    if lost + won == 0 or most - least < 1e-6:
        return
    best = minimize_scalar(
        lambda q: -likelihood(images, lost, won, bound, q),
        bounds=(least + 1e-12, most - 1e-12),
        method="bounded",
        options={"xatol": 1e-12},
    ).x
    deviation = (images * (2 * best + bound - bound**2)) ** 0.5
    assert (lost - won - images * bound) / deviation == pytest.approx(-1.6448536, abs=2e-3)


def test_all_lost_is_all_lost():
    assert PairedAnswers(7, 7, 0).loss_bound_pct() == 100


@pytest.mark.parametrize(
    ("answers", "needed"),
    [
        # 2.7055 (100 - 1) = 267.8
        (PairedAnswers(135, 0, 0), 268),
        (PairedAnswers(1, 0, 0), 268),
        (PairedAnswers(135, 1, 1), 533),
    ],
)
def test_images_that_are_needed(answers, needed):
    assert answers.images_needed(1.0) == needed
    part = needed / answers.images
    assert PairedAnswers(needed, part * answers.lost, part * answers.won).loss_bound_pct() < 1
    part = (needed - 1) / answers.images
    assert PairedAnswers(needed - 1, part * answers.lost, part * answers.won).loss_bound_pct() >= 1


@pytest.mark.parametrize("lost", [10, 20])
def test_no_number_of_images_tells_a_loss_of_epsilon(lost):
    assert PairedAnswers(1000, lost, 0).images_needed(1.0) == 10**9


@pytest.mark.parametrize(("right", "images"), [(134, 135), (1, 1), (0, 9), (17, 51)])
def test_wilson_bounds_are_scipys(right, images):
    known = binomtest(right, images).proportion_ci(0.95, method="wilson")
    found = wilson_bounds_pct(100 * right / images, images, 97.5)
    assert found == pytest.approx((100 * known.low, 100 * known.high), abs=1e-9)


def made(**changes):
    """A partition of ten filters of a good teacher of three classes on 300 images."""
    nothing = DropStep(communities=(), filters=0, accuracy_pct=96.0, delta_val_pct=0.0)
    known = {
        "teacher": TeacherReference(
            path="t.safetensors",
            network="wrn10:4,6,10",
            fconv="trunk",
            data="digits",
            image="1x16x16",
            classes=3,
            params=1,
            macs=1,
            peak_elements=1,
        ),
        "rule": "AH",
        "gamma": 1.0,
        "seed": 0,
        "filters": 10,
        "images": 300,
        "modularity": 0.5,
        "epsilon_pct": 1.0,
        "fewest_class_images": 100,
        "communities": (
            Community(id=0, filters=tuple(range(5)), linked=True),
            Community(id=1, filters=tuple(range(5, 10)), linked=True),
        ),
        "drop_steps": (nothing,),
    }
    return Partition(**known | changes)


def dropping(delta_val_pct, **changes):
    steps = (
        DropStep(communities=(), filters=0, accuracy_pct=96.0, delta_val_pct=0.0),
        DropStep(
            communities=(1,), filters=5, accuracy_pct=96 + delta_val_pct,
            delta_val_pct=delta_val_pct,
        ),
    )  # fmt: skip
    return made(drop_steps=steps, **changes)


def test_a_partition_of_enough_warns_of_nothing():
    assert partition_warnings(made()) == ()
    assert partition_warnings(made(fewest_class_images=10)) == ()


def test_few_images_of_a_class_are_said():
    (said,) = partition_warnings(made(fewest_class_images=9))
    assert said.startswith("the rarest class has 9 validation images, fewer than 10")


@pytest.mark.parametrize(("accuracy", "images"), [(34.0, 5000), (39.9, 5000), (44.0, 30)])
def test_a_teacher_near_chance_is_said(accuracy, images):
    step = DropStep(communities=(), filters=0, accuracy_pct=accuracy, delta_val_pct=0.0)
    (said,) = partition_warnings(made(drop_steps=(step,), images=images))
    assert f"right on {accuracy} % of {images:,} validation images" in said
    assert "chance (33.3 %)" in said


def test_a_teacher_above_chance_is_not():
    step = DropStep(communities=(), filters=0, accuracy_pct=60.0, delta_val_pct=0.0)
    assert partition_warnings(made(drop_steps=(step,))) == ()


@pytest.mark.parametrize(("linked", "warned"), [(3, False), (2, True), (1, True)])
def test_a_network_that_leaves_most_filters_alone_is_said(linked, warned):
    communities = (
        Community(id=0, filters=tuple(range(linked)), linked=True),
        Community(id=1, filters=tuple(range(linked, 10)), linked=False),
    )
    said = partition_warnings(made(communities=communities))
    assert bool(said) == warned
    if warned:
        assert said[0].startswith(f"{10 - linked} of 10 filters have no link")
        assert "--link-percentile" in said[0]


def test_links_count_where_the_file_has_them():
    # All ten filters are in communities that were linked before P0 was taken out; two have a link.
    assert "8 of 10 filters have no link" in partition_warnings(made(links=((0, 5, 1.0),)))[0]


@pytest.mark.parametrize(
    ("delta", "images", "warned"),
    [(0.0, 135, True), (0.0, 268, False), (-0.9, 300, True), (-0.4, 2500, False), (0.5, 135, True)],
)
def test_a_drop_by_the_measured_value_alone_is_said(delta, images, warned):
    said = partition_warnings(dropping(delta, images=images))
    assert bool(said) == warned
    if warned:
        assert f"5 filters may go by the measured delta_val alone, but {images}" in said[0]
    # A problem that drops nothing has nothing to fear.
    assert partition_warnings(dropping(delta, images=images), 0.0) == ()


def test_students_of_few_filters_are_named():
    assert student_warnings({"student-1": 8, "student-2": 40}) == ()
    (said,) = student_warnings({"student-1": 7, "student-2": 40, "student-3": 1})
    assert "fewer than 8 filters know next to nothing: student-1 7, student-3 1;" in said
