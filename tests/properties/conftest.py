import pytest

from planner.data import problem_data


@pytest.fixture(autouse=True)
def _as_large_ones(request, monkeypatch):
    """Half of the drawn instances are searched as large ones are: kicks, due dates, then models."""
    params = getattr(getattr(request.node, "callspec", None), "params", {})
    if params.get("part", params.get("seed", 0)) % 2:
        monkeypatch.setattr(problem_data, "FEW_CHOICES", 0)
