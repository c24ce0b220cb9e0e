"""A fleet: one host, the boards it can reach, and the routes to them.

A fleet may bring devices and links of its own, beside those of the library.  People name a fleet
in three ways (`parse_fleet`): a fleet of the library (`rpi3x2`), a file (`home.yaml`), or a list
of devices (`rpi-3b*2,rpi-4b@wifi`), with the link after @ where it is not the device's own.

A board that is reached through another one has links in a row.  A message is taken in whole and
passed on (store and forward), so that times on the wire add up and one link of the summed time per
bit stands for the row.  The rates of loss and the delays add up as well; the board in between
spends its own time per message.  While it is down nothing comes through, and its radio draws for
what it passes on (`simulator.graph_builder.radio_parts`).  That its processor and its other
messages are held up by passing on is not modelled.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from nonn_common.document import Document, Record, is_yaml, read_plain
from nonn_common.errors import InputError, ProfileError
from profiles import Registry, unknown_name
from profiles.board_name import DNS_LABEL, DNS_LABELS, NO_BOARDS
from profiles.device import DEVICES, DeviceProfile
from profiles.link import LINKS, LinkProfile, chained_link, noise_text

DEFAULT_HOST = "x86-host"
DEFAULT_LINK = "wired-100mbit"
MOST_BOARDS = 1000

ANY_POINT = ":any"
"""Behind a device or a fleet: its operating points are left open."""
_FILES = (".yaml", ".yml", ".json")
_ITEM = re.compile(
    r"\s*(?P<device>[^\s*@:]+(?::any)?)\s*(?:@\s*(?P<link>[^\s*@:]+)\s*)?"
    r"(?:\*\s*(?P<count>[^\s*@:]+)\s*)?"
)


class FleetBoard(Record):
    """One board of a fleet, its device and link by name."""

    name: str = Field(
        min_length=1,
        description="Name of the board, unique in its fleet: 1 to 63 of a to z, 0 to 9 and -, as "
        "its certificate holds it.",
    )
    device: str = Field(
        description="Name of a device of the fleet or of the library. Of a board with any point, "
        "one of its points; in a plan, the one that it is to run at."
    )
    points: Literal["named", "any"] = Field(
        default="named",
        description="named: the board runs as its device says. any: at whichever of its operating "
        "points a plan decides, profiles of the device's board, runtime and precision.",
    )
    link: str | None = Field(
        default=None,
        min_length=1,
        description="Name of a link of the fleet or of the library; the device's default_link "
        "where absent.",
    )
    via: str | None = Field(
        default=None,
        description="Name of the board that passes messages on; absent where the host reaches "
        "this board itself.",
    )

    @field_validator("name")
    @classmethod
    def _fits_a_certificate(cls, name: str) -> str:
        if not DNS_LABEL.fullmatch(name):
            raise ValueError(
                f"no certificate can hold this name of a board; found {name!r}; allowed: "
                f"{DNS_LABELS}; rename it everywhere in the file, also in an old plan"
                f"{_such_as(name)}"
            )
        return name


def _such_as(name: str) -> str:
    """A name alike that a certificate can hold, if there is one."""
    alike = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")[:63].strip("-")
    return f", such as {alike}" if alike else ""


class Fleet(Document):
    """A host and its boards, by name."""

    error_class: ClassVar[type[InputError]] = ProfileError

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
        counts = Counter((*NO_BOARDS, *(board.name for board in self.boards)))
        repeated = [name for name, count in counts.items() if count > 1]
        if repeated:
            raise ValueError(
                f"board names must be unique, and none may be {' or '.join(NO_BOARDS)}; "
                f"repeated: {', '.join(repeated)}"
            )
        return self

    @model_validator(mode="after")
    def _own_profiles_have_names_of_their_own(self) -> Self:
        for noun, own, registry in (("device", self.devices, DEVICES), ("link", self.links, LINKS)):
            counts = Counter((*(profile.name for profile in own), *registry.names()))
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
        content = read_plain(Path(path))
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
        boards = tuple(
            board.model_copy(update={"link": link_name(fleet, board, where)})
            for board in fleet.boards
        )
        return fleet.model_copy(update={"boards": boards})


FLEETS = Registry(Fleet, "fleet", "fleets")


def _own_profile(entry: object, kind: type[Document], fleet_file: Path) -> object:
    """Content of the file that `entry` names, or `entry` itself."""
    if not isinstance(entry, str):
        return entry
    return kind.read(fleet_file.parent / entry).model_dump()


@dataclass(frozen=True, slots=True)
class RelayBoard:
    """A board in between, which passes messages on.

    `link` stands for all links that lead to it.
    """

    name: str
    device: DeviceProfile
    link: LinkProfile


@dataclass(frozen=True, slots=True)
class Board(RelayBoard):
    """One board of a fleet with its device and the link to it.

    `link` stands for all links in a row that lead to it.

    `via` are the boards in between, nearest to the host first.
    """

    via: tuple[RelayBoard, ...] = ()


def noisy_links(boards: Iterable[RelayBoard]) -> tuple[str, ...]:
    """Sentences on the loss and jitter of the links that boards are on."""
    of_links: dict[str, list[str]] = {}
    for board in boards:
        if noise := noise_text(board.link):
            of_links.setdefault(f"{board.link.name}: {noise}", []).append(board.name)
    return tuple(f"{noise} ({', '.join(names)})" for noise, names in of_links.items())


def resolve(fleet: Fleet) -> tuple[DeviceProfile, tuple[Board, ...]]:
    """Host and boards of `fleet` with their profiles.

    Raises ProfileError for a name that the library does not have, for a host that cannot host
    and for a board that cannot run students.
    """
    return _resolved(fleet, f"fleet {fleet.name}")


def resolve_named(fleet: Fleet) -> tuple[DeviceProfile, tuple[Board, ...]]:
    """Host and boards of a fleet without a plan; open points raise ProfileError."""
    if several := [row.name for row in fleet.boards if row.points == "any"]:
        raise ProfileError(
            "a plan decides at which operating point a board runs, and here is none",
            where=f"fleet {fleet.name}",
            found=f"{', '.join(several)} with points any",
            fix="name the point: `nonn-plan devices --search NAME` lists the devices of a board",
        )
    return resolve(fleet)


def parse_fleet(text: str) -> Fleet:
    """Read a fleet from a library name, a file or a list of devices.

    A list such as `rpi-3b*2,odroid-xu4s@wifi` gives boards rpi-3b-1 and rpi-3b-2 on their device's
    default link and odroid-xu4s-1 on Wi-Fi, with the default host.  `:any` behind a device, or
    behind the name of a fleet or a file, leaves operating points open.  Raises ProfileError (or
    InputError for a file that is missing).
    """
    asked = text.strip()
    whole = asked.removesuffix(ANY_POINT)
    if asked != whole and (whole in FLEETS.names() or Path(whole).suffix.lower() in _FILES):
        return at_any_point(parse_fleet(whole))
    if asked in FLEETS.names():
        return FLEETS.get(asked)
    if is_yaml(asked) or Path(asked).suffix.lower() == ".json":
        return Fleet.read(asked)
    return _typed(asked)


def at_any_point(fleet: Fleet) -> Fleet:
    """The fleet with the operating points of all its boards left open."""
    boards = [board.model_dump() | {"points": "any"} for board in fleet.boards]
    content = fleet.model_dump() | {"name": f"{fleet.name}{ANY_POINT}", "boards": boards}
    return Fleet.check(content, where=f"fleet {fleet.name}{ANY_POINT}")


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
    """Boards with the links in a row and the boards in between."""
    via = {board.name: board.via for board in fleet.boards}
    found = {board.name: board for board in boards}
    open_boards = {board.name for board in fleet.boards if board.points == "any"}
    for name in route_order(via, where):
        between = via[name]
        if between is not None:
            first = found[between]
            if between in open_boards:
                raise ProfileError(
                    "a board that passes messages on has one operating point, as they take its "
                    "time",
                    where=where,
                    found=f"{between} with points any",
                    fix=f"name the device that {between} is to run as",
                )
            link = chained_link(first.link, first.device, found[name].link)
            relay = RelayBoard(first.name, first.device, first.link)
            found[name] = replace(found[name], link=link, via=(*first.via, relay))
    return tuple(found.values())


def _device(fleet: Fleet, name: str, where: str) -> DeviceProfile:
    own = {device.name: device for device in fleet.devices}
    return own[name] if name in own else DEVICES.get(name, where, also=own)


def _link(fleet: Fleet, name: str, where: str) -> LinkProfile:
    own = {link.name: link for link in fleet.links}
    return own[name] if name in own else LINKS.get(name, where, also=own)


def link_name(fleet: Fleet, board: FleetBoard, where: str) -> str:
    """Name of the link of a board: its own, its device's, or the default."""
    return board.link or _device(fleet, board.device, where).default_link or DEFAULT_LINK


def _board(fleet: Fleet, board: FleetBoard, where: str) -> Board:
    device = _device(fleet, board.device, f"{where}.device")
    if device.missing_as_board:
        raise ProfileError(
            f"this device cannot run students: no {', '.join(device.missing_as_board)}",
            where=f"{where}.device",
            found=device.name,
            fix="choose another device for this board",
        )
    return Board(board.name, device, _link(fleet, link_name(fleet, board, where), f"{where}.link"))


def _typed(text: str) -> Fleet:
    counts: Counter[tuple[str, str | None]] = Counter()
    for item in text.split(","):
        device, link, count = _item(item, text)
        counts[device, link] += count
    if counts.total() > MOST_BOARDS:
        raise ProfileError(
            "too many boards",
            where=f"fleet {text}",
            found=counts.total(),
            allowed=f"at most {MOST_BOARDS}",
        )
    numbers: Counter[str] = Counter()
    boards = []
    for named, link in counts.elements():
        device = named.removesuffix(ANY_POINT)
        numbers[device] += 1
        points = "named" if named == device else "any"
        name = f"{device}-{numbers[device]}"
        boards.append({"name": name, "device": device, "link": link, "points": points})
    title = " + ".join(
        f"{count} x {device}{f' on {link}' if link else ''}"
        for (device, link), count in counts.items()
    )
    return Fleet.check({"name": text, "title": title, "boards": boards}, where=f"fleet {text}")


def _item(item: str, text: str) -> tuple[str, str | None, int]:
    """Read one `device`, `device:any@link*count` and the like of the list `text`."""
    match = _ITEM.fullmatch(item)
    if match is None:
        raise ProfileError(
            "not a fleet",
            found=text,
            allowed="a library name, a .yaml or .json file, or a list such as rpi-3b*2,rpi-4b@wifi"
            "; `:any` behind a device or a fleet, as in rpi-3b:any*2, leaves operating points open",
            fix=f"library fleets: {', '.join(FLEETS.names())}",
        )
    named, link, count = match["device"], match["link"], match["count"] or "1"
    device = named.removesuffix(ANY_POINT)
    if not DEVICES.has(device):
        known, further = (*FLEETS.names(), *DEVICES.names()), DEVICES.further_names()
        raise unknown_name("fleet or device", device, known, "fleet", further)
    if link is not None:
        LINKS.get(link, f"fleet {text}")
    if not re.fullmatch(r"0*[1-9][0-9]{0,3}", count) or int(count) > MOST_BOARDS:
        raise ProfileError(
            f"how many {device}?",
            where=f"fleet {text}",
            found=count,
            allowed=f"a whole number from 1 to {MOST_BOARDS}",
        )
    return named, link, int(count)


def route_order(via: Mapping[str, str | None], where: str) -> tuple[str, ...]:
    """All boards, each after the one that it is reached through.

    `via` holds for each board the board in between, or None.  Raises ProfileError for a board that
    is not among them and for a loop.
    """
    order: list[str] = []
    for board in via:
        trail = [board]
        while (between := via[trail[-1]]) is not None and trail[-1] not in order:
            if between not in via:
                raise ProfileError(
                    f"board {trail[-1]} is reached through a board that the fleet does not have",
                    where=where,
                    found=between,
                    allowed=", ".join(sorted(set(via) - {trail[-1]})) or None,
                )
            if between in trail:
                raise ProfileError(
                    "boards are reached through each other in a loop",
                    where=where,
                    found=" via ".join([*trail, between]),
                    fix="let one of them be reached from the host",
                )
            trail.append(between)
        order += [each for each in reversed(trail) if each not in order]
    return tuple(order)
