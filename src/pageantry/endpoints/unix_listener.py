"""Where an agent listens on UNIX: the server's end of a socket, and the place that it lies in.

listener = listen("/run/user/1000/agent")
connection = listener.accept()              # connection.peer is whoever has connected
listener.close()                            # which removes the socket
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import sys
import threading
from time import sleep

from ..errors import Error
from . import callers, directories, unix
from .sockets import Connection

assert sys.platform != "win32", "UNIX only: callers ask first"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

#: How many clients can be connected before somebody accepts them; further ones wait, or are refused. So many may come
#: at once; more would only be a longer queue behind somebody who comes and goes all the time.
BACKLOG: Final = 1024

#: How often a socket must refuse a connection until nobody listens there. Linux refuses none for another reason; the
#: BSDs and macOS do when the queue is full.
_REFUSALS: Final = 1 if sys.platform == "linux" else 10
_PAUSE: Final = 0.01

_umask = threading.Lock()


class Listener:
    """A new socket at `path`, for this user and root alone; `accept` gives the connection of the next client.

    `listening` is one that listens already, and that whoever made it removes. The place is not looked at: see
    `listen`. Raises OSError.
    """

    def __init__(self, path: str, listening: socket.socket | None = None) -> None:
        self.path = path
        self.closed = False
        self._identity: tuple[int, int] | None = None  # what of ours is at `path`
        self._turn = threading.Lock()
        self._socket = listening or socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._wake, self._waker = socket.socketpair()
        try:
            if not listening:
                _bind(self._socket, path)
                self._identity = _identity(path)
            self._socket.listen(BACKLOG)  # once more, if need be: clients are told that who has done so is their peer
            self._socket.setblocking(False)
            self._ready = select.poll()
            self._ready.register(self._wake, select.POLLIN)
            self._ready.register(self._socket, select.POLLIN)
        except BaseException:
            self.close()
            raise

    def accept(self) -> Connection:
        """The next client of ours; others', which only a system that ignores a socket's mode lets in, are hung up on.

        Whoever has left again without a word is passed over, which is cheap. Raises OSError; EBADF once this is closed.
        """
        with self._turn:
            while not self.closed:
                try:
                    accepted, _ = self._socket.accept()
                except (BlockingIOError, ConnectionAbortedError):  # nobody is there, or not any more
                    self._ready.poll()
                    continue
                accepted.setblocking(True)
                connection = Connection(socket.AF_UNIX, socket.SOCK_STREAM, 0, accepted.detach())
                if _is_trusted(connection) and not _has_nothing_to_say(connection):
                    return connection
                connection.close()
        raise OSError(errno.EBADF, "the socket was closed", self.path)

    def close(self) -> None:
        """Take no more clients, wake who is in `accept`, and remove the socket if it is still ours that lies there.

        The second time does nothing.
        """
        if self.closed:
            return
        self.closed = True
        # while it still listens nobody takes it for a stale one, to replace it between these two steps; nor can its
        # number be another's
        try:
            if self._identity and _identity(self.path) == self._identity:
                os.unlink(self.path)
        except OSError:
            pass  # somebody else was faster
        self._waker.close()  # which shows at the other end, now and whenever somebody looks
        with self._turn:
            self._socket.close()
            self._wake.close()


def listen(path: str) -> Listener:
    """A listener at a path that somebody has named, for which the socket of an agent that has ended makes room.

    Nobody but this user and root may be able to put something else there: the directory and those above it are looked
    at. Of several who begin at the same path, one does. Raises `Error`.
    """
    path = _possible(path)
    directory = os.path.dirname(path)
    directories.check(directory)
    unix._check_parents(path)
    turn = directories.lock(directory)
    try:
        _make_room(path)
        return Listener(path)
    except OSError as error:
        raise Error(f"cannot listen at {path}: {error.strerror or error}", "let the agent listen elsewhere") from None
    finally:
        os.close(turn)


def listens(path: str) -> tuple[bool, int | None]:
    """Whether somebody listens on the socket at `path`, and in which process, as far as the system knows.

    The second is None, too, where the process has ended that began to listen, and left that to its child. Raises
    OSError.
    """
    for attempt in range(_REFUSALS):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(path)
                peer = unix.peer(probe)
                return True, peer.pid if peer and peer.pid and _runs(peer.pid) else None
            except BlockingIOError:  # its queue is full
                return True, None
            except ConnectionRefusedError:
                if attempt:
                    sleep(_PAUSE)
    return False, None


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _bind(unbound: socket.socket, path: str) -> None:
    """Make the socket's file, with mode 0600 from its first moment on. Raises OSError."""
    if sys.platform == "linux":
        os.fchmod(unbound.fileno(), 0o600)  # which its file gets; the umask is that of other threads, too
        unbound.bind(path)
    else:
        with _umask:
            before = os.umask(0o177)
            try:
                unbound.bind(path)
            finally:
                os.umask(before)


def _identity(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def _is_trusted(connection: Connection) -> bool:
    """Whether a client is one of ours; then its connection says who it is."""
    try:
        peer = callers.caller(connection)
    except OSError:  # it has left
        return False
    connection.peer = peer
    return peer is None or peer.uid in unix.trusted()


def _has_nothing_to_say(connection: Connection) -> bool:
    """Whether a client has closed its end without having sent anything."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except OSError:  # it has not spoken yet, or will not any more
        return False


def _possible(path: str) -> str:
    """The whole of a path that a socket can have. Raises `Error`."""
    try:
        whole = os.path.abspath(path)
        size = len(os.fsencode(whole))
    except (OSError, UnicodeEncodeError):  # the current directory is gone; this locale cannot encode it
        size = 0
    if not size or not path or "\0" in path or path.endswith("/"):
        raise Error(f"{path!r} cannot be the path of a socket", "name one such as /run/user/1000/agent")
    if size > unix.MAX_PATH:
        raise Error(
            f"{whole[:40]}… is {size} bytes long; a socket's path can have {unix.MAX_PATH}", "name a shorter path"
        )
    return whole


def _make_room(path: str) -> None:
    """Remove the socket that an agent of ours has left at `path`. Raises `Error` for anything else, OSError."""
    try:
        status = os.lstat(path)
        if not stat.S_ISSOCK(status.st_mode):
            raise Error(f"{path} is there already, and is no socket", "name another path, or move that away")
        if status.st_uid != os.geteuid():
            raise Error(f"{path} is there already, and belongs to {unix.user(status.st_uid)}", "name another path")
        found, pid = listens(path)
        if found:
            process = f" (process {pid})" if pid else ""
            raise Error(f"an agent answers at {path} already{process}", "use that one, or end it first")
        os.unlink(path)
    except FileNotFoundError:
        pass
