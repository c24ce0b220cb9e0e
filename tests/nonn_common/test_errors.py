import pytest

from nonn_common import errors


def test_a_message_says_where_what_found_allowed_and_the_next_step():
    error = errors.InputError(
        "unknown field",
        where="plan.json",
        found="x" * 200,
        allowed="a known field",
        fix="remove it",
    )
    text = str(error)
    assert text.startswith("plan.json: unknown field; found 'xxx")
    assert text.endswith("...; allowed: a known field; remove it")
    assert len(text) < 160


def test_parts_that_are_not_known_are_left_out():
    assert str(errors.InputError("no such file")) == "no such file"


def test_zero_is_something_found():
    assert str(errors.InputError("must be positive", found=0)) == "must be positive; found 0"


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        (errors.ProfileError, errors.InputError),
        (errors.InfeasibleError, errors.PlanningError),
        (errors.UnprovenError, errors.PlanningError),
        (errors.SimulationError, errors.NonnError),
        (errors.PartitionError, errors.NonnError),
        (errors.TrainingError, errors.NonnError),
        (errors.ExportError, errors.NonnError),
        (errors.BoardError, errors.NonnError),
    ],
)
def test_the_tree_is_the_one_drawn(kind, base):
    assert issubclass(kind, base)
    assert kind.__name__ in (errors.__doc__ or "")
