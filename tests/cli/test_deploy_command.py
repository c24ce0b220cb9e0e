"""`nonn-plan deploy`: what it refuses, and what it shows where no board answers."""

import socket

import pytest

from boards.tls.authority import make_keys
from boards.tls.credential import board_subject


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Keys, and the address of a board at which nobody listens for ssh."""
    make_keys(tmp_path / "keys", [board_subject("rpi-3b-1")])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    (tmp_path / "boards.yaml").write_text(
        "boards:\n- {name: rpi-3b-1, address: '127.0.0.1:8001', "
        f"ssh: {{user: pi, port: {port}}}}}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("flag", ["--status", "--rollback", "--remove"])
def test_a_board_that_does_not_answer_is_named(folder, nonn_plan, flag):
    said = nonn_plan("deploy", flag, "--json")
    assert said.code == 1
    (board,) = said.document["boards"]
    assert (board["board"], board["state"]) == ("rpi-3b-1", "failed")
    assert "cannot be reached by ssh at 127.0.0.1" in board["reasons"][0]
    assert said.err.endswith("nonn-plan: 1 of 1 boards failed: rpi-3b-1\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "which plan?"),
        (("--status", "--remove"), "one of these at a time"),
        (("--status", "--boards", "none.yaml"), "none.yaml: no such file"),
        (("--status", "--keys", "none"), "no such file"),
    ],
)
def test_wrong_usage_is_refused_before_any_board_is_asked(folder, nonn_plan, arguments, told):
    said = nonn_plan("deploy", *arguments)
    assert (said.code, said.out) == (2, "")
    assert told in said.err
