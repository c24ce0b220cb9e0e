import pytest

from nonn_core.accuracy_report import PublishedRobustness
from nonn_core.experiments.table_results import robustness_result

PUBLISHED = PublishedRobustness(mean_accuracy_above_pct={2: 60.0}, best_single_student_pct=82.82)


def test_subsets_of_three_students_and_two_seeds():
    """By hand: means over seeds are a 25, b 35, c 60; ab 50, ac 60, bc 85; abc 95."""
    first = {"a": 20, "b": 30, "c": 60, "a b": 40, "a c": 60, "b c": 80, "a b c": 90}
    second = {"a": 30, "b": 40, "c": 60, "a b": 60, "a c": 60, "b c": 90, "a b c": 100}
    found = robustness_result([first, second], PUBLISHED)
    rows = [(one.boards, one.subsets, one.lowest_pct, one.highest_pct) for one in found.answering]
    assert rows == [(1, 3, 25, 60), (2, 3, 50, 85), (3, 1, 95, 95)]
    assert [one.mean_pct for one in found.answering] == pytest.approx([40, 65, 95])
    assert [one.published_above_pct for one in found.answering] == [None, 60.0, None]
    assert found.best_single_student_pct == 60
    assert found.published_best_single_student_pct == 82.82


def test_imputed_features_have_a_mean_of_their_own():
    zeros, imputed = {"a": 20, "b": 30, "a b": 90}, {"a": 80, "b": 70, "a b": 90}
    found = robustness_result([zeros, zeros], PUBLISHED, [imputed, imputed | {"a": 90}])
    assert [one.mean_pct for one in found.answering] == [25, 90]
    assert [one.imputed_mean_pct for one in found.answering] == [77.5, 90]
    older = robustness_result([zeros], PUBLISHED)
    assert [one.imputed_mean_pct for one in older.answering] == [None, None]


def test_one_seed():
    found = robustness_result([{"a": 10.0, "b": 20.0, "a b": 30.0}], PUBLISHED)
    assert [one.mean_pct for one in found.answering] == [15.0, 30.0]
