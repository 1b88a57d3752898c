r"""Where an agent listens for clients of GnuPG's and Cygwin's: a port of 127.0.0.1, and a file for who may know it.

listener = assuan("C:\\Users\\me\\agent")     # or cygwin
connection = listener.accept()              # whose client has yet to show that it knows the file
listener.close()                            # which removes the file

Anybody on this computer can connect to the port. So the file holds a secret, which the client sends first; until then
it gets nothing, and not for long. Who has another one is hung up on without a word.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
from time import monotonic

from ..errors import Error
from . import loopback, private_files, socketfiles, tcp_callers
from .accepting import Door
from .socketfiles import SocketFile
from .sockets import Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from ..agent import Peer

#: Seconds in which a client must have shown that it knows the secret.
GREETING_TIMEOUT: Final = 5.0
#: Clients that have yet to do so, at the same time. For a further one, the first of them is hung up on: who knows the
#: secret sends it at once.
MAX_NEWCOMERS: Final = 64

#: Seconds to find out whether the agent of a file that is there already still listens: to greet it, and in which it
#: would hang up on who does not know its secret.
_PROBE: Final = 5.0
_REFUSAL: Final = 0.25

_SECRET: Final = 16


class Listener:
    """A new port, and the file for it at `path`; `accept` gives the connection of the next client.

    The place is not looked at: see `assuan` and `cygwin`. Raises FileExistsError, OSError.
    """

    def __init__(self, path: str, *, cygwin: bool) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            if sys.platform == "win32":
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            self._socket.bind(("127.0.0.1", 0))
            self._address: tuple[str, int] = self._socket.getsockname()
            self._file = SocketFile(self._address[1], os.urandom(_SECRET), cygwin)
            self._newcomers: dict[Newcomer, None] = {}
            self._changed = threading.Condition()
            self._door = Door(self._socket)
        except BaseException:
            self._socket.close()
            raise
        try:
            private_files.put(path, self._file.encode(), cygwin=cygwin)
        except BaseException:
            self._door.close()
            raise

    @property
    def closed(self) -> bool:
        """Whether no more clients are taken."""
        return self._door.closed

    def accept(self) -> Newcomer:
        """The next client; one that the system says is another user's is hung up on.

        Raises OSError; EBADF once this is closed.
        """
        return self._door.next(self._accept)

    def close(self) -> None:
        """Take no more clients, wake who is in `accept`, and remove the file if it is still ours.

        The second time does nothing.
        """
        if self.closed:
            return
        whole = self._file.encode()
        # while the port still is ours nobody takes the file for a stale one, to replace it between these two steps
        try:
            private_files.remove(self.path, lambda path: private_files.has(path, whole))
        except OSError:
            pass  # somebody else was faster
        self._door.close()

    def _accept(self) -> Newcomer | None:
        client, address = self._socket.accept()
        accepted = Connection(socket.AF_INET, socket.SOCK_STREAM, 0, client.detach())
        try:
            accepted.setblocking(True)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer, trusted = tcp_callers.caller(address, self._address)
            if trusted:
                newcomer = Newcomer(accepted, peer, self._file, self._know)
                self._admit(newcomer)
                return newcomer
        except BaseException:
            accepted.close()
            raise
        accepted.close()
        return None

    def _admit(self, newcomer: Newcomer) -> None:
        """Make room for a newcomer, so that there are never more than so many."""
        with self._changed:
            while len(self._newcomers) >= MAX_NEWCOMERS:
                oldest = next(iter(self._newcomers))
                oldest.hang_up()
                if not self._changed.wait(max(0.0, oldest.deadline - monotonic())):
                    self._newcomers.pop(oldest, None)  # its time is over
            self._newcomers[newcomer] = None

    def _know(self, newcomer: Newcomer) -> None:
        """Take note that it is one no more: it has shown that it knows the secret, or is gone."""
        with self._changed:
            if newcomer in self._newcomers:
                del self._newcomers[newcomer]
                self._changed.notify_all()


class Newcomer:
    """A client's connection. The first `recv` or `sendall` waits until it has shown that it knows the secret.

    `peer` is the process at its other end, where the system tells. One thread may use it, and another shut it down.
    """

    def __init__(
        self, accepted: Connection, peer: Peer | None, file: SocketFile, known: Callable[[Newcomer], object]
    ) -> None:
        self.peer = peer
        self.deadline = monotonic() + GREETING_TIMEOUT
        self._socket = accepted
        self._file = file
        self._known = known
        self._greeted = False
        self._timeout: float | None = None

    def recv(self, size: int) -> bytes:
        """As a socket's. Raises ConnectionAbortedError when the client does not know the secret, or takes too long."""
        self._greet()
        return self._socket.recv(size)

    def sendall(self, data: bytes) -> None:
        """As a socket's, and as `recv`."""
        self._greet()
        self._socket.sendall(data)

    def settimeout(self, seconds: float | None) -> None:
        """As a socket's; the greeting has a time of its own, `GREETING_TIMEOUT`."""
        self._timeout = seconds
        if self._greeted:
            self._socket.settimeout(seconds)

    def gettimeout(self) -> float | None:
        """What was set last."""
        return self._timeout

    def shutdown(self, how: int) -> None:
        """As a socket's. Raises OSError."""
        self._socket.shutdown(how)

    def gone(self) -> bool:
        """See `sockets.Connection`."""
        return self._socket.gone()

    def hang_up(self) -> None:
        """Have whoever waits in `recv` or `sendall` end."""
        try:
            self.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the client was faster

    def close(self) -> None:
        """As a socket's."""
        self._socket.close()
        self._known(self)

    def _greet(self) -> None:
        if self._greeted:
            return
        try:
            self._take_secret()
            self._socket.settimeout(self._timeout)
            self._greeted = True
        except OSError:
            self.close()
            raise ConnectionAbortedError(errno.ECONNABORTED, "the client did not greet as it must") from None
        finally:
            self._known(self)

    def _take_secret(self) -> None:
        """Receive the secret; from Cygwin's also who it is, saying the like. Raises OSError."""
        from hmac import compare_digest

        if not compare_digest(loopback._received(self._socket, _SECRET, self.deadline), self._file.secret):
            raise PermissionError
        if self._file.cygwin:
            self._socket.sendall(self._file.secret)
            credentials = loopback._received(self._socket, loopback._CREDENTIALS.size, self.deadline)
            _, *theirs = loopback._CREDENTIALS.unpack(credentials)
            # who can read the file is this user, so that theirs are ours, whose numbers only Cygwin knows
            self._socket.sendall(loopback._CREDENTIALS.pack(os.getpid(), *theirs))


def assuan(path: str) -> Listener:
    """A listener for GnuPG's clients at a path that somebody has named. Raises `Error`.

    The file of an agent that has ended makes room; nobody else may be able to put something in its place.
    """
    return _listen(path, cygwin=False)


def cygwin(path: str) -> Listener:
    """The same for clients of Cygwin, MSYS2 and Git for Windows."""
    return _listen(path, cygwin=True)


def _listen(path: str, *, cygwin: bool) -> Listener:
    path = private_files.possible(path)
    try:
        _make_room(path)
        return Listener(path, cygwin=cygwin)
    except FileExistsError:
        raise private_files.taken(path) from None
    except OSError as error:
        raise Error(f"cannot listen at {path}: {error.strerror or error}", "let the agent listen elsewhere") from None


def _make_room(path: str) -> None:
    """Remove the file that an agent of ours has left at `path`. Raises `Error` for anything else, OSError."""
    found = private_files.content(path)
    if found is None:
        return
    try:
        file = socketfiles.parse(found)
    except ValueError:
        raise private_files.foreign(path) from None
    if _answers(file):
        raise Error(f"{path} is another agent's, on port {file.port}", "use that one, or end it first")
    try:
        private_files.remove(path, lambda path: private_files.has(path, found))
    except FileNotFoundError:
        pass  # somebody else was faster


def _answers(file: SocketFile) -> bool:
    """Whether an agent listens on the port that knows the secret, or may do so: some only hang up on others.

    Raises OSError where that cannot be told.
    """
    try:
        connection, _ = loopback._greeted(file, monotonic() + _PROBE, not file.cygwin, loopback._ROOT)
    except TimeoutError:  # it may be busy
        return True
    except (ConnectionError, loopback._Stranger, loopback._Impostor):
        return False
    with connection:
        connection.settimeout(_REFUSAL)
        try:
            return bool(connection.recv(1, socket.MSG_PEEK))
        except TimeoutError:
            return True
        except ConnectionError:
            return False
