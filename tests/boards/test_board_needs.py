"""Needs of boards, what goes to them, and the agent's refusals; without ssh."""

import asyncio
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime
from functools import partial
from io import BytesIO

import pytest
from emulated_plans import bundle_of, made_fleet, made_plan
from packaging.tags import platform_tags
from ssh_boards import write_wheels

from boards.deployment import (
    BoardFacts,
    BoardOutcome,
    BoardProbe,
    board_shares,
    make_payload,
    packed_code,
)
from boards.deployment import board_needs as needs
from boards.deployment.board_agent import READY, Agent, serve
from boards.deployment.board_service import RefusalError
from boards.deployment.rollout import run_on_boards
from boards.protocol.address import BoardAddresses
from boards.tls.authority import make_keys
from boards.tls.credential import board_subject
from nonn_common import silent
from nonn_common.errors import BoardError, InputError, StoppedError
from nonn_core.export.bundle import MANIFEST, Manifest

ARM = BoardProbe(machine="aarch64", python=(3, 11))
SHORT = BoardProbe(machine="armv7l", python=(3, 13))
SYSTEMD = shutil.which("systemd-analyze")
FACTS = {
    "time_s": datetime.now(UTC).timestamp(),
    "available_bytes": 10**9,
    "free_bytes": 10**9,
    "glibc": "2.36",
    "lacks": (),
    "service": "systemd",
    "systemd": 252,
    "foreign": "",
    "current": None,
    "previous": None,
    "running": False,
    "store": (),
    "environments": (),
}


@pytest.fixture(scope="module")
def share(tmp_path_factory):
    """Share of one board of a plan, its bundle, and where it would be deployed."""
    folder = tmp_path_factory.mktemp("share")
    plan = made_plan(made_fleet([{"name": "wired"}]), image="1x8x8")
    bundle_of(plan, folder / "bundle")
    make_keys(folder / "keys", [board_subject("b0")])
    place = BoardAddresses.check({"boards": [{"name": "b0", "address": "[::1]:9001"}]}, "test")
    manifest = Manifest.read(folder / "bundle" / MANIFEST)
    (found,) = board_shares(plan, manifest, place, folder / "keys", "boards.yaml")
    return found, folder / "bundle"


@pytest.mark.parametrize(
    ("fact", "said"),
    [
        ({}, None),
        ({"time_s": 0.0}, "clock: found 1970-01-01 00:00 UTC; allowed: "),
        ({"available_bytes": 10**7}, "memory: found 10.0 MB; allowed: at least 115.0 MB free; end"),
        ({"glibc": ""}, "C library: found no glibc, or an old one; allowed: glibc 2.17 or newer"),
        ({"systemd": 247}, "systemd: found 247; allowed: 250 or newer, or none"),
        ({"systemd": 0, "service": "process"}, None),
        ({"foreign": "photos"}, "folder: found photos; allowed: an empty one"),
        ({"lacks": ("numpy",)}, None),
    ],
)
def test_a_board_that_cannot_take_its_share_says_why(share, fact, said):
    found = needs.board_faults(share[0], ARM, BoardFacts.check({**FACTS, **fact}, "test"))
    assert len(found) == (said is not None)
    assert said is None or found[0].startswith(said)


def test_a_32_bit_board_needs_packages_of_its_system_and_models_of_ncnn(share):
    facts = BoardFacts.check({**FACTS, "lacks": ("numpy", "cffi")}, "test")
    (found,) = needs.board_faults(share[0], SHORT, facts)
    assert found.startswith("packages of the system: found no numpy, cffi; allowed: cffi, numpy")
    with pytest.raises(InputError, match=r"no ncnn model of student-0.*export --ncnn"):
        make_payload(*share, SHORT, ())


@pytest.mark.parametrize(
    ("machine", "python", "said"),
    [
        ("riscv64", (3, 12), "architecture: no packages.*'riscv64'.*aarch64"),
        ("aarch64", (3, 9), "Python: too old.*'3.9'.*3.11 or newer"),
        ("armv7l", (0, 0), "Python: too old, or not there; found 'none'"),
    ],
)
def test_boards_without_packages_are_refused(machine, python, said):
    with pytest.raises(InputError, match=said):
        needs.require_kind(machine, python)


def test_platforms_are_those_that_pip_takes_on_such_a_machine():
    taken = set(platform_tags())
    glibc = platform.libc_ver()[1]
    assert {*needs.platforms(platform.machine(), glibc)} <= taken
    assert needs.platforms("aarch64", "2.19")[:3] == (
        "manylinux_2_19_aarch64", "manylinux_2_18_aarch64", "manylinux_2_17_aarch64",
    )  # fmt: skip


def test_wheels_that_are_not_there_are_an_error_with_the_next_step(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(BoardError, match=r"wheels for armv7l, Python 3.13.*package index once"):
        needs.fetch_wheels(SHORT, "2.36")
    assert list(needs.cache_folder().iterdir()) == []


def test_code_is_packed_the_same_each_time_and_without_what_was_compiled():
    first = packed_code()
    packed_code.cache_clear()
    assert packed_code() == first
    assert b".pyc" not in first


@pytest.mark.skipif(SYSTEMD is None, reason="there is no systemd-analyze here")
def test_systemd_takes_the_unit_of_a_release(share, tmp_path):
    payload = make_payload(*share, ARM, ())
    files = {one.path: payload.content(one.sha256).decode(errors="replace")
             for one in payload.release.files}  # fmt: skip
    assert files["worker.env"] == "WORKER=--student student-0 --listen [::]:9001\n"
    # Programs must be there to be verified.
    text = files["worker.service"].replace("/opt/nonn-plan/current/environment/bin/python",
                                           sys.executable)  # fmt: skip
    (tmp_path / "nonn-worker@b0.service").write_text(text)
    done = subprocess.run(
        [SYSTEMD, "verify", tmp_path / "nonn-worker@b0.service"], capture_output=True, text=True
    )
    assert "nonn-worker" not in done.stderr, done.stderr


def test_a_folder_of_others_is_not_touched(tmp_path):
    (tmp_path / "photos").mkdir()
    agent = Agent(tmp_path, "b0")
    assert agent.facts()["foreign"] == "photos"
    with pytest.raises(RefusalError, match="holds something else"):
        agent.prune()
    assert agent.remove() == ["photos"]
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def asked(folder, *requests):
    """Answers of an agent to requests and the bytes that follow them."""
    lines, writer = [], BytesIO()
    for request, content in requests:
        opening = {"folder": str(folder), "board": "b0"}
        lines += [json.dumps({**opening, **request}).encode() + b"\n", content]
    serve(BytesIO(b"".join(lines)), writer)
    ready, *answers = writer.getvalue().decode().splitlines()
    assert ready == READY
    return [json.loads(line) for line in answers]


def put(content, digest):
    return {"do": "put", "sha256": digest, "size": len(content), "mode": 0o600}, content


def test_a_damaged_file_is_not_stored_and_the_next_one_is(tmp_path):
    whole = "fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9"
    answers = asked(
        tmp_path / "made" / "here", put(b"bad", whole), put(b"bar", whole), ({"do": "facts"}, b"")
    )
    assert answers[0]["refused"]["what"] == "a file came damaged"
    assert answers[1] == {"answer": None}
    assert answers[2]["answer"]["store"] == [whole]
    # One that lost its content on the card is not counted, and comes again.
    (tmp_path / "made" / "here" / "store" / whole).write_bytes(b"b")
    assert asked(tmp_path / "made" / "here", ({"do": "facts"}, b""))[0]["answer"]["store"] == []
    asked(tmp_path / "made" / "here", ({"do": "remove"}, b""))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", ["/", "opt", "/opt/../etc", "/opt/a b", "/opt/$(id)", "/opt/"])
def test_a_folder_that_a_shell_or_a_unit_would_misread_is_refused(folder):
    rows = [{"name": "b0", "address": "h:1", "ssh": {"folder": folder}}]
    with pytest.raises(InputError, match="folder"):
        BoardAddresses.check({"boards": rows}, "boards.yaml")


def test_a_board_without_keys_stops_the_command_before_any_is_asked(share, tmp_path):
    plan = made_plan(made_fleet([{"name": "wired"}]), image="1x8x8")
    place = BoardAddresses.check({"boards": [{"name": "b0", "address": "h:1"}]}, "test")
    manifest = Manifest.read(share[1] / MANIFEST)
    with pytest.raises(InputError, match=r"no such file.*keys init"):
        board_shares(plan, manifest, place, tmp_path, "boards.yaml")


def test_a_signal_ends_the_work_on_all_boards_and_handlers_come_back():
    before = signal.getsignal(signal.SIGINT)

    async def wait(name):
        if name == "b1":
            os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)

    with pytest.raises(StoppedError, match="stopped by Ctrl-C"):
        run_on_boards({name: partial(wait, name) for name in ("b0", "b1")}, silent)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_failure_on_one_board_is_its_outcome():
    async def work(name):
        if name == "b0":
            raise BoardError("cannot be reached")
        return BoardOutcome(board=name, state="deployed")

    outcomes = run_on_boards({name: partial(work, name) for name in ("b0", "b1")}, silent)
    assert [(one.board, one.good) for one in outcomes] == [("b0", False), ("b1", True)]
    assert outcomes[0].reasons == ("cannot be reached",)


def test_packages_are_installed_by_pip_without_an_index(share, tmp_path):
    write_wheels(tmp_path / "wheels", real_pip=True)
    here = BoardProbe(machine=platform.machine(), python=sys.version_info[:2])
    payload = make_payload(*share, here, sorted((tmp_path / "wheels").iterdir()))
    release = payload.release
    agent = Agent(tmp_path / "made", "b0")
    try:
        for one in (*release.files, *release.wheels):
            content = payload.content(one.sha256)
            agent.handle(put(content, one.sha256)[0], BytesIO(content))
        agent.prepare(release.model_dump(mode="json"))
    finally:
        agent.close()
    made = tmp_path / "made" / "releases" / release.name
    python = made / "environment" / "bin" / "python"
    shown = subprocess.run(
        [python, "-c", "import nonn_plan, grpc; print(nonn_plan.__file__)"],
        env={"PYTHONPATH": str(made / "code")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert shown.stdout == f"{made / 'code' / 'nonn_plan' / '__init__.py'}\n", shown.stderr
    assert list((made / "code" / "nonn_plan").rglob("*.pyc"))
    listed = {path.name for path in (made / "environment").rglob("*.dist-info")}
    assert listed == {"borrowed-1.0.dist-info"}
