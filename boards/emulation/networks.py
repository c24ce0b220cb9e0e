"""Networks for emulated boards: a namespace for each, and a shaped link from the host's side.

::

    this machine                       namespace of the board
    nn... 198.18.0.1  <-- veth pair --> eth0 198.18.0.2      what each end sends is shaped there

Boards on one medium send, and are sent to, through one ifb with the medium's rate.  The host's
card is serial: what it sends to all boards on links of their own goes through one ifb as well.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from itertools import groupby

from boards.emulation.capabilities import Capabilities, redirect
from boards.emulation.owner import (
    new_link,
    new_name,
    remove_link,
    remove_namespace,
    remove_networks,
    tag,
)
from boards.emulation.shaping import link_lines, packet_bytes, rate_line
from boards.emulation.subnets import free_blocks, used_networks
from boards.emulation.system import configure
from profiles.errors import BoardError
from profiles.fleet import Board

LOCK = "/run/nonn-plan.lock"
"""Held while addresses are chosen and given, so that two fleets do not choose the same."""

_FAR = "eth0"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a board's worker runs: its address, that of the host's end, and the namespace."""

    board: str
    host: str
    namespace: str | None = None


@contextmanager
def networks(boards: Sequence[Board], can: Capabilities) -> Iterator[Mapping[str, Place]]:
    """Give each board a namespace and a link; remove all when left.

    First removes what dead processes left behind.  Raises BoardError where the system refuses.
    """
    with ExitStack() as undo:
        places = {}
        with _locked():
            remove_networks()
            blocks = free_blocks(len(boards), used_networks())
            carriers = _carriers(boards, can, undo)
            for board, block in zip(boards, blocks, strict=True):
                places[board.name] = _linked(board, block, carriers[board.name], can, undo)
        yield places


def carrier(board: Board) -> str:
    """Name what carries messages to a board: a medium, its own wire, or the host's card."""
    if board.link.shared:
        return f"medium {board.link.name}"
    return f"wire {board.name}" if board.link.duplex == "half" else "card"


@dataclass(frozen=True, slots=True)
class _Carrier:
    """An ifb and its rate; None where links carry their messages themselves."""

    device: str | None
    bits_per_s: float

    def slows(self, board: Board) -> bool:
        """Whether it alone makes the board's link as slow as it is."""
        return self.device is not None and self.bits_per_s <= board.link.bits_per_s.value


@contextmanager
def _locked() -> Iterator[None]:
    try:
        handle = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BoardError(f"{LOCK}: cannot be opened: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _carriers(
    boards: Sequence[Board], can: Capabilities, undo: ExitStack
) -> Mapping[str, _Carrier]:
    """Make what boards send through together; return it for each board by name."""
    found: dict[str, _Carrier] = {}
    for name, group in groupby(sorted(boards, key=carrier), key=carrier):
        here = list(group)
        bits_per_s = max(board.link.bits_per_s.value for board in here)
        alone = name == "card" and len(here) == 1
        device = None
        if can.media and not alone:
            device = new_link()
            undo.callback(remove_link, device)
            configure("ip", [f"link add {device} type ifb", *_marked(device)])
            configure("tc", [rate_line(device, bits_per_s)])
        found |= {board.name: _Carrier(device, bits_per_s) for board in here}
    return found


def _linked(
    board: Board, block: IPv4Network, through: _Carrier, can: Capabilities, undo: ExitStack
) -> Place:
    near, namespace = new_link(), new_name()
    host, address = map(str, block.hosts())
    packet = packet_bytes(board.link.bits_per_s.value)
    undo.callback(remove_namespace, namespace)
    undo.callback(remove_link, near)
    configure(
        "ip",
        [
            f"netns add {namespace}",
            f"link add {near} mtu {packet} type veth "
            f"peer name {_FAR} mtu {packet} netns {namespace}",
            f"address add {host}/{block.prefixlen} dev {near}",
            *_marked(near),
        ],
    )
    configure(
        "ip",
        [
            "link set lo up",
            f"address add {address}/{block.prefixlen} dev {_FAR}",
            f"link set {_FAR} up",
        ],
        namespace,
    )
    _shape(board, near, namespace, through, can)
    return Place(address, host, namespace)


def _shape(board: Board, near: str, namespace: str, through: _Carrier, can: Capabilities) -> None:
    """Give both ends of a link its rate and its delays."""
    one_way = board.link.duplex == "half"
    down = can.rates and not through.slows(board)
    up = can.rates and not (one_way and through.slows(board))
    configure("tc", link_lines(near, board.link, rate=down, delays=can.delays))
    configure("tc", link_lines(_FAR, board.link, rate=up, delays=can.delays), namespace)
    if through.device is not None:
        directions = ("egress", "ingress") if one_way else ("egress",)
        configure("tc", redirect(near, through.device, directions))


def _marked(link: str) -> tuple[str, str]:
    """Return the lines that bring a link up and say whose it is."""
    return f"link set {link} alias {tag()}", f"link set {link} up"
