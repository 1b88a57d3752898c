"""Frames, messages behind their lengths, off a connection: in whatever pieces, within deadlines and limits."""

from __future__ import annotations

import socket
import sys
import threading
from time import monotonic

from .errors import WireError
from .messages import MAX_MESSAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Protocol

    from .client import Connection

    class _Clock(Protocol):
        def receiving(self, seconds: float, /) -> None: ...
        def sending(self, seconds: float, /) -> None: ...


#: Seconds from the first byte of a frame to its last, and for one to be written.
FRAME_TIMEOUT: Final = 30.0

_CHUNK: Final = 64 * 1024
#: Bytes that may be missing of a frame without further ado. Of frames that miss more, a process may have so many at a
#: time: one that never ends them is not to take all memory, nor to keep others from sending theirs.
_LARGE: Final = 16 * 1024
_MAX_LARGE: Final = 64
_large: dict[int, int] = {}  # by process
_gate = threading.Lock()


class Idle(TimeoutError):
    """No frame has begun in time."""


class Frames:
    """Takes whole frames off `connection`, and sends others."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._clock = _clock(connection)
        #: since when the next frame is waited for, by `time.monotonic`; None while nobody waits
        self.idle_since: float | None = None
        self._kept = bytearray()

    def next(self, patience: float) -> bytes:
        """The next frame, which begins within `patience` seconds; empty when the other end is closed.

        Raises `WireError` for a length that cannot be, `Idle` where none begins, TimeoutError, OSError.
        """
        self.idle_since = began = monotonic()
        if not self._kept:
            try:
                piece = self._receive(patience)
            except TimeoutError:
                raise Idle from None
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

    def unread(self, piece: bytes) -> None:
        """Have `next` begin with that, which somebody else has received."""
        self._kept += piece

    def send(self, frame: bytes) -> None:
        """Send a frame. Raises TimeoutError, OSError."""
        self._clock.sending(FRAME_TIMEOUT)
        try:
            self.connection.sendall(frame)
        except BlockingIOError:
            raise TimeoutError from None

    def _rest(self, deadline: float) -> bytes:
        """The frame of which some bytes, or all and more, have come."""
        if not self._gather(4, deadline):
            return b""
        size = int.from_bytes(self._kept[:4], "big")
        if not 0 < size <= MAX_MESSAGE:
            raise WireError(f"message of {size} bytes announced; it can be 1 to {MAX_MESSAGE}")
        end = 4 + size
        if not (self._gather_large if end - len(self._kept) > _LARGE else self._gather)(end, deadline):
            return b""
        whole = bytes(self._kept[:end])
        del self._kept[:end]
        return whole

    def _gather(self, size: int, deadline: float) -> bool:
        """Have so many bytes, and what more has come; whether the other end was not closed before."""
        while len(self._kept) < size:
            piece = self._receive(deadline - monotonic())
            if not piece:
                return False
            self._kept += piece
        return True

    def _gather_large(self, size: int, deadline: float) -> bool:
        """The same for as many as `_MAX_LARGE` frames of the process at the other end. Raises `WireError`."""
        process: int = getattr(getattr(self.connection, "peer", None), "pid", None) or 0
        with _gate:
            if process and _large.get(process, 0) >= _MAX_LARGE:
                raise WireError(f"more than {_MAX_LARGE} long messages of one process, none of them whole")
            _large[process] = _large.get(process, 0) + 1
        try:
            return self._gather(size, deadline)
        finally:
            with _gate:
                _large[process] -= 1
                if not _large[process]:
                    del _large[process]

    def _receive(self, seconds: float) -> bytes:
        """What comes next, within that time; empty at the end."""
        if seconds <= 0:
            raise TimeoutError
        self._clock.receiving(seconds)
        try:
            return self.connection.recv(_CHUNK)
        except BlockingIOError:  # so the system says it
            raise TimeoutError from None


class _SetTimeout:
    """Gives operations their time by the connection's own means."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def receiving(self, seconds: float) -> None:
        """Give the next `recv` so much."""
        if self._connection.gettimeout() != seconds:  # setting what is set already would cost more than to look
            self._connection.settimeout(seconds)

    sending = receiving


def _clock(connection: Connection) -> _Clock:
    """What gives the operations of that connection their time."""
    if sys.platform != "win32" and isinstance(connection, socket.socket):
        return _KernelTimeouts(connection)
    return _SetTimeout(connection)


if sys.platform != "win32":
    from struct import pack

    class _KernelTimeouts:
        """Has the kernel keep the time: once set, it costs nothing, where Python would ask it before each operation."""

        def __init__(self, connection: socket.socket) -> None:
            connection.settimeout(None)
            self._connection = connection
            self._receiving = self._sending = 0.0

        def receiving(self, seconds: float) -> None:
            """See `_SetTimeout`."""
            if self._receiving != seconds:
                self._receiving = seconds
                self._set(socket.SO_RCVTIMEO, seconds)

        def sending(self, seconds: float) -> None:
            """Give the next `sendall` so much, or each part of it."""
            if self._sending != seconds:
                self._sending = seconds
                self._set(socket.SO_SNDTIMEO, seconds)

        def _set(self, option: int, seconds: float) -> None:
            microseconds = max(1, int(seconds * 1_000_000))  # 0 would be for ever
            self._connection.setsockopt(socket.SOL_SOCKET, option, pack("ll", *divmod(microseconds, 1_000_000)))
