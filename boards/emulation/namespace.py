"""Network namespaces of emulated boards, each with a shaped link from the host's side.

::

    this machine                       namespace of the board
    nn... 198.18.0.1  <-- veth pair --> eth0 198.18.0.2      what each end sends is shaped there

Boards on one shared channel send, and are sent to, through one ifb with the channel's rate.  The
host's card is serial: what it sends to all boards on links of their own goes through one ifb as
well.  What the system can do is found by trying, each try undone.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from itertools import groupby, islice

from boards.emulation.iproute import (
    Tool,
    configure,
    link_lines,
    new_link_name,
    new_tagged_name,
    owner_tag,
    packet_bytes,
    rate_line,
    remove_link,
    remove_namespace,
    remove_networks,
    run_command,
)
from nonn_common.errors import BoardError
from profiles.fleet import Board

_RATE = "qdisc add dev near root tbf rate 1mbit burst 1600 limit 10000"
_DELAY = "qdisc add dev far root netem delay 1ms"
ADDRESS_RANGES = (IPv4Network("198.18.0.0/15"), IPv4Network("10.198.0.0/15"))
"""The range for tests of networks (RFC 2544), and a private one where that is in use."""
_LINK_PREFIX = 30
_MIN_ROUTE_PREFIX = 16
"""Routes to less than this many fixed bits, such as the default route, lead to everywhere."""
LOCK = "/run/nonn-plan.lock"
"""Held while addresses are chosen and given, so that two fleets do not choose the same."""
_FAR = "eth0"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Emulation features of this system; `refused` holds the reasons for missing ones."""

    namespaces: bool = False
    """A network of its own for each board."""
    rates: bool = False
    """The rate of a link, by tc's tbf."""
    shared_channels: bool = False
    """One channel for several links or both directions, by an ifb; only where there are rates."""
    delays: bool = False
    """Latency and loss, by tc's netem."""
    refused: tuple[str, ...] = ()


LOOPBACK_ONLY = Capabilities(refused=("not asked for",))
"""Plain processes on the loopback network."""


def redirect(link: str, channel: str, directions: tuple[str, ...]) -> tuple[str, ...]:
    """`tc` lines that redirect the traffic of a link through an ifb.

    The filter is u32, with which kernels are built that lack matchall.
    """
    return (
        f"qdisc add dev {link} clsact",
        *(
            f"filter add dev {link} {direction} protocol all u32 match u32 0 0 "
            f"action mirred egress redirect dev {channel}"
            for direction in directions
        ),
    )


def detect() -> Capabilities:
    """Try each feature in a network namespace that is removed again."""
    namespace = new_tagged_name()
    try:
        return _tried_in(namespace)
    except BoardError as error:
        return Capabilities(refused=(str(error),))
    finally:
        remove_namespace(namespace)


def _tried_in(namespace: str) -> Capabilities:
    run_command(["ip", "netns", "add", namespace])
    run_command(["ip", "netns", "exec", namespace, "true"])
    configure("ip", ["link add near type veth peer name far"], namespace)
    refused: list[str] = []

    def works(tool: Tool, *lines: str) -> bool:
        try:
            configure(tool, lines, namespace)
        except BoardError as error:
            refused.append(str(error))
            return False
        return True

    rates = works("tc", _RATE)
    return Capabilities(
        namespaces=True,
        rates=rates,
        shared_channels=rates
        and works("ip", "link add channel type ifb")
        and works("tc", *redirect("near", "channel", ("egress", "ingress"))),
        delays=works("tc", _DELAY),
        refused=tuple(refused),
    )


def free_blocks(count: int, used: Iterable[IPv4Network]) -> tuple[IPv4Network, ...]:
    """Return `count` blocks of four addresses outside `used`; raises BoardError if there are less.

    The first of the two addresses between is for the host, the second for the board.
    """
    taken = tuple(used)
    blocks = tuple(islice(_free_subnets(taken), count))
    if len(blocks) < count:
        raise BoardError(
            f"{count} links need {count} blocks of addresses; free in "
            f"{' and '.join(map(str, ADDRESS_RANGES))}: {len(blocks)}; stop other emulated fleets"
        )
    return blocks


def used_networks() -> tuple[IPv4Network, ...]:
    """Return the networks that this machine has addresses in or has routes to."""
    addresses = json.loads(run_command(["ip", "-j", "-4", "address", "show"]) or "[]")
    routes = json.loads(run_command(["ip", "-j", "-4", "route", "show", "table", "all"]) or "[]")
    own = (
        IPv4Network((each["local"], each["prefixlen"]), strict=False)
        for link in addresses
        for each in link.get("addr_info", ())
    )
    routed = (IPv4Network(route["dst"]) for route in routes if route["dst"] != "default")
    return (*own, *(route for route in routed if route.prefixlen >= _MIN_ROUTE_PREFIX))


def _free_subnets(taken: tuple[IPv4Network, ...]) -> Iterator[IPv4Network]:
    for pool in ADDRESS_RANGES:
        inside = [network for network in taken if network.overlaps(pool)]
        if any(network.prefixlen <= pool.prefixlen for network in inside):
            continue
        small = {_block(network) for network in inside if network.prefixlen >= _LINK_PREFIX}
        large = [network for network in inside if network.prefixlen < _LINK_PREFIX]
        for block in pool.subnets(new_prefix=_LINK_PREFIX):
            if block not in small and not any(block.overlaps(network) for network in large):
                yield block


def _block(network: IPv4Network) -> IPv4Network:
    """Return the block that a network as small as a block lies in."""
    return IPv4Network((network.network_address, _LINK_PREFIX), strict=False)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Endpoint of a board's link: its address, the host's address, and the namespace."""

    board: str
    host: str
    namespace: str | None = None


@contextmanager
def board_namespaces(
    boards: Sequence[Board], can: Capabilities
) -> Iterator[Mapping[str, Endpoint]]:
    """Give each board a namespace and a link; remove all when left.

    First removes what dead processes left behind.  Raises BoardError where the system refuses.
    """
    with ExitStack() as undo:
        endpoints = {}
        with _locked():
            remove_networks()
            blocks = free_blocks(len(boards), used_networks())
            carriers = _make_carriers(boards, can, undo)
            for board, block in zip(boards, blocks, strict=True):
                endpoints[board.name] = _make_link(board, block, carriers[board.name], can, undo)
        yield endpoints


def carrier_name(board: Board) -> str:
    """Name of a board's carrier: a shared channel, its own wire, or the host's card."""
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


def _make_carriers(
    boards: Sequence[Board], can: Capabilities, undo: ExitStack
) -> Mapping[str, _Carrier]:
    """Make the carriers that boards share; return each board's by name."""
    found: dict[str, _Carrier] = {}
    for name, group in groupby(sorted(boards, key=carrier_name), key=carrier_name):
        here = list(group)
        bits_per_s = max(board.link.bits_per_s.value for board in here)
        alone = name == "card" and len(here) == 1
        device = None
        if can.shared_channels and not alone:
            device = new_link_name()
            undo.callback(remove_link, device)
            configure("ip", [f"link add {device} type ifb", *_tag_lines(device)])
            configure("tc", [rate_line(device, bits_per_s)])
        found |= {board.name: _Carrier(device, bits_per_s) for board in here}
    return found


def _make_link(
    board: Board, block: IPv4Network, through: _Carrier, can: Capabilities, undo: ExitStack
) -> Endpoint:
    near, namespace = new_link_name(), new_tagged_name()
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
            *_tag_lines(near),
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
    return Endpoint(address, host, namespace)


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


def _tag_lines(link: str) -> tuple[str, str]:
    """`ip` lines that bring a link up and tag it with its owner."""
    return f"link set {link} alias {owner_tag()}", f"link set {link} up"
