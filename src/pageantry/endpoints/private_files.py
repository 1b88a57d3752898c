"""Files that stand for a socket of ours: this user's alone and whole from the first moment, in nobody else's place."""

from __future__ import annotations

import os
import stat
import sys
from time import monotonic, sleep

from ..errors import Error, Unreachable
from . import files, socketfiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

#: Seconds that whoever has a file open on Windows, as scanners do for a moment, is waited for.
_PATIENCE: Final = 1.0
_PAUSE: Final = 0.02


def possible(path: str) -> str:
    """The whole of a path at which such a file can lie: nobody else may put another one there. Raises `Error`."""
    try:
        whole = os.path.abspath(files.native(path))
        os.fsencode(whole)
    except Unreachable:  # which says what to do about a path of Git Bash's
        raise
    except (OSError, UnicodeEncodeError):  # the current directory is gone; this locale cannot encode it
        whole = ""
    if not whole or not path or "\0" in path or path.endswith(("/", os.sep)):
        raise Error(f"{path!r} cannot be the path of a socket", "name a file in a directory of yours")
    _check_directory(whole)
    return whole


def content(path: str) -> bytes | None:
    """How the file at `path` begins; None where there is nothing. Raises `Error` where it is no file of this user's."""
    if not os.path.lexists(path):
        return None
    try:
        found = None if os.path.islink(path) else _look(path)
    except Unreachable as error:
        raise Error(str(error), "name another path") from None
    if found is None:
        raise foreign(path)
    return found


def foreign(path: str) -> Error:
    """What to raise where something is that no agent of ours can have left."""
    return Error(f"{path} is no socket file and is left as it is", "name another path, or move that away")


def taken(path: str) -> Error:
    """What to raise where another agent has begun at the same path at the same time."""
    return Error(f"{path} is another agent's, which was faster", "use that one, or name another path")


def put(path: str, whole: bytes, *, cygwin: bool) -> None:
    """Write the file; on Windows with the attribute by which `cygwin` knows its sockets.

    Raises FileExistsError where there is something already, OSError.
    """
    new = _beside(path)
    try:
        with open(_create(new, cygwin), "wb") as file:
            file.write(whole)
        _move(new, path)
    except BaseException:
        try:
            os.unlink(new)
        except OSError:
            pass  # it has not come so far
        raise


def remove(path: str, is_it: Callable[[str], bool]) -> None:
    """Remove what is at `path` if that `is_it`; what somebody puts there meanwhile stays. Raises OSError."""
    if not is_it(path):
        return
    aside = _beside(path)
    end = monotonic() + _PATIENCE
    while True:
        try:
            os.rename(path, aside)
            break
        except PermissionError:
            if os.name != "nt" or monotonic() >= end:
                raise
        sleep(_PAUSE)
    if is_it(aside):
        os.unlink(aside)
    else:
        _move(aside, path)


def has(path: str, whole: bytes) -> bool:
    """Whether that is a file with these contents. Raises OSError."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return False
    with open(path, "rb", buffering=0) as file:
        return file.read(socketfiles.MAX_FILE + 1) == whole


def _beside(path: str) -> str:
    """A new name in the same directory, by which nobody looks for agents."""
    return os.path.join(os.path.dirname(path), f".pageantry-{os.urandom(8).hex()}")


if sys.platform == "win32":
    from .. import acl, winpipe
    from .winsock import look as _look

    def _check_directory(path: str) -> None:
        directory = os.path.dirname(path)
        if not os.path.isdir(directory):
            raise Error(f"cannot listen in {directory}: there is no such directory", "make it, or name another path")
        try:
            others = acl.others(directory)
        except OSError as error:
            raise Error(f"cannot listen in {directory}: {error.strerror}", "name another path") from None
        if others:
            raise Error(
                f"{winpipe.Peer(None, others[0]).account} may write in {directory}, and replace what is in it",
                "name a path in a directory of yours, such as one below %USERPROFILE%",
            )

    def _create(path: str, cygwin: bool) -> int:
        return acl.create(path, stat.FILE_ATTRIBUTE_SYSTEM if cygwin else 0)

    def _move(source: str, target: str) -> None:
        """Rename a file, without replacing another one. Raises FileExistsError, OSError."""
        os.rename(source, target)

else:
    from . import directories, unix
    from .unix import look as _look

    def _check_directory(path: str) -> None:
        directories.check(os.path.dirname(path))
        unix._check_parents(path)

    def _create(path: str, cygwin: bool) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def _move(source: str, target: str) -> None:
        """Rename a file, without replacing another one. Raises FileExistsError, OSError."""
        os.link(source, target)
        os.unlink(source)
