"""Agents on UNIX sockets, and the files of UNIX that may stand for one.

Before the first byte is sent, the owner of the socket or file, the directories above it and the process behind it are
checked: another user's agent would be asked for signatures, and would see what they are for.
"""

from __future__ import annotations

import os
import socket
import stat
import sys
from time import monotonic, sleep

from ..errors import Unreachable
from .sockets import Connection

assert sys.platform != "win32", "UNIX only: callers ask first"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

#: What fits into sockaddr_un beside its NUL: 107 bytes on Linux, 103 on the BSDs and macOS.
MAX_PATH: Final = 107 if sys.platform == "linux" else 103

#: macOS' group of those who may become root; below what it can write, Homebrew's agents have their sockets.
_ADMIN: Final = 80

# macOS and FreeBSD; Python's socket module has no names for them
_SOL_LOCAL, _LOCAL_PEERCRED, _LOCAL_PEERPID = 0, 1, 2


class Peer:
    """The process behind a socket: its user `uid`, and its `pid` where the system tells."""

    __slots__ = ("pid", "uid")

    def __init__(self, uid: int, pid: int | None) -> None:
        self.uid = uid
        self.pid = pid

    @property
    def account(self) -> str:
        """The user's name."""
        return user(self.uid)

    @property
    def program(self) -> str:
        """Nothing: of a socket only who made it is known, whose program may be another by now."""
        return ""


def look(path: str) -> bytes | None:
    """How the file at `path` begins; None where it is a socket. Raises `Unreachable` where it is neither, or not to be
    trusted.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise _unreachable(path, error, 0) from None
    except ValueError:  # a NUL, or what this locale cannot encode
        raise Unreachable(f"{path} cannot be a path here", "correct the address") from None
    if status.st_uid not in trusted():
        raise Unreachable(f"{path} belongs to {user(status.st_uid)}, not to you", "use an agent of your own")
    _check_parents(path)
    if stat.S_ISSOCK(status.st_mode):
        return None
    if not stat.S_ISREG(status.st_mode):
        kind = "directory" if stat.S_ISDIR(status.st_mode) else "FIFO" if stat.S_ISFIFO(status.st_mode) else "device"
        raise Unreachable(f"{path} is a {kind}, not a socket", "an agent's address is the socket that it listens on")
    try:
        return _beginning(path)
    except OSError as error:
        raise _unreachable(path, error, 0) from None


def connect(path: str, timeout: float) -> Connection:
    """A connection to the agent on the socket at `path`, which `look` has seen, within `timeout` seconds.

    Raises `Unreachable`.
    """
    if (size := len(os.fsencode(path))) > MAX_PATH:
        raise Unreachable(
            f"{path[:40]}… is {size} bytes long; a socket's path can have {MAX_PATH}",
            "give the agent a shorter path, or make a symbolic link to it",
        )
    try:
        connection = Connection(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        raise _unreachable(path, error, timeout) from None
    try:
        _connect(connection, path, timeout)
        found = peer(connection)
        if found and found.uid not in trusted():
            raise Unreachable(
                f"the agent at {path} runs as {found.account}, not as you",
                "nothing was sent to it; use an agent of your own",
            )
        connection.peer = found
    except Unreachable:
        connection.close()
        raise
    except OSError as error:
        connection.close()
        raise _unreachable(path, error, timeout) from None
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(connection: socket.socket, path: str, timeout: float) -> None:
    """Connect, waiting for a place in the queue of an agent that is busy. Raises OSError."""
    deadline = monotonic() + timeout
    connection.settimeout(timeout)
    while True:
        try:
            return connection.connect(path)
        except BlockingIOError:  # Linux says so at once when the queue is full, whatever the timeout
            if monotonic() >= deadline:
                raise
            sleep(0.01)


def peer(connection: socket.socket) -> Peer | None:
    """Who listens at the other end, as the kernel says; None where this system does not say."""
    if hasattr(socket, "SO_PEERCRED"):
        ucred = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)  # pid, uid, gid
        return Peer(int.from_bytes(ucred[4:8], sys.byteorder), int.from_bytes(ucred[:4], sys.byteorder) or None)
    try:
        xucred = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, 76)  # version, uid, and the groups
        pid = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID, 4)
    except OSError:
        return None
    return Peer(int.from_bytes(xucred[4:8], sys.byteorder), int.from_bytes(pid, sys.byteorder) or None)


def _check_parents(path: str) -> None:
    """Nobody else may be able to put something else in this one's place, nor in that of a link to it.

    So each directory above belongs to this user or to root, and others write in it only where it is sticky.
    """
    parents: dict[str, None] = {}
    for place in (os.path.abspath(path), os.path.realpath(path)):
        while place != os.path.dirname(place):
            place = os.path.dirname(place)  # noqa: PLW2901
            parents[place] = None
    for parent in parents:
        try:
            status = os.stat(parent)
        except OSError as error:
            raise _unreachable(path, error, 0) from None
        foreign = status.st_uid not in trusted() and not _is_unmapped(status.st_uid)
        writable = not status.st_mode & stat.S_ISVTX and others_may_write(status)
        if not (foreign or writable) or _is_windows(parent):
            continue
        if foreign:
            raise Unreachable(
                f"{path} lies below {parent}, which belongs to {user(status.st_uid)}, who may replace it",
                "let the agent listen in a directory of yours",
            )
        raise Unreachable(
            f"{path} lies below {parent}, where others may replace it",
            f"take that right away (chmod go-w {parent}), or let the agent listen elsewhere",
        )


def others_may_write(status: os.stat_result) -> bool:
    """Whether others than its owner may write in a directory.

    Those of its group may, unless that is the user's own, as many Linuxes make one for each: there, a umask of 002 is
    usual, and means nobody else. A system has no other group by a user's name. Nor do those count whose group is root's
    own (as in some containers), nor whom macOS lets become root.
    """
    if status.st_mode & stat.S_IWOTH:
        return True
    return bool(status.st_mode & stat.S_IWGRP) and not _is_own_group(status.st_gid)


def _is_own_group(gid: int) -> bool:
    """Whether nobody is in a group who could not be this user anyway."""
    import grp
    import pwd

    if sys.platform == "darwin" and gid == _ADMIN:
        return True
    try:
        group = grp.getgrgid(gid)
        for uid in (0, os.geteuid()):
            owner = pwd.getpwuid(uid)
            if (owner.pw_gid, owner.pw_name) == (gid, group.gr_name) and {owner.pw_name}.issuperset(group.gr_mem):
                return True
    except KeyError:  # some containers' users are in no list
        pass
    return False


def _is_unmapped(uid: int) -> bool:
    """Whether that stands for all the users whom this process's user namespace has no numbers for: user_namespaces(7).

    In many containers and sandboxes they include the system's root, so that /, /home and /tmp are theirs. Whose such a
    directory is cannot be told; it is taken for root's, or no agent could be used there. Where the number is a user's
    own, as it is outside of them, it is only that user's.
    """
    try:
        with open("/proc/sys/kernel/overflowuid", encoding="ascii") as file:
            stand_in = int(file.read())
        with open("/proc/self/uid_map", encoding="ascii") as file:
            mapped = [(int(first), int(count)) for first, _, count in map(str.split, file)]
    except (OSError, ValueError):  # only Linux has such namespaces
        return False
    return uid == stand_in and not any(first <= uid < first + count for first, count in mapped)


def _beginning(path: str) -> bytes:
    """How the file at `path` begins. Raises OSError."""
    from . import socketfiles

    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in trusted():  # another one by now
            return b""
        return socketfiles.beginning(lambda size: os.read(descriptor, size))
    finally:
        os.close(descriptor)


def _is_windows(path: str) -> bool:
    """Whether that is on a drive of Windows', as WSL shows it."""
    from .. import wsl

    return wsl.is_windows_drive(os.path.realpath(path))


def _unreachable(path: str, error: OSError, timeout: float) -> Unreachable:
    from .. import wsl

    if isinstance(error, FileNotFoundError):
        return Unreachable(f"there is no {path}", "start an agent, or correct the address")
    if wsl.version() == 2 and _is_windows(path):
        return Unreachable(
            f"{path} lies on a drive of Windows', whose sockets WSL 2 does not share", wsl.hint("winsock:PATH")
        )
    if isinstance(error, ConnectionRefusedError):
        return Unreachable(f"nobody listens at {path} any more", "its agent has ended: start it again")
    if isinstance(error, (TimeoutError, BlockingIOError)):
        return Unreachable(f"{path} took no connection within {timeout:g} s", "its agent hangs: restart it")
    if isinstance(error, PermissionError):
        return Unreachable(f"you may not connect to {path}", "it is another user's, or in another user's directory")
    return Unreachable(f"cannot connect to {path}: {error.strerror or error}", "check the address")


def trusted() -> tuple[int, ...]:
    """The users whose agents are as good as ours: ourselves, and root, who can be us anyway."""
    return os.geteuid(), 0


def user(uid: int) -> str:
    """The name of a user, or `uid N`."""
    try:
        import pwd

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError):
        return f"uid {uid}"
