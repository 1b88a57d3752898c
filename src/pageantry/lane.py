"""The quick lane of a server: one thread that waits for all connections, and gives the answers that take no time.

Threads of one Python wait for each other at every step: where many clients ask at once, one thread answers more of them
than many do, and a connection that only waits takes no thread at all.
"""

from __future__ import annotations

import select
import socket
import sys
import threading
from time import monotonic

assert sys.platform == "linux", "epoll is Linux's: callers ask first"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from .sessions import Served

#: The most bytes of a request that is answered here.
_SHORT: Final = 4096
#: Seconds between two looks at who is idle.
_LOOK: Final = 60.0


class Lane:
    """Answers what can be answered at once.

    `work` is given a connection that has asked for more, `end` one that has ended, or was left unused for `idle`
    seconds; neither may raise, nor wait for anything.
    """

    def __init__(self, work: Callable[[Served], object], end: Callable[[Served], object], idle: float) -> None:
        self._work, self._end, self._idle = work, end, idle
        self._epoll = select.epoll()
        self._wake, self._waker = socket.socketpair()
        self._epoll.register(self._wake, select.EPOLLIN)
        self._waiting: dict[int, tuple[Served, socket.socket]] = {}  # by descriptor
        self._thread = threading.Thread(target=self._run, name="pageantry lane", daemon=True)
        self._thread.start()

    def take(self, served: Served, connection: socket.socket) -> None:
        """Have a connection wait here for its next request. Raises OSError, ValueError once this is closed."""
        served.frames.idle_since = monotonic()
        number = connection.fileno()
        self._waiting[number] = served, connection
        self._epoll.register(number, select.EPOLLIN)

    def close(self) -> None:
        """Wait for nothing any more; connections that wait here are left as they are."""
        self._waker.close()
        self._thread.join()
        self._wake.close()
        self._epoll.close()

    def _run(self) -> None:
        pause = min(self._idle, _LOOK)
        looked = monotonic()
        while True:
            for number, _ in self._epoll.poll(pause):
                waiting = self._waiting.get(number)
                if waiting is None:
                    return  # what wakes us
                if then := self._answer(*waiting):
                    self._epoll.unregister(number)
                    del self._waiting[number]
                    then(waiting[0])
            if monotonic() - looked > pause:
                looked = monotonic()
                for served, _ in list(self._waiting.values()):
                    if looked - (served.frames.idle_since or looked) > self._idle:
                        served.hang_up()  # which shows above

    def _answer(self, served: Served, connection: socket.socket) -> Callable[[Served], object] | None:
        """Answer what has come; what is to become of the connection if it does not stay."""
        try:
            request = connection.recv(_SHORT, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            return self._end
        if not request:
            return self._end
        whole = len(request) == 4 + int.from_bytes(request[:4], "big") > 4
        reply = served.at_once(request) if whole else None
        if reply is None:
            served.frames.unread(request)
            return self._work
        try:
            sent = connection.send(reply, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            return self._end
        served.frames.idle_since = monotonic()
        if sent < len(reply):
            served.owed = reply[sent:]
            return self._work
        return None
