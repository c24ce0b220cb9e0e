"""The real command, run in this process, on tiny real files."""

import json
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from nonn_plan.__main__ import run
from nonn_plan.cli.output import Output
from tests.terminal import WIDTHS, check_table, with_longest_names

CLASSES = ("left", "middle", "right")


@dataclass
class Said:
    """Output of one call of the command, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def document(self):
        return json.loads(self.out)


@pytest.fixture
def nonn_plan(monkeypatch, capsys):
    """Call `nonn-plan ARGUMENTS`."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["nonn-plan", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            run()
        said = capsys.readouterr()
        return Said(int(stopped.value.code or 0), said.out, said.err)

    return call


@pytest.fixture(autouse=True)
def every_view_fits_terminals(monkeypatch):
    """Each table that any test of a command shows is laid out for narrow and wide terminals, too.

    Once as it is, and once with the longest names of the library.
    """
    show, seen = Output.table, set()

    def table(self, title, columns, rows):
        rows = [tuple(row) for row in rows]
        show(self, title, columns, rows)
        if title not in seen and not self.__dict__.get("checked"):
            seen.add(title)
            monkeypatch.setattr(Output, "table", show)
            for width in WIDTHS:
                for some in (rows[:60], with_longest_names(rows[:60])):
                    check_table(width, title, columns, some)
            monkeypatch.setattr(Output, "table", table)

    monkeypatch.setattr(Output, "table", table)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """An image folder of three classes that a small network tells apart: which third is bright."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(1)
    for part, count in (("train", 30), ("test", 10)):
        for label, name in enumerate(CLASSES):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 120, (9, 9, 3))
                pixels[:, 3 * label : 3 * label + 3] += 120
                target = folder / part / name / f"{number}.png"
                Picture.fromarray(pixels.astype(np.uint8)).save(target)
    return folder


@pytest.fixture(scope="session")
def partition_document():
    """A partition of 81 filters, without a teacher: sizes {12, 14, 25, 30} of A, section 4.2."""
    sizes, start, communities = (12, 14, 25, 30), 0, []
    for number, size in enumerate(sizes):
        filters = list(range(start, start + size))
        communities.append({"id": number, "filters": filters, "linked": True})
        start += size
    nothing = {"communities": [], "filters": 0, "accuracy_pct": None, "delta_val_pct": None}
    return {
        "schema_version": 1,
        "teacher": None,
        "rule": "AH",
        "gamma": 1.0,
        "seed": 0,
        "filters": start,
        "images": None,
        "modularity": 0.5,
        "communities": communities,
        "drop_steps": [nothing],
    }


@pytest.fixture
def partition_file(tmp_path, partition_document):
    path = tmp_path / "partition.json"
    path.write_text(json.dumps(partition_document))
    return path


@pytest.fixture
def plan_arguments(partition_file, tmp_path):
    """Arguments of a plan that exists: two Raspberry Pis, published budgets."""
    return [
        "plan", partition_file, "--fleet", "rpi3x2", "--image", "3x32x32", "--classes", "10",
        "--student", "wrn16:32,64,64", "--student", "wrn16:16,32,64", "--students", "2",
        "--memory", "500KB", "--flops", "200M", "--precision", "int8",
        "-o", tmp_path / "plan.json",
    ]  # fmt: skip


@pytest.fixture
def replaced():
    """Put options into arguments, in place of what these say of them."""

    def call(arguments, *options):
        named = {each for each in options if str(each).startswith("-")}
        kept, words = [], iter(arguments)
        for word in words:
            if word in named:
                next(words)
            else:
                kept.append(word)
        return [*kept, *options]

    return call


@pytest.fixture
def changed(plan_arguments, replaced):
    """Arguments of that plan with these options, whatever it said of them before."""
    return partial(replaced, plan_arguments)


@pytest.fixture
def plan_file(nonn_plan, plan_arguments, tmp_path) -> Path:
    said = nonn_plan(*plan_arguments)
    assert said.code == 0, said.err
    return tmp_path / "plan.json"


@pytest.fixture
def simulated(nonn_plan):
    """Simulate two students on two Raspberry Pis, and return the JSON result."""

    def call(*arguments):
        said = nonn_plan(
            "simulate", "--student", "wrn16:32,64,88", "--fleet", "rpi3x2", "--students", 2,
            *arguments, "--json",
        )  # fmt: skip
        assert said.code == 0, said.err
        return said.document

    return call
