"""Directories that a socket may lie in: nobody but this user and root can put another one in its place."""

from __future__ import annotations

import os
import stat
import sys
from time import monotonic, sleep

from ..errors import Error
from . import unix

assert sys.platform != "win32", "UNIX only: callers ask first"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

#: Seconds that others may take to begin in the same directory, or to look through it.
_TURN: Final = 5.0
_PAUSE: Final = 0.01


def make_private(path: str) -> None:
    """See to it that `path` is a directory of this user's in which nobody else can write; make it, with mode 0700.

    That others can read there is left alone in one that is there already, as sshd leaves it alone: a socket has its own
    mode. Raises `Error` where it is something else, OSError where it cannot be made.
    """
    try:
        os.mkdir(path, 0o700)
        return
    except FileExistsError:
        pass
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode) and status.st_uid in unix.trusted():
        status = os.stat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise Error(f"{path} is no directory", "move it out of the way")
    if status.st_uid != os.geteuid():
        raise Error(f"{path} belongs to {unix.user(status.st_uid)}, not to you", "use a directory of your own")
    if unix.others_may_write(status):
        raise Error(f"others may write in {path}", f"take that right away (chmod go-w {path})")


def check(directory: str) -> None:
    """Nobody but us and root may put anything in the place of what is in it. Raises `Error`."""
    try:
        status = os.stat(directory)
    except OSError as error:
        raise Error(f"cannot listen in {directory}: {error.strerror}", "make that directory, with mode 0700") from None
    if not stat.S_ISDIR(status.st_mode):
        raise Error(f"{directory} is no directory", "name a path in a directory of yours")
    if status.st_uid not in unix.trusted():
        raise Error(
            f"{directory} belongs to {unix.user(status.st_uid)}, who may replace what is in it",
            "name a path in a directory of yours",
        )
    if not status.st_mode & stat.S_ISVTX and unix.others_may_write(status):
        raise Error(
            f"others may write in {directory}, and replace what is in it",
            f"take that right away (chmod go-w {directory}), or name a path in a directory of yours",
        )


def lock(directory: str) -> int:
    """Be the only one who puts sockets into a directory and takes them out, until the descriptor is closed.

    It is the directory itself that is locked, so that nothing is left of it. Where others can look into it, they can
    keep it locked, too: then this goes on without. What makes a socket is exclusive by itself; only two of our own that
    begin at the same path at the same moment could get into each other's way. Raises `Error`.
    """
    import fcntl

    deadline = monotonic() + _TURN
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Error(f"cannot look into {directory}: {error.strerror}", "let the agent listen elsewhere") from None
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError:
                if monotonic() >= deadline:
                    if _others_may_read(os.fstat(descriptor)):
                        return descriptor
                    raise
            sleep(_PAUSE)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise Error(f"another program keeps {directory} locked", "let the agent listen elsewhere") from None
        raise Error(f"{directory} cannot be locked: {error.strerror}", "let the agent listen elsewhere") from None


def _others_may_read(status: os.stat_result) -> bool:
    return status.st_uid != os.geteuid() or bool(status.st_mode & (stat.S_IRGRP | stat.S_IROTH))
