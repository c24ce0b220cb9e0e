"""The frame connection of the host: a socket that never blocks."""

import socket
import ssl
from collections.abc import Mapping
from contextlib import ExitStack
from types import MappingProxyType

from cryptography.x509 import load_der_x509_certificate

from boards.host.connection import BoardTask, ConnectionLostError, ProtocolName, Reply, Request
from boards.protocol import frames
from boards.protocol.address import Address
from boards.protocol.frame_stream import FrameStream, configure_socket
from boards.protocol.frames import Frame, FrameKind, MalformedFrameError
from boards.tls.credential import CERTIFICATE_FILE
from boards.tls.identity import Identity

_OTHER_BYTES = 64 * 1024
"""Most that a frame has beside features."""


class FramesUnreachableError(ConnectionLostError):
    """The way to the port of frames is closed, as by a firewall."""


class FrameConnection:
    """One connection of frames, after HELLO."""

    protocol: ProtocolName = "frames"
    fallback = ""

    def __init__(self, stream: FrameStream, task: BoardTask) -> None:
        self._stream = stream
        self._answer_values = task.answer_values
        self._reads_maps = bool(task.sender)

    def fileno(self) -> int:
        """File descriptor to select on."""
        return self._stream.fileno()

    @property
    def unsent(self) -> bool:
        """Whether bytes wait for room."""
        return self._stream.unsent

    def send(self, request: Request) -> None:
        """Ask for features; sends at once as far as there is room.

        A board that reads maps gets them from that of G0.
        """
        if self._reads_maps:
            return
        try:
            self._stream.send(request.frame)
        except OSError as error:
            raise ConnectionLostError(str(error)) from None

    def flush(self) -> None:
        """Send waiting bytes, as far as there is room."""
        try:
            self._stream.flush()
        except OSError as error:
            raise ConnectionLostError(str(error)) from None

    def replies(self) -> list[Reply]:
        """Return the replies received so far."""
        lost = self._receive()
        found = []
        try:
            while (frame := self._stream.frame()) is not None:
                found.append(self._reply(frame))
        except MalformedFrameError as error:
            lost = str(error)
        # What came before it counts; it is still there to be read again.
        if lost and not found:
            raise ConnectionLostError(lost)
        return found

    def close(self) -> None:
        """Close it."""
        self._stream.close()

    def _receive(self) -> str:
        """Take in what has come; return why nothing more will come, nothing while it may."""
        try:
            return "" if self._stream.receive() else "the worker closed the connection"
        except BlockingIOError:
            return ""
        except OSError as error:
            return str(error)

    def _reply(self, frame: Frame) -> Reply:
        if frame.kind == FrameKind.FEATURES:
            return Reply(frame.number, frames.parse_features(frame, self._answer_values))
        if frame.kind == FrameKind.REFUSED:
            return Reply(frame.number, None, frames.parse_refusal(frame))
        if frame.kind == FrameKind.SENT:
            times, unsent = frames.parse_sent(frame)
            return Reply(frame.number, times, unsent=unsent)
        raise MalformedFrameError(f"{frame.kind.name} in place of FEATURES")


def connect_frames(
    address: Address,
    task: BoardTask,
    context: ssl.SSLContext | None,
    seconds: float,
    ports: Mapping[str, int] = MappingProxyType({}),
) -> FrameConnection:
    """Connect, prove who is who, and agree on the students.

    `ports` are those of the frames of boards that G0's maps go on to.  Raises
    FramesUnreachableError where nothing answers there, ConnectionLostError for all else.
    """
    with ExitStack() as stack:
        try:
            plain = socket.create_connection((address.host, address.port), timeout=seconds)
        except OSError as error:
            raise FramesUnreachableError(f"{address}: {error}") from None
        stack.callback(plain.close)
        try:
            configure_socket(plain)
            largest = _OTHER_BYTES + 4 * 1024 * task.answer_values
            # A board is known by its name, wherever it is.
            stream = FrameStream(plain, largest, context, task.name)
            stream.handshake(seconds)
            plain.settimeout(seconds)
            stream.send_all(task.opening(ports).encoded())
            _check_welcome(stream.wait_frame(), task)
            plain.setblocking(False)
        except EOFError as error:
            raise ConnectionLostError("the worker closed the connection") from error
        except (OSError, MalformedFrameError) as error:
            raise ConnectionLostError(f"{address}: {error}") from None
        # What is open stays open.
        stack.pop_all()
    return FrameConnection(stream, task)


def certificate_fault(address: Address, board: str, identity: Identity, seconds: float) -> str:
    """Reason why host and board distrust each other; nothing where they do not.

    The certificate is looked at on a connection of its own, over which nothing is sent.
    """
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    place = (address.host, address.port)
    try:
        with (
            socket.create_connection(place, timeout=seconds) as plain,
            blind.wrap_socket(plain) as secure,
        ):
            shown = secure.getpeercert(binary_form=True)
        if shown and (fault := identity.fault_of_board(load_der_x509_certificate(shown), board)):
            return fault
        if fault := identity.fault_of_time():
            return fault
        trusting = identity.client_context()
        trusting.set_alpn_protocols(["h2"])
        with (
            socket.create_connection(place, timeout=seconds) as plain,
            trusting.wrap_socket(plain, server_hostname=board) as secure,
        ):
            refused = not secure.recv(1)
    except (ssl.SSLError, ConnectionResetError):
        refused = True
    except OSError:
        refused = False
    return (
        f"the board does not take this host's certificate, {identity.folder / CERTIFICATE_FILE}; "
        "see whether its clock is right, and its keys are of the same `nonn-plan keys init`"
        if refused
        else ""
    )


def _check_welcome(frame: Frame, task: BoardTask) -> None:
    if frame.kind == FrameKind.REFUSED:
        raise ConnectionLostError(f"{task.name} refuses: {frames.parse_refusal(frame)}")
    if frame.kind != FrameKind.WELCOME:
        raise MalformedFrameError(f"{frame.kind.name} in place of WELCOME")
    found, planned = frames.parse_welcome(frame), (task.image_values, task.answer_values)
    if found != planned:
        raise ConnectionLostError(
            f"{task.name} reads and answers {found} values, the bundle says {planned}; copy the "
            "bundle to the board again"
        )
