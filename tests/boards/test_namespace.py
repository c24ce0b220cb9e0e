"""Namespaces and shaped links, as root: rates by lower bounds, and nothing left behind."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from ipaddress import IPv4Network

import pytest
from emulated_plans import made_fleet

from boards.emulation import iproute
from boards.emulation.iproute import configure, run_command
from boards.emulation.namespace import (
    ADDRESS_RANGES,
    Capabilities,
    board_namespaces,
    detect,
    free_blocks,
    used_networks,
)
from nonn_common.errors import BoardError
from profiles.fleet import resolve

CAN = detect()

namespaces = pytest.mark.skipif(
    not (CAN.namespaces and CAN.rates), reason=f"no namespaces or no tbf here: {CAN.refused}"
)
shared_channels = pytest.mark.skipif(
    not CAN.shared_channels, reason=f"no ifb with mirred here: {CAN.refused}"
)

SLEEP = "import time; time.sleep(600)"
MOVE = """
import socket, sys
with socket.create_server((sys.argv[1], 9000)) as listener:
    print("listening", flush=True)
    while True:
        connection, _ = listener.accept()
        with connection:
            size = int.from_bytes(connection.recv(8), "big")
            if sys.argv[2] == "down":
                while size:
                    size -= len(connection.recv(min(size, 65536)))
                connection.sendall(b"!")
            else:
                connection.sendall(bytes(size))
"""


def boards_on(*links):
    _, boards = resolve(made_fleet(list(links)))
    return boards


@contextmanager
def mover(place, direction):
    """A process in the board's namespace that takes, or sends, as many bytes as it is told."""
    command = [sys.executable, "-I", "-S", "-c", MOVE, place.board, direction]
    within = ["ip", "netns", "exec", place.namespace]
    with subprocess.Popen([*within, *command], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"listening\n"
            yield
        finally:
            process.kill()


def move(place, direction, size):
    with socket.create_connection((place.board, 9000), timeout=30) as connection:
        connection.sendall(size.to_bytes(8, "big"))
        left = size
        if direction == "down":
            connection.sendall(bytes(size))
            left = 1
        while left:
            piece = connection.recv(65536)
            assert piece
            left -= len(piece)


def moved_s(moves):
    """How long it takes to move bytes to or from several boards at once."""
    threads = [threading.Thread(target=move, args=each) for each in moves]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.monotonic() - begun


def links():
    """Links of this process; others may have theirs."""
    found = json.loads(run_command(["ip", "-j", "link", "show"]))
    return {each["ifname"] for each in found if each.get("ifalias") == iproute.owner_tag()}


def spaces():
    """Namespaces of this process."""
    names = run_command(["ip", "netns", "list"]).split()
    return {name for name in names if name.startswith(iproute.owner_tag())}


@namespaces
@pytest.mark.parametrize("direction", ["down", "up"])
def test_bytes_take_as_long_as_the_rate_of_the_link_says(direction):
    slow = {"name": "slow", "bits_per_s": 10e6}
    with board_namespaces(boards_on(slow), CAN) as places, mover(places["b0"], direction):
        assert moved_s([(places["b0"], direction, 1_000_000)]) >= 0.75


@namespaces
@shared_channels
def test_the_card_of_the_host_sends_to_one_board_after_the_other_and_receives_at_once():
    slow = {"name": "slow", "bits_per_s": 10e6}
    with (
        board_namespaces(boards_on(slow, slow), CAN) as places,
        mover(places["b0"], "down"),
        mover(places["b1"], "down"),
    ):
        assert moved_s([(place, "down", 500_000) for place in places.values()]) >= 0.75


@namespaces
@shared_channels
def test_boards_on_one_medium_share_its_rate_in_both_directions():
    air = {"name": "air", "bits_per_s": 10e6, "duplex": "half", "shared": True}
    with (
        board_namespaces(boards_on(air, air), CAN) as places,
        mover(places["b0"], "down"),
        mover(places["b1"], "up"),
    ):
        both = [(places["b0"], "down", 500_000), (places["b1"], "up", 500_000)]
        assert moved_s(both) >= 0.75


@namespaces
@shared_channels
def test_a_slower_link_than_that_of_the_card_keeps_its_own_rate():
    fast, slow = {"name": "fast", "bits_per_s": 1e9}, {"name": "slow", "bits_per_s": 10e6}
    with board_namespaces(boards_on(fast, slow), CAN) as places, mover(places["b1"], "down"):
        assert moved_s([(places["b1"], "down", 500_000)]) >= 0.37


@namespaces
def test_all_is_removed_after_an_error_also_in_the_middle():
    before = links(), spaces()
    with (
        pytest.raises(RuntimeError, match="of the caller"),
        board_namespaces(boards_on("wired-100mbit", "wifi"), CAN),
    ):
        assert spaces() - before[1]
        raise RuntimeError("of the caller")
    assert (links(), spaces()) == before
    # netem, that this kernel may lack, is asked for when the first links are there already.
    if not CAN.delays:
        pretended = Capabilities(
            namespaces=True, rates=True, shared_channels=CAN.shared_channels, delays=True
        )
        with (
            pytest.raises(BoardError, match="qdisc"),
            board_namespaces(boards_on("wifi"), pretended),
        ):
            pytest.fail("the kernel has no netem")
        assert (links(), spaces()) == before


@namespaces
def test_two_fleets_at_once_have_networks_of_their_own():
    boards = boards_on("wired-100mbit", "wired-100mbit")
    with board_namespaces(boards, CAN) as first, board_namespaces(boards, CAN) as second:
        addresses = [
            address
            for places in (first, second)
            for place in places.values()
            for address in (place.board, place.host)
        ]
        assert len(set(addresses)) == 8
        assert len({place.namespace for place in (*first.values(), *second.values())}) == 4


@namespaces
def test_what_a_dead_owner_left_is_removed_and_what_a_living_one_has_is_not():
    with subprocess.Popen([sys.executable, "-c", SLEEP]) as process:
        theirs = f"nonn-{process.pid}-{iproute._start_ticks(process.pid)}"
        left, kept = f"{theirs}-0", iproute.new_tagged_name()
        # The PID of this process, but of one that began at another time.
        again = f"nonn-{os.getpid()}-1-0"
        link = iproute.new_link_name()
        within = ["ip", "netns", "exec", left, sys.executable, "-c", SLEEP]
        try:
            for name in (left, kept, again):
                run_command(["ip", "netns", "add", name])
            configure(
                "ip",
                [f"link add {link} type veth peer name {link}p", f"link set {link} alias {theirs}"],
            )
            with subprocess.Popen(within) as sleeper:
                while str(sleeper.pid) not in run_command(["ip", "netns", "pids", left]).split():
                    time.sleep(0.01)
                iproute.remove_networks()
                assert sleeper.poll() is None
                process.kill()
                process.wait()
                iproute.remove_networks()
                assert sleeper.wait(10) == -9
            names = {line.split()[0] for line in run_command(["ip", "netns", "list"]).splitlines()}
            assert not {left, again} & names
            assert kept in names
            assert link not in run_command(["ip", "link", "show"])
        finally:
            process.kill()
            for name in (left, kept, again):
                iproute.remove_namespace(name)
            iproute.remove_link(link)


def test_a_probe_leaves_nothing_and_says_why_something_is_missing():
    before = (links(), spaces()) if CAN.namespaces else None
    found = detect()
    assert found.namespaces >= found.rates >= found.shared_channels
    assert bool(found.refused) == (not (found.shared_channels and found.delays))
    if before:
        assert (links(), spaces()) == before


def test_without_the_tools_nothing_can_be_emulated(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    found = detect()
    assert not found.namespaces
    assert "could not be run" in found.refused[0]


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv"
)
def test_without_the_right_to_it_nothing_can_be_emulated():
    code = "from boards.emulation.namespace import detect; print(detect())"
    weak = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    done = subprocess.run(
        [*weak, sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "namespaces=False, rates=False" in done.stdout


def test_blocks_of_addresses_are_those_that_are_not_in_use():
    used = [
        IPv4Network("198.18.0.0/30"),
        IPv4Network("198.18.0.9/32"),
        IPv4Network("198.18.1.0/24"),
        IPv4Network("192.168.0.0/24"),
    ]
    blocks = free_blocks(63, used)
    assert [str(block) for block in blocks[:2]] == ["198.18.0.4/30", "198.18.0.12/30"]
    assert str(blocks[-1]) == "198.18.2.0/30"
    assert not any(block.overlaps(network) for block in blocks for network in used)


def test_a_range_that_is_taken_whole_is_passed_over_and_none_is_an_error():
    assert free_blocks(1, [ADDRESS_RANGES[0]])[0].subnet_of(ADDRESS_RANGES[1])
    with pytest.raises(BoardError, match=r"free in 198\.18\.0\.0/15 and 10\.198\.0\.0/15: 0"):
        free_blocks(1, [IPv4Network("198.0.0.0/8"), IPv4Network("10.0.0.0/8")])


@pytest.mark.skipif(not CAN.namespaces, reason="needs the tool ip")
def test_this_machine_uses_its_loopback_network():
    assert IPv4Network("127.0.0.0/8") in used_networks()
