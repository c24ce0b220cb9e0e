"""docs/boards.md: each command in it exists, with each of its options."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from nonn_plan.cli.app import commands

GUIDE = Path(__file__).parents[2] / "docs" / "boards.md"


def typed():
    """Return each call of nonn-plan in the guide's blocks of commands, as words."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", GUIDE.read_text(), re.DOTALL))
    lines = blocks.replace("\\\n", " ").splitlines()
    code = [line.partition(" #")[0] for line in lines]
    calls = [line.partition("nonn-plan ")[2] for line in code if "nonn-plan " in line]
    return [shlex.split(call) for call in calls]


@pytest.fixture(scope="module")
def whole():
    return typer.main.get_command(commands())


def test_the_guide_has_commands_for_each_step():
    names = {words[0] for words in typed()}
    assert {"export", "keys", "worker", "profile", "host", "validate"} <= names


@pytest.mark.parametrize("words", typed(), ids=" ".join)
def test_a_command_of_the_guide_exists(whole, words):
    command = whole
    while hasattr(command, "commands"):
        assert words[0] in command.commands
        command, words = command.commands[words[0]], words[1:]
    known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    assert {word for word in words if word.startswith("-")} <= known
