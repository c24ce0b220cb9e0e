"""The stream of frames over one socket, plain or TLS, with few system calls.

TLS is Python's, between two buffers in memory: what the system has is taken in one call, with the
socket's own options as time limits.  An `SSLSocket` reads the head and the body of each record by
calls of their own, and polls before each of them where it has a time limit.
"""

import socket
import ssl
import struct
import time
from contextlib import suppress
from math import prod
from typing import Self

import numpy as np

from boards.protocol.frames import (
    HEADER,
    MAGIC,
    VERSION,
    Frame,
    FrameAssembler,
    FrameKind,
    Values,
    whole_frame,
)

_CHUNK_BYTES = 64 * 1024
"""Most that is taken from the system at once."""
_COUNT = struct.Struct("<I")
_ONE = _COUNT.pack(1)
_ANSWER = struct.Struct("<4sBBHQIQQI")
"""Head of a frame of features, whole."""
_RECORD_BYTES = 16 * 1024
"""Most that TLS has in a record."""
_TIMEVALS = ("ll", "qq")
"""Layouts of the system's `timeval`; the second is that of 64-bit time on 32-bit boards."""


def configure_socket(connection: socket.socket) -> None:
    """Send small messages at once, and notice a peer that is gone."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Linux: after 20 s of silence, four probes 5 s apart.
    for option, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


class FrameStream:
    """Frames over a connected socket; with a TLS context after `handshake`.

    One thread reads; another may write only while that one does not (TLS keeps one state for both).
    """

    def __init__(
        self,
        connection: socket.socket,
        largest_bytes: int,
        context: ssl.SSLContext | None = None,
        peer: str | None = None,
    ) -> None:
        """Take a socket; `peer` is the name that a client asks for."""
        self.socket = connection
        self._assembler = FrameAssembler(largest_bytes)
        self._unsent = bytearray()
        self._limit_s = 0.0
        self._buffer = bytearray(_CHUNK_BYTES)
        self._view = memoryview(self._buffer)
        self.record = memoryview(bytearray(_RECORD_BYTES))
        self._largest_bytes = largest_bytes
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        if context is not None:
            self._tls = context.wrap_bio(
                self._incoming, self._outgoing, server_side=peer is None, server_hostname=peer
            )

    def fileno(self) -> int:
        """File descriptor to select on."""
        return self.socket.fileno()

    def handshake(self, seconds: float) -> None:
        """Prove who is who within so long; raises OSError."""
        if self._tls is None:
            return
        until_s, done = time.monotonic() + seconds, False
        while not done:
            try:
                self._tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                # The other end is told why.
                with suppress(OSError):
                    self.socket.sendall(self._outgoing.read())
                raise
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("the handshake took too long")
            self.socket.settimeout(left_s)
            if self._outgoing.pending:
                self.socket.sendall(self._outgoing.read())
            if not done:
                count = self.socket.recv_into(self._buffer)
                if not count:
                    raise ConnectionResetError("it ended in its handshake")
                self._incoming.write(self._view[:count])

    def limit(self, seconds: float) -> None:
        """Let no call wait for longer, by the options of the socket."""
        self.socket.settimeout(None)
        self._limit_s = seconds
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            _set_time(self.socket, option, seconds)

    def peer_certificate(self) -> bytes | None:
        """Certificate of the other end, DER; None without TLS."""
        return None if self._tls is None else self._tls.getpeercert(binary_form=True)

    @property
    def begun(self) -> bool:
        """Whether a part of a frame is here."""
        return self._assembler.begun or bool(self._incoming.pending)

    @property
    def unsent(self) -> bool:
        """Whether bytes wait for room."""
        return bool(self._unsent)

    def frame(self) -> Frame | None:
        """Take the next frame; None where it is not all there.  Raises MalformedFrameError."""
        return self._assembler.frame()

    def receive(self) -> bool:
        """Take in all that has come; False at the end.

        Raises BlockingIOError where nothing came in time, or at once from a socket that does not
        wait; other OSErrors where the connection is lost.
        """
        incoming = self._incoming
        if self._tls is None:
            chunk: bytes | None = self.socket.recv(_CHUNK_BYTES)
        else:
            chunk = self._decrypted() if incoming.pending else None
            while chunk is None:
                count = self.socket.recv_into(self._buffer)
                if not count:
                    return False
                incoming.write(self._view[:count])
                chunk = self._decrypted()
        while chunk:
            self._assembler.add(chunk)
            if not incoming.pending:
                return True
            # A selector would not see what is left here.
            chunk = self._decrypted()
        return chunk is None

    def wait_frame(self, *, begun: bool = False) -> Frame:
        """Read a frame; once it has `begun`, no pause exceeds the socket's limit.

        The payload of images and maps is good until the next frame is read.

        Raises MalformedFrameError, EOFError and what sockets raise, TimeoutError among them.
        """
        assembler, frame = self._assembler, None
        while frame is None:
            try:
                if self._tls is None or assembler.begun or self._incoming.pending:
                    frame = assembler.frame()
                    if frame is None and not self.receive():
                        raise EOFError("the other end closed the connection")
                else:
                    frame = self._whole_frame(self._tls)
            except BlockingIOError:
                if begun or self.begun:
                    raise TimeoutError("nothing came in time") from None
        return frame

    def _whole_frame(self, tls: ssl.SSLObject) -> Frame | None:
        """Next frame where it comes in one record, with its payload in place.

        None where it does not.  On a small board each further call costs microseconds.
        """
        count = self.socket.recv_into(self._buffer)
        if count:
            self._incoming.write(self._view[:count])
        try:
            size = int(tls.read(_RECORD_BYTES, self.record)) if count else 0
        except ssl.SSLWantReadError:
            return None
        if not size:
            raise EOFError("the other end closed the connection")
        content = self.record[:size]
        frame = whole_frame(content, self._largest_bytes)
        if frame is None:
            self._assembler.add(bytes(content))
        return frame

    def send(self, frame: bytes | bytearray) -> None:
        """Send what there is room for; the rest waits for `flush`.

        Raises OSError.
        """
        content = self._encrypted(frame)
        if self._unsent:
            self._unsent += content
            return
        try:
            sent = self.socket.send(content)
        except BlockingIOError:
            sent = 0
        if sent < len(content):
            self._unsent += memoryview(content)[sent:]

    def flush(self) -> None:
        """Send what waits, as far as there is room; raises OSError."""
        with suppress(BlockingIOError):
            while self._unsent:
                sent = self.socket.send(self._unsent)
                del self._unsent[:sent]

    def send_all(self, frame: bytes | bytearray) -> None:
        """Send a frame whole; raises TimeoutError, or another OSError."""
        content = self._encrypted(frame)
        try:
            sent = self.socket.send(content)
            if sent < len(content):
                self._send_rest(memoryview(content)[sent:])
        except (BlockingIOError, TimeoutError):
            raise TimeoutError("what was sent was not taken in time") from None

    def _send_rest(self, content: memoryview) -> None:
        until_s = time.monotonic() + self._limit_s
        while content:
            if time.monotonic() > until_s:
                raise TimeoutError
            content = content[self.socket.send(content) :]

    def close(self) -> None:
        """Close it."""
        with suppress(OSError):
            self.socket.close()

    def _encrypted(self, content: bytes | bytearray) -> bytes | bytearray:
        """Bytes that go over the wire for some content."""
        if self._tls is None:
            return content
        # A write takes no more than a record.
        done = self._tls.write(content)
        while done < len(content):
            done += self._tls.write(memoryview(content)[done:])
        return self._outgoing.read()

    def _decrypted(self) -> bytes | None:
        """Next record; None where none is whole, nothing at its end."""
        if self._tls is None:
            return None
        try:
            return self._tls.read(_RECORD_BYTES)
        except ssl.SSLWantReadError:
            return None


class OneImage:
    """One image and its features, in buffers that stay from image to image."""

    def __init__(self, image: Values, width: int) -> None:
        """Images that lie in `image`, `(1, ...)`, are answered by `width` values."""
        self.image = image
        self._bytes = _COUNT.size + image.nbytes
        self._answer = bytearray(_ANSWER.size + 4 * width)
        self.features: Values = np.frombuffer(self._answer, "<f4", width, _ANSWER.size)[None]
        self._length = len(self._answer) - HEADER.size

    @classmethod
    def of(cls, stream: FrameStream, shape: tuple[int, ...], width: int) -> Self | None:
        """Images of `shape` in a stream's record; None where such an image is larger."""
        start = HEADER.size + _COUNT.size
        if start + 4 * prod(shape) > len(stream.record):
            return None
        return cls(
            np.frombuffer(stream.record, "<f4", prod(shape), start).reshape(1, *shape), width
        )

    def has_come(self, frame: Frame) -> bool:
        """Whether a frame holds one image, and lies in the stream's record."""
        payload = frame.payload
        return (
            len(payload) == self._bytes
            and frame.kind is FrameKind.IMAGES
            and isinstance(payload, memoryview)
            and payload[: _COUNT.size] == _ONE
        )

    def answer(self, number: int, times_ns: tuple[int, int]) -> bytearray:
        """FEATURES frame of what is in `features`, with the times waited and computed."""
        head = MAGIC, VERSION, FrameKind.FEATURES, 0, number, self._length
        _ANSWER.pack_into(self._answer, 0, *head, *times_ns, 1)
        return self._answer


def _set_time(connection: socket.socket, option: int, seconds: float) -> None:
    """Set a time limit of a socket; raises OSError."""
    whole, rest = divmod(int(1e6 * seconds), 1_000_000)
    for layout in _TIMEVALS:
        try:
            connection.setsockopt(socket.SOL_SOCKET, option, struct.pack(layout, whole, rest))
            return
        except OSError as error:
            refused = error
    raise refused
