r"""Where an agent listens on Windows' own sockets that are files (AF_UNIX): Windows 10 1803 and later.

listener = listen("C:\\Users\\me\\agent")
connection = listener.accept()              # connection.peer is whoever has connected
listener.close()                            # which removes the socket

Python makes such sockets there, but neither binds nor accepts with them (cpython#77589): until it does, ws2_32 does.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys

from ..errors import Error, Unreachable
from . import private_files, sockets, winsock
from .accepting import Door
from .sockets import Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from .winsock import Winsock

#: Seconds to find out whether somebody listens on a socket that is there already.
_PROBE: Final = 5.0


class Listener:
    """A new socket at `path`, for this user alone; `accept` gives the connection of the next client.

    The place is not looked at: see `listen`. `ws2` stands in for ws2_32. Raises OSError.
    """

    def __init__(self, path: str, ws2: Winsock | None = None) -> None:
        self.path = path
        self._system = ws2 or winsock.system()
        self._pythons_own = ws2 is None and hasattr(socket, "AF_UNIX")
        self._identity: tuple[int, int] | None = None  # what of ours is at `path`
        self._socket = socket.socket(winsock.AF_UNIX, socket.SOCK_STREAM, 0)
        try:
            if self._pythons_own or not self._system:
                self._socket.bind(path)
            else:
                self._system.bind(self._socket.fileno(), winsock.address(path))
            self._identity = _identity(path)
            _restrict(path)  # in time: until somebody listens, nobody can connect
            self._door = Door(self._socket)
        except BaseException:
            self._remove()
            self._socket.close()
            raise

    @property
    def closed(self) -> bool:
        """Whether no more clients are taken."""
        return self._door.closed

    def accept(self) -> Connection:
        """The next client of ours; others', where Windows says whose they are, are hung up on.

        Raises OSError; EBADF once this is closed.
        """
        return self._door.next(self._accept)

    def close(self) -> None:
        """Take no more clients, wake who is in `accept`, and remove the socket if it is still ours that lies there.

        The second time does nothing.
        """
        if not self.closed:
            self._remove()  # while it still listens nobody takes it for a stale one
            self._door.close()

    def _accept(self) -> Connection | None:
        if self._pythons_own or not self._system:
            handle = self._socket.accept()[0].detach()
        else:
            handle = self._system.accept(self._socket.fileno())
        try:
            connection = Connection(winsock.AF_UNIX, socket.SOCK_STREAM, 0, handle)
        except BaseException:
            socket.close(handle)
            raise
        try:
            connection.set_inheritable(False)
            connection.setblocking(True)
            if self._is_trusted(connection):
                return connection
        except BaseException:
            connection.close()
            raise
        connection.close()
        return None

    def _is_trusted(self, connection: Connection) -> bool:
        """Whether the process at the other end is one of ours; then its connection says which it is.

        Where Windows does not tell, it is: nobody else may use the socket.
        """
        pid = self._system and self._system.peer_pid(connection.fileno())
        if not pid:
            return True
        connection.peer, trusted = sockets.process(pid)
        return trusted

    def _remove(self) -> None:
        try:
            if self._identity:
                private_files.remove(self.path, lambda path: _identity(path) == self._identity)
        except OSError:
            pass  # somebody else was faster


def listen(path: str, ws2: Winsock | None = None) -> Listener:
    """A listener at a path that somebody has named, for which the socket of an agent that has ended makes room.

    Nobody else may be able to put something in its place. `ws2` stands in for ws2_32. Raises `Error`.
    """
    path = private_files.possible(path)
    if (size := len(os.fsencode(path))) > winsock.MAX_PATH:
        raise Error(
            f"{path[:40]}… is {size} bytes long; a socket's path can have {winsock.MAX_PATH}", "name a shorter path"
        )
    try:
        _make_room(path, ws2)
        return Listener(path, ws2)
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            raise Error(
                f"{path} would be a socket, and this Windows has none of that kind (AF_UNIX)",
                "it takes Windows 10 1803 or later; use a pipe: openssh, pageant, pipe:NAME",
            ) from None
        if error.errno in (errno.EADDRINUSE, errno.EEXIST):
            raise private_files.taken(path) from None
        raise Error(f"cannot listen at {path}: {error.strerror or error}", "let the agent listen elsewhere") from None


def _make_room(path: str, ws2: Winsock | None) -> None:
    """Remove the socket that an agent of ours has left at `path`. Raises `Error` for anything else, OSError."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not winsock.is_socket(path) and not stat.S_ISSOCK(status.st_mode):
        raise Error(f"{path} is no socket and is left as it is", "name another path, or move that away")
    try:
        winsock.look(path)
    except Unreachable as error:
        raise Error(str(error), "name another path") from None
    if _answers(path, ws2):
        raise Error(f"{path} is another agent's", "use that one, or end it first")
    before = status.st_dev, status.st_ino
    try:
        private_files.remove(path, lambda path: _identity(path) == before)
    except FileNotFoundError:
        pass  # somebody else was faster


def _answers(path: str, ws2: Winsock | None) -> bool:
    """Whether somebody listens on the socket at `path`. Raises OSError where that cannot be told."""
    with socket.socket(winsock.AF_UNIX, socket.SOCK_STREAM, 0) as probe:
        probe.settimeout(_PROBE)
        try:
            winsock.dial(probe, path, _PROBE, ws2)
        except ConnectionRefusedError:
            return False
        except (TimeoutError, BlockingIOError):  # it may be busy
            pass
        return True


def _identity(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


if sys.platform == "win32":
    from .. import acl

    def _restrict(path: str) -> None:
        acl.restrict(path)

else:

    def _restrict(path: str) -> None:
        """Have the socket be the user's alone."""
        os.chmod(path, 0o600)
