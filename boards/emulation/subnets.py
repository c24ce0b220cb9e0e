"""Addresses for the links of emulated boards: blocks of four that this machine does not use."""

import json
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network
from itertools import islice

from boards.emulation.system import called
from profiles.errors import BoardError

PLACES = (IPv4Network("198.18.0.0/15"), IPv4Network("10.198.0.0/15"))
"""The range for tests of networks (RFC 2544), and a private one where that is in use."""

_LINK_PREFIX = 30
_WHOLE = 16
"""Routes to less than this many fixed bits, such as the default route, lead to everywhere."""


def free_blocks(count: int, used: Iterable[IPv4Network]) -> tuple[IPv4Network, ...]:
    """Return `count` blocks of four addresses outside `used`; raises BoardError if there are less.

    The first of the two addresses between is for the host, the second for the board.
    """
    taken = tuple(used)
    blocks = tuple(islice(_free(taken), count))
    if len(blocks) < count:
        raise BoardError(
            f"{count} links need {count} blocks of addresses; free in "
            f"{' and '.join(map(str, PLACES))}: {len(blocks)}; stop other emulated fleets"
        )
    return blocks


def used_networks() -> tuple[IPv4Network, ...]:
    """Return the networks that this machine has addresses in or knows ways to."""
    addresses = json.loads(called(["ip", "-j", "-4", "address", "show"]) or "[]")
    routes = json.loads(called(["ip", "-j", "-4", "route", "show", "table", "all"]) or "[]")
    own = (
        IPv4Network((each["local"], each["prefixlen"]), strict=False)
        for link in addresses
        for each in link.get("addr_info", ())
    )
    ways = (IPv4Network(route["dst"]) for route in routes if route["dst"] != "default")
    return (*own, *(way for way in ways if way.prefixlen >= _WHOLE))


def _free(taken: tuple[IPv4Network, ...]) -> Iterator[IPv4Network]:
    for place in PLACES:
        inside = [network for network in taken if network.overlaps(place)]
        if any(network.prefixlen <= place.prefixlen for network in inside):
            continue
        small = {_block(network) for network in inside if network.prefixlen >= _LINK_PREFIX}
        large = [network for network in inside if network.prefixlen < _LINK_PREFIX]
        for block in place.subnets(new_prefix=_LINK_PREFIX):
            if block not in small and not any(block.overlaps(network) for network in large):
                yield block


def _block(network: IPv4Network) -> IPv4Network:
    """Return the block that a network as small as a block lies in."""
    return IPv4Network((network.network_address, _LINK_PREFIX), strict=False)
