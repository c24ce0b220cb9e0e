"""The results that are committed are what the program reads and writes."""

from pathlib import Path

import pytest

from nonn_core.evidence import partition_warnings
from nonn_core.experiments.table_results import Experiment, TableResults
from nonn_core.partition import Partition
from nonn_plan.cli.views.table_report import table_markdown

RESULTS = Path(__file__).parents[2] / "results"


def each(*patterns):
    files = [file for pattern in patterns for file in sorted(RESULTS.glob(pattern))]
    return pytest.mark.parametrize("file", files, ids=lambda it: f"{it.parent.name}/{it.name}")


@each("*/table-*.json", "*/fig8.json")
def test_a_table_and_its_page_say_the_same(file):
    found = TableResults.read(file)
    assert file.with_suffix(".md").read_text() == table_markdown(found)
    assert Experiment.read(file.parent / "experiment.yaml") == found.experiment
    for row in found.rows:
        assert row.accuracy_pct == pytest.approx(
            sum(run.accuracy_pct for run in row.runs) / len(row.runs)
        )


@each("*/partition.json")
def test_a_partition_is_one(file):
    found = Partition.read(file)
    assert found.filters > 1
    # Made by the measured delta_val alone, as published; 2,500 images carry what was dropped.
    assert found.confidence_pct is None
    assert partition_warnings(found) == ()
