"""Emulated fleets of stand-ins for workers: reached, killed, stopped, restarted, and removed."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import stand_in_worker
from emulated_plans import bundle_of, made_fleet, made_plan

from boards.emulation import iproute
from boards.emulation.emulated_fleet import emulated
from boards.emulation.iproute import run_command
from boards.emulation.namespace import LOOPBACK_ONLY, detect
from boards.emulation.worker_process import deferred_signals
from boards.tls.identity import Identity
from nonn_common.errors import BoardError, InputError

CAN = detect()
STAND_IN = (sys.executable, "-I", "-S", stand_in_worker.__file__)
LATE = {"name": "late", "latency_ms": 60.0}
WIRED = {"name": "wired", "bits_per_s": 1e9}

PLACES = [
    pytest.param(LOOPBACK_ONLY, id="loopback"),
    pytest.param(
        CAN,
        id="namespaces",
        marks=pytest.mark.skipif(
            not (CAN.namespaces and CAN.rates), reason=f"not here: {CAN.refused}"
        ),
    ),
]
LINKS = [pytest.param(LATE, id="relayed"), pytest.param(WIRED, id="direct")]

OWNER = """
import sys, time
from pathlib import Path
from boards.emulation.namespace import LOOPBACK_ONLY
from boards.emulation.emulated_fleet import emulated
from planner.plan_file.plan_document import PlanDocument
folder = Path(sys.argv[1])
with emulated(
    PlanDocument.read(folder / "plan.json"),
    folder / "bundle",
    capabilities=LOOPBACK_ONLY if sys.argv[2] == "loopback" else None,
    command=sys.argv[3:],
) as fleet:
    print(*(worker.pid for worker in fleet.workers.values()), fleet.keys.parent, flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A plan of two boards on late links, and a bundle that does for quick ones as well."""
    folder = tmp_path_factory.mktemp("emulated")
    plan_on(LATE).write(folder / "plan.json")
    bundle_of(plan_on(LATE), folder / "bundle")
    return folder


def plan_on(link):
    return made_plan(made_fleet([link] * 2), image="1x8x8")


def started(link, folder, can, **more):
    return emulated(plan_on(link), folder / "bundle", capabilities=can, command=STAND_IN, **more)


def place_of(fleet, board):
    return fleet.addresses.of(board, "this test").endpoint


def connected(fleet, board, beside=0):
    place = place_of(fleet, board)
    return socket.create_connection((place.host, place.port + beside), timeout=10)


def echoed(connection, content=b"still there?"):
    connection.sendall(content)
    said = b""
    while len(said) < len(content):
        piece = connection.recv(65536)
        assert piece
        said += piece
    return said


def told(fleet, board):
    """The arguments that a worker was started with, from its second port."""
    content = b""
    with connected(fleet, board, beside=1) as connection:
        while piece := connection.recv(65536):
            content += piece
    return json.loads(content)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_until(what):
    for _ in range(2000):
        if what():
            return
        time.sleep(0.01)
    pytest.fail("waited for 20 s in vain")


def own_namespaces(pid):
    if not CAN.namespaces:
        return []
    names = run_command(["ip", "netns", "list"]).split()
    return [name for name in names if name.startswith(f"nonn-{pid}-")]


def left_of(pid):
    """Namespaces and folders that a process left."""
    folders = Path(tempfile.gettempdir()).glob(f"nonn-{pid}-*")
    return [*own_namespaces(pid), *map(str, folders)]


@pytest.mark.parametrize("can", PLACES)
@pytest.mark.parametrize("link", LINKS)
def test_each_board_is_reached_on_all_its_ports_and_told_what_to_run(folder, can, link):
    with started(link, folder, can) as fleet:
        assert [board.name for board in fleet.addresses.boards] == ["b0", "b1"]
        for number, board in enumerate(("b0", "b1")):
            with connected(fleet, board) as connection:
                assert echoed(connection) == b"still there?"
            arguments = told(fleet, board)
            assert arguments[:3] == [str(folder / "bundle"), "--student", f"student-{number}"]
            assert arguments[arguments.index("--keys") + 1] == str(fleet.keys / board)
            assert arguments[arguments.index("--at-least") + 1] == f"student-{number}=5.000ms"
            Identity.read(fleet.keys / board).require("board")
        Identity.read(fleet.keys / "host").require("host")
        pids = [worker.pid for worker in fleet.workers.values()]
    assert not any(map(alive, pids))
    assert not fleet.keys.exists()


@pytest.mark.parametrize("can", PLACES)
def test_what_a_board_says_is_as_late_as_its_link(folder, can):
    with started(LATE, folder, can) as fleet, connected(fleet, "b0") as connection:
        begun = time.monotonic()
        echoed(connection)
        assert time.monotonic() - begun >= 0.119


@pytest.mark.parametrize("can", PLACES)
@pytest.mark.parametrize("link", LINKS)
def test_a_killed_worker_ends_its_connections_and_comes_back_at_the_same_address(folder, can, link):
    with started(link, folder, can) as fleet:
        worker, place = fleet.worker("b1"), place_of(fleet, "b1")
        with connected(fleet, "b1") as connection, connected(fleet, "b0") as other:
            echoed(connection)
            worker.kill()
            assert not worker.running
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""
            assert echoed(other) == b"still there?"
        first = worker.pid
        worker.restart()
        assert worker.pid != first
        assert place_of(fleet, "b1") == place
        with connected(fleet, "b1") as connection:
            assert echoed(connection) == b"still there?"
        assert told(fleet, "b1")[2] == "student-1"


def test_a_stopped_worker_says_nothing_until_it_goes_on_and_still_ends(folder):
    with started(WIRED, folder, LOOPBACK_ONLY) as fleet:
        worker = fleet.worker("b0")
        with connected(fleet, "b0") as connection:
            echoed(connection)
            worker.stop()
            connection.sendall(b"?")
            connection.settimeout(0.3)
            with pytest.raises(TimeoutError):
                connection.recv(1)
            assert worker.running
            worker.cont()
            connection.settimeout(10)
            assert connection.recv(1) == b"?"
        worker.stop()
    assert not alive(worker.pid)


def test_an_error_of_the_caller_removes_all(folder):
    with (
        pytest.raises(RuntimeError, match="of the caller"),
        started(LATE, folder, CAN) as fleet,
    ):
        raise RuntimeError("of the caller")
    assert not any(alive(worker.pid) for worker in fleet.workers.values())
    assert left_of(os.getpid()) == []


def test_a_relay_that_died_is_told_and_nothing_stays_behind(folder):
    with (
        pytest.raises(BoardError, match="the relay"),
        started(LATE, folder, LOOPBACK_ONLY) as fleet,
    ):
        assert fleet.relay.running
        relay = next(
            pid for pid in children_of(os.getpid()) if "boards.emulation.relay" in told_by(pid)
        )
        os.kill(relay, signal.SIGKILL)
        wait_until(lambda: not fleet.relay.running)
        fleet.worker("b0").restart()
    assert left_of(os.getpid()) == []


def children_of(pid):
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "stat").read_text().rpartition(")")[2].split()[1] == str(pid):
                yield int(entry.name)


def told_by(pid):
    return Path(f"/proc/{pid}/cmdline").read_text()


def test_a_worker_that_ends_at_once_is_an_error_with_its_words(folder):
    with (
        pytest.raises(BoardError, match=r"worker of b0 ended with 1: this board has no power"),
        emulated(
            plan_on(WIRED),
            folder / "bundle",
            capabilities=LOOPBACK_ONLY,
            command=(*STAND_IN, "--broken"),
        ),
    ):
        pytest.fail("no board serves")
    assert left_of(os.getpid()) == []


def test_keys_that_are_given_stay(folder, tmp_path):
    with started(WIRED, folder, LOOPBACK_ONLY, keys=tmp_path) as fleet:
        assert fleet.keys == tmp_path
        arguments = told(fleet, "b0")
        assert arguments[arguments.index("--keys") + 1] == str(tmp_path / "b0")
    assert tmp_path.exists()


def test_a_board_without_a_student_has_no_worker(folder):
    with (
        started(WIRED, folder, LOOPBACK_ONLY) as fleet,
        pytest.raises(InputError, match="allowed: b0, b1"),
    ):
        fleet.worker("b7")


def test_two_fleets_at_once_do_not_meet(folder):
    with started(LATE, folder, CAN) as first, started(LATE, folder, CAN) as second:
        places = {str(place_of(fleet, b)) for fleet in (first, second) for b in ("b0", "b1")}
        assert len(places) == 4
        first.worker("b0").kill()
        with connected(second, "b0") as connection:
            assert echoed(connection) == b"still there?"


def test_notes_say_what_is_not_emulated(folder):
    lossy = {"name": "lossy", "loss_pct": 2.0, "bits_per_s": 1e9, "latency_ms": 1.0}
    with started(lossy, folder, LOOPBACK_ONLY) as fleet:
        notes = "\n".join(fleet.limitations)
        assert "no network for each board" in notes
        assert "lossy: its loss of 2 % is not emulated" in notes
        assert "b0: 0.00205 ms on the wire are less than a relay costs" in notes
        assert "energy" in notes
        assert any("a relay between host and boards" in line for line in fleet.methods)


@pytest.mark.parametrize("can", PLACES)
def test_nothing_outlives_an_owner_that_is_killed(folder, can):
    kind = "loopback" if can is LOOPBACK_ONLY else "namespaces"
    command = [sys.executable, "-c", OWNER, str(folder), kind, *STAND_IN]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        *pids, place = process.stdout.readline().decode().split()
        assert all(alive(int(pid)) for pid in pids)
        process.kill()
        process.wait()
    wait_until(lambda: not any(alive(int(pid)) for pid in pids))
    assert Path(place).exists()
    # The next fleet removes what is left in the system.
    with started(LATE, folder, can):
        assert left_of(process.pid) == []


def test_a_signal_waits_until_all_is_cleaned_up():
    done = []

    def stopped(number, frame):
        done.append("stopped")

    before = signal.signal(signal.SIGTERM, stopped)
    try:
        with deferred_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
            done.append("cleaned up")
        assert done == ["cleaned up", "stopped"]
        assert signal.getsignal(signal.SIGTERM) is stopped
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_link_has_a_short_name_of_its_own():
    names = {iproute.new_link_name() for _ in range(100)}
    assert len(names) == 100
    assert max(map(len, names)) <= 15
