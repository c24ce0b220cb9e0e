"""Frames: images and features as raw float32 over one TLS connection.

A frame is a header of 20 bytes and a payload, little-endian::

    4 bytes  "NoNN"      1 byte  version      1 byte  kind      2 bytes  zero
    8 bytes  number of the request            4 bytes  length of the payload

The client opens with HELLO, which names the students that it wants, one to a line; WELCOME says how
many values an image and its answer have.  Then each IMAGES (uint32 images, float32 values) is
answered by FEATURES (uint64 ns waited, uint64 ns computed, uint32 images, float32 values, student
after student for each image) or by REFUSED (byte reason, UTF-8 text) of the same number.  The image
goes once to a board, however many students it has.

Where G0 has a board of its own, the host opens with ROUTE there, which names the boards that G0's
maps go on to, and with EXPECT on these, which names the students, the sender, and the session of
both.  Each IMAGES is then answered by SENT (the times, and which boards it could not be sent to);
MAPS (16 bytes of session, uint32 images, float32 values) go from board to board, on a connection
that an empty one opens, and the FEATURES that they make to the host that expects them.  ROUTE,
EXPECT and the end of SENT are JSON.

Workers advertise frames among the extensions of the Open Inference Protocol's ServerMetadata.
Reasons of refusal are the same over both protocols.
"""

import json
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

VERSION = 1
HEADER = struct.Struct("<4sBBHQI")
MAGIC = b"NoNN"
_WELCOME = struct.Struct("<II")
_IMAGES = struct.Struct("<I")
_FEATURES = struct.Struct("<QQI")
_MAPS = struct.Struct("<16sI")
_FLOAT32 = np.dtype("<f4")
_EXTENSION = re.compile(rf"nonn_frames/{VERSION}\(port=(\d+)\)")


class RefusalReason(IntEnum):
    """Reason of a refusal, numbered and named as gRPC's status codes."""

    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    INTERNAL = 13
    UNAVAILABLE = 14


class RequestRefused(Exception):  # noqa: N818
    """A request that gets an error status; the worker lives."""

    def __init__(self, reason: RefusalReason, message: str) -> None:
        self.reason = reason
        super().__init__(message)


Values = NDArray[np.float32]


class FrameKind(IntEnum):
    """Kind of a frame."""

    HELLO = 1
    WELCOME = 2
    IMAGES = 3
    FEATURES = 4
    REFUSED = 5
    ROUTE = 6
    EXPECT = 7
    MAPS = 8
    SENT = 9


_IN_PLACE = (int(FrameKind.IMAGES), int(FrameKind.MAPS))
_KINDS = {int(kind): kind for kind in FrameKind}


class MalformedFrameError(Exception):
    """Bytes that are no frame; the connection cannot go on."""


class Frame(NamedTuple):
    """One frame."""

    kind: FrameKind
    number: int
    payload: bytes = b""

    def encoded(self) -> bytes:
        """Return the frame as bytes."""
        head = HEADER.pack(MAGIC, VERSION, self.kind, 0, self.number, len(self.payload))
        return head + self.payload


def format_extension(port: int) -> str:
    """Extension by which a worker advertises its frames."""
    return f"nonn_frames/{VERSION}(port={port})"


def advertised_port(extensions: Iterable[str]) -> int | None:
    """Return the port of frames that a worker advertises; None if it does not."""
    found = (_EXTENSION.fullmatch(each) for each in extensions)
    return next((int(match[1]) for match in found if match), None)


def parse_header(content: bytes | bytearray, largest_bytes: int) -> tuple[FrameKind, int, int]:
    """Read the header at the start: kind, number and length of the payload.

    Raises MalformedFrameError.
    """
    magic, version, kind, _, number, length = HEADER.unpack_from(content)
    if magic != MAGIC or version != VERSION or kind not in _KINDS:
        raise MalformedFrameError(f"not a frame of version {VERSION}")
    if length > largest_bytes:
        raise MalformedFrameError(f"{length} bytes; at most {largest_bytes} are taken")
    return _KINDS[kind], number, length


def hello_frame(students: Sequence[str]) -> Frame:
    """HELLO that asks for these students."""
    return Frame(FrameKind.HELLO, 0, "\n".join(students).encode())


def parse_hello(frame: Frame) -> list[str]:
    """Parse the students of HELLO, each named once; raises MalformedFrameError."""
    try:
        names = frame.payload.decode().split("\n")
    except UnicodeDecodeError:
        raise MalformedFrameError("the names of students are not UTF-8") from None
    _check_once(frame, names)
    return names


def welcome_frame(image_values: int, answer_values: int) -> Frame:
    """WELCOME with the lengths of an image and its answer."""
    return Frame(FrameKind.WELCOME, 0, _WELCOME.pack(image_values, answer_values))


def parse_welcome(frame: Frame) -> tuple[int, int]:
    """Parse the lengths of an image and its answer; raises MalformedFrameError."""
    if len(frame.payload) != _WELCOME.size:
        raise MalformedFrameError("a welcome of another length")
    image_values, answer_values = _WELCOME.unpack(frame.payload)
    return image_values, answer_values


def images_frame(number: int, values: Values) -> Frame:
    """IMAGES frame of `(n, ...)` values."""
    return Frame(FrameKind.IMAGES, number, _IMAGES.pack(len(values)) + _float32(values))


def parse_images(frame: Frame, image_values: int) -> Values:
    """Return the images of a frame as `(n, image_values)`; raises MalformedFrameError."""
    (count,) = _IMAGES.unpack_from(_require_length(frame, _IMAGES))
    return _rows(frame, _IMAGES.size, count, image_values)


class Features(NamedTuple):
    """Features of a board, `(n, values)`, with the times of waiting and computing."""

    values: Values
    waited_ns: int
    computed_ns: int


def features_frame(number: int, answer: Features) -> Frame:
    """FEATURES frame that answers images."""
    head = _FEATURES.pack(answer.waited_ns, answer.computed_ns, len(answer.values))
    return Frame(FrameKind.FEATURES, number, head + _float32(answer.values))


def parse_features(frame: Frame, answer_values: int) -> Features:
    """Return the features of a frame; raises MalformedFrameError."""
    waited_ns, computed_ns, count = _FEATURES.unpack_from(_require_length(frame, _FEATURES))
    return Features(_rows(frame, _FEATURES.size, count, answer_values), waited_ns, computed_ns)


class Route(NamedTuple):
    """Boards that maps of G0 go on to, and the addresses of their frames."""

    session: str
    group0: str
    receivers: Mapping[str, str]


class Expectation(NamedTuple):
    """Students whose features are wanted for maps of a session, which a board sends."""

    session: str
    sender: str
    students: Sequence[str]


def route_frame(route: Route) -> Frame:
    """ROUTE for the board of G0."""
    return Frame(FrameKind.ROUTE, 0, json.dumps(route._asdict()).encode())


def parse_route(frame: Frame) -> Route:
    """Parse the receivers of maps; raises MalformedFrameError."""
    found = Route(**_fields(frame, Route._fields))
    texts = isinstance(found.receivers, dict) and all(
        isinstance(each, str) for each in found.receivers.values()
    )
    if not texts or not isinstance(found.group0, str):
        raise MalformedFrameError("a route of another form")
    return found


def expect_frame(expectation: Expectation) -> Frame:
    """EXPECT for a board that is sent maps."""
    return Frame(FrameKind.EXPECT, 0, json.dumps(expectation._asdict()).encode())


def parse_expectation(frame: Frame) -> Expectation:
    """Parse what is expected of maps; raises MalformedFrameError."""
    found = Expectation(**_fields(frame, Expectation._fields))
    students = found.students
    if not (isinstance(students, list) and all(isinstance(each, str) for each in students)):
        raise MalformedFrameError("an expectation of another form")
    _check_once(frame, students)
    return found


def _check_once(frame: Frame, students: Sequence[str]) -> None:
    """Refuse students that are named again: each would be computed again for every image."""
    if len(set(students)) < len(students):
        again = len(students) - len(set(students))
        raise MalformedFrameError(f"{frame.kind.name} names students again, {again} times in all")


def _fields(frame: Frame, names: tuple[str, ...]) -> dict[str, Any]:
    """Fields of a JSON payload, with a session among them; raises MalformedFrameError."""
    try:
        found = json.loads(frame.payload)
    except ValueError:
        raise MalformedFrameError(f"{frame.kind.name} that is no JSON") from None
    if not isinstance(found, dict) or sorted(found) != sorted(names):
        raise MalformedFrameError(f"{frame.kind.name} of other fields than {', '.join(names)}")
    if not re.fullmatch("[0-9a-f]{32}", str(found["session"])):
        raise MalformedFrameError("a session that is not 16 bytes in hexadecimal")
    return found


def maps_frame(number: int, session: str, values: Values) -> Frame:
    """MAPS frame of `(n, ...)` values."""
    head = bytes.fromhex(session) + _IMAGES.pack(len(values))
    return Frame(FrameKind.MAPS, number, head + _float32(values))


def opening_maps_frame() -> Frame:
    """Empty MAPS frame, with which a board opens a connection before there are any."""
    return Frame(FrameKind.MAPS, 0)


def maps_session(frame: Frame) -> str:
    """Session of a MAPS frame; raises MalformedFrameError."""
    return _require_length(frame, _MAPS)[: _MAPS.size - _IMAGES.size].hex()


def parse_maps(frame: Frame, map_values: int) -> Values:
    """Return the maps of a frame as `(n, map_values)`; raises MalformedFrameError."""
    _, count = _MAPS.unpack_from(_require_length(frame, _MAPS))
    return _rows(frame, _MAPS.size, count, map_values)


def sent_frame(number: int, answer: Features, unsent: Mapping[str, str]) -> Frame:
    """SENT frame: times of G0, and why its maps did not go to some boards."""
    head = _FEATURES.pack(answer.waited_ns, answer.computed_ns, len(answer.values))
    return Frame(FrameKind.SENT, number, head + json.dumps(unsent).encode())


def parse_sent(frame: Frame) -> tuple[Features, dict[str, str]]:
    """Return times, without values, and reasons by board; raises MalformedFrameError."""
    waited_ns, computed_ns, count = _FEATURES.unpack_from(_require_length(frame, _FEATURES))
    try:
        unsent = json.loads(frame.payload[_FEATURES.size :])
    except ValueError:
        unsent = None
    if not isinstance(unsent, dict) or count < 1:
        raise MalformedFrameError("SENT of another form")
    nothing = np.zeros((count, 0), np.float32)
    reasons = {str(board): str(why) for board, why in unsent.items()}
    return Features(nothing, waited_ns, computed_ns), reasons


def refused_frame(number: int, reason: RefusalReason, text: str) -> Frame:
    """REFUSED frame for a request."""
    return Frame(FrameKind.REFUSED, number, bytes([reason]) + text.encode(errors="replace"))


def parse_refusal(frame: Frame) -> str:
    """Parse the reason and text of a refusal."""
    code, text = frame.payload[:1], frame.payload[1:].decode(errors="replace")
    known = bool(code) and code[0] in set(RefusalReason)
    return f"{RefusalReason(code[0]).name}: {text}" if known else text


def _require_length(frame: Frame, head: struct.Struct) -> bytes:
    if len(frame.payload) < head.size:
        raise MalformedFrameError(f"{frame.kind.name} of {len(frame.payload)} bytes")
    return frame.payload


def _rows(frame: Frame, start: int, count: int, width: int) -> Values:
    """Return `count` rows of `width` values after the first `start` bytes of a payload."""
    found = len(frame.payload) - start
    if not count or found != 4 * count * width:
        raise MalformedFrameError(
            f"{count} rows of {width} float32 values are {4 * count * width} bytes, not {found}"
        )
    values: Values = np.frombuffer(frame.payload, dtype=_FLOAT32, offset=start).reshape(
        count, width
    )
    return values


def _float32(values: Values) -> bytes:
    return np.asarray(values, dtype=_FLOAT32).tobytes()


def whole_frame(content: memoryview, largest_bytes: int) -> Frame | None:
    """The one frame that is all of the content; None where it is anything else.

    Images and maps stay where they are, other payloads are copied.
    """
    if len(content) < HEADER.size:
        return None
    magic, version, kind, _, number, length = HEADER.unpack_from(content)
    if (
        length != len(content) - HEADER.size
        or length > largest_bytes
        or magic != MAGIC
        or version != VERSION
        or kind not in _KINDS
    ):
        return None
    payload: Any = content[HEADER.size :]
    return Frame(_KINDS[kind], number, payload if kind in _IN_PLACE else bytes(payload))


class FrameAssembler:
    """Assembler of frames from chunks; a frame that comes whole is not copied."""

    def __init__(self, largest_bytes: int) -> None:
        """No payload may be longer than `largest_bytes`."""
        self._largest_bytes = largest_bytes
        self._buffer: bytes | bytearray = b""

    @property
    def begun(self) -> bool:
        """Whether a part of a frame is here."""
        return bool(self._buffer)

    def add(self, chunk: bytes) -> None:
        """Take what was read."""
        if not self._buffer:
            self._buffer = chunk
            return
        if isinstance(self._buffer, bytes):
            self._buffer = bytearray(self._buffer)
        self._buffer += chunk

    def frame(self) -> Frame | None:
        """Take the next frame; None where it is not all there.  Raises MalformedFrameError."""
        buffer = self._buffer
        if len(buffer) < HEADER.size:
            return None
        kind, number, length = parse_header(buffer, self._largest_bytes)
        end = HEADER.size + length
        if len(buffer) == end and isinstance(buffer, bytes):
            self._buffer = b""
            return Frame(kind, number, buffer[HEADER.size :])
        if len(buffer) < end:
            return None
        self._buffer = buffer[end:]
        return Frame(kind, number, bytes(memoryview(buffer)[HEADER.size : end]))
