"""One end of a pipe as a stream, and how it is closed: the logic, for any kernel with overlapped operations.

Three rules carry it. An operation that was started is seen to its end, whatever happens: until then its buffer is the
kernel's. Whoever cancels one looks at what became of it all the same, because it may have succeeded meanwhile. And
a handle is given back only when nobody's turn is under way on it any more, by whoever comes last.

Signals' handlers may do anything at any moment, which includes to raise KeyboardInterrupt and to close what they have
interrupted. So turns are reentrant locks: they can be released in a `finally`, whether or not they were taken.
"""

from __future__ import annotations

import errno
import threading
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import IO, Any, Final, Protocol, Self, TypeVar

    from ._peer import Peer

    _T = TypeVar("_T")

    class Lane(Protocol):
        """One direction of a handle, with at most one operation under way."""

        @property
        def pending(self) -> bool:
            """Whether there is an operation of which `result` has not told the end."""

        def connect(self) -> bool:
            """Start to wait for a client; whether there is one already. Raises OSError."""

        def read(self, buffer: memoryview, /) -> bool:
            """Start to read into `buffer`; whether that is done already. Raises OSError."""

        def write(self, data: bytes, /) -> bool:
            """Start to write `data`; whether that is done already. Raises OSError."""

        def wait(self, seconds: float | None, /) -> bool:
            """Whether the operation comes to its end within so many seconds."""

        def cancel(self) -> None:
            """Ask for the operation's end; nothing when there is none."""

        def result(self) -> int | None:
            """Wait for the operation's end: how many bytes, or None if it was cancelled.

            Raises OSError; BrokenPipeError when there is nobody at the other end any more.
            """

    class Handle(Protocol):
        """An open end of a pipe."""

        @property
        def reading(self) -> Lane:
            """The one that waits for a client, too."""

        @property
        def writing(self) -> Lane:
            """The other."""

        def gone(self) -> bool:
            """Whether there is nobody at the other end any more, and nothing left to read."""

        def close(self) -> None:
            """Give it back; the second time does nothing."""


#: The most bytes of one WriteFile. OpenSSH for Windows wants a request in one piece; the largest has 256 KiB.
MAX_WRITE: Final = 1024 * 1024
#: The most bytes that one `recv` returns.
MAX_READ: Final = 1024 * 1024
#: Seconds after which the main thread looks for Ctrl-C, which does not interrupt its waits on Windows.
SLICE: Final = 0.1


class Waiting:
    """What the ends of pipes and listeners have in common: a path, a timeout, turns, `with`, and being closed once."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.closed = False
        self._timeout: float | None = None
        self._gate = threading.RLock()
        self._busy: set[threading.RLock] = set()  # turns that are under way

    def settimeout(self, seconds: float | None) -> None:
        """How long each operation may take from now on, in seconds; None for ever, 0 not at all (BlockingIOError)."""
        if seconds is not None and not 0 <= seconds <= threading.TIMEOUT_MAX:
            raise ValueError(f"a timeout is None or 0 to {threading.TIMEOUT_MAX:.0f} seconds, not {seconds}")
        self._timeout = seconds

    def gettimeout(self) -> float | None:
        """What `settimeout` was given last; None at first."""
        return self._timeout

    def close(self) -> None:
        """Close it, from any thread and any number of times. Whoever waits for it is woken with OSError (EBADF)."""
        raise NotImplementedError

    def _deadline(self) -> float | None:
        return None if self._timeout is None else monotonic() + self._timeout

    def _check(self) -> None:
        if self.closed:
            raise OSError(errno.EBADF, "the pipe was closed", self.path)

    def _late(self) -> OSError:
        """What to raise when the deadline has passed."""
        if self._timeout == 0:
            return BlockingIOError(errno.EAGAIN, "the pipe is not ready", self.path)
        return TimeoutError(errno.ETIMEDOUT, "nothing came of it in time", self.path)

    def _wait(self, wait: Callable[[float | None], _T], deadline: float | None) -> _T | None:
        """What `wait`, given seconds, comes to before `deadline`; None when that passes, or this is closed."""
        sliced = threading.current_thread() is threading.main_thread()
        while True:
            left = None if deadline is None else max(0.0, deadline - monotonic())
            last = not sliced or (left is not None and left <= SLICE)
            if found := wait(left if last else SLICE):
                return found
            if last or self.closed:
                return None

    def _in_turn(self, turn: threading.RLock, do: Callable[[float | None], _T]) -> _T:
        """What `do`, given the deadline, returns when it is our turn. Raises OSError when that is not in time."""
        deadline = self._deadline()
        try:
            if not turn.acquire(False) and not self._wait(
                lambda seconds: turn.acquire(True, -1 if seconds is None else seconds), deadline
            ):
                self._check()
                raise self._late()
            if turn in self._busy:
                raise RuntimeError("a signal's handler cannot do once more what it has interrupted")
            try:
                self._busy.add(turn)
                return do(deadline)
            finally:
                self._busy.discard(turn)
        finally:
            try:
                turn.release()
            except RuntimeError:
                pass  # it has not come
            if self.closed:
                with self._gate:
                    self._dispose()

    def _dispose(self) -> None:
        """Give everything back, if this is closed and nobody's turn is under way; else whoever ends that will."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "closed", True):
            try:
                import warnings

                warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            except ImportError:
                pass  # Python is shutting down
            finally:
                self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}{', closed' if self.closed else ''}>"


class Pipe(Waiting):
    """One end of a named pipe: a stream of bytes both ways at once, in the manner of a socket.

    One thread may read while another writes; further ones take turns. Every operation ends by the timeout at the
    latest, with TimeoutError, and loses nothing that was read. When the other end is closed, `recv` returns b"" once
    all was read, and `sendall` raises BrokenPipeError. Half an end cannot be closed: Windows' pipes know no such thing.
    `peer` is the process at the other end, `path` the whole path of the pipe.
    """

    def __init__(self, handle: Handle, path: str, peer: Peer) -> None:
        super().__init__(path)
        self.peer = peer
        self._handle = handle
        self._reading, self._writing = threading.RLock(), threading.RLock()  # whose turn it is
        self._buffer = memoryview(b"")
        self._kept = b""  # read for somebody who was interrupted
        self._stopped: set[Lane] = set()

    def recv(self, size: int) -> bytes:
        """The bytes that are there, 1 to `size`, waiting for the first; b"" at the end of the stream.

        Raises TimeoutError, BlockingIOError with a timeout of 0, OSError.
        """
        size = min(_size(size), MAX_READ)

        def read(deadline: float | None) -> bytes:
            if len(self._buffer) < size:
                self._buffer = memoryview(bytearray(size))
            return bytes(self._buffer[: self._read(self._buffer[:size], deadline)])

        return self._in_turn(self._reading, read) if size else b""

    def recv_into(self, buffer: bytearray | memoryview, size: int = 0) -> int:
        """As `recv`, into `buffer`, at most `size` bytes unless that is 0: how many there were, 0 at the end."""
        view = memoryview(buffer).cast("B")
        view = view[: _size(size) or len(view)]
        return self._in_turn(self._reading, lambda deadline: self._read(view, deadline)) if view else 0

    def sendall(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data`, each MiB of it in one piece. After an error nobody knows how much went.

        Raises BrokenPipeError when there is no other end any more, TimeoutError, OSError.
        """
        data = bytes(memoryview(data))
        self._in_turn(self._writing, lambda deadline: self._write(data, deadline))

    def shutdown(self, how: int) -> None:
        """Close, for `how` = 2 (SHUT_RDWR); OSError (EOPNOTSUPP) for one direction alone, which pipes cannot."""
        if how != 2:
            raise OSError(errno.EOPNOTSUPP, "a pipe cannot be closed in one direction alone", self.path)
        self.close()

    def gone(self) -> bool:
        """Whether the other end is closed, and all was read; without reading. True when this one is closed."""
        with self._gate:
            return self.closed or self._handle.gone()

    def makefile(
        self,
        mode: str = "r",
        buffering: int = -1,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """A file over this pipe, for `mode` "r", "w" or "rw", with "b" for bytes; otherwise as `socket.makefile`.

        To close the file does not close the pipe. After a timeout the file cannot be read any more, as some of what
        it had may be lost.
        """
        from ._files import makefile

        return makefile(self, mode, buffering, encoding, errors, newline)

    def close(self) -> None:
        """Close it, from any thread and any number of times. Whoever waits for it is woken with OSError (EBADF).

        What was written can still be read at the other end.
        """
        with self._gate:
            self.closed = True
            self._handle.reading.cancel()
            self._handle.writing.cancel()
            self._dispose()

    def _dispose(self) -> None:
        if self.closed and not self._busy:
            self._handle.close()

    def _stop_reading(self, stop: bool) -> None:
        """End the read that is under way as if its deadline had passed; and further ones, until `stop` is False."""
        self._stop(self._handle.reading, stop)

    def _stop_writing(self, stop: bool) -> None:
        """As `_stop_reading`."""
        self._stop(self._handle.writing, stop)

    def _stop(self, lane: Lane, stop: bool) -> None:
        with self._gate:
            if stop:
                self._stopped.add(lane)
                lane.cancel()
            else:
                self._stopped.discard(lane)

    def _unread(self, data: bytes) -> None:
        """Have the next `recv` return `data` first. Nobody may be reading."""
        self._kept = data + self._kept

    def _read(self, view: memoryview, deadline: float | None) -> int:
        """Read into `view`: how many bytes, 0 at the end of the stream."""
        self._check()
        if not self._kept:
            try:
                while not (count := self._operate(self._handle.reading, view, deadline)):
                    if deadline is not None and monotonic() >= deadline:
                        raise self._late()  # somebody wrote nothing at all, which is no end, and may do so for ever
            except BrokenPipeError:
                return 0
            return count
        count = min(len(view), len(self._kept))
        view[:count], self._kept = self._kept[:count], self._kept[count:]
        return count

    def _write(self, data: bytes, deadline: float | None) -> None:
        self._check()
        for start in range(0, len(data), MAX_WRITE):
            piece = data[start : start + MAX_WRITE]
            while piece:
                piece = piece[self._operate(self._handle.writing, piece, deadline) :]

    def _operate(self, lane: Lane, data: memoryview | bytes, deadline: float | None) -> int:
        """Read into a memoryview, or write bytes, and see it to its end: how many. It is our turn on `lane`."""
        count: int | None = None
        try:
            with self._gate:
                self._check()
                if lane not in self._stopped:
                    done = lane.read(data) if isinstance(data, memoryview) else lane.write(data)
            if lane.pending:
                if not done and not self._wait(lane.wait, deadline):
                    lane.cancel()
                count = lane.result()
        finally:
            while lane.pending:  # something interrupted us: see it to its end nonetheless
                try:
                    lane.cancel()
                    count = lane.result()
                    if count and isinstance(data, memoryview):
                        self._kept = bytes(data[:count])
                except (OSError, KeyboardInterrupt):
                    pass  # the first interrupt is on its way already
        if count is None:
            self._check()
            raise self._late()
        return count


def _size(size: int) -> int:
    if size < 0:
        raise ValueError(f"the size of a read cannot be {size}")
    return size
