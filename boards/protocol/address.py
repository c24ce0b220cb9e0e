"""Network addresses, such as `[::1]:8001`, and the file `boards.yaml` of all boards."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from nonn_common.document import Document, Record
from nonn_common.errors import InputError

LARGEST_PORT = 65535

_ADDRESS = re.compile(
    r"(?:\[(?P<ip6>[0-9a-fA-F:.]+(?:%[A-Za-z0-9._~-]+)?)\]|(?P<host>[A-Za-z0-9._-]+))"
    r":(?P<port>\d{1,5})"
)


@dataclass(frozen=True, slots=True)
class Address:
    """A host by name or number, and a port.

    A link-local IPv6 number has a zone, the interface that leads there: `fe80::1%eth0`.
    """

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
                allowed="HOST:PORT, e.g. 192.168.1.11:8001 or [fe80::1%eth0]:8001, port "
                f"{lowest} to {LARGEST_PORT}",
            )
        return cls(match["ip6"] or match["host"], int(match["port"]))

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def zone(self) -> str:
        """Interface that leads to a link-local address; nothing for others."""
        return self.host.partition("%")[2]

    def with_port(self, port: int) -> "Address":
        """Return another port of the same host."""
        return Address(self.host, port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class SshAccess(Record):
    """Access of `deploy` to a board; without it, as ssh's own configuration says."""

    user: str | None = Field(
        default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$", description="User of ssh."
    )
    port: int | None = Field(default=None, ge=1, le=LARGEST_PORT, description="Port of ssh.")
    sudo: bool = Field(
        default=True,
        description="Whether `deploy` becomes root by sudo, which must ask for no password; false: "
        "the worker is a process of that user, without systemd.",
    )
    folder: str = Field(
        default="/opt/nonn-plan",
        pattern=r"^(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$",
        description="Folder on the board that `deploy` makes, and keeps all of its own in.",
    )


class BoardAddress(Record):
    """One board of the plan, and where its worker listens."""

    name: str = Field(min_length=1, description="Name of the board, as in the plan.")
    address: str = Field(description="HOST:PORT of the worker's standard protocol.")
    protocol: Literal["fastest", "standard"] = Field(
        default="fastest",
        description="fastest: frames where the worker advertises them; standard: the Open "
        "Inference Protocol alone, as for Triton or OpenVINO Model Server (`export --qdq`).",
    )
    ssh: SshAccess | None = Field(
        default=None, description="Access of `deploy` to it; null: as ssh's configuration says."
    )

    @field_validator("address")
    @classmethod
    def _parses(cls, text: str) -> str:
        try:
            Address.parse(text, "address")
        except InputError as error:
            raise ValueError(str(error)) from None
        return text

    @property
    def endpoint(self) -> Address:
        """Host and port."""
        return Address.parse(self.address, self.name)


class BoardAddresses(Document):
    """All boards of a plan."""

    boards: tuple[BoardAddress, ...] = Field(min_length=1, description="The boards.")

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [board.name for board in self.boards]
        if len(set(names)) < len(names):
            raise ValueError("a board is named twice")
        return self

    def of(self, name: str, where: str) -> BoardAddress:
        """Return one board; raises InputError, for the file `where`, if it is not there."""
        for board in self.boards:
            if board.name == name:
                return board
        raise InputError(
            "a board of the plan has no address",
            where=where,
            found=name,
            allowed=", ".join(board.name for board in self.boards),
            fix="add it with its name in the plan",
        )
