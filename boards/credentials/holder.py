"""A holder: whom a certificate is for, by its name and the addresses it is reached at.

The host asks for a board by the board's NAME, so no certificate may hold the name of another
board.  Names are single DNS labels in lower case, because DNS and some file systems take `A` for
`a`; host names with a dot in them can therefore never be taken for a board.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from profiles.errors import InputError

AUTHORITY, HOST = "authority", "host"

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LARGEST_HOST_NAME = 253


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a certificate; `addresses` are IP addresses and host names."""

    name: str
    addresses: tuple[str, ...] = ()


THE_HOST = Holder(HOST)


def board(name: str, addresses: Iterable[str] = (), where: str | None = None) -> Holder:
    """Return the board called `name`; raises InputError for what no certificate can hold."""
    if not _LABEL.fullmatch(name):
        raise InputError(
            "not a name that a board's certificate can hold",
            where=where,
            found=name,
            allowed="1 to 63 of a to z, 0 to 9 and -, with no - at either end",
        )
    if name in (AUTHORITY, HOST):
        raise InputError("no board may have this name", where=where, found=name)
    return Holder(name, tuple(_address(each, where) for each in addresses))


def parse_board(text: str, where: str = "--board") -> Holder:
    """Read `NAME` or `NAME=ADDRESS[,ADDRESS]...`; raises InputError."""
    name, equals, addresses = text.partition("=")
    return board(name.strip(), addresses.split(",") if equals else (), where)


def as_ip(address: str) -> IPv4Address | IPv6Address | None:
    """Return an address as an IP address; None for a host name."""
    try:
        return ip_address(address)
    except ValueError:
        return None


def require_apart(held: Mapping[str, Iterable[str]]) -> None:
    """Refuse a board whose address is another board's name; raises InputError.

    `held` has the addresses of each board.  The certificate would pass for the other board's.
    """
    for name, address in _pairs(held):
        if address in held and address != name:
            raise InputError(
                f"the address of board {name} is the name of another board",
                found=address,
                fix="use its IP address, or a host name with a dot in it",
            )


def _pairs(held: Mapping[str, Iterable[str]]) -> Iterator[tuple[str, str]]:
    return ((name, address) for name, addresses in held.items() for address in addresses)


def _address(text: str, where: str | None) -> str:
    """Return an address as certificates write it; raises InputError."""
    typed = text.strip().lower()
    found = as_ip(typed)
    if found is not None and "%" not in typed:
        return str(found)
    labels = typed.removesuffix(".").split(".")
    # A last label of digits is an IP address that somebody mistyped.
    if (
        len(typed) > _LARGEST_HOST_NAME
        or labels[-1].isdigit()
        or not all(map(_LABEL.fullmatch, labels))
    ):
        raise InputError(
            "not an address that a certificate can hold",
            where=where,
            found=text,
            allowed="an IP address or a host name, without a port",
        )
    return ".".join(labels)
