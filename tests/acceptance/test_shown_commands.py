"""Every command of the pages, run as written in the folder of a finished `make demo`.

`NONN_PLAN_DEMO=quickstart pytest tests/acceptance`.  What cannot run here (a download, hours,
another machine) is named with the reason, and must be spelled as the command takes it.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from nonn_plan.cli.app import commands

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs/tutorial.md", *sorted(ROOT.glob("docs/how-to/*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"pip |source |make |python3? -m venv|\.venv/bin/")
"""Commands of others: those that install, which CI has done before."""
NOT_RUN = {
    r"train-teacher --network wrn16-2 --data digits": "the demo's own, which made the teacher here",
    r"download ": "nothing outside this machine is asked for",
    r".*cifar-10-binary": "needs what was not downloaded, and hours",
    r"tune ": "trains four times",
    r"train train.yaml -o runs --seeds 5": "trains five times",
    r"quantise ": "trains again",
    r"ui": "stays until Ctrl-C; its own tests start it",
}
STAYS = ("emulate",)
WITHOUT_PLAN = 3
LEAST_S, MOST_S = 0.2, 600.0
NETWORK = """
import torch
from nonn_core.networks.family import parse_network


def trained():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(16, 2),
    ).eval()
"""
EXPORTED = """
import torch
from mypackage.nets import trained

images = torch.zeros(2, 3, 24, 20)
torch.export.save(torch.export.export(trained(), (images,)), "exported.pt2")
"""


def shown(page):
    """Each command of ours on a page, in order."""
    for kind, text in BLOCK.findall(page.read_text()):
        for line in text.replace("\\\n", " ").splitlines() if kind == "sh" else ():
            code = re.split(r"\s#", line)[0].strip()
            if code.startswith("nonn-plan "):
                yield code.removeprefix("nonn-plan ")
            else:
                assert not code or SHELL.match(code) or "nonn_plan" in code, code


def reason(command):
    return next((why for start, why in NOT_RUN.items() if re.match(start, command)), None)


def write_files(page, folder):
    """Files that a page shows: a block after the name of its file in backticks."""
    text = page.read_text()
    for match in BLOCK.finditer(text):
        if match[1] in ("csv", "yaml"):
            names = re.findall(rf"`([\w-]+\.{match[1]})`", text[: match.start()])
            if names:
                (folder / names[-1]).write_text(match[2])


@pytest.fixture
def folder(files, tmp_path):
    """Files that pages speak of, for one page alone: commands write over them."""
    return Path(shutil.copytree(files, tmp_path / "page"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    demo = os.environ.get("NONN_PLAN_DEMO")
    if not demo:
        pytest.skip("NONN_PLAN_DEMO does not name the folder of a finished `make demo`")
    place = tmp_path_factory.mktemp("pages")
    for name in ("teacher.safetensors", "teacher.json", "partition.json", "plan.json"):
        shutil.copy(Path(demo) / name, place)
    shutil.copytree(Path(demo) / "runs" / "nonn-0", place / "run")
    shutil.copy(place / "run" / "train.yaml", place / "train.yaml")
    rng = np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 6)):
        for label, name in enumerate(("cat", "dog")):
            (place / "photos" / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 90, (24, 20, 3)) + 150 * label
                Image.fromarray(pixels.astype(np.uint8)).save(
                    place / "photos" / part / name / f"{number}.png"
                )
    shutil.make_archive(str(place / "photos"), "tar", place / "photos")
    (place / "mypackage").mkdir()
    (place / "mypackage" / "__init__.py").touch()
    (place / "mypackage" / "nets.py").write_text(NETWORK)
    subprocess.run([sys.executable, "-c", EXPORTED], cwd=place, check=True, env=with_here(place))
    call(place, "evaluate run --plan plan.json")
    return place


def with_here(folder):
    path = os.pathsep.join(filter(None, (str(ROOT), str(folder), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def words(command):
    return [sys.executable, "-m", "nonn_plan", *shlex.split(command)]


def call(folder, command):
    return subprocess.run(
        words(command), cwd=folder, env=with_here(folder), capture_output=True, text=True,
        timeout=MOST_S, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def start(folder, command, made):
    """Start a command that stays, and wait for the file that it writes when it serves."""
    process = subprocess.Popen(
        words(command), cwd=folder, env=with_here(folder), stdout=subprocess.DEVNULL
    )
    ends = time.monotonic() + MOST_S
    while not made.exists() and time.monotonic() < ends and process.poll() is None:
        time.sleep(LEAST_S)
    assert made.exists()
    return process


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_a_page_run_as_they_are_shown(folder, page):
    write_files(page, folder)
    running, failed, asked = [], [], [one for one in shown(page) if not reason(one)]
    if any(command.startswith("train ") for command in asked):  # the page makes its own run
        shutil.rmtree(folder / "run")
        (folder / "train.yaml").unlink()
    try:
        for command in asked:
            if command.startswith(STAYS):
                running.append(start(folder, command, folder / "emulated.yaml"))
                continue
            said = call(folder, command)
            if said.returncode not in (0, WITHOUT_PLAN):
                failed.append((command, said.returncode, said.stderr[-600:]))
    finally:
        for process in running:
            process.send_signal(signal.SIGINT)
            process.wait(MOST_S)
    assert failed == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_a_page_are_spelled_as_they_are_taken(page):
    whole = typer.main.get_command(commands())
    for shown_command in shown(page):
        command, said = whole, shlex.split(shown_command)
        while said and said[0] in getattr(command, "commands", ()):
            command, said = command.commands[said[0]], said[1:]
        assert command is not whole, shown_command
        known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
        assert {word for word in said if word.startswith("-")} <= known, shown_command


def test_what_is_not_run_is_shown_somewhere():
    every = [command for page in PAGES for command in shown(page)]
    unused = [start for start in NOT_RUN if not any(re.match(start, one) for one in every)]
    assert unused == []
