"""Waiting at a socket that listens, on Windows as on UNIX, for the next client or for its end."""

from __future__ import annotations

import errno
import selectors
import socket
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, TypeVar

    _T = TypeVar("_T")

#: How many clients can be connected before somebody accepts them. Further ones wait, or are refused.
BACKLOG: Final = 1024


class Door:
    """A bound socket, which begins to listen. Raises OSError."""

    def __init__(self, bound: socket.socket) -> None:
        self.closed = False
        self._socket = bound
        self._turn = threading.Lock()
        self._wake, self._waker = socket.socketpair()
        self._ready = selectors.DefaultSelector()
        try:
            bound.listen(BACKLOG)
            bound.setblocking(False)
            self._ready.register(bound, selectors.EVENT_READ)
            self._ready.register(self._wake, selectors.EVENT_READ)
        except BaseException:
            self.close()
            raise

    def next(self, accept: Callable[[], _T | None], patience: Callable[[], float | None] = lambda: None) -> _T:
        """The first that `accept` gives, which is called when somebody may be there; None is nobody to give.

        Where it raises BlockingIOError it is called again once something has come, or in `patience` seconds. Raises
        what else it raises, but for ConnectionError; OSError (EBADF) once this is closed.
        """
        with self._turn:
            while not self.closed:
                try:
                    client = accept()
                except BlockingIOError:
                    self._ready.select(patience())
                except ConnectionError:  # he has left
                    pass
                else:
                    if client is not None:
                        return client
        raise OSError(errno.EBADF, "the socket was closed")

    def watch(self, connection: socket.socket) -> None:
        """Have what comes from there wake `next`, too. To be called by its `accept`, as the next one."""
        self._ready.register(connection, selectors.EVENT_READ)

    def forget(self, connection: socket.socket) -> None:
        """Do so no more, before that is closed."""
        self._ready.unregister(connection)

    def close(self) -> None:
        """Take no more clients, and wake who waits in `next`. The second time does nothing."""
        if self.closed:
            return
        self.closed = True
        self._waker.close()  # which shows at the other end, now and whenever somebody looks
        with self._turn:
            self._ready.close()
            self._wake.close()
            self._socket.close()
