"""Frames put together from what a connection reads, however it was cut on the way."""

from boards.protocol.frames import HEADER, Frame, header


class Assembly:
    """What came of frames, in order; a frame that came whole and alone is not copied about."""

    def __init__(self, largest_bytes: int) -> None:
        """No payload may be longer than `largest_bytes`."""
        self._largest_bytes = largest_bytes
        self._came: bytes | bytearray = b""

    @property
    def begun(self) -> bool:
        """Whether a part of a frame is here."""
        return bool(self._came)

    def add(self, chunk: bytes) -> None:
        """Take what was read."""
        if not self._came:
            self._came = chunk
            return
        if isinstance(self._came, bytes):
            self._came = bytearray(self._came)
        self._came += chunk

    def frame(self) -> Frame | None:
        """Take the next frame; None where it is not all there.  Raises MalformedFrameError."""
        came = self._came
        if len(came) < HEADER.size:
            return None
        kind, number, length = header(came, self._largest_bytes)
        end = HEADER.size + length
        if len(came) < end:
            return None
        self._came = came[end:]
        return Frame(kind, number, bytes(came[HEADER.size : end]))
