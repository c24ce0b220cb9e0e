"""Hypothesis without clocks, drawing the same every time in CI; and which process runs what."""

import os

import pytest
from forked_python import end_templates
from hypothesis import settings

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

GROUPS = {
    "conversions": ("test_run_export", "test_deployment_ncnn", "test_construction_quantised"),
    "workers": (
        *("test_host_faults", "test_worker_hostile", "test_worker_server"),
        *("test_worker_conformance", "test_slow_link"),
    ),
    "processes": (
        *("test_run_cached", "test_run_teacher", "test_accelerator_processes"),
        "test_train_command",
    ),
}
"""Files that share what takes long to make: one process runs them. All others stand alone."""
LONGEST = (
    *GROUPS,
    *("test_loop", "test_copies_exhaustive", "test_export_command"),
    *("test_host_command", "test_planner_exhaustive", "test_quickstart", "test_explore_command"),
)
"""What starts first, so that all processes end at about the same time."""


_GROUP_OF = {file: name for name, files in GROUPS.items() for file in files}
_ORDER = {name: place for place, name in enumerate(LONGEST)}


def _group(item):
    return _GROUP_OF.get(item.path.stem, item.path.stem)


def pytest_itemcollected(item):
    """Keep the tests of a file together, as its fixtures are made once and later tests read them.

    xdist reads the marks before a hook on all items could set them.
    """
    item.add_marker(pytest.mark.xdist_group(_group(item)))


def pytest_collection_modifyitems(items):
    """Put the longest first; the order within a file stays."""
    items.sort(key=lambda item: _ORDER.get(_group(item), len(_ORDER)))


def pytest_unconfigure():
    end_templates()
