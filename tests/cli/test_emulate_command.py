"""`emulate`, as a process of its own: it stays until it is told to end, and leaves nothing."""

import json
import os
import signal
import socket
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from emulated_plans import bundle_of, made_fleet, made_plan
from forked_python import template

from boards.emulation.iproute import run_command
from boards.emulation.namespace import detect
from boards.protocol.address import BoardAddresses
from boards.tls.identity import Identity

CAN = detect()
EMULATE = (
    "nonn_plan.cli.commands.host",
    "boards.emulation.emulated_fleet",
    "boards.tls.authority",
    "simulator.workloads.closed_form",
)
"""Modules that `emulate` imports."""
HANG_UP_ENDS_IT = """
import signal
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from nonn_plan.__main__ import run
run()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("emulate")
    plan = made_plan(made_fleet(["wired-100mbit"] * 2, message_ms=3.0), image="1x8x8")
    plan.write(folder / "plan.json")
    bundle_of(plan, folder / "bundle")
    return folder


@contextmanager
def emulating(folder, out, *more):
    """A fleet that serves; what the command printed until then.

    A process starts with the signals ignored that its parent ignores, as under `nohup`; here all
    three must end it.
    """
    command = [HANG_UP_ENDS_IT, "emulate", "plan.json", "bundle", "-o", out, *more]
    with template(*EMULATE).start("-c", *command, cwd=folder) as process:
        try:
            yield process
        finally:
            process.kill()


def document(process):
    text = ""
    for line in process.stdout:
        text += line
        if line == "}\n":
            return json.loads(text)
    pytest.fail(f"no document: {text}; {process.stderr.read()}")


def left_of(pid):
    names = run_command(["ip", "netns", "list"]).split() if CAN.namespaces else []
    links = run_command(["ip", "link", "show"]).split() if CAN.namespaces else []
    folders = map(str, Path(tempfile.gettempdir()).glob(f"nonn-{pid}-*"))
    return [each for each in (*names, *links, *folders) if f"nonn-{pid}-" in each]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("more", [(), ("--loopback",)])
def test_it_says_where_the_boards_are_and_ends_without_a_trace(folder, tmp_path, number, more):
    out = tmp_path / "boards.yaml"
    with emulating(folder, out, "--json", *more) as process:
        said = document(process)
        assert [board["name"] for board in said["boards"]] == ["b0", "b1"]
        assert BoardAddresses.read(out).model_dump(mode="json")["boards"] == said["boards"]
        Identity.read(Path(said["keys"])).require("host")
        for board in BoardAddresses.read(out).boards:
            with socket.create_connection((board.endpoint.host, board.endpoint.port), timeout=10):
                pass
        # 2 x (3 ms + 0.02 ms on the wire), 5 ms of computing, 12 bytes back.
        assert said["expected_ms"] == pytest.approx(11.04, abs=0.01)
        assert any("namespace" in line for line in said["emulated"]) == (
            CAN.namespaces and not more
        )
        assert said["not_emulated"]
        process.send_signal(number)
        assert process.wait(30) == 0
        assert "the fleet has ended" in process.stderr.read()
    assert left_of(process.pid) == []


def test_people_read_what_is_emulated_and_how_to_go_on(folder, tmp_path):
    out = tmp_path / "boards.yaml"
    with emulating(folder, out) as process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("next:"):
                break
        text = "".join(lines)
        assert "student-1" in text
        assert "not emulated:\n  - " in text
        assert "expected: 11.0 ms" in text
        assert f"nonn-plan host plan.json bundle --boards {out} --keys " in text
        os.kill(_worker_of(process.pid), signal.SIGKILL)
        assert "has ended" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def _worker_of(pid):
    """One of the workers that a fleet started."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            command = (entry / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == str(pid) and b"worker" in command:
            return int(entry.name)
    return pytest.fail("no worker")


def test_another_file_is_not_replaced(folder, tmp_path, nonn_plan):
    out = tmp_path / "notes.yaml"
    out.write_text("mine: true\n")
    said = nonn_plan("emulate", folder / "plan.json", folder / "bundle", "-o", out)
    assert said.code == 2
    assert "is not replaced" in said.err
    assert out.read_text() == "mine: true\n"


def test_a_folder_that_is_no_bundle_is_wrong_input(folder, tmp_path, nonn_plan):
    out = tmp_path / "boards.yaml"
    said = nonn_plan("emulate", folder / "plan.json", tmp_path, "-o", out)
    assert said.code == 2
    assert "manifest.json: no such file" in said.err
    assert not out.exists()
