"""Files for boards: lists of packages that suffice, and a unit that systemd takes."""

import shutil
import signal
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from made_bundle import make_bundle
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from boards.tls.authority import make_keys
from boards.tls.credential import board_subject

ROOT = Path(__file__).parents[2]
LISTS = ROOT / "docs" / "requirements"
UNIT = ROOT / "docs" / "systemd" / "nonn-worker@.service"
SYSTEMD = shutil.which("systemd-analyze")
OTHER_ON_32_BIT = {"cffi", "cryptography", "numpy"}

# Hides what a board does not have; then runs the command, or a line of code.
ON_A_BOARD = """
import sys
from importlib.machinery import PathFinder

class Board(PathFinder):
    absent = set(sys.argv[1].split(","))

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in cls.absent:
            return None
        return PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Board
del sys.argv[1]
"""
COMMAND = f"{ON_A_BOARD}from nonn_plan.__main__ import run; run()"


def listed(name):
    """Return the requirements of a list and of those that it names."""
    found = []
    for line in (LISTS / name).read_text().splitlines():
        if line.startswith("-r "):
            found += listed(line.removeprefix("-r "))
        elif not line.startswith("#"):
            found.append(Requirement(line))
    return found


def installed_by(name):
    """Return the packages that come with a list, those that they need in turn included."""
    waiting = [each.name for each in listed(name)]
    found = set()
    while waiting:
        package = canonicalize_name(waiting.pop())
        if package not in found:
            found.add(package)
            needs = [Requirement(each) for each in requires(package) or ()]
            waiting += [
                each.name
                for each in needs
                if each.marker is None or each.marker.evaluate({"extra": ""})
            ]
    return found


@cache
def absent(name):
    """Return all importable packages here that a board with this list does not have."""
    there = installed_by(name) | {"nonn-plan"}
    return ",".join(
        module
        for module, packages in packages_distributions().items()
        if not there & {canonicalize_name(each) for each in packages}
    )


def start(name, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, absent(name), *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip


@pytest.fixture
def on_board(tmp_path):
    """A board's bundle and keys."""
    make_bundle(tmp_path / "bundle")
    make_keys(tmp_path / "keys", [board_subject("pi")])
    return tmp_path


@pytest.mark.parametrize("name", ["worker.txt", "profile.txt", "worker-32bit.txt"])
def test_bounds_are_those_of_the_package(name):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    parts = project["optional-dependencies"]
    lines = [*project["dependencies"], *parts["train"], *parts["boards"], *parts["ncnn"]]
    bounds = {each.name: each.specifier for each in map(Requirement, lines)}
    others = OTHER_ON_32_BIT if "32bit" in name else set()
    for each in listed(name):
        if each.name not in others:
            assert each.specifier == bounds[each.name], each.name


def test_a_worker_needs_no_more_than_its_list(on_board):
    worker = start(
        "worker.txt", "worker", on_board / "bundle", "--student", "0",
        "--listen", "127.0.0.1:0", "--keys", on_board / "keys" / "pi",
        "--metrics", "127.0.0.1:0",
    )  # fmt: skip
    with worker:
        first = worker.stdout.readline()
        worker.send_signal(signal.SIGTERM)
        _, err = worker.communicate()
    assert first.startswith("serving student-0"), err
    assert worker.returncode == 0, err
    assert "onnxruntime" not in absent("worker.txt").split(",")
    assert {"torch", "ortools", "scipy", "onnx"} <= set(absent("worker.txt").split(","))


def test_without_onnxruntime_a_worker_asks_for_models_of_ncnn(on_board):
    worker = start(
        "worker-32bit.txt", "worker", on_board / "bundle", "--student", "0",
        "--listen", "127.0.0.1:0", "--keys", on_board / "keys" / "pi",
    )  # fmt: skip
    with worker:
        _, err = worker.communicate()
    assert "onnxruntime" in absent("worker-32bit.txt").split(",")
    assert "no ncnn model of student-0" in err
    assert worker.returncode == 2


def test_keys_are_shown_on_a_board(on_board):
    shown = start("worker.txt", "keys", "show", on_board / "keys")
    with shown:
        out, err = shown.communicate()
    assert shown.returncode == 0, err
    assert "pi" in out


@pytest.mark.parametrize(
    ("name", "module", "works"),
    [
        ("profile.txt", "boards.profiling.profile_report", True),
        ("worker.txt", "boards.profiling.profile_report", False),
    ],
)
def test_a_profile_needs_its_list(name, module, works):
    done = subprocess.run(
        [sys.executable, "-c", f"{ON_A_BOARD}import {module}", absent(name)],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert (done.returncode == 0) is works, done.stderr


@pytest.mark.skipif(SYSTEMD is None, reason="there is no systemd-analyze here")
def test_systemd_takes_the_unit(tmp_path):
    """It only warns of keys that it does not know."""
    text = UNIT.read_text().replace("/opt/nonn/bin/nonn-plan", sys.executable)
    assert sys.executable in text
    for name, content in (
        (UNIT.name, text),
        ("wrong@.service", text.replace("ProtectClock", "ProtectClok")),
    ):
        (tmp_path / name).write_text(content)
    told = [
        subprocess.run(
            [SYSTEMD, "verify", tmp_path / f"{name}@rpi-3b-1.service"],
            capture_output=True, text=True, check=False,
        ).stderr
        for name in ("nonn-worker", "wrong")
    ]  # fmt: skip
    assert str(tmp_path) not in told[0]
    assert "ProtectClok" in told[1]
