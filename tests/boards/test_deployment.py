"""Deployment over a real sshd to boards in namespaces; their workers are real, too."""

import json
import os
import platform
import shutil
import signal
import sys
import threading
import time
import zipfile
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from emulated_plans import bundle_of, made_fleet, made_plan
from forked_python import template
from ssh_boards import FOLDER, MISSING, make_key, ssh_boards, write_wheels

from boards.deployment import BoardProbe, Release, rollout
from boards.deployment.board_needs import wheelhouse
from boards.host.client import QuorumPolicy
from boards.host.session import open_client
from boards.protocol.address import BoardAddresses
from boards.tls.authority import make_keys
from boards.tls.credential import board_subject
from boards.tls.identity import Identity
from boards.tls.revocation import revoke_keys
from nonn_core.export.bundle import MANIFEST, Manifest, content_hash
from nonn_plan.__main__ import run
from nonn_plan.api import read_plan

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)
PORT = 8001
WIRED = {"name": "wired", "bits_per_s": 1e9}
SYSTEMCTL = f"""
echo "$@" >> {{log}}
case "$*" in
--version) echo "systemd 252 (252.39-1~deb12u1)" ;;
restart*)
    [ -f {FOLDER}/worker.pid ] && kill -9 -"$(cat {FOLDER}/worker.pid)"
    setsid {FOLDER}/current/run < /dev/null > /dev/null 2>&1 & ;;
*MainPID*) cat {FOLDER}/worker.pid 2> /dev/null || echo 0 ;;
*NRestarts*) echo 0 ;;
disable*) kill "$(cat {FOLDER}/worker.pid)" ;;
esac
"""
"""A record of what systemd was asked for; it starts what the unit would."""


def write_boards(path, places):
    """`boards.yaml` of these boards."""
    ssh = {"user": "root", "folder": FOLDER}
    rows = [
        {"name": name, "address": f"{host}:{PORT}", "ssh": ssh} for name, host in places.items()
    ]
    BoardAddresses.check({"boards": rows}, "this test").write(path)


def write_plan(home, name, *placed):
    """A plan with a student on each of these boards, and its bundle, beside the others."""
    plan = made_plan(made_fleet([WIRED] * 3), boards=[(each,) for each in placed], image="1x8x8")
    plan.write(home / f"{name}.json")
    bundle_of(plan, home / f"{name}-bundle")
    return plan


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """Boards `b0`, and `b1` with systemd; `b2`, which nobody answers for; `small` beside them."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        patch.delenv("SSH_AUTH_SOCK", raising=False)
        write_wheels(wheels())
        write_plan(home, "both", "b0", "b1")
        write_plan(home, "wide", "b0", "b0")
        write_plan(home, "three", "b0", "b1", "b2")
        write_plan(home, "one", "b0")
        make_keys(home / "keys", [board_subject(name) for name in ("b0", "b1", "b2")])
        asked = {"b0": {}, "b1": {"systemd": True}, "b2": None, "small": {"room": "1m"}}
        with ssh_boards(home, **asked) as (boards, places):
            write_boards(home / "boards.yaml", {name: places[name] for name in ("b0", "b1", "b2")})
            boards["b1"].program("systemctl", SYSTEMCTL.format(log=home / "systemctl.log"))
            # It answers for b0, so that its keys and its plan do.
            write_boards(home / "small.yaml", {"b0": places["small"]})
            yield home, boards


def wheels():
    probe = BoardProbe(machine=platform.machine(), python=sys.version_info[:2])
    return wheelhouse(probe, platform.libc_ver()[1])


@pytest.fixture
def deploy(fleet, monkeypatch, capsys):
    """Call `nonn-plan deploy` of a plan; gives the exit code and what became of each board."""
    monkeypatch.chdir(fleet[0])

    def call(plan, *arguments):
        named = (f"{plan}.json", f"{plan}-bundle") if plan else ()
        monkeypatch.setattr(sys, "argv", ["nonn-plan", "deploy", *named, *arguments, "--json"])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            run()
        said = capsys.readouterr()
        assert said.out, said.err
        found = {each["board"]: each for each in json.loads(said.out)["boards"]}
        return int(stopped.value.code or 0), found

    return call


@pytest.fixture
def serving(fleet, deploy):
    """Boards `b0` and `b1` that run the first plan."""
    code, _ = deploy("both")
    assert code == 0
    return fleet[1]


@contextmanager
def asking(policy):
    """A host that asks the boards of the first plan."""
    plan, identity = read_plan("both.json"), Identity.read(Path("keys/host"))
    addresses, bundle = BoardAddresses.read("boards.yaml"), Path("both-bundle")
    with closing(open_client(plan, bundle, addresses, identity, policy, "boards.yaml")) as client:
        assert client.wait_connected(30), client.down
        yield client


def states(boards):
    return {name: each["state"] for name, each in boards.items()}


def pid(board):
    return int((board.root / "worker.pid").read_text())


def test_each_board_gets_its_own_share_and_serves(fleet, serving, monkeypatch):
    monkeypatch.chdir(fleet[0])
    for number, name in enumerate(("b0", "b1")):
        release = serving[name].root / "current"
        shown = {str(path.relative_to(release)) for path in release.glob("[bk]*/*")}
        keys = {f"keys/{each}.pem" for each in ("authority", "certificate", "key")}
        models = {"bundle/manifest.json", f"bundle/student-{number}.fp32.onnx"}
        assert shown - {"keys/revoked.pem"} == keys | models
        assert (release / "keys/key.pem").read_bytes() == Path(f"keys/{name}/key.pem").read_bytes()
        assert (release / "keys").stat().st_mode & 0o777 == 0o700
        assert (release / "keys/key.pem").stat().st_mode & 0o777 == 0o600
    with asking(QuorumPolicy()) as client:
        assert client.ask(np.zeros((1, 1, 8, 8), np.float32)).missing == {}


def test_a_second_run_moves_nothing_and_restarts_nothing(serving, deploy):
    before = [pid(serving[name]) for name in ("b0", "b1")]
    code, boards = deploy("both")
    assert code == 0
    assert states(boards) == {"b0": "unchanged", "b1": "unchanged"}
    assert [each["moved_bytes"] for each in boards.values()] == [0, 0]
    assert [pid(serving[name]) for name in ("b0", "b1")] == before


def test_a_changed_plan_moves_what_changed_and_is_rolled_back(fleet, serving, deploy):
    board = serving["b0"]
    before = (board.root / "current").readlink()
    _, planned = deploy("wide", "--dry-run")
    assert states(planned) == {"b0": "planned"}
    assert (board.root / "current").readlink() == before
    code, boards = deploy("wide")
    assert code == 0
    assert boards["b0"]["state"] == "deployed"
    assert {*boards["b0"]["moved"]} == {"bundle/student-1.fp32.onnx", "worker.env", "run"}
    assert boards["b0"]["moved"] == planned["b0"]["moved"]
    assert boards["b0"]["students"] == ["student-0", "student-1"]
    write_boards(fleet[0] / "first.yaml", {"b0": board.address})
    assert states(deploy(None, "--rollback", "--boards", "first.yaml")[1]) == {"b0": "rolled back"}
    assert (board.root / "current").readlink() == before
    assert states(deploy("both")[1]) == {"b0": "unchanged", "b1": "unchanged"}


def test_one_dead_board_does_not_stop_the_others(serving, deploy, monkeypatch):
    monkeypatch.setattr(rollout, "CONNECT_S", 1.0)
    code, boards = deploy("three", "--dry-run")
    assert code == 1
    assert states(boards) == {"b0": "planned", "b1": "planned", "b2": "failed"}
    assert "cannot be reached by ssh" in boards["b2"]["reasons"][0]
    code, boards = deploy(None, "--status")
    assert code == 1
    assert states(boards) == {"b0": "serving", "b1": "serving", "b2": "failed"}


def test_another_architecture_is_refused(serving, deploy, monkeypatch):
    monkeypatch.setattr(rollout, "CONNECT_S", 1.0)
    fake = serving["b0"].program("uname", "echo armv6l")
    try:
        code, boards = deploy("three", "--dry-run")
    finally:
        fake.unlink()
    assert code == 1
    assert states(boards) == {"b0": "failed", "b1": "planned", "b2": "failed"}
    assert "found 'armv6l'; allowed: x86_64, aarch64, armv7l" in boards["b0"]["reasons"][0]


@pytest.mark.parametrize("what", ["host key", "own key"])
def test_who_is_not_known_is_not_trusted(fleet, deploy, tmp_path, monkeypatch, what):
    ssh = tmp_path / ".ssh"
    shutil.copytree(fleet[0] / ".ssh", ssh)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(fleet[0] / "cache"))
    if what == "host key":
        (ssh / "known_hosts").write_text("")
    else:
        (ssh / "id_ed25519").unlink()
        make_key(ssh / "id_ed25519")
    code, boards = deploy("one", "--dry-run")
    assert (code, boards["b0"]["state"]) == (1, "failed")
    said = {"host key": "does not know this board's host key", "own key": "takes none of your keys"}
    assert said[what] in boards["b0"]["reasons"][0]


def test_a_killed_deployment_leaves_the_old_release_and_the_next_goes_on(fleet, serving, deploy):
    home, board = fleet[0], serving["b0"]
    wheel = wheels() / "borrowed-1.0-py3-none-any.whl"
    content = wheel.read_bytes()
    before, current = pid(board), (board.root / "current").readlink()
    known = {path.name for path in (board.root / "environments").iterdir()}
    with zipfile.ZipFile(wheel, "a") as packed:
        packed.comment = b"other packages by their digest"
    try:
        process = template("boards.deployment.rollout").start(
            "-m", "nonn_plan", "deploy", "one.json", "one-bundle", cwd=home
        )
        while not {path.name for path in (board.root / "environments").iterdir()} - known:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.kill()
        process.communicate()
        assert pid(board) == before
        assert (board.root / "current").readlink() == current
        assert deploy(None, "--status")[1]["b0"]["state"] == "serving"
        code, boards = deploy("one")
        assert code == 0, boards["b0"]["reasons"]
        assert boards["b0"]["state"] == "deployed"
        assert "code.zip" not in boards["b0"]["moved"]
    finally:
        wheel.write_bytes(content)


def test_a_full_card_is_seen_before_anything_moves(fleet, deploy, monkeypatch):
    small = fleet[1]["small"]
    code, boards = deploy("one", "--boards", "small.yaml")
    assert (code, boards["b0"]["state"]) == (1, "failed")
    assert boards["b0"]["reasons"][0].startswith("room: found ")
    assert not small.root.exists()
    # And where the room is lost on the way.
    monkeypatch.setattr(Release, "room_bytes", lambda *_: 0)
    code, boards = deploy("one", "--boards", "small.yaml")
    assert (code, boards["b0"]["state"]) == (1, "failed")
    assert "No space left" in boards["b0"]["reasons"][0]
    assert list((small.root / "store").iterdir()) == list((small.root / "releases").iterdir()) == []
    assert deploy(None, "--status", "--boards", "small.yaml")[1]["b0"]["state"] == "absent"


def test_a_release_that_does_not_serve_gives_way_to_the_one_before(fleet, serving, deploy):
    home, board = fleet[0], serving["b0"]
    current = (board.root / "current").readlink()
    broken = home / "broken-bundle"
    shutil.copytree(home / "one-bundle", broken, dirs_exist_ok=True)
    shutil.copy(home / "one.json", home / "broken.json")
    manifest = json.loads((broken / MANIFEST).read_text())
    file = manifest["models"][0]["files"][0]
    content = b"no model"
    (broken / file["file"]).write_bytes(content)
    file |= {"sha256": content_hash(content), "size_bytes": len(content)}
    (broken / MANIFEST).write_text(json.dumps(manifest))
    Manifest.read(broken / MANIFEST)
    code, boards = deploy("broken")
    assert (code, boards["b0"]["state"]) == (1, "failed")
    assert "the worker ends as it starts" in boards["b0"]["reasons"][0]
    assert "student-0.fp32.onnx" in boards["b0"]["reasons"][0]
    assert "runs again" in boards["b0"]["reasons"][1]
    assert (board.root / "current").readlink() == current


def test_revocations_are_distributed_and_a_host_goes_on_meanwhile(fleet, serving, deploy):
    """One board after the other restarts; with one answer of two, no image is lost."""
    home, _ = fleet
    shutil.copytree(home / "keys", home / "keys-2")
    revoke_keys(home / "keys-2", ["b2"])
    answers, ending = [], threading.Event()

    def ask(client):
        while not ending.is_set():
            answers.append(client.ask(np.zeros((1, 1, 8, 8), np.float32)))
            time.sleep(0.02)

    with asking(QuorumPolicy(quorum=1)) as client:
        thread = threading.Thread(target=ask, args=(client,))
        thread.start()
        _, boards = deploy("both", "--keys", "keys-2")
        ending.set()
        thread.join()
    assert states(boards) == {"b0": "deployed", "b1": "deployed"}
    assert {tuple(each["moved"]) for each in boards.values()} == {("keys/revoked.pem",)}
    assert answers
    assert [each for each in answers if len(each.missing) > 1] == []
    revoke_keys(home / "keys-2", ["b1"])
    with pytest.raises(AssertionError, match="this board's certificate was taken back"):
        deploy("both", "--dry-run", "--keys", "keys-2")


@pytest.mark.parametrize("allowed", [True, False])
def test_sudo_is_used_where_the_user_is_not_root_and_never_asks(fleet, deploy, allowed):
    board = fleet[1]["small"]
    sudo = 'test "$1" = -n && shift && exec "$@"'
    refusal = 'echo "sudo: a password is required" >&2; exit 1'
    fakes = [
        board.program("id", "echo 1000"),
        board.program("sudo", sudo if allowed else refusal),
    ]
    try:
        _, found = deploy(None, "--status", "--boards", "small.yaml")
    finally:
        for fake in fakes:
            fake.unlink()
    assert found["b0"]["state"] == ("absent" if allowed else "failed")
    if not allowed:
        assert "a password is required; let sudo ask for no password" in found["b0"]["reasons"][0]


def test_a_worker_that_was_killed_is_started_again(serving):
    board = serving["b1"]
    supervisor = pid(board)
    tasks = Path(f"/proc/{supervisor}/task/{supervisor}/children")
    first = int(tasks.read_text().split()[0])
    os.kill(first, signal.SIGKILL)
    until_s = time.monotonic() + 60
    log = board.root / "worker.log"
    lines = log.read_text().count("serving ")
    while log.read_text().count("serving ") == lines:
        assert time.monotonic() < until_s
        time.sleep(0.1)
    assert int(tasks.read_text().split()[0]) != first


def calls(log):
    """Commands that systemd was given."""
    return [line for line in log.read_text().splitlines() if not line.startswith(("--", "show"))]


def test_systemd_gets_the_unit_and_everything_is_removed(fleet, serving, deploy):
    home, boards = fleet
    board, name = boards["b1"], "nonn-worker@b1.service"
    assert deploy(None, "--status")[1]["b1"]["service"] == "systemd"
    # Later releases need no new unit.
    first, *later = calls(home / "systemctl.log"), f"restart {name}"
    assert first[:3] == ["daemon-reload", f"enable {name}", *later]
    assert {*first[3:]} <= {*later}
    text = (board.units / name).read_text()
    assert f"ExecStart={FOLDER}/current/environment/bin/python -m nonn_plan worker" in text
    assert f"LoadCredential=key.pem:{FOLDER}/current/keys/key.pem" in text
    assert "/opt/nonn" not in text
    assert "/etc/nonn" not in text
    (board.root / "notes.txt").write_text("of the user")
    write_boards(home / "second.yaml", {"b1": board.address})
    code, found = deploy(None, "--remove", "--boards", "second.yaml")
    assert (code, found["b1"]["state"]) == (0, "removed")
    assert f"{FOLDER} keeps what is not ours: notes.txt" in found["b1"]["notes"][0]
    assert calls(home / "systemctl.log")[len(first) :] == [f"disable --now {name}", "daemon-reload"]
    assert not (board.units / name).exists()
    assert [path.name for path in board.root.iterdir()] == ["notes.txt"]
    # Otherwise it would be a folder of others.
    (board.root / "notes.txt").unlink()
    board.root.rmdir()


def test_removal_leaves_nothing(fleet, deploy):
    home, boards = fleet
    assert deploy("one")[0] == 0
    board = boards["b0"]
    worker = pid(board)
    write_boards(home / "first.yaml", {"b0": board.address})
    code, found = deploy(None, "--remove", "--boards", "first.yaml")
    assert (code, found["b0"]["state"], found["b0"]["notes"]) == (0, "removed", [])
    assert not board.root.exists()
    assert not Path(f"/proc/{worker}").exists() or " Z " in Path(f"/proc/{worker}/stat").read_text()
