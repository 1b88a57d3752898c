"""The server's end of a UNIX socket."""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
import threading

from . import unix

assert sys.platform != "win32", "UNIX only: callers ask first"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

#: How many clients can be connected before somebody accepts them.
BACKLOG: Final = 128


class Listener:
    """A new socket at `path`, for this user and root alone; `accept` gives the connection of the next client.

    The directory must be private, as for a moment the socket is as open as the umask has it. Raises OSError.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.closed = False
        self._made = False
        self._turn = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._wake, self._waker = socket.socketpair()
        try:
            self._socket.bind(path)
            self._made = True
            os.chmod(path, 0o600)
            self._socket.listen(BACKLOG)
            self._socket.setblocking(False)
        except BaseException:
            self.close()
            raise

    def accept(self) -> socket.socket:
        """The next client of ours; others', which only a system that ignores a socket's mode lets in, are hung up on.

        Raises OSError; EBADF once this is closed.
        """
        with self._turn:
            ready = select.poll()
            while not self.closed:
                ready.register(self._wake, select.POLLIN)
                ready.register(self._socket, select.POLLIN)
                ready.poll()
                try:
                    connection, _ = self._socket.accept()
                except BlockingIOError:  # it has left, or this was closed
                    continue
                connection.setblocking(True)
                if _is_trusted(connection):
                    return connection
                connection.close()
        raise OSError(errno.EBADF, "the socket was closed", self.path)

    def close(self) -> None:
        """Take no more clients, wake who is in `accept`, and remove the socket. The second time does nothing."""
        if self.closed:
            return
        self.closed = True
        self._waker.close()  # which shows at the other end, now and whenever somebody looks
        with self._turn:
            self._socket.close()
            self._wake.close()
        if self._made:
            try:
                os.unlink(self.path)
            except OSError:
                pass  # somebody else was faster


def _is_trusted(connection: socket.socket) -> bool:
    try:
        peer = unix.peer(connection)
    except OSError:  # it has left
        return False
    return peer is None or peer.uid in unix.trusted()
