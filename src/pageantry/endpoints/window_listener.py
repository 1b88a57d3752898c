"""Pageant's window, served: the way in that PuTTY's programs before 0.75 know, and many others still.

    listener = listen()                  # from here on they find an agent
    server = Server([listener], opener)

A request lies in shared memory, the name of which a message takes to the window (`_window`); the reply takes its place.
Whoever made the memory must be this user, and answers come as from PuTTY's own Pageant.

Each client is a connection for the server. PuTTY's programs call their memory after the thread that asks, so a thread
keeps its connection until it ends, and we know the process. A request with another name is nobody's: it has any
connection of those that are nobody's, on which nothing can be left behind, and which close soon.

A client may lie in such a name: it is a hint for the person who is asked, and proves no more than that one of this
user's processes asks, which could do so itself in any other name, too. What destinations a key is limited to is kept
all the same, even for programs that hand on what other hosts ask for (forwarded agents). Such keys are seen by whom
nothing is known of, as by every local program, but sign on connections alone that are bound to a session, and

- a request with another name can bind nothing, as the next one would know nothing of it;
- of a process, only the first thread that asks to can: with a second one, a program that hands a client's requests on
  from changing threads would have a new start for each, with none of the hosts before it. For the same reason that
  holds until the process ends, and what was bound does not come back when its connection is lost: then that thread gets
  nothing but FAILURE. A further thread that asks to is no local one from then on, as any connection for which that
  has failed, and sees no such key;
- a session that is bound only adds to the way that a thread's requests are judged by. Who binds in another thread's
  name takes something from that one, and gets nothing. A program that hands several clients on from one thread has the
  hosts of all of them on that one way.
"""

from __future__ import annotations

import errno
import sys
import threading
from collections import deque
from io import BytesIO
from time import monotonic

from ..errors import Error
from ..messages import Extension, Failure, SessionBind, frame
from ..prompts import TIMEOUT
from ..winpipe import Peer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, Protocol, TypeAlias

    class Thread(Protocol):
        """A client's thread, the number of which nobody else gets while this is open."""

        @property
        def peer(self) -> Peer:
            """Its process, which this user runs."""

        def ended(self) -> bool:
            """Whether it has."""

        def process_ended(self) -> bool:
            """The same of its process."""

        def close(self) -> None:
            """Let go of both."""

    #: What a window asks for the reply to a request, see `Listener.answer`.
    Answer: TypeAlias = Callable[[bytes, bytes, Callable[[], bool], Callable[[bool], object]], bytes]

    class Windows(Protocol):
        """What takes the requests."""

        def close(self) -> None:
            """Take no more, and let go of everything."""


#: Seconds that a request may take, which is longer than any person has; then the reply is FAILURE.
DEADLINE: Final = TIMEOUT + 30
#: Threads that keep their connections, and processes in which one is bound.
MAX_THREADS: Final = 64
#: Seconds after which a request is slow: others are not to wait for it.
MOMENT: Final = 0.05

#: Seconds between two looks for threads that have ended, and for connections that nobody uses any more.
_LOOK: Final = 5.0
#: Connections of nobody's that are kept for further requests.
_MAX_SPARE: Final = 4
_FAILURE: Final = frame(Failure().payload())
_SESSION_BIND: Final = Extension(SessionBind.name).payload()
#: One that fails, after which a connection is no local one any more.
_NO_BIND: Final = frame(_SESSION_BIND)
_PREFIX: Final = b"PageantRequest"


def listen(ended: Callable[[], object] | None = None) -> Listener:
    """Have Pageant's window, and take what comes in there.

    `ended` is called, in a thread of the window's, when the user logs off: the process has until it returns, or some
    seconds. Raises `Error` where another program has the window, or there can be none.
    """
    if sys.platform == "win32":
        from . import _window, _window_memory

        return Listener(_window_memory.Thread, lambda answer: _window.Windows(answer, ended))
    else:  # noqa: RET505 - so that type checkers know what is for which system
        raise Error("Pageant's window is on Windows only", "on UNIX, Pageant's socket is one as any: use unix:PATH")


def thread_of(name: bytes) -> int | None:
    """The thread in the name of a request's memory, as PuTTY's programs call it; None in any other name."""
    try:
        thread = int(name.removeprefix(_PREFIX), 16)
    except ValueError:
        return None
    return thread if 0 < thread < 1 << 32 and name == b"%s%08x" % (_PREFIX, thread) else None


class Connection:
    """What a server takes for a connection: requests come out, and replies go in. `thread` asks, if that is known."""

    def __init__(self, thread: Thread | None = None) -> None:
        self.peer = thread.peer if thread else Peer(None, None)
        self.thread = thread
        self._timeout: float | None = None
        self._changed = threading.Condition()
        self._next: _Request | None = None
        self._current: _Request | None = None  # which the server answers
        self._rest = BytesIO()  # of it, for `recv`
        self._reply = bytearray()  # as far as there is one
        self._at_once: Callable[[bytes], bytes | None] = _never
        self.closed = False
        self.used = monotonic()

    def ask(self, request: bytes, left: Callable[[], bool], waits: Callable[[bool], object]) -> bytes:
        """The reply to `request`, both whole frames; FAILURE where there is none within `DEADLINE`, or this is closed.

        `left` tells whether the client has given it up; so it has, too, when it asks for something else meanwhile.
        `waits` is called with False where the reply is not there at once, and then with True if it takes more than a
        `MOMENT`.
        """
        if not self.closed and not self.busy and (reply := self._at_once(request)):
            return reply
        waits(False)
        asked = _Request(request, left)
        with self._changed:
            if self.closed:
                return _FAILURE
            if self._next:
                self._next.reply = _FAILURE
            self._next = asked
            self._changed.notify_all()
            answered = self._changed.wait_for(lambda: asked.reply, MOMENT)
        if not answered:
            waits(True)
            with self._changed:
                answered = self._changed.wait_for(lambda: asked.reply, DEADLINE - MOMENT)
        self.used = monotonic()
        if not answered:
            self.close()
        return asked.reply or _FAILURE

    def offer(self, at_once: Callable[[bytes], bytes | None]) -> None:
        """Have requests be answered by that, where it gives a reply: no other thread has to wake for them."""
        self._at_once = at_once

    @property
    def busy(self) -> bool:
        """Whether something is asked, and not answered."""
        return bool(self._next or self._current)

    def gone(self) -> bool:
        """Whether nobody waits for the reply to what was asked last."""
        asked = self._current
        return not asked or bool(self._next) or asked.left() or bool(self.thread and self.thread.ended())

    def recv(self, size: int) -> bytes:
        """1 to `size` bytes of a request; none once this is closed.

        This waits for a request whatever the timeout says: what a thread has bound must not be lost while it asks for
        nothing, and the listener sees to it that such are few, and end with their threads.
        """
        with self._changed:
            while not (piece := self._rest.read(size)) and size:
                self._changed.wait_for(lambda: self.closed or (self._next and not self._current))
                if self.closed or not self._next:
                    return b""
                self._current, self._next = self._next, None
                self._rest = BytesIO(self._current.frame)
            return piece

    def sendall(self, data: bytes) -> None:
        """Give the reply, or a part of it. Raises BrokenPipeError where nobody waits for one."""
        with self._changed:
            if self.closed or not self._current:
                raise BrokenPipeError(errno.EPIPE, "nobody waits for a reply")
            self._reply += data
            if len(self._reply) >= 4 + int.from_bytes(self._reply[:4], "big") > 4:
                self._current.reply = bytes(self._reply)
                self._reply.clear()
                self._current, self._rest = None, BytesIO()
                self._changed.notify_all()

    def settimeout(self, seconds: float | None) -> None:
        """What `gettimeout` gives from here on: see `recv`."""
        self._timeout = seconds

    def gettimeout(self) -> float | None:
        """What was set last."""
        return self._timeout

    def shutdown(self, how: int) -> None:
        """Close, for `how` = 2 (SHUT_RDWR); OSError (EOPNOTSUPP) for one direction alone."""
        if how != 2:
            raise OSError(errno.EOPNOTSUPP, "a way through a window cannot be closed in one direction alone")
        self.close()

    def close(self) -> None:
        """Answer FAILURE to what was asked and is not answered, and take nothing more."""
        with self._changed:
            self.closed = True
            for asked in (self._current, self._next):
                if asked and not asked.reply:
                    asked.reply = _FAILURE
            self._changed.notify_all()


def _never(_: bytes) -> None:
    """Nothing is answered at once."""


class _Request:
    """A request, whether its client has left it, and its reply once there is one."""

    def __init__(self, frame: bytes, left: Callable[[], bool]) -> None:
        self.frame = frame
        self.left = left
        self.reply = b""


class _Client:
    """A thread and its connection."""

    def __init__(self, thread: Thread) -> None:
        self.thread = thread
        self.connection = Connection(thread)


class Listener:
    """Pageant's window, for a `server.Server`. `find` opens a thread by its number, or raises OSError."""

    path: Final = "pageant-window"

    def __init__(self, find: Callable[[int], Thread], open_windows: Callable[[Answer], Windows]) -> None:
        self.closed = False
        self._find = find
        self._changed = threading.Condition()
        self._arrived: deque[Connection] = deque()
        self._open: set[Connection] = set()
        self._spare: list[Connection] = []
        self._clients: dict[int, _Client] = {}
        self._bound: dict[int | None, _Client] = {}  # by process
        self._full = False  # for good: what cannot be bound now must not be the first that is bound later
        self._windows = open_windows(self.answer)

    def accept(self) -> Connection:
        """The next client's connection. Raises OSError (EBADF) once this is closed."""
        with self._changed:
            while not self._arrived:
                if self.closed:
                    raise OSError(errno.EBADF, "the listener was closed")
                if not self._changed.wait(_LOOK if self._open or self._clients or self._bound else None):
                    self._sweep()
            return self._arrived.popleft()

    def close(self) -> None:
        """Give the window up; `accept` raises from here on, and who waits for a reply has FAILURE."""
        with self._changed:
            self.closed = True
            for connection in self._open:
                connection.close()
            self._arrived.clear()
            self._changed.notify_all()
        self._windows.close()
        with self._changed:
            for client in {*self._clients.values(), *self._bound.values()}:
                client.thread.close()
            self._clients.clear()
            self._bound.clear()

    def answer(self, name: bytes, request: bytes, left: Callable[[], bool], waits: Callable[[bool], object]) -> bytes:
        """The reply to a request that lies in memory of that name; for `left` and `waits` see `Connection.ask`."""
        binds = request.startswith(_SESSION_BIND, 4)
        with self._changed:
            connection = None if self.closed else self._connection(thread_of(name), binds)
            if connection is None:
                return _FAILURE
            if binds and not self._may_bind(connection):
                request = _NO_BIND
            if connection not in self._open:
                self._open.add(connection)
                self._arrived.append(connection)
                self._changed.notify_all()
        reply = connection.ask(request, left, waits)
        with self._changed:
            if not connection.thread and len(self._spare) < _MAX_SPARE:
                self._spare.append(connection)
            elif not connection.thread:
                connection.close()
            if connection.closed:
                self._open.discard(connection)
        return reply

    def _connection(self, number: int | None, binds: bool) -> Connection | None:
        """That of a thread, or a new one; None where one of nobody is to be bound, or the one is lost that one was
        bound to.
        """
        client = self._client(number, binds) if number else None
        if client is None:
            return None if binds else self._nobodys()
        pid = client.thread.peer.pid
        if binds and pid not in self._bound:
            self._full = self._full or len(self._bound) >= MAX_THREADS
            if not self._full:
                self._bound[pid] = client
        bound = self._bound.get(pid) is client
        if client.connection.closed and not bound:
            self._open.discard(client.connection)
            client.connection = Connection(client.thread)
        client.connection.used = monotonic()  # so that nobody makes room of it
        return None if client.connection.closed else client.connection

    def _may_bind(self, connection: Connection) -> bool:
        """Whether it is that of the thread of its process which can."""
        bound = connection.thread and self._bound.get(connection.thread.peer.pid)
        return bool(bound and bound.connection is connection)

    def _nobodys(self) -> Connection:
        """A connection that nobody uses now."""
        while self._spare:
            connection = self._spare.pop()
            if not connection.closed:
                return connection
            self._open.discard(connection)
        return Connection()

    def _client(self, number: int, binds: bool) -> _Client | None:
        """The thread of that number; None where that is not to be known, or there is no room for it."""
        client = self._clients.get(number)
        # One that has bound nothing is as good as any other, and its number is nobody else's as long as we have it.
        plain = client and not binds and self._bound.get(client.thread.peer.pid) is not client
        if client and (plain or not client.thread.ended()):
            return client
        self._sweep()
        if len(self._clients) >= MAX_THREADS and not self._make_room():
            self._full = True
            return None
        try:
            client = _Client(self._find(number))
        except OSError:
            return None
        self._clients[number] = client
        return client

    def _make_room(self) -> bool:
        """Hang up on the thread that has asked for nothing for longest, and has bound nothing; whether there is one."""
        idle = [
            (client.connection.used, number)
            for number, client in self._clients.items()
            if not client.connection.busy and client not in self._bound.values()
        ]
        if idle:
            self._drop(min(idle)[1])
        return bool(idle)

    def _sweep(self) -> None:
        """Hang up on threads that have ended, and on nobody; and forget what processes have bound that have ended."""
        since = monotonic() - _LOOK
        for connection in [one for one in self._spare if one.closed or one.used <= since]:
            self._spare.remove(connection)
            self._open.discard(connection)
            connection.close()
        for number in [number for number, client in self._clients.items() if client.thread.ended()]:
            self._drop(number)
        for pid in [pid for pid, client in self._bound.items() if client.thread.process_ended()]:
            client = self._bound.pop(pid)
            if client not in self._clients.values():
                client.thread.close()

    def _drop(self, number: int) -> None:
        client = self._clients.pop(number)
        client.connection.close()
        self._open.discard(client.connection)
        if client not in self._bound.values():
            client.thread.close()
