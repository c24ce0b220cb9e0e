"""Hypothesis without clocks, drawing the same every time in CI; and which process runs what."""

import gc
import os

import pytest
from forked_python import end_templates
from hypothesis import settings

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

LONGEST = (
    *("test_run_export", "test_deployment_ncnn", "test_construction_quantised"),
    *("test_host_faults", "test_worker_hostile", "test_run_cached", "test_run_teacher"),
    *("test_accelerator_processes", "test_train_command", "test_loop", "test_copies_exhaustive"),
    *("test_export_command", "test_host_command", "test_planner_exhaustive", "test_quickstart"),
    *("test_explore_command", "test_worker_server", "test_worker_conformance", "test_slow_link"),
    "test_balance_exhaustive",
    "test_deployment",
)
"""Files that start first, so that all processes end at about the same time."""


UNTRACED = (
    *("test_planner_exhaustive", "test_copies_exhaustive", "test_front_exhaustive"),
    *("test_breakpoints_exhaustive", "test_balance_exhaustive", "test_planner_plans"),
    *("test_simulator_runs", "test_compiled_runs", "test_fan_out_properties"),
    *("test_points_exhaustive", "test_flash_exhaustive", "test_battery_exhaustive"),
    "test_split_properties",
)
"""Files that compare thousands of cases: a tracer would take as long again.  The coverage that is
asked for is that of all other tests."""


def pytest_collection_modifyitems(config, items):
    """Put the longest files first; the order within a file stays."""
    if config.pluginmanager.hasplugin("_cov"):
        for item in items:
            if item.path.stem in UNTRACED:
                item.add_marker(pytest.mark.no_cover)
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


def pytest_collection_finish():
    """Let the collector pass over modules and tests, which stay; and let it run less often."""
    from nonn_plan.__main__ import OBJECTS_BETWEEN_COLLECTIONS

    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)


def pytest_unconfigure():
    end_templates()
