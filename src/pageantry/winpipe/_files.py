"""A file over a pipe."""

from __future__ import annotations

import io

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

    from ._stream import Pipe


class _Raw(io.RawIOBase):
    """A pipe as io knows streams. Its closing is not the pipe's."""

    def __init__(self, pipe: Pipe, mode: str) -> None:
        self._pipe = pipe
        self._mode = mode
        self._late = self._failed = False

    def readable(self) -> bool:
        return "r" in self._mode

    def writable(self) -> bool:
        return "w" in self._mode

    def readinto(self, buffer: Any, /) -> int | None:
        self._check("r")
        if self._late:
            raise OSError("nothing can be read from this file after a timeout: what it had by then is lost")
        try:
            return self._pipe.recv_into(buffer)
        except BlockingIOError:
            return None
        except TimeoutError:
            self._late = True
            raise

    def write(self, data: Any, /) -> int | None:
        self._check("w")
        if self._failed:
            raise OSError("nothing can be written to this file after an error: how much went is not known")
        try:
            self._pipe.sendall(data)
        except OSError:
            self._failed = True  # not to write again what a buffer above still holds, and what may have gone
            raise
        return memoryview(data).nbytes

    def _check(self, way: str) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        if way not in self._mode:
            raise io.UnsupportedOperation("not readable" if way == "r" else "not writable")


def makefile(
    pipe: Pipe, mode: str, buffering: int, encoding: str | None, errors: str | None, newline: str | None
) -> IO[Any]:
    """See `Pipe.makefile`."""
    kind, binary = mode.replace("b", ""), "b" in mode
    if kind not in ("r", "w", "rw") or mode.count("b") > 1:
        raise ValueError(f"the mode of a pipe's file is r, w or rw, and b or not; not {mode!r}")
    size = io.DEFAULT_BUFFER_SIZE if buffering < 0 else buffering
    file: Any = _Raw(pipe, kind)
    if not size:
        if not binary:
            raise ValueError("text cannot be unbuffered")
        return file  # type: ignore[no-any-return]
    if kind == "r":
        file = io.BufferedReader(file, size)
    elif kind == "w":
        file = io.BufferedWriter(file, size)
    else:
        file = io.BufferedRWPair(file, _Raw(pipe, kind), size)
    return file if binary else io.TextIOWrapper(file, encoding, errors, newline)
