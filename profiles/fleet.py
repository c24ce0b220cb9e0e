"""A fleet: one host and the boards it can reach, by name; and a board, with its profiles found.

A fleet may bring devices and links of its own, beside those of the library.

People name a fleet in three ways (`parse_fleet`): a fleet of the library (`rpi3x2`), a file
(`home.yaml`), or a list of devices (`rpi-3b*2,odroid-xu4s`).
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, field_validator, model_validator

from profiles.device import DEVICES, DeviceProfile
from profiles.document import Document, Record, parsed
from profiles.errors import InputError, ProfileError
from profiles.link import LINKS, LinkProfile
from profiles.route import in_a_row, route_order
from profiles.shelf import Shelf, unknown

DEFAULT_HOST = "x86-host"
DEFAULT_LINK = "wired-100mbit"
MOST_BOARDS = 1000

_RESERVED = ",=@/:"
"""What options and the names of resources put beside a board's name."""
_ITEM = re.compile(r"\s*(?P<device>[^\s*]+)\s*(?:\*\s*(?P<count>[^\s*]+)\s*)?")


class FleetBoard(Record):
    """One board of a fleet, its device and link by name."""

    name: str = Field(min_length=1, description="Name of the board, unique in its fleet.")
    device: str = Field(description="Name of a device of the fleet or of the library.")
    link: str = Field(
        default=DEFAULT_LINK, description="Name of a link of the fleet or of the library."
    )
    via: str | None = Field(
        default=None,
        description="Name of the board that passes messages on; absent where the host reaches "
        "this board itself.",
    )

    @field_validator("name")
    @classmethod
    def _can_be_typed(cls, name: str) -> str:
        if set(name) & set(_RESERVED):
            raise ValueError(f"a board's name may not hold any of {_RESERVED}; found {name!r}")
        return name


class Fleet(Document):
    """A host and its boards, by name."""

    mistake: ClassVar[type[InputError]] = ProfileError

    name: str = Field(min_length=1, description="Name that commands use.")
    title: str = Field(min_length=1, description="Name that people use.")
    host: str = Field(default=DEFAULT_HOST, description="Name of the device that hosts.")
    boards: tuple[FleetBoard, ...] = Field(
        min_length=1, max_length=MOST_BOARDS, description="The boards, in the order people list."
    )

    devices: tuple[DeviceProfile, ...] = Field(
        default=(),
        description="Devices of the fleet's own; in a file also the names of their files.",
    )
    links: tuple[LinkProfile, ...] = Field(
        default=(), description="Links of the fleet's own; in a file also the names of their files."
    )

    @model_validator(mode="after")
    def _boards_have_names_of_their_own(self) -> Self:
        counts = Counter(("host", *(board.name for board in self.boards)))
        repeated = [name for name, count in counts.items() if count > 1]
        if repeated:
            raise ValueError(
                f"board names must be unique, and none may be host; repeated: {', '.join(repeated)}"
            )
        return self

    @model_validator(mode="after")
    def _own_profiles_have_names_of_their_own(self) -> Self:
        for noun, own, shelf in (("device", self.devices, DEVICES), ("link", self.links, LINKS)):
            counts = Counter((*(profile.name for profile in own), *shelf.names()))
            repeated = [name for name, count in counts.items() if count > 1]
            if repeated:
                raise ValueError(
                    f"a {noun} of the fleet's own needs a name that no other has; repeated: "
                    f"{', '.join(repeated)}"
                )
        return self

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read and validate `path`, with the files of devices and links that it names."""
        content = parsed(Path(path))
        if isinstance(content, dict):
            content = content | {
                field: [_own_profile(entry, kind, Path(path)) for entry in content[field]]
                for field, kind in (("devices", DeviceProfile), ("links", LinkProfile))
                if isinstance(content.get(field), list)
            }
        return cls.check(content, where=str(path))

    @classmethod
    def check(cls, content: object, where: str) -> Self:
        """Validate plain `content`, also against the library; raises ProfileError."""
        fleet = super().check(content, where)
        _resolved(fleet, where)
        return fleet


FLEETS = Shelf(Fleet, "fleet", "fleets")


def _own_profile(entry: object, kind: type[Document], fleet_file: Path) -> object:
    """Return the content of the file that `entry` names, or `entry` where it names none."""
    if not isinstance(entry, str):
        return entry
    return kind.read(fleet_file.parent / entry).model_dump()


@dataclass(frozen=True, slots=True)
class Relay:
    """A board in between, that passes messages on; `link` stands for all that leads to it."""

    name: str
    device: DeviceProfile
    link: LinkProfile


@dataclass(frozen=True, slots=True)
class Board(Relay):
    """One board of a fleet with its device, and the link or links in a row that lead to it.

    `via` are the boards in between, nearest to the host first.
    """

    via: tuple[Relay, ...] = ()


def resolve(fleet: Fleet) -> tuple[DeviceProfile, tuple[Board, ...]]:
    """Return the host and the boards of `fleet` with their profiles.

    Raises ProfileError for a name that the library does not have, for a host that cannot host
    and for a board that cannot run students.
    """
    return _resolved(fleet, f"fleet {fleet.name}")


def parse_fleet(text: str) -> Fleet:
    """Read a fleet as people type it: a library name, a file or a list of devices.

    A list such as `rpi-3b*2,odroid-xu4s` gives boards rpi-3b-1, rpi-3b-2 and odroid-xu4s-1 on
    the default link and host.  Raises ProfileError (or InputError for a file that is missing).
    """
    asked = text.strip()
    if asked in FLEETS.names():
        return FLEETS.get(asked)
    if Path(asked).suffix in (".yaml", ".yml", ".json"):
        return Fleet.read(asked)
    return _typed(asked)


def _resolved(fleet: Fleet, where: str) -> tuple[DeviceProfile, tuple[Board, ...]]:
    host = _device(fleet, fleet.host, f"{where}: field host")
    if host.hosting is None:
        raise ProfileError(
            "this device cannot be the host: its profile has no hosting figures",
            where=f"{where}: field host",
            found=host.name,
            allowed=", ".join(name for name in DEVICES.names() if DEVICES.get(name).hosting),
        )
    boards = [
        _board(fleet, board, f"{where}: field boards.{i}") for i, board in enumerate(fleet.boards)
    ]
    return host, _routed(fleet, boards, f"{where}: field boards")


def _routed(fleet: Fleet, boards: Sequence[Board], where: str) -> tuple[Board, ...]:
    """Give boards that are reached through others the links in a row and the boards in between."""
    via = {board.name: board.via for board in fleet.boards}
    found = {board.name: board for board in boards}
    for name in route_order(via, where):
        between = via[name]
        if between is not None:
            first = found[between]
            link = in_a_row(first.link, first.device, found[name].link)
            relay = Relay(first.name, first.device, first.link)
            found[name] = replace(found[name], link=link, via=(*first.via, relay))
    return tuple(found.values())


def _device(fleet: Fleet, name: str, where: str) -> DeviceProfile:
    own = {device.name: device for device in fleet.devices}
    return own[name] if name in own else DEVICES.get(name, where, also=own)


def _link(fleet: Fleet, name: str, where: str) -> LinkProfile:
    own = {link.name: link for link in fleet.links}
    return own[name] if name in own else LINKS.get(name, where, also=own)


def _board(fleet: Fleet, board: FleetBoard, where: str) -> Board:
    device = _device(fleet, board.device, f"{where}.device")
    if device.missing_as_board:
        raise ProfileError(
            f"this device cannot run students: no {', '.join(device.missing_as_board)}",
            where=f"{where}.device",
            found=device.name,
            fix="choose another device for this board",
        )
    return Board(board.name, device, _link(fleet, board.link, f"{where}.link"))


def _typed(text: str) -> Fleet:
    counts: Counter[str] = Counter()
    for item in text.split(","):
        device, count = _item(item, text)
        counts[device] += count
    if counts.total() > MOST_BOARDS:
        raise ProfileError(
            "too many boards",
            where=f"fleet {text}",
            found=counts.total(),
            allowed=f"at most {MOST_BOARDS}",
        )
    boards = [
        {"name": f"{device}-{number}", "device": device}
        for device, count in counts.items()
        for number in range(1, count + 1)
    ]
    title = " + ".join(f"{count} x {device}" for device, count in counts.items())
    return Fleet.check({"name": text, "title": title, "boards": boards}, where=f"fleet {text}")


def _item(item: str, text: str) -> tuple[str, int]:
    """Read one `device` or `device*count` of the list `text`."""
    match = _ITEM.fullmatch(item)
    if match is None:
        raise ProfileError(
            "not a fleet",
            found=text,
            allowed="a library name, a .yaml or .json file, or a list such as rpi-3b*2,odroid-xu4s",
            fix=f"library fleets: {', '.join(FLEETS.names())}",
        )
    device, count = match["device"], match["count"] or "1"
    if device not in DEVICES.names():
        raise unknown("fleet or device", device, (*FLEETS.names(), *DEVICES.names()), "fleet")
    if not re.fullmatch(r"0*[1-9][0-9]{0,3}", count) or int(count) > MOST_BOARDS:
        raise ProfileError(
            f"how many {device}?",
            where=f"fleet {text}",
            found=count,
            allowed=f"a whole number from 1 to {MOST_BOARDS}",
        )
    return device, int(count)
