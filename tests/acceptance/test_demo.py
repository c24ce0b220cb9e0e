"""The promises of `make demo`, checked on what it wrote: `NONN_PLAN_DEMO=quickstart pytest`."""

import json
import os
from pathlib import Path

import pytest

from boards.board_fit import check_board_fit
from nonn_core.data.dataset import load_dataset
from nonn_core.distillation.run import load_run
from nonn_core.evidence import partition_warnings, student_warnings
from nonn_core.partition import Partition
from nonn_plan.api import read_plan


@pytest.fixture(scope="module")
def demo():
    folder = os.environ.get("NONN_PLAN_DEMO")
    if not folder:
        pytest.skip("NONN_PLAN_DEMO does not name the folder of a finished `make demo`")
    return Path(folder)


@pytest.fixture
def models(demo):
    return json.loads((demo / "summary.json").read_text())["models"]


def test_the_teacher_is_good_and_does_not_fit(models):
    teacher = models[0]
    assert teacher["accuracy_pct"] >= 98
    assert not teacher["within_budgets"]


def test_the_nonn_keeps_up_with_its_teacher_and_with_plain_distillation(models):
    teacher, nonn, single = models
    assert len(nonn["accuracies_pct"]) == len(single["accuracies_pct"]) == 3
    assert nonn["accuracy_pct"] >= teacher["accuracy_pct"] - 1.5
    assert nonn["accuracy_pct"] >= single["accuracy_pct"]
    assert abs(single["total_params"] / nonn["total_params"] - 1) < 0.1


def test_nothing_of_it_rests_on_too_little(demo):
    partition, plan = Partition.read(demo / "partition.json"), read_plan(demo / "plan.json")
    assert (partition.images, partition.fewest_class_images) == (135, 13)
    assert partition_warnings(partition) == ()
    assert student_warnings({one.name: len(one.filters) for one in plan.students}) == ()
    # 135 images are no evidence that one filter may go.
    assert plan.dropped == ()
    assert partition.images_needed > 135


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_built_students_fit_their_boards_and_share_g0_alone(demo, seed):
    _, network = load_run(demo / "runs" / f"nonn-{seed}", load_dataset("digits"))
    assert all(fit.fits for fit in check_board_fit(read_plan(demo / "plan.json"), network))
    shared = {id(parameter) for parameter in network.group0.parameters()}
    seen = set()
    for student in network.deployed():
        own = {id(parameter) for parameter in student.parameters()} - shared
        assert not own & seen
        seen |= own
