"""Where a process listens, or where it is reached: `192.168.1.11:8001`, `[::1]:8001`."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Self

from profiles.errors import InputError

LARGEST_PORT = 65535

_ADDRESS = re.compile(
    r"(?:\[(?P<ip6>[0-9a-fA-F:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>\d{1,5})"
)


@dataclass(frozen=True, slots=True)
class Address:
    """A host by name or number, and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, where: str, free_port: bool = False) -> Self:
        """Read an address; raises InputError.  With `free_port`, port 0 asks for any free one."""
        match = _ADDRESS.fullmatch(text.strip())
        lowest = 0 if free_port else 1
        if match is None or not lowest <= int(match["port"]) <= LARGEST_PORT:
            raise InputError(
                "not an address",
                where=where,
                found=text,
                allowed=f"HOST:PORT, e.g. 192.168.1.11:8001, port {lowest} to {LARGEST_PORT}",
            )
        return cls(match["ip6"] or match["host"], int(match["port"]))

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def with_port(self, port: int) -> "Address":
        """Return another port of the same host."""
        return Address(self.host, port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
