"""Frames, messages behind their lengths, off a connection: in whatever pieces, within deadlines and limits."""

from __future__ import annotations

from time import monotonic

from .errors import WireError
from .messages import MAX_MESSAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from .client import Connection

#: Seconds from the first byte of a frame to its last, and for one to be written.
FRAME_TIMEOUT: Final = 30.0

_CHUNK: Final = 64 * 1024


class Frames:
    """Takes whole frames off `connection`, and sends others."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        #: since when the next frame is waited for, by `time.monotonic`; None while nobody waits
        self.idle_since: float | None = None
        self._kept = bytearray()

    def next(self, patience: float) -> bytes:
        """The next frame, which begins within `patience` seconds; empty when the other end is closed.

        Raises `WireError` for a length that cannot be, TimeoutError, OSError.
        """
        self.idle_since = began = monotonic()
        if not self._kept:
            _allow(self.connection, patience)
            piece = self.connection.recv(_CHUNK)
            if len(piece) == 4 + int.from_bytes(piece[:4], "big") > 4:  # nearly always
                self.idle_since = None
                return piece
            if not piece:
                return b""
            self._kept += piece
            began = monotonic()
        whole = self._rest(began + FRAME_TIMEOUT)
        self.idle_since = None
        return whole

    def send(self, frame: bytes) -> None:
        """Send a frame. Raises TimeoutError, OSError."""
        _allow(self.connection, FRAME_TIMEOUT)
        self.connection.sendall(frame)

    def _rest(self, deadline: float) -> bytes:
        """The frame of which some bytes, or all and more, have come."""
        while (missing := self._missing()) > 0:
            _allow(self.connection, deadline - monotonic())
            piece = self.connection.recv(_CHUNK)
            if not piece:
                return b""
            self._kept += piece
        end = len(self._kept) + missing
        whole = bytes(self._kept[:end])
        del self._kept[:end]
        return whole

    def _missing(self) -> int:
        """How many bytes of the frame are still to come; fewer than 0 when there are more than belong to it."""
        if len(self._kept) < 4:
            return 4 - len(self._kept)
        size = int.from_bytes(self._kept[:4], "big")
        if not 0 < size <= MAX_MESSAGE:
            raise WireError(f"message of {size} bytes announced; it can be 1 to {MAX_MESSAGE}")
        return 4 + size - len(self._kept)


def _allow(connection: Connection, seconds: float) -> None:
    """Give the next operation so much time; setting what is set already would cost more than to look."""
    if seconds <= 0:
        raise TimeoutError
    if connection.gettimeout() != seconds:
        connection.settimeout(seconds)
