"""The base part alone: what works in it, and what a command says whose part is missing."""

import json

import pytest
from forked_python import run_forked, template

from nonn_plan.cli.app import COMMANDS, PARTS_OF_COMMANDS, missing_part

# Hides the packages of all other parts, before anything else is imported.
BASE = """
import sys
from importlib.machinery import PathFinder
from nonn_plan.cli.app import PACKAGES_OF_SEVERAL_PARTS, PARTS_OF_PACKAGES

HIDDEN = {*PARTS_OF_PACKAGES, *PACKAGES_OF_SEVERAL_PARTS} - {"PIL"}

class Base(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            return None
        return PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Base
"""
COMMON = (
    "nonn_plan.cli.commands.plan",
    "nonn_plan.cli.commands.simulate",
    "nonn_plan.cli.commands.explore",
    "planner.solve",
    "planner.exploration.exploration",
)
"""Modules that most of these commands import."""


@pytest.fixture
def base(tmp_path):
    """Call `nonn-plan ARGUMENTS` with the base part alone."""

    def call(*arguments):
        process = template(*COMMON, before=BASE)
        return run_forked(process, "-m", "nonn_plan", *arguments, cwd=tmp_path)

    return call


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("quickstart",), "train"),
        (("train", "train.yaml"), "train"),
        (("partition", "teacher.safetensors"), "train"),
        (("download", "mnist"), "train"),
        (("keys", "show", "keys"), "boards"),
        (("worker", "bundle", "--student", 0, "--insecure"), "boards"),
        (("ui",), "ui"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_command_says_which_part_is_missing(base, arguments, part):
    said = base(*arguments)
    assert said.returncode == 2
    assert said.stderr.startswith(f"nonn-plan: `{arguments[0]}` needs the package ")
    assert said.stderr.endswith(f"pip install 'nonn-plan[{part}]'\n")


def test_every_command_with_a_part_is_one():
    assert set(PARTS_OF_COMMANDS) < set(COMMANDS)


@pytest.mark.parametrize(
    ("package", "command", "part"),
    [("sklearn.datasets", "host", "train"), ("onnxruntime", "host", "boards"),
     ("onnxruntime", "export", "train"), ("pyarrow", "simulate", "parquet")],
)  # fmt: skip
def test_the_part_is_the_one_that_has_the_package(package, command, part):
    error = missing_part(ModuleNotFoundError(f"No module named {package!r}", name=package), command)
    assert f"'nonn-plan[{part}]'" in str(error)


def test_a_module_of_no_part_is_an_error_of_ours():
    with pytest.raises(ModuleNotFoundError, match="planer"):
        missing_part(ModuleNotFoundError("No module named 'planer'", name="planer"), "plan")


def test_the_base_plans_explains_and_simulates(base, plan_arguments, tmp_path):
    assert "train-teacher" in base("--help").stdout
    planned = base(*plan_arguments)
    assert planned.returncode == 0, planned.stderr
    assert base("explain", "plan.json").returncode == 0
    assert base("config", "plan.json", "--data", "digits", "--teacher", "t").returncode == 0
    said = base("simulate", "plan.json", "-o", "tables", "--json")
    assert said.returncode == 0, said.stderr
    document = json.loads(said.stdout)
    assert "nonn-plan[parquet]" in document["left_out"][0]
    assert {path.suffix for path in (tmp_path / "tables").iterdir()} == {".csv"}


def test_the_base_sweeps_and_explores(base, partition_file, tmp_path):
    sweep = ("sweep", "--from", "rpi-3b", "--to", "odroid-xu4s", "--student", "wrn16:32,64,88")
    assert base(*sweep, "-o", "sweep.csv").returncode == 0
    refused = base(*sweep, "-o", "sweep.parquet")
    assert refused.returncode == 2
    assert "nonn-plan[parquet]" in refused.stderr
    said = base(
        "explore", partition_file, "--fleet", "rpi3x2", "--image", "3x32x32", "--classes", 10,
        "--student", "wrn16:16,32,64", "--memory", "2MB,3MB", "--jobs", 1, "--json",
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert "nonn-plan[parquet]" in json.loads(said.stdout)["left_out"][0]
    assert (tmp_path / "explore" / "cells.csv").exists()
    assert not list((tmp_path / "explore").glob("*.parquet"))
