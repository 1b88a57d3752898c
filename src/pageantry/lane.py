"""The quick lane of a server: one thread that waits for all connections, and gives the answers that take no time.

Threads of one Python wait for each other at every step: where many clients ask at once, one thread answers more of them
than many do, and a connection that only waits takes no thread at all.
"""

from __future__ import annotations

import select
import socket
import sys
import threading
from time import monotonic, sleep

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
#: Seconds until it goes on after what should not have happened, such as that there was no memory.
_PAUSE: Final = 0.1


class Lane:
    """Answers what can be answered at once.

    `work` is given a connection that has asked for more, `end` one that has ended, or was left unused for `idle`
    seconds; neither may raise, nor wait for anything.
    """

    def __init__(self, work: Callable[[Served], object], end: Callable[[Served], object], idle: float) -> None:
        self._work, self._end, self._idle = work, end, idle
        self._closed = False
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
        try:
            self._epoll.register(number, select.EPOLLIN)
        except BaseException:
            del self._waiting[number]
            raise

    def close(self, patience: float) -> None:
        """Wait for nothing any more; connections that wait here are left as they are.

        What is being answered is waited for, so many seconds at most.
        """
        self._closed = True
        self._waker.close()
        self._thread.join(patience)
        if not self._thread.is_alive():
            self._wake.close()
            self._epoll.close()

    def _run(self) -> None:
        pause = min(self._idle, _LOOK)
        looked = monotonic()
        while not self._closed:
            try:
                for number, _ in self._epoll.poll(pause):
                    self._attend(number)
                if monotonic() - looked > pause:
                    looked = monotonic()
                    self._look(looked)
            except Exception:  # noqa: BLE001 - no memory, say: without this thread nobody would be answered any more
                sleep(_PAUSE)

    def _attend(self, number: int) -> None:
        """See what has come from the connection with that descriptor."""
        waiting = self._waiting.get(number)
        if waiting is None:
            return  # what wakes us
        try:
            then = self._answer(*waiting)
        except Exception:  # noqa: BLE001 - as above; it would fail again and again, and some of it may be lost
            then = self._end
        if then:
            self._epoll.unregister(number)
            del self._waiting[number]
            then(waiting[0])

    def _look(self, now: float) -> None:
        """Hang up on who has been idle for too long, which shows as the end of what comes."""
        for served, _ in list(self._waiting.values()):
            if now - (served.frames.idle_since or now) > self._idle:
                served.hang_up()

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
        served.frames.idle_since = monotonic()  # before anybody could take it for idle who has its reply already
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
        if sent < len(reply):
            served.owed = reply[sent:]
            return self._work
        return None
