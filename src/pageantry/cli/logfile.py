"""The file that a log goes to: its user's alone, and never larger than it should be."""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import contextmanager
from time import monotonic, sleep

from ..errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

#: The most bytes of a log. What is older is in another file of that size at most, whose name ends in `OLD`.
MAX_SIZE: Final = 1024 * 1024
OLD: Final = ".1"

#: The most bytes of a line; of one that is longer the end is left out.
MAX_LINE: Final = 64 * 1024

#: Seconds that another program may take to write a line, between two looks whether it has, and for how many new files.
_TURN: Final = 5.0
_PAUSE: Final = 0.005
_FILES: Final = 100

#: Bytes that `tail` reads at most, and lines that it gives.
_TAIL: Final = 16 * 1024
_LINES: Final = 10


class LogFile:
    """A file to append lines to. Several programs may do so at the same time: each line is whole, and none is lost.

    Raises `Error` where it cannot be written to, or is not this user's alone.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(os.path.expanduser(path))
        try:
            self._file = _open(self.path)
        except OSError as error:
            raise _failure(self.path, error) from None
        self._broken_off = False

    def begin(self, line: str) -> None:
        """Write the first line of a run. Raises `Error`, as long as a person may still be there to be told."""
        try:
            self.append(f"{line}\n".encode("utf-8", "backslashreplace"))
        except OSError as error:
            self.close()
            raise _failure(self.path, error) from None

    def append(self, line: bytes) -> None:
        """Write a line. Raises OSError and `Error`; then it is missing, or broken off."""
        if len(line) > MAX_LINE:
            line = line[: MAX_LINE - 1] + b"\n"
        for _ in range(_FILES):
            with _alone(self._file):
                if self._is_there():  # or else another program has begun a new one
                    if os.fstat(self._file).st_size + len(line) < MAX_SIZE:
                        self._write(line)
                        return
                    os.replace(self.path, self.path + OLD)
            old, self._file = self._file, _open(self.path)
            os.close(old)
            self._broken_off = False
        raise OSError("other programs put files in its place again and again")

    def _write(self, line: bytes) -> None:
        rest = b"\n" + line if self._broken_off else line
        while rest:
            rest = rest[os.write(self._file, rest) :]
            self._broken_off = bool(rest)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._file)

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file), os.lstat(self.path))
        except FileNotFoundError:
            return False


def tail(path: str, start: int = 0) -> list[str]:
    """The last lines of a log, of those that begin at byte `start` or later; none where there is no log.

    Where it has become shorter than that, it was begun anew. Raises OSError.
    """
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = start if start <= size else 0
            cut = size - _TAIL > start
            file.seek(max(start, size - _TAIL))
            lines = file.read(_TAIL).decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return []
    return lines[int(cut) :][-_LINES:]


@contextmanager
def _alone(file: int) -> Iterator[None]:
    """Be the only program that writes to a log, or gives it another name. Raises OSError."""
    deadline = monotonic() + _TURN
    while not _lock(file):
        if monotonic() >= deadline:
            raise TimeoutError("another program keeps it locked")
        sleep(_PAUSE)
    try:
        yield
    finally:
        _unlock(file)


def _failure(path: str, error: OSError) -> Error:
    return Error(
        f"the log cannot be written to {path}: {error.strerror or error}",
        "make room there, or name a file in a directory of yours",
    )


def _check(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise Error(f"{path} is not a file that could be a log's alone", "move it away, or name another file")


if sys.platform == "win32":
    import msvcrt

    #: The byte that is locked, far behind all that is written: nobody can read or write what is locked here.
    _LOCKED: Final = 1 << 30

    def _open(path: str) -> int:
        from .. import acl

        file = acl.append(path)
        try:
            status = os.fstat(file)
            _check(path, status)
            if status.st_file_attributes & stat.FILE_ATTRIBUTE_REPARSE_POINT:
                raise Error(f"{path} leads elsewhere", "name the file itself")
            if acl.others(path):
                raise Error(f"others can write to {path}", "delete it, or name a file in a folder of yours")
        except BaseException:
            os.close(file)
            raise
        return file

    def _lock(file: int) -> bool:
        os.lseek(file, _LOCKED, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno not in (errno.EACCES, 0):  # 0 is what Wine says
                raise
            return False
        return True

    def _unlock(file: int) -> None:
        os.lseek(file, _LOCKED, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _open(path: str) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            file = os.open(path, flags, 0o600)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise Error(f"{path} is a symbolic link", "move it away, or name another file") from None
            raise
        try:
            status = os.fstat(file)
            _check(path, status)
            if status.st_uid != os.geteuid():
                raise Error(f"{path} belongs to another user", "name a file in a directory of yours")
            if status.st_mode & 0o077:
                from shlex import quote

                raise Error(f"others can read or write {path}", f"run: chmod 600 {quote(path)}")
        except BaseException:
            os.close(file)
            raise
        return file

    def _lock(file: int) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)
