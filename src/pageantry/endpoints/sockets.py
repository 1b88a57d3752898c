"""Connections over sockets, which know who is at their other end."""

from __future__ import annotations

import select
import socket
import sys
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .. import winpipe
    from ..agent import Peer

if sys.platform == "win32":
    from threading import Lock

    class _Socket(socket.socket):
        """A socket that can be shut down while another thread waits at it, with a timeout: Windows wakes that one only
        when it is closed (cpython#91913).

        So that nothing is received from, or sent to, another socket that has got its number meanwhile, it is not closed
        at that very moment, but only while it is waited for.
        """

        def __init__(self, *arguments: Any) -> None:
            self._gate = Lock()
            super().__init__(*arguments)

        def recv(self, size: int, flags: int = 0, /) -> bytes:
            """As a socket's."""
            self._wait(self.gettimeout(), reading=True)
            with self._gate:
                return super().recv(size, flags)

        def sendall(self, data: Any, flags: int = 0, /) -> None:
            """As a socket's."""
            timeout = self.gettimeout()
            end = monotonic() + (timeout or 0)
            rest = memoryview(data)
            while rest:
                self._wait(timeout and max(0.001, end - monotonic()), reading=False)
                with self._gate:
                    sent = self.send(rest, flags)
                rest = rest[sent:]

        def shutdown(self, how: int, /) -> None:
            """As a socket's; with 2 it is closed, too."""
            with self._gate:
                try:
                    super().shutdown(how)
                finally:
                    if how == socket.SHUT_RDWR:
                        self.close()

        def _wait(self, timeout: float | None, *, reading: bool) -> None:
            """Wait until it can be read from, or written to, which it also can at its end. Raises OSError."""
            if timeout == 0:
                return
            mine = [self]
            try:
                ready = select.select(mine if reading else (), () if reading else mine, (), timeout)
            except ValueError:  # it has been closed, as whatever comes next will say
                return
            if not any(ready):
                raise TimeoutError("timed out")

else:
    _Socket = socket.socket


class Connection(_Socket):
    """A connected socket, and the `peer` that was found to be trusted; None where the system tells of none."""

    peer: Peer | None = None

    def gone(self) -> bool:
        """Whether the other end has closed it, be there something left to read or not; on Windows, once there is not.

        A client that will send no more, but waits for replies, is not gone; on Windows, which cannot tell, it is.
        """
        return _gone(self)


if sys.platform == "win32":

    def _gone(connection: socket.socket) -> bool:
        try:
            return bool(select.select([connection], (), (), 0)[0]) and not connection.recv(1, socket.MSG_PEEK)
        except (OSError, ValueError):  # reset, or closed here
            return True

else:

    def _gone(connection: socket.socket) -> bool:
        if connection.fileno() < 0:
            return True
        look = select.poll()
        look.register(connection, select.POLLHUP)
        return any(events & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, events in look.poll(0))


def process(pid: int) -> tuple[winpipe.Peer, bool]:
    """A process of Windows', and whether we trust it: its user must be ours, or one who can be him anyway."""
    from .. import winpipe

    try:
        sid = winpipe.user(pid)
    except OSError:  # so it is another user's, or a program's with more rights
        sid = None
    return winpipe.Peer(pid, sid), trusts(sid)


def trusts(sid: str | None) -> bool:
    """Whether something on Windows may belong to that user: it may be us, or one who can be us anyway."""
    from .. import winpipe

    return sid in (winpipe.SYSTEM, winpipe.ADMINISTRATORS, winpipe.user())
