"""Rules in a file, which are read again when it has changed."""

from __future__ import annotations

import os
import sys
import threading
from stat import S_ISREG
from time import monotonic, time

from ..errors import Error
from .parsing import MAX_SIZE, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from .judging import Rules

#: Seconds between two looks whether it has changed, and for which a file has to be as it is: one that was just written
#: may be half of what it will be.
_PAUSE: Final = 1.0


class RulesFile:
    """The rules in the file at `path`: called, it gives those that hold now. Threads may share it.

    The file must belong to this user, or to the system's administrator, and nobody else may write to it, as ssh has it
    with its configuration. Once it has changed and was left alone for a second, the next call finds the new rules; if
    there is something wrong with it, the old ones stay, and `say` is told what, once. Raises `Error` when it is made
    of a file that cannot be used.
    """

    def __init__(self, path: str, say: Callable[[str], object] | None = None) -> None:
        self.path = path
        self._say = say or (lambda _: None)
        self._gate = threading.Lock()
        self._rules, self._stamp = _read(path)
        self._said = ""
        self._seen = self._stamp
        self._next_look = monotonic() + _PAUSE

    def __call__(self) -> Rules:
        """The rules. Never raises, nor waits."""
        if monotonic() >= self._next_look and self._gate.acquire(False):
            try:
                self._look()
            finally:
                self._gate.release()
        return self._rules

    def _look(self) -> None:
        self._next_look = monotonic() + _PAUSE
        try:
            seen = _stamp(os.stat(self.path))
            if seen == self._stamp:
                self._said = ""
                return
            rested = seen == self._seen or 0 <= seen[0] / 1e9 <= time() - _PAUSE
            self._seen = seen
            if not rested:
                return
            self._rules, self._stamp = _read(self.path)
        except (Error, OSError) as error:
            what = str(error) if isinstance(error, Error) else f"{self.path} cannot be read: {error.strerror}"
            if what != self._said:
                self._said = what
                self._say(f"the rules stay as they were: {what}")
        else:
            self._said = ""
            self._say(f"the rules are those of {self.path} as it is now")


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    """What differs when a file has changed, or who may change it."""
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev, status.st_mode, status.st_ctime_ns


def _read(path: str) -> tuple[Rules, tuple[int, ...]]:
    """The rules of a file, and its stamp. Raises `Error`."""
    try:
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb") as file:
            status = os.fstat(file.fileno())
            if not S_ISREG(status.st_mode):  # it may never end, or never begin
                raise Error(f"{path} is no file", "name a file of rules")
            _check_owner(path, status)
            text = file.read(MAX_SIZE + 1)
            if _stamp(os.fstat(file.fileno())) != _stamp(status):
                raise Error(f"{path} was changed while it was read", "try it once more")
    except OSError as error:
        raise Error(f"{path} cannot be read: {error.strerror}", "correct the path, or who may read it") from None
    except ValueError:  # a zero in it
        raise Error(f"{path!a} can be no path", "name a file of rules") from None
    return parse(text, path), _stamp(status)


if sys.platform == "win32":

    def _check_owner(path: str, _: os.stat_result) -> None:
        """Raise `Error` if others can change the file."""
        from .. import winpipe
        from ..acl import others

        if who := others(path):
            raise Error(
                f"{winpipe.Peer(None, who[0]).account or who[0]} can write to {path}, so it cannot be trusted",
                f'run: icacls "{path}" /inheritance:r /grant:r "*{winpipe.user()}:F"',
            )

else:

    def _check_owner(path: str, status: os.stat_result) -> None:
        """Raise `Error` if others can change the file."""
        if status.st_uid not in (os.geteuid(), 0):
            raise Error(f"{path} belongs to another user (number {status.st_uid})", "copy it to a file of your own")
        if status.st_mode & 0o022:
            from shlex import quote

            raise Error(f"others can write to {path}, so it cannot be trusted", f"run: chmod go-w {quote(path)}")
