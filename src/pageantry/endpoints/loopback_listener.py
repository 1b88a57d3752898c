r"""Where an agent listens for clients of GnuPG's and Cygwin's: a port of 127.0.0.1, and a file for who may know it.

listener = assuan("C:\\Users\\me\\agent")     # or cygwin
connection = listener.accept()              # whose client knows what is in the file
listener.close()                            # which removes the file

Anybody on this computer can connect to the port. So the file holds a secret, which the client sends first. Until then
it takes neither a thread nor much time, and gets nothing; who has another one is hung up on without a word.
"""

from __future__ import annotations

import os
import socket
import sys
from hmac import compare_digest
from time import monotonic

from ..errors import Error
from . import loopback, private_files, socketfiles, tcp_callers
from .accepting import Door
from .socketfiles import SocketFile
from .sockets import Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import Final

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
        self._newcomers: dict[_Newcomer, None] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            if sys.platform == "win32":
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            self._socket.bind(("127.0.0.1", 0))
            self._address: tuple[str, int] = self._socket.getsockname()
            self._file = SocketFile(self._address[1], os.urandom(_SECRET), cygwin)
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

    def accept(self) -> Connection:
        """The next client that knows the secret; one that the system says is another user's is hung up on nevertheless.

        Raises OSError; EBADF once this is closed.
        """
        return self._door.next(self._next, self._patience)

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
        for newcomer in self._newcomers:
            newcomer.connection.close()

    def _next(self) -> Connection | None:
        """A client that has greeted by now; None where one has come, who may have. Raises BlockingIOError, OSError."""
        now = monotonic()
        for newcomer in list(self._newcomers):
            try:
                if newcomer.has_greeted():
                    return self._looked_at(self._part(newcomer))
                over = newcomer.deadline <= now
            except OSError:
                over = True
            if over:
                self._part(newcomer).close()
        client, _ = self._socket.accept()
        if len(self._newcomers) >= MAX_NEWCOMERS:
            self._part(next(iter(self._newcomers))).close()
        connection = Connection(socket.AF_INET, socket.SOCK_STREAM, 0, client.detach())
        try:
            connection.setblocking(False)
            self._door.watch(connection)
        except BaseException:
            connection.close()
            raise
        self._newcomers[_Newcomer(connection, self._file)] = None
        return None

    def _patience(self) -> float | None:
        """Seconds until the first of the newcomers has no time any more."""
        return max(0.0, next(iter(self._newcomers)).deadline - monotonic()) if self._newcomers else None

    def _part(self, newcomer: _Newcomer) -> Connection:
        """The connection of one that is no newcomer from here on."""
        del self._newcomers[newcomer]
        self._door.forget(newcomer.connection)
        return newcomer.connection

    def _looked_at(self, connection: Connection) -> Connection | None:
        """The connection, which says who is at its other end; None where that is another user, who is hung up on."""
        trusted = False
        try:
            connection.peer, trusted = tcp_callers.caller(connection.getpeername(), self._address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setblocking(True)
        except OSError:  # it has left
            trusted = False
        finally:
            if not trusted:
                connection.close()
        return connection if trusted else None


class _Newcomer:
    """A client that has yet to show that it knows the secret, until `deadline`."""

    def __init__(self, connection: Connection, file: SocketFile) -> None:
        self.connection = connection
        self.deadline = monotonic() + GREETING_TIMEOUT
        self._greeting = _greeting(connection, file)

    def has_greeted(self) -> bool:
        """Whether it has, by what has come up to now. Raises OSError where it never will."""
        return next(self._greeting, False)


def _greeting(connection: Connection, file: SocketFile) -> Iterator[bool]:
    """Take what a client says first, and answer it: False as long as more has to come, then True. Raises OSError."""
    secret = yield from _received(connection, _SECRET)
    if not compare_digest(secret, file.secret):
        raise PermissionError
    if file.cygwin:
        _send(connection, file.secret)
        credentials = yield from _received(connection, loopback._CREDENTIALS.size)
        _, user, group = loopback._CREDENTIALS.unpack(credentials)
        # who can read the file is this user, so that theirs are ours, whose numbers only Cygwin knows
        _send(connection, loopback._CREDENTIALS.pack(os.getpid(), user, group))
    yield True


def _received(connection: Connection, size: int) -> Generator[bool, None, bytes]:
    data = b""
    while len(data) < size:
        try:
            piece = connection.recv(size - len(data))
        except BlockingIOError:
            yield False
            continue
        if not piece:
            raise ConnectionAbortedError
        data += piece
    return data


def _send(connection: Connection, data: bytes) -> None:
    """Send what the system has room for, as nothing was sent before that was not taken."""
    try:
        sent = connection.send(data)
    except BlockingIOError:
        sent = 0
    if sent < len(data):
        raise ConnectionAbortedError


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
